//! `pipeline agent attach`: an agent's window in this terminal.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;

use super::error::Error;
use super::project::Open;
use crate::agent::rendezvous::{self, KeeperInfo};
use crate::agent::terminal::tmux::{self, Tmux};
use crate::machine::id::AgentName;
use crate::machine::settings::LauncherKind;

/// Becomes a tmux that shows the window of `name`; returns why it did not.
pub fn run(open: &Open, name: &str) -> Error {
    let state = open.now().0;
    let Some(agent) = state.agents.get(&AgentName::new(name)) else {
        return Error::invalid(format!("there is no agent `{name}`"))
            .hint("see `pipeline agent list`");
    };
    let launcher = state.group_of(agent).map(|group| group.launcher);
    if launcher != Some(LauncherKind::Tmux) {
        return Error::invalid(format!("agent `{name}` has no window: its launcher is `process`"))
            .hint(format!("`pipeline agent logs {name} -f` follows what it writes"))
            .hint("`launcher = \"tmux\"` in pipeline.toml gives it one");
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Error::usage("a window can be shown in a terminal only")
            .hint(format!("`pipeline agent logs {name} -f` follows what is written there"));
    }
    let keepers = open.project.layout.keepers();
    // Where its keeper is, which may have been started with another environment.
    let info = KeeperInfo::read(&keepers.join(name));
    let runtime = info.and_then(|info| info.socket.parent().map(ToOwned::to_owned));
    let runtime = match runtime.map_or_else(rendezvous::runtime_dir, Ok) {
        Ok(runtime) => runtime,
        Err(error) => return Error::failed("cannot use the runtime folder").because(&error),
    };
    let tmux = Tmux::at(tmux::server_socket(&runtime, &keepers));
    let Some((session, window)) = tmux.window_of(name) else {
        let told = Error::failed(format!("agent `{name}` has no window now"));
        return match tmux::lacking() {
            Some(lacking) => told.because_of(lacking).hint("install tmux"),
            None if !open.has_monitor() => {
                told.hint("`pipeline monitor` opens it with the agent's next task")
            }
            None => told.hint("it opens with the agent's next task: see `pipeline status`"),
        };
    };
    let error = tmux.attach(&session, &window).exec();
    Error::failed("cannot start tmux").because(&error).hint("install tmux")
}
