//! The one way to call git: fixed environment, fixed settings, no terminal, whole answers.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::error::{GitError, Stderr};
use super::gate::Gate;
use super::index_lock::IndexLock;
use crate::sys::child::{self, Heard, Stop};
use crate::sys::fail;
use crate::sys::file::unnamed;

/// Longest time a call that only reads or moves refs may take; it takes milliseconds.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest time a call may take that goes through all files of a tree.
const LIMIT_OF_TREES: Duration = Duration::from_secs(600);
/// Commands that go through all files of a tree.
const OF_TREES: [&str; 10] = [
    "add",
    "bundle",
    "clean",
    "commit",
    "diff",
    "merge",
    "merge-tree",
    "read-tree",
    "status",
    "worktree",
];

/// What our own writes sync, here and in the agents' git: git by default syncs no ref and no loose
/// object (measured with strace on 2.47).
pub(super) const FSYNC: &str = "committed,loose-object,reference";

/// Settings of every call; the user's identity, filters, line ends and merge drivers still count.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.fsmonitor=false",
    "core.splitIndex=false",
    "core.quotePath=false",
    "merge.conflictStyle=diff3",
    "merge.autoStash=false",
    "rerere.enabled=false",
    "submodule.recurse=false",
    "i18n.commitEncoding=UTF-8",
    "advice.detachedHead=false",
    "advice.addEmbeddedRepo=false",
];

/// What all calls of a repository have in common. The variables are put into every call by tests, to
/// be independent of the developer's settings.
#[derive(Debug, Clone, Default)]
pub(super) struct Git {
    pub(super) env: Vec<(OsString, OsString)>,
    /// What ends its calls early; `None`: nothing.
    pub(super) stop: Option<Arc<Stop>>,
}

/// Runs what follows the paths of an index and of its lock, and puts the copy that was written in the
/// index's place: also where nobody waits for it any more. The lock's text is no argument: it names the
/// monitor, and who ends that by what is in its arguments must not end this too.
const AND_INSTALL: &str = r#"index=$1 lock=$2; shift 2; command "$@"; code=$?
ours() { read -r it <"$lock" && [ "$it" = "$PIPELINE_LOCK_TEXT" ]; }
[ $code != 0 ] || {
    ours && command mv -f -- "$GIT_INDEX_FILE" "$index" && ours && command rm -f -- "$lock"
}
exit $code"#;

/// A shell ends with so much and a signal's number where that ended its last command.
const SIGNALED: i32 = 128;

enum Input<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Gate(&'a Gate<'a>),
}

/// One call of git that has not been made yet.
pub(super) struct Call<'a> {
    point: &'static str,
    dir: &'a Path,
    settings: Vec<&'static str>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    input: Input<'a>,
    index: Option<&'a IndexLock>,
    /// `None`: by what the command is.
    limit: Option<Duration>,
}

impl<'a> Call<'a> {
    /// A call that only reads; `point` names its fail point.
    pub(super) fn read(point: &'static str, dir: &'a Path) -> Self {
        let (settings, args, env) = (Vec::new(), Vec::new(), Vec::new());
        let (input, index, limit) = (Input::Nothing, None, None);
        Self { point, dir, settings, args, env, input, index, limit }
    }

    /// The same for a call that writes: who reads the code sees which ones do.
    pub(super) fn write(point: &'static str, dir: &'a Path) -> Self {
        Self::read(point, dir)
    }

    pub(super) fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Has git take this setting, `name=value`, for this call.
    pub(super) fn setting(mut self, setting: &'static str) -> Self {
        self.settings.push(setting);
        self
    }

