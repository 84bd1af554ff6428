//! What `init` finds in a repository: how it is checked, what a fresh worktree needs.
//!
//! Looks at well-known files at the root and runs nothing. Folders below are not searched.

use std::fs;
use std::path::Path;

use crate::sys::file;

/// What was found; every list may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// For `landing.checks`.
    pub checks: Vec<String>,
    /// For `worktree.setup`.
    pub setup: Vec<String>,
    /// For `worktree.keep`.
    pub keep: Vec<String>,
    /// For `worktree.copy`.
    pub copy: Vec<String>,
}

/// Files larger than this are not looked into.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks at the folder `root`; `is_tracked` says whether git has a file at that path.
///
/// Several kinds of project may share a folder, in which case all their checks are found; `make
/// test` counts only where there is no other, since it mostly calls the others. What cannot be
/// read counts as absent.
#[must_use]
pub fn look(root: &Path, is_tracked: impl Fn(&Path) -> bool) -> Found {
    let mut found = Found::default();
    if has(root, "Cargo.toml") {
        found.checks.push("cargo test".into());
        found.keep.push("target".into());
    }
    node(root, &mut found);
    python(root, &mut found);
    if has(root, "go.mod") {
        found.checks.push("go test ./...".into());
    }
    ruby(root, &mut found);
    if found.checks.is_empty() && has_make_test(root) {
        found.checks.push("make test".into());
    }
    if has(root, ".env") && !is_tracked(Path::new(".env")) {
        found.copy.push(".env".into());
    }
    found
}

fn has(root: &Path, name: &str) -> bool {
    root.join(name).is_file()
}

fn text(root: &Path, name: &str) -> Option<String> {
    // A file that cannot be read is of no help to a guess; the person sees the result.
    let bytes = file::read_bounded(&root.join(name), FILE_BYTES_MAX).ok().flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn node(root: &Path, found: &mut Found) {
    let Some(text) = text(root, "package.json") else { return };
    let (program, setup) = if has(root, "pnpm-lock.yaml") {
        ("pnpm", "pnpm install --frozen-lockfile")
    } else if has(root, "yarn.lock") {
        ("yarn", "yarn install --frozen-lockfile")
    } else if has(root, "package-lock.json") || has(root, "npm-shrinkwrap.json") {
        ("npm", "npm ci")
    } else {
        ("npm", "npm install")
    };
    found.setup.push(setup.into());
    found.keep.push("node_modules".into());
    let package: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let script = package["scripts"]["test"].as_str().unwrap_or_default();
    // `npm init` writes a script that says so and fails.
    if !script.trim().is_empty() && !script.contains("no test specified") {
        found.checks.push(format!("{program} test"));
    }
}

fn python(root: &Path, found: &mut Found) {
    let mut prefix = "python3 -m";
    let setup = if has(root, "uv.lock") {
        prefix = "uv run";
        Some("uv sync")
    } else if has(root, "poetry.lock") {
        prefix = "poetry run";
        Some("POETRY_VIRTUALENVS_IN_PROJECT=true poetry install")
    } else if has(root, "requirements.txt") {
        prefix = ".venv/bin/python -m";
        Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
    } else {
        None
    };
    if let Some(setup) = setup {
        found.setup.push(setup.into());
        found.keep.push(".venv".into());
    }
    if has_pytest(root) {
        found.checks.push(format!("{prefix} pytest -q"));
    }
}

fn has_pytest(root: &Path) -> bool {
    let names = ["pyproject.toml", "requirements.txt", "requirements-dev.txt", "tox.ini"];
    let is_named = |name: &&str| text(root, name).is_some_and(|text| text.contains("pytest"));
    if has(root, "pytest.ini") || has(root, "conftest.py") || names.iter().any(is_named) {
        return true;
    }
    let is_test = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name == "conftest.py" || name.starts_with("test_") && name.ends_with(".py")
    };
    let entries = fs::read_dir(root.join("tests")).into_iter().flatten();
    entries.filter_map(Result::ok).any(is_test)
}

