//! What people do: commands in shells of their own, and meddling in the repository.

use pipeline::machine::attempt::{Attempt, AttemptPhase};
use pipeline::machine::event::{
    Dependents, Edit, GiveTo, NewTask, PilotEnd, RetryTarget, StopKind,
};
use pipeline::machine::id::{AgentName, TaskId};
use pipeline::machine::mode::{Orchestration, Rollout};
use pipeline::machine::task::{Priority, Spec, TaskKind};
use pipeline::machine::time::Time;
use pipeline::machine::{Answer, Command, Event, EventBody, State, step};

use super::dice::Dice;
use super::draw;
use super::repo::{BASE, LANDED, commit_of, oid, task_ref};
use super::world::World;

/// Most open tasks of a seed at a time.
const OPEN_MAX: usize = 6;
/// Most tasks of a seed.
const TASKS_MAX: usize = 30;

/// Draws a command that fits the state, or does not.
pub fn command(state: &State, dice: &mut Dice) -> Command {
    // Drawn apart, so that old seeds draw the rest as ever.
    let mut more = Dice(dice.0 ^ 0x5ca1e);
    if more.permille(60) {
        return scale(state, &mut more);
    }
    let mut steps = Dice(dice.0 ^ 0x9a7e);
    if steps.permille(25) {
        return step_rollout(&mut steps);
    }
    match dice.below(40) {
        0..=7 => add(state, dice),
        8..=11 => edit(state, dice),
        12 => Command::HoldTasks { ids: some(state, dice) },
        13 | 14 => Command::ReleaseTasks { ids: some(state, dice) },
        15..=19 => retry(state, dice),
        20 | 21 => {
            let kinds = [Dependents::Refuse, Dependents::Cancel, Dependents::Release];
            Command::CancelTasks { ids: some(state, dice), dependents: kinds[dice.below(3)] }
        }
        22..=24 => Command::ApproveTasks { ids: unapproved(state) },
        25 => Command::Pause,
        26..=28 => Command::Resume,
        29 => match agent(state, dice) {
            name if dice.permille(300) => Command::PauseAgent { name },
            name => Command::ResumeAgent { name },
        },
        30 => Command::ResumeAgent { name: agent(state, dice) },
        31 | 32 => switch(dice),
        33 | 34 => {
            let wide = Rollout::Production;
            let all = [Rollout::Shadow, Rollout::Pilot, wide, wide, wide, wide, wide, wide];
            Command::SetRollout { to: all[dice.below(8)], is_forced: false }
        }
        35 | 36 => adopt(state, dice),
        37 => {
            let kinds = [StopKind::Leave, StopKind::Drain, StopKind::Now, StopKind::Now];
            Command::Stop { kind: kinds[dice.below(4)] }
        }
        _ => {
            let text = some(state, dice).first().map_or("x", TaskId::as_str).to_owned();
            Command::PickTask { text }
        }
    }
}

/// Draws how a person ends an attempt that runs; `None`: none does.
pub fn interrupt(state: &State, dice: &mut Dice) -> Option<Command> {
    let runs = |attempt: &&Attempt| attempt.phase == AttemptPhase::Running;
    let running = state.attempts.values().filter(runs);
    let tasks: Vec<TaskId> = running.filter_map(|attempt| attempt.task.clone()).collect();
    let id = dice.pick(&tasks)?;
    Some(match dice.below(3) {
        0 => Command::CancelTasks { ids: vec![id], dependents: Dependents::Release },
        1 => Command::CompleteTask { id, commit: None },
        _ => Command::Stop { kind: StopKind::Now },
    })
}

/// One step on or back; what the pilot landed is dropped now and then.
fn step_rollout(dice: &mut Dice) -> Command {
    let ends = [None, Some(PilotEnd::Land), Some(PilotEnd::Drop), Some(PilotEnd::Drop)];
    match dice.below(3) {
        0 => Command::Demote,
        _ => Command::Promote { is_forced: dice.permille(700), pilot: ends[dice.below(4)] },
    }
}

fn agent(state: &State, dice: &mut Dice) -> AgentName {
    let agents: Vec<AgentName> = state.agents.keys().cloned().collect();
    dice.pick(&agents).unwrap_or_else(|| AgentName::new("nobody"))
}

fn scale(state: &State, dice: &mut Dice) -> Command {
    let groups: Vec<String> = state.settings.agents.iter().map(|it| it.name.clone()).collect();
    let group = dice.pick(&groups).unwrap_or_else(|| "nobody".into());
    Command::ScaleAgents { group, to: dice.permille(650).then(|| dice.below(4) as u32) }
}

fn switch(dice: &mut Dice) -> Command {
    let all = [Orchestration::Sequential, Orchestration::Parallel, Orchestration::Hybrid];
    let wait_ms = dice.permille(600).then(|| dice.draw() % 20_000);
    Command::SwitchMode { to: all[dice.below(3)], wait_ms, is_forced: dice.permille(300) }
}

