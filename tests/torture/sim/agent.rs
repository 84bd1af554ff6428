//! A modelled agent or check: how it ends, what it leaves in its task file, and what its record says.

use pipeline::agent::status_line::Status;
use pipeline::agent::task_file::{TaskFile, render};
use pipeline::machine::attempt::{EndedBy, Exit};
use pipeline::machine::settings::Completion;
use pipeline::machine::time::Time;
use pipeline::machine::usage::Usage;
use pipeline::monitor::report::said_in;

use super::dice::Dice;
use super::provider::fault_of;
use super::purse::cost_of;
use super::world::{Order, Process, Truth, World};

/// What a task says is to be done: a line of ours is in it.
const BODY: &str = "Do it, then write:\n\n## Status: COMPLETED ✅\n";

/// How a process will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Done,
    /// Done, and it wrote its task file anew, without the header.
    Headless,
    /// Says completed, changed nothing.
    Idle,
    /// Says completed, exits with 1.
    Liar,
    /// Writes the marker and stays.
    Stays,
    NoMarker,
    /// Writes the marker in a code fence.
    Fenced,
    /// Leaves the file with the marker of another attempt.
    Stale,
    Fails,
    Blocks,
    Changes,
    Hangs,
    Silent,
    Crashes,
    /// Its window went away, and it was ended for that.
    WindowGone,
    Unstartable,
}

