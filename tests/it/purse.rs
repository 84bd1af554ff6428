//! Bounds on what a run and a task cost, with agents that print what they cost.

use std::fs;

use serde_json::Value;

use crate::support::project::Project;

/// Does its stage and prints what that cost; where there is no such file, it does not say so.
const PAID: &str = r#"set -eu
cat >/dev/null
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold.$PIPELINE_TASK_ID" ]; do sleep 0.02; done
echo "tokens: 1000"
if [ -e "$E2E_DIR/cost" ]; then echo "cost: $(cat "$E2E_DIR/cost")"; fi
if [ -e "$E2E_DIR/fail.$PIPELINE_TASK_ID" ]; then exit 1; fi
echo "$PIPELINE_TASK_ID" >"$PIPELINE_TASK_ID.txt"
pipeline done
"#;

const PRESET: &str = r#"about = "an agent that says what it costs"
headless = ["sh", "{project}/tools/paid.sh"]
env_allow = ["E2E_DIR"]

[[output]]
fact = "input_tokens"
pattern = 'tokens: (\d+)'

[[output]]
fact = "cost_usd"
pattern = 'cost: ([0-9.]+)'
"#;

fn settings(limits: &str) -> String {
    format!(
        "[limits]\n{limits}\n[retry]\nbackoff = {{ first = \"10ms\" }}\n[monitor]\nlaunch_rate = 0\n\
         poll = {{ busy = \"100ms\", normal = \"100ms\", idle = \"100ms\" }}\n\
         [[stage]]\nname = \"implementation\"\n\
         [[agent]]\nname = \"coder\"\nstages = [\"impl\"]\npreset = \"paid\"\n"
    )
}

/// A repository with one stage, one agent and these limits; the tasks are added.
fn paid(limits: &str, tasks: &[&str]) -> Project {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("tools/paid.sh", PAID);
    project.write("agents/presets/paid.toml", PRESET);
    project.write("pipeline.toml", &settings(limits));
    project.commit("A beginning");
    project.ok(&["init"]);
    for id in tasks {
        project.ok(&["task", "add", "A task", "--id", id]);
    }
    project
}

fn cost(project: &Project, usd: &str) {
    fs::write(project.dir().join("cost"), usd).expect("a file beside the project");
}

/// Kinds of what the journal says of bounds, with what was used.
fn told(project: &Project) -> Vec<(String, f64)> {
    let log = project.log().into_iter();
    let told =
        log.filter(|entry| entry["kind"].as_str().is_some_and(|it| it.starts_with("budget")));
    let word = |entry: &Value| entry["kind"].as_str().unwrap_or_default().to_owned();
    told.map(|entry| (word(&entry), entry["used"].as_f64().expect("a number"))).collect()
}

const UNTIL_IDLE: [&str; 4] = ["monitor", "--until-idle", "--timeout", "240s"];

#[test]
fn a_run_warns_stops_at_its_cost_and_goes_on_when_the_limit_is_raised() {
    let project = paid("cost_usd = 1", &["A", "B", "C", "D", "E"]);
    cost(&project, "0.30");
    let mut monitor = project.start(&["monitor"]);
    project.until("the budget to be used up", || project.status()["waiting"][0]["on"] == "budget");
    project.until("what is finished to land", || project.count("completed") == 4);
    assert_eq!(project.runs().len(), 4);
    let warned = [("budget_near".to_owned(), 0.9), ("budget_reached".to_owned(), 1.2)];
    assert_eq!(told(&project), warned);
    let said = monitor.said();
    assert!(said.contains("warning: $0.90 of $1.00 spent, 90 % (`limits.cost_usd`)"), "{said}");
    let status = project.status();
    assert_eq!(status["run"]["cost_usd"], 1.2, "{status}");
    assert_eq!(
        (&status["run"]["cost_limit_usd"], &status["run"]["attempts"]),
        (&1.0.into(), &4.into())
    );
    assert_eq!(project.run(&["status", "--fail-on", "stalled"]).code, Some(0));
    let text = project.ok(&["status"]);
    assert_eq!(project.headline(), "4 of 5 landed, 1 waits, 4000 tokens, cost $1.20");
    let line = "\nno new attempt starts: $1.20 of $1.00 spent: raise `limits.cost_usd`\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("budget  $1.20 of $1.00 spent: raise `limits.cost_usd`"), "{text}");

    project.write("pipeline.toml", &settings("cost_usd = 1.6"));
    project.until("the rest to land", || project.count("completed") == 5);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    assert_eq!(told(&project).last(), Some(&("budget_near".to_owned(), 1.5)));
    let agents = project.ok(&["agent", "list"]);
    assert!(agents.contains("\ncoder: 5000 tokens, cost $1.50\n"), "{agents}");
    let shown = project.ok(&["task", "show", "A"]);
    assert!(shown.contains("\nused        1000 tokens, cost $0.30\n"), "{shown}");
    project.git(&["checkout", "-q", "--", "pipeline.toml"]);
    project.assert_nothing_left();
}

