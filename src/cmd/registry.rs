//! Verbs of the registry group.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::oci::{Platform, Reference};
use crate::ops::login::Secret;
use crate::ops::pull::{PullPolicy, PullRequest, Pulled};
use crate::ops::push::PushRequest;
use crate::ops::remote::RemoteOptions;
use crate::ops::{login, logout, pull, push};
use crate::ui::progress::{Direction, Display, Progress};
use crate::ui::{Ui, prompt};

/// The most bytes of a password on standard input.
const PASSWORD_BYTES: u64 = 64 << 10;

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
    #[arg(long, value_name = "N")]
    retry: Option<u32>,
    /// Pause before each repetition (`2s`, `500ms`); without it pauses grow
    #[arg(long, value_name = "TIME", value_parser = duration)]
    retry_delay: Option<Duration>,
}

impl RemoteArgs {
    pub(super) fn options(&self, retry: &RetryArgs) -> Result<RemoteOptions, CmdError> {
        let creds = match &self.creds {
            None => None,
            Some(creds) => match creds.split_once(':') {
                Some((user, password)) => Some((user.to_owned(), password.to_owned())),
                None => {
                    let password = ask_password()?;
                    Some((creds.clone(), password))
                }
            },
        };
        Ok(RemoteOptions {
            creds,
            authfile: self.authfile.clone(),
            tls_verify: self.tls_verify,
            cert_dir: self.cert_dir.clone(),
            retries: retry.retry,
            retry_delay: retry.retry_delay,
        })
    }
}

/// `--policy` and `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PolicyArg {
    /// Ask the registry each time
    Always,
    /// Only when the image is not here
    Missing,
    /// Only use what is here
    Never,
    /// Ask, and use what is here when that fails
    Newer,
}

impl From<PolicyArg> for PullPolicy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Always => Self::Always,
            PolicyArg::Missing => Self::Missing,
            PolicyArg::Never => Self::Never,
            PolicyArg::Newer => Self::Newer,
        }
    }
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "NAME")]
    name: String,
    /// Print the name only
    #[arg(long, short)]
    quiet: bool,
    /// Platform to choose: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// When to ask the registry
    #[arg(long, value_enum, default_value = "always")]
    policy: PolicyArg,
    /// Every tag of the repository
    #[arg(long, short, hide = true)]
    all_tags: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

/// `strate pull`
pub(super) fn pull(cx: &mut Context, ui: &mut Ui, args: PullArgs) -> CmdResult {
    if args.all_tags {
        return Err(CmdError::usage("--all-tags is not supported yet: pull the tags one by one"));
    }
    let reference = Reference::parse(&args.name)?;
    let request = PullRequest {
        platform: platform(cx, args.platform.as_deref())?,
        policy: args.policy.into(),
        remote: args.remote.options(&args.retry)?,
        reference,
    };
    if !args.quiet {
        announce(ui, &args.name, &request.reference);
    }
    let pulled = pull_shown(cx, ui, &request, args.quiet)?;
    if !args.quiet {
        let (digest, status) = outcome(&pulled);
        ui.line(digest);
        ui.line(status);
    }
    ui.line(&pulled.reference);
    Ok(0)
}

/// What docker says before a pull.
fn announce(ui: &mut Ui, typed: &str, reference: &Reference) {
    let tag_typed =
        reference.digest().is_some() || typed.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if !tag_typed {
        ui.note("Using default tag: latest");
    }
    let selector = reference.tag().unwrap_or_else(|| reference.selector());
    ui.note(format_args!("{selector}: Pulling from {}", reference.repository()));
}

/// What docker says after a pull: digest and status.
fn outcome(pulled: &Pulled) -> (String, String) {
    let name = pulled.reference.familiar();
    let status = if pulled.changed {
        format!("Status: Downloaded newer image for {name}")
    } else {
        format!("Status: Image is up to date for {name}")
    };
    (format!("Digest: {}", pulled.digest), status)
}

