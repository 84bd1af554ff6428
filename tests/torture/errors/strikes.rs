//! Which call fails, how, and for how long; and what is counted.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::errno::Errno;

use super::Options;
use crate::crash::case::{Case, Ending};
use crate::crash::points::{Struck, spread, strike_all};
use crate::crash::scenario::{SCENARIOS, Scenario};
use crate::figures::Figures;
use crate::tracer::{Plan, Point, can_fail, obstacle};

const ERRNOS: [Errno; 9] = [
    Errno::ENOSPC,
    Errno::EDQUOT,
    Errno::EIO,
    Errno::ESTALE,
    Errno::EMFILE,
    Errno::EACCES,
    Errno::EROFS,
    Errno::EINTR,
    Errno::EAGAIN,
];
/// How long an error lasts that does not come alone.
const LASTING: Duration = Duration::from_millis(1_500);
/// The same of an interruption: one is answered by trying again at once.
const INTERRUPTING: Duration = Duration::from_millis(100);
/// Scenarios of the fixed part, and how many errors in each.
const FIXED: [(&str, usize); 2] = [("add", 3), ("implementation", 4)];

/// One run.
#[derive(Debug, Clone)]
struct Strike {
    point: Point,
    errno: Errno,
    is_lasting: bool,
}

impl Strike {
    fn plan(&self) -> Plan {
        Plan::Fail {
            role: self.point.role.clone(),
            ordinal: self.point.ordinal,
            errno: self.errno,
            lasting: self.is_lasting.then_some(match self.errno {
                Errno::EINTR => INTERRUPTING,
                _ => LASTING,
            }),
        }
    }

    /// How to have it again.
    fn words(&self, scenario: &str) -> String {
        let (Point { role, ordinal, call, .. }, errno) = (&self.point, self.errno);
        let manner = if self.is_lasting { "lasting" } else { "once" };
        format!(
            "errors --scenario {scenario} --role '{role}' --ordinal {ordinal} --errno {errno:?} \
             ({manner}: {call})"
        )
    }
}

/// Strikes as asked; prints what came of it by scenario.
pub(super) fn run(options: &Options) -> Figures {
    let mut figures = Figures::new("errors");
    figures.is_part = !options.scenario.is_empty()
        || options.role.is_some()
        || options.ordinal.is_some()
        || options.errno.is_some();
    if let Some(why) = obstacle() {
        figures.failures.push(why);
        return figures;
    }
    // A panic is the text of a failure, told with how to have it again.
    std::panic::set_hook(Box::new(|_| {}));
    for name in &options.scenario {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            figures.failures.push(format!("no scenario `{name}`"));
        }
    }
    let is_wanted = |name: &str| {
        options.scenario.is_empty() || options.scenario.iter().any(|wanted| wanted == name)
    };
    for scenario in SCENARIOS.iter().filter(|scenario| is_wanted(scenario.name)) {
        figures.count("scenarios", 1);
        if let Err(text) = run_scenario(scenario, options, &mut figures) {
            figures.failures.push(format!("errors --scenario {}: {text}", scenario.name));
        }
    }
    figures
}

fn run_scenario(
    scenario: &'static Scenario,
    options: &Options,
    figures: &mut Figures,
) -> Result<(), String> {
    let case = Case::new(scenario);
    let points = case.observe()?;
    let is_wanted = |point: &&Point| {
        let role = options.role.as_deref().unwrap_or_default();
        let is_role = point.role == role || (!role.contains('#') && point.role.starts_with(role));
        is_role && options.ordinal.is_none_or(|ordinal| ordinal == point.ordinal)
    };
    let wanted: Vec<Point> = points.iter().filter(is_wanted).cloned().collect();
    let mut all = strikes(&wanted);
    if let Some(name) = &options.errno {
        all.retain(|strike| format!("{:?}", strike.errno) == *name);
    }
    let (count, strikes) = (all.len(), spread(all, options.sample));
    let Struck { survived, unreached, failures } =
        strike_all(case, &strikes, options.jobs, |case, strike| {
            (case.run_failing(&strike.plan()), strike.words(scenario.name))
        });
    println!(
        "{}: {count} errors possible; injected {} of {}, survived {survived}",
        scenario.name,
        strikes.len() - unreached,
        strikes.len(),
    );
    figures.count("errors enumerated", count as u64);
    figures.count("errors injected", (strikes.len() - unreached) as u64);
    figures.count("errors survived", survived as u64);
    figures.count("not reached", unreached as u64);
    figures.failures.extend(failures);
    Ok(())
}

/// Everything that can be done to these points.
fn strikes(points: &[Point]) -> Vec<Strike> {
    let mut all = Vec::new();
    for point in points {
        for errno in ERRNOS.into_iter().filter(|errno| can_fail(point, *errno)) {
            for is_lasting in [false, true] {
                all.push(Strike { point: point.clone(), errno, is_lasting });
            }
        }
    }
    all
}

/// A few errors in two scenarios; ignored, with the reason, where nothing can be traced.
pub(super) fn trials() -> Vec<Trial> {
    let obstacle = obstacle();
    let trial = |(name, count): (&'static str, usize)| {
        let kind = obstacle.clone().unwrap_or_default();
        Trial::test(format!("errors::injected_in_{name}_lose_nothing"), move || {
            let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
            let case = Case::new(found.expect("it is listed"));
            for strike in spread(strikes(&case.observe()?), count) {
                if let Ending::Failed(text) = case.run_failing(&strike.plan()) {
                    return Err(format!("{}: {text}", strike.words(name)).into());
                }
            }
            Ok(())
        })
        .with_kind(kind)
        .with_ignored_flag(obstacle.is_some())
    };
    FIXED.into_iter().map(trial).collect()
}