    /// Gives the call `limit` of time instead of what its command has.
    pub(super) fn limited(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Gives `bytes` to git's standard input.
    pub(super) fn bytes(mut self, bytes: &'a [u8]) -> Self {
        self.input = Input::Bytes(bytes);
        self
    }

    /// Lets git hold `gate` with us, so that it stays closed should git outlive this process.
    pub(super) fn gate(mut self, gate: &'a Gate<'a>) -> Self {
        self.input = Input::Gate(gate);
        self
    }

    /// Lets git work on the copy of a locked index, which then comes in its place where git ends well.
    pub(super) fn index(mut self, lock: &'a IndexLock) -> Self {
        self.index = Some(lock);
        self.env("GIT_INDEX_FILE", &lock.copy).env("PIPELINE_LOCK_TEXT", &lock.text)
    }

    /// Returns how long the call may take. Nothing a person should have to wait for longer: what
    /// hangs on a dead disk or filter would hold up its agent, or all landings, for ever.
    fn limit(&self) -> Duration {
        let is_of_trees = self.args.iter().any(|arg| OF_TREES.iter().any(|word| arg == word));
        self.limit.unwrap_or(if is_of_trees { LIMIT_OF_TREES } else { LIMIT })
    }

    /// Returns the command line as a person would type it, without the fixed settings.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("git");
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text
    }
}

/// How a call ended, whatever the exit status.
pub(super) struct Reply {
    pub(super) call: String,
    pub(super) code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Reply {
    /// Returns the standard output without its line end, as text.
    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Returns the parts of a `-z` answer; the last one may lack its end.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.stdout.split(|byte| *byte == 0).filter(|field| !field.is_empty())
    }

    /// Returns the parts of a `-z` answer as texts; what is not UTF-8 is replaced.
    pub(super) fn texts(&self) -> Vec<String> {
        self.fields().map(|field| String::from_utf8_lossy(field).into_owned()).collect()
    }

    pub(super) fn failure(self, dir: &Path) -> GitError {
        let stderr = Stderr(self.stderr);
        GitError::Failed { call: self.call, dir: dir.into(), code: self.code, stderr }
    }
}

impl Git {
    /// Runs a call; every exit status is an answer, a death by signal or at the time limit is not.
    pub(super) fn run(&self, call: Call<'_>) -> Result<Reply, GitError> {
        let text = call.text();
        let start = |source| GitError::Start { call: text.clone(), source };
        fail::point(call.point).map_err(start)?;
        let (limit, stop) = (call.limit(), self.stop.as_deref());
        let heard =
            self.command(&call).and_then(|mut it| child::output_within(&mut it, limit, stop));
        match heard.map_err(start)? {
            Heard::Ended(output) => {
                reply(call.dir, text, output.status, output.stdout, &output.stderr)
            }
            Heard::Late(output) => {
                let stderr = Stderr(String::from_utf8_lossy(&output.stderr).into_owned());
                let limit_ms = limit.as_millis() as u64;
                Err(GitError::Late { call: text, dir: call.dir.into(), limit_ms, stderr })
            }
        }
    }

    /// Fails where calls are wanted no longer: for what git has no part in.
    pub(super) fn go_on(&self) -> Result<(), GitError> {
        let is_raised = self.stop.as_ref().is_some_and(|stop| stop.is_raised());
        let source = || io::Error::other("it is wanted no longer");
        let start = |source| GitError::Start { call: "git".into(), source };
        if is_raised { Err(start(source())) } else { Ok(()) }
    }

    /// Runs a call that must end with status 0.
    pub(super) fn ok(&self, call: Call<'_>) -> Result<Reply, GitError> {
        let dir = call.dir;
        let reply = self.run(call)?;
        if reply.code == 0 { Ok(reply) } else { Err(reply.failure(dir)) }
    }

