//! Physical lines → logical lines: directives, comments, continuations and heredoc bodies.

use super::ast::{Heredoc, ParseError, Span};
use super::heredoc;
use super::instruction::{self, KEYWORDS};
use super::suggest;
use super::words;

/// BuildKit's scanner gives up on longer physical lines.
const MAX_LINE: usize = 65535;

/// One instruction with its continuations joined.
#[derive(Debug, Clone)]
pub(super) struct Logical {
    /// The text, trimmed.
    pub(super) text: String,
    /// Its lines, heredoc bodies included.
    pub(super) span: Span,
    /// The comments directly above, without `#` and blanks.
    pub(super) comments: Vec<String>,
    /// The heredocs it opens.
    pub(super) heredocs: Vec<Heredoc>,
    /// Whether a blank line stood inside it.
    pub(super) empty_continuation: bool,
}

/// The directives at the top of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Directives {
    pub(super) syntax: Option<String>,
    pub(super) check: Option<String>,
    pub(super) escape: Option<char>,
}

/// All logical lines of a file. Errors are collected, so that one run names several.
pub(super) fn logical(source: &str, errors: &mut Vec<ParseError>) -> (Directives, Vec<Logical>) {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let physical: Vec<&str> = source.split_inclusive('\n').collect();
    if let Some(index) = physical.iter().position(|line| line.trim_end_matches('\n').len() > MAX_LINE) {
        let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
        errors.push(plain_error(message, index + 1, index + 1));
        return (Directives::default(), Vec::new());
    }
    let directives = directives(&physical, errors);
    let mut reader = Reader { physical, at: 0, escape: directives.escape.unwrap_or('\\') };
    let mut lines = Vec::new();
    let mut comments = Vec::new();
    while let Some(line) = reader.next() {
        let line = line.trim_start();
        if let Some(comment) = line.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
        } else if !line.is_empty() {
            lines.extend(reader.instruction(line, std::mem::take(&mut comments), errors));
        }
    }
    (directives, lines)
}

/// An error of the kind that does not name its line.
pub(super) fn plain_error(message: String, first: usize, last: usize) -> ParseError {
    ParseError { message, span: Span { first, last }, names_line: false }
}

struct Reader<'a> {
    physical: Vec<&'a str>,
    at: usize,
    escape: char,
}

impl<'a> Reader<'a> {
    /// The next physical line without its end.
    fn next(&mut self) -> Option<&'a str> {
        let line = self.physical.get(self.at)?;
        self.at += 1;
        Some(line.trim_end_matches(['\r', '\n']))
    }

    /// The instruction that starts with `first`, the line just read.
    fn instruction(
        &mut self,
        first: &str,
        comments: Vec<String>,
        errors: &mut Vec<ParseError>,
    ) -> Option<Logical> {
        let first_line = self.at;
        let (start, mut continued) = self.continuation(first);
        let mut text = start.to_owned();
        let mut empty_continuation = false;
        while continued {
            let Some(line) = self.next() else { break };
            let trimmed = line.trim_start();
            if trimmed.is_empty() {
                empty_continuation = true;
            } else if !trimmed.starts_with('#') {
                let (part, more) = self.continuation(line);
                text.push_str(part);
                continued = more;
            }
        }
        let heredocs = self.heredocs(&text, first_line, errors)?;
        let text = text.trim().to_owned();
        if text.is_empty() {
            return None;
        }
        let span = Span { first: first_line, last: self.at };
        Some(Logical { text, span, comments, heredocs, empty_continuation })
    }

    /// The line without its continuation mark, and whether there was one. A doubled escape character is none.
    fn continuation<'b>(&self, line: &'b str) -> (&'b str, bool) {
        let blanks_off = line.trim_end_matches([' ', '\t']);
        match blanks_off.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            _ => (line, false),
        }
    }

    /// Read the bodies of the heredocs that `text` opens. `None` when one has no end.
    fn heredocs(
        &mut self,
        text: &str,
        first_line: usize,
        errors: &mut Vec<ParseError>,
    ) -> Option<Vec<Heredoc>> {
        let may = self.may_hold_heredocs(text);
        if may == MayHold::No {
            return Some(Vec::new());
        }
        let mut heredocs = Vec::new();
        for opener in heredoc::openers(text) {
            let start = self.at;
            let Some(raw) = self.body(&opener) else {
                // Without its end, what only resembles a heredoc is none.
                if may == MayHold::Guess || opener.detached {
                    self.at = start;
                    continue;
                }
                errors.push(plain_error("unterminated heredoc".into(), first_line, self.at));
                return None;
            };
            let content = if opener.chomp { heredoc::chomp(&raw) } else { raw.clone() };
            let heredoc::Opener { name, expand, chomp, fd, .. } = opener;
            heredocs.push(Heredoc { name, content, raw, expand, chomp, fd });
        }
        Some(heredocs)
    }

    fn body(&mut self, opener: &heredoc::Opener) -> Option<String> {
        let mut body = String::new();
        loop {
            let whole = *self.physical.get(self.at)?;
            let line = self.next()?;
            let line = if opener.chomp { line.trim_start_matches('\t') } else { line };
            if line == opener.name {
                return Some(body);
            }
            body.push_str(whole);
        }
    }

    fn may_hold_heredocs(&self, text: &str) -> MayHold {
        if !text.contains("<<") {
            return MayHold::No;
        }
        let mut parts = words::split(text, self.escape);
        if parts.keyword.eq_ignore_ascii_case("ONBUILD") {
            parts = words::split(&parts.rest, self.escape);
        }
        let keyword = parts.keyword.to_ascii_uppercase();
        if words::json(&parts.rest) != words::Json::No {
            return MayHold::No;
        }
        match keyword.as_str() {
            "RUN" | "COPY" | "ADD" => MayHold::Yes,
            known if instruction::is_known(known) => MayHold::No,
            // A misspelt RUN: its script is not a series of unknown instructions.
            unknown => match suggest::nearest(unknown, KEYWORDS.iter().copied()) {
                Some("RUN" | "COPY" | "ADD") => MayHold::Guess,
                _ => MayHold::No,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayHold {
    Yes,
    Guess,
    No,
}

/// Read `# name = value` lines from the top until the first line that is none.
fn directives(physical: &[&str], errors: &mut Vec<ParseError>) -> Directives {
    let mut found = Directives::default();
    // After an interpreter line `syntax` and `check` still count; `escape` no longer does.
    let shebang = physical.first().is_some_and(|line| line.starts_with("#!"));
    for (index, line) in physical.iter().enumerate().skip(usize::from(shebang)) {
        let Some((name, value)) = directive(line) else { break };
        let repeated = match name.as_str() {
            "syntax" => found.syntax.replace(value.to_owned()).is_some(),
            "check" => found.check.replace(value.to_owned()).is_some(),
            "escape" if shebang => false,
            "escape" => {
                let escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message = format!("invalid escape token '{other}' does not match ` or \\");
                        errors.push(plain_error(message, index + 1, index + 1));
                        '\\'
                    }
                };
                found.escape.replace(escape).is_some()
            }
            _ => break,
        };
        if repeated {
            let message = format!("only one {name} parser directive can be used");
            errors.push(plain_error(message, index + 1, index + 1));
        }
    }
    found
}

/// A line of the shape `# name = value`; the name in lower case.
fn directive(line: &str) -> Option<(String, &str)> {
    let rest = line.trim_start().strip_prefix('#')?;
    let (name, value) = rest.split_once('=')?;
    let (name, value) = (name.trim_matches([' ', '\t']), value.trim());
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && !value.is_empty();
    good.then(|| (name.to_ascii_lowercase(), value))
}
