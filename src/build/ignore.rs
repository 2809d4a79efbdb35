//! Ignore files (`.dockerignore`) and `--exclude` lists: patterns from top to bottom, the last match wins, and what
//! matches a directory matches everything below it.

use super::pattern::{BadPattern, PathPattern, clean};

/// Patterns that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneException,
    /// A malformed pattern. The text is BuildKit's.
    #[error("syntax error in pattern")]
    Syntax {
        /// The pattern.
        pattern: String,
        /// What the compiler says.
        #[source]
        source: BadPattern,
    },
}

/// A list of patterns.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// `!`
    exception: bool,
    pattern: PathPattern,
}

/// An ignore file.
#[derive(Debug)]
pub struct IgnoreFile;

/// Which patterns matched a directory, to be handed on to what lies in it.
///
/// A pattern that matched a directory stays matched below it even where another one decided; without this memory
/// nested exceptions come out wrong.
#[derive(Debug, Clone, Default)]
pub struct DirState {
    matched: Vec<bool>,
}

impl IgnoreFile {
    /// Read an ignore file.
    ///
    /// # Errors
    /// For a lone `!` and for malformed patterns.
    pub fn parse(bytes: &[u8]) -> Result<Matcher, IgnoreError> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        // Only a `#` in the first column makes a comment.
        Matcher::new(text.lines().filter(|line| !line.starts_with('#')))
    }
}

impl Matcher {
    /// Compile patterns; blank ones are skipped.
    ///
    /// # Errors
    /// For a lone `!` and for malformed patterns.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let pattern = pattern.trim();
            let (exception, body) = match pattern.strip_prefix('!') {
                Some(body) => (true, body.trim()),
                None => (false, pattern),
            };
            if body.is_empty() {
                if exception {
                    return Err(IgnoreError::LoneException);
                }
                continue;
            }
            let cleaned = clean(body);
            let cleaned = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
            let pattern = PathPattern::compile(cleaned)
                .map_err(|source| IgnoreError::Syntax { pattern: body.to_owned(), source })?;
            rules.push(Rule { exception, pattern });
        }
        Ok(Self { rules })
    }

    /// Whether there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a pattern starts with `!`.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Whether `path` (relative, slashes, no leading `./`) is excluded, looked at on its own.
    #[must_use]
    pub fn excluded(&self, path: &str) -> bool {
        let mut state = None;
        let mut excluded = false;
        for (at, _) in path.match_indices('/').chain(std::iter::once((path.len(), ""))) {
            let (now, next) = self.visit(&path[..at], state.as_ref());
            (excluded, state) = (now, Some(next));
        }
        excluded
    }

    /// Whether `path` is excluded, given the state of the directory it lies in (`None` at the root). The state
    /// returned is for what lies below `path`.
    #[must_use]
    pub fn visit(&self, path: &str, parent: Option<&DirState>) -> (bool, DirState) {
        let mut excluded = false;
        let mut matched = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let inherited = parent.is_some_and(|state| state.matched.get(index) == Some(&true));
            // A rule that could not change the answer is not evaluated, and then counts as not matched below.
            let hit = inherited || (rule.exception == excluded && rule.pattern.matches(path));
            matched.push(hit);
            if hit {
                excluded = !rule.exception;
            }
        }
        (excluded, DirState { matched })
    }

    /// Whether nothing below the excluded directory `dir` can be included again, so that it need not be read.
    #[must_use]
    pub fn may_prune(&self, dir: &str) -> bool {
        !self.rules.iter().any(|rule| rule.exception && rule.pattern.can_match_below(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &[&str], path: &str) -> bool {
        IgnoreFile::parse(rules.join("\n").as_bytes()).unwrap().excluded(path)
    }

    #[test]
    fn last_match_wins_and_directories_carry_their_content() {
        for (rules, path, expected) in [
            (&["docs"][..], "docs/a/b", true),
            (&["docs", "!docs/README.md"], "docs/README.md", false),
            (&["docs", "!docs/README.md"], "docs/x", true),
            (&["!docs/README.md", "docs"], "docs/README.md", true),
            (&["**", "!util/web"], "util/web/foo", false),
            (&["**", "!util/web"], "util/x", true),
            (&["src", "!src/test", "src/test/data"], "src/test/t.c", false),
            (&["src", "!src/test", "src/test/data"], "src/test/data/d", true),
            (&["*"], "a/b", true),
            (&["*", "!a/b"], "a/b", false),
            (&["*", "!a/b"], "a/c", true),
            // At `a` the exception changes nothing and is not remembered.
            (&["*/b", "!a"], "a/b", true),
            (&["."], "a", false),
            (&["/a"], "a", true),
            (&["a/"], "a", true),
            (&["./a/../b"], "b", true),
            (&["../a"], "a", false),
            (&["# c", " #x"], "#x", true),
            (&["docs", "!   docs/x"], "docs/x", false),
            (&["A"], "a", false),
            (&["a\r", "", "  "], "a", true),
            (&["\u{feff}a"], "a", true),
            (&["foo bar"], "foo bar", true),
        ] {
            assert_eq!(excluded(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn unusable_patterns() {
        assert_eq!(IgnoreFile::parse(b"!").unwrap_err().to_string(), "illegal exclusion pattern: \"!\"");
        assert_eq!(IgnoreFile::parse(b"a[b").unwrap_err().to_string(), "syntax error in pattern");
    }

    #[test]
    fn walking_gives_the_same_answer_as_asking() {
        let matcher = IgnoreFile::parse(b"a\n!a/b\na/b/c\n!a/b/c/d\n").unwrap();
        let mut state = None;
        for (path, expected) in
            [("a", true), ("a/b", false), ("a/b/c", true), ("a/b/c/d", false), ("a/b/c/d/e", false)]
        {
            let (now, next) = matcher.visit(path, state.as_ref());
            assert_eq!((now, matcher.excluded(path)), (expected, expected), "{path}");
            state = Some(next);
        }
    }

    #[test]
    fn pruning_stops_at_exceptions() {
        let matcher = IgnoreFile::parse(b"docs\nsrc\n!docs/a/b\n").unwrap();
        assert!(!matcher.may_prune("docs") && !matcher.may_prune("docs/a"));
        assert!(matcher.may_prune("docs/x") && matcher.may_prune("src"));
        assert!(Matcher::new(["a"]).unwrap().may_prune("a"));
    }
}
