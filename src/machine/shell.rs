//! Texts as words of a command line that a person is to type.

use std::borrow::Cow;

/// Returns the text as one word of a POSIX shell's command line: as it is where that does, else in
/// single quotes.
#[must_use]
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._/@%+=:,-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn a_name_is_one_word_for_a_shell() {
        for (text, word) in [
            ("pipeline/landed", "pipeline/landed"),
            ("a&b;$(c)", "'a&b;$(c)'"),
            ("it's", r"'it'\''s'"),
            ("/my place", "'/my place'"),
            ("~", "'~'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
