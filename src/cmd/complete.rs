//! Answers at TAB time. The scripts of `strate completion` call the binary back as
//! `strate __complete SHELL INDEX WORD…`. What clap knows (verbs, flags, their values) is read from the command
//! tables, what the store knows (images, containers) comes from `ops`, and files are left to the shell: no answer
//! means "files".
//!
//! clap_complete's engine is not used: it expands `~` through glibc's name service, which a static binary must not
//! have, and its answers break on the colons of image names in bash.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use crate::context::{Context, GlobalOptions};
use crate::ops::complete::{Which, container_names, image_names, index_names, volume_names};
use crate::ui::{Ui, sanitise};

/// Values of flags that clap does not know as a closed list, since other values are possible or refused by name.
const VALUES: [(&str, &[&str]); 11] = [
    ("attach", &["stdin", "stdout", "stderr"]),
    ("condition", &["stopped", "running", "paused", "created", "removed", "healthy", "unhealthy"]),
    ("restart", &["no", "on-failure", "always", "unless-stopped"]),
    ("network", &["private", "host", "none", "pasta", "slirp4netns"]),
    ("pull", &["always", "missing", "never"]),
    ("policy", &["always", "missing", "never", "newer"]),
    ("progress", &["auto", "plain", "tty", "quiet", "rawjson"]),
    ("platform", &["linux/amd64", "linux/arm64"]),
    ("signal", &["TERM", "KILL", "INT", "HUP", "QUIT", "USR1", "USR2", "STOP", "CONT"]),
    ("security-opt", &["no-new-privileges", "seccomp=unconfined"]),
    ("cap-add", &["ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_TIME", "NET_RAW", "MKNOD"]),
];

/// How the places of `copy` begin.
const TRANSPORTS: [(&str, &str); 6] = [
    ("docker://", "a registry"),
    ("oci:", "an OCI layout"),
    ("oci-archive:", "an OCI layout in a tar"),
    ("docker-archive:", "what docker save writes"),
    ("dir:", "plain files"),
    ("store:", "an image that is here"),
];

/// Verbs whose words after the first belong to the program that they start.
const START_PROGRAMS: [&str; 3] = ["run", "create", "exec"];

/// One answer: a word, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    value: String,
    help: String,
}

impl Candidate {
    fn new(value: impl Into<String>, help: impl Into<String>) -> Self {
        Self { value: value.into(), help: help.into() }
    }
}

/// Answer when a completion script asks. False when this is an ordinary command line.
pub(super) fn answer(ui: &mut Ui, args: &[OsString]) -> bool {
    let [_, verb, shell, index, words @ ..] = args else { return false };
    if verb != "__complete" {
        return false;
    }
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let index = index.to_str().and_then(|index| index.parse().ok()).unwrap_or(0);
    let options = GlobalOptions { root: root_option(&words), debug: false };
    if let Ok(cx) = Context::gather(&options) {
        let text = print(shell == "bash", &candidates(super::command(), &cx, &words, index));
        ui.bytes(text.as_bytes());
    }
    true
}

/// `--root DIR` among the words.
fn root_option(words: &[String]) -> Option<PathBuf> {
    let next = words.iter().position(|word| word == "--root").and_then(|at| words.get(at + 1));
    next.map(PathBuf::from)
        .or_else(|| words.iter().find_map(|word| word.strip_prefix("--root=").map(PathBuf::from)))
}

/// Where in a command line the cursor stands.
struct Place {
    /// The verb, or strate itself. Nothing of other verbs is made: a shell asks at every key.
    command: Command,
    /// Options of strate itself that every verb takes.
    global: Vec<Arg>,
    /// The option whose value comes next.
    pending: Option<Arg>,
    /// Words without a dash so far, the verb's name not among them.
    positionals: usize,
    /// After `--`, or among the words of a program.
    no_flags: bool,
}

impl Place {
    fn new(command: Command, words: &[String], index: usize) -> Self {
        let global = command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
        let mut place = Self { command, global, pending: None, positionals: 0, no_flags: false };
        let mut is_verb = false;
        for word in words.iter().take(index).skip(1) {
            is_verb |= place.walk(word);
        }
        if !is_verb {
            place.command.build();
        }
        place
    }

    fn is_program(&self) -> bool {
        self.positionals > 0 && START_PROGRAMS.contains(&self.command.get_name())
    }