/// Pull with the layers' progress on stderr.
fn pull_shown(cx: &Context, ui: &mut Ui, request: &PullRequest, quiet: bool) -> Result<Pulled, pull::Error> {
    let display = Display::choose(quiet, ui.stderr_is_terminal(), |name| cx.var(name));
    let progress = Progress::new(Direction::Pull, display);
    let result = pull::pull(cx, request, &progress);
    progress.finish();
    result
}

/// Bring an image here for another verb (`run`, `create`), as docker does: everything is said on stderr, and nothing
/// when the image is here and the policy does not ask.
pub(super) fn pull_for(
    cx: &Context,
    ui: &mut Ui,
    request: &PullRequest,
    quiet: bool,
) -> Result<Pulled, CmdError> {
    if request.policy == PullPolicy::Missing {
        let never = PullRequest { policy: PullPolicy::Never, ..request.clone() };
        match pull::pull(cx, &never, &crate::image::Silent) {
            Err(pull::Error::NotHere { .. }) => {}
            result => return Ok(result?),
        }
        if !quiet {
            ui.note(format_args!("Unable to find image '{}' locally", request.reference.familiar()));
        }
    }
    if request.policy != PullPolicy::Never && !quiet {
        announce(ui, &request.reference.familiar(), &request.reference);
    }
    let pulled = pull_shown(cx, ui, request, quiet)?;
    if pulled.asked && !quiet {
        let (digest, status) = outcome(&pulled);
        ui.note(digest);
        ui.note(status);
    }
    Ok(pulled)
}

/// The platform of `--platform`, else of `DOCKER_DEFAULT_PLATFORM`.
pub(super) fn platform(cx: &Context, typed: Option<&str>) -> Result<Option<Platform>, CmdError> {
    let text = typed.or_else(|| cx.var("DOCKER_DEFAULT_PLATFORM"));
    Ok(text.map(str::parse::<Platform>).transpose()?)
}

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The image that is here: its name or id
    #[arg(value_name = "NAME")]
    name: String,
    /// Its name at the registry, when it is another
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
    /// Print the name only
    #[arg(long, short)]
    quiet: bool,
    /// Write the digest of what was pushed to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Every tag of the repository
    #[arg(long, short, hide = true)]
    all_tags: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

