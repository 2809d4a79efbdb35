//! `--progress` of the verbs that move images.

use clap::{Args, ValueEnum};

use super::CmdError;
use crate::context::Context;
use crate::ui::Ui;
use crate::ui::progress::Display;

/// How the progress of a transfer is shown.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct ProgressArgs {
    /// How to show progress (on standard error)
    #[arg(long, value_name = "KIND", value_enum)]
    progress: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Redrawn lines on a terminal, a line for each change elsewhere
    Auto,
    /// Redrawn lines
    Tty,
    /// A line for each change
    Plain,
    /// An object for each change, one a line
    Json,
    /// Nothing but notices
    Quiet,
}

impl ProgressArgs {
    /// The display for this invocation. `quiet` (`-q`) silences what was not asked for by name.
    pub(super) fn display(self, cx: &Context, ui: &Ui, quiet: bool) -> Result<Display, CmdError> {
        let chosen = || Display::choose(quiet, ui.stderr_is_terminal(), |name| cx.var(name));
        Ok(match self.progress {
            None | Some(Kind::Auto) => chosen(),
            Some(Kind::Json) => Display::Json,
            Some(Kind::Quiet) => Display::Quiet,
            Some(_) if quiet => Display::Quiet,
            Some(Kind::Plain) => Display::Plain,
            Some(Kind::Tty) if ui.stderr_is_terminal() => Display::Live,
            Some(Kind::Tty) => {
                return Err(CmdError::usage("--progress tty: standard error is not a terminal"));
            }
        })
    }
}
