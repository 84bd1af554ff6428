//! Durations and moments as people write them: `30s`, `8h`, `22:00`, `yesterday`, RFC 3339.

use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

use crate::machine::time::Time;

/// Longest duration taken, in days: nobody means more, and no sum of two overflows.
const DAYS_MAX: u64 = 3650;

/// A moment, as far as it can be known before the present one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// So long ago, or ahead.
    Span(Duration),
    /// The nearest such time of day, in the local zone.
    Clock(civil::Time),
    /// The beginning of yesterday, in the local zone.
    Yesterday,
    At(Time),
}

/// Reads a duration: `250ms`, `30s`, `5m`, `2h`, `7d`.
///
/// # Errors
/// What was expected, for anything else and for more than ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as `250ms`, `30s`, `5m`, `2h` or `7d`".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| expected())?;
    let unit_ms = match &text[end..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= DAYS_MAX * 86_400_000);
    ms.map(Duration::from_millis).ok_or_else(|| format!("at most {DAYS_MAX}d are possible"))
}

/// Reads a moment.
///
/// # Errors
/// What was expected.
pub fn when(text: &str) -> Result<When, String> {
    if text == "yesterday" {
        return Ok(When::Yesterday);
    }
    if let Ok(span) = duration(text) {
        return Ok(When::Span(span));
    }
    if let Some((hours, minutes)) = text.split_once(':')
        && let (Ok(hours), Ok(minutes)) = (hours.parse(), minutes.parse())
    {
        let time = civil::Time::new(hours, minutes, 0, 0);
        return time.map(When::Clock).map_err(|_| format!("`{text}` is no time of day"));
    }
    let moment = text.parse::<Timestamp>().ok().and_then(|at| at.as_millisecond().try_into().ok());
    moment.map(|ms| When::At(Time::from_ms(ms))).ok_or_else(|| {
        "expected `8h`, `22:00`, `yesterday` or a time such as `2026-01-31T22:00:00Z`".to_owned()
    })
}

impl When {
    /// Returns the moment, looking back from `now`; one that is given in full may lie ahead.
    #[must_use]
    pub fn past(self, now: Time, zone: &TimeZone) -> Time {
        match self {
            Self::At(at) => at,
            Self::Span(span) => Time::from_ms(now.as_ms().saturating_sub(as_ms(span))),
            Self::Clock(clock) => nearest(now, zone, clock, 0)
                .filter(|at| *at <= now)
                .unwrap_or(nearest(now, zone, clock, -1).unwrap_or(now)),
            Self::Yesterday => nearest(now, zone, civil::Time::midnight(), -1).unwrap_or(now),
        }
    }

    /// Returns the moment, looking ahead from `now`.
    ///
    /// # Errors
    /// When it lies in the past.
    pub fn future(self, now: Time, zone: &TimeZone) -> Result<Time, String> {
        let at = match self {
            Self::At(at) => at,
            Self::Span(span) => now.plus_ms(as_ms(span)),
            Self::Clock(clock) => nearest(now, zone, clock, 0)
                .filter(|at| *at > now)
                .unwrap_or(nearest(now, zone, clock, 1).unwrap_or(now)),
            Self::Yesterday => return Err("yesterday has passed".to_owned()),
        };
        if at < now { Err("that moment has passed".to_owned()) } else { Ok(at) }
    }
}

fn as_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns that time of the day so many days from today; `None` at the end of the calendar.
fn nearest(now: Time, zone: &TimeZone, clock: civil::Time, days: i64) -> Option<Time> {
    let now = Timestamp::from_millisecond(now.as_ms().try_into().ok()?).ok()?;
    let date = Zoned::new(now, zone.clone()).date().checked_add(days.days()).ok()?;
    let at = date.to_datetime(clock).to_zoned(zone.clone()).ok()?;
    Some(Time::from_ms(at.timestamp().as_millisecond().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;

    use crate::machine::time::Time;

    use super::{duration, when};

    fn moment(text: &str) -> Time {
        let at: jiff::Timestamp = text.parse().expect("a time");
        Time::from_ms(at.as_millisecond() as u64)
    }

    #[test]
    fn durations_have_one_number_and_one_unit() {
        let table = [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("7d", 604_800_000)];
        for (text, ms) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for bad in ["", "5", "s", "-5s", "5 s", "1h30m", "9999d", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_look_back_or_ahead() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = moment("2026-03-10T12:00:00Z");
        let table = [
            ("8h", "2026-03-10T04:00:00Z", Ok("2026-03-10T20:00:00Z")),
            ("22:00", "2026-03-09T20:00:00Z", Ok("2026-03-10T20:00:00Z")),
            ("9:30", "2026-03-10T07:30:00Z", Ok("2026-03-11T07:30:00Z")),
            ("yesterday", "2026-03-08T22:00:00Z", Err("yesterday has passed")),
            ("2026-03-09T10:00:00+02:00", "2026-03-09T08:00:00Z", Err("that moment has passed")),
        ];
        for (text, past, future) in table {
            let when = when(text).expect(text);
            assert_eq!(when.past(now, &zone), moment(past), "{text}");
            assert_eq!(
                when.future(now, &zone),
                future.map(moment).map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn other_words_are_refused_with_what_is_expected() {
        for bad in ["", "noon", "25:00", "22:60", "2026-01-31", "-8h", "1:2:3"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }
}
