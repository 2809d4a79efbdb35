//! `import-store` and `system share`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::CmdResult;
use crate::context::Context;
use crate::ops::import_store::{Outcome, Request, import_store as import_op};
use crate::ops::share as share_op;
use crate::ui::Ui;

/// Whose store it is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Podman, buildah, CRI-O and skopeo
    ContainersStorage,
}

/// Arguments of `import-store`.
#[derive(Debug, Args)]
pub(super) struct ImportStoreArgs {
    /// Whose store it is
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Names or ids of images; without any, all that have a name
    #[arg(value_name = "THEIR_IMAGE")]
    images: Vec<String>,
    /// Where the store lies, if not in its usual place
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long, short = 'n')]
    dry_run: bool,
}

/// `strate import-store`
pub(super) fn import_store(cx: &mut Context, ui: &mut Ui, args: ImportStoreArgs) -> CmdResult {
    let Kind::ContainersStorage = args.kind;
    let request = Request { from: args.from, images: args.images, dry_run: args.dry_run };
    let (mut failed, mut changed) = (false, false);
    import_op(cx, &request, &mut |row| {
        for name in &row.taken {
            ui.warn(format_args!("`{name}` stands for another image here, and was left alone"));
        }
        changed |= row.digest_changed;
        match row.outcome {
            Outcome::Imported => ui.line(format_args!("Imported: {}", row.label)),
            Outcome::Named => ui.line(format_args!("Named: {}", row.label)),
            Outcome::Present => ui.line(format_args!("Present: {}", row.label)),
            Outcome::Would => ui.line(format_args!("Would import: {}", row.label)),
            Outcome::Failed(why) => {
                failed = true;
                ui.note(format_args!("error: cannot import `{}`: {why}", row.label));
            }
        }
    })?;
    if changed {
        ui.note(
            "notice: their store keeps no compressed layers, so digests of imported images are not the registry's; \
             ids are the same, and a pull of the same name brings the registry's digest",
        );
    }
    Ok(u8::from(failed))
}

/// Arguments of `system share`.
#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    /// Close the store to others again
    #[arg(long)]
    off: bool,
}

/// `strate system share`
#[allow(clippy::needless_pass_by_value, reason = "the shape of every verb")]
pub(super) fn share(cx: &mut Context, ui: &mut Ui, args: ShareArgs) -> CmdResult {
    share_op::share(cx, !args.off)?;
    let root = cx.root.display();
    ui.note(match args.off {
        true => format!("the store at `{root}` is closed to other users"),
        false => format!("other users can read the images of `{root}`: strate --imagestore {root} images"),
    });
    Ok(0)
}
