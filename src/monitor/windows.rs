//! Watches over tmux for the agents that are to run in it.
//!
//! Asked on the loop's thread, since launches must not come first: once for each version of the
//! settings that names tmux, and while it is missing once a minute.

use crate::agent::terminal::tmux;
use crate::machine::settings::LauncherKind;
use crate::machine::time::Time;
use crate::machine::{EventBody, Observation, State};

/// From one look to the next while it is missing.
const AGAIN_MS: u64 = 60_000;

/// What was found.
#[derive(Debug)]
pub struct Watch {
    lacking: fn() -> Option<String>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    /// Of the settings.
    hash: String,
    at: Time,
    lacking: Option<String>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { lacking: tmux::lacking, asked: None }
    }
}

impl Watch {
    /// Looks when that is due; returns what the machine is to be told.
    pub fn look(&mut self, state: &State, now: Time) -> Option<EventBody> {
        let lacking = if needs_tmux(state) { self.ask(state, now) } else { None };
        let is_news = state.agents.values().any(|agent| {
            let launcher = state.group_of(agent).map(|group| group.launcher);
            let is_unable = launcher == Some(LauncherKind::Tmux) && lacking.is_some();
            agent.unable.is_some() != is_unable
        });
        is_news.then_some(EventBody::Observation(Observation::TmuxSeen { lacking }))
    }

    fn ask(&mut self, state: &State, now: Time) -> Option<String> {
        let hash = &state.settings.hash;
        let is_known = self.asked.as_ref().is_some_and(|asked| {
            let is_recent = now < asked.at.plus_ms(AGAIN_MS);
            asked.hash == *hash && (asked.lacking.is_none() || is_recent)
        });
        if !is_known {
            let lacking = (self.lacking)();
            self.asked = Some(Asked { hash: hash.clone(), at: now, lacking });
        }
        self.asked.as_ref().and_then(|asked| asked.lacking.clone())
    }

    /// Returns when to look again; `None`: nothing is missing.
    pub fn due_at(&self, state: &State) -> Option<Time> {
        let asked = self.asked.as_ref().filter(|asked| asked.lacking.is_some())?;
        needs_tmux(state).then(|| asked.at.plus_ms(AGAIN_MS))
    }
}

fn needs_tmux(state: &State) -> bool {
    state.settings.agents.iter().any(|group| group.launcher == LauncherKind::Tmux)
}

#[cfg(test)]
mod tests {
    use super::{AGAIN_MS, Watch};
    use crate::machine::id::AgentName;
    use crate::machine::settings::LauncherKind;
    use crate::machine::time::Time;
    use crate::machine::{EventBody, Observation, State};
    use crate::observe::support::settings;

    #[test]
    fn missing_tmux_is_told_once_and_looked_for_again() {
        let mut settings = settings();
        settings.agents[0].launcher = LauncherKind::Tmux;
        let mut state = State::new(settings, Time::default());
        let name = AgentName::new(&state.settings.agents[0].name);
        let missing = || Some("tmux is not there".to_owned());
        let mut watch = Watch { lacking: missing, asked: None };
        let at = Time::from_ms;
        let told = watch.look(&state, at(5));
        let seen = Observation::TmuxSeen { lacking: missing() };
        assert_eq!(told, Some(EventBody::Observation(seen)));
        state.agents.get_mut(&name).expect("there").unable = missing();
        assert_eq!(watch.look(&state, at(6)), None);
        assert_eq!(watch.due_at(&state), Some(at(5 + AGAIN_MS)));
        watch.lacking = || None;
        assert_eq!(watch.look(&state, at(4 + AGAIN_MS)), None);
        let told = watch.look(&state, at(5 + AGAIN_MS));
        let seen = Observation::TmuxSeen { lacking: None };
        assert_eq!(told, Some(EventBody::Observation(seen)));
        assert_eq!(watch.due_at(&state), None);
    }
}
