//! When a limit ends, as programs and providers say it: a moment, a time of day, or how long it lasts.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};

use crate::machine::time::Time;

/// A number as large is a moment in seconds since 1970; a smaller one a span.
const EPOCH_S_MIN: f64 = 1e9;
/// A number as large is a moment in milliseconds.
const EPOCH_MS_MIN: f64 = 1e12;
/// Longest text looked at, in bytes: a moment is named in few words.
const TEXT_BYTES_MAX: usize = 400;
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Returns true when the text names a moment by itself or how long it lasts, rather than what clocks
/// or calendars of some place will show.
#[must_use]
pub fn is_exact(text: &str) -> bool {
    let text = plain(text);
    text.parse::<f64>().is_ok() || text.parse::<Timestamp>().is_ok() || span_ms(text).is_some()
}

/// Returns true when the text names a moment by itself, whenever it is said.
#[must_use]
pub fn is_stamp(text: &str) -> bool {
    let text = plain(text);
    let is_epoch = text.parse::<f64>().is_ok_and(|number| number >= EPOCH_S_MIN);
    is_epoch || text.parse::<Timestamp>().is_ok()
}

fn plain(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

/// Returns the moment that `text` names, said at `now`, times of day without a zone in `zone`; `None`:
/// it names none.
#[must_use]
pub fn until(text: &str, now: Time, zone: &TimeZone) -> Option<Time> {
    let text = plain(text);
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if let Ok(number) = text.parse::<f64>() {
        return of_number(number, now);
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return of_stamp(stamp);
    }
    span_ms(text).map(|ms| now.plus_ms(ms)).or_else(|| of_clock(text, now, zone))
}

fn of_number(number: f64, now: Time) -> Option<Time> {
    if !number.is_finite() || number < 0.0 {
        return None;
    }
    Some(if number >= EPOCH_MS_MIN {
        Time::from_ms(number as u64)
    } else if number >= EPOCH_S_MIN {
        Time::from_ms((number * 1000.0) as u64)
    } else {
        now.plus_ms((number * 1000.0) as u64)
    })
}

fn of_stamp(stamp: Timestamp) -> Option<Time> {
    u64::try_from(stamp.as_millisecond()).ok().map(Time::from_ms)
}

/// Reads `1h2m3s`, `12.5s`, `34s`, `2 days 3 hours 5 minutes`: nothing else may stand there.
fn span_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0.0;
    let mut is_any = false;
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        rest = rest.strip_prefix("and ").unwrap_or(rest).trim_start();
        if rest.is_empty() {
            return is_any.then_some(sum as u64);
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        sum += number * unit_ms(&rest[..end])?;
        is_any = true;
        rest = &rest[end..];
    }
}

fn unit_ms(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "ms" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600e3,
        "d" | "day" | "days" => 86_400e3,
        _ => return None,
    })
}

/// Reads `3pm`, `3:45 PM`, `15:45`, each with or without a date before it and a zone behind: `3pm
/// (Europe/Berlin)`, `Nov 25th, 2026 3:45 PM`, `Nov 25 at 3pm`. Without a date or a year it is the next
/// moment at which clocks and calendars there show that.
fn of_clock(text: &str, now: Time, zone: &TimeZone) -> Option<Time> {
    let (shown, named) = match text.split_once('(') {
        Some((shown, rest)) => (shown, Some(rest.split_once(')')?.0)),
        None => (text, None),
    };
    let zone = match named {
        Some(name) => TimeZone::get(name.trim()).ok()?,
        None => zone.clone(),
    };
    let shown = shown.trim().to_ascii_lowercase();
    let (day, clock) = match shown.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => split_day(&shown).map(|(day, clock)| (Some(day), clock))?,
        false => (None, shown.as_str()),
    };
    let time = time_of_day(clock)?;
    let said = Timestamp::from_millisecond(i64::try_from(now.as_ms()).ok()?).ok()?;
    let today = said.to_zoned(zone.clone()).date();
    let dates = match day {
        None => [Some(today), today.tomorrow().ok()],
        Some(Day { month, day, year: Some(year) }) => {
            [civil::Date::new(year, month, day).ok(), None]
        }
        Some(Day { month, day, year: None }) => {
            let of = |year| civil::Date::new(year, month, day).ok();
            [of(today.year()), of(today.year() + 1)]
        }
    };
    let mut moments = dates
        .into_iter()
        .flatten()
        .filter_map(|date| Some(date.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp()));
    if matches!(day, Some(Day { year: Some(_), .. })) {
        return of_stamp(moments.next()?);
    }
    // One that has just passed is over by now, and not due in a day or a year.
    let since = said - SignedDuration::from_hours(1);
    of_stamp(moments.find(|moment| *moment > since)?)
}

/// A day as it is told.
#[derive(Debug, Clone, Copy)]
struct Day {
    month: i8,
    day: i8,
    year: Option<i16>,
}

