//! Which points are struck, one after the other or several at a time, and what is counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libtest_mimic::Trial;

use super::Options;
use super::case::{Case, Ending, caught};
use super::scenario::{SCENARIOS, Scenario};
use crate::figures::Figures;
use crate::tracer::{self, Plan, Point, obstacle};

/// Scenarios of the fixed part, and how many points of each.
const FIXED: [(&str, usize); 3] = [("add", 6), ("implementation", 12), ("following", 12)];

/// Runs of a strike until it is reached.
const TRIES: usize = 4;

/// One run: where it is struck, and by which number the place in the recovery is drawn.
#[derive(Debug, Clone)]
struct Strike {
    first: Point,
    second: Option<u64>,
}

impl Strike {
    /// Runs it; what came of it, and how to have it again.
    fn run(&self, case: &Case) -> (Ending, String) {
        let plan = |Point { role, ordinal, .. }: &Point| match case.scenario.strikes_terminal {
            true => Plan::KillTerminal { role: role.clone(), ordinal: *ordinal },
            false => Plan::Kill { role: role.clone(), ordinal: *ordinal },
        };
        let first = plan(&self.first);
        let (ending, second) = match self.second {
            None => (case.run(&first), None),
            Some(number) => case.run_twice(&first, |points| {
                let place = usize::try_from(number).unwrap_or_default() % points.len();
                (points[place].clone(), plan(&points[place]))
            }),
        };
        let (Point { role, ordinal, call, .. }, name) = (&self.first, case.scenario.name);
        let mut words =
            format!("crash --scenario {name} --role '{role}' --ordinal {ordinal} ({call})");
        if let Some(Point { role, ordinal, call, .. }) = second {
            words.push_str(&format!(", then in the recovery {role} {ordinal} ({call})"));
        }
        (ending, words)
    }
}

/// Strikes as asked; prints what came of it by scenario.
pub(super) fn run(options: &Options) -> Figures {
    let mut figures = Figures::new(if options.twice > 0 { "twice" } else { "crash" });
    let is_cut = options.list || options.role.is_some() || options.ordinal.is_some();
    figures.is_part = is_cut || !options.scenario.is_empty() || !options.call.is_empty();
    if let Some(why) = obstacle() {
        figures.failures.push(why);
        return figures;
    }
    // A panic is the text of a failure, told with how to have it again.
    std::panic::set_hook(Box::new(|_| {}));
    for scenario in chosen_scenarios(options, &mut figures) {
        figures.count("scenarios", 1);
        let name = scenario.name;
        let Options { sample, twice, seed, .. } = options;
        let calls = options.call.join("-");
        let mut part = Figures::new(&format!("crash/{name}-{sample}-{twice}-{seed}{calls}"));
        let can_resume = options.resume && !is_cut;
        let is_good = |kept: &Figures| kept.program == figures.program && kept.failures.is_empty();
        let kept = Figures::kept(&part.layer).filter(|kept| can_resume && is_good(kept));
        if let Some(kept) = kept {
            println!("{name}: {} s in an earlier run", kept.seconds);
            figures.seconds += kept.seconds;
            figures.add(kept);
            continue;
        }
        if let Err(text) = run_scenario(scenario, options, &mut part) {
            part.failures.push(format!("crash --scenario {name}: {text}"));
        }
        if can_resume {
            part.keep();
        }
        figures.add(part);
    }
    figures
}

/// The scenarios asked for; a name that none has is a failure.
pub(super) fn chosen_scenarios(options: &Options, figures: &mut Figures) -> Vec<&'static Scenario> {
    for name in &options.scenario {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            figures.failures.push(format!("no scenario `{name}`; there are {}", names.join(", ")));
        }
    }
    let is_wanted = |name: &str| {
        options.scenario.is_empty() || options.scenario.iter().any(|wanted| wanted == name)
    };
    SCENARIOS.iter().filter(|scenario| is_wanted(scenario.name)).collect()
}

fn run_scenario(
    scenario: &'static Scenario,
    options: &Options,
    figures: &mut Figures,
) -> Result<(), String> {
    let case = caught(|| Case::new(scenario))?;
    let points = case.observe()?;
    figures.failures.extend(super::order::judge(scenario, &points));
    let wanted = chosen(&points, options);
    if options.list {
        for Point { role, ordinal, call, .. } in &wanted {
            println!("{}: {role} {ordinal} {call}", scenario.name);
        }
        return Ok(());
    }
    let mut strikes: Vec<Strike> =
        wanted.into_iter().map(|first| Strike { first, second: None }).collect();
    if options.twice > 0 {
        strikes = pairs(&points, options.twice, options.seed);
    }
    let strikes_count = strikes.len();
    let Struck { survived, unreached, failures } =
        strike_all(case, &strikes, options.jobs, |case, strike| strike.run(case));
    println!(
        "{}: {} points; struck {} of {strikes_count}, survived {survived}, not reached {unreached}",
        scenario.name,
        points.len(),
        strikes_count - unreached,
    );
    figures.count("points enumerated", points.len() as u64);
    let what = if options.twice > 0 { "pairs struck twice" } else { "crashes" };
    figures.count(what, (strikes_count - unreached) as u64);
    figures.count(&format!("{what} survived"), survived as u64);
    figures.count("not reached", unreached as u64);
    figures.failures.extend(failures);
    Ok(())
}

