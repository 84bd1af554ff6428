//! Agents in a terminal that people can watch: a window of tmux for each agent.
//!
//! The keeper stays outside of tmux. In the agent's window runs the [`shim`], which the keeper
//! orders over a socket; it starts a fresh program for each attempt on a pseudoterminal of its own,
//! copies between that and the window, and proves the end of the tree as a keeper does. [`pane`] is
//! the keeper's side, [`typing`] what is typed for the agent. tmux is a view: nothing of an outcome
//! is read from it.

pub mod face;
pub mod pane;
pub mod shim;
pub mod tmux;
pub mod typing;

use serde::{Deserialize, Serialize};

use typing::Typing;

/// What a job in a terminal has besides what every job has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The session that the window is in; letters, digits, `-` and `_`.
    pub session: String,
    /// What is typed for the agent; `None`: nothing ever is.
    pub typing: Option<Typing>,
    /// Shown above what the command writes.
    pub notice: Option<String>,
}

/// Returns the name of a project's session, made of the name of its folder.
#[must_use]
pub fn session_name(project: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = project.chars().take(40).map(plain).collect();
    if name.is_empty() { "pipeline".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::session_name;

    #[test]
    fn session_names_hold_nothing_that_tmux_reads_in_a_target() {
        assert_eq!(session_name("my shop.v2: \"x\""), "my-shop-v2---x-");
        assert_eq!(session_name(""), "pipeline");
        assert_eq!(session_name("ü"), "-");
    }
}
