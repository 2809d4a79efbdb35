//! `build --check` and `build --call`: what a Dockerfile offers and what is questionable in it, with nothing built.

use serde_json::{Value, json};

use super::build::failed;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops::build::{self as op, Argument, BuildRequest, Need, Outline, Remark, Span, Target};
use crate::ui::Ui;

/// A `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    kind: Kind,
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Check,
    Outline,
    Targets,
}

impl Call {
    /// `--check`
    pub(super) const CHECK: Self = Self { kind: Kind::Check, json: false };

    /// `--call`; `None` is an ordinary build.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, CmdError> {
        let wrong = |what: &str| CmdError::usage(format!("invalid --call `{text}`: {what}"));
        let mut fields = text.split(',').map(|field| field.strip_prefix("method=").unwrap_or(field));
        let kind = match fields.next().unwrap_or_default() {
            "build" | "" => return Ok(None),
            "check" | "lint" => Kind::Check,
            "outline" => Kind::Outline,
            "targets" => Kind::Targets,
            _ => return Err(wrong("it is build, check, outline or targets")),
        };
        let mut json = false;
        for field in fields {
            match field {
                "format=json" => json = true,
                "format=text" => json = false,
                _ => return Err(wrong("behind it may stand format=json or format=text")),
            }
        }
        Ok(Some(Self { kind, json }))
    }

    /// Look and tell.
    pub(super) fn answer(self, cx: &Context, ui: &mut Ui, request: &BuildRequest) -> CmdResult {
        match self.kind {
            Kind::Check => {
                let note = |text: &str| Ui::new().note(text);
                let remarks = op::check(cx, request, &note).map_err(|error| failed(ui, error, None))?;
                if self.json {
                    ui.text(&document(&remarks_json(&remarks)))
                } else {
                    show_remarks(ui, &remarks)
                }
                Ok(u8::from(!remarks.is_empty()))
            }
            Kind::Outline => {
                let outline = op::outline(cx, request).map_err(|error| failed(ui, error, None))?;
                if self.json {
                    ui.text(&document(&outline_json(&outline)))
                } else {
                    show_outline(ui, &outline)
                }
                Ok(0)
            }
            Kind::Targets => {
                let targets = op::targets(cx, request).map_err(|error| failed(ui, error, None))?;
                if self.json {
                    let targets: Vec<Value> = targets.iter().map(target_json).collect();
                    ui.text(&document(&json!({ "targets": targets })));
                } else {
                    show_targets(ui, &targets);
                }
                Ok(0)
            }
        }
    }
}

fn document(value: &Value) -> String {
    format!("{value:#}\n")
}

fn show_remarks(ui: &mut Ui, remarks: &[Remark]) {
    for remark in remarks {
        ui.line(format_args!("WARNING: {} - {}", remark.rule, url(remark.rule)));
        ui.line(&remark.message);
        ui.line(remark.excerpt.trim_end_matches('\n'));
        ui.line("");
    }
    match remarks.len() {
        0 => ui.line("Check complete, no warnings found."),
        1 => ui.line("Check complete, 1 warning has been found!"),
        many => ui.line(format_args!("Check complete, {many} warnings have been found!")),
    }
}

/// Where docker's documentation explains a rule.
fn url(rule: &str) -> String {
    let letters: Vec<char> = rule.chars().collect();
    let mut words = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let after_lower = index > 0 && letters[index - 1].is_lowercase();
        let before_lower = index > 0 && letters.get(index + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (after_lower || before_lower) {
            words.push('-');
        }
        words.extend(letter.to_lowercase());
    }
    format!("https://docs.docker.com/go/dockerfile/rule/{words}/")
}

fn remarks_json(remarks: &[Remark]) -> Value {
    let one = |remark: &Remark| {
        json!({
            "ruleName": remark.rule,
            "url": url(remark.rule),
            "detail": remark.message,
            "location": location(remark.span),
        })
    };
    json!({ "warnings": remarks.iter().map(one).collect::<Vec<_>>() })
}

fn location(span: Span) -> Value {
    json!({ "ranges": [{
        "start": { "line": span.first, "character": 0 },
        "end": { "line": span.last, "character": 0 },
    }] })
}

