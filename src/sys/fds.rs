//! Descriptors of a process that stays behind: which it keeps, and what its standard streams are.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use super::{SysError, SysResult};

/// Close every descriptor but the standard streams and `keep` (`man 2 close_range`).
///
/// The values that own the closed descriptors must not be used or dropped any more: this is for a forked process that
/// ends without running destructors.
///
/// # Errors
/// What the kernel answers.
pub fn close_all_but(keep: &[RawFd]) -> SysResult<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            // SAFETY: closes numbers only. What owned them is, by this function's contract, never used again.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
                return Err(SysError::new("close", "inherited descriptors", io::Error::last_os_error()));
            }
        }
        first = first.max(fd.saturating_add(1));
    }
    Ok(())
}

/// Close descriptors by number, in a forked process that ends without running destructors: what owns them must never be
/// used again there.
pub fn close_these(fds: &[RawFd]) {
    for fd in fds {
        // SAFETY: closes a number. What owned it is, by this function's contract, never used again.
        unsafe { libc::close(*fd) };
    }
}

/// Make `/dev/null` the standard streams.
///
/// # Errors
/// When there is no `/dev/null`.
pub fn silence() -> SysResult<()> {
    let failed = |error| SysError::new("open", "`/dev/null`", error);
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    rustix::stdio::dup2_stderr(&null).map_err(failed)
}

/// Standard output as a file of its own: the standard library's takes one that cannot be written for a good one.
///
/// # Errors
/// `EBADF` when there was none when the process was started, and what `man 2 dup` says.
pub fn own_stdout() -> io::Result<File> {
    if stdout_was_closed() {
        return Err(rustix::io::Errno::BADF.into());
    }
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the process was started without a standard output (`>&-`), or with one that can only be read. The standard
/// library puts `/dev/null` there before `main`, and takes the other for a good one: a result would be lost without a
/// word.
#[must_use]
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look_at_stdout() {
    // SAFETY: asks about a number; it may be closed, which is the question.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFL) };
    let closed = flags == -1 || flags & libc::O_ACCMODE == libc::O_RDONLY;
    STDOUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
}

// SAFETY: the C runtime calls what stands in this section before `main`, and so before the standard library; the
// function takes no arguments, which every runtime's way to call it allows, and uses nothing that is not there yet.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_AT_STDOUT: extern "C" fn() = look_at_stdout;
