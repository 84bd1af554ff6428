//! Our own branches, and where others move them: looks at them, and what is put back, as
//! `monitor::outside` and `monitor::mend`, whose decision is the program's own.

use std::collections::BTreeMap;

use pipeline::machine::id::{AttemptId, TaskId};
use pipeline::machine::{Observation, State};
use pipeline::monitor::mend::{self, Mend};

use super::dice::Dice;
use super::repo::{Commit, LANDED, commit_of, oid, salvage_ref, task_ref};
use super::work::{Job, What};
use super::world::{Report, World};

/// Where refs stood when they were looked at.
pub type Refs = Vec<(String, Option<String>)>;

/// A branch of a person's.
const TOPIC: &str = "refs/heads/topic";

/// Branches under way back.
#[derive(Debug, Clone, PartialEq)]
pub struct Mending {
    /// What is left, the next one last.
    mends: Vec<Mend>,
    /// What was found of the next one is in salvage.
    is_pinned: bool,
    held: BTreeMap<String, String>,
}

impl Mending {
    /// Decides what is to be put back of what was seen; `None`: nothing.
    pub fn of(state: &State, seen: &Refs) -> Option<Self> {
        let mut mends = mend::all(state, seen);
        // First what may be in the way of others.
        mends.sort_by_key(|mend| mend.to.is_none());
        let is_owed = !mends.is_empty() || !state.held.is_empty();
        is_owed.then(|| Self { mends, is_pinned: false, held: BTreeMap::new() })
    }
}

fn named(text: &str) -> Commit {
    commit_of(&pipeline::machine::id::Oid::new(text))
}

/// Returns what a task's branch at `tip` has changed; `None` where git cannot tell. Tasks share files.
fn changed(task: &TaskId, tip: Option<Commit>) -> Option<Vec<String>> {
    let tip = tip.filter(|tip| tip % 11 != 0)?;
    let of_task = task.as_str().bytes().map(usize::from).sum::<usize>() % 4;
    Some(vec![format!("src/{of_task}"), format!("src/{}", 4 + tip % 8)])
}

impl World {
    /// Looks at our branches.
    pub fn our_refs(&self) -> Refs {
        let names = self.repo.names().into_iter();
        let ours = names.filter(|name| name.starts_with("refs/heads/pipeline/"));
        let stands = |name: &String| self.repo.read(name).map(|at| oid(at).as_str().to_owned());
        ours.map(|name| (name.clone(), stands(&name))).collect()
    }

    /// Returns whether somebody has a branch checked out.
    pub fn is_held(&self, name: &str) -> bool {
        self.theirs.contains_key(name) && name != TOPIC
    }

    /// One step of putting branches back; returns what is still to be done, or what to tell.
    pub fn mend(&mut self, monitor: u32, mut mending: Mending) -> Option<Mending> {
        let Some(mend) = mending.mends.last().cloned() else {
            let seen = Observation::BranchesSeen { held: mending.held };
            self.mail.push((monitor, Report::Seen(seen)));
            return None;
        };
        let found = self.repo.read(&mend.name);
        let is_there = found == mend.found.as_deref().map(named);
        let to = mend.to.as_deref().map(named);
        let ends = to.zip(found);
        let is_on_top =
            mend.name == LANDED && ends.is_some_and(|(to, found)| self.repo.holds(found, to));
        let landed = mend.landed.as_deref().map(named);
        let is_own = ends.zip(landed).is_some_and(|((to, found), landed)| {
            self.repo.holds(found, to) && self.repo.holds(landed, found)
        });
        if is_there && self.is_held(&mend.name) {
            mending.held.insert(mend.name, "mine".into());
        } else if is_there && is_own && !mend.is_preparing {
            self.marks.hit("a branch goes back from where preparing had moved it");
            self.repo.swap(&mend.name, to, found).expect("it stands there");
        } else if is_there && !is_on_top && !is_own {
            if !mending.is_pinned {
                if let Some(found) = found {
                    let short = mend.name.rsplit('/').next().unwrap_or_default();
                    self.repo.pin(&salvage_ref(&format!("{short}.found-{found}")), found);
                }
                mending.is_pinned = true;
                return Some(mending);
            }
            let mark = if to.is_some() {
                "a branch of ours is put back beside the loop"
            } else {
                "a branch that is not to be is moved away"
            };
            self.marks.hit(mark);
            self.repo.swap(&mend.name, to, found).expect("it stands there");
        }
        mending.is_pinned = false;
        mending.mends.pop();
        Some(mending)
    }

    /// One step of a look at our branches, or of putting them back.
    pub fn mend_step(&mut self, mut job: Job) {
        job.step += 1;
        match job.what {
            What::LookAtRefs(None) => {
                job.what = What::LookAtRefs(Some(self.our_refs()));
                self.jobs.push(job);
            }
            What::LookAtRefs(Some(seen)) => {
                self.mail.push((job.monitor, Report::Looked(seen)));
            }
            What::Mend(mending) => {
                if let Some(rest) = self.mend(job.monitor, mending) {
                    job.what = What::Mend(rest);
                    self.jobs.push(job);
                }
            }
            other => unreachable!("{other:?} is not of this"),
        }
    }