    /// Runs a call that goes on undisturbed when this process dies: its output goes to files, since
    /// a closed pipe would end it half-way. It has no time limit: a git that is ended half-way in the
    /// person's checkout is worse than one that is waited for.
    pub(super) fn run_outliving(&self, call: Call<'_>) -> Result<Reply, GitError> {
        let text = call.text();
        let start = |source| GitError::Start { call: text.clone(), source };
        fail::point(call.point).map_err(start)?;
        let run = || -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
            let (mut out, mut err) = (unnamed()?, unnamed()?);
            let mut command = self.command(&call)?;
            command.stdout(out.try_clone()?).stderr(err.try_clone()?);
            let status = command.spawn()?.wait()?;
            Ok((status, read_whole(&mut out)?, read_whole(&mut err)?))
        };
        let (mut status, stdout, stderr) = run().map_err(start)?;
        if call.index.is_some()
            && let Some(signal) = status.code().map(|code| code - SIGNALED).filter(|it| *it > 0)
        {
            status = ExitStatus::from_raw(signal);
        }
        reply(call.dir, text, status, stdout, &stderr)
    }

    /// Builds the command: the only place that does.
    fn command(&self, call: &Call<'_>) -> io::Result<Command> {
        let mut command = match call.index {
            None => child::command("git", call.dir),
            Some(IndexLock { index, lock, .. }) => {
                let mut shell = child::command("sh", call.dir);
                shell.args(["-c", AND_INSTALL, "fast-forward"]).args([index, lock]).arg("git");
                shell
            }
        };
        shed(&mut command, std::env::vars_os().map(|(name, _)| name));
        command.envs([
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_EDITOR", "true"),
            ("GIT_SEQUENCE_EDITOR", "true"),
            ("GIT_PAGER", "cat"),
            ("GIT_REFLOG_ACTION", "pipeline"),
            // What an agent has git show in a commit's place is not what lands.
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            // Also what writes looks at submodules, by a `git status` that would lock and write theirs.
            ("GIT_OPTIONAL_LOCKS", "0"),
        ]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.envs(call.env.iter().map(|(name, value)| (name, value)));
        let settings = SETTINGS.iter().chain(&call.settings);
        command.args(settings.flat_map(|setting| ["-c", setting]));
        // What is installed once the branch has moved must be there then.
        let index = if call.index.is_some() { ",index" } else { "" };
        command.arg("-c").arg(format!("core.fsync={FSYNC}{index}")).args(&call.args);
        // A group of its own: Ctrl-C at the terminal is for us, not for a git half-way through.
        command.process_group(0);
        match call.input {
            Input::Nothing => {}
            Input::Bytes(bytes) => {
                // A file, not a pipe: no thread is needed to feed git while it answers.
                let mut file = unnamed()?;
                file.write_all(bytes)?;
                file.rewind()?;
                command.stdin(Stdio::from(file));
            }
            Input::Gate(gate) => {
                command.stdin(Stdio::from(gate.share()?));
            }
        }
        Ok(command)
    }
}

