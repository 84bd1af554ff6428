//! What the built-in presets read of limits, refused keys and overfull contexts, in the shapes in which
//! the programs print them.

use std::path::Path;

use pipeline::agent::usage::{Output, Trouble, read};
use pipeline::config::preset::load;
use pipeline::machine::attempt::FaultKind::{self, ContextExceeded, RateLimited, Unauthorized};

fn fault(preset: &str, log: &str) -> Option<Trouble> {
    let loaded = load(Path::new("/nowhere"), preset).expect("built in");
    // Programs that leave a document print their words beside it.
    let document = loaded.preset.usage_file.is_some().then_some(log.as_bytes());
    let log = if document.is_some() { b"" } else { log.as_bytes() };
    read(Output { log, document, is_whole: true }, &loaded.preset).fault
}

/// The preset, the end of its program's output, what is read of it: kind, words, end of the limit.
type Case = (&'static str, &'static str, FaultKind, &'static str, Option<&'static str>);

const CASES: &[Case] = &[
    (
        "claude",
        r#"{"type":"system","subtype":"api_retry","attempt":9,"error_status":429,"error":"rate_limit"}"#,
        RateLimited,
        "429",
        None,
    ),
    (
        "claude",
        r#"{"type":"system","subtype":"api_retry","attempt":3,"error_status":401}"#,
        Unauthorized,
        "401",
        None,
    ),
    (
        "claude",
        r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1778565600,"rateLimitType":"five_hour"}}
{"type":"assistant","error":"rate_limit","message":{"model":"<synthetic>","content":[{"type":"text","text":"You've hit your limit · resets 2pm (Asia/Shanghai)"}]}}
{"type":"result","subtype":"success","is_error":true,"result":"You've hit your limit · resets 2pm (Asia/Shanghai)"}"#,
        RateLimited,
        "You've hit your limit · resets 2pm (Asia/Shanghai)",
        // What is meant for people is less exact.
        Some("1778565600"),
    ),
    (
        "claude",
        r#"{"type":"result","is_error":true,"result":"You've hit your weekly limit · resets Oct 9 at 10am (UTC)"}"#,
        RateLimited,
        "You've hit your weekly limit · resets Oct 9 at 10am (UTC)",
        Some("Oct 9 at 10am (UTC)"),
    ),
    (
        "claude",
        r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1778565600,"rateLimitType":"five_hour"}}
{"type":"result","is_error":true,"result":"You've hit your limit"}"#,
        RateLimited,
        "You've hit your limit",
        Some("1778565600"),
    ),
    (
        "claude",
        r#"{"type":"result","is_error":true,"result":"Claude AI usage limit reached|1760000400"}"#,
        RateLimited,
        "Claude AI usage limit reached|1760000400",
        Some("1760000400"),
    ),
    (
        "claude",
        r#"{"type":"result","subtype":"success","is_error":true,"result":"Invalid API key · Fix external API key"}"#,
        Unauthorized,
        "Invalid API key · Fix external API key",
        None,
    ),
    (
        "claude",
        r#"{"type":"assistant","error":"billing_error","message":{"model":"<synthetic>","content":[{"text":"Credit balance is too low"}]}}"#,
        Unauthorized,
        "Credit balance is too low",
        None,
    ),
    (
        "claude",
        r#"{"type":"result","is_error":true,"result":"Prompt is too long"}"#,
        ContextExceeded,
        "Prompt is too long",
        None,
    ),
    (
        "codex",
        r#"{"type":"error","message":"You've hit your usage limit. To get more access now, send a request to your admin or try again at 12:16 PM."}
{"type":"turn.failed","error":{"message":"You've hit your usage limit. To get more access now, send a request to your admin or try again at 12:16 PM."}}"#,
        RateLimited,
        "You've hit your usage limit. To get more access now, send a request to your admin or try again at 12:16 PM.",
        Some("12:16 PM"),
    ),
    (
        "codex",
        r#"{"type":"turn.failed","error":{"message":"You've hit your usage limit. Upgrade to Pro or try again at Nov 25th, 2026 3:45 PM."}}"#,
        RateLimited,
        "You've hit your usage limit. Upgrade to Pro or try again at Nov 25th, 2026 3:45 PM.",
        Some("Nov 25th, 2026 3:45 PM"),
    ),
    (
        "codex",
        r#"{"type":"turn.failed","error":{"message":"Rate limit reached: please try again in 1.5s."}}"#,
        RateLimited,
        "Rate limit reached: please try again in 1.5s.",
        Some("1.5s"),
    ),
    (
        "codex",
        r#"{"type":"error","message":"Reconnecting... 2/5 (unexpected status 401 Unauthorized: no key)"}"#,
        Unauthorized,
        "Reconnecting... 2/5 (unexpected status 401 Unauthorized: no key)",
        None,
    ),
    (
        "codex",
        r#"{"type":"turn.failed","error":{"message":"Quota exceeded. Check your plan and billing details."}}"#,
        Unauthorized,
        "Quota exceeded. Check your plan and billing details.",
        None,
    ),
    (
        "codex",
        r#"{"type":"turn.failed","error":{"message":"Codex ran out of room in the model's context window."}}"#,
        ContextExceeded,
        "Codex ran out of room in the model's context window.",
        None,
    ),
    (
        "opencode",
        r#"{"type":"error","sessionID":"s","error":{"name":"APIError","data":{"message":"Slow down","statusCode":429,"responseHeaders":{"retry-after":"20"}}}}"#,
        RateLimited,
        "Slow down",
        Some("20"),
    ),
    (
        "opencode",
        r#"{"type":"error","error":{"name":"APIError","data":{"message":"Unauthorized: no such key","statusCode":401}}}"#,
        Unauthorized,
        "Unauthorized: no such key",
        None,
    ),
    (
        "opencode",
        r#"{"type":"error","error":{"name":"ContextOverflowError","data":{}}}"#,
        ContextExceeded,
        "ContextOverflowError",
        None,
    ),
    (
        "gemini",
        "Attempt 3 failed with status 429. Retrying with backoff... _ApiError: {\"error\":\n  at x",
        RateLimited,
        "Attempt 3 failed with status 429. Retrying with backoff... _ApiError: {\"error\":",
        None,
    ),
    (
        "gemini",
        r#"{"type":"result","status":"error","error":{"type":"Error","message":"[API Error: You have exhausted your quota. Your quota will reset after 12h34m16s.]"}}"#,
        RateLimited,
        "[API Error: You have exhausted your quota. Your quota will reset after 12h34m16s.]",
        Some("12h34m16s"),
    ),
    (
        "gemini",
        r#"{"type":"result","status":"error","error":{"message":"[API Error: API key not valid. Please pass a valid API key.]"}}"#,
        Unauthorized,
        "[API Error: API key not valid. Please pass a valid API key.]",
        None,
    ),
    (
        "gemini",
        r#"{"type":"result","status":"error","error":{"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."}}"#,
        ContextExceeded,
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        None,
    ),
    (
        "qwen",
        r#"{"type":"assistant","message":{"content":[{"text":"[API Error: 401 Incorrect API key provided]"}]}}
{"type":"result","subtype":"success","is_error":false,"result":"[API Error: 401 Incorrect API key provided]"}"#,
        Unauthorized,
        "[API Error: 401 Incorrect API key provided]",
        None,
    ),
    (
        "qwen",
        r#"{"type":"result","is_error":false,"result":"[API Error: 429 Rate limit reached, try again in 20s]"}"#,
        RateLimited,
        "[API Error: 429 Rate limit reached, try again in 20s]",
        Some("20s"),
    ),
    (
        "qwen",
        r#"{"type":"result","is_error":false,"result":"[API Error: 400 This model's maximum context length is 32768 tokens]"}"#,
        ContextExceeded,
        "[API Error: 400 This model's maximum context length is 32768 tokens]",
        None,
    ),
    (
        "aider",
        "litellm.AuthenticationError: AuthenticationError: OpenAIException - bad key\n",
        Unauthorized,
        "litellm.AuthenticationError: AuthenticationError: OpenAIException - bad key",
        None,
    ),
    (
        "aider",
        "litellm.RateLimitError: RateLimitError: OpenAIException - Please try again in 20s.\nRetrying in 0.2 seconds...",
        RateLimited,
        "litellm.RateLimitError: RateLimitError: OpenAIException - Please try again in 20s.",
        Some("20s"),
    ),
    (
        "aider",
        "litellm.RateLimitError: OpenAIException - You exceeded your current quota, check your plan",
        Unauthorized,
        "litellm.RateLimitError: OpenAIException - You exceeded your current quota, check your plan",
        None,
    ),
    (
        "aider",
        "Model openai/m has hit a token limit!",
        ContextExceeded,
        "Model openai/m has hit a token limit!",
        None,
    ),
    (
        "mini-swe-agent",
        r#"{"info":{"exit_status":"RateLimitError"}}"#,
        RateLimited,
        "RateLimitError",
        None,
    ),
    (
        "mini-swe-agent",
        r#"{"info":{"exit_status":"AuthenticationError"}}"#,
        Unauthorized,
        "AuthenticationError",
        None,
    ),
    (
        "mini-swe-agent",
        r#"{"info":{"exit_status":"ContextWindowExceededError"}}"#,
        ContextExceeded,
        "ContextWindowExceededError",
        None,
    ),
];

