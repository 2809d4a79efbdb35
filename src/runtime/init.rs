//! A small first process (`--init`): starts the program, passes signals on, reaps what is orphaned, and ends with the
//! program's status. It is our own forked image, not executed anew: not dumpable, so that nothing in the container
//! can open its `/proc/1/exe` or memory.

use rustix::event::{PollFd, PollFlags, poll};

use super::StepFailure;
use super::rootfs::Step;
use crate::sys::fork::{Forked, exit_now, fork, kill_child, wait_any_now};
use crate::sys::signals::SignalReader;

/// Fork the program's process: returns in it. The caller's process stays behind as the reaper and never returns.
pub(super) fn split() -> Result<(), StepFailure> {
    let all: Vec<i32> =
        (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(signal)).collect();
    let signals = SignalReader::new(&all).step("watch", "signals")?;
    match fork().step("fork", "the program's process")? {
        // The program's process resets its mask itself, just before exec.
        Forked::Child => {
            std::mem::forget(signals);
            Ok(())
        }
        Forked::Parent(program) => reap(program, &signals),
    }
}

fn reap(program: i32, signals: &SignalReader) -> ! {
    close_everything_but(signals);
    // The command line of the host's user, with its paths, is nobody's business in the container.
    crate::sys::title::replace("strate-init");
    loop {
        let mut fds = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        let _ = poll(&mut fds, None);
        while let Some(signal) = signals.next() {
            if signal == libc::SIGCHLD {
                collect(program);
            } else {
                kill_child(program, signal);
            }
        }
    }
}

/// The program's streams must not be kept open by us: who reads them waits for their end.
fn close_everything_but(signals: &SignalReader) {
    use std::os::fd::AsRawFd;
    let kept = u32::try_from(signals.fd().as_raw_fd()).unwrap_or(0);
    crate::sys::exec::close_all(0, kept.saturating_sub(1));
    crate::sys::exec::close_all(kept + 1, u32::MAX);
}

fn collect(program: i32) {
    while let Some((pid, status)) = wait_any_now() {
        if pid == program {
            let code = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
            exit_now(code);
        }
    }
}
