//! The environment that an agent's commands are given.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Returns the whole environment of an agent's command, sorted by name.
///
/// Of what is `inherited`, the names that one of `allow` fits pass (`*` stands for any characters);
/// a `GIT_` name only when it is written out in full. Entries that are not Unicode do not pass.
/// `extra` is put over it, and `program_dir` in front of its `PATH`.
#[must_use]
pub fn agent_env(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    allow: &[String],
    program_dir: &Path,
    extra: &[(String, String)],
) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = inherited
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| is_allowed(name, allow))
        .collect();
    env.extend(extra.iter().cloned());
    if let Some(dir) = program_dir.to_str() {
        let path = match env.get("PATH") {
            Some(path) if !path.is_empty() => format!("{dir}:{path}"),
            _ => format!("{dir}:/usr/local/bin:/usr/bin:/bin"),
        };
        env.insert("PATH".into(), path);
    }
    env.into_iter().collect()
}

fn is_allowed(name: &str, allow: &[String]) -> bool {
    allow.iter().any(|pattern| {
        pattern == name || (!name.starts_with("GIT_") && fits(pattern.as_bytes(), name.as_bytes()))
    })
}

/// Matches with `*` alone, in time linear in `name` for each star.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        if part.is_empty() {
            continue;
        }
        let Some(at) = rest.windows(part.len()).position(|window| window == part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use super::{agent_env, fits};

    fn check(inherited: &[(&str, &str)], allow: &[&str], extra: &[(&str, &str)]) -> String {
        let allow: Vec<String> = allow.iter().map(|text| (*text).to_owned()).collect();
        let extra: Vec<(String, String)> =
            extra.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let inherited = inherited.iter().map(|(name, value)| (name.into(), value.into()));
        let env = agent_env(inherited, &allow, Path::new("/opt/p"), &extra);
        env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_is_allowed_passes() {
        let env = check(
            &[("PATH", "/bin"), ("HOME", "/h"), ("AWS_KEY", "x"), ("API_A", "1")],
            &["PATH", "HOME", "API_*"],
            &[("PIPELINE_NONCE", "n")],
        );
        assert_eq!(env, "API_A=1 HOME=/h PATH=/opt/p:/bin PIPELINE_NONCE=n");
    }

    #[test]
    fn git_passes_only_when_named_in_full() {
        let inherited = [("GIT_DIR", "/g"), ("GIT_EDITOR", "vi"), ("PATH", "/bin")];
        assert_eq!(check(&inherited, &["*", "G*", "GIT_*"], &[]), "PATH=/opt/p:/bin");
        assert_eq!(check(&inherited, &["*", "GIT_EDITOR"], &[]), "GIT_EDITOR=vi PATH=/opt/p:/bin");
    }

    #[test]
    fn extra_wins_and_the_programs_folder_still_comes_first() {
        assert_eq!(check(&[("PATH", "/a")], &["*"], &[("PATH", "/b")]), "PATH=/opt/p:/b");
        assert_eq!(check(&[], &["*"], &[]), "PATH=/opt/p:/usr/local/bin:/usr/bin:/bin");
    }

    #[test]
    fn what_is_not_unicode_does_not_pass() {
        let odd = OsString::from_vec(vec![b'A', 0xff]);
        let env = agent_env([("A".into(), odd)].into_iter(), &["*".into()], Path::new("/p"), &[]);
        assert!(env.iter().all(|(name, _)| name == "PATH"), "{env:?}");
    }

    #[test]
    fn star_stands_for_any_characters() {
        let check = |pattern: &str, name: &str| fits(pattern.as_bytes(), name.as_bytes());
        assert!(check("*", "") && check("A*", "A") && check("*_KEY", "X_KEY"));
        assert!(check("A*B*C", "A1B2C") && check("**", "x") && check("AB", "AB"));
        assert!(!check("A*A", "A") && !check("AB", "ABC") && !check("A*B*C", "A1C"));
    }
}