#[test]
fn each_program_tells_what_its_provider_refused_it() {
    for (preset, log, kind, text, until) in CASES {
        let expected =
            Trouble { kind: *kind, text: (*text).into(), until: until.map(str::to_owned) };
        assert_eq!(fault(preset, log), Some(expected), "{preset}: {log}");
    }
}

#[test]
fn what_an_agent_quotes_is_no_word_of_its_program() {
    let quoted = [
        (
            "claude",
            r#"{"type":"assistant","message":{"model":"m","content":[{"type":"text","text":"API Error: 429 means a rate limit; Invalid API key"}]}}"#,
        ),
        (
            "claude",
            r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"test_429 ... ok\nAPI Error: 401"}]}}"#,
        ),
        (
            "claude",
            r#"{"type":"result","is_error":false,"result":"API Error: 429 is now retried."}"#,
        ),
        (
            "claude",
            r#"{"type":"rate_limit_event","rate_limit_info":{"status":"allowed_warning","resetsAt":1778565600}}"#,
        ),
        (
            "codex",
            r#"{"type":"item.completed","item":{"type":"agent_message","text":"I hit the rate limit: 429"}}"#,
        ),
        (
            "codex",
            r#"{"type":"item.completed","item":{"type":"command_execution","aggregated_output":"401 Unauthorized"}}"#,
        ),
        ("opencode", r#"{"type":"text","part":{"text":"error 429, quota, invalid api key"}}"#),
        (
            "gemini",
            r#"{"type":"message","role":"assistant","content":"Attempt 3 failed with status 429"}"#,
        ),
        ("gemini", "the log says: Attempt 3 failed with status 429"),
        (
            "qwen",
            r#"{"type":"result","is_error":false,"result":"The test prints [API Error: 429]"}"#,
        ),
        ("aider", "    litellm.RateLimitError: quoted in an edit"),
        (
            "mini-swe-agent",
            r#"{"info":{"exit_status":"Submitted","submission":"RateLimitError 401"}}"#,
        ),
        ("mini-swe-agent", r#"{"info":{"exit_status":"LimitsExceeded"}}"#),
    ];
    for (preset, log) in quoted {
        assert_eq!(fault(preset, log), None, "{preset}: {log}");
    }
}