    /// Walk over one word before the cursor; whether it was a verb.
    fn walk(&mut self, word: &str) -> bool {
        if self.pending.take().is_some() || self.is_program() {
            return false;
        }
        if !self.no_flags && word == "--" {
            self.no_flags = true;
        } else if let Some(long) = word.strip_prefix("--").filter(|_| !self.no_flags) {
            let arg = (!long.contains('=')).then(|| self.find_long(long)).flatten();
            self.pending = arg.filter(|arg| takes_value(arg)).cloned();
        } else if word.len() > 1 && word.starts_with('-') && !self.no_flags {
            self.walk_shorts(&word[1..]);
        } else if let Some(verb) = self.find_verb(word) {
            self.command = verb;
            self.command.build();
            return true;
        } else {
            self.positionals += 1;
        }
        false
    }

    /// The verb's own options, and those that every verb takes.
    fn arguments(&self) -> impl Iterator<Item = &Arg> {
        let own = |arg: &&Arg| self.command.get_arguments().all(|known| known.get_id() != arg.get_id());
        self.command.get_arguments().chain(self.global.iter().filter(own))
    }

    /// `-it`, `-eNAME`, `-e NAME`
    fn walk_shorts(&mut self, shorts: &str) {
        let mut rest = shorts.chars();
        while let Some(short) = rest.next() {
            let arg = self.arguments().find(|arg| arg.get_short() == Some(short));
            if let Some(arg) = arg.filter(|arg| takes_value(arg)).cloned() {
                self.pending = rest.as_str().is_empty().then_some(arg);
                return;
            }
        }
    }

    fn find_long(&self, long: &str) -> Option<&Arg> {
        self.arguments().find(|arg| {
            arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
        })
    }

    fn find_verb(&self, word: &str) -> Option<Command> {
        if self.positionals > 0 {
            return None;
        }
        let mut verbs = self.command.get_subcommands();
        verbs.find(|verb| verb.get_name() == word || verb.get_all_aliases().any(|a| a == word)).cloned()
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
        && arg.get_num_args().is_none_or(|count| count.min_values() > 0)
}

fn candidates(command: Command, cx: &Context, words: &[String], index: usize) -> Vec<Candidate> {
    let place = Place::new(command, words, index);
    let current = words.get(index).map_or("", String::as_str);
    let mut found = if let Some(arg) = &place.pending {
        values(&place.command, arg, cx)
    } else if place.is_program() {
        Vec::new() // a path in the container, or anything
    } else if let Some((long, _)) = current.strip_prefix("--").and_then(|rest| rest.split_once('=')) {
        let values = place.find_long(long).map(|arg| values(&place.command, arg, cx)).unwrap_or_default();
        values.into_iter().map(|c| Candidate::new(format!("--{long}={}", c.value), c.help)).collect()
    } else if current.starts_with('-') && !place.no_flags {
        flags(&place)
    } else {
        verbs_and_arguments(&place, cx)
    };
    found.retain(|candidate| candidate.value.starts_with(current));
    found
}

fn verbs_and_arguments(place: &Place, cx: &Context) -> Vec<Candidate> {
    let mut found = Vec::new();
    if place.positionals == 0 {
        for verb in place.command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            found.push(Candidate::new(verb.get_name(), first_line(verb.get_about())));
        }
    }
    // The last argument repeats, where it does.
    let mut arguments: Vec<&Arg> = place.command.get_positionals().collect();
    let last = arguments.pop_if(|arg| matches!(arg.get_action(), ArgAction::Append));
    if let Some(arg) = arguments.get(place.positionals).copied().or(last) {
        found.extend(values(&place.command, arg, cx));
    }
    found
}

fn flags(place: &Place) -> Vec<Candidate> {
    place
        .arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| Some(Candidate::new(format!("--{}", arg.get_long()?), first_line(arg.get_help()))))
        .collect()
}

