//! Orders on their way to keepers, as `agent::line` sends them: late, doubled, lost with their
//! connection or their keeper, and those that arrive after their monitor has died.

use pipeline::machine::attempt::{Attempt, AttemptPhase};
use pipeline::machine::id::{AgentName, AttemptId};
use pipeline::machine::{Observation, State};

use super::dice::Dice;
use super::world::{Keeper, Order, ProcessStage, Report, World};

/// What a keeper is asked for.
#[derive(Debug, Clone)]
pub enum Ask {
    Run(Box<Order>),
    Stop(AttemptId),
}

impl Ask {
    fn attempt(&self) -> &AttemptId {
        match self {
            Self::Run(order) => &order.attempt,
            Self::Stop(attempt) => attempt,
        }
    }

    /// Returns the mark of a start or of a stop.
    fn mark(&self, start: &'static str, stop: &'static str) -> &'static str {
        match self {
            Self::Run(_) => start,
            Self::Stop(_) => stop,
        }
    }
}

/// An order that has not arrived.
#[derive(Debug)]
pub struct Sent {
    monitor: u32,
    agent: AgentName,
    ask: Ask,
    /// The keeper that it is for has had it before.
    is_copy: bool,
}

impl World {
    /// Sends an order to an agent's keeper. Nothing overtakes what still waits there.
    pub fn send(&mut self, monitor: u32, agent: AgentName, ask: Ask, dice: &mut Dice) {
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x0005_e4d0);
        let waits = self.post.iter().any(|sent| (sent.monitor, &sent.agent) == (monitor, &agent));
        let late = if self.has_fates { self.mix.late } else { 0 };
        let mark = ask.mark("a start comes late", "a stop comes late");
        if waits || self.fails(&mut more, late, mark) {
            self.post.push(Sent { monitor, agent, ask, is_copy: false });
        } else {
            self.deliver(monitor, agent, ask, &mut more);
        }
    }

    /// Something that was sent arrives; returns false when nothing is on its way.
    pub fn post_step(&mut self, dice: &mut Dice) -> bool {
        if self.post.is_empty() {
            return false;
        }
        let drawn = dice.below(self.post.len());
        let of = |sent: &Sent| (sent.monitor, sent.agent.clone());
        let whose = of(&self.post[drawn]);
        // In order, for each agent.
        let first = self.post.iter().position(|sent| of(sent) == whose).unwrap_or(drawn);
        let Sent { monitor, agent, ask, is_copy } = self.post.remove(first);
        if is_copy {
            self.receive(monitor, &agent, ask);
        } else {
            self.deliver(monitor, agent, ask, dice);
        }
        true
    }

    fn deliver(&mut self, monitor: u32, agent: AgentName, ask: Ask, dice: &mut Dice) {
        let is_run = matches!(ask, Ask::Run(_));
        // Stops are few.
        let often = if is_run { 1 } else { 4 };
        let (cut, twice) = (self.mix.cut * often, self.mix.repeat * often);
        let fault = self.mix.fault;
        let is_shut = |keeper: &&Keeper| keeper.is_stopped && keeper.monitor != Some(monitor);
        let keeper = self.keepers.get(&agent).filter(|keeper| !is_shut(keeper));
        if self.has_fates && keeper.is_some() {
            let mark = ask
                .mark("a start is lost with its connection", "a stop is lost with its connection");
            if self.fails(dice, cut, mark) {
                return self.cut_off(monitor, &agent, ask.attempt().clone());
            }
        } else if self.has_fates && is_run && self.keepers.contains_key(&agent) {
            // As below: it has the lock and does not answer.
        } else if self.has_fates && is_run {
            if self.fails(dice, cut, "a start is lost with its keeper") {
                let report = self.settled(ask.attempt(), &agent);
                return self.mail.push((monitor, report));
            }
            if self.fails(dice, fault / 2, "no keeper can be started") {
                return self.refuse(monitor, ask.attempt().clone(), "no descriptors");
            }
        }
        let mark = ask.mark("a start comes twice", "a stop comes twice");
        if self.has_fates && self.fails(dice, twice, mark) {
            let (agent, ask) = (agent.clone(), ask.clone());
            self.post.push(Sent { monitor, agent, ask, is_copy: true });
        }
        self.receive(monitor, &agent, ask);
    }

    /// A keeper reads an order; where there is none, one is started for it.
    fn receive(&mut self, monitor: u32, agent: &AgentName, ask: Ask) {
        let order = match ask {
            Ask::Stop(id) => return self.stop(monitor, &id, agent),
            Ask::Run(order) => *order,
        };
        let keeper = self.keepers.entry(agent.clone()).or_default();
        if keeper.is_stopped && keeper.monitor != Some(monitor) {
            // It has the lock and does not answer.
            let why = "its keeper lives and does not answer";
            return self.refuse(monitor, order.attempt, why);
        }
        self.meet(monitor, agent);
        let keeper = self.keepers.entry(agent.clone()).or_default();
        let own = keeper.process.as_ref().filter(|run| run.order.attempt == order.attempt);
        match own.map(|run| run.stage.clone()).filter(|_| self.has_fates) {
            Some(ProcessStage::Accepted | ProcessStage::Written) => {}
            Some(ProcessStage::Running | ProcessStage::Ended(_) | ProcessStage::Recorded) => {
                self.mail.push((monitor, Report::Started(order.attempt)));
            }
            None => keeper.orders.push_back(order),
        }
    }

    /// A monitor's connection with a keeper stands; of another's nothing more is read.
    pub fn meet(&mut self, monitor: u32, agent: &AgentName) {
        let Some(keeper) = self.keepers.get_mut(agent) else { return };
        if self.has_fates && keeper.monitor != Some(monitor) && !keeper.orders.is_empty() {
            keeper.orders.clear();
            self.marks.hit("an order is dropped with a monitor's connection");
        }
        keeper.monitor = Some(monitor);
    }

    /// A keeper lets go of its monitor, which is told and looks for the attempt.
    pub fn cut_off(&mut self, monitor: u32, agent: &AgentName, attempt: AttemptId) {
        if let Some(keeper) = self.keepers.get_mut(agent) {
            keeper.monitor = None;
        }
        self.drop_copies(agent);
        self.mail.push((monitor, Report::Superseded(attempt)));
    }

    fn refuse(&mut self, monitor: u32, attempt: AttemptId, why: &str) {
        let seen = Observation::AttemptFaulted { attempt, why: why.to_owned() };
        self.mail.push((monitor, Report::Seen(seen)));
    }

    /// An agent's keeper is gone, or its connection is: nobody reads what was sent.
    pub fn drop_copies(&mut self, agent: &AgentName) {
        self.post.retain(|sent| !(sent.is_copy && sent.agent == *agent));
    }

    /// A monitor has died: what was on its way may have got into a connection that stood.
    pub fn lose_post(&mut self, monitor: u32, dice: &Dice) {
        let mut more = Dice(dice.0 ^ 0x0010_57a7);
        for Sent { agent, ask, .. } in std::mem::take(&mut self.post) {
            let keeper = self.keepers.get(&agent);
            let is_joined = keeper.is_some_and(|keeper| keeper.monitor == Some(monitor));
            if is_joined && more.permille(800) {
                self.marks.hit("an order outlives its monitor");
                self.receive(monitor, &agent, ask);
            }
        }
    }

    /// A monitor with nothing to do has had all ended that is to end: nobody would ask again.
    pub fn stops_arrive(&self, monitor: u32, state: &State) {
        if !self.post.is_empty() || !self.mail.is_empty() {
            return;
        }
        let is_owed = |attempt: &&Attempt| {
            let is_running = attempt.phase == AttemptPhase::Running && attempt.is_stopping;
            is_running && attempt.tries.until.is_none()
        };
        for Attempt { id, agent, .. } in state.attempts.values().filter(is_owed) {
            let keeper = self.keepers.get(agent).filter(|keeper| !keeper.is_stopped);
            let run = keeper.and_then(|keeper| keeper.process.as_ref());
            let run =
                run.filter(|run| run.order.attempt == *id && run.stage == ProcessStage::Running);
            let is_heeded = run.is_none_or(|run| run.is_stopping);
            assert!(is_heeded, "I21: `{id}` runs on, and monitor {monitor} does not ask again");
        }
    }
}