/// `strate push`
pub(super) fn push(cx: &mut Context, ui: &mut Ui, args: PushArgs) -> CmdResult {
    if args.all_tags {
        return Err(CmdError::usage("--all-tags is not supported yet: push the tags one by one"));
    }
    let destination = args.destination.as_deref().map(|text| text.strip_prefix("docker://").unwrap_or(text));
    let request = PushRequest {
        image: args.name,
        destination: destination.map(Reference::parse).transpose()?,
        remote: args.remote.options(&args.retry)?,
    };
    let reference = push::destination(&request)?;
    if !args.quiet {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        ui.note(format_args!("The push refers to repository [{repository}]"));
    }
    let display = Display::choose(args.quiet, ui.stderr_is_terminal(), |name| cx.var(name));
    let progress = Progress::new(Direction::Push, display);
    let result = push::push(cx, &request, &progress);
    progress.finish();
    let pushed = result?;
    if let Some(path) = &args.digestfile {
        let path = cx.cwd.join(path);
        std::fs::write(&path, pushed.digest.as_str()).map_err(|error| {
            CmdError::new(error).while_doing(format!("cannot write `{}`", path.display()))
        })?;
    }
    if args.quiet {
        ui.line(&pushed.reference);
    } else {
        let tag = pushed.reference.tag().unwrap_or_default();
        ui.line(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
    }
    Ok(0)
}

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// The registry; without one, Docker Hub
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
    /// User name
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Password; others can read it in the list of processes
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Print the user that is logged in
    #[arg(long)]
    get_login: bool,
    /// Say where the login is kept
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// `strate login`
pub(super) fn login(cx: &mut Context, ui: &mut Ui, args: LoginArgs) -> CmdResult {
    let registry = login::registry_name(args.registry.as_deref());
    let remote = args.remote.options(&RetryArgs::default())?;
    if args.get_login {
        ui.line(login::current_user(cx, &registry, &remote)?);
        return Ok(0);
    }
    let (user, password) = match &remote.creds {
        Some((user, password)) => (user.clone(), password.clone()),
        None => name_and_password(cx, ui, &args, &registry, &remote)?,
    };
    let remote = RemoteOptions { creds: None, ..remote };
    let kept = login::login(cx, &registry, &user, &Secret::new(password), &remote)?;
    if kept.plain {
        ui.note(format_args!("WARNING! Your credentials are stored unencrypted in '{}'.", kept.kept_in));
    }
    if let Some(other) = &kept.shadowed_by {
        ui.warn(format_args!("another login for {registry} comes first: {other}"));
    }
    if args.verbose {
        ui.note(format_args!("Used: {}", kept.kept_in));
    }
    ui.line("Login Succeeded");
    Ok(0)
}

/// The user name and password of a login, from options, standard input or the person at the terminal.
fn name_and_password(
    cx: &Context,
    ui: &mut Ui,
    args: &LoginArgs,
    registry: &str,
    remote: &RemoteOptions,
) -> Result<(String, String), CmdError> {
    if args.password_stdin {
        let user = args.username.clone().filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| CmdError::usage("Must provide --username with --password-stdin"))?;
        return Ok((user, password_from_stdin()?));
    }
    if let (Some(user), Some(password)) = (&args.username, &args.password) {
        ui.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        let password = if password == "-" { password_from_stdin()? } else { password.clone() };
        return Ok((user.clone(), password));
    }
    if !cx.terminals[0] {
        return Err(CmdError::usage("cannot ask for a user name and password without a terminal")
            .with_hint(format!("echo PASSWORD | strate login -u NAME --password-stdin {registry}")));
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask_name(cx, registry, remote)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => ask_password()?,
    };
    Ok((user, password))
}

fn ask_name(cx: &Context, registry: &str, remote: &RemoteOptions) -> Result<String, CmdError> {
    let known = login::current_user(cx, registry, remote).ok();
    let question =
        known.as_ref().map_or_else(|| "Username: ".to_owned(), |user| format!("Username ({user}): "));
    let typed = prompt::line(&question)?.filter(|user| !user.is_empty());
    typed.or(known).ok_or_else(|| CmdError::usage("a user name is needed"))
}

fn ask_password() -> Result<String, CmdError> {
    match prompt::secret("Password: ") {
        Ok(Some(password)) if !password.is_empty() => Ok(password),
        Ok(Some(_)) => Err(CmdError::usage("a password is needed")),
        Ok(None) => Err(CmdError::silent(130)),
        Err(error) => Err(CmdError::new(error).while_doing("cannot ask for a password")),
    }
}

fn password_from_stdin() -> Result<String, CmdError> {
    let mut text = String::new();
    std::io::stdin().lock().take(PASSWORD_BYTES).read_to_string(&mut text)?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(CmdError::usage("the password on standard input is empty"));
    }
    Ok(password.to_owned())
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// The registry; without one, Docker Hub
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
    /// Every registry
    #[arg(long, short, conflicts_with = "registry")]
    all: bool,
    /// File with logins, instead of those that are searched
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

/// `strate logout`
pub(super) fn logout(cx: &mut Context, ui: &mut Ui, args: LogoutArgs) -> CmdResult {
    let remote = RemoteOptions { authfile: args.authfile, ..RemoteOptions::default() };
    if args.all {
        logout::logout(cx, None, &remote)?;
        ui.line("Removed login credentials for all registries");
        return Ok(0);
    }
    let registry = login::registry_name(args.registry.as_deref());
    let done = logout::logout(cx, Some(&registry), &remote)?;
    if done.removed_from.is_empty() {
        ui.line(format_args!("Not logged in to {registry}"));
    } else {
        ui.line(format_args!("Removing login credentials for {registry}"));
    }
    Ok(0)
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
