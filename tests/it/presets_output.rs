//! What the built-in presets read in output of the programs they are for, in the shapes in which these
//! print it.

use std::path::Path;

use pipeline::agent::usage::{Output, Reading, read};
use pipeline::config::preset::load;
use pipeline::machine::attempt::FaultKind;
use pipeline::machine::usage::Usage;

fn reading(preset: &str, log: &str) -> Reading {
    reading_of(preset, Output { log: log.as_bytes(), document: None, is_whole: true })
}

fn reading_of(preset: &str, output: Output<'_>) -> Reading {
    let loaded = load(Path::new("/nowhere"), preset).expect("built in");
    read(output, &loaded.preset)
}

/// Tokens read, written and from a cache, and millionths of a dollar.
fn used(reading: &Reading) -> [Option<u64>; 4] {
    let Usage { input_tokens, output_tokens, cached_tokens, cost_usd_micros, .. } = reading.usage;
    [input_tokens, output_tokens, cached_tokens, cost_usd_micros]
}

fn session(reading: &Reading) -> Option<&str> {
    reading.usage.session.as_deref()
}

const CLAUDE: &str = r#"{"type":"system","subtype":"init","session_id":"5a-1","tools":["Bash"],"permissionMode":"acceptEdits","analytics_disabled":true}
{"type":"system","subtype":"api_retry","attempt":1,"error_status":429,"session_id":"5a-1"}
{"type":"assistant","message":{"model":"m-1","usage":{"input_tokens":3,"output_tokens":1}},"session_id":"5a-1"}
npm warn something on standard error
{"type":"result","subtype":"success","is_error":false,"result":"All done.","session_id":"5a-1","total_cost_usd":0.01234,"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":1000,"output_tokens":42},"permission_denials":[]}
"#;

#[test]
fn claude_reports_its_run_in_the_last_event() {
    let found = reading("claude", CLAUDE);
    assert_eq!(used(&found), [Some(1_210), Some(42), Some(1_000), Some(12_340)]);
    assert_eq!(session(&found), Some("5a-1"));
    assert_eq!((found.text.as_deref(), found.error), (Some("All done."), None));
    assert_eq!(found.fault, None, "the retry met no limit any more");
    assert!(!found.usage.is_session_total);
    // Ended in the middle: nothing is known but the session.
    let cut = reading("claude", &CLAUDE[..CLAUDE.find("npm").expect("there")]);
    assert_eq!((used(&cut), session(&cut)), ([None; 4], Some("5a-1")));
    let failed = CLAUDE.replace("\"is_error\":false,\"result\":\"All done.\"", "\"is_error\":true");
    assert_eq!(reading("claude", &failed).error.as_deref(), Some("success"), "no better word");
}

#[test]
fn claude_says_what_each_message_took_in_its_transcript() {
    // Each part of a message is a line, with the numbers of all of it; helpers have their own.
    let log = r#"{"type":"permission-mode","permissionMode":"acceptEdits","sessionId":"d6-1"}
{"isSidechain":false,"type":"user","message":{"role":"user","content":"Read T.md"},"sessionId":"d6-1"}
{"isSidechain":false,"type":"assistant","message":{"id":"msg_1","model":"m-1","content":[{"type":"text","text":"I look."}],"usage":{"input_tokens":3,"cache_creation_input_tokens":100,"cache_read_input_tokens":0,"output_tokens":5}},"sessionId":"d6-1"}
{"isSidechain":false,"type":"assistant","message":{"id":"msg_1","model":"m-1","content":[{"type":"tool_use","name":"Read"}],"usage":{"input_tokens":3,"cache_creation_input_tokens":100,"cache_read_input_tokens":0,"output_tokens":20}},"sessionId":"d6-1"}
{"isSidechain":true,"type":"assistant","message":{"id":"msg_9","model":"m-1","usage":{"input_tokens":999,"output_tokens":999}},"sessionId":"d6-1"}
{"isSidechain":false,"type":"assistant","message":{"id":"msg_2","model":"m-1","content":[{"type":"text","text":"The stage is done."}],"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":103,"output_tokens":7}},"sessionId":"d6-1"}
"#;
    let found = reading("claude", log);
    assert_eq!(used(&found), [Some(208), Some(27), Some(103), None]);
    assert_eq!(
        (session(&found), found.text.as_deref()),
        (Some("d6-1"), Some("The stage is done."))
    );
    assert_eq!(found.fault, None);
    let refused = r#"{"isSidechain":false,"type":"assistant","message":{"id":"c5","model":"<synthetic>","content":[{"type":"text","text":"Invalid API key · Fix external API key"}],"usage":{"input_tokens":0,"output_tokens":0}},"error":"authentication_failed","isApiErrorMessage":true,"apiErrorStatus":401,"sessionId":"d6-1"}"#;
    let fault = reading("claude", &format!("{log}{refused}\n")).fault.expect("it was refused");
    assert_eq!(
        (fault.kind, fault.text.as_str()),
        (FaultKind::Unauthorized, "Invalid API key · Fix external API key")
    );
}