#[test]
fn a_monitor_that_is_killed_takes_no_budget_along() {
    let project = paid("cost_usd = 1", &["A", "B", "C", "D", "E", "F"]);
    cost(&project, "0.30");
    for (id, landed) in [("B", 1), ("D", 3)] {
        project.hold(&format!("hold.{id}"));
        let mut monitor = project.start(&["monitor"]);
        project.until("an agent to be held", || {
            project.runs().iter().any(|run| run.starts_with(id))
                && project.count("completed") == landed
        });
        monitor.kill();
        // It ends while nobody looks.
        project.release(&format!("hold.{id}"));
    }
    let mut monitor = project.start(&["monitor"]);
    project.until("all to land for which there was money", || {
        let status = project.status();
        status["waiting"][0]["on"] == "budget" && status["counts"]["completed"] == 4
    });
    // Killed while nothing is at work.
    monitor.kill();
    let said = project.fails(1, &UNTIL_IDLE);
    assert!(said.contains("$1.20 of $1.00 spent: raise `limits.cost_usd`"), "{said}");
    assert_eq!(project.runs().len(), 4, "{}", project.story());
    assert_eq!(project.count("completed"), 4);
    // That one ended of itself: the next begins a new run.
    project.ok(&UNTIL_IDLE);
    assert_eq!((project.count("completed"), project.runs().len()), (6, 6));
    assert_eq!(project.status()["run"]["cost_usd"], 0.6);
    assert_eq!(project.status()["metrics"]["cost_usd"], 1.8);
    project.assert_nothing_left();
}

#[test]
fn a_cost_that_is_not_known_stays_unknown() {
    let project = paid("cost_usd = 0.01", &["A", "B"]);
    project.ok(&UNTIL_IDLE);
    let status = project.status();
    assert_eq!(status["metrics"]["cost_usd"], Value::Null);
    assert_eq!(
        (&status["metrics"]["cost_unknown"], &status["metrics"]["tokens"]),
        (&2.into(), &2000.into())
    );
    assert_eq!(project.headline(), "2 of 2 landed, 2000 tokens, cost unknown");
    cost(&project, "0.50");
    project.ok(&["task", "add", "One more", "--id", "C"]);
    project.ok(&UNTIL_IDLE);
    // For the tokens, and how many attempts are not known, there is no room.
    assert_eq!(project.headline(), "3 of 3 landed, cost at least $0.50");
    project.assert_nothing_left();
}

#[test]
fn a_model_without_a_price_is_not_told_to_cost_nothing() {
    let project = paid("cost_usd = 0.01", &["A"]);
    cost(&project, "0.0");
    project.ok(&UNTIL_IDLE);
    let status = project.status();
    let run = &status["run"];
    assert_eq!((&run["cost_usd"], &run["cost_unknown"]), (&Value::Null, &1.into()), "{status}");
    assert_eq!(project.headline(), "1 of 1 landed, 1000 tokens, cost unknown");
    // Its preset reads a cost, so that only what was seen tells of it.
    let said = project.run(&["doctor"]).out;
    let dumb = "warning  agents: agent `coder` did not say what 1 of 1 attempts cost: \
                `limits.cost_usd` cannot count them";
    assert!(said.contains(dumb), "{said}");
    cost(&project, "0.50");
    project.ok(&["task", "add", "One more", "--id", "B"]);
    project.ok(&UNTIL_IDLE);
    let said = project.run(&["doctor"]).out;
    assert!(said.contains("did not say what 1 of 2 attempts cost"), "{said}");
    project.write("pipeline.toml", &settings(""));
    let said = project.run(&["doctor"]).out;
    assert!(!said.contains("did not say"), "no bound needs it: {said}");
}

