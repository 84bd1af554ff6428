//! What `pipeline schema` prints, against what the program really writes and reads.

use std::fs;

use pipeline::config::problem::Wrong;
use pipeline::config::{ConfigError, load};
use serde_json::Value;

use crate::support::project::Project;
use crate::support::schema::fault;

fn schema(project: &Project, name: &str) -> Value {
    serde_json::from_str(&project.ok(&["schema", name])).expect("a schema is JSON")
}

fn assert_fits(schema: &Value, value: &Value, what: &str) {
    assert_eq!(fault(schema, schema, value), None, "{what}: {value:#}");
}

/// Every field of the value is named by the schema, though more may come later.
fn assert_named(schema: &Value, value: &Value, what: &str) {
    let known = schema["properties"].as_object().expect("it has properties");
    for name in value.as_object().expect("an object").keys() {
        assert!(known.contains_key(name), "{what}: `{name}` is in no schema");
    }
}

/// A project that has something of everything to show: landed, blocked, held, waiting, in work.
fn shown() -> (Project, crate::support::project::Running) {
    let project = Project::new(1);
    project.write("extra.json", r#"{"tasks":[{"id":"X","title":"With more","points":5}]}"#);
    project.commit("A backlog");
    project.ok(&["task", "add", "An epic", "--id", "EPIC", "--kind", "epic"]);
    project.ok(&["task", "add", "One", "--id", "A", "--parent", "EPIC", "--label", "l"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.ok(&["task", "import", "extra.json"]);
    project.ok(&["task", "hold", "X"]);
    project.hold("hold");
    let full = ["--touches", "src/**", "--resource", "cpu=1", "--estimate", "5m", "--body", "b"];
    project
        .ok(&[&["task", "add", "Two", "--id", "B", "--complexity", "simple"][..], &full].concat());
    project.ok(&["task", "add", "Three", "--id", "C", "--depends-on", "B"]);
    project.ok(&["task", "add", "Four", "--id", "D", "--depends-on", "A"]);
    project.ok(&["task", "cancel", "D"]);
    project.ok(&["task", "add", "Five", "--id", "E", "--needs", "gpu"]);
    let monitor = project.monitor(&[]);
    project.until("an agent to run", || project.count("wip") == 1);
    (project, monitor)
}

#[test]
fn outputs_fit_their_schemas() {
    let (project, mut monitor) = shown();
    let status = project.status();
    assert_fits(&schema(&project, "status"), &status, "status");
    assert_named(&schema(&project, "status"), &status, "status");
    assert!(!status["waiting"].as_array().expect("a list").is_empty(), "{status:#}");
    let task = schema(&project, "task");
    let list: Value = serde_json::from_str(&project.ok(&["task", "list", "--json"])).expect("JSON");
    let tasks = list["tasks"].as_array().expect("a list");
    assert_eq!(tasks.len(), 7, "{list:#}");
    for entry in tasks {
        assert_eq!(fault(&task, &task["$defs"]["entry"], entry), None, "{entry:#}");
        assert_named(&task["$defs"]["entry"], entry, "task list");
        let id = entry["id"].as_str().expect("an id");
        let shown: Value =
            serde_json::from_str(&project.ok(&["task", "show", id, "--json"])).expect("JSON");
        assert_fits(&task, &shown, id);
        assert_named(&task, &shown, id);
    }
    let state = schema(&project, "state");
    let view = project.path(".git/pipeline/state.json");
    let view =
        || serde_json::from_slice::<Value>(&fs::read(&view).expect("the view")).expect("JSON");
    project.until("the view to be new", || view()["seq"] == project.status()["seq"]);
    let view = view();
    assert_fits(&state, &view, "state.json");
    assert_named(&state, &view, "state.json");
    for (kind, all) in [("task", &view["tasks"]), ("agent", &view["agents"])] {
        for entry in all.as_object().expect("by name").values() {
            assert_named(&state["$defs"][kind], entry, kind);
        }
    }
    let journal = schema(&project, "journal");
    let mut lines = 0;
    for entry in fs::read_dir(project.path(".git/pipeline/journal")).expect("the journal") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a segment");
        for line in text.lines() {
            assert_fits(&journal, &serde_json::from_str(line).expect("JSON"), "journal");
            lines += 1;
        }
    }
    assert!(lines > 10, "{lines}");
    project.release("hold");
    monitor.signal(rustix::process::Signal::TERM);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
}

/// Returns the keys that a table of the settings knows, by asking it for one that it does not.
fn known(text: &str, table: &str) -> Vec<String> {
    let Err(ConfigError::Invalid { problems }) = load(text) else { panic!("not refused: {text}") };
    let found = problems.into_iter().find_map(|problem| match problem.what {
        Wrong::UnknownKey { key, known, .. } if key.ends_with("zzz") => Some(known),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{table} knows every key"))
}

/// Checks the keys of a table of the schema, and those of the tables within it. `wrap` puts a line
/// into the table.
fn check_keys(rule: &Value, table: &str, wrap: &dyn Fn(&str) -> String) {
    let mut expected: Vec<String> =
        rule["properties"].as_object().expect("properties").keys().cloned().collect();
    let mut found = known(&wrap("zzz = 1"), table);
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "keys of `{table}`");
    for (key, rule) in rule["properties"].as_object().expect("properties") {
        let below = format!("{table}.{key}");
        if rule.get("properties").is_some() {
            let inline = |line: &str| wrap(&format!("{key} = {{ {line} }}"));
            let open = |line: &str| format!("[{key}]\n{line}\n");
            if table.is_empty() {
                check_keys(rule, &below, &open);
            } else {
                check_keys(rule, &below, &inline);
            }
        } else if rule["items"].get("properties").is_some() {
            check_keys(&rule["items"], &below, &|line| {
                format!("[[{key}]]\nname = \"n\"\nstages = []\n{line}\n")
                    .replace(if key == "stage" { "stages = []\n" } else { "\0" }, "")
            });
        }
    }
}

#[test]
fn the_schema_of_the_settings_knows_the_keys_that_the_program_knows() {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("a folder");
    let config = schema(&project, "config");
    check_keys(&config, "", &|line| format!("{line}\n"));
}

#[test]
fn the_schema_of_the_settings_takes_what_the_program_takes() {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("a folder");
    let config = schema(&project, "config");
    let agent = "[[agent]]\nname = \"a\"\nstages = [\"test\"]\n";
    let with = |line: &str| format!("{agent}{line}\n");
    for (text, is_good) in [
        (String::new(), true),
        ("[limits]\nlog_bytes = \"64KiB\"\ncost_usd = 2.5".into(), true),
        ("[limits]\nlog_bytes = \"64 kB\"".into(), false),
        ("[limits]\nattempts_per_stage = 0".into(), false),
        ("[monitor]\npoll = { busy = \"250ms\" }\non_exit = \"drain\"".into(), true),
        ("[monitor]\npoll = { busy = \"soon\" }".into(), false),
        ("[monitor]\non_exit = \"never\"".into(), false),
        ("[retry]\nbackoff = { jitter = 2.0 }".into(), false),
        ("[rollout]\npilot = { percent = 30 }".into(), true),
        ("[rollout]\npilot = { tasks = [\"A\"] }".into(), true),
        ("[rollout]\npilot = { percent = 101 }".into(), false),
        ("[rollout]\nfallback = { window = 0 }".into(), false),
        ("[scheduler]\npolicy = \"luck\"".into(), false),
        ("[scheduler]\nresources = { db = 2, memory = \"4GiB\" }".into(), true),
        ("[landing]\nstrategy = \"manual\"".into(), true),
        ("[landing]\nstrategy = \"optimistic\"".into(), false),
        ("[landing]\nchecks = \"make\"".into(), false),
        ("[notify]\ncommand = [\"tell\", \"\"]".into(), true),
        ("[notify]\ncommand = \"tell\"".into(), false),
        ("[project]\nisolation = \"docker\"".into(), false),
        (with("command = \"make\"\ncount = 2"), true),
        (with("command = [\"make\", \"-j\"]\nenv = { A = \"1\" }"), true),
        (with("command = 1"), false),
        (with("command = \"x\"\nscale = { min = 0, max = 4 }"), true),
        (with("command = \"x\"\nscale = { min = 0 }"), false),
        (with("command = \"x\"\nsandbox = \"bwrap\""), false),
        (with("preset = \"claude\"\nmodel = \"m\"\ncomplexity = [\"complex\"]"), true),
        ("[[agent]]\nstages = [\"test\"]\ncommand = \"x\"".into(), false),
        ("[[stage]]\nshort = \"x\"".into(), false),
        ("[[stage]]\nname = \"build\"\ntimeout = \"auto\"\nsilence = \"1h\"".into(), true),
        ("[[stage]]\nname = \"build\"\ntimeout = \"late\"".into(), false),
        ("foo = 1".into(), false),
    ] {
        let value: Value = toml::from_str(&text).expect("it is TOML");
        let found = fault(&config, &config, &value);
        assert_eq!(found.is_none(), is_good, "{text}: {found:?}");
        assert_eq!(load(&text).is_ok(), is_good, "{text}: {:?}", load(&text).err());
    }
}

#[test]
fn what_init_writes_fits_the_schema_of_the_settings() {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("a folder");
    let config = schema(&project, "config");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("README", "a project\n");
    project.commit("A beginning");
    project.ok(&["init", "--agents", "shell"]);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    assert_fits(&config, &toml::from_str(&text).expect("TOML"), "pipeline.toml");
}
