//! A program in the foreground: watched over by this process, or, where that may end before the program does, by a monitor
//! of which this process is the first client.

use std::os::fd::AsRawFd;

use super::{Foreground, LogWriter, Outcome, Ready, descriptors, finish, give_up, launch, open_log, watch};
use crate::context::Context;
use crate::ops::container::attend::client::{Left, Session};
use crate::ops::container::attend::{self, hub::Owner};
use crate::ops::container::{Error, RestartPolicy, monitor, streams};
use crate::storage::Store;

/// Run in the foreground until the program ends or the user leaves it.
pub(super) fn run(cx: &Context, store: Store, ready: Ready, how: Foreground) -> Result<Outcome, Error> {
    let monitored = ready.spec.tty || ready.spec.host.restart != RestartPolicy::No || watch::checks(&ready);
    if monitored { attended(cx, store, ready, how) } else { directly(cx, store, ready, &how) }
}

/// What whoever starts it gets: input, output, errors.
fn wanted(ready: &Ready, how: &Foreground) -> (bool, [bool; 2]) {
    let [stdin, out, err] = ready.spec.attach.unwrap_or([true; 3]);
    (how.stdin && ready.spec.open_stdin && stdin, [out, err])
}

/// This process watches over the program, shows its output and keeps its log.
fn directly(cx: &Context, store: Store, mut ready: Ready, how: &Foreground) -> Result<Outcome, Error> {
    let keeps_log = !ready.spec.host.no_log && !ready.spec.host.auto_remove;
    let (interactive, shown) = wanted(&ready, how);
    let wanted = streams::Wanted { tty: false, interactive, output_seen: keeps_log, shown };
    let streams = streams::attached(cx, &wanted);
    let started = streams.and_then(|(stdio, streams)| Ok((launch(&mut ready, stdio)?, streams)));
    let ((process, state), streams) = match started {
        Ok(started) => started,
        Err(error) => return Err(give_up(&ready.dir, &ready.spec, ready.lock, error)),
    };
    // The record keeps the container's layers from here on, and a collector need not wait for the program.
    drop(store);
    let mut log = if keeps_log { open_log(&ready.dir) } else { LogWriter::none() };
    let status = streams.relay(&process, how.sig_proxy, &mut log)?;
    log.finish();
    finish(ready, state, status);
    Ok(Outcome::Ended(exit_code(status.code())))
}

/// A monitor watches over the program, and we are its first client.
fn attended(cx: &Context, store: Store, ready: Ready, how: Foreground) -> Result<Outcome, Error> {
    let (ours, theirs) = attend::pair()?;
    let (input, shows) = wanted(&ready, &how);
    let tty = ready.spec.tty;
    let name = ready.dir.record.name.clone();
    let size = streams::terminal_size(cx);
    let mut keep = descriptors(&ready);
    keep.push(theirs.as_raw_fd());
    monitor::leave_behind(&name, &keep, |report| {
        watch::watch(cx, ready, Some(Owner { fd: theirs, shows }), size, report);
    })?;
    drop(store);
    let session = Session {
        socket: ours,
        tty,
        input,
        own_terminal: cx.terminals[0],
        proxy: how.sig_proxy,
        keys: how.keys,
        stays: true,
    };
    match session.run()? {
        Left::Ended(code) => Ok(Outcome::Ended(exit_code(code))),
        Left::Signal(signal) => Ok(Outcome::Ended(exit_code(128 + signal))),
        Left::Detached | Left::OutputGone => Ok(Outcome::Left),
        Left::Dismissed(Some(why)) => Err(Error::Dismissed { name, why }),
        Left::Dismissed(None) => Err(Error::MonitorLost(name)),
    }
}

/// As a shell shows it.
pub(in crate::ops) fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(1)
}