#[test]
fn a_task_that_costs_too_much_waits_for_a_person_and_the_others_go_on() {
    let project = paid("cost_usd_per_task = 1\nattempts_per_stage = 9", &["A", "B"]);
    cost(&project, "0.45");
    fs::write(project.dir().join("fail.A"), "").expect("a file beside the project");
    project.fails(1, &UNTIL_IDLE);
    let status = project.status();
    assert_eq!(project.count("completed"), 1, "{status}");
    let blocked = &status["blocked"][0];
    assert_eq!(
        (&blocked["class"], &blocked["attempts"]),
        (&"budget".into(), &3.into()),
        "{status}"
    );
    assert_eq!(blocked["reason"], "spent $1.35 of its $1.00 (`limits.cost_usd_per_task`)");
    assert_eq!(blocked["next"], "pipeline task retry A");
    assert_eq!(told(&project), [("budget_near".to_owned(), 0.9)]);
    fs::remove_file(project.dir().join("fail.A")).expect("it was there");
    project.ok(&["task", "retry", "A"]);
    project.ok(&UNTIL_IDLE);
    assert_eq!(project.count("completed"), 2);
    project.assert_nothing_left();
}

#[test]
fn a_key_in_the_environment_of_a_subscription_is_said() {
    let project = paid("cost_usd = 5", &[]);
    let agents = |env: &str| {
        format!(
            "[limits]\ncost_usd = 5\n[[agent]]\nname = \"coder\"\nstages = [\"impl\"]\n\
             preset = \"claude\"\n{env}[[agent]]\nname = \"judge\"\nstages = [\"super\"]\n\
             preset = \"codex\"\n"
        )
    };
    let doctor = |env: &str| {
        project.write("pipeline.toml", &agents(env));
        let mut command = project.command(&project.root, &["doctor"]);
        command.env("ANTHROPIC_API_KEY", "k").env("GEMINI_API_KEY", "g");
        let output = command.output().expect("the program starts");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let key = "warning  agents: ANTHROPIC_API_KEY is set: agent `coder` may be billed by the token, \
               not by a subscription\n         `env = { ANTHROPIC_API_KEY = \"\" }` in its \
               `[[agent]]` keeps it from it\n";
    let said = doctor("");
    assert!(said.contains(key), "{said}");
    assert!(!said.contains("GEMINI") && !said.contains("agent `judge` may be billed"), "{said}");
    let dumb = "agent `judge` does not say what it costs: `limits.cost_usd` cannot count it";
    assert!(said.contains(dumb) && !said.contains("agent `coder` does not say"), "{said}");
    for env in ["env = { ANTHROPIC_API_KEY = \"\" }\n", "env_allow = [\"PATH\", \"HOME\"]\n"] {
        let said = doctor(env);
        assert!(!said.contains("ANTHROPIC_API_KEY is set"), "{said}");
    }
}

#[test]
fn a_bound_on_tasks_alone_is_told_of_and_the_remedy_clears_every_key() {
    let project = paid("", &[]);
    let agent = "[limits]\ncost_usd_per_task = 5\n[[agent]]\nname = \"coder\"\nstages = [\"impl\"]\n\
                 preset = \"qwen\"\n";
    let doctor = |env: &str| {
        project.write("pipeline.toml", &format!("{agent}{env}"));
        let mut command = project.command(&project.root, &["doctor"]);
        command.env("OPENAI_API_KEY", "k").env("DASHSCOPE_API_KEY", "d");
        let output = command.output().expect("the program starts");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let said = doctor("");
    let dumb =
        "agent `coder` does not say what it costs: `limits.cost_usd_per_task` cannot count it";
    assert!(said.contains(dumb), "{said}");
    let keys = "DASHSCOPE_API_KEY, OPENAI_API_KEY are set: agent `coder` may be billed";
    assert!(said.contains(keys), "{said}");
    let remedy = "env = { DASHSCOPE_API_KEY = \"\", OPENAI_API_KEY = \"\" }";
    assert!(said.contains(&format!("`{remedy}` in its `[[agent]]` keeps them from it")), "{said}");
    let said = doctor(remedy);
    assert!(!said.contains("may be billed"), "{said}");
}

#[test]
fn init_says_which_key_an_agent_would_be_given() {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("README", "a project\n");
    project.commit("A beginning");
    let mut command = project.command(&project.root, &["init", "--agents", "claude,codex"]);
    let output = command.env("OPENAI_API_KEY", "k").output().expect("the program starts");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let note = "note: OPENAI_API_KEY is set: codex may be billed by the token";
    assert!(said.contains(note) && !said.contains("claude may be billed"), "{said}");
    assert!(said.contains("`env = { OPENAI_API_KEY = \"\" }`"), "{said}");
    let notes = said.lines().filter(|line| line.starts_with("note: "));
    assert!(notes.clone().count() > 4 && notes.clone().all(|line| line.len() <= 80), "{said}");
}