/// The points asked for.
fn chosen(points: &[Point], options: &Options) -> Vec<Point> {
    let is_wanted = |point: &&Point| {
        let role = options.role.as_deref().unwrap_or_default();
        let is_role = point.role == role || (!role.contains('#') && point.role.starts_with(role));
        let mut calls = options.call.iter();
        let is_call = |call: &String| point.call.split(' ').next() == Some(call);
        let is_call = options.call.is_empty() || calls.any(is_call);
        is_role && is_call && options.ordinal.is_none_or(|ordinal| ordinal == point.ordinal)
    };
    spread(points.iter().filter(is_wanted).cloned().collect(), options.sample)
}

/// At most `count` of the points, evenly spread; all of them for 0.
pub(crate) fn spread<T: Clone>(points: Vec<T>, count: usize) -> Vec<T> {
    if count == 0 || points.len() <= count {
        return points;
    }
    (0..count).map(|place| points[(2 * place + 1) * points.len() / (2 * count)].clone()).collect()
}

/// Pairs drawn by the seed.
fn pairs(points: &[Point], count: usize, seed: u64) -> Vec<Strike> {
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice
    };
    let first = |number| usize::try_from(number % points.len() as u64).unwrap_or_default();
    let strike = |_| Strike { first: points[first(draw())].clone(), second: Some(draw()) };
    (0..count).map(strike).collect()
}

/// What became of the strikes in one scenario.
#[derive(Debug, Default)]
pub(crate) struct Struck {
    pub(crate) survived: usize,
    /// At none of their runs did a process come there.
    pub(crate) unreached: usize,
    /// How to have each again, and what was seen.
    pub(crate) failures: Vec<String>,
}

/// Runs every strike, several at a time. One that is not reached is tried again: threads and children
/// make their calls in another order each time.
pub(crate) fn strike_all<T: Sync>(
    case: Case,
    strikes: &[T],
    jobs: usize,
    run: impl Fn(&Case, &T) -> (Ending, String) + Sync,
) -> Struck {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Struck::default());
    let scenario = case.scenario;
    let work = |case: Case| {
        while let Some(strike) = strikes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut runs = (0..TRIES).map(|_| run(&case, strike));
            let is_there = |(ending, _): &(Ending, _)| !matches!(ending, Ending::Unreached);
            let reached = runs.find(is_there);
            let mut results = results.lock().expect("no holder panics");
            match reached {
                None => results.unreached += 1,
                Some((Ending::Survived | Ending::Unreached, _)) => results.survived += 1,
                Some((Ending::Failed(text), words)) => {
                    let failure = format!("{words}: {text}");
                    // The whole of it comes at the end.
                    println!("failed: {}", failure.lines().next().unwrap_or_default());
                    results.failures.push(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..jobs.min(strikes.len()) {
            scope.spawn(|| work(Case::new(scenario)));
        }
        work(case);
    });
    results.into_inner().expect("no holder panics")
}

/// A few points of three scenarios, and pairs of one; ignored, with the reason, where nothing can be
/// traced.
pub(super) fn trials() -> Vec<Trial> {
    let obstacle = obstacle();
    let trial =
        |title: String, name: &'static str, strikes: fn(&[Point], usize) -> Vec<Strike>, count| {
            let kind = obstacle.clone().unwrap_or_default();
            Trial::test(title, move || {
                let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
                let case = Case::new(found.expect("it is listed"));
                for strike in strikes(&case.observe()?, count) {
                    if let (Ending::Failed(text), words) = strike.run(&case) {
                        return Err(format!("{words}: {text}").into());
                    }
                }
                Ok(())
            })
            .with_kind(kind)
            .with_ignored_flag(obstacle.is_some())
        };
    let once = |points: &[Point], count| {
        let strike = |first| Strike { first, second: None };
        spread(points.to_vec(), count).into_iter().map(strike).collect()
    };
    let title = |name| format!("crash::killed_at_points_of_{name}_loses_nothing");
    let mut trials: Vec<Trial> =
        FIXED.into_iter().map(|(name, count)| trial(title(name), name, once, count)).collect();
    let again = "crash::killed_again_in_the_recovery_loses_nothing".to_owned();
    trials.push(trial(again, "implementation", |points, count| pairs(points, count, 1), 3));
    trials.extend(tracer::trials());
    trials
}
