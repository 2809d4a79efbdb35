//! Flags of `docker build`, `buildx build`, `podman build` and `buildah build` that are none of ours: each is taken in
//! silence where what it asks for is so anyway, taken with one warning where it only costs speed or limits, and refused
//! by name where the result would be another one.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::cmd::CmdError;
use crate::ui::Ui;

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    /// `--flag`, or `--flag=BOOL`.
    Bool,
    Value,
}

/// What a flag with its value comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    NoEffect,
    /// With what can be said for it.
    Refused(&'static str),
}

/// A flag by its long name, a short one, and what its values mean.
struct Flag {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    fate: fn(&str) -> Fate,
}

const fn flag(long: &'static str, takes: Takes, fate: fn(&str) -> Fate) -> Flag {
    Flag { long, short: None, takes, fate }
}

const fn short(short: char, flag: Flag) -> Flag {
    Flag { short: Some(short), ..flag }
}

fn fine(_: &str) -> Fate {
    Fate::Fine
}

fn idle(_: &str) -> Fate {
    Fate::NoEffect
}

fn refused(_: &str) -> Fate {
    Fate::Refused("is not supported yet, and without it the result would differ")
}

/// Asks for what is done anyway, unless it is turned off.
fn only_on(value: &str) -> Fate {
    if is_false(value) { refused(value) } else { Fate::Fine }
}

/// Asks for what is not done, unless it is turned off.
fn only_off(value: &str) -> Fate {
    if is_false(value) { Fate::Fine } else { refused(value) }
}

/// Without effect, which says nothing new when it is turned off.
fn idle_unless_off(value: &str) -> Fate {
    if is_false(value) { Fate::Fine } else { Fate::NoEffect }
}

fn is_false(value: &str) -> bool {
    matches!(value, "false" | "0" | "f" | "F" | "FALSE" | "False")
}

/// Labels of SELinux are never given; other profiles than the default one are not there.
fn security_opt(value: &str) -> Fate {
    match value.split_once(['=', ':']) {
        Some(("label", _)) => Fate::Fine,
        _ => refused(value),
    }
}

/// RUN has namespaces of its own, whichever are asked for.
fn namespace(value: &str) -> Fate {
    if matches!(value, "" | "private" | "container") { Fate::Fine } else { Fate::NoEffect }
}

fn use_stderr(_: &str) -> Fate {
    Fate::Refused("is not supported: redirect standard error instead")
}

fn expand_first(_: &str) -> Fate {
    Fate::Refused("is not supported: run the C preprocessor and give its output with --file -")
}

fn sign_later(_: &str) -> Fate {
    Fate::Refused("is not supported: sign the image where it was pushed to")
}

fn a_mount(_: &str) -> Fate {
    Fate::Refused("is not supported: use RUN --mount with --build-context, which the cache knows about")
}

use Takes::{Bool, Nothing, Value};

/// Every flag that is none of ours.
const FLAGS: &[Flag] = &[
    flag("rm", Bool, fine),
    flag("force-rm", Bool, fine),
    flag("layers", Bool, fine),
    flag("builder", Value, fine),
    flag("allow", Value, fine),
    flag("isolation", Value, fine),
    flag("jobs", Value, fine),
    flag("compress", Bool, fine),
    flag("disable-compression", Bool, fine),
    flag("disable-content-trust", Bool, fine),
    flag("skip-unused-stages", Bool, only_on),
    flag("inherit-labels", Bool, only_on),
    flag("inherit-annotations", Bool, only_on),
    flag("identity-label", Bool, idle_unless_off),
    flag("created-annotation", Bool, idle_unless_off),
    flag("compat-volumes", Bool, only_off),
    flag("save-stages", Bool, only_off),
    flag("stage-labels", Bool, only_off),
    flag("omit-history", Bool, only_off),
    flag("security-opt", Value, security_opt),
    flag("cache-from", Value, idle),
    flag("cache-to", Value, idle),
    short('m', flag("memory", Value, idle)),
    flag("memory-swap", Value, idle),
    short('c', flag("cpu-shares", Value, idle)),
    flag("cpu-period", Value, idle),
    flag("cpu-quota", Value, idle),
    flag("cpuset-cpus", Value, idle),
    flag("cpuset-mems", Value, idle),
    flag("cgroup-parent", Value, idle),
    flag("resource", Value, idle),
    flag("provenance", Value, idle_unless_off),
    flag("sbom", Value, idle_unless_off),
    flag("runtime", Value, idle),
    flag("runtime-flag", Value, idle),
    flag("userns", Value, namespace),
    flag("userns-uid-map", Value, idle),
    flag("userns-gid-map", Value, idle),
    flag("userns-uid-map-user", Value, idle),
    flag("userns-gid-map-group", Value, idle),
    flag("pid", Value, namespace),
    flag("ipc", Value, namespace),
    flag("uts", Value, namespace),
    flag("cgroupns", Value, namespace),
    flag("attest", Value, refused),
    flag("squash", Bool, only_off),
    flag("squash-all", Bool, only_off),
    short('v', flag("volume", Value, a_mount)),
    flag("mount", Value, a_mount),
    flag("device", Value, refused),
    flag("group-add", Value, refused),
    flag("cap-add", Value, refused),
    flag("cap-drop", Value, refused),
    flag("no-hosts", Bool, only_off),
    flag("no-hostname", Bool, only_off),
    flag("all-platforms", Bool, only_off),
    flag("os-version", Value, refused),
    flag("os-feature", Value, refused),
    flag("unsetannotation", Value, refused),
    flag("layer-label", Value, refused),
    flag("cache-ttl", Value, refused),
    flag("source-policy-file", Value, refused),
    flag("policy", Value, refused),
    flag("decryption-key", Value, refused),
    flag("cpp-flag", Value, expand_first),
    flag("hooks-dir", Value, refused),
    flag("cw", Value, refused),
    flag("sign-by", Value, sign_later),
    flag("stdin", Nothing, refused),
    flag("logfile", Value, use_stderr),
    flag("logsplit", Bool, use_stderr),
    flag("sbom-output", Value, refused),
    flag("sbom-image-output", Value, refused),
    flag("sbom-purl-output", Value, refused),
    flag("sbom-image-purl-output", Value, refused),
    flag("sbom-scanner-image", Value, refused),
    flag("sbom-scanner-command", Value, refused),
    flag("sbom-merge-strategy", Value, refused),
    flag("invoke", Value, refused),
    flag("server-config", Value, refused),
];

