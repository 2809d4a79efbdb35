//! `login` and `logout`

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;

use super::{RemoteArgs, RetryArgs};
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops::login::Secret;
use crate::ops::remote::RemoteOptions;
use crate::ops::{login, logout};
use crate::ui::{Ui, prompt};

/// The most bytes of a password on standard input.
const PASSWORD_BYTES: u64 = 64 << 10;

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct LoginArgs {
    /// The registry, or REGISTRY/PATH for the repositories below that path; without one, Docker Hub
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
    /// The file to keep the login in, in docker's form
    #[arg(long, value_name = "FILE", conflicts_with = "authfile")]
    compat_auth_file: Option<PathBuf>,
    /// Say where the login is kept
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// `strate login`
pub(in crate::cmd) fn login(cx: &mut Context, ui: &mut Ui, args: LoginArgs) -> CmdResult {
    let registry = login::login_key(args.registry.as_deref());
    let mut remote = args.remote.options(&RetryArgs::default())?;
    // Both forms of the file are one to us: what we write, docker and podman read.
    remote.authfile = remote.authfile.or_else(|| args.compat_auth_file.clone());
    if args.get_login {
        ui.line(login::current_user(cx, &registry, &remote)?);
        return Ok(0);
    }
    let says_nothing = args.username.is_none() && args.password.is_none() && !args.password_stdin;
    if says_nothing && remote.creds.is_none() && is_logged_in(cx, ui, &args, &registry, &remote)? {
        ui.line("Login Succeeded");
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

/// Whether the login that is kept is good: then there is nothing to ask for. One that is no longer accepted is asked for
/// anew on a terminal.
fn is_logged_in(
    cx: &Context,
    ui: &mut Ui,
    args: &LoginArgs,
    key: &str,
    remote: &RemoteOptions,
) -> Result<bool, CmdError> {
    match login::check_existing(cx, key, remote) {
        Ok(Some((user, origin))) => {
            ui.note(format_args!("Authenticating with existing credentials... [Username: {user}]"));
            if args.verbose {
                ui.note(format_args!("Used: {origin}"));
            }
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(login::Error::WrongPassword { .. }) if cx.terminals[0] => {
            ui.note(format_args!("The login that is kept for {key} is no longer accepted"));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
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

pub(super) fn ask_password() -> Result<String, CmdError> {
    if !std::io::stdin().is_terminal() {
        return Err(CmdError::usage("cannot ask for a password without a terminal").with_hint(
            "give it with the name, as NAME:PASSWORD, or log in before with `strate login --password-stdin`",
        ));
    }
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
pub(in crate::cmd) struct LogoutArgs {
    /// The registry; without one, Docker Hub
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
    /// Every registry
    #[arg(long, short, conflicts_with = "registry")]
    all: bool,
    /// File with logins, instead of those that are searched
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The same, in docker's words
    #[arg(long, value_name = "FILE", conflicts_with = "authfile")]
    compat_auth_file: Option<PathBuf>,
}

/// `strate logout`
pub(in crate::cmd) fn logout(cx: &mut Context, ui: &mut Ui, args: LogoutArgs) -> CmdResult {
    let remote =
        RemoteOptions { authfile: args.authfile.or(args.compat_auth_file), ..RemoteOptions::default() };
    if args.all {
        logout::logout(cx, None, &remote)?;
        ui.line("Removed login credentials for all registries");
        return Ok(0);
    }
    let registry = login::login_key(args.registry.as_deref());
    let done = logout::logout(cx, Some(&registry), &remote)?;
    if done.removed_from.is_empty() {
        ui.line(format_args!("Not logged in to {registry}"));
    } else {
        ui.line(format_args!("Removing login credentials for {registry}"));
    }
    Ok(0)
}
