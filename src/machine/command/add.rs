//! `task add` and `task import`: all or nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::machine::amount;
use crate::machine::change::TaskChange;
use crate::machine::event::NewTask;
use crate::machine::graph::Sketch;
use crate::machine::id::TaskId;
use crate::machine::overlap;
use crate::machine::purse::Spent;
use crate::machine::stage;
use crate::machine::state::State;
use crate::machine::step::{self, Refusal, Step};
use crate::machine::task::{
    BODY_BYTES_MAX, Landed, Spec, TITLE_BYTES_MAX, Tally, Task, TaskKind, TaskPhase, Weight,
};
use crate::machine::time::Time;

/// Names listed in one refusal; the rest is counted.
const LISTED_MAX: usize = 20;

pub(super) fn add(state: &State, at: Time, tasks: &[NewTask]) -> Result<Step, Refusal> {
    let ids = name(state, tasks)?;
    let batch: BTreeMap<&TaskId, &NewTask> = ids.iter().zip(tasks).collect();
    let mut unknown = Vec::new();
    let mut above = Above::default();
    for (id, new) in &batch {
        check_spec(state, id, &new.spec)?;
        check_parent(state, &batch, id, &new.spec)?;
        above.look(id, |id| batch.get(id).map(|new| &new.spec))?;
        let is_known = |dep: &TaskId| state.tasks.contains_key(dep) || batch.contains_key(dep);
        for dep in new.spec.depends_on.iter().filter(|dep| !is_known(dep)) {
            if !new.may_lack_dependencies {
                unknown.push(format!("`{id}` depends on unknown `{dep}`"));
            }
        }
    }
    if !unknown.is_empty() {
        return Err(Refusal::invalid(listed(unknown))
            .with_hint("add the missing tasks, or import with `--on-missing ignore|block`"));
    }
    check_cycles(state, &batch)?;
    let mut changes = Vec::with_capacity(tasks.len());
    for (offset, (id, new)) in ids.iter().zip(tasks).enumerate() {
        let entry = state.entries + 1 + offset as u64;
        let task = Box::new(make(id, new, entry, at));
        changes.push(step::task(id, TaskChange::Added { task }));
    }
    Ok(Step::accept(changes))
}

fn make(id: &TaskId, new: &NewTask, entry: u64, at: Time) -> Task {
    let mut spec = new.spec.clone();
    for list in [&mut spec.needs, &mut spec.labels] {
        list.sort();
        list.dedup();
    }
    spec.depends_on.sort();
    spec.depends_on.dedup();
    Task {
        id: id.clone(),
        spec,
        phase: TaskPhase::Waiting,
        entry,
        is_front: new.is_front,
        is_held: new.is_held,
        created_at: at,
        updated_at: at,
        backoff_until: None,
        tally: Tally::default(),
        spent: Spent::default(),
        tip: None,
        merge_owed: None,
        resume_from: None,
        continues: None,
        approved: None,
        approval: None,
        avoid: None,
        notes: Vec::new(),
        evidence: Vec::new(),
        hint: None,
        history: Vec::new(),
        numbers: BTreeMap::new(),
        is_announced: false,
        unserved: None,
        weight: Weight::default(),
        changed: Vec::new(),
        forecast: Vec::new(),
        taken: None,
        is_by_hand: false,
        landed: Landed::default(),
    }
}