/// Values of an argument: its closed list, or names from the store, by the name of the value.
fn values(command: &Command, arg: &Arg, cx: &Context) -> Vec<Candidate> {
    let known = arg.get_possible_values();
    if takes_value(arg) && !known.is_empty() {
        let shown = known.iter().filter(|value| !value.is_hide_set());
        return shown.map(|value| Candidate::new(value.get_name(), first_line(value.get_help()))).collect();
    }
    if let Some((_, values)) = VALUES.iter().find(|(name, _)| arg.get_long() == Some(name)) {
        return values.iter().map(|value| Candidate::new(*value, "")).collect();
    }
    match arg.get_long() {
        // A volume's name, or a path, which the shell knows.
        Some("volume") => {
            return volume_names(cx).into_iter().map(|name| Candidate::new(name + ":", "volume")).collect();
        }
        Some("volumes-from") => {
            let names = container_names(cx, Which::All);
            return names.into_iter().map(|(name, image)| Candidate::new(name, image)).collect();
        }
        Some(_) => return Vec::new(),
        None => {}
    }
    let which = match command.get_name() {
        "attach" | "exec" | "stop" | "kill" | "pause" | "stats" | "top" => Which::Running,
        "start" => Which::Stopped,
        _ => Which::All,
    };
    let images = || image_names(cx).into_iter().map(|name| Candidate::new(name, "image"));
    let containers =
        || container_names(cx, which).into_iter().map(|(name, image)| Candidate::new(name, image));
    let volumes = || volume_names(cx).into_iter().map(|name| Candidate::new(name, "volume"));
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match name {
        "SOURCE" | "DESTINATION" if command.get_name() == "copy" => {
            TRANSPORTS.iter().map(|(start, help)| Candidate::new(*start, *help)).collect()
        }
        "SOURCE" if command.get_name() == "sync" => Vec::new(), // directories, files, registries
        "IMAGE" | "SOURCE" | "SOURCE_IMAGE" | "TARGET" | "TARGET_IMAGE" | "NAME" => images().collect(),
        "INDEX" => index_names(cx).into_iter().map(|name| Candidate::new(name, "index")).collect(),
        // Or a path, which the shell knows.
        "SOURCE_PATH" | "TARGET_PATH" => {
            containers().map(|found| Candidate::new(found.value + ":", found.help)).collect()
        }
        "CONTAINER" => containers().collect(),
        "VOLUME" => volumes().collect(),
        "OBJECT" | "NAME_OR_ID" => containers().chain(images()).collect(),
        _ => Vec::new(),
    }
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

/// One candidate a line; a tab and its description where the shell shows them.
fn print(without_help: bool, candidates: &[Candidate]) -> String {
    let mut text = String::new();
    for Candidate { value, help } in candidates {
        // A name with a control character in it would break the protocol, or the terminal.
        if value.chars().any(char::is_control) {
            continue;
        }
        text.push_str(value);
        if !without_help && !help.is_empty() {
            text.push('\t');
            text.push_str(&sanitise::line(help));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let root = Some(PathBuf::from("/nonexistent"));
        let cx = Context::gather(&GlobalOptions { root, debug: false }).unwrap();
        let found = candidates(super::super::command(), &cx, &words, words.len() - 1);
        found.into_iter().map(|candidate| candidate.value).collect()
    }

    #[test]
    fn verbs_flags_and_values_are_known() {
        for (line, expected) in [
            ("strate bui", "build"),
            ("strate -D --root /x vers", "version"),
            ("strate --userns-mode ", "single"),
            ("strate --userns-mode=s", "--userns-mode=single"),
            ("strate version --for", "--format"),
            ("strate completion ", "fish"),
            ("strate completion f", "fish"),
            ("strate system inf", "info"),
            ("strate copy doc", "docker://"),
            ("strate copy dir:a oci", "oci-archive:"),
            ("strate sync --dest o", "oci"),
            ("strate rmi --for", "--force"),
            ("strate rmi --lay", "--layering"),
            ("strate rmi --layering o", "overlay"),
            ("strate image l", "ls"),
            ("strate buildx b", "build"),
            ("strate --he", "--help"),
            ("strate image prune --he", "--help"),
            ("strate hel", "help"),
        ] {
            assert!(ask(line).contains(&expected.to_owned()), "{line}: {:?}", ask(line));
        }
        for line in ["strate version --format ", "strate -- --", "strate internal", "strate nonsense x"] {
            assert_eq!(ask(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn the_root_is_found_among_the_words() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(root_option(&words("strate --root /a rmi")), Some("/a".into()));
        assert_eq!(root_option(&words("strate rmi --root=/b x")), Some("/b".into()));
        assert_eq!(root_option(&words("strate rmi x")), None);
    }

    #[test]
    fn descriptions_are_for_shells_that_show_them() {
        let candidates = [Candidate::new("a", "b\u{1b}"), Candidate::new("x\ny", "")];
        assert_eq!(print(false, &candidates), "a\tb\\x1b\n");
        assert_eq!(print(true, &candidates), "a\n");
    }
}
