//! The globs of `${name#pattern}` and its kin: `*`, `?` and escapes, nothing else. They are matched directly, since a
//! regular expression engine would cost more to build than the few characters are worth.

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// `?`: one character, not a newline.
    One,
    /// `*`: any number of characters, newlines excluded.
    Many,
}

impl Pattern {
    /// Compile. The error is the character after a backslash that may not be escaped.
    pub(super) fn parse(text: &str) -> Result<Self, Option<char>> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(c),
                    other => return Err(other),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    /// The length of the longest (or shortest) match at the start of `text`, in characters.
    fn prefix(&self, text: &[char], longest: bool) -> Option<usize> {
        // reachable[i]: the tokens so far can match text[..i]
        let mut reachable = vec![false; text.len() + 1];
        reachable[0] = true;
        for token in &self.0 {
            if *token == Token::Many {
                for i in 1..reachable.len() {
                    reachable[i] |= reachable[i - 1] && text[i - 1] != '\n';
                }
                continue;
            }
            for i in (1..reachable.len()).rev() {
                let fits = match token {
                    Token::Literal(c) => text[i - 1] == *c,
                    _ => text[i - 1] != '\n',
                };
                reachable[i] = reachable[i - 1] && fits;
            }
            reachable[0] = false;
        }
        if longest { reachable.iter().rposition(|r| *r) } else { reachable.iter().position(|r| *r) }
    }

    /// `${value#pattern}` and `${value##pattern}`.
    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let cut = self.prefix(&chars, longest).unwrap_or(0);
        chars[cut..].iter().collect()
    }

    /// `${value%pattern}` and `${value%%pattern}`: the same from the other end.
    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let reversed = Self(self.0.iter().rev().copied().collect());
        let chars: Vec<char> = value.chars().rev().collect();
        let cut = reversed.prefix(&chars, longest).unwrap_or(0);
        chars[cut..].iter().rev().collect()
    }

    /// Where the longest match from each place ends, if there is one. Found for all places at once, last token first:
    /// matching at each place by itself would take time by the square of the value.
    fn longest_ends(&self, text: &[char]) -> Vec<Option<usize>> {
        let mut ends: Vec<Option<usize>> = (0..=text.len()).map(Some).collect();
        for token in self.0.iter().rev() {
            if *token == Token::Many {
                for i in (0..text.len()).rev() {
                    if text[i] != '\n' {
                        ends[i] = ends[i].max(ends[i + 1]);
                    }
                }
                continue;
            }
            for (i, c) in text.iter().enumerate() {
                let fits = match token {
                    Token::Literal(wanted) => c == wanted,
                    _ => *c != '\n',
                };
                ends[i] = if fits { ends[i + 1] } else { None };
            }
            ends[text.len()] = None;
        }
        ends
    }

    /// `${value/pattern/by}` and `${value//pattern/by}`: leftmost longest matches.
    pub(super) fn replace(&self, value: &str, by: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let ends = self.longest_ends(&chars);
        let mut result = String::new();
        let mut at = 0;
        let mut after_match = false;
        while at <= chars.len() {
            match ends[at] {
                // An empty match right behind another match does not count, as in Go.
                Some(end) if end > at || !after_match => {
                    result.push_str(by);
                    if !all {
                        result.extend(&chars[end..]);
                        return result;
                    }
                    after_match = true;
                    if end > at {
                        at = end;
                        continue;
                    }
                }
                _ => {}
            }
            after_match = false;
            result.extend(chars.get(at));
            at += 1;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_suffixes() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        for (text, value, shortest, longest) in [
            ("*x", "xxyy", "xyy", "yy"),
            ("a?", "abab", "ab", "ab"),
            ("*", "abc", "abc", ""),
            ("", "abc", "abc", "abc"),
            ("b", "abc", "abc", "abc"),
            ("*/", "a/b/c", "b/c", "c"),
            ("?", "éa", "a", "a"),
        ] {
            assert_eq!(pattern(text).trim_prefix(value, false), shortest, "{text} on {value}");
            assert_eq!(pattern(text).trim_prefix(value, true), longest, "{text} on {value}");
        }
        assert_eq!(pattern(".*").trim_suffix("x.tar.gz", false), "x.tar");
        assert_eq!(pattern(".*").trim_suffix("x.tar.gz", true), "x");
        assert_eq!(pattern(r"\**").trim_suffix("xx**", true), "xx");
        assert!(Pattern::parse(r"\a").is_err());
        assert!(Pattern::parse(r"\").is_err());
    }

    #[test]
    fn replacements() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        assert_eq!(pattern("o").replace("foo", "0", false), "f0o");
        assert_eq!(pattern("o").replace("foo", "0", true), "f00");
        assert_eq!(pattern("*").replace("foo", "x", true), "x");
        assert_eq!(pattern("").replace("ab", "-", true), "-a-b-");
        assert_eq!(pattern("z").replace("ab", "-", true), "ab");
        assert_eq!(pattern("").replace("", "-", true), "-");
        assert_eq!(pattern("a*c").replace("abcbc\nac", "-", true), "-\n-");
        assert_eq!(pattern("?").replace("a\nb", "-", true), "-\n-");
        assert_eq!(pattern(r"\*").replace("a*b*", "-", false), "a-b*");
        assert_eq!(pattern("*b").replace("aab\nx", "-", true), "-\nx");
    }

    #[test]
    fn a_long_pattern_on_a_long_value_takes_no_time() {
        let value = "ab".repeat(2_000);
        let pattern = Pattern::parse(&format!("a*{value}x")).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(pattern.replace(&value, "-", true), value);
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    }
}
