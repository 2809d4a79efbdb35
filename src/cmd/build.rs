//! The build verb.

use clap::Args;

use super::CmdResult;
use crate::context::Context;
use crate::ui::Ui;

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {}

/// `strate build`
pub(super) fn build(_cx: &mut Context, _ui: &mut Ui, _args: BuildArgs) -> CmdResult {
    todo!()
}