/// Gives every task its id; two that differ in case only are refused.
fn name(state: &State, tasks: &[NewTask]) -> Result<Vec<TaskId>, Refusal> {
    let given = tasks.iter().filter_map(|task| task.id.as_ref());
    let taken: BTreeSet<String> = given.map(|id| id.as_str().to_ascii_lowercase()).collect();
    let mut folded = BTreeSet::new();
    let mut number = state.index.number_max;
    let mut ids = Vec::with_capacity(tasks.len());
    for task in tasks {
        let id = task.id.clone().unwrap_or_else(|| next_id(state, &taken, &mut number));
        let lower = id.as_str().to_ascii_lowercase();
        if state.index.folded.contains(&lower) {
            let found = state.tasks.contains_key(&id);
            let how = if found { "exists" } else { "differs from another id in case only" };
            return Err(Refusal::invalid(format!("task `{id}` {how}")));
        }
        if !folded.insert(lower) {
            let reason = format!("task `{id}` stands twice in the input (case does not count)");
            return Err(Refusal::invalid(reason));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Returns the next unused id of the form `TASK-001`. Cost: what `taken` has in the way.
fn next_id(state: &State, taken: &BTreeSet<String>, number: &mut u64) -> TaskId {
    loop {
        *number += 1;
        let id = format!("TASK-{number:03}");
        let lower = id.to_ascii_lowercase();
        if !taken.contains(&lower) && !state.index.folded.contains(&lower) {
            return TaskId::new(id);
        }
    }
}

/// Checks what does not depend on other tasks.
pub(super) fn check_spec(state: &State, id: &TaskId, spec: &Spec) -> Result<(), Refusal> {
    if spec.title.trim().is_empty() {
        return Err(Refusal::invalid(format!("task `{id}` has no title")));
    }
    if spec.title.len() > TITLE_BYTES_MAX {
        let reason = format!("the title of task `{id}` is longer than {TITLE_BYTES_MAX} bytes");
        return Err(Refusal::invalid(reason));
    }
    if spec.body.len() > BODY_BYTES_MAX {
        let reason = format!("the body of task `{id}` is longer than {BODY_BYTES_MAX} bytes");
        return Err(Refusal::invalid(reason));
    }
    if spec.depends_on.contains(id) {
        return Err(Refusal::invalid(format!("task `{id}` depends on itself")));
    }
    for glob in &spec.touches {
        if let Err(why) = overlap::check(glob) {
            let reason = format!("task `{id}` touches glob `{}`, which {why}", glob.escape_debug());
            return Err(Refusal::invalid(reason));
        }
    }
    for (name, text) in &spec.resources {
        if amount::parse(name, text).is_none() {
            let reason = format!("task `{id}`: `{}` is no amount of `{name}`", text.escape_debug());
            let example = amount::example(name);
            return Err(Refusal::invalid(reason).with_hint(format!("expected e.g. {example}")));
        }
    }
    for name in &spec.stages {
        if state.settings.stage(name.as_str()).is_none() {
            let known: Vec<&str> = state.settings.stages.iter().map(|s| s.name.as_str()).collect();
            let reason = format!("task `{id}` names an unknown stage `{name}`");
            return Err(
                Refusal::invalid(reason).with_hint(format!("the stages are {}", known.join(", ")))
            );
        }
    }
    let probe = NewTask {
        id: None,
        spec: spec.clone(),
        is_front: false,
        is_held: false,
        may_lack_dependencies: false,
    };
    let probe = make(id, &probe, 0, Time::default());
    if spec.kind == TaskKind::Task && stage::first(&state.settings, &probe).is_none() {
        return Err(Refusal::invalid(format!("task `{id}` would pass through no stage"))
            .with_hint("its stages and labels match none of the configured stages"));
    }
    Ok(())
}

fn check_parent(
    state: &State,
    batch: &BTreeMap<&TaskId, &NewTask>,
    id: &TaskId,
    spec: &Spec,
) -> Result<(), Refusal> {
    let Some(parent) = &spec.parent else { return Ok(()) };
    let kind = state.tasks.get(parent).map(|task| task.spec.kind);
    let kind = kind.or_else(|| batch.get(parent).map(|new| new.spec.kind));
    match kind {
        Some(TaskKind::Epic) => Ok(()),
        Some(TaskKind::Task) => {
            Err(Refusal::invalid(format!("the parent `{parent}` of task `{id}` is not an epic")))
        }
        None => Err(Refusal::invalid(format!("task `{id}` names an unknown epic `{parent}`"))
            .with_hint(format!("add it first: pipeline task add --kind epic --id {parent} TITLE"))),
    }
}

/// A walk upwards from task after task that looks at each epic once.
#[derive(Default)]
pub(super) struct Above<'a> {
    /// Looked at, with the number of the walk.
    seen: BTreeMap<&'a TaskId, usize>,
    walks: usize,
}

impl<'a> Above<'a> {
    /// Refuses a task that is, by way of its parents, below itself. What `spec_of` does not know ends
    /// the walk: tasks that are there already are below none that is new.
    pub(super) fn look(
        &mut self,
        id: &'a TaskId,
        spec_of: impl Fn(&TaskId) -> Option<&'a Spec>,
    ) -> Result<(), Refusal> {
        self.walks += 1;
        let mut next = Some(id);
        while let Some(id) = next {
            if let Some(walk) = self.seen.get(id) {
                return if *walk == self.walks {
                    Err(Refusal::invalid(format!("task `{id}` would be below itself")))
                } else {
                    Ok(())
                };
            }
            self.seen.insert(id, self.walks);
            next = spec_of(id).and_then(|spec| spec.parent.as_ref());
        }
        Ok(())
    }
}

/// Refuses a batch that closes a cycle. Looks at old tasks only where they wait for a new id.
fn check_cycles(state: &State, batch: &BTreeMap<&TaskId, &NewTask>) -> Result<(), Refusal> {
    let is_awaited =
        |id: &TaskId| state.index.links(id).is_some_and(|links| !links.dependents.is_empty());
    let mut sketch = Sketch::default();
    for (id, new) in batch {
        draw(&mut sketch, id, &new.spec);
    }
    if batch.keys().any(|id| is_awaited(id)) {
        for task in state.tasks.values() {
            draw(&mut sketch, &task.id, &task.spec);
        }
    }
    refuse_cycles(sketch)
}

/// Adds a task and what it depends on.
pub(super) fn draw<'a>(sketch: &mut Sketch<'a>, id: &'a TaskId, spec: &'a Spec) {
    for dep in &spec.depends_on {
        sketch.dependency(Cow::Borrowed(dep.as_str()));
    }
    sketch.task(Cow::Borrowed(id.as_str()));
}

/// Refuses dependencies that form a cycle, with every cycle as a path.
pub(super) fn refuse_cycles(sketch: Sketch<'_>) -> Result<(), Refusal> {
    let graph = sketch.graph();
    let report = graph.report();
    if report.cycle_count == 0 {
        return Ok(());
    }
    let line = |cycle: &Vec<u32>| format!("dependencies form a cycle: {}", graph.path(cycle));
    let mut lines: Vec<String> = report.cycles.iter().map(line).collect();
    if report.cycle_count > lines.len() {
        lines.push(format!("and {} more cycles", report.cycle_count - lines.len()));
    }
    Err(Refusal::invalid(lines.join("; ")))
}

fn listed(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(LISTED_MAX);
    lines.truncate(LISTED_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::Above;
    use crate::machine::id::TaskId;
    use crate::machine::task::Spec;

    #[test]
    fn each_nested_epic_is_looked_at_once() {
        let ids: Vec<TaskId> = (0..1000).map(|n| TaskId::new(format!("E{n:04}"))).collect();
        let below = |id: &TaskId| Spec { parent: Some(id.clone()), ..Spec::default() };
        let mut specs: Vec<Spec> = ids[..999].iter().map(below).collect();
        specs.insert(0, Spec::default());
        let looked = Cell::new(0);
        let place = |id: &TaskId| ids.iter().position(|other| other == id).expect("it is there");
        let spec_of = |id: &TaskId| {
            looked.set(looked.get() + 1);
            Some(&specs[place(id)])
        };
        let mut above = Above::default();
        assert!(ids.iter().all(|id| above.look(id, spec_of).is_ok()));
        assert_eq!(looked.get(), ids.len());
        // From below the first one is never reached again; from within the ring it is.
        let ring = [below(&ids[1]), below(&ids[2]), below(&ids[1])];
        let mut above = Above::default();
        let refused = above.look(&ids[0], |id| Some(&ring[place(id)]));
        assert!(refused.is_err_and(|why| why.reason.contains("`E0001` would be below itself")));
    }
}