fn adopt(state: &State, dice: &mut Dice) -> Command {
    let mut new = draw::settings(dice, Some(&state.settings));
    new.hash = format!("{:016x}", dice.draw());
    Command::AdoptSettings { settings: Box::new(new) }
}

fn some(state: &State, dice: &mut Dice) -> Vec<TaskId> {
    let all: Vec<TaskId> = state.tasks.keys().cloned().collect();
    (0..1 + dice.below(2)).filter_map(|_| dice.pick(&all)).collect()
}

/// Returns the tasks whose landing waits for a person.
pub fn unapproved(state: &State) -> Vec<TaskId> {
    let tasks = state.tasks.values();
    tasks.filter(|task| task.approval.is_some()).map(|task| task.id.clone()).collect()
}

fn labels(dice: &mut Dice) -> Vec<String> {
    if dice.permille(400) { vec!["pilot".into()] } else { Vec::new() }
}

fn needs(dice: &mut Dice) -> Vec<String> {
    if dice.permille(100) { vec!["gpu".into()] } else { Vec::new() }
}

fn touches(dice: &mut Dice) -> Vec<String> {
    let all = [&[][..], &[], &["a/*"], &["a/x", "c"], &["b/**"], &["**/x"]];
    all[dice.below(6)].iter().map(|glob| (*glob).to_owned()).collect()
}

fn priority(dice: &mut Dice) -> Priority {
    [Priority::Low, Priority::Medium, Priority::High, Priority::Critical][dice.below(4)]
}

fn add(state: &State, dice: &mut Dice) -> Command {
    let mut tasks = Vec::new();
    let known = state.tasks.len();
    let open = state.tasks.values().filter(|task| !task.is_final()).count();
    let room = OPEN_MAX.saturating_sub(open).min(1 + dice.below(3));
    for n in known..TASKS_MAX.min(known + room) {
        let first = n.saturating_sub(OPEN_MAX);
        let deps = (0..dice.below(3)).map(|_| format!("T{}", first + dice.below(n - first + 2)));
        let deps: Vec<String> = deps.filter(|dep| *dep != format!("T{n}")).collect();
        let mut spec = Spec { title: format!("T{n}"), ..Spec::default() };
        spec.depends_on = deps.iter().map(TaskId::new).collect();
        spec.priority = priority(dice);
        spec.labels = labels(dice);
        spec.needs = needs(dice);
        spec.touches = touches(dice);
        if dice.permille(150) {
            // Of `none` there is nothing: it waits until a person edits it.
            let name = if dice.permille(50) { "none" } else { "db" };
            spec.resources.insert(name.into(), "1".into());
        }
        spec.is_exclusive = dice.permille(80);
        if dice.permille(60) {
            spec.kind = TaskKind::Epic;
            spec.depends_on.clear();
        }
        tasks.push(NewTask {
            id: Some(TaskId::new(format!("T{n}"))),
            spec,
            is_front: dice.permille(100),
            is_held: dice.permille(100),
            may_lack_dependencies: dice.permille(500),
        });
    }
    Command::AddTasks { tasks }
}

fn edit(state: &State, dice: &mut Dice) -> Command {
    let id = some(state, dice).first().cloned().unwrap_or_else(|| TaskId::new("nobody"));
    let mut edit = Edit::default();
    match dice.below(9) {
        0 | 1 => edit.add_depends_on = some(state, dice),
        2 => edit.remove_depends_on = some(state, dice),
        3 => edit.depends_on = Some(Vec::new()),
        4 => edit.priority = Some(priority(dice)),
        5 => edit.labels = Some(labels(dice)),
        6 => edit.needs = Some(needs(dice)),
        7 => edit.kind = Some(if dice.permille(500) { TaskKind::Epic } else { TaskKind::Task }),
        _ => edit.is_front = Some(dice.permille(500)),
    }
    Command::EditTask { id, edit: Box::new(edit) }
}

fn retry(state: &State, dice: &mut Dice) -> Command {
    let is_all = dice.permille(400);
    let target = if is_all { RetryTarget::Blocked } else { RetryTarget::Tasks(some(state, dice)) };
    let stages: Vec<_> = state.settings.stages.iter().map(|stage| stage.id()).collect();
    let stage = dice.pick(&stages).filter(|_| dice.permille(300));
    Command::RetryTasks { target, stage, note: None, is_fresh: dice.permille(200) }
}

