//! A small matcher for the regular expressions that people type in `--filter name=`: literals, `.`, `[…]`, `*`, `+`,
//! `?`, `^`, `$`, `\` and `|` between whole alternatives. Not anchored unless it says so.

use std::collections::BTreeSet;

/// One unit of a pattern and how often it may stand.
#[derive(Debug)]
struct Piece {
    unit: Unit,
    least: usize,
    many: bool,
}

#[derive(Debug)]
enum Unit {
    Any,
    One(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

#[derive(Debug, Default)]
struct Alternative {
    from_start: bool,
    to_end: bool,
    pieces: Vec<Piece>,
}

/// A parsed pattern.
#[derive(Debug)]
pub struct Pattern(Vec<Alternative>);

impl Pattern {
    /// Parse a pattern; what cannot be understood (groups, counts) is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split('|').map(alternative).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether it matches somewhere in `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        self.0.iter().any(|alternative| alternative.matches(&chars))
    }
}

fn alternative(text: &str) -> Option<Alternative> {
    let mut result = Alternative::default();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('^') {
        (result.from_start, rest) = (true, after);
    }
    if rest.ends_with('$') && !rest.ends_with("\\$") {
        (result.to_end, rest) = (true, &rest[..rest.len() - 1]);
    }
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        let unit = match c {
            '.' => Unit::Any,
            '[' => class(&mut chars)?,
            '\\' => Unit::One(chars.next()?),
            '(' | ')' | '{' | '}' | '*' | '+' | '?' => return None,
            c => Unit::One(c),
        };
        let (least, many) = match chars.peek() {
            Some('*') => (0, true),
            Some('+') => (1, true),
            Some('?') => (0, false),
            _ => (1, false),
        };
        if many || least == 0 {
            chars.next();
        }
        result.pieces.push(Piece { unit, least, many });
    }
    Some(result)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Unit> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Unit::Class { negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        let mut ahead = chars.clone();
        if ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']') {
            chars.next();
            ranges.push((first, chars.next()?));
        } else {
            ranges.push((first, first));
        }
    }
}

impl Alternative {
    /// Which positions can be reached after each piece, from all starts at once: no backtracking, so no pattern is slow.
    fn matches(&self, text: &[char]) -> bool {
        let last_start = if self.from_start { 0 } else { text.len() };
        let mut reached: BTreeSet<usize> = (0..=last_start).collect();
        for piece in &self.pieces {
            let mut next = BTreeSet::new();
            for &position in &reached {
                if piece.least == 0 {
                    next.insert(position);
                }
                let mut at = position;
                while text.get(at).is_some_and(|c| piece.unit.fits(*c)) {
                    at += 1;
                    let known = !next.insert(at);
                    // From a known position on, an earlier run went as far as this one would.
                    if !piece.many || (known && piece.least == 1) {
                        break;
                    }
                }
            }
            reached = next;
        }
        reached.iter().any(|&end| !self.to_end || end == text.len())
    }
}

impl Unit {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => *one == c,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_regular_expressions_do() {
        for (pattern, text, expected) in [
            ("web", "my-web-1", true),
            ("^web$", "web", true),
            ("^web$", "web1", false),
            ("web.*1$", "web-x1", true),
            ("^[a-c]+$", "abcab", true),
            ("^[^a-c]+$", "abcab", false),
            ("a?b", "b", true),
            ("^a|z$", "xyz", true),
            ("^a|z$", "xya", false),
            ("a\\.b", "axb", false),
            ("", "anything", true),
            ("^$", "x", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(text), expected, "{pattern} on {text}");
        }
        for bad in ["(a)", "*", "[a", "a{2}", "\\"] {
            assert!(Pattern::parse(bad).is_none(), "{bad}");
        }
        let slow = Pattern::parse(&format!("{}$", "a*".repeat(50))).unwrap();
        assert!(slow.matches(&format!("{}b", "a".repeat(200))), "all of it may be empty");
        let slow = Pattern::parse(&format!("^{}$", "a+".repeat(50))).unwrap();
        assert!(!slow.matches(&format!("{}b", "a".repeat(200))));
    }
}
