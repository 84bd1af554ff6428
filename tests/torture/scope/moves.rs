//! What can happen next.

use pipeline::machine::attempt::AttemptPhase;
use pipeline::machine::id::AttemptId;
use pipeline::machine::{Event, EventBody, next_deadline, step};
use pipeline::observe::waiting::Waits;

use super::config::{Config, NOW};
use super::node::{How, Monitor, Move, Node, Who};
use super::world::{Answer, Ending, Flaw, Op, Stand};

/// Most answers taken in by one cycle.
const BATCH_MAX: usize = 2;

impl Node {
    /// Returns all that can happen next, always in the same order.
    pub fn moves(&self, config: &Config) -> Vec<Move> {
        let mut moves = Vec::new();
        match &self.monitor {
            None => moves.push(Move::Start),
            Some(monitor) if monitor.look.is_some() => moves.push(Move::TakeOver),
            Some(monitor) => self.loop_moves(monitor, config, &mut moves),
        }
        if let Some(monitor) = &self.monitor {
            self.act_moves(Who::Monitor, monitor, &mut moves);
            if self.left.crashes > 0 {
                moves.push(Move::Crash);
            }
            if self.left.fences > 0 && self.fenced.is_none() {
                moves.push(Move::Fence);
            }
        }
        if let Some(fenced) = &self.fenced {
            self.act_moves(Who::Fenced, fenced, &mut moves);
            moves.push(Move::Leave);
        }
        for (id, job) in &self.world.jobs {
            if job.stand == Stand::Running {
                moves.push(Move::End(id.clone(), Ending::Done));
                if self.left.failures > 0 {
                    moves.push(Move::End(id.clone(), Ending::Failed));
                }
                if self.left.deaths > 0 {
                    moves.push(Move::Kill(id.clone()));
                }
            }
        }
        for (place, asked) in config.commands.iter().enumerate() {
            let body = EventBody::Command(asked.clone());
            let decided = || step(&self.state, &Event { at: NOW, random: 0, body });
            if self.asked & (1 << place) == 0 && !decided().changes.is_empty() {
                moves.push(Move::Ask(place));
            }
        }
        if self.left.commits > 0 {
            moves.push(Move::Commit);
        }
        moves
    }

    fn loop_moves(&self, monitor: &Monitor, config: &Config, moves: &mut Vec<Move>) {
        if monitor.has_news {
            moves.push(Move::Cycle(Vec::new()));
        }
        let answers: Vec<&Answer> = monitor.inbox.iter().collect();
        let mut batches: Vec<Vec<usize>> = vec![Vec::new()];
        for _ in 0..BATCH_MAX.min(answers.len()) {
            let longer = |batch: &Vec<usize>| {
                let rest: Vec<usize> =
                    (0..answers.len()).filter(|place| !batch.contains(place)).collect();
                let batch = batch.clone();
                rest.into_iter().map(move |place| [batch.as_slice(), &[place]].concat())
            };
            batches = batches.iter().flat_map(longer).collect();
            let told = |batch: &Vec<usize>| batch.iter().map(|at| answers[*at].clone()).collect();
            moves.extend(batches.iter().map(told).map(Move::Cycle));
        }
        moves.extend(next_deadline(&self.state).filter(|at| *at > NOW).map(Move::Wake));
        let found = self.unheard(monitor, config);
        if !found.is_empty() {
            moves.push(Move::Poll(found));
        }
    }

    /// Returns what a look around would find: the base where it is not known to be, and ends that
    /// nobody is going to tell.
    fn unheard(&self, monitor: &Monitor, config: &Config) -> Vec<Answer> {
        let mut found = Vec::new();
        let is_seen = |answer: &Answer| matches!(answer, Answer::Seen { .. });
        let is_moved = self.state.base.tip.as_ref() != Some(&self.world.base);
        if is_moved && !monitor.inbox.iter().any(is_seen) && monitor.inbox.is_empty() {
            found.push(self.world.seen(config.flaw));
        }
        let running = self.state.attempts.values();
        for attempt in running.filter(|attempt| attempt.phase == AttemptPhase::Running) {
            let id = &attempt.id;
            let is_mine = |op: &Op| op.attempt() == Some(id);
            if config.flaw == Flaw::ForgetsExit
                || monitor.attends.contains(id)
                || monitor.ops.iter().any(is_mine)
                || monitor.inbox.iter().any(|answer| is_end(answer, id))
            {
                continue;
            }
            let attempt = id.clone();
            match self.world.jobs.get(id).map(|job| job.stand) {
                Some(Stand::Running) => {}
                Some(Stand::Exited(ending)) => found.push(Answer::Exited { attempt, ending }),
                Some(Stand::Died) | None => found.push(Answer::Lost { attempt }),
            }
        }
        found
    }

    fn act_moves(&self, who: Who, monitor: &Monitor, moves: &mut Vec<Move>) {
        for op in &monitor.ops {
            let mut add = |how| moves.push(Move::Act(who, op.clone(), how));
            add(How::Done);
            if self.left.faults > 0 && op.failed().is_some() {
                add(How::Failed);
                // A keeper's orders are reported as failed only when none has received them.
                if !matches!(op, Op::Start { .. }) {
                    add(How::DoneButFailed);
                }
            }
            if self.left.conflicts > 0 && matches!(op, Op::Merge { .. }) {
                add(How::Conflict);
            }
        }
    }

    /// Checks a state in which nothing more happens by itself: every task is final, or says what
    /// it waits for.
    ///
    /// # Errors
    /// What stalls in silence.
    pub fn check_rest(&self) -> Result<(), String> {
        let state = &self.state;
        if !state.is_idle() {
            return Err("nothing more happens, but the machine is not idle".into());
        }
        let mut waits = Waits::new(state);
        for task in state.tasks.values() {
            use pipeline::machine::task::TaskPhase as Phase;
            let is_explained = match &task.phase {
                Phase::Completed { .. } | Phase::Cancelled { .. } => true,
                Phase::Blocked(block) => !block.reason.is_empty(),
                Phase::Waiting | Phase::Ready { .. } | Phase::Landing { .. } => {
                    waits.reason(task).is_some_and(|reason| !reason.what.contains("next turn"))
                }
                Phase::Working { .. } => false,
            };
            if !is_explained {
                return Err(format!("{} stands at {:?} for ever", task.id, task.phase));
            }
        }
        let follows = state.rollout == pipeline::machine::mode::Rollout::Production;
        if follows && state.base.landed.as_ref() != Some(&self.world.base) {
            return Err(format!("the base does not follow: {:?}", state.base));
        }
        Ok(())
    }
}

fn is_end(answer: &Answer, id: &AttemptId) -> bool {
    matches!(answer, Answer::Exited { attempt, .. } | Answer::Lost { attempt } if attempt == id)
}
