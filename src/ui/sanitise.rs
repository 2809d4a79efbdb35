//! Text from images, registries and containers never steers a terminal: control characters and characters that turn
//! the direction of writing are shown escaped.

use std::borrow::Cow;

/// Make text of several lines safe to print; line ends and tabs stay.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && c != '\t' && is_hostile(c))
}

/// Make a text safe to print on one line.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_hostile)
}

fn escape(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !hostile(c) {
            safe.push(c);
        } else if u32::from(c) < 0x100 {
            safe.push_str(&format!("\\x{:02x}", u32::from(c)));
        } else {
            safe.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        }
    }
    Cow::Owned(safe)
}

fn is_hostile(c: char) -> bool {
    c.is_control() // C0, DEL and C1
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // directions
            | '\u{2028}' | '\u{2029}' // line ends of their own
            | '\u{e0000}'..='\u{e007f}') // invisible tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_escaped() {
        for (input, expected) in [
            ("plain ünïcode 漢", "plain ünïcode 漢"),
            ("a\tb\nc", "a\tb\nc"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("over\rwrite", "over\\x0dwrite"),
            ("\u{9b}31m", "\\x9b31m"),
            ("user\u{202e}gpj", "user\\u{202e}gpj"),
            ("\u{7f}", "\\x7f"),
        ] {
            assert_eq!(text(input), expected);
        }
        assert_eq!(line("a\nb"), "a\\x0ab");
        assert!(matches!(text("clean"), Cow::Borrowed(_)));
    }
}
