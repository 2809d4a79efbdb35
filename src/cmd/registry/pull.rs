//! `pull`, and the pulls of other verbs.

use clap::{Args, ValueEnum};

use super::{RemoteArgs, RetryArgs, explain};
use crate::cmd::progress::ProgressArgs;
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::oci::{Platform, Reference};
use crate::ops::pull::{self, PullPolicy, PullRequest, Pulled};
use crate::ops::remote;
use crate::ui::Ui;
use crate::ui::progress::{Direction, Display, Progress};

/// `--policy` and `--pull`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cmd) enum PolicyArg {
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
pub(in crate::cmd) struct PullArgs {
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
    progress: ProgressArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

/// `strate pull`
pub(in crate::cmd) fn pull(cx: &mut Context, ui: &mut Ui, args: PullArgs) -> CmdResult {
    if args.all_tags {
        return Err(CmdError::usage("--all-tags is not supported yet: pull the tags one by one"));
    }
    let named = remote::name(cx, &args.name)?;
    if !args.quiet {
        explain(ui, &args.name, &named);
    }
    let request = PullRequest {
        platform: platform(cx, args.platform.as_deref())?,
        policy: args.policy.into(),
        remote: args.remote.options(&args.retry)?,
        reference: named.reference,
    };
    let display = args.progress.display(cx, ui, args.quiet)?;
    if !args.quiet && display.is_for_people() {
        announce(ui, &args.name, &request.reference);
    }
    let pulled = pull_shown(cx, &request, display)?;
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
fn pull_shown(cx: &Context, request: &PullRequest, display: Display) -> Result<Pulled, pull::Error> {
    let progress = Progress::new(Direction::Pull, display);
    let result = pull::pull(cx, request, &progress);
    progress.finish();
    result
}

/// Bring an image here for another verb (`run`, `create`), as docker does: everything is said on stderr, and nothing
/// when the image is here and the policy does not ask.
pub(in crate::cmd) fn pull_for(
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
    let display = Display::choose(quiet, ui.stderr_is_terminal(), |name| cx.var(name));
    let pulled = pull_shown(cx, request, display)?;
    if pulled.asked && !quiet {
        let (digest, status) = outcome(&pulled);
        ui.note(digest);
        ui.note(status);
    }
    Ok(pulled)
}

/// The platform of `--platform`, else of `DOCKER_DEFAULT_PLATFORM`.
pub(in crate::cmd) fn platform(cx: &Context, typed: Option<&str>) -> Result<Option<Platform>, CmdError> {
    let text = typed.or_else(|| cx.var("DOCKER_DEFAULT_PLATFORM"));
    Ok(text.map(str::parse::<Platform>).transpose()?)
}
