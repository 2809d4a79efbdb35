//! Verbs of the container group.

mod commit;
mod env_flags;
mod files;
mod flags;
mod health_flags;
mod lifecycle;
mod limit_flags;
mod limits;
mod list;
mod network_flags;
mod other_flags;
mod port;
mod run;
mod watch;
mod which;

pub(super) use commit::{CommitArgs, commit};
pub(super) use files::{
    CpArgs, DiffArgs, MountArgs, UmountArgs, UnshareArgs, cp, diff, mount, umount, unshare,
};
pub(super) use lifecycle::{
    ExistsArgs, KillArgs, PauseArgs, PruneArgs, RenameArgs, RestartArgs, RmArgs, StopArgs, WaitArgs, exists,
    kill, pause, prune, rename, restart, rm, stop, unpause, wait,
};
pub(super) use limits::{StatsArgs, UpdateArgs, stats, update};
pub(super) use list::{InspectArgs, LogsArgs, PsArgs, command_words, inspect, logs, ps, status};
pub(super) use port::{PortArgs, port};
pub(super) use run::{
    AttachArgs, CreateArgs, ExecArgs, RunArgs, StartArgs, attach, create, exec, run, start,
};
pub(super) use watch::{EventsArgs, HealthcheckArgs, TopArgs, events, healthcheck, top};

use std::io::Write;
use std::ops::ControlFlow;

use super::CmdError;
use crate::context::Context;
use crate::ops;
use crate::ops::container::Error;
use crate::ops::container::log::Stream;
use crate::ops::store::Store;
use crate::ui::Ui;

/// The store for writing, its waits announced.
fn writable(cx: &Context) -> Result<Store, Error> {
    Ok(ops::store::write(cx, |text| Ui::new().note(text))?)
}

/// The store for reading.
fn readable(cx: &Context) -> Result<Store, Error> {
    Ok(ops::store::read_aloud(cx, |text| Ui::new().warn(text))?)
}

/// An error with docker's exit code for run, create, start -a and exec.
fn failed(error: Error) -> CmdError {
    let code = error.exit_code();
    CmdError::new(error).with_exit_code(code)
}

/// Do one thing to each container that the user named; what fails is said, and the others get their turn.
fn each(ui: &mut Ui, names: &[String], mut act: impl FnMut(&mut Ui, &str) -> Result<(), Error>) -> u8 {
    let mut code = 0;
    for name in names {
        if let Err(error) = act(ui, name) {
            if let Some(report) = CmdError::new(error).report() {
                ui.error(&report);
            }
            code = 1;
        }
    }
    code
}

/// Show a program's output: it is its own, and reaches the terminal as it was written. Says whether to go on.
fn show(ui: &mut Ui, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
    match stream {
        Stream::Out => {
            ui.bytes(bytes);
            if ui.stdout_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        Stream::Err => match std::io::stderr().write_all(bytes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        },
    }
}