fn target_json(target: &Target) -> Value {
    let mut value = json!({});
    if let Some(name) = &target.name {
        value["name"] = name.as_str().into();
    }
    if target.default {
        value["default"] = true.into();
    }
    if !target.description.is_empty() {
        value["description"] = target.description.as_str().into();
    }
    value["base"] = target.base.as_str().into();
    value["location"] = location(target.span);
    value
}

fn outline_json(outline: &Outline) -> Value {
    let mut value = json!({});
    if let Some(name) = &outline.target.name {
        value["name"] = name.as_str().into();
    }
    if !outline.target.description.is_empty() {
        value["description"] = outline.target.description.as_str().into();
    }
    let argument = |argument: &Argument| {
        let mut value = json!({ "name": argument.name });
        if !argument.description.is_empty() {
            value["description"] = argument.description.as_str().into();
        }
        if let Some(text) = &argument.value {
            value["value"] = text.as_str().into();
        }
        value["location"] = location(argument.span);
        value
    };
    let need = |need: &Need| {
        let mut value = json!({ "name": need.id });
        if need.required {
            value["required"] = true.into();
        }
        value["location"] = location(need.span);
        value
    };
    value["args"] = outline.arguments.iter().map(argument).collect();
    value["secrets"] = outline.secrets.iter().map(need).collect();
    value["ssh"] = outline.sockets.iter().map(need).collect();
    value
}

fn show_targets(ui: &mut Ui, targets: &[Target]) {
    let row = |target: &Target| {
        let mark = if target.default { "(default)" } else { "" };
        let name = target.name.as_deref().unwrap_or_default();
        vec![format!("{name} {mark}").trim().to_owned(), target.description.clone()]
    };
    table(ui, &["TARGET", "DESCRIPTION"], targets.iter().map(row).collect());
}

fn show_outline(ui: &mut Ui, outline: &Outline) {
    ui.line(format_args!("TARGET: {}", outline.target.name.as_deref().unwrap_or("default")));
    if !outline.target.description.is_empty() {
        ui.line(format_args!("DESCRIPTION: {}", outline.target.description));
    }
    let argument = |argument: &Argument| {
        vec![argument.name.clone(), argument.value.clone().unwrap_or_default(), argument.description.clone()]
    };
    let need = |need: &Need| vec![need.id.clone(), if need.required { "true" } else { "" }.to_owned()];
    let arguments: Vec<_> = outline.arguments.iter().map(argument).collect();
    let secrets: Vec<_> = outline.secrets.iter().map(need).collect();
    let sockets: Vec<_> = outline.sockets.iter().map(need).collect();
    let tables = [
        (&["BUILD ARG", "VALUE", "DESCRIPTION"][..], arguments),
        (&["SECRET", "REQUIRED"], secrets),
        (&["SSH", "REQUIRED"], sockets),
    ];
    for (heads, rows) in tables.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        ui.line("");
        table(ui, heads, rows);
    }
}

/// Columns as wide as their widest cell; the last one is not filled.
fn table(ui: &mut Ui, heads: &[&str], mut rows: Vec<Vec<String>>) {
    rows.insert(0, heads.iter().map(|head| (*head).to_owned()).collect());
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 3;
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        ui.line(cells.collect::<String>().trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_parsed() {
        assert_eq!(Call::parse("build").unwrap(), None);
        assert_eq!(Call::parse("check").unwrap(), Some(Call::CHECK));
        let call = Call { kind: Kind::Outline, json: true };
        assert_eq!(Call::parse("method=outline,format=json").unwrap(), Some(call));
        assert!(Call::parse("something").is_err() && Call::parse("outline,x=y").is_err());
    }

    #[test]
    fn rules_have_addresses() {
        for (rule, end) in [
            ("StageNameCasing", "stage-name-casing/"),
            ("JSONArgsRecommended", "json-args-recommended/"),
            ("InvalidDefaultArgInFrom", "invalid-default-arg-in-from/"),
        ] {
            assert!(url(rule).ends_with(&format!("/{end}")), "{}", url(rule));
        }
    }
}