/// Draws what a person does with a task in their hands; `None`: nothing. Their worktree, being theirs,
/// is not modelled; what they commit there moves the task's branch.
pub fn hands(state: &State, world: &mut World, dice: &mut Dice) -> Option<Command> {
    let id = some(state, dice).first()?.clone();
    let task = &state.tasks[&id];
    let Some(taken) = &task.taken else {
        return Some(match dice.below(6) {
            0..=2 => {
                if world.is_held(&task_ref(&id)) {
                    // Git refuses to check it out twice.
                    return None;
                }
                let base = &state.base;
                let from = task.tip.clone().or(base.landed.clone()).or(base.tip.clone())?;
                world.marks.hit("a person takes a task");
                let name = task_ref(&id);
                let asked = Command::TakeTask { dir: format!("taken/{id}"), id, from };
                clear(state, world, &name, &asked);
                asked
            }
            3 => {
                world.marks.hit("a person completes a task");
                Command::CompleteTask { id, commit: None }
            }
            _ => {
                world.marks.hit("a person reopens a task");
                world.repo.reopen(&id);
                Command::ReopenTask { id, is_fresh: dice.permille(100) }
            }
        });
    };
    let (name, from) = (task_ref(&id), commit_of(&taken.from));
    // The branch is made behind the record: killed in between, by the same command said again.
    if !world.repo.read(&name).is_some_and(|found| world.repo.holds(found, from)) {
        let found = world.repo.read(&name);
        world.repo.put_back(&name, from, found);
    }
    if dice.permille(500) {
        let found = world.repo.read(&name)?;
        let new = world.repo.make_new(&[found]);
        world.repo.keep(new);
        world.repo.swap(&name, Some(new), Some(found)).expect("it stands there");
        world.marks.hit("a person commits to a task they have");
    }
    if dice.permille(100) {
        return Some(Command::CompleteTask { id, commit: None });
    }
    let stages: Vec<_> = state.settings.stages.iter().map(|stage| stage.id()).collect();
    let to = match dice.below(4) {
        0 => GiveTo::Landing,
        1 => GiveTo::Stage(dice.pick(&stages)?),
        _ => GiveTo::Onward,
    };
    world.marks.hit("a person gives a task back");
    given(state, world, &id, to)
}

/// As `cli::hands` before the record: what stood on the branch is not the person's.
fn clear(state: &State, world: &mut World, name: &str, asked: &Command) {
    let Command::TakeTask { from, .. } = asked else { return };
    let body = EventBody::Command(asked.clone());
    let is_refused = matches!(
        step(state, &Event { at: Time::default(), random: 0, body }).answer,
        Answer::Refuse(_)
    );
    let (from, found) = (commit_of(from), world.repo.read(name));
    if !is_refused && found.is_some_and(|found| found != from) {
        world.marks.hit("a branch is cleared for the person who takes it");
        world.repo.put_back(name, from, found);
    }
}

/// Returns the command that gives a task back as its branch stands.
pub fn given(state: &State, world: &World, id: &TaskId, to: GiveTo) -> Option<Command> {
    let taken = state.tasks[id].taken.as_ref()?;
    let commit = world.repo.read(&task_ref(id)).map_or_else(|| taken.from.clone(), oid);
    Some(Command::GiveTask { id: id.clone(), to, commit, changed: None })
}

/// A person, or an agent that oversteps, does something to the repository.
pub fn meddle(world: &mut World, dice: &mut Dice) -> &'static str {
    let base = world.repo.read(BASE);
    // Drawn apart, so that old seeds draw the rest as ever.
    if let (true, Some(base), Some(landed)) =
        (Dice(dice.0 ^ 0x3e26e).permille(60), base, world.repo.read(LANDED))
    {
        let new = world.repo.make_new(&[base, landed]);
        world.repo.meddle(BASE, Some(new));
        world.marks.hit("a person merges what has landed");
    }
    let mark = match dice.below(12) {
        0..=4 => {
            commit(world);
            "a person commits to the base"
        }
        5 => {
            let old = world.repo.any(dice.below(usize::MAX));
            let new = world.repo.make_new(&[old]);
            world.repo.meddle(BASE, Some(new));
            "a person rewrites the base"
        }
        6 => {
            world.repo.meddle(BASE, base.xor(Some(0)));
            "a person removes the base"
        }
        7 => {
            world.repo.meddle(LANDED, None);
            "somebody removes the landing branch"
        }
        8 => {
            let any = world.repo.any(dice.below(usize::MAX));
            let new = world.repo.make_new(&[any]);
            world.repo.meddle(LANDED, Some(new));
            "somebody moves the landing branch"
        }
        9 | 10 => {
            let names = world.repo.names();
            let is_free = |name: &String| name.contains("/task/") && !world.is_held(name);
            let names = names.into_iter().filter(is_free);
            let Some(name) = dice.pick(&names.collect::<Vec<_>>()) else { return "" };
            let any = world.repo.any(dice.below(usize::MAX));
            let to = dice.permille(500).then_some(any);
            world.repo.meddle(&name, to);
            "somebody moves or removes a task branch"
        }
        _ => {
            for slot in world.slots.values_mut() {
                slot.is_gone = true;
                slot.unsaved = None;
            }
            "a person cleans the worktrees away"
        }
    };
    world.marks.hit(mark);
    mark
}

/// A person commits to the base.
pub fn commit(world: &mut World) {
    let parents: Vec<_> = world.repo.read(BASE).into_iter().collect();
    let new = world.repo.make_new(&parents);
    world.repo.meddle(BASE, Some(new));
}
