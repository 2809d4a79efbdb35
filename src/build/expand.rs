//! Expansion of `$name`, `${name…}`, quotes and escapes in words, as BuildKit's frontend does it: close to a shell,
//! without its commands and arithmetic.

use std::collections::{BTreeMap, BTreeSet};

use super::shell_pattern::Pattern;

/// Braces inside braces beyond this are refused, so that no file can exhaust the stack.
const MAX_DEPTH: usize = 100;

/// Where values of variables come from.
pub trait Lookup {
    /// The value, `None` when unset.
    fn get(&self, name: &str) -> Option<&str>;
}

/// Nothing is set.
impl Lookup for () {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// Pairs; of equal names the last counts.
impl Lookup for [(String, String)] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Lookup for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<&str> {
        Lookup::get(self.as_slice(), name)
    }
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// How to read a word.
#[derive(Debug, Clone, Copy)]
pub struct Lex {
    /// The escape character.
    pub escape: char,
    /// Keep quotes in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Leave references to unset variables as they are written.
    pub keep_unset: bool,
    /// Quotes are ordinary characters (heredoc bodies).
    pub literal_quotes: bool,
}

/// The result of an expansion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole text.
    pub text: String,
    /// The text split at unquoted white space.
    pub words: Vec<String>,
    /// Names that were looked up.
    pub used: BTreeSet<String>,
    /// Names that were looked up, were unset and had no operator that provides for it.
    pub unset: BTreeSet<String>,
}

/// A word that cannot be expanded. The text is BuildKit's, on one line, and therefore holds the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", super::go::quote(word))]
pub struct ExpandError {
    /// The word as written.
    pub word: String,
    /// Why.
    pub reason: Reason,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// `${}`, `${:…` or `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// No closing brace.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${name/pattern` without its second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// An operator that does not exist.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${name?message}` of an unset or empty variable.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The message given, or the default one.
        message: String,
    },
    /// A quote that is not closed; the word is `single` or `double`.
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    Quote(&'static str),
    /// An escape in a pattern that is not allowed there.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What follows the backslash.
        escaped: String,
    },
    /// Braces nested too deep.
    #[error("substitutions are nested more than 100 deep")]
    TooDeep,
}

impl Lex {
    /// The rules of instruction words.
    #[must_use]
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, keep_unset: false, literal_quotes: false }
    }

    /// The rules of unquoted heredoc bodies in COPY and ADD; their escape is always `\`.
    #[must_use]
    pub fn heredoc_body() -> Self {
        Self { literal_quotes: true, ..Self::new('\\') }
    }

    /// Expand `word` and split it as well.
    ///
    /// # Errors
    /// When the word is malformed or a required variable is missing.
    pub fn expand(&self, word: &str, env: &(impl Lookup + ?Sized)) -> Result<Expanded, ExpandError> {
        let mut walker = Walker {
            lex: self,
            env: &|name| env.get(name).map(str::to_owned),
            chars: word.chars().collect(),
            at: 0,
            depth: 0,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        };
        match walker.until(None, self.raw_escapes) {
            Ok((text, words)) => {
                Ok(Expanded { text, words: words.finish(), used: walker.used, unset: walker.unset })
            }
            Err(reason) => Err(ExpandError { word: word.to_owned(), reason }),
        }
    }

    /// The expanded text alone.
    ///
    /// # Errors
    /// As [`Lex::expand`].
    pub fn process_word(&self, word: &str, env: &(impl Lookup + ?Sized)) -> Result<String, ExpandError> {
        Ok(self.expand(word, env)?.text)
    }

    /// The expanded words: values of unquoted variables are split as well.
    ///
    /// # Errors
    /// As [`Lex::expand`].
    pub fn process_words(
        &self,
        word: &str,
        env: &(impl Lookup + ?Sized),
    ) -> Result<Vec<String>, ExpandError> {
        Ok(self.expand(word, env)?.words)
    }
}

/// Collects words while the text is read.
#[derive(Debug, Default)]
struct Words {
    done: Vec<String>,
    word: String,
    open: bool,
}

impl Words {
    fn push(&mut self, c: char) {
        if c.is_whitespace() {
            self.close();
        } else {
            self.push_raw(c);
        }
    }

    fn push_raw(&mut self, c: char) {
        self.word.push(c);
        self.open = true;
    }

