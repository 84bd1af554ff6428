//! Object ids.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The hash a repository names its objects by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectFormat {
    /// 40 hexadecimal digits.
    Sha1,
    /// 64 hexadecimal digits.
    Sha256,
}

impl ObjectFormat {
    /// Returns the id that git writes for "no object".
    #[must_use]
    pub fn zero(self) -> Oid {
        match self {
            Self::Sha1 => Oid("0".repeat(40)),
            Self::Sha256 => Oid("0".repeat(64)),
        }
    }
}

/// The id of an object: 40 or 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(String);

impl Oid {
    /// Returns the digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first twelve digits, for names and texts.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Oid {
    type Err = OidError;

    fn from_str(text: &str) -> Result<Self, OidError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if matches!(text.len(), 40 | 64) && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OidError { text: text.to_owned() })
        }
    }
}

/// A text that is no object id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidError {
    /// What was found.
    pub text: String,
}

impl fmt::Display for OidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read `{}` as an object id: expected 40 or 64 hex digits", self.text)
    }
}

impl Error for OidError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_hex_is_an_id() {
        assert!("a".repeat(40).parse::<Oid>().is_ok());
        assert!("0".repeat(64).parse::<Oid>().is_ok());
        for bad in ["", "abc", &"g".repeat(40), &"A".repeat(40), &"a".repeat(41), "-h"] {
            assert!(bad.parse::<Oid>().is_err(), "{bad}");
        }
    }
}