/// Those that were given.
#[derive(Debug, Default)]
pub(super) struct PeerFlags {
    given: Vec<(&'static str, Fate)>,
}

impl PeerFlags {
    /// Warn of flags without effect, once each; stop at the first that is refused.
    pub(super) fn judge(&self, ui: &mut Ui) -> Result<(), CmdError> {
        for (long, fate) in &self.given {
            if let Fate::Refused(why) = fate {
                return Err(CmdError::usage(format!("--{long} {why}")));
            }
        }
        for (long, _) in self.given.iter().filter(|(_, fate)| *fate == Fate::NoEffect) {
            ui.warn(format_args!("--{long} has no effect"));
        }
        Ok(())
    }
}

impl Args for PeerFlags {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(flag: &Flag) -> Arg {
    let arg = Arg::new(flag.long).long(flag.long).hide(true).value_name("VALUE");
    let arg = match flag.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    match flag.takes {
        Takes::Nothing => arg.action(ArgAction::Append).num_args(0).default_missing_value("true"),
        Takes::Bool => {
            arg.action(ArgAction::Append).num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        Takes::Value => arg.action(ArgAction::Append).num_args(1).allow_hyphen_values(true),
    }
}

impl FromArgMatches for PeerFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in FLAGS {
            let values = matches.get_many::<String>(flag.long).into_iter().flatten();
            // Of several the worst counts.
            let worst = values.map(|value| (flag.fate)(value)).max_by_key(|fate| match fate {
                Fate::Fine => 0,
                Fate::NoEffect => 1,
                Fate::Refused(_) => 2,
            });
            self.given.extend(worst.map(|fate| (flag.long, fate)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &[&str]) -> Vec<(&'static str, Fate)> {
        let command = PeerFlags::augment_args(Command::new("build"));
        let matches = command.try_get_matches_from([&["build"], args].concat()).unwrap();
        PeerFlags::from_arg_matches(&matches).unwrap().given
    }

    #[test]
    fn a_flag_is_judged_by_its_value() {
        use Fate::{Fine, NoEffect};
        for (args, fate) in [
            (&["--squash=false"][..], Fine),
            (&["--squash"], refused("")),
            (&["--provenance=false"], Fine),
            (&["--provenance", "mode=max"], NoEffect),
            (&["--skip-unused-stages"], Fine),
            (&["--skip-unused-stages=false"], refused("")),
            (&["--security-opt", "label=disable"], Fine),
            (&["--security-opt", "label=disable", "--security-opt", "seccomp=unconfined"], refused("")),
            (&["-m", "1g"], NoEffect),
            (&["--stdin"], refused("")),
            (&["--pid", "host"], NoEffect),
            (&["--pid=private"], Fine),
        ] {
            let given = given(args);
            assert_eq!(given.len(), 1, "{args:?}");
            assert_eq!(given[0].1, fate, "{args:?}");
        }
        assert_eq!(given(&[]), []);
    }
}
