//! Build checks that need more than the text of one line: the defaults of arguments, the ignore file.

use std::collections::BTreeMap;

use super::ast::{ArgPair, Copy, Dockerfile, Instruction, Span, Warning};
use super::expand::Lex;
use super::ignore::IgnoreFile;
use super::pattern::{clean, has_wildcard};
use super::scope::{Globals, Platforms};
use crate::oci::Reference;

/// `FROM` lines that have no usable name when no build argument is given.
pub(super) fn default_args(file: &Dockerfile, platforms: Platforms<'_>) -> Vec<Warning> {
    // A default that cannot be expanded without arguments asks for one on purpose.
    let Ok(globals) = Globals::new(file, &BTreeMap::new(), platforms) else { return Vec::new() };
    let lex = Lex::new(file.escape);
    let mut found = Vec::new();
    for stage in file.stages.iter().filter(|stage| stage.from.value.base.contains('$')) {
        let Ok(expanded) = lex.expand(&stage.from.value.base, &globals) else { continue };
        let known = expanded.text == "scratch" || Reference::parse(&expanded.text).is_ok();
        if expanded.text.is_empty() || !known {
            let message =
                format!("`{}` names no image while its arguments have their defaults", stage.from.value.base);
            found.push(Warning { rule: "InvalidDefaultArgInFrom", message, span: stage.from.span });
        }
    }
    found
}

fn names(pairs: &[ArgPair]) -> Vec<&str> {
    pairs.iter().map(|pair| pair.name.as_str()).collect()
}

/// Comments directly above a stage with a name or an ARG that describe something else, as far as one can tell.
pub(super) fn descriptions(file: &Dockerfile) -> Vec<Warning> {
    let mut described: Vec<(Span, &str, Vec<&str>)> = Vec::new();
    described.extend(file.global_args.iter().map(|line| (line.span, "ARG", names(&line.value))));
    for stage in &file.stages {
        let name = stage.from.value.name.as_deref();
        described.extend(name.map(|name| (stage.from.span, "FROM", vec![name])));
        for line in &stage.instructions {
            if let Instruction::Arg(pairs) = &line.value {
                described.push((line.span, "ARG", names(pairs)));
            }
        }
    }
    let mut found = Vec::new();
    for (span, keyword, names) in described {
        let comments = file.comments.iter().filter(|(at, _)| *at == span).flat_map(|(_, lines)| lines);
        let Some(last) = comments.last().filter(|text| !text.is_empty() && !text.starts_with("check="))
        else {
            continue;
        };
        let word = last.split(' ').next().unwrap_or_default();
        if !names.contains(&word) {
            let name = if let [one] = names.as_slice() { one } else { "<name>" };
            let message = format!(
                "the comment above {keyword} should read `# {name} <description>`, or be set off by an empty comment"
            );
            found.push(Warning { rule: "InvalidDefinitionDescription", message, span });
        }
    }
    found
}

/// Sources of the context that the ignore file hides, in the stages `of`. Files with exceptions are not judged.
pub(super) fn ignored_sources(file: &Dockerfile, ignore: &[u8], of: &[usize]) -> Vec<Warning> {
    let text = String::from_utf8_lossy(ignore);
    if text.lines().any(|line| line.trim_start().starts_with('!')) {
        return Vec::new();
    }
    // A file that cannot be used fails the build with words of its own.
    let Ok(matcher) = IgnoreFile::parse(ignore) else { return Vec::new() };
    let everything = text.lines().any(|line| ["*", "**", "**/*", "*/**"].contains(&line.trim()));
    let hides = |source: &str| {
        let path = clean(&format!("/{source}"));
        let path = path.trim_start_matches('/');
        if path.is_empty() { everything } else { matcher.excluded(path) }
    };
    let mut found = Vec::new();
    let lines = of.iter().filter_map(|index| file.stages.get(*index)).flat_map(|stage| &stage.instructions);
    for line in lines {
        let (Instruction::Copy(copy) | Instruction::Add(copy)) = &line.value else { continue };
        for source in local_sources(copy).filter(|source| hides(source)) {
            let message = format!("`{source}` is hidden by the ignore file");
            found.push(Warning { rule: "CopyIgnoredFile", message, span: line.span });
        }
    }
    found
}

/// The sources that name one file of the context as they stand.
fn local_sources(copy: &Copy) -> impl Iterator<Item = &String> {
    let of_context = copy.from.is_none();
    copy.sources.iter().filter(move |source| {
        of_context && !has_wildcard(source) && !source.contains('$') && !source.contains("://")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_sources_are_named_once_each() {
        let source = b"FROM scratch AS a\nCOPY x y.txt /\nFROM scratch\nCOPY --from=a x /\nADD . ../x /\n";
        let file = crate::build::parse(source, "Dockerfile").unwrap();
        let lines = |ignore: &str, of: &[usize]| {
            let found = ignored_sources(&file, ignore.as_bytes(), of);
            found.iter().map(|warning| warning.span.first).collect::<Vec<_>>()
        };
        assert_eq!(lines("x", &[0, 1]), [2, 5]);
        assert_eq!(lines("*.txt", &[0, 1]), [2]);
        assert_eq!(lines("x", &[1]), [5]);
        assert_eq!(lines("**", &[1]), [5, 5]);
        assert_eq!(lines("x\n!x", &[0, 1]), [0; 0]);
        assert_eq!(lines("[", &[0, 1]), [0; 0]);
    }
}