#[test]
fn codex_sums_up_in_its_transcript() {
    let log = r#"{"type":"session_meta","payload":{"id":"01a1-f","cwd":"/w"}}
{"type":"response_item","payload":{"type":"function_call","name":"exec_command"}}
{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":1000,"cached_input_tokens":10,"output_tokens":20},"last_token_usage":{"input_tokens":1000,"output_tokens":20}}}}
{"type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":2001,"cached_input_tokens":30,"output_tokens":40},"last_token_usage":{"input_tokens":1001,"output_tokens":20}}}}
{"type":"event_msg","payload":{"type":"task_complete","last_agent_message":"The stage is done."}}
"#;
    let found = reading("codex", log);
    assert_eq!(used(&found), [Some(2_001), Some(40), Some(30), None]);
    assert_eq!(
        (session(&found), found.text.as_deref()),
        (Some("01a1-f"), Some("The stage is done."))
    );
    assert_eq!(found.fault, None);
    let end = r#"{"type":"event_msg","payload":{"type":"task_complete","last_agent_message":null,"error":{"message":"unexpected status 401 Unauthorized: Incorrect API key provided"}}}"#;
    let fault = reading("codex", &format!("{log}{end}\n")).fault.expect("it was refused");
    assert_eq!(fault.kind, FaultKind::Unauthorized);
}

