//! `pipeline agent attach`: an agent's window in this terminal.

use std::io::IsTerminal;

use super::console::Console;
use super::error::Error;
use super::exit_code::Exit;
use super::project::Open;
use super::prompt::settings_of_file;
use crate::agent::rendezvous::{self, KeeperInfo};
use crate::agent::terminal::tmux::{self, Tmux};
use crate::machine::id::AgentName;
use crate::machine::settings::LauncherKind;

/// Shows the window of `name` until it is left.
pub fn run(open: &Open, name: &str, console: &mut Console<'_>) -> Result<Exit, Error> {
    let (tmux, session, window) = find(open, name, console)?;
    match tmux.attach(&session, &window) {
        Ok(status) if status.success() => Ok(Exit::Done),
        Ok(status) => Err(Error::failed(format!("tmux ended ({status})"))
            .hint("see whether the agent goes on: `pipeline status`")),
        Err(error) => Err(Error::failed("cannot start tmux").because(&error).hint("install tmux")),
    }
}

/// Returns where the window is: server, session, window.
fn find(
    open: &Open,
    name: &str,
    console: &mut Console<'_>,
) -> Result<(Tmux, String, String), Error> {
    let state = open.now().0;
    let Some(agent) = state.agents.get(&AgentName::new(name)) else {
        return Err(
            Error::invalid(format!("there is no agent `{name}`")).hint("see `pipeline agent list`")
        );
    };
    let launcher = state.group_of(agent).map(|group| group.launcher);
    if launcher != Some(LauncherKind::Tmux) {
        let told =
            Error::invalid(format!("agent `{name}` has no window: its launcher is `process`"));
        let newer = settings_of_file(open, console);
        let group = newer.as_ref().and_then(|newer| newer.group_of(&agent.name));
        let what = match group.is_some_and(|group| group.launcher == LauncherKind::Tmux) {
            true => "counts once a monitor has read it: `pipeline monitor`",
            false => "gives it one",
        };
        return Err(told
            .hint(format!("`pipeline agent logs {name} -f` follows what it writes"))
            .hint(format!("`launcher = \"tmux\"` in pipeline.toml {what}")));
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Error::usage("a window can be shown in a terminal only")
            .hint(format!("`pipeline agent logs {name} -f` follows what is written there")));
    }
    let keepers = open.project.layout.keepers();
    // Where its keeper is, which may have been started with another environment.
    let info = KeeperInfo::read(&keepers.join(name));
    let runtime = info.and_then(|info| info.socket.parent().map(ToOwned::to_owned));
    let runtime = match runtime.map_or_else(rendezvous::runtime_dir, Ok) {
        Ok(runtime) => runtime,
        Err(error) => {
            return Err(Error::failed("cannot use the runtime folder").because(&error));
        }
    };
    let tmux = Tmux::at(tmux::server_socket(&runtime, &keepers));
    let Some((session, window)) = tmux.window_of(name) else {
        let told = Error::failed(format!("agent `{name}` has no window now"));
        return Err(match tmux::lacking() {
            Some(lacking) => told.because_of(lacking).hint("install tmux"),
            None if !open.has_monitor() => {
                told.hint("`pipeline monitor` opens it with the agent's next task")
            }
            None => told.hint("it opens with the agent's next task: see `pipeline status`"),
        });
    };
    Ok((tmux, session, window))
}
