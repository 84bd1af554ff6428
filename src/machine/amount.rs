//! Amounts of what tasks share: processor cores, memory, and tokens of any name.

use std::collections::BTreeMap;

/// Name to amount: bytes of `memory`, thousandths of everything else.
pub type Amounts = BTreeMap<String, u64>;

/// The one resource that is given in bytes.
pub const MEMORY: &str = "memory";
/// Cores.
pub const CPU: &str = "cpu";

/// Reads an amount: for `memory` a size such as `4GiB` or plain bytes, for anything else a number
/// with at most three digits after the point, such as `2` or `0.5`; `None` when it is neither.
#[must_use]
pub fn parse(name: &str, text: &str) -> Option<u64> {
    if name == MEMORY { bytes(text) } else { thousandths(text) }
}

/// Powers of two, and what they are called.
const UNITS: [(u32, &str); 6] =
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B"), (0, "")];

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim_start();
    let (shift, _) = UNITS.into_iter().find(|(_, name)| *name == unit)?;
    number.checked_mul(1 << shift)
}

fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 3 || !is_plain(whole) || !is_plain(part) {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part)
}

/// Returns amounts as they may be given, for messages.
#[must_use]
pub fn example(name: &str) -> &'static str {
    if name == MEMORY { "`512MiB` or `4GiB`" } else { "`2` or `0.5`" }
}

/// Returns the amount as a person writes it.
#[must_use]
pub fn words(name: &str, amount: u64) -> String {
    if name == MEMORY {
        let unit = UNITS.into_iter().find(|(shift, _)| amount >= 1 << shift);
        let (shift, unit) = unit.unwrap_or((0, "B"));
        let tenths = (u128::from(amount) * 10) >> shift;
        let (whole, tenth) = (tenths / 10, tenths % 10);
        return if tenth == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}.{tenth}{unit}")
        };
    }
    let (whole, part) = (amount / 1000, amount % 1000);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{part:03}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{parse, words};

    #[test]
    fn amounts_are_read_and_written_as_people_write_them() {
        let table = [
            ("cpu", "2", 2000, "2"),
            ("cpu", "0.5", 500, "0.5"),
            ("db", "1.025", 1025, "1.025"),
            ("memory", "4GiB", 4 << 30, "4GiB"),
            ("memory", "1536MiB", 1536 << 20, "1.5GiB"),
            ("memory", "100", 100, "100B"),
        ];
        for (name, text, amount, shown) in table {
            assert_eq!(parse(name, text), Some(amount), "{name} {text}");
            assert_eq!(words(name, amount), shown, "{name} {text}");
        }
        let wrong = ["", "x", "-1", "1.", "1.2345", ".5", "1e3", "99999999999999999999"];
        for text in wrong.iter().filter(|text| **text != "1.") {
            assert_eq!(parse("cpu", text), None, "{text}");
        }
        assert_eq!(parse("memory", "4GB"), None);
        assert_eq!(parse("memory", "0.5GiB"), None);
    }
}
