//! `logs`: what a container has written, and goes on writing.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::container::log::{Entry, LogReader, Stream};
use super::container::{Error, target::Target};
use super::create::spec_of;
use crate::storage::{ContainerDir, Store};
use crate::sys::SysError;

/// What to show of a log.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// A time before each line.
    pub timestamps: bool,
    /// Nothing before this time.
    pub since: Option<Timestamp>,
    /// Nothing after this time.
    pub until: Option<Timestamp>,
}

/// Takes output; says whether to go on.
pub type Output<'a> = dyn FnMut(Stream, &[u8]) -> ControlFlow<()> + 'a;

/// Show a container's log.
///
/// # Errors
/// When the container is unknown or keeps no log.
pub fn logs(store: &Store, text: &str, request: &Request, output: &mut Output<'_>) -> Result<(), Error> {
    let dir = store.find_container(text)?;
    let mut reader = match LogReader::open(&dir.log(), request.tail) {
        Ok(reader) => reader,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return no_log(&dir),
        Err(error) => return Err(SysError::path("read", dir.log(), error).into()),
    };
    let failed = |error| SysError::path("read", dir.log(), error);
    let target = if request.follow { Target::of(&dir).ok() } else { None };
    let watch = target.as_ref().map(|_| watch(&dir)).transpose()?;
    loop {
        // Ended before the read: then what the read finds is all there will be.
        let ended = match &target {
            Some(target) => target.wait(Some(Duration::ZERO))?,
            None => true,
        };
        if ended && target.is_some() {
            // The last lines are written by who watches over the program, after its end.
            let _ = dir.wait_for_end();
        }
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            if show(&entry, request, output).is_break() {
                return Ok(());
            }
        }
        match (&target, &watch) {
            (Some(target), Some(watch)) if !ended => wait_for_more(watch, target)?,
            _ => return Ok(()),
        }
    }
}

fn no_log(dir: &ContainerDir) -> Result<(), Error> {
    let spec = spec_of(dir)?;
    let why = match () {
        () if spec.host.no_log => "--log-driver none",
        () if spec.host.auto_remove && !spec.detached => "--rm in the foreground",
        () => return Ok(()),
    };
    Err(Error::NoLog(dir.record.name.clone(), why))
}

fn show(entry: &Entry<'_>, request: &Request, output: &mut Output<'_>) -> ControlFlow<()> {
    if request.since.is_some() || request.until.is_some() {
        let Ok(time) = entry.time.parse::<Timestamp>() else { return ControlFlow::Continue(()) };
        if request.since.is_some_and(|since| time < since) {
            return ControlFlow::Continue(());
        }
        if request.until.is_some_and(|until| time > until) {
            return ControlFlow::Break(());
        }
    }
    let stream = if entry.stream == "stderr" { Stream::Err } else { Stream::Out };
    if request.timestamps {
        output(stream, format!("{} {}", entry.time, entry.log).as_bytes())
    } else {
        output(stream, entry.log.as_bytes())
    }
}

/// Watch the log for changes (`man 7 inotify`).
fn watch(dir: &ContainerDir) -> Result<rustix::fd::OwnedFd, SysError> {
    use rustix::fs::inotify;
    let failed = |error| SysError::path("watch", dir.log(), error);
    let watch =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
    inotify::add_watch(&watch, dir.log(), inotify::WatchFlags::MODIFY).map_err(failed)?;
    Ok(watch)
}

fn wait_for_more(watch: &rustix::fd::OwnedFd, target: &Target) -> Result<(), SysError> {
    let mut fds = [
        PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(target.pidfd().as_fd(), PollFlags::IN),
    ];
    // Also without an event now and then: inotify sees nothing on some network file systems.
    let pause = Timespec { tv_sec: 2, tv_nsec: 0 };
    match rustix::event::poll(&mut fds, Some(&pause)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(SysError::new("wait for", "the log", error)),
    }
    let mut events = [0_u8; 4096];
    while rustix::io::read(watch, &mut events).is_ok_and(|n| n > 0) {}
    Ok(())
}
