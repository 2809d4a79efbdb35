//! Answers at TAB time. The scripts of `strate completion` call the binary back as
//! `strate __complete SHELL INDEX WORD…`; what clap knows (verbs, flags, paths) it answers, what the store knows
//! (images, containers) comes from `ops`.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};

use crate::context::{Context, GlobalOptions};
use crate::ops::complete::{Which, container_names, image_names};

/// Values of flags that clap does not know as a closed list, since other values are possible or refused by name.
const VALUES: [(&str, &[&str]); 8] = [
    ("network", &["host", "none"]),
    ("pull", &["always", "missing", "never"]),
    ("policy", &["always", "missing", "never", "newer"]),
    ("progress", &["auto", "plain", "tty", "quiet", "rawjson"]),
    ("platform", &["linux/amd64", "linux/arm64"]),
    ("signal", &["TERM", "KILL", "INT", "HUP", "QUIT", "USR1", "USR2", "STOP", "CONT"]),
    ("security-opt", &["no-new-privileges", "seccomp=unconfined"]),
    ("cap-add", &["ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_TIME", "NET_RAW", "MKNOD"]),
];

/// Answer when a completion script asks. False when this is an ordinary command line.
pub(super) fn answer(args: &[OsString]) -> bool {
    let [_, verb, shell, index, words @ ..] = args else { return false };
    if verb != "__complete" {
        return false;
    }
    let candidates = candidates(index.to_str().and_then(|index| index.parse().ok()).unwrap_or(0), words);
    let text = print(shell, &candidates);
    // A shell that is gone needs no answer.
    let _ = std::io::stdout().write_all(text.as_bytes());
    true
}

fn candidates(index: usize, words: &[OsString]) -> Vec<CompletionCandidate> {
    let options = GlobalOptions { root: root_option(words), debug: false };
    let Ok(cx) = Context::gather(&options) else { return Vec::new() };
    let mut command = with_values(super::command(), &cx.root, "");
    // A word that cannot be completed is not an error.
    complete(&mut command, words.to_vec(), index, Some(&cx.cwd)).unwrap_or_default()
}

/// `--root DIR` among the words.
fn root_option(words: &[OsString]) -> Option<PathBuf> {
    let at = words.iter().position(|word| word == "--root");
    let joined = words.iter().find_map(|word| word.to_str()?.strip_prefix("--root=").map(PathBuf::from));
    at.and_then(|at| words.get(at + 1)).map(PathBuf::from).or(joined)
}

/// Teach every argument of a command and its verbs where its values come from, by the name of the value.
fn with_values(command: Command, root: &Path, verb: &str) -> Command {
    let which = match verb {
        "exec" | "stop" | "kill" | "attach" | "pause" | "top" => Which::Running,
        "start" => Which::Stopped,
        _ => Which::All,
    };
    let command = command.mut_args(|arg| {
        let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.to_uppercase());
        let long = arg.get_long().unwrap_or_default().to_owned();
        match value.as_deref() {
            Some("IMAGE" | "SOURCE_IMAGE" | "NAME[:TAG]") if long.is_empty() => {
                let root = root.to_owned();
                arg.add(ArgValueCompleter::new(move |current: &OsStr| images(&root, current)))
            }
            Some("CONTAINER") if long.is_empty() => {
                let root = root.to_owned();
                arg.add(ArgValueCompleter::new(move |current: &OsStr| containers(&root, which, current)))
            }
            Some("OBJECT") => {
                let root = root.to_owned();
                arg.add(ArgValueCompleter::new(move |current: &OsStr| {
                    let mut all = containers(&root, which, current);
                    all.extend(images(&root, current));
                    all
                }))
            }
            _ => match VALUES.iter().find(|(name, _)| *name == long) {
                Some((_, values)) => arg.add(ArgValueCompleter::new(move |current: &OsStr| {
                    starting(current, values.iter().copied())
                })),
                None => arg,
            },
        }
    });
    command.mut_subcommands(|verb| {
        let name = verb.get_name().to_owned();
        with_values(verb, root, &name)
    })
}

fn starting<'a>(current: &OsStr, values: impl Iterator<Item = &'a str>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    values.filter(|value| value.starts_with(current.as_ref())).map(CompletionCandidate::new).collect()
}

fn images(root: &Path, current: &OsStr) -> Vec<CompletionCandidate> {
    starting(current, image_names(root).iter().map(String::as_str))
}

fn containers(root: &Path, which: Which, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    container_names(root, which)
        .into_iter()
        .filter(|(name, _)| name.starts_with(current.as_ref()))
        .map(|(name, image)| CompletionCandidate::new(name).help(Some(image.into())))
        .collect()
}

/// One candidate a line; a tab and its description where the shell shows them.
fn print(shell: &OsStr, candidates: &[CompletionCandidate]) -> String {
    let with_help = shell != "bash";
    let mut text = String::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        // A name with a control character in it would break the protocol, or the terminal.
        if value.chars().any(char::is_control) {
            continue;
        }
        text.push_str(&value);
        if let Some(help) = candidate.get_help().filter(|_| with_help) {
            let help = help.to_string();
            let first = help.lines().next().unwrap_or_default();
            text.push('\t');
            text.push_str(&crate::ui::sanitise::line(first));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Vec<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = with_values(super::super::command(), Path::new("/nonexistent"), "");
        complete(&mut command, words.clone(), words.len() - 1, None)
            .unwrap()
            .iter()
            .map(|candidate| candidate.get_value().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn verbs_and_flags_are_known() {
        assert!(ask("strate bui").contains(&"build".to_owned()));
        assert!(ask("strate --userns-mode ").contains(&"single".to_owned()));
        assert!(ask("strate version --for").iter().any(|word| word.starts_with("--format")));
        assert!(ask("strate completion ").contains(&"fish".to_owned()));
    }

    #[test]
    fn the_root_is_found_among_the_words() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(root_option(&words("strate --root /a rmi")), Some("/a".into()));
        assert_eq!(root_option(&words("strate rmi --root=/b x")), Some("/b".into()));
        assert_eq!(root_option(&words("strate rmi x")), None);
    }

    #[test]
    fn descriptions_are_for_shells_that_show_them() {
        let candidates =
            [CompletionCandidate::new("a").help(Some("b\nc".into())), CompletionCandidate::new("x\ny")];
        assert_eq!(print(OsStr::new("fish"), &candidates), "a\tb\n");
        assert_eq!(print(OsStr::new("bash"), &candidates), "a\n");
    }
}
