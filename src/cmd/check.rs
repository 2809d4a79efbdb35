//! `system check`.

use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde_json::{Value, json};

use super::registry::{RemoteArgs, RetryArgs};
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops::check::{self as check_op, CheckReport, Checked, Fault, Progress, Request};
use crate::ui::format::Template;
use crate::ui::{Ui, words};

/// Arguments of `system check`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 0 for a sound store, 1 when something is wrong with it, 125 when it cannot be looked at."
)]
pub(super) struct CheckArgs {
    /// Leave out what takes long: the bytes of large blobs and of unpacked layers
    #[arg(long, short = 'q')]
    quick: bool,
    /// Mend what can be mended: wrong and missing blobs are fetched again from where they came
    #[arg(long, short = 'r')]
    repair: bool,
    /// With --repair: give up names whose images cannot be brought back
    #[arg(long, short = 'f')]
    force: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    /// Accepted for podman's sake: what nothing uses is no fault, whatever its age
    #[arg(long = "max", short = 'm', value_name = "DURATION", hide = true)]
    max: Option<String>,
    /// Print by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate system check`
pub(super) fn check(cx: &mut Context, ui: &mut Ui, args: CheckArgs) -> CmdResult {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    if args.force && !args.repair {
        return Err(CmdError::usage("--force goes with --repair").with_exit_code(125));
    }
    let remote = args.remote.options(&args.retry).map_err(|error| error.with_exit_code(125))?;
    let how = match (args.repair, args.force) {
        (false, _) => How::Look,
        (true, false) => How::Repair,
        (true, true) => How::Force,
    };
    let request = Request { quick: args.quick, repair: args.repair, force: args.force, remote };
    let teller = Teller::new(ui.stderr_is_terminal());
    let result = check_op::check(cx, &request, &|progress| teller.tell(progress));
    teller.clear();
    let Checked { report, done } = result?;
    for remark in &report.remarks {
        ui.note(remark);
    }
    match template {
        Some(template) => ui.line(template.render(&as_json(&report, &done))?),
        None => {
            done.iter().for_each(|line| ui.line(line));
            print(ui, &report, how);
        }
    }
    Ok(u8::from(!report.faults.is_empty()))
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Look,
    Repair,
    Force,
}

fn print(ui: &mut Ui, report: &CheckReport, how: How) {
    let repaired = how != How::Look;
    for fault in &report.faults {
        ui.line(fault);
    }
    let counts = &report.counts;
    let all = [
        counted(counts.images, "image"),
        format!("{} ({})", counted(counts.blobs, "blob"), words::size(counts.blob_bytes)),
        counted(counts.snapshots, "unpacked layer"),
        counted(counts.containers, "container"),
        counted(counts.volumes, "volume"),
    ];
    let verdict = match report.faults.len() {
        0 => "nothing wrong".to_owned(),
        1 if repaired => "1 fault is left".to_owned(),
        n if repaired => format!("{n} faults are left"),
        1 => "1 fault".to_owned(),
        n => format!("{n} faults"),
    };
    ui.line(format_args!("{}: {verdict}", all.join(", ")));
    if report.collectable.count > 0 {
        let size = words::size(report.collectable.bytes);
        ui.note(format_args!("nothing needs {size} of it: `strate system prune` takes that"));
    }
    if let Some(hint) = hint(report, how) {
        ui.note(format_args!("hint: {hint}"));
    }
}

fn hint(report: &CheckReport, how: How) -> Option<&'static str> {
    let lost = report.faults.iter().any(|fault| !fault.needed_by().is_empty() || fault.kind() == "name");
    match how {
        _ if report.faults.is_empty() => None,
        How::Look => Some("`strate system check --repair` mends what can be mended"),
        How::Repair if lost => Some(
            "pull, load or build those images again; `strate system check --repair --force` gives their names up",
        ),
        _ => Some("remove what cannot be mended with `strate rm` and `strate volume rm`"),
    }
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn as_json(report: &CheckReport, done: &[String]) -> Value {
    let fault = |fault: &Fault| {
        json!({
            "Kind": fault.kind(),
            "Subject": fault.subject(),
            "What": fault.what(),
            "NeededBy": fault.needed_by(),
        })
    };
    let counts = &report.counts;
    json!({
        "Sound": report.faults.is_empty(),
        "Faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
        "Repaired": done,
        "Remarks": report.remarks,
        "Images": counts.images,
        "Blobs": counts.blobs,
        "BlobBytes": counts.blob_bytes,
        "Snapshots": counts.snapshots,
        "Containers": counts.containers,
        "Volumes": counts.volumes,
        "BuildRecords": counts.records,
        "Collectable": report.collectable.count,
        "CollectableBytes": report.collectable.bytes,
        "PartialBytes": report.partial.bytes,
        "Leftovers": report.leftovers,
    })
}

/// Says on a terminal how far a check is, in one line that is drawn over.
struct Teller {
    is_terminal: bool,
    /// What was said last, in percent and by kind, so that the line is drawn a hundred times at most.
    last: AtomicU64,
}

impl Teller {
    fn new(is_terminal: bool) -> Self {
        Self { is_terminal, last: AtomicU64::new(u64::MAX) }
    }

    fn tell(&self, progress: Progress) {
        if !self.is_terminal {
            return;
        }
        let (kind, done, total) = match progress {
            Progress::Blobs { done, total } => (0, done, total),
            Progress::Snapshots { done, total } => (1, done as u64, total as u64),
        };
        let percent = (done.saturating_mul(100)).checked_div(total).unwrap_or(100).min(100);
        if self.last.swap(kind * 1000 + percent, Ordering::Relaxed) != kind * 1000 + percent {
            let what = if kind == 0 { "blobs" } else { "unpacked layers" };
            crate::ui::over(&format!("checking {what}: {percent}%"));
        }
    }

    fn clear(&self) {
        if self.last.load(Ordering::Relaxed) != u64::MAX {
            crate::ui::over("");
        }
    }
}