    fn close(&mut self) {
        if self.open {
            self.done.push(std::mem::take(&mut self.word));
            self.open = false;
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.close();
        self.done
    }
}

struct Walker<'a> {
    lex: &'a Lex,
    env: &'a dyn Fn(&str) -> Option<String>,
    chars: Vec<char>,
    at: usize,
    depth: usize,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl Walker<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Read up to and including `stop`, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Words), Reason> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok((text, words));
            }
            match c {
                '$' => {
                    let value = self.dollar(raw_escapes)?;
                    value.chars().for_each(|c| words.push(c));
                    text.push_str(&value);
                }
                '\'' | '"' if !self.lex.literal_quotes => {
                    let value = if c == '"' { self.double(raw_escapes)? } else { self.single()? };
                    words.word.push_str(&value);
                    words.open = true;
                    text.push_str(&value);
                }
                c => {
                    self.at += 1;
                    self.plain(c, raw_escapes, &mut text, &mut words);
                }
            }
        }
        // The caller knows which character it misses.
        if stop.is_some() { Err(Reason::MissingBrace) } else { Ok((text, words)) }
    }

    fn plain(&mut self, c: char, raw_escapes: bool, text: &mut String, words: &mut Words) {
        if c != self.lex.escape {
            words.push(c);
            text.push(c);
            return;
        }
        if raw_escapes {
            words.push_raw(c);
            text.push(c);
        }
        if let Some(escaped) = self.next() {
            words.push_raw(escaped);
            text.push(escaped);
        }
    }

    fn single(&mut self) -> Result<String, Reason> {
        let mut text = String::new();
        text.extend(self.next().filter(|_| self.lex.raw_quotes));
        while let Some(c) = self.next() {
            if c == '\'' {
                text.extend(Some(c).filter(|_| self.lex.raw_quotes));
                return Ok(text);
            }
            text.push(c);
        }
        Err(Reason::Quote("single"))
    }

    fn double(&mut self, raw_escapes: bool) -> Result<String, Reason> {
        let mut text = String::new();
        text.extend(self.next().filter(|_| self.lex.raw_quotes));
        while let Some(c) = self.peek() {
            if c == '$' {
                text.push_str(&self.dollar(raw_escapes)?);
                continue;
            }
            self.at += 1;
            if c == '"' {
                text.extend(Some(c).filter(|_| self.lex.raw_quotes));
                return Ok(text);
            }
            let special = |next: char| next == '"' || next == '$' || next == self.lex.escape;
            match self.peek() {
                Some(next) if c == self.lex.escape && special(next) => {
                    text.extend(Some(c).filter(|_| raw_escapes));
                    text.push(next);
                    self.at += 1;
                }
                _ => text.push(c),
            }
        }
        Err(Reason::Quote("double"))
    }

    /// At a `$`.
    fn dollar(&mut self, raw_escapes: bool) -> Result<String, Reason> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.value(&name, true) {
                Some(value) => value,
                None if self.lex.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Reason::TooDeep);
        }
        let value = self.braces(raw_escapes);
        self.depth -= 1;
        value
    }

    /// Behind `${`.
    fn braces(&mut self, raw_escapes: bool) -> Result<String, Reason> {
        match self.peek() {
            None => return Err(Reason::MissingBrace),
            Some('{' | '}' | ':') => return Err(Reason::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(Reason::MissingBrace),
            Some('}') => Ok(match self.value(&name, true) {
                Some(value) => value,
                None if self.lex.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, operator, true, raw_escapes),
                Some(other) => Err(Reason::Modifier(format!(":{other}"))),
                None => Err(Reason::MissingBrace),
            },
            Some(operator @ ('-' | '+' | '?')) => self.conditional(&name, operator, false, raw_escapes),
            Some(end @ ('#' | '%')) => self.trim(&name, end),
            Some('/') => self.replace(&name),
            Some(other) => Err(Reason::Modifier(other.to_string())),
        }
    }

    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
        raw_escapes: bool,
    ) -> Result<String, Reason> {
        let (word, _) = self.until(Some('}'), raw_escapes)?;
        let value = self.value(name, false);
        if value.is_none() && self.lex.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let present = value.filter(|value| !(empty_is_unset && value.is_empty()));
        let was_set = self.value(name, false).is_some();
        match (operator, present) {
            ('-', present) => Ok(present.unwrap_or(word)),
            ('+', present) => Ok(present.map_or_else(String::new, |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let state = if was_set { "empty" } else { "unset" };
                let default = format!("is not allowed to be {state}");
                let message = if word.is_empty() { default } else { word };
                Err(Reason::Required { name: name.to_owned(), message })
            }
        }
    }

    fn trim(&mut self, name: &str, end: char) -> Result<String, Reason> {
        let (word, _) = self.until(Some('}'), true)?;
        let Some(value) = self.value(name, true) else {
            return Ok(if self.lex.keep_unset { format!("${{{name}{end}{word}}}") } else { String::new() });
        };
        let (pattern, longest) = match word.strip_prefix(end) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let pattern = compile(pattern)?;
        Ok(if end == '#' {
            pattern.trim_prefix(&value, longest)
        } else {
            pattern.trim_suffix(&value, longest)
        })
    }

    fn replace(&mut self, name: &str) -> Result<String, Reason> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let (pattern, _) = self.until(Some('/'), true).map_err(|reason| match reason {
            Reason::MissingBrace => Reason::MissingSlash,
            other => other,
        })?;
        let (by, _) = self.until(Some('}'), false)?;
        let Some(value) = self.value(name, true) else {
            let slash = if all { "//" } else { "/" };
            let kept = format!("${{{name}{slash}{pattern}/{by}}}");
            return Ok(if self.lex.keep_unset { kept } else { String::new() });
        };
        Ok(compile(&pattern)?.replace(&value, &by, all))
    }

    fn value(&mut self, name: &str, must_be_set: bool) -> Option<String> {
        let value = (self.env)(name);
        self.used.insert(name.to_owned());
        if value.is_none() && must_be_set {
            self.unset.insert(name.to_owned());
        }
        value
    }

    /// A name: letters, digits and underscores; or only digits; or one special parameter of the shell.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.peek().filter(|c| c.is_numeric()) {
                    name.push(digit);
                    self.at += 1;
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.at += 1;
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.at += 1;
                }
            }
        }
        name
    }
}

fn compile(pattern: &str) -> Result<Pattern, Reason> {
    Pattern::parse(pattern).map_err(|escaped| Reason::Pattern {
        pattern: pattern.to_owned(),
        escaped: escaped.map(String::from).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
