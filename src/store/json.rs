//! One line of JSON text that is passed on unread.

use std::fmt;

use serde::Serialize;

/// A JSON value as text without a line feed; valid by construction.
///
/// Like serde's raw value, but taken from a verified line without a copy or a second scan, which
/// counts for a checkpoint of many megabytes.
#[derive(Clone)]
pub struct Json {
    /// The buffer the value was read in.
    text: String,
    /// Where in `text` the value starts, in bytes; it ends where `text` does.
    start: usize,
}

impl Json {
    /// Writes `value` as compact JSON.
    ///
    /// # Errors
    /// When the value's own serialisation fails, or a map has keys that are not strings.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        // The compact writer escapes control characters, so a line feed cannot occur.
        serde_json::to_string(value).map(|text| Self { text, start: 0 })
    }

    /// Takes what follows byte `start` of a line whose checksum has been verified.
    ///
    /// `None` when that is not text, or empty.
    pub(super) fn from_verified(line: Vec<u8>, start: usize) -> Option<Self> {
        let text = String::from_utf8(line).ok()?;
        text.get(start..).filter(|value| !value.is_empty())?;
        Some(Self { text, start })
    }

    /// Returns the JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        &self.text[self.start..]
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Json {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_feeds_are_escaped() {
        assert_eq!(Json::of(&"a\nb").unwrap().get(), r#""a\nb""#);
    }

    #[test]
    fn verified_bytes_are_taken_from_their_start() {
        let json = Json::from_verified(b"head{}".to_vec(), 4).unwrap();
        assert_eq!(json.get(), "{}");
        assert_eq!(json, Json::of(&serde_json::json!({})).unwrap());
        assert!(Json::from_verified(b"head".to_vec(), 4).is_none());
        assert!(Json::from_verified(vec![0xff, b'1'], 1).is_none());
    }
}
