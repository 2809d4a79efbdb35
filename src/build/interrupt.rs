//! Giving up when the user asks for it: the running program is killed, and no further step begins.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Signal, pidfd_send_signal};

/// Shared between the builder and whoever takes the user's signals.
#[derive(Debug, Default)]
pub struct Interrupt {
    asked: AtomicBool,
    program: Mutex<Option<OwnedFd>>,
}

impl Interrupt {
    /// Ask the build to end. Whether a program was running, which is killed, comes back.
    pub fn ask(&self) -> bool {
        self.asked.store(true, Ordering::SeqCst);
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        match &*program {
            // One that has just ended needs no killing.
            Some(pidfd) => pidfd_send_signal(pidfd.as_fd(), Signal::KILL).is_ok(),
            None => false,
        }
    }

    /// Whether the build was asked to end.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Name the program to kill; it is killed at once when the build was asked to end meanwhile.
    pub(super) fn watch(&self, pidfd: Option<OwnedFd>) {
        *self.program.lock().unwrap_or_else(PoisonError::into_inner) = pidfd;
        if self.asked() {
            self.ask();
        }
    }
}