    /// Makes or finds the task's branch.
    pub fn branch(
        &mut self,
        task: Option<&TaskId>,
        tip: Option<Commit>,
        start: Option<Commit>,
        is_plain: bool,
        owed: &[Commit],
    ) -> Option<Commit> {
        let name = task_ref(task?);
        let at = tip.or(start)?;
        if let (Some(tip), Some(start), true) = (tip, start, is_plain)
            && start != tip
            && self.repo.holds(start, tip)
        {
            return Some(self.go_on(&name, tip, start));
        }
        if tip.is_none() {
            for landing in owed {
                let holds = self.repo.holds(at, *landing);
                assert!(holds, "I11: `{name}` begins at c{at} without c{landing}, a dependency");
            }
        }
        if let Err(found) = self.repo.swap(&name, Some(at), None)
            && found != Some(at)
            && !self.is_held(&name)
        {
            self.marks.hit("a task branch is put back");
            self.repo.put_back(&name, at, found);
        }
        Some(at)
    }

    /// Something has landed, and the branch has nothing of its own: it goes on from there.
    fn go_on(&mut self, name: &str, tip: Commit, start: Commit) -> Commit {
        let found = self.repo.read(name);
        let is_between =
            |found: &Commit| self.repo.holds(*found, tip) && self.repo.holds(start, *found);
        if self.is_held(name) {
            return start;
        }
        if found.as_ref().is_some_and(is_between) {
            self.marks.hit("a branch goes on from what has landed");
            self.repo.swap(name, Some(start), found).expect("it stands there");
            return start;
        }
        self.marks.hit("a task branch is put back");
        self.repo.put_back(name, tip, found);
        tip
    }

    /// One step of moving a task's branch to what an attempt left, as `monitor::work`.
    pub fn advance_branch(
        &mut self,
        step: u32,
        attempt: AttemptId,
        task: &TaskId,
        from: Option<Commit>,
        to: Option<Commit>,
    ) -> Option<Observation> {
        let name = task_ref(task);
        if self.is_held(&name) {
            return Some(Observation::Advanced { attempt, changed: changed(task, to) });
        }
        if step == 0 {
            if let Err(found) = self.repo.swap(&name, to, from)
                && let Some(to) = to
                && found != Some(to)
            {
                self.marks.hit("a task branch is put back");
                self.repo.put_back(&name, to, found);
            }
            return None;
        }
        if self.repo.read(&name) == to {
            let pin = salvage_ref(attempt.as_str());
            let _ = self.repo.swap(&pin, None, to);
        }
        Some(Observation::Advanced { attempt, changed: changed(task, to) })
    }

    /// What people have is as they left it.
    pub fn nothing_of_theirs_is_moved(&self) {
        for (name, at) in &self.theirs {
            let found = self.repo.read(name);
            assert_eq!(found, Some(*at), "`{name}` is a person's, and was moved");
        }
    }

    /// Somebody has no branch of ours checked out any more.
    pub fn leave_branches(&mut self) {
        self.theirs.retain(|name, _| name == TOPIC);
    }
}

/// A person, or an agent that oversteps, does something to branches that is not to be undone, or in
/// our part of them.
pub fn meddle(state: &State, world: &mut World, dice: &mut Dice) -> &'static str {
    let any = world.repo.any(dice.below(usize::MAX));
    let new = world.repo.make_new(&[any]);
    let mark = match dice.below(6) {
        0 => {
            world.repo.meddle(TOPIC, Some(new));
            world.theirs.insert(TOPIC.into(), new);
            "somebody moves a branch of a person's"
        }
        1 => {
            let name = format!("refs/heads/pipeline/mine-{}", dice.below(3));
            // Whatever it is: it must not be lost.
            world.repo.keep(new);
            world.repo.meddle(&name, Some(new));
            "somebody makes a branch in our part"
        }
        2 | 3 => {
            let tasks = state.tasks.values().filter(|it| it.taken.is_none() && !it.is_final());
            let names = tasks
                .map(|task| task_ref(&task.id))
                .filter(|name| world.repo.read(name).is_some() && !world.theirs.contains_key(name));
            let Some(name) = dice.pick(&names.collect::<Vec<_>>()) else { return "" };
            let mut at = world.repo.read(&name).expect("it is there");
            if dice.permille(700) {
                let mine = world.repo.make_new(&[at]);
                world.repo.keep(mine);
                world.repo.swap(&name, Some(mine), Some(at)).expect("it stands there");
                at = mine;
            }
            world.theirs.insert(name, at);
            "somebody has a branch of ours checked out"
        }
        _ => {
            world.leave_branches();
            "somebody leaves the branches of ours"
        }
    };
    world.marks.hit(mark);
    mark
}
