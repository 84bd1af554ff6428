# Reviews: the tests pass, and one file must say what it is for.
set -eu
sh run-tests.sh
if [ "$PIPELINE_TASK_ID" = count ] && ! grep -q '^# ' bin/count.sh; then
    pipeline request-changes "say what it is for, in a comment at the top of bin/count.sh"
else
    pipeline done
fi