fn ruby(root: &Path, found: &mut Found) {
    if !has(root, "Gemfile") {
        return;
    }
    found.setup.push("bundle install".into());
    found.keep.push("vendor/bundle".into());
    if has(root, ".rspec") || root.join("spec").is_dir() {
        found.checks.push("bundle exec rspec".into());
    } else if has(root, "Rakefile") {
        found.checks.push("bundle exec rake".into());
    }
}

fn has_make_test(root: &Path) -> bool {
    let is_test_rule = |line: &str| {
        let Some((targets, rest)) = line.split_once(':') else { return false };
        !line.starts_with(['\t', ' ', '#'])
            && !rest.starts_with('=')
            && !rest.starts_with(":=")
            && targets.split_whitespace().any(|target| target == "test")
    };
    // In the order in which make looks for them.
    let text = ["GNUmakefile", "makefile", "Makefile"].iter().find_map(|name| text(root, name));
    text.is_some_and(|text| text.lines().any(is_test_rule))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Found, look};

    fn check(files: &[(&str, &str)], expected: [&[&str]; 4]) {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let [checks, setup, keep, copy] = expected.map(owned);
        let found = look(dir.path(), |path| path == Path::new("tracked"));
        assert_eq!(found, Found { checks, setup, keep, copy }, "{files:?}");
    }

    #[test]
    fn each_kind_of_project_is_known_by_its_files() {
        check(&[], [&[], &[], &[], &[]]);
        check(&[("Cargo.toml", "")], [&["cargo test"], &[], &["target"], &[]]);
        check(&[("go.mod", "")], [&["go test ./..."], &[], &[], &[]]);
        let package = r#"{"scripts":{"test":"jest"}}"#;
        check(
            &[("package.json", package), ("package-lock.json", "")],
            [&["npm test"], &["npm ci"], &["node_modules"], &[]],
        );
        check(
            &[("package.json", package), ("pnpm-lock.yaml", "")],
            [&["pnpm test"], &["pnpm install --frozen-lockfile"], &["node_modules"], &[]],
        );
        check(
            &[("package.json", package), ("yarn.lock", "")],
            [&["yarn test"], &["yarn install --frozen-lockfile"], &["node_modules"], &[]],
        );
        check(
            &[("pyproject.toml", "[tool.pytest.ini_options]"), ("uv.lock", "")],
            [&["uv run pytest -q"], &["uv sync"], &[".venv"], &[]],
        );
        check(
            &[("tests/test_a.py", ""), ("pyproject.toml", "")],
            [&["python3 -m pytest -q"], &[], &[], &[]],
        );
        check(
            &[("Gemfile", ""), ("Rakefile", "")],
            [&["bundle exec rake"], &["bundle install"], &["vendor/bundle"], &[]],
        );
    }

    #[test]
    fn scripts_that_test_nothing_are_no_check() {
        let placeholder = r#"{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}"#;
        let found: [&[&str]; 4] = [&[], &["npm install"], &["node_modules"], &[]];
        check(&[("package.json", placeholder)], found);
        check(&[("package.json", "{ not json")], found);
        check(&[("pyproject.toml", "[project]")], [&[], &[], &[], &[]]);
    }

    #[test]
    fn make_test_counts_where_nothing_else_is_found() {
        check(&[("Makefile", "all:\n\ntest: all\n\ttrue\n")], [&["make test"], &[], &[], &[]]);
        check(&[("Makefile", "test := x\ntest::= y\n\ttest: no\n")], [&[], &[], &[], &[]]);
        check(
            &[("Makefile", "check test:\n"), ("go.mod", "")],
            [&["go test ./..."], &[], &[], &[]],
        );
    }

    #[test]
    fn several_kinds_in_one_folder_are_all_found() {
        check(
            &[("Cargo.toml", ""), ("requirements.txt", "pytest"), (".env", "")],
            [
                &["cargo test", ".venv/bin/python -m pytest -q"],
                &["python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"],
                &["target", ".venv"],
                &[".env"],
            ],
        );
    }

    #[test]
    fn a_tracked_env_file_is_not_copied() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(".env"), "").expect("written");
        assert_eq!(look(dir.path(), |_| true), Found::default());
    }
}