/// Reads the date before a time of day, in lower case, and returns what stands behind it.
fn split_day(text: &str) -> Option<(Day, &str)> {
    let (month, rest) = word(text);
    let is_it = |known: &&str| month.len() >= 3 && known.starts_with(month);
    let month = i8::try_from(MONTHS.iter().position(is_it)? + 1).ok()?;
    let (day, mut rest) = word(rest);
    let day = day.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse().ok()?;
    let (next, behind) = word(rest);
    let year = (next.len() == 4).then(|| next.parse().ok()).flatten();
    if year.is_some() {
        rest = behind;
    }
    let (next, behind) = word(rest);
    Some((Day { month, day, year }, if next == "at" { behind } else { rest }))
}

/// Splits off the first word, without the comma behind it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    (word.trim_end_matches(','), rest)
}

/// Reads a time of day in lower case.
fn time_of_day(clock: &str) -> Option<civil::Time> {
    let clock = clock.trim();
    let (digits, half) = match (clock.strip_suffix("am"), clock.strip_suffix("pm")) {
        (Some(digits), _) => (digits, Some(0)),
        (_, Some(digits)) => (digits, Some(12)),
        (None, None) => (clock, None),
    };
    let (hour, minute) = match (digits.trim().split_once(':'), half) {
        (Some((hour, minute)), _) => (hour.parse::<i8>().ok()?, minute.parse::<i8>().ok()?),
        (None, Some(_)) => (digits.trim().parse().ok()?, 0),
        // A bare number is none.
        (None, None) => return None,
    };
    let hour = match half {
        Some(_) if !(1..=12).contains(&hour) => return None,
        Some(half) => hour % 12 + half,
        None => hour,
    };
    civil::Time::new(hour, minute, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::{is_exact, is_stamp, until};
    use crate::machine::time::Time;

    /// 2026-11-21T12:00:00Z.
    const NOW_MS: u64 = 1_795_262_400_000;

    fn after_s(text: &str) -> Option<i64> {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let found = until(text, Time::from_ms(NOW_MS), &zone)?;
        Some((found.as_ms() as i64 - NOW_MS as i64) / 1000)
    }

    #[test]
    fn moments_are_read_as_programs_write_them() {
        let table = [
            ("34", Some(34)),
            ("0.5", Some(0)),
            ("1795266000", Some(3_600)),
            ("1795266000000", Some(3_600)),
            ("2026-11-21T12:00:30Z", Some(30)),
            ("12.5s", Some(12)),
            ("1h2m3s", Some(3_723)),
            ("250ms", Some(0)),
            ("2 days 17 hours 14 minutes", Some(234_840)),
            ("3 hours and 5 minutes.", Some(11_100)),
            // 13:00 where it is said.
            ("2pm", Some(3_600)),
            ("11:16 AM", Some(22 * 3_600 + 16 * 60)),
            ("12:59 PM", Some(-60)),
            ("15:45", Some(2 * 3_600 + 45 * 60)),
            ("12am", Some(11 * 3_600)),
            ("2pm (UTC)", Some(2 * 3_600)),
            // As codex has it when it is not today, and claude.
            ("Nov 25th, 2026 3:45 PM", Some(4 * 86_400 + 2 * 3_600 + 45 * 60)),
            ("Nov 25th 3:45 PM.", Some(4 * 86_400 + 2 * 3_600 + 45 * 60)),
            ("nov 25, 3pm (UTC)", Some(4 * 86_400 + 3 * 3_600)),
            ("November 22 at 1:00 pm", Some(86_400)),
            ("Jan 2nd, 12am", Some(41 * 86_400 + 11 * 3_600)),
            ("Nov 21st, 12:30 PM", Some(-30 * 60)),
            ("Nov 20th, 2026 1:00 PM", Some(-86_400)),
            ("No 25th, 3:45 PM", None),
            ("Nov 31st, 2026 3:45 PM", None),
            ("Nov 25th, 2026", None),
            ("Nov 3:45 PM", None),
            ("3pm (Nowhere/Land)", None),
            ("13pm", None),
            ("25:00", None),
            ("soon", None),
            ("5 lightyears", None),
            ("-3", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(after_s(text), expected, "{text}");
        }
        assert_eq!(after_s(&"1 ".repeat(1000)), None);
    }

    #[test]
    fn what_needs_no_calendar_is_exact() {
        for text in ["1795266000", "34.", "2026-11-21T12:00:30Z", "1h2m3s", "5 minutes"] {
            assert!(is_exact(text), "{text}");
        }
        for (text, expected) in
            [("1795266000", true), ("2026-11-21T12:00:30Z.", true), ("34", false), ("1.3s", false)]
        {
            assert_eq!(is_stamp(text), expected, "{text}");
        }
        for text in ["3pm", "3:45 PM", "Nov 25th, 2026 3:45 PM", "soon", ""] {
            assert!(!is_exact(text), "{text}");
        }
    }
}
