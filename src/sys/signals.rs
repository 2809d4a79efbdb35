//! Signals: masks, dispositions, `signalfd(2)`.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{SysError, SysResult};

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set; sigaddset refuses bad numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

/// Every disposition and the mask back to what a fresh process has. The Rust runtime ignores `SIGPIPE`; a program
/// must not inherit that.
pub fn reset_all() {
    // The kernel's own structure: handler, flags, restorer, mask; all zero is the default disposition. The C library's
    // call refuses 32 and 33, which a caller may have ignored all the same.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure is valid and outlives the call; KILL and STOP are refused, which does no harm.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8)
        };
    }
    let none = set_of(&[]);
    // SAFETY: the set is valid, the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Have writes beyond the limit on the size of files fail with `EFBIG` (`man 2 setrlimit`).
pub fn ignore_file_size() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Send a signal by number (real-time ones too) to the process behind a pid descriptor.
///
/// # Errors
/// `ESRCH` when it has ended.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> SysResult<()> {
    // SAFETY: plain system call on an open descriptor; no siginfo is passed.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    match done {
        0 => Ok(()),
        _ => Err(SysError::new("signal", "a process", io::Error::last_os_error())),
    }
}

/// Signals held back while it lives, readable from its descriptor; the old mask comes back when it is dropped.
#[derive(Debug)]
pub struct SignalReader {
    fd: OwnedFd,
    old: Mask,
}

/// A signal mask (`sigset_t` has no `Debug`).
struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl SignalReader {
    /// Hold back `signals` in this thread and read them from a descriptor.
    ///
    /// # Errors
    /// What `signalfd(2)` answers.
    pub fn new(signals: &[i32]) -> SysResult<Self> {
        let set = set_of(signals);
        // SAFETY: the set is valid.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(SysError::new("watch", "signals", io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut old = set_of(&[]);
        // SAFETY: both sets are valid.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut old) };
        Ok(Self { fd, old: Mask(old) })
    }

    /// The descriptor to poll.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.fd.as_fd()
    }

    /// The next pending signal, by number.
    #[must_use]
    pub fn next(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has the size that is passed.
        let got = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(got) != Ok(size) {
            return None;
        }
        // SAFETY: the kernel filled it, and any bits are a valid value.
        i32::try_from(unsafe { info.assume_init() }.ssi_signo).ok()
    }
}

impl Drop for SignalReader {
    fn drop(&mut self) {
        // What arrived meanwhile and was not read must not strike when the mask goes.
        while self.next().is_some() {}
        // SAFETY: the set was filled by pthread_sigmask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.old.0, std::ptr::null_mut()) };
    }
}
