//! The manual pages, written from the same definitions as the help (`make man`).

use std::path::PathBuf;

use clap::{Arg, Args, Command};

use super::CmdResult;
use crate::context::Context;
use crate::ui::Ui;

/// Arguments of `internal-man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Where to write the pages
    dir: PathBuf,
}

/// `strate internal-man`
#[allow(clippy::needless_pass_by_value, reason = "the shape of every verb")]
pub(super) fn man(_cx: &mut Context, ui: &mut Ui, args: ManArgs) -> CmdResult {
    let mut command = super::command();
    command.build();
    let mut pages = Vec::new();
    collect(&command, "strate", &mut pages);
    for (name, text) in &pages {
        std::fs::write(args.dir.join(format!("{name}.1")), text)?;
    }
    ui.note(format_args!("{} pages in `{}`", pages.len(), args.dir.display()));
    Ok(0)
}

/// A page for a command and for each of its visible verbs.
fn collect(command: &Command, name: &str, pages: &mut Vec<(String, String)>) {
    pages.push((name.to_owned(), page(command, name)));
    for verb in visible(command) {
        collect(verb, &format!("{name}-{}", verb.get_name()), pages);
    }
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn page(command: &Command, name: &str) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(".TH {} 1\n.SH NAME\n{} \\- {}\n", name.to_uppercase(), roff(name), roff(&about));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    text.push_str(&format!(".SH SYNOPSIS\n{}\n", roff(usage)));
    if let Some(long) = command.get_long_about() {
        text.push_str(&format!(".SH DESCRIPTION\n{}\n", roff(&long.to_string())));
    }
    let mut sections = [("ARGUMENTS", String::new()), ("OPTIONS", String::new())];
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        sections[usize::from(!arg.is_positional())].1.push_str(&entry(&argument(arg), &help(arg)));
    }
    let verbs: String = visible(command)
        .map(|verb| entry(verb.get_name(), &verb.get_about().map(ToString::to_string).unwrap_or_default()))
        .collect();
    for (title, body) in sections.iter().map(|(title, body)| (*title, body)).chain([("COMMANDS", &verbs)]) {
        if !body.is_empty() {
            text.push_str(&format!(".SH {title}\n{body}"));
        }
    }
    text
}

/// `-f, --format <TEMPLATE>`
fn argument(arg: &Arg) -> String {
    let values: Vec<String> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| format!("<{name}>")).collect();
    let values = values.join(" ");
    if arg.is_positional() {
        return values;
    }
    let mut names: Vec<String> = arg.get_short().iter().map(|short| format!("-{short}")).collect();
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let takes_value = arg.get_num_args().is_none_or(|count| count.takes_values()) && !values.is_empty();
    names.join(", ") + &if takes_value { format!(" {values}") } else { String::new() }
}

fn help(arg: &Arg) -> String {
    arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default()
}

fn entry(term: &str, text: &str) -> String {
    format!(".TP\n.B {}\n{}\n", roff(term), roff(text))
}

/// Plain text for troff: backslashes and hyphens escaped, no line that starts as a request.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = escaped
        .lines()
        .map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_options_and_verbs() {
        let mut command = super::super::command();
        command.build();
        let mut pages = Vec::new();
        collect(&command, "strate", &mut pages);
        let (name, first) = &pages[0];
        assert_eq!(name, "strate");
        assert!(
            first.contains(".SH NAME\nstrate \\- Pull, build") && first.contains("\\-\\-root <DIR>"),
            "{first}"
        );
        assert!(pages.iter().any(|(name, text)| name == "strate-version" && text.contains("\\-\\-format")));
        assert!(pages.iter().all(|(name, _)| !name.contains("internal")));
    }

    #[test]
    fn text_never_becomes_a_request() {
        assert_eq!(roff(".so /etc/passwd\na\\b -c"), "\\&.so /etc/passwd\na\\eb \\-c");
    }
}
