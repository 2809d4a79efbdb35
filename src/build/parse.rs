//! A whole file: lines → instructions → stages, with every independent mistake reported in one go.

use super::ast::{ArgPair, Dockerfile, Instruction, Located, ParseError, Span, Stage};
use super::check::Checks;
use super::instruction::{self, Parsed};
use super::lines::{self, Logical, plain_error};
use super::lint;

/// Parse a Dockerfile; `name` is what errors call it.
///
/// # Errors
/// All mistakes found, in the order of their lines.
pub fn parse(source: &[u8], name: &str) -> Result<Dockerfile, Vec<ParseError>> {
    let source = String::from_utf8_lossy(source).into_owned();
    let mut errors = Vec::new();
    let (directives, logical) = lines::logical(&source, &mut errors);
    let escape = directives.escape.unwrap_or('\\');
    let mut builder = Builder::default();
    for line in &logical {
        match instruction::parse(line, escape) {
            Ok(parsed) => builder.add(line, parsed, &mut errors),
            Err(fault) => builder.fault(line, fault, &mut errors),
        }
    }
    if errors.is_empty()
        && let Some(message) = missing(&source, &logical, &builder)
    {
        errors.push(plain_error(message.into(), 0, 0));
    }
    if !errors.is_empty() {
        errors.sort_by_key(|error| error.span.first);
        return Err(errors);
    }
    let mut file = Dockerfile {
        source,
        name: name.to_owned(),
        escape,
        syntax: directives.syntax,
        check: directives.check,
        global_args: builder.global_args,
        stages: builder.stages,
        warnings: Vec::new(),
        comments: commented(&logical),
        skips: logical.iter().filter_map(skip_comment).collect(),
    };
    file.warnings = lint::warnings(&file, &logical);
    Ok(file)
}

/// Parse the triggers of a base image or parent stage. `from` is the span of the FROM line, which errors point at.
///
/// # Errors
/// All triggers that are not instructions.
pub fn parse_triggers(
    triggers: &[String],
    escape: char,
    from: Span,
) -> Result<Vec<Located<Instruction>>, Vec<ParseError>> {
    let (mut instructions, mut errors) = (Vec::new(), Vec::new());
    for trigger in triggers {
        let directive = if escape == '\\' { "" } else { "# escape=`\n" };
        let mut found = Vec::new();
        let (_, logical) = lines::logical(&format!("{directive}{trigger}"), &mut found);
        for line in logical {
            match instruction::parse(&line, escape) {
                Ok(Parsed::Instruction(value)) => {
                    instructions.push(Located { value, span: from, text: line.text });
                }
                Ok(Parsed::From(_)) => {
                    found.push(plain_error("FROM isn't allowed as an ONBUILD trigger".into(), 0, 0));
                }
                Err(fault) => found.push(fault.at(from)),
            }
        }
        errors.extend(found.into_iter().map(|error| ParseError { span: from, names_line: false, ..error }));
    }
    if errors.is_empty() { Ok(instructions) } else { Err(errors) }
}

/// The comments above instructions, for those that have some.
fn commented(logical: &[Logical]) -> Vec<(Span, Vec<String>)> {
    let some = logical.iter().filter(|line| !line.comments.is_empty());
    some.map(|line| (line.span, line.comments.clone())).collect()
}

/// `# check=…` above an instruction; options that are wrong are comments here.
fn skip_comment(line: &Logical) -> Option<(Span, Checks)> {
    let options = line.comments.iter().rev().find_map(|comment| {
        let (name, value) = comment.split_once('=')?;
        name.trim().eq_ignore_ascii_case("check").then_some(value)
    });
    Some((line.span, Checks::parse(options?).ok()?))
}

/// What a file without mistakes in its lines may still lack.
fn missing(source: &str, logical: &[Logical], builder: &Builder) -> Option<&'static str> {
    if source.is_empty() {
        Some("the Dockerfile cannot be empty")
    } else if logical.is_empty() {
        Some("file with no instructions")
    } else if builder.stages.is_empty() {
        Some("dockerfile contains no stages to build")
    } else {
        None
    }
}

#[derive(Default)]
struct Builder {
    global_args: Vec<Located<Vec<ArgPair>>>,
    stages: Vec<Stage>,
    /// A FROM line was seen, even a broken one: what follows is not outside of a stage.
    in_stage: bool,
    complained: bool,
}

impl Builder {
    fn add(&mut self, line: &Logical, parsed: Parsed, errors: &mut Vec<ParseError>) {
        let text = line.text.clone();
        match parsed {
            Parsed::From(value) => {
                self.in_stage = true;
                let from = Located { value, span: line.span, text };
                self.stages.push(Stage { from, index: self.stages.len(), instructions: Vec::new() });
            }
            Parsed::Instruction(Instruction::Arg(value)) if !self.in_stage => {
                self.global_args.push(Located { value, span: line.span, text });
            }
            Parsed::Instruction(value) => match self.stages.last_mut() {
                Some(stage) => stage.instructions.push(Located { value, span: line.span, text }),
                None if self.in_stage || self.complained => {}
                None => {
                    self.complained = true;
                    let Span { first, last } = line.span;
                    errors.push(plain_error("no build stage in current context".into(), first, last));
                }
            },
        }
    }

    fn fault(&mut self, line: &Logical, fault: instruction::Fault, errors: &mut Vec<ParseError>) {
        let is_from = line.text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("FROM"));
        self.in_stage |= is_from;
        errors.push(fault.at(line.span));
    }
}

#[cfg(test)]
mod tests;
