//! Globs over slash-separated paths: Go's `filepath.Match` for COPY and ADD sources, and the pattern language of
//! ignore files, which adds `**`.

/// A pattern that is not well-formed (an unclosed or empty class, a lone escape).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether a source needs matching at all; `\` escapes the next character.
#[must_use]
pub fn has_wildcard(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => _ = chars.next(),
            _ => {}
        }
    }
    false
}

/// Whether all of `name` matches `pattern` by the rules of Go's `filepath.Match`: `*` and `?` stop at slashes.
///
/// # Errors
/// When the pattern is malformed anywhere.
pub fn go_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Glob::compile(pattern, false)?.matches(name))
}

/// Clean a slash-separated path as Go's `path.Clean` does: no `.`, no double slash, `..` resolved where it can be.
#[must_use]
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` and what follows: nothing, or anything that ends in a slash.
    Directories,
    /// `**` at the end: anything.
    Anything,
}

/// A compiled glob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(Vec<Token>);

impl Glob {
    /// `deep` gives `**` its meaning.
    fn compile(pattern: &str, deep: bool) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if deep && chars.peek() == Some(&'*') => {
                    chars.next();
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() { Token::Anything } else { Token::Directories }
                }
                '*' => Token::Many,
                '?' => Token::One,
                '[' => class(&mut chars)?,
                '\\' => {
                    let escaped = chars.next().ok_or(BadPattern)?;
                    Token::Literal(if deep { control(escaped) } else { escaped })
                }
                c => Token::Literal(c),
            });
        }
        Ok(Self(tokens))
    }

    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // reachable[i]: the tokens so far can match text[..i]
        let mut reachable = vec![false; text.len() + 1];
        reachable[0] = true;
        for token in &self.0 {
            match token {
                Token::Many => spread(&mut reachable, |i| text[i] != '/'),
                Token::Anything => spread(&mut reachable, |_| true),
                Token::Directories => {
                    let mut any_before = false;
                    for i in 0..reachable.len() {
                        let after_slash = any_before && i > 0 && text[i - 1] == '/';
                        any_before |= reachable[i];
                        reachable[i] |= after_slash;
                    }
                }
                single => step(&mut reachable, |i| fits(single, text[i])),
            }
            if !reachable.contains(&true) {
                return false;
            }
        }
        reachable[text.len()]
    }
}

/// What an escaped letter stands for in an ignore file. BuildKit hands the escape on to a regular expression, where
/// some letters name control characters; `\a.txt` therefore does not match `a.txt`.
fn control(escaped: char) -> char {
    match escaped {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        other => other,
    }
}

/// Zero or more characters that pass.
fn spread(reachable: &mut [bool], pass: impl Fn(usize) -> bool) {
    for i in 1..reachable.len() {
        reachable[i] |= reachable[i - 1] && pass(i - 1);
    }
}

/// Exactly one character that passes.
fn step(reachable: &mut [bool], pass: impl Fn(usize) -> bool) {
    for i in (1..reachable.len()).rev() {
        reachable[i] = reachable[i - 1] && pass(i - 1);
    }
    reachable[0] = false;
}

fn fits(token: &Token, c: char) -> bool {
    match token {
        Token::Literal(literal) => *literal == c,
        Token::One => c != '/',
        Token::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
        }
        Token::Many | Token::Directories | Token::Anything => false,
    }
}

/// Behind `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, BadPattern> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match chars.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => chars.next().ok_or(BadPattern),
        Some(c) => Ok(c),
    }
}

/// One pattern of an ignore file, cleaned, in the cheapest form that decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern {
    text: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Exact,
    /// `dir/**`: the text without `**`.
    Prefix(String),
    /// `**x`: the text without `**`.
    Suffix(String),
    Glob(Glob),
}

impl PathPattern {
    /// Compile a cleaned pattern.
    pub(super) fn compile(text: &str) -> Result<Self, BadPattern> {
        let glob = Glob::compile(text, true)?;
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        let form = if plain(text) {
            Form::Exact
        } else if let Some(suffix) = text.strip_prefix("**").filter(|rest| plain(rest)) {
            Form::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix("**").filter(|rest| plain(rest)) {
            Form::Prefix(prefix.to_owned())
        } else {
            Form::Glob(glob)
        };
        Ok(Self { text: text.to_owned(), form })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Exact => path == self.text,
            Form::Prefix(prefix) => path.starts_with(prefix.as_str()),
            // `**/x` is also plain `x`.
            Form::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            Form::Glob(glob) => glob.matches(path),
        }
    }

