#!/bin/sh
# An external scheduler, as docs/scheduler.md describes it: gives the tasks out by id, each to the
# first free agent of its stage. In pipeline.toml:
#
#   [scheduler]
#   command = ["sh", "{project}/docs/examples/scheduler.sh"]
#
# The question has a line for each task and each agent, so that grep and awk can read it.
set -eu
question=$(cat)
lines() { printf '%s\n' "$question" | grep "^{\"$1\":" || true; }

{ lines name; lines id | sort; } | awk '
    function text(key) {
        match($0, "\"" key "\":\"[^\"]*\"")
        return substr($0, RSTART + length(key) + 4, RLENGTH - length(key) - 5)
    }
    substr($0, 1, 8) == "{\"name\":" {
        names[++count] = text("name")
        match($0, "\"stages\":\\[[^]]*\\]")
        stages[count] = substr($0, RSTART, RLENGTH)
        next
    }
    {
        for (i = 1; i <= count; i++) {
            if (!(i in taken) && index(stages[i], "\"" text("stage") "\"")) {
                taken[i] = 1
                pairs = pairs comma "{\"task\":\"" text("id") "\",\"agent\":\"" names[i] "\"}"
                comma = ","
                break
            }
        }
    }
    END { printf "{\"format\":1,\"assignments\":[%s]}\n", pairs }
'
