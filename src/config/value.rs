//! The small languages inside values: durations, sizes, versions, and how near two words are.

/// The longest duration a setting may have: ten years, in milliseconds.
pub const DURATION_MS_MAX: u64 = 3650 * 24 * 3600 * 1000;

/// Returns the milliseconds of `250ms`, `30s`, `5m`, `2h` or `7d`; `None` for anything else, and
/// for more than [`DURATION_MS_MAX`].
#[must_use]
pub fn duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return None,
    };
    number.checked_mul(unit_ms).filter(|ms| *ms <= DURATION_MS_MAX)
}

/// Returns the bytes of `64KiB`, `16MiB`, `4GiB` or plain digits; `None` for anything else, and for
/// what does not fit 64 bits.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Splits digits from the letters after them; one space may stand between.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    let unit = &text[end..];
    Some((number, unit.strip_prefix(' ').unwrap_or(unit)))
}

/// A version of this program: major, minor, patch.
pub type Version = [u64; 3];

/// How a version stands to what a file requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Every condition holds.
    Fits,
    /// The file asks for a newer program.
    TooOld,
    /// The file asks for an older program.
    TooNew,
}

/// Returns the version in `1`, `0.1` or `0.1.2` (what is missing is 0, `-pre` and `+build` do not
/// count); `None` for anything else.
#[must_use]
pub fn version(text: &str) -> Option<Version> {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let mut version = [0; 3];
    for (index, part) in core.split('.').enumerate() {
        *version.get_mut(index)? = part.parse().ok()?;
    }
    Some(version)
}

/// Compares `running` with conditions such as `>=0.1` or `>=0.1, <2`; `None` when they cannot be
/// read.
///
/// The operators are `>=`, `>`, `=`, `<` and `<=`; a version alone means `>=`.
#[must_use]
pub fn fit(conditions: &str, running: Version) -> Option<Fit> {
    let mut fit = Fit::Fits;
    for condition in conditions.split(',') {
        let condition = condition.trim();
        let end = condition.find(|c: char| !"<>=".contains(c)).unwrap_or(condition.len());
        let wanted = version(condition[end..].trim())?;
        let this = match &condition[..end] {
            "" | ">=" if running < wanted => Fit::TooOld,
            ">" if running <= wanted => Fit::TooOld,
            "=" if running < wanted => Fit::TooOld,
            "=" | "<=" if running > wanted => Fit::TooNew,
            "<" if running >= wanted => Fit::TooNew,
            "" | ">=" | ">" | "=" | "<" | "<=" => Fit::Fits,
            _ => return None,
        };
        if fit == Fit::Fits {
            fit = this;
        }
    }
    Some(fit)
}

/// Returns the one of `known` that `word` is most likely a slip of; `None` when all are far.
///
/// Letter case, `-` and `_` do not count; one edit in three letters may differ. The first of
/// equally near ones wins.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = folded(word);
    let bound = (word.len() / 3).clamp(1, 4);
    let near = |name: &'k str| (distance(&word, &folded(name)), name);
    known.into_iter().map(near).filter(|(d, _)| *d <= bound).min_by_key(|(d, _)| *d).map(|(_, n)| n)
}

fn folded(word: &str) -> Vec<char> {
    word.chars().take(100).flat_map(char::to_lowercase).filter(|c| !"-_ ".contains(*c)).collect()
}

/// Edit distance in which two swapped neighbours are one edit.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let change = last[j] + usize::from(a != b);
            let mut least = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{DURATION_MS_MAX, Fit, bytes, duration_ms, fit, nearest, version};

    #[test]
    fn durations_have_one_number_and_one_unit() {
        let table = [
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("7d", Some(604_800_000)),
            ("7 d", Some(604_800_000)),
            ("0s", Some(0)),
            ("3650d", Some(DURATION_MS_MAX)),
            ("3651d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
            ("30", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5h", None),
            ("1h30m", None),
            ("5M", None),
            ("5m ", None),
            ("٣s", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        let table = [
            ("64KiB", Some(65_536)),
            ("16MiB", Some(16 << 20)),
            ("4GiB", Some(4 << 30)),
            ("17", Some(17)),
            ("17B", Some(17)),
            ("16MB", None),
            ("", None),
            ("KiB", None),
            ("17179869184GiB", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn conditions_are_compared_number_by_number() {
        let table = [
            (">=0.1", "0.1.0", Some(Fit::Fits)),
            (">=0.2", "0.10.0", Some(Fit::Fits)),
            ("0.2", "0.1.9", Some(Fit::TooOld)),
            ("> 0.1.0", "0.1.0", Some(Fit::TooOld)),
            (">=0.1, <1", "0.9.9", Some(Fit::Fits)),
            (">=0.1, <1", "1.0.0", Some(Fit::TooNew)),
            ("=1.2.3", "1.2.3-dev+x", Some(Fit::Fits)),
            ("=1.2.3", "1.2.4", Some(Fit::TooNew)),
            ("<=1.2.3", "1.2.4", Some(Fit::TooNew)),
            ("~1", "1.0.0", None),
            ("=>1", "1.0.0", None),
            ("", "1.0.0", None),
            ("1.2.3.4", "1.0.0", None),
        ];
        for (conditions, running, expected) in table {
            let running = version(running).expect("a version");
            assert_eq!(fit(conditions, running), expected, "{conditions}");
        }
    }

    #[test]
    fn slips_find_the_word_meant() {
        let known = ["attempts_per_stage", "send_backs", "log_bytes", "base"];
        let table = [
            ("attempt_per_stage", Some("attempts_per_stage")),
            ("sendbacks", Some("send_backs")),
            ("bsae", Some("base")),
            ("Log-Bytes", Some("log_bytes")),
            ("colour", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
