//! The flags of `run` and `create` about where a program's environment comes from.

use clap::{ArgAction, Args};

use crate::context::Context;
use crate::ops::container::{Error, InheritedEnv, values};

/// `--env-host`, `--unsetenv`, `--unsetenv-all`, `--umask`
#[derive(Debug, Args)]
pub(super) struct EnvFlags {
    /// Hand the host's environment on, below the image's
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    env_host: bool,
    /// Leave out variables of the image
    #[arg(long, value_name = "KEY")]
    unsetenv: Vec<String>,
    /// Leave out all variables of the image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    unsetenv_all: bool,
    /// The program's umask
    #[arg(long, value_name = "OCTAL")]
    umask: Option<String>,
}

impl EnvFlags {
    /// What is inherited from the host and the image.
    pub(super) fn inherited(&self, cx: &Context) -> InheritedEnv {
        let host = |(name, value): (&String, &String)| format!("{name}={value}");
        InheritedEnv {
            host: if self.env_host { cx.env.iter().map(host).collect() } else { Vec::new() },
            unset: self.unsetenv.clone(),
            unset_all: self.unsetenv_all,
        }
    }

    /// The umask, when one was given.
    pub(super) fn umask(&self) -> Result<Option<u32>, Error> {
        let Some(text) = &self.umask else { return Ok(None) };
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777 && !text.starts_with('+'));
        let bad = || values::bad("--umask", text, "it is octal, from 0000 to 0777");
        bits.map(Some).ok_or_else(bad)
    }
}