#[test]
fn a_limit_that_the_program_got_over_is_none() {
    let retry = r#"{"type":"system","subtype":"api_retry","error_status":429}"#;
    let answer = r#"{"type":"assistant","message":{"model":"m","content":[]}}"#;
    assert_eq!(fault("claude", &format!("{retry}\n{answer}\n")), None);
    let again = fault("claude", &format!("{retry}\n{answer}\n{retry}\n")).expect("the last word");
    assert_eq!((again.kind, again.until), (RateLimited, None));
    // A span that was waited for is over: a later word counts, in whatever form.
    let soon = r#"{"type":"error","message":"Rate limit reached: please try again in 1.3s."}"#;
    let later = r#"{"type":"error","message":"You've hit your usage limit. Upgrade to Pro or try again at Nov 25th, 2026 3:45 PM."}"#;
    let found = fault("codex", &format!("{soon}\n{later}\n")).expect("a limit");
    assert_eq!(found.until.as_deref(), Some("Nov 25th, 2026 3:45 PM"));
    // What another kind of fault named says nothing of the last one.
    let rejected = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1778565600,"rateLimitType":"x"}}"#;
    let refused = r#"{"type":"result","is_error":true,"result":"Invalid API key"}"#;
    let found = fault("claude", &format!("{rejected}\n{refused}\n")).expect("refused");
    assert_eq!((found.kind, found.until), (Unauthorized, None));
}
