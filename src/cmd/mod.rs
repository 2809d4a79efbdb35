//! Floor 6: the command line. Each verb: arguments → request → one call into `ops` → what to print.
//!
//! A group of verbs is one file. A verb there is an arguments struct and a function
//! `fn verb(cx: &mut Context, ui: &mut Ui, args: VerbArgs) -> CmdResult`. The table [`Verb`] names them all; a verb
//! that is also known under an object (`image ls`) is the same struct in the object's table.

mod build;
mod container;
mod error;
mod image;
mod registry;
mod system;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::context::{Context, GlobalOptions};
use crate::ui::Ui;

pub use error::CmdError;

/// What a verb function returns: the exit code of success, or an error that knows its own.
pub type CmdResult = Result<u8, CmdError>;

/// What a verb needs before it runs; decided here once, before any thread exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing: works in any process.
    Nothing,
    /// A rung of the ladder of user namespaces.
    UserNamespace,
}

/// Pull, build, run, commit and push OCI images without a daemon and without root
#[derive(Debug, Parser)]
#[command(name = "strate", version, disable_help_subcommand = true)]
struct Cli {
    /// Where images and containers are kept
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<std::path::PathBuf>,
    /// Print what happens, step by step
    #[arg(long, short = 'D', global = true)]
    debug: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build an image from a Dockerfile
    Build(build::BuildArgs),
}

/// Run a command line, program name included.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut ui = Ui::new();
    let options = GlobalOptions { root: cli.root, debug: cli.debug };
    let result = Context::gather(&options)
        .map_err(CmdError::from)
        .and_then(|mut cx| dispatch(&mut cx, &mut ui, cli.verb));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            ui.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(cx: &mut Context, ui: &mut Ui, verb: Verb) -> CmdResult {
    let _ = (Needs::Nothing, Needs::UserNamespace);
    match verb {
        Verb::Build(args) => build::build(cx, ui, args),
    }
}
