//! Verbs of the registry group, and the options that every verb with a registry has.

mod login;
mod pull;
mod push;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::CmdError;
use crate::ops::remote::{Named, RemoteOptions};
use crate::ui::Ui;

pub(super) use login::{LoginArgs, LogoutArgs, login, logout};
pub(super) use pull::{PolicyArg, PullArgs, platform, pull, pull_for};
pub(super) use push::{FormArgs, PushArgs, push};

/// Options of every verb that talks to a registry.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RemoteArgs {
    /// User name and password for the registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    /// File with logins, instead of those that are searched
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Demand https with a valid certificate; `false` accepts any certificate, and plain http
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// Directory with the registry's authority (*.crt) and our certificate (*.cert, *.key)
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
}

/// Options about trying again.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RetryArgs {
    /// How often a request is repeated after a failure that may pass
    #[arg(long, value_name = "N", alias = "retry-times")]
    retry: Option<u32>,
    /// Pause before each repetition (`2s`, `500ms`); without it pauses grow
    #[arg(long, value_name = "TIME", value_parser = duration)]
    retry_delay: Option<Duration>,
    /// Give up when everything together takes longer (`90s`, `10m`); without it only what stands still ends
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// How long a connection may be silent before it counts as broken (default 30s)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stall_timeout: Option<Duration>,
}

/// Say what a name means when it is not what it looks like.
pub(super) fn explain(ui: &mut Ui, typed: &str, named: &Named) {
    if let Some(path) = &named.alias {
        ui.note(format_args!("Resolved \"{typed}\" as an alias ({}): {}", path.display(), named.reference));
    }
    if let Some(note) = &named.note {
        ui.note(note);
    }
}

impl RemoteArgs {
    pub(super) fn options(&self, retry: &RetryArgs) -> Result<RemoteOptions, CmdError> {
        Ok(RemoteOptions {
            creds: creds(self.creds.as_deref(), None, None)?,
            authfile: self.authfile.clone(),
            tls_verify: self.tls_verify,
            cert_dir: self.cert_dir.clone(),
            retries: retry.retry,
            retry_delay: retry.retry_delay,
            timeout: retry.timeout,
            stall_timeout: retry.stall_timeout,
            ..RemoteOptions::default()
        })
    }
}

/// User name and password from `--creds`, or from a name and a password of their own. A password that lacks is asked for.
pub(super) fn creds(
    creds: Option<&str>,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<Option<(String, String)>, CmdError> {
    let (user, password) = match (creds.map(|creds| creds.split_once(':')), creds.or(user), password) {
        (Some(Some((user, password))), _, _) => (user, Some(password)),
        (_, Some(user), password) => (user, password),
        (_, None, _) => return Ok(None),
    };
    let password = match password {
        Some(password) => password.to_owned(),
        None => login::ask_password()?,
    };
    Ok(Some((user.to_owned(), password)))
}

/// A duration: a number with `ms`, `s`, `m` or `h`; seconds without.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a number with ms, s, m or h".into()),
    };
    let seconds = number.parse::<f64>().map_err(|_| "expected a number with ms, s, m or h")? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| "the time is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("2s", 2000), ("500ms", 500), ("1.5m", 90_000), ("3", 3000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "s", "-1s", "2 days", "1e999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
