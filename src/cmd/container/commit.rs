//! `commit`.

use clap::{ArgAction, Args};

use super::writable;
use crate::cmd::CmdResult;
use crate::context::Context;
use crate::image::Silent;
use crate::oci::Reference;
use crate::ops;
use crate::ops::build::Times;
use crate::ui::Ui;

/// Arguments of `commit`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct CommitArgs {
    /// Who made the image
    #[arg(short, long)]
    author: Option<String>,
    /// Apply a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR and the like
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Why the image was made
    #[arg(short, long)]
    message: Option<String>,
    /// Hold the container still meanwhile
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_possible_values = true)]
    pause: bool,
    /// Do not hold the container still
    #[arg(long, conflicts_with = "pause")]
    no_pause: bool,
    /// When the image was made, in seconds since 1970 (else SOURCE_DATE_EPOCH of the environment)
    #[arg(long, value_name = "SECONDS", conflicts_with = "timestamp", allow_negative_numbers = true)]
    source_date_epoch: Option<i64>,
    /// Give files in the new layer no later time than --source-date-epoch
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    rewrite_timestamp: Option<bool>,
    /// The time of the image and of every file in its new layer, in seconds since 1970
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timestamp: Option<i64>,
    /// Say nothing beside the image's id
    #[arg(short, long)]
    quiet: bool,
    /// The container's name or id
    container: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// `strate commit`
pub(in crate::cmd) fn commit(cx: &mut Context, ui: &mut Ui, args: CommitArgs) -> CmdResult {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    let request = ops::commit::Request {
        container: args.container,
        name,
        author: args.author,
        message: args.message,
        changes: args.change,
        pause: args.pause && !args.no_pause,
        epoch: args.timestamp.or(args.source_date_epoch),
        times: match (args.timestamp, args.rewrite_timestamp) {
            (Some(_), _) => Times::Same,
            (None, Some(true)) => Times::Clamped,
            _ => Times::Kept,
        },
    };
    let id = ops::commit::commit(cx, &request, &writable, &Silent)?;
    ui.line(id);
    Ok(0)
}
