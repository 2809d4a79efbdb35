//! Making processes: `fork(2)`, `clone(2)` as a sibling, and the two ways a child may end.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{SysError, SysResult};

/// Which side of a fork we are on.
#[derive(Debug)]
pub enum Forked {
    /// The parent, with the child's process id.
    Parent(i32),
    /// The child. It must end in [`exit_now`] or an exec and never return into the caller's code.
    Child,
}

/// Fork by way of the C library, which takes its allocator's locks first: the child may allocate even when the
/// parent has other threads. It must not touch locks of the standard library (stdout, the environment).
///
/// # Errors
/// What `fork(2)` answers.
pub fn fork() -> SysResult<Forked> {
    // SAFETY: the child runs our own code only, which takes no lock that another thread may hold: the allocator's are
    // handled by the C library, and the set-up code neither prints nor reads the environment.
    match unsafe { libc::fork() } {
        -1 => Err(SysError::new("fork", "a child process", io::Error::last_os_error())),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// `clone(2)` with namespace flags from a process with one thread, without the C library. With a pid descriptor.
///
/// # Errors
/// `EINVAL` when the process has several threads (see [`single_threaded`]); else what `clone(2)` answers.
pub fn clone_process(flags: i32) -> SysResult<(Forked, Option<OwnedFd>)> {
    let failed = |error| SysError::new("clone", "a child process", error);
    if !single_threaded() {
        return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let mut pidfd: i32 = -1;
    let flags = (flags | libc::SIGCHLD | libc::CLONE_PIDFD) as libc::c_ulong;
    // SAFETY: no CLONE_VM, so the child has its own copy of memory and no stack is needed; with a single thread no lock
    // can be held by anyone else. The pidfd pointer is valid during the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match pid {
        -1 => Err(failed(io::Error::last_os_error())),
        0 => Ok((Forked::Child, None)),
        pid => {
            // SAFETY: CLONE_PIDFD made this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((Forked::Parent(i32::try_from(pid).unwrap_or(-1)), Some(pidfd)))
        }
    }
}

/// Whether this process has one thread. `unshare(CLONE_THREAD)` does nothing, but only a single thread may ask for it.
#[must_use]
pub fn single_threaded() -> bool {
    // SAFETY: changes nothing, see `man 2 unshare`.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// End at once: no destructors, no exit handlers, no flushing of what the parent has buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` is always safe to call.
    unsafe { libc::_exit(code) }
}

/// Ends the process when dropped: a forked child holds one, so that no path (not even a panic) leads back into the
/// parent's code.
#[derive(Debug)]
pub struct NeverReturn;

impl Drop for NeverReturn {
    fn drop(&mut self) {
        exit_now(125);
    }
}

/// Wait for a child, through interruptions.
///
/// # Errors
/// `ECHILD` when it is not a child of ours.
pub fn wait_pid(pid: i32) -> SysResult<i32> {
    let mut status = 0;
    loop {
        // SAFETY: the status pointer is valid during the call.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } >= 0 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(SysError::new("wait for", format!("process {pid}"), error));
        }
    }
}

/// A child that has ended, with its wait status; `None` when there is none just now.
#[must_use]
pub fn wait_any_now() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status pointer is valid during the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Send a signal by number (real-time ones too) to a process id that is known to be still ours: an unreaped child.
pub fn kill_child(pid: i32, signal: i32) {
    if pid > 0 {
        // SAFETY: plain system call.
        unsafe { libc::kill(pid, signal) };
    }
}
