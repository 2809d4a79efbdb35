//! `push`

use std::path::PathBuf;

use clap::Args;

use super::{RemoteArgs, RetryArgs};
use crate::cmd::progress::ProgressArgs;
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::oci::Reference;
use crate::ops::push::{self, PushRequest};
use crate::ui::Ui;
use crate::ui::progress::{Direction, Progress};

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct PushArgs {
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
    progress: ProgressArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

/// `strate push`
pub(in crate::cmd) fn push(cx: &mut Context, ui: &mut Ui, args: PushArgs) -> CmdResult {
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
    let display = args.progress.display(cx, ui, args.quiet)?;
    if !args.quiet && display.is_for_people() {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        ui.note(format_args!("The push refers to repository [{repository}]"));
    }
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
