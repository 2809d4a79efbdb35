//! Flags of docker's `run` and `create` that are known but do nothing here yet: each is refused by name where it would
//! change what runs, and accepted with one warning where it would only limit or watch it.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::ops::container::Error;

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// An error that says what to do instead.
    Refuse(&'static str),
    /// One warning for all of them.
    NoEffect,
    /// Nothing is lost.
    Silent,
    /// Refused unless it has one of these values, which are what happens anyway.
    Only(&'static [&'static str], &'static str),
}

use Verdict::{NoEffect, Only, Refuse, Silent};

const ADDRESS: &str =
    "containers are not connected to one another: there are --network private, host, none and container:NAME";

/// Long name, short name, whether it takes a value, what becomes of it.
const FLAGS: &[(&str, Option<char>, bool, Verdict)] = &[
    ("gpus", None, true, Refuse("give the device with --device")),
    ("sysctl", None, true, Refuse("kernel settings of containers are not offered")),
    ("link", None, true, Refuse(ADDRESS)),
    ("network-alias", None, true, Refuse(ADDRESS)),
    ("net-alias", None, true, Refuse(ADDRESS)),
    ("link-local-ip", None, true, Refuse(ADDRESS)),
    ("runtime", None, true, Refuse("programs are run by strate itself")),
    ("storage-opt", None, true, Refuse("there are no storage options")),
    ("device-cgroup-rule", None, true, Refuse("devices are given with --device")),
    ("pid", None, true, Only(&["", "private"], "processes always have a namespace of their own")),
    ("volume-driver", None, true, Only(&["", "local"], "volumes are directories of the store")),
    ("isolation", None, true, Only(&["", "default"], "there is one isolation")),
    ("log-opt", None, true, NoEffect),
    ("disable-content-trust", None, false, Silent),
];

/// Those that were given, with their values.
#[derive(Debug, Clone, Default)]
pub(super) struct OtherFlags(Vec<(usize, Vec<String>)>);

impl Args for OtherFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, (name, short, value, _)| {
            let mut arg = Arg::new(*name).long(*name).hide(true);
            if let Some(short) = short {
                arg = arg.short(*short);
            }
            command.arg(if *value {
                arg.action(ArgAction::Append).allow_hyphen_values(true)
            } else {
                let arg = arg.action(ArgAction::Append).num_args(0..=1).require_equals(true);
                arg.default_missing_value("true")
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OtherFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for (index, (name, ..)) in FLAGS.iter().enumerate() {
            if matches.value_source(name) == Some(ValueSource::CommandLine) {
                let values = matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
                given.push((index, values));
            }
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl OtherFlags {
    /// The warning for those without effect.
    ///
    /// # Errors
    /// [`Error::NotAvailable`] for the first that would change what runs.
    pub(super) fn judge(&self) -> Result<Option<String>, Error> {
        let mut without_effect = Vec::new();
        for (index, values) in &self.0 {
            let (name, _, _, verdict) = FLAGS[*index];
            let flag = || match values.as_slice() {
                [value] => format!("--{name} {value}"),
                _ => format!("--{name}"),
            };
            match verdict {
                _ if values.iter().all(|value| value == "false") => {}
                Silent => {}
                NoEffect => without_effect.push(format!("--{name}")),
                Only(fine, why) if values.iter().any(|value| !fine.contains(&value.as_str())) => {
                    return Err(Error::NotAvailable { flag: flag(), why: why.into() });
                }
                Only(..) => {}
                Refuse(why) => return Err(Error::NotAvailable { flag: flag(), why: why.into() }),
            }
        }
        Ok((!without_effect.is_empty()).then(|| {
            let verb = if without_effect.len() == 1 { "has" } else { "have" };
            format!("{} {verb} no effect yet", without_effect.join(", "))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(words: &[&str]) -> Result<Option<String>, Error> {
        let command = OtherFlags::augment_args(Command::new("x").disable_help_flag(true));
        let matches = command.try_get_matches_from(words).unwrap();
        OtherFlags::from_arg_matches(&matches).unwrap().judge()
    }

    #[test]
    fn each_flag_gets_its_verdict() {
        assert_eq!(judge(&["x"]).unwrap(), None);
        let warning = judge(&["x", "--log-opt", "max-size=1m"]).unwrap().unwrap();
        assert_eq!(warning, "--log-opt has no effect yet");
        assert_eq!(judge(&["x", "--pid", "private"]).unwrap(), None);
        for refused in [&["x", "--network-alias", "db"][..], &["x", "--pid=host"]] {
            let error = judge(refused).unwrap_err();
            assert!(matches!(error, Error::NotAvailable { .. }), "{refused:?}");
        }
    }
}