impl World {
    /// Draws how what is ordered will end.
    pub fn plan(&mut self, order: &Order, dice: &mut Dice) -> Plan {
        let bad = self.mix.bad_end;
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x7a9e);
        let is_there = order.is_in_window && order.is_work;
        if is_there && self.fails(&mut more, bad / 4, "a window goes away") {
            return Plan::WindowGone;
        }
        if !self.fails(dice, bad, "agent ends badly") {
            let odd = [Plan::Headless, Plan::Fenced][more.below(2)];
            let is_odd = order.is_work && self.fails(&mut more, bad / 4, word(odd));
            return if is_odd { odd } else { Plan::Done };
        }
        let of_work = [
            Plan::Idle,
            Plan::Liar,
            Plan::Stays,
            Plan::NoMarker,
            Plan::Stale,
            Plan::Fails,
            Plan::Blocks,
            Plan::Changes,
            Plan::Changes,
            Plan::Hangs,
            Plan::Silent,
            Plan::Crashes,
            Plan::Unstartable,
        ];
        let of_check = [Plan::Fails, Plan::Fails, Plan::Hangs, Plan::Crashes, Plan::Unstartable];
        let all: &[Plan] = if order.is_work { &of_work } else { &of_check };
        let plan = all[dice.below(all.len())];
        self.marks.hit(word(plan));
        plan
    }

    /// Ends a process: what it wrote, what is really so, and what its record says.
    pub fn end_of(&mut self, process: &Process) -> Exit {
        let (plan, order) = (process.plan, &process.order);
        let is_stopped = process.is_stopping && plan != Plan::Unstartable;
        let (code, signal, ended_by) = match plan {
            _ if is_stopped => (None, Some(15), EndedBy::Stop),
            Plan::Done | Plan::Headless | Plan::Idle => (Some(0), None, EndedBy::Exit),
            Plan::NoMarker | Plan::Fenced | Plan::Stale => (Some(0), None, EndedBy::Exit),
            Plan::Blocks | Plan::Changes => (Some(0), None, EndedBy::Exit),
            Plan::Liar | Plan::Fails => (Some(1), None, EndedBy::Exit),
            Plan::Stays => (None, Some(15), EndedBy::MarkerGrace),
            Plan::Hangs => (None, Some(15), EndedBy::Timeout),
            Plan::Silent => (None, Some(15), EndedBy::Silence),
            Plan::Crashes => (None, Some(11), EndedBy::Exit),
            // Nobody is told of it.
            Plan::WindowGone => (None, None, EndedBy::Exit),
            Plan::Unstartable => (None, None, EndedBy::SpawnFailed),
        };
        // Whose the marker is and what it says is for the program to find out.
        let marker = self.left_by(plan, order).and_then(|text| {
            let said = said_in(text.as_bytes(), &order.nonce, code);
            said.marker
        });
        let by_exit = order.completion == Completion::Exit;
        let is_proven = !is_stopped
            && match plan {
                Plan::Done | Plan::Headless | Plan::Idle | Plan::Stays => true,
                Plan::NoMarker | Plan::Fenced | Plan::Stale => by_exit,
                _ => false,
            };
        // A power cut may take the record of a start, and leave what that run wrote in the worktree:
        // the attempt is then run again in it, and git shows the work of both as its change.
        let before = self.truth.get(&order.attempt).is_some_and(|truth| truth.has_changed);
        let has_changed = before || (plan != Plan::Idle && plan != Plan::Unstartable);
        self.truth.insert(order.attempt.clone(), Truth { is_proven, has_changed });
        if let (Some(check), true) = (&order.check, plan == Plan::Done && !is_stopped) {
            self.passed.insert(check.clone());
        }
        let usage = self.usage_of(plan, order);
        let at = Time::from_ms(self.mono.get());
        Exit {
            started_at: at,
            ended_at: at,
            code,
            signal,
            ended_by,
            command_index: 0,
            leaked: u32::from(process.has_leaked),
            cpu_ms: 0,
            rss_kib_max: 0,
            usage,
            fault: if order.is_work {
                fault_of(plan, &order.attempt, self.mono.get())
            } else {
                None
            },
            marker,
            notes: String::new(),
            tail: String::new(),
        }
    }

    fn usage_of(&mut self, plan: Plan, order: &Order) -> Usage {
        let says = order.is_work && plan != Plan::Idle && plan != Plan::Unstartable;
        let resumed = order.session.as_ref();
        let mut usage =
            if says { self.sessions.told(&order.attempt, resumed) } else { Usage::default() };
        if order.is_work && resumed.is_none() {
            // What a session has cost so far is known to none that takes it up.
            usage.cost_usd_micros = cost_of(&order.attempt);
        }
        usage
    }

    /// Returns the task file as an attempt leaves it; `None` for checks, which have none.
    fn left_by(&mut self, plan: Plan, order: &Order) -> Option<String> {
        let task = order.task.as_ref().filter(|_| order.is_work)?;
        let last = std::mem::replace(&mut self.last_nonce, order.nonce.clone());
        let is_other = !last.is_empty() && last != order.nonce;
        let other = if is_other { last } else { "beef".to_owned() };
        let fresh = |nonce: &str| {
            render(&TaskFile {
                task: task.as_str().into(),
                attempt: order.attempt.as_str().into(),
                nonce: nonce.into(),
                body: BODY.into(),
                ..TaskFile::default()
            })
        };
        let (own, done) = (fresh(&order.nonce), Status::Completed.line());
        let says = |status: Status| format!("{own}{}\n", status.line());
        Some(match plan {
            Plan::Done | Plan::Idle | Plan::Liar | Plan::Stays => says(Status::Completed),
            Plan::Headless => format!("did it\n{done}\n"),
            Plan::Fails => says(Status::Failed("no".into())),
            Plan::Blocks => says(Status::Blocked("who".into())),
            Plan::Changes => says(Status::ChangesRequested("more".into())),
            Plan::Fenced => format!("{own}```\n{done}\n```\n"),
            Plan::Stale => format!("{}{done}\n", fresh(&other)),
            Plan::NoMarker
            | Plan::Hangs
            | Plan::Silent
            | Plan::Crashes
            | Plan::WindowGone
            | Plan::Unstartable => own,
        })
    }
}

/// Names a plan for the coverage marks.
pub fn word(plan: Plan) -> &'static str {
    match plan {
        Plan::Done => "agent is done",
        Plan::Headless => "agent leaves its task file without a header",
        Plan::Idle => "agent says completed and changed nothing",
        Plan::Liar => "agent says completed and exits with 1",
        Plan::Stays => "agent says completed and stays",
        Plan::NoMarker => "agent leaves no marker",
        Plan::Fenced => "agent leaves its marker in a code fence",
        Plan::Stale => "agent leaves another attempt's marker",
        Plan::Fails => "agent or check fails",
        Plan::Blocks => "agent is blocked",
        Plan::Changes => "agent requests changes",
        Plan::Hangs => "agent or check runs into its limit",
        Plan::Silent => "agent falls silent",
        Plan::Crashes => "agent or check dies of a signal",
        Plan::WindowGone => "a window goes away",
        Plan::Unstartable => "program cannot be started",
    }
}
