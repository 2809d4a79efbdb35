//! `system reset`.

use clap::Args;

use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops::reset::{self as reset_op, Loss};
use crate::ui::{Ui, prompt, words};

/// Arguments of `system reset`.
#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    /// Do not ask, and kill containers that run
    #[arg(long, short = 'f')]
    force: bool,
}

/// `strate system reset`
pub(super) fn reset(cx: &mut Context, ui: &mut Ui, args: ResetArgs) -> CmdResult {
    let Some(loss) = reset_op::look(cx)? else {
        ui.note(format_args!("there is no store at `{}`", cx.root.display()));
        return Ok(0);
    };
    if !args.force {
        if let Some(name) = loss.running.first() {
            let what = format!("container `{name}` runs: nothing was removed");
            return Err(CmdError::usage(what).with_hint(format!(
                "`strate stop {name}` stops it; `strate system reset -f` kills what runs"
            )));
        }
        warn(ui, &loss);
        if !prompt::agreed()? {
            return Ok(0);
        }
    }
    reset_op::reset(cx, args.force)?;
    ui.note(format_args!("removed `{}`: {}", loss.plan.root.display(), words::size(loss.plan.bytes)));
    Ok(0)
}

fn warn(ui: &mut Ui, loss: &Loss) {
    ui.note("WARNING! This will remove:");
    for (n, what) in [
        (loss.images, "all names of images, and their layers"),
        (loss.containers, "all containers, with what they have written"),
        (loss.volumes, "all volumes, with what is in them"),
    ] {
        ui.note(format_args!("  - {what}: {n}"));
    }
    ui.note(format_args!(
        "  - the directory `{}` ({})",
        loss.plan.root.display(),
        words::size(loss.plan.bytes)
    ));
}