    /// Whether some path strictly below `dir` can match. May say yes too often, never no.
    pub(super) fn can_match_below(&self, dir: &str) -> bool {
        if self.text.contains(['[', '\\']) {
            return true;
        }
        let mut pattern = self.text.split('/');
        for component in dir.split('/') {
            match pattern.next() {
                None => return false,
                Some(part) if part.contains("**") => return true,
                Some(part) => {
                    if !go_match(part, component).unwrap_or(true) {
                        return false;
                    }
                }
            }
        }
        pattern.next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_globs() {
        for (pattern, name, matches) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a/b", false),
            ("[a-ζ]*", "α", true),
            ("[\\]a]", "]", true),
            ("**", "a/b", false),
        ] {
            assert_eq!(go_match(pattern, name), Ok(matches), "{pattern} {name}");
        }
        for bad in ["[]a]", "[-]", "[x-]", "[", "[^", "a[", "[a", "a\\", "[a-b-c]", "[-x]"] {
            assert_eq!(go_match(bad, "a"), Err(BadPattern), "{bad}");
        }
    }

    #[test]
    fn wildcards_and_cleaning() {
        assert!(has_wildcard("a*") && has_wildcard("[") && !has_wildcard("a\\*b") && !has_wildcard("a"));
        for (path, cleaned) in [
            ("a/./b//c/", "a/b/c"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("", "."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), cleaned);
        }
    }

    #[test]
    fn ignore_patterns() {
        for (pattern, path, matches) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/file", "file", true),
            ("**/file", "a/b/file", true),
            ("**/file", "xfile", false),
            ("**file", "dir/xfile", true),
            ("**/.foo", "bar.foo", false),
            ("abc/**", "abc", false),
            ("abc/**", "abc/d/e", true),
            ("abc/**/d", "abc/d", true),
            ("abc/**/d", "abc/x/y/d", true),
            ("a**/b", "axx/b", true),
            ("a/*.txt", "a/dir/f.txt", false),
            ("**/*.txt", "f.txt", true),
            ("**/*.txt", "a/b/f.txt", true),
            ("a/**/*.txt", "a/f.txt", true),
            ("**/a/**", "x/a/y", true),
            ("**/a/**", "a/y", true),
            ("**/a/**", "x/a", false),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("[a-z]x", "bx", true),
            ("\\[a]", "[a]", true),
            ("\\a.x", "a.x", false),
            ("\\*.x", "*.x", true),
            ("?.x", "a.x", true),
            ("?.x", "ab.x", false),
        ] {
            let compiled = PathPattern::compile(pattern).unwrap();
            assert_eq!(compiled.matches(path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn pruning() {
        for (pattern, dir, possible) in [
            ("a/b/c", "a", true),
            ("a/b/c", "a/b", true),
            ("a/b", "a/b", false),
            ("a/b", "x", false),
            ("*/b", "x", true),
            ("**/b", "x/y", true),
            ("x", "x", false),
            ("x/**", "x/y", true),
        ] {
            assert_eq!(
                PathPattern::compile(pattern).unwrap().can_match_below(dir),
                possible,
                "{pattern} {dir}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a-c*?\\[\\]^\\\\/.!-]{0,12}", path in "[a-c/.]{0,12}") {
            let _ = go_match(&pattern, &path);
            if let Ok(compiled) = PathPattern::compile(&pattern) {
                compiled.matches(&path);
                compiled.can_match_below(&path);
            }
        }

        #[test]
        fn what_matches_below_is_never_pruned(pattern in "[ab*?/]{1,8}", dir in "[ab]{1,2}(/[ab]){0,2}", name in "[ab]{1,2}") {
            let compiled = PathPattern::compile(&pattern).unwrap();
            if compiled.matches(&format!("{dir}/{name}")) {
                prop_assert!(compiled.can_match_below(&dir));
            }
        }
    }
}