/// Removes every `GIT_*` among `inherited` from the command's environment.
fn shed(command: &mut Command, inherited: impl Iterator<Item = OsString>) {
    for name in inherited.filter(|name| name.as_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
}

fn read_whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn reply(
    dir: &Path,
    call: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: &[u8],
) -> Result<Reply, GitError> {
    let stderr = String::from_utf8_lossy(stderr).into_owned();
    match status.code() {
        Some(code) => Ok(Reply { call, code, stdout, stderr }),
        None => {
            let signal = status.signal().unwrap_or_default();
            Err(GitError::Killed { call, dir: dir.into(), signal, stderr: Stderr(stderr) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    #[test]
    fn what_stands_in_for_a_commit_is_not_looked_at() {
        let scratch = Scratch::new();
        let first = scratch.rev("HEAD");
        let second = scratch.commit_on(&first, "b", "b");
        let root = scratch.git(["commit-tree", "-m", "another root", "HEAD^{tree}"]);
        scratch.git(["replace", second.as_str(), &root]);
        assert!(scratch.repo.is_ancestor(&first, &second).unwrap());
    }

    #[test]
    fn every_inherited_git_variable_is_removed() {
        let mut command = child::command("git", Path::new("/"));
        let names = ["GIT_DIR", "GIT_INDEX_FILE", "GIT_CONFIG_COUNT", "PATH", "GITHUB_TOKEN"];
        shed(&mut command, names.iter().map(OsString::from));
        let removed: Vec<_> =
            command.get_envs().filter(|(_, v)| v.is_none()).map(|(k, _)| k.to_owned()).collect();
        assert_eq!(removed.len(), 3);
        assert!(!removed.iter().any(|name| name == "PATH" || name == "GITHUB_TOKEN"));
    }

    #[test]
    fn no_call_takes_an_optional_lock_and_nobody_is_asked() {
        let git = Git::default();
        let value = |call: Call<'_>, name: &str| {
            let command = git.command(&call).unwrap();
            let found = command.get_envs().find(|(k, _)| *k == name).and_then(|(_, v)| v);
            found.map(|v| v.to_string_lossy().into_owned())
        };
        let dir = Path::new("/");
        assert_eq!(value(Call::read("git.x", dir), "GIT_OPTIONAL_LOCKS").as_deref(), Some("0"));
        assert_eq!(value(Call::write("git.x", dir), "GIT_OPTIONAL_LOCKS").as_deref(), Some("0"));
        assert_eq!(value(Call::write("git.x", dir), "GIT_TERMINAL_PROMPT").as_deref(), Some("0"));
    }

    #[test]
    fn every_call_syncs_what_it_writes_and_runs_no_hook() {
        let call = Call::write("git.x", Path::new("/")).args(["update-ref"]);
        let command = Git::default().command(&call).unwrap();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let place = |wanted: &str| args.iter().position(|arg| arg == wanted);
        let own = place("update-ref").unwrap();
        let fsync = "core.fsync=committed,loose-object,reference";
        for setting in [fsync, "core.hooksPath=/dev/null", "gc.auto=0"] {
            assert!(place(setting).is_some_and(|at| at < own), "{args:?} lacks {setting}");
        }
    }

    #[test]
    fn what_ends_monitors_by_their_name_ends_no_fast_forward() {
        let dir = tempfile::tempdir().unwrap();
        let lock = IndexLock::new(dir.path(), dir.path(), "x");
        let call = Call::write("git.x", Path::new("/")).args(["merge"]).index(&lock);
        let command = Git::default().command(&call).unwrap();
        assert!(lock.text.contains("pipeline monitor"));
        assert!(command.get_args().all(|arg| !arg.to_string_lossy().contains("pipeline monitor")));
    }

    #[test]
    fn a_killed_git_is_an_unknown_outcome() {
        let scratch = Scratch::new();
        let args = ["-c", "alias.die=!kill -9 $PPID", "die"];
        let call = Call::write("git.x", &scratch.root).args(args);
        // The shell's parent is git itself, which starts it and waits.
        match scratch.repo.git.run(call) {
            Err(GitError::Killed { signal: 9, .. }) => {}
            other => panic!("{:?}", other.map(|reply| reply.code)),
        }
    }

    #[test]
    fn a_git_that_hangs_is_ended_with_all_it_started() {
        let scratch = Scratch::new();
        let gate = Gate::close(scratch.dir.path(), "x.lock", None, Duration::ZERO).unwrap();
        let args = ["-c", "alias.hang=!echo stuck >&2; sleep 600", "hang"];
        let mut call = Call::write("git.x", &scratch.root).args(args).gate(&gate);
        call.limit = Some(Duration::from_secs(3));
        match scratch.repo.git.run(call) {
            Err(GitError::Late { limit_ms: 3_000, stderr, .. }) => assert_eq!(stderr.0, "stuck\n"),
            other => panic!("{:?}", other.map(|reply| reply.code)),
        }
        // Whatever it started holds the gate as its standard input.
        drop(gate);
        let free = Gate::close(scratch.dir.path(), "x.lock", None, Duration::from_secs(10));
        assert!(free.is_ok(), "something of it is left");
    }

    #[test]
    fn calls_over_whole_trees_have_more_time() {
        let dir = Path::new("/");
        assert_eq!(Call::read("git.x", dir).args(["rev-parse", "HEAD"]).limit(), LIMIT);
        let call = Call::write("git.x", dir).args(["worktree", "add"]);
        assert_eq!(call.limit(), LIMIT_OF_TREES);
    }

    #[test]
    fn a_failure_keeps_the_whole_message() {
        let scratch = Scratch::new();
        let call = Call::read("git.x", &scratch.root).args(["cat-file", "-p", "nothing"]);
        match scratch.repo.git.ok(call) {
            Err(GitError::Failed { code: 128, stderr, .. }) => {
                assert!(stderr.0.contains("Not a valid object name nothing"), "{stderr}");
            }
            other => panic!("{:?}", other.map(|reply| reply.code)),
        }
    }
}
