//! The source excerpt shown with an error: the lines in question, marked, and a little around them.

use std::fmt::Write as _;

use super::ast::{Dockerfile, Span};

const RULE: &str = "--------------------";

/// The excerpt of `span`; empty when the span names no line.
#[must_use]
pub fn excerpt(file: &Dockerfile, span: Span) -> String {
    of_source(&file.source, &file.name, span)
}

/// The excerpt of a text that did not become a [`Dockerfile`].
#[must_use]
pub fn of_source(source: &str, name: &str, span: Span) -> String {
    let lines: Vec<&str> = source.split('\n').collect();
    if span.first == 0 || span.first > lines.len() {
        return String::new();
    }
    let last = span.last.clamp(span.first, lines.len());
    let around = if span.first == last { 2 } else { 1 };
    let shown = span.first.saturating_sub(around).max(1)..=(last + around).min(lines.len());
    let mut text = format!("{name}:{}\n{RULE}\n", span.first);
    for number in shown {
        let mark = if (span.first..=last).contains(&number) { ">>>" } else { "   " };
        let line = lines[number - 1].trim_end_matches('\r');
        // Writing to a String cannot fail.
        _ = writeln!(text, " {number:3} | {mark} {line}");
    }
    text + RULE + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(source: &str, first: usize, last: usize) -> String {
        of_source(source, "Dockerfile", Span { first, last })
    }

    #[test]
    fn two_lines_around_one_and_one_around_several() {
        let source = "FROM scratch\nENV a=b\nCOPY nope /x\n";
        let expected = "Dockerfile:3\n--------------------\n   1 |     FROM scratch\n   2 |     ENV a=b\n   3 | >>> COPY nope /x\n   4 |     \n--------------------\n";
        assert_eq!(show(source, 3, 3), expected);
        let marked = show("a\nb\nc\nd\ne\n", 2, 3);
        assert_eq!(marked.lines().count(), 2 + 4 + 1);
        assert!(marked.contains("   2 | >>> b\n   3 | >>> c\n   4 |     d\n"));
    }

    #[test]
    fn odd_spans() {
        assert_eq!(show("a\n", 0, 0), "");
        assert_eq!(show("a\n", 9, 9), "");
        assert!(show("a", 1, 99).contains(">>> a"));
    }
}
