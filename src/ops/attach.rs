//! `start -a` of a container that runs already: its output from here on, our signals to it, its exit code.
//!
//! The program's streams belong to whoever watches over it, and no daemon stands between: the log is followed instead.

use std::ops::ControlFlow;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::container::{Error, target::Target};
use super::create::spec_of;
use super::logs::{self, Output, Request};
use crate::storage::Store;
use crate::sys::SysError;
use crate::sys::signals::SignalReader;

/// Signals that are passed on, as docker's `--sig-proxy` does it.
const PASSED_ON: [i32; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Show what a running container writes until it ends; its exit code.
///
/// # Errors
/// When it is unknown, does not run or keeps no log.
pub fn attach(store: &Store, text: &str, output: &mut Output<'_>) -> Result<u8, Error> {
    let dir = store.find_container(text)?;
    // A terminal's Ctrl-C is a byte of its input, and the input is not ours: there it ends only the watching.
    let passes_on = !spec_of(&dir)?.tty;
    let newest = Request { tail: Some(0), ..Request::default() };
    // What stands in the way of reading is found before anything waits for the program.
    logs::logs(store, text, &newest, &mut |_, _| ControlFlow::Continue(()))?;
    let target = Target::of(&dir)?;
    // Held back before there are threads, so that none of them is ended by one.
    let signals = passes_on.then(|| SignalReader::new(&PASSED_ON)).transpose()?;
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
    Ok(u8::try_from(code.unwrap_or(0) & 0xff).unwrap_or(1))
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
