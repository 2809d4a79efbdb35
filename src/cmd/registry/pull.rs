//! `pull`, and the pulls of other verbs.

use clap::{Args, ValueEnum};

use super::{RemoteArgs, RetryArgs, explain};
use crate::cmd::progress::ProgressArgs;
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::Location;
use crate::oci::{Platform, Reference};
use crate::ops::pull::{self, PullPolicy, PullRequest, Pulled};
use crate::ops::{pull_file, remote};
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
    /// Images: [REGISTRY/]REPOSITORY[:TAG][@DIGEST], or oci:, oci-archive:, docker-archive: or dir: and a path
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Print the names only
    #[arg(long, short)]
    quiet: bool,
    /// Every tag of the repository
    #[arg(long, short)]
    all_tags: bool,
    #[command(flatten)]
    platform: PlatformArgs,
    /// Every image of an index, and the index itself
    #[arg(long, conflicts_with_all = ["platform", "os", "arch", "variant"])]
    all_platforms: bool,
    /// When to ask the registry
    #[arg(long, value_enum, default_value = "always")]
    policy: PolicyArg,
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

/// The platform as a whole or in pieces.
#[derive(Debug, Args)]
struct PlatformArgs {
    /// Platform to choose: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM", conflicts_with_all = ["os", "arch", "variant"])]
    platform: Option<String>,
    /// Operating system to choose, instead of this machine's
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Architecture to choose, instead of this machine's
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Variant of the architecture to choose
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
}

impl PlatformArgs {
    fn platform(&self, cx: &Context) -> Result<Option<Platform>, CmdError> {
        if self.os.is_none() && self.arch.is_none() && self.variant.is_none() {
            return platform(cx, self.platform.as_deref());
        }
        let host = Platform::host();
        let own = |typed: &Option<String>, host: &str| typed.clone().unwrap_or_else(|| host.to_owned());
        let (os, arch) = (own(&self.os, &host.os), own(&self.arch, &host.architecture));
        let variant = self.variant.as_ref().map_or_else(String::new, |variant| format!("/{variant}"));
        Ok(Some(format!("{os}/{arch}{variant}").parse()?))
    }
}

/// `strate pull`
pub(in crate::cmd) fn pull(cx: &mut Context, ui: &mut Ui, args: PullArgs) -> CmdResult {
    let display = args.progress.display(cx, ui, args.quiet)?;
    let platform = args.platform.platform(cx)?;
    let remote = args.remote.options(&args.retry)?;
    let mut all = Vec::with_capacity(args.names.len());
    for typed in &args.names {
        if let Some(location) = file_location(typed)? {
            if args.all_tags {
                return Err(CmdError::usage("--all-tags is for repositories, not for files"));
            }
            all.push((typed.as_str(), Place::File(location)));
            continue;
        }
        // `docker://` is how skopeo and podman write a registry.
        let typed = typed.strip_prefix("docker://").unwrap_or(typed);
        let named = remote::name(cx, typed)?;
        if args.all_tags && (named.reference.digest().is_some() || names_a_tag(typed)) {
            return Err(CmdError::usage("--all-tags takes a repository without a tag or digest"));
        }
        all.push((typed, Place::Registry(named)));
    }
    let shown = Shown { display, talks: !args.quiet && display.is_for_people(), quiet: args.quiet };
    let mut failed = false;
    for (typed, place) in all {
        let result = match place {
            Place::File(location) => {
                let (platform, all_platforms) = (platform.clone(), args.all_platforms);
                pull_from_file(cx, ui, &pull_file::Request { location, platform, all_platforms }, &shown)
            }
            Place::Registry(named) => {
                if !args.quiet {
                    explain(ui, typed, &named);
                }
                let request = PullRequest {
                    platform: platform.clone(),
                    all_platforms: args.all_platforms,
                    policy: args.policy.into(),
                    remote: remote.clone(),
                    reference: named.reference,
                };
                match args.all_tags {
                    true => pull_tags(cx, ui, &request, &shown),
                    false => pull_one(cx, ui, typed, &request, &shown),
                }
            }
        };
        match result {
            Err(error) if args.names.len() > 1 => {
                // The other images do not depend on this one.
                failed = true;
                if let Some(report) = error.report() {
                    ui.error(&report);
                }
            }
            result => result?,
        }
    }
    if failed { Err(CmdError::silent(1)) } else { Ok(0) }
}

