//! `attach`, and `start -a` of a container that runs already: its streams from here on, until it ends or the user leaves.
//!
//! A program in the foreground without a monitor is watched over by the command that started it: its output is followed
//! in its log, and its input belongs to that command.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags};

use super::container::attend::client::{Left, Session};
use super::container::attend::{self, keys::DetachKeys};
use super::container::{ContainerSpec, Error, target::Target};
use super::create::spec_of;
use super::logs::{self, Output, Request};
use super::start::Outcome;
use crate::context::Context;
use crate::runtime::relay::forwarded;
use crate::storage::{ContainerDir, Status, Store};
use crate::sys::SysError;
use crate::sys::signals::SignalReader;

/// The exit code of a program that nobody saw end, as docker shows it.
const UNSEEN: i32 = 255;

/// How to attach.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Our standard input is the program's, where the program has one.
    pub stdin: bool,
    /// Signals go to a program without a terminal.
    pub sig_proxy: bool,
    /// The keys that leave it.
    pub keys: DetachKeys,
}

/// Attach to a running container until it ends or the user leaves.
///
/// # Errors
/// When it is unknown, does not run, is paused or about to be started again, or has neither monitor nor log.
pub fn attach(
    cx: &Context,
    store: &Store,
    text: &str,
    wanted: Wanted,
    output: &mut Output<'_>,
) -> Result<Outcome, Error> {
    let dir = store.find_container(text)?;
    let spec = spec_of(&dir)?;
    check(&dir)?;
    let input = wanted.stdin && spec.open_stdin;
    if input && spec.tty && !cx.terminals[0] {
        return Err(Error::NotATerminal);
    }
    let socket = {
        let (_held, path) = dir.socket()?;
        attend::connect(&path)?
    };
    let Some(socket) = socket else { return follow(&dir, store, text, &spec, output).map(Outcome::Ended) };
    dir.tell("attach", &[]);
    let session = Session {
        socket,
        tty: spec.tty,
        input,
        own_terminal: cx.terminals[0],
        proxy: wanted.sig_proxy && !spec.tty,
        keys: wanted.keys,
        stays: false,
    };
    let code = |code: i32| super::start::exit_code(code);
    match session.show([true; 2]).run()? {
        Left::Ended(ended) => Ok(Outcome::Ended(code(ended))),
        Left::Signal(signal) => Ok(Outcome::Ended(code(128 + signal))),
        Left::Detached | Left::OutputGone => Ok(Outcome::Left),
        Left::Dismissed(Some(why)) => Err(Error::Dismissed { name: dir.record.name.clone(), why }),
        // It may have ended with its monitor.
        Left::Dismissed(None) => Ok(Outcome::Ended(code(dir.wait_for_end()?.unwrap_or(UNSEEN)))),
    }
}

/// Refuse to attach our standard input to a container with a terminal when it is none.
///
/// # Errors
/// [`Error::NotATerminal`], or when the container is unknown.
pub fn check_terminal(cx: &Context, store: &Store, text: &str) -> Result<(), Error> {
    let spec = spec_of(&store.find_container(text)?)?;
    if spec.tty && spec.open_stdin && !cx.terminals[0] { Err(Error::NotATerminal) } else { Ok(()) }
}

/// The keys that docker's own configuration names (`detachKeys`), else the usual ones.
///
/// # Errors
/// [`Error::BadValue`] when it names none.
pub fn configured_keys(cx: &Context) -> Result<DetachKeys, Error> {
    let dir = cx.var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(cx.home.as_ref()?.join(".docker")));
    let text = dir.and_then(|dir| std::fs::read_to_string(dir.join("config.json")).ok()).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    DetachKeys::parse(config["detachKeys"].as_str().unwrap_or_default())
}

/// Where a container cannot be attached to, in docker's words.
fn check(dir: &ContainerDir) -> Result<(), Error> {
    let (state, instead) = match dir.state()?.status {
        Status::Running => return Ok(()),
        Status::Paused => ("paused", "unpause it first"),
        Status::Restarting => ("restarting", "wait until it is running"),
        Status::Created | Status::Exited | Status::Dead => ("stopped", "start it first"),
    };
    Err(Error::NotAttachable { name: dir.record.name.clone(), state, instead })
}

/// Show what a container writes to its log until it ends; its exit code.
fn follow(
    dir: &ContainerDir,
    store: &Store,
    text: &str,
    spec: &ContainerSpec,
    output: &mut Output<'_>,
) -> Result<u8, Error> {
    let newest = Request { tail: Some(0), ..Request::default() };
    // What stands in the way of reading is found before anything waits for the program.
    logs::logs(store, text, &newest, &mut |_, _| ControlFlow::Continue(()))?;
    let target = Target::of(dir)?;
    // A terminal's Ctrl-C is a byte of its input, and the input is not ours: there it ends only the watching. Held back
    // before there are threads, so that none of them is ended by one.
    let signals = (!spec.tty).then(|| SignalReader::new(&forwarded())).transpose()?;
    let code = std::thread::scope(|scope| {
        // From the start: a container with --rm tells its exit code only those who wait already.
        let end = scope.spawn(|| dir.wait_for_end());
        if let Some(signals) = &signals {
            let target = &target;
            scope.spawn(move || pass_on(signals, target));
        }
        let shown = logs::logs(store, text, &Request { follow: true, ..newest }, output);
        let code = end.join().unwrap_or(Ok(None));
        shown.and(code.map_err(Error::from))
    })?;
    Ok(super::start::exit_code(code.unwrap_or(0)))
}

/// Pass signals on until the program ends.
fn pass_on(signals: &SignalReader, target: &Target) -> Result<(), SysError> {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(target.pidfd().as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(SysError::new("wait for", "signals", error)),
        }
        if !fds[1].revents().is_empty() {
            return Ok(());
        }
        while let Some(signal) = signals.next() {
            // It may have ended since.
            let _ = target.signal(signal);
        }
    }
}
