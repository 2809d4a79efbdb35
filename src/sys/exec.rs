//! The last steps before a program: descriptors, signals, privileges, exec. Meant for a forked child.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use super::{SysError, SysResult};

/// Replace this process by a program. Returns only on failure.
#[must_use]
pub fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|item| item.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Make `fd` the descriptor `number`, without close-on-exec. For a forked child, which owns its whole table.
///
/// # Errors
/// What `dup2(2)` answers.
pub fn place_descriptor(fd: BorrowedFd<'_>, number: RawFd) -> SysResult<()> {
    // SAFETY: the callers place 0, 1 and 2 in a child that is about to exec; nothing in it owns these as `OwnedFd`.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(SysError::new("place", format!("descriptor {number}"), io::Error::last_os_error())),
        _ => Ok(()),
    }
}

/// Mark every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What `close_range(2)` answers (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> SysResult<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only sets a flag.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(SysError::new("mark", "open descriptors", io::Error::last_os_error())),
    }
}

/// Close every descriptor from `first` to `last`.
///
/// Only for a forked child that uses none of them any more: it owns its whole table, and ends in an exec or
/// [`super::fork::exit_now`].
pub fn close_all(first: u32, last: u32) {
    if first > last {
        return;
    }
    // SAFETY: see above; failure leaves them open, which their close-on-exec flag makes harmless.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Leave the inherited session keyring for a new one. Kernels without keyrings, filters that forbid the call and a
/// used-up quota are no reason to fail: the container's own filter forbids `keyctl`.
pub fn new_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: joins an anonymous keyring; no pointers are passed.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
}

/// Set the limit `resource` (`RLIMIT_*`, by number) of this process.
///
/// # Errors
/// `EPERM` when a hard limit would rise.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> SysResult<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is valid during the call.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(SysError::new("set", "a resource limit", io::Error::last_os_error())),
    }
}

/// Install a seccomp filter (classic BPF) on this thread.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` and without `no_new_privs`; `EINVAL` for a bad filter.
pub fn install_filter(filter: &[libc::sock_filter]) -> SysResult<()> {
    let failed = |error| SysError::new("install", "the system call filter", error);
    let len = u16::try_from(filter.len()).map_err(|_| failed(io::Error::from_raw_os_error(libc::E2BIG)))?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, whose length is that of the slice, and does not write to it.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    match done {
        0 => Ok(()),
        _ => Err(failed(io::Error::last_os_error())),
    }
}