/// Where an image is pulled from.
enum Place {
    Registry(remote::Named),
    File(Location),
}

/// The file or directory that an argument names, as podman writes it. A name of an image is none.
fn file_location(typed: &str) -> Result<Option<Location>, CmdError> {
    if !Location::is_meant(typed) {
        return Ok(None);
    }
    match Location::parse(typed)? {
        Location::Registry(_) => Ok(None),
        Location::Store(name) => Err(CmdError::usage(format!(
            "`{typed}` is in this store: pull brings images from registries, archives and directories"
        ))
        .with_hint(format!(
            "`strate tag {name} NEW` gives it another name; `strate copy` copies between places"
        ))),
        file => Ok(Some(file)),
    }
}

fn pull_from_file(
    cx: &Context,
    ui: &mut Ui,
    request: &pull_file::Request,
    shown: &Shown,
) -> Result<(), CmdError> {
    let progress = Progress::new(Direction::Pull, shown.display);
    let result = pull_file::pull_file(cx, request, &progress);
    progress.finish();
    let taken = result?;
    if !shown.quiet {
        ui.line(format_args!("Digest: {}", taken.digest));
    }
    for name in &taken.names {
        ui.line(name);
    }
    if taken.names.is_empty() {
        ui.line(taken.id);
    }
    Ok(())
}

/// What is shown of a pull.
struct Shown {
    display: Display,
    /// Sentences around it.
    talks: bool,
    quiet: bool,
}

fn pull_one(
    cx: &Context,
    ui: &mut Ui,
    typed: &str,
    request: &PullRequest,
    shown: &Shown,
) -> Result<(), CmdError> {
    if shown.talks {
        announce(ui, typed, &request.reference);
    }
    let pulled = pull_shown(cx, request, shown.display)?;
    tell(ui, &pulled, shown);
    Ok(())
}

fn tell(ui: &mut Ui, pulled: &Pulled, shown: &Shown) {
    if !shown.quiet {
        let (digest, status) = outcome(pulled);
        ui.line(digest);
        ui.line(status);
    }
    ui.line(&pulled.reference);
}

/// Every tag of a repository. One that has no image for the platform is left out, and said.
fn pull_tags(cx: &Context, ui: &mut Ui, request: &PullRequest, shown: &Shown) -> Result<(), CmdError> {
    let tags = pull::tags(cx, &request.reference, &request.remote, &crate::image::Silent)?;
    if tags.is_empty() {
        return Err(CmdError::usage(format!("`{}` has no tags", request.reference.repository())));
    }
    let (mut pulled, mut last) = (0, None);
    for reference in tags {
        if shown.talks {
            announce(ui, &reference.to_string(), &reference);
        }
        let request = PullRequest { reference, ..request.clone() };
        match pull_shown(cx, &request, shown.display) {
            Ok(done) => {
                tell(ui, &done, shown);
                pulled += 1;
            }
            Err(error) if pull::is_for_other_platforms(&error) => {
                ui.warn(format_args!(
                    "`{}` is left out: it holds no image for this platform",
                    request.reference
                ));
                last = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match last {
        Some(error) if pulled == 0 => Err(error.into()),
        _ => Ok(()),
    }
}

fn names_a_tag(typed: &str) -> bool {
    typed.contains('@') || typed.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// What docker says before a pull.
fn announce(ui: &mut Ui, typed: &str, reference: &Reference) {
    if reference.digest().is_none() && !names_a_tag(typed) {
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
