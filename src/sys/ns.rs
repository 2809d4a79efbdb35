//! Namespaces: `unshare(2)`, `setns(2)`, and the loopback interface of a fresh network namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{SysError, SysResult};

/// Move the calling thread into new namespaces (`CLONE_NEW*`).
///
/// # Errors
/// What `unshare(2)` answers; `EINVAL` for a user namespace in a process with several threads.
pub fn unshare(flags: i32) -> SysResult<()> {
    // SAFETY: namespace flags only; CLONE_FILES, the one that could pull descriptors from under safe code, is masked.
    match unsafe { libc::unshare(flags & !libc::CLONE_FILES) } {
        0 => Ok(()),
        _ => Err(SysError::new("make", "namespaces", io::Error::last_os_error())),
    }
}

/// Join the namespaces `flags` of the process behind a pid descriptor.
///
/// # Errors
/// What `setns(2)` answers: `ESRCH` when it has ended, `EPERM` when its user namespace is not ours.
pub fn join(pidfd: BorrowedFd<'_>, flags: i32) -> SysResult<()> {
    // SAFETY: plain system call on an open descriptor.
    match unsafe { libc::setns(pidfd.as_raw_fd(), flags) } {
        0 => Ok(()),
        _ => Err(SysError::new("join", "the container's namespaces", io::Error::last_os_error())),
    }
}

/// Set `lo` up in the current network namespace.
///
/// # Errors
/// What the socket calls answer.
pub fn loopback_up() -> SysResult<()> {
    let failed = || SysError::new("set up", "the loopback interface", io::Error::last_os_error());
    // SAFETY: plain system call; the new descriptor is owned below.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(failed());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo\0") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a valid ifreq for SIOCSIFFLAGS.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(failed()),
    }
}