#[test]
fn codex_reports_the_sessions_total_and_no_money() {
    let log = r#"{"type":"thread.started","thread_id":"0199-a"}
{"type":"turn.started"}
{"type":"item.completed","item":{"id":"item_0","type":"reasoning","text":"thinking"}}
{"type":"error","message":"Reconnecting... 1/5 (unexpected status 429 Too Many Requests)"}
{"type":"item.completed","item":{"id":"item_1","type":"agent_message","text":"I changed a.rs."}}
{"type":"turn.completed","usage":{"input_tokens":300,"cached_input_tokens":120,"output_tokens":40,"reasoning_output_tokens":8}}
"#;
    let found = reading("codex", log);
    assert_eq!(used(&found), [Some(300), Some(40), Some(120), None]);
    assert_eq!(session(&found), Some("0199-a"));
    assert_eq!(found.text.as_deref(), Some("I changed a.rs."));
    assert_eq!(found.fault, None, "it went on after a retry");
    assert!(found.usage.is_session_total);
    let failed =
        reading("codex", r#"{"type":"turn.failed","error":{"message":"401 Unauthorized"}}"#);
    assert_eq!(failed.error.as_deref(), Some("401 Unauthorized"));
}

#[test]
fn opencode_reports_each_step() {
    let step = r#"{"type":"step_finish","sessionID":"ses_1","part":{"cost":0.002,"tokens":{"input":100,"output":20,"reasoning":5,"cache":{"read":30,"write":0}}}}"#;
    let log = format!(
        "{step}\n{{\"type\":\"text\",\"sessionID\":\"ses_1\",\"part\":{{\"text\":\"Done.\"}}}}\n{step}\n"
    );
    let found = reading("opencode", &log);
    assert_eq!(used(&found), [Some(260), Some(50), Some(60), Some(4_000)]);
    assert_eq!((session(&found), found.text.as_deref()), (Some("ses_1"), Some("Done.")));
    // Where the middle of the log was left out the sum is not known, and no smaller one is told.
    let cut = Output { log: log.as_bytes(), document: None, is_whole: false };
    assert_eq!(used(&reading_of("opencode", cut)), [None; 4]);
}

#[test]
fn gemini_and_qwen_report_in_their_result() {
    let gemini = r#"{"type":"init","session_id":"g-1","model":"m"}
{"type":"message","role":"user","content":"Do it."}
{"type":"message","role":"assistant","content":"I did ","delta":true}
{"type":"message","role":"assistant","content":"it.","delta":true}
{"type":"result","status":"success","stats":{"total_tokens":120,"input_tokens":100,"output_tokens":20,"cached":10,"duration_ms":5}}
"#;
    let found = reading("gemini", gemini);
    assert_eq!(used(&found), [Some(100), Some(20), Some(10), None]);
    assert_eq!((session(&found), found.text.as_deref()), (Some("g-1"), Some("I did it.")));

    let qwen = r#"{"type":"result","subtype":"success","is_error":false,"session_id":"q-1","result":"[API Error: 401 Incorrect API key provided]","usage":{"input_tokens":0,"output_tokens":0,"cache_read_input_tokens":0}}"#;
    let found = reading("qwen", qwen);
    assert_eq!(used(&found), [Some(0), Some(0), Some(0), None], "what it says is known");
    assert!(found.error.expect("told").contains("401"), "a refused key is called a success");
    assert!(found.usage.is_session_total);
}

#[test]
fn aider_and_mini_report_in_words_and_in_a_file() {
    let aider = "Aider v0.86.2\nTokens: 1.2k sent, 20 received. Cost: $0.01 message, $0.01 session.\n\
                 Applied edit to a.py\nTokens: 100 sent, 20 received.\n";
    let found = reading("aider", aider);
    assert_eq!(used(&found), [Some(1_300), Some(40), None, Some(10_000)]);
    let refused = "litellm.AuthenticationError: AuthenticationError: OpenAIException - bad key\n";
    let found = reading("aider", refused);
    assert!(found.error.expect("told").starts_with("litellm.AuthenticationError"));
    assert_eq!(found.usage, Usage::default());

    let file = br#"{"info":{"exit_status":"Submitted","submission":"diff","model_stats":{"api_calls":3,"instance_cost":0.5}},"messages":[]}"#;
    let output = Output { log: b"some text\n", document: Some(file), is_whole: true };
    let found = reading_of("mini-swe-agent", output);
    assert_eq!(used(&found), [None, None, None, Some(500_000)]);
    assert_eq!((found.text.as_deref(), found.error), (Some("diff"), None));
    let file = br#"{"info":{"exit_status":"AuthenticationError","model_stats":{}}}"#;
    let output = Output { log: b"", document: Some(file), is_whole: true };
    assert_eq!(reading_of("mini-swe-agent", output).error.as_deref(), Some("AuthenticationError"));
}

#[test]
fn a_cost_of_nothing_for_tokens_is_a_price_that_nobody_knows() {
    let step = |cost: &str, tokens: u32| {
        let log = format!(
            r#"{{"type":"step_finish","part":{{"cost":{cost},"tokens":{{"input":{tokens},"output":{tokens}}}}}}}"#
        );
        used(&reading("opencode", &log))[3]
    };
    assert_eq!((step("0", 9), step("0.0", 9)), (None, None), "a model without a price");
    assert_eq!(step("0", 0), Some(0), "no token is read or written for nothing");
    assert_eq!(step("0.0000001", 9), Some(0), "too little to count, and known");
    let mini = |cost: &str| {
        let file = format!(r#"{{"info":{{"model_stats":{{"instance_cost":{cost}}}}}}}"#);
        let output = Output { log: b"", document: Some(file.as_bytes()), is_whole: true };
        used(&reading_of("mini-swe-agent", output))[3]
    };
    assert_eq!((mini("0.0"), mini("0.25")), (None, Some(250_000)), "it tells of no tokens");
    let claude = CLAUDE.replace("0.01234", "0");
    assert_eq!(used(&reading("claude", &claude)), [Some(1_210), Some(42), Some(1_000), None]);
}

#[test]
fn odd_output_is_unknown_and_holds_nothing_up() {
    let long = format!("{{\"type\":\"result\",\"result\":\"{}ü\"}}", "ü".repeat(9_000));
    let odd = [
        "",
        "{",
        "{}\n[]\n\"x\"\n{\"type\":",
        r#"{"type":"result","usage":{"input_tokens":-5,"output_tokens":1e300},"total_cost_usd":"x"}"#,
        r#"{"type":"result","usage":{"input_tokens":null,"output_tokens":[1]},"session_id":7}"#,
    ];
    for log in odd {
        assert_eq!(used(&reading("claude", log)), [None; 4], "{log}");
    }
    let text = reading("claude", &long).text.expect("there");
    assert!(text.len() <= 4096 && text.ends_with('ü'), "bounded, at a character");
    for preset in ["shell", "person"] {
        assert_eq!(reading(preset, CLAUDE), Reading::default());
    }
}
