//! The keeper's life: lay out what the helper works on, start it, say when it is ready, and stay.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::Signal;

use super::{Helper, Wanted, pipe, slirp};
use crate::sys::fork::{Forked, NeverReturn, exit_now, fork, wait_pid};
use crate::sys::{SysError, SysResult, exec, fds, signals, title};

/// What the keeper holds of the outside.
#[derive(Debug)]
pub(super) struct Ends {
    /// A byte into it: the container may start.
    pub(super) ready: OwnedFd,
    /// Words into it: it may not.
    pub(super) tell: OwnedFd,
    /// The container's network namespace.
    pub(super) namespace: OwnedFd,
}

/// The number of the descriptor that slirp4netns writes to when it is ready.
const READY: i32 = 3;

/// In the new process.
pub(super) fn live(wanted: &Wanted<'_>, program: &[String], ends: Ends) -> Infallible {
    let _guard = NeverReturn;
    let said = settle(&ends).and_then(|()| set_up(wanted, program, &ends.namespace));
    match said {
        Ok(Ok(said)) => {
            let _ = rustix::io::write(&ends.ready, b"r");
            drop(ends);
            stay(&said)
        }
        Ok(Err(words)) => fail(&ends, &words),
        Err(error) => fail(&ends, &format!("cannot {} {}: {}", error.operation, error.subject, error.source)),
    }
}

/// The words come before the end of the gate, which the container sees.
fn fail(ends: &Ends, words: &str) -> ! {
    let _ = rustix::io::write(&ends.tell, words.as_bytes());
    exit_now(1)
}

/// Alone in a session, bound to the parent's life, with nothing of its own open.
fn settle(ends: &Ends) -> SysResult<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| SysError::new("bind", "the network to its container", error))?;
    let _ = rustix::process::setsid();
    signals::reset_all();
    fds::silence()?;
    fds::close_all_but(&[ends.ready.as_raw_fd(), ends.tell.as_raw_fd(), ends.namespace.as_raw_fd()])?;
    // From here on only the other side holds the other ends.
    if !is_heard(ends.ready.as_fd()) {
        exit_now(1);
    }
    // The working directory would keep a file system busy.
    rustix::process::chdir("/").map_err(|error| SysError::path("enter", "/", error))?;
    title::replace("strate-network");
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(|error| SysError::new("make", "the mounts our own", error))
}

/// Whether somebody holds the other end. In a fresh pid namespace `getppid` cannot tell that the parent is gone.
fn is_heard(pipe: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(pipe, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

/// As the first process of a pid namespace: whatever is left in it ends with us, and we with it. What the helper still
/// says is read: a pipe that nobody reads would end it, or hold it up once full.
fn stay(said: &OwnedFd) -> ! {
    drain(said);
    while wait_pid(-1).is_ok() {}
    exit_now(0)
}

/// Read and forget until nobody can write any more.
fn drain(said: &OwnedFd) {
    let mut buffer = [0; 4096];
    while matches!(rustix::io::read(said, &mut buffer), Ok(1..) | Err(rustix::io::Errno::INTR)) {}
}

/// Start the helper and hear it out: where it goes on speaking, or its words when it fails.
fn set_up(
    wanted: &Wanted<'_>,
    program: &[String],
    namespace: &OwnedFd,
) -> SysResult<Result<OwnedFd, String>> {
    let place = lay_out(wanted, namespace)?;
    let ((said, stderr), (ready, tell_ready)) = (pipe()?, pipe()?);
    let namespace = place.join("netns").join("container");
    let mut program = program.to_vec();
    match wanted.helper {
        Helper::Pasta => program.extend(["--netns".to_owned(), namespace.display().to_string()]),
        Helper::Slirp => program.extend([namespace.display().to_string(), slirp::INTERFACE.to_owned()]),
    }
    let helper = match fork()? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            let _guard = NeverReturn;
            let error = become_helper(wanted.program, &program, &place, &stderr, &tell_ready);
            let words = format!("cannot start `{}`: {error}", wanted.program.display());
            let _ = rustix::io::write(&stderr, words.as_bytes());
            exit_now(127)
        }
    };
    drop((stderr, tell_ready));
    let good = match wanted.helper {
        // Its first process ends when all is set up; what goes on is our child then.
        Helper::Pasta => wait_pid(helper)? == 0,
        Helper::Slirp => File::from(ready).read(&mut [0; 1]).is_ok_and(|bytes| bytes == 1),
    };
    if !good {
        if wanted.helper == Helper::Slirp {
            wait_pid(helper)?;
        }
        return Ok(Err(words_of(&said)));
    }
    let published = match wanted.helper {
        Helper::Pasta => Ok(()),
        Helper::Slirp => slirp::publish(&place.join(slirp::SOCKET), wanted.ports),
    };
    Ok(published.map(|()| said))
}

/// A tmpfs of our own with the container's network namespace in it, on a directory that no helper needs. Where there is
/// `/run/user/ID` it is that: the profiles that distributions have for pasta let it look there.
fn lay_out(wanted: &Wanted<'_>, namespace: &OwnedFd) -> SysResult<PathBuf> {
    let runtime = PathBuf::from(format!("/run/user/{}", wanted.uid));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let cover = |place: &Path| mount(c"tmpfs", place, c"tmpfs", flags, c"mode=0700,size=64k");
    let place = if runtime.is_dir() && cover(&runtime).is_ok() {
        runtime
    } else {
        let failed = |error| SysError::path("mount a tmpfs on", wanted.scratch, error);
        cover(wanted.scratch).map_err(failed)?;
        wanted.scratch.to_owned()
    };
    let failed = |what: &'static str, path: &Path, error| SysError::path(what, path, error);
    let dir = place.join("netns");
    rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o700)).map_err(|error| failed("make", &dir, error))?;
    let file = dir.join("container");
    let made = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(&file, made, Mode::from_raw_mode(0o600))
        .map_err(|error| failed("make", &file, error))?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), &file)
        .map_err(|error| failed("bind the network namespace to", &file, error))?;
    Ok(place)
}

/// In the child: become the program.
fn become_helper(
    path: &Path,
    args: &[String],
    place: &Path,
    stderr: &OwnedFd,
    ready: &OwnedFd,
) -> std::io::Error {
    // Nothing of the user's environment is the helper's business.
    let env = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let strings =
        |list: &[String]| list.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(args), Ok(path)) = (strings(args), CString::new(path.as_os_str().as_encoded_bytes())) else {
        return std::io::Error::from_raw_os_error(libc::EINVAL);
    };
    let prepared = exec::place_descriptor(stderr.as_fd(), 2)
        .and_then(|()| lift_and_place(ready))
        .and_then(|()| rustix::process::chdir(place).map_err(|error| SysError::path("enter", place, error)));
    match prepared {
        Ok(()) => exec::execve(&path, &args, &env),
        Err(error) => {
            std::io::Error::other(format!("{} {}: {}", error.operation, error.subject, error.source))
        }
    }
}

/// Descriptor 3 without close-on-exec. Whatever had that number is not needed any more.
fn lift_and_place(ready: &OwnedFd) -> SysResult<()> {
    let lifted = rustix::io::fcntl_dupfd_cloexec(ready, READY + 1)
        .map_err(|error| SysError::new("duplicate", "a pipe", error))?;
    exec::place_descriptor(lifted.as_fd(), READY)
}

/// What a helper that has ended said, without the noise that it makes where there is no system log. The helper's own
/// children may hold the pipe open, so this waits for no end.
fn words_of(said: &OwnedFd) -> String {
    let mut bytes = Vec::new();
    if rustix::fs::fcntl_setfl(said, OFlags::NONBLOCK).is_ok() {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(said, &mut buffer) {
            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if bytes.len() > 32 << 10 {
                break;
            }
        }
    }
    super::address::tidy(&String::from_utf8_lossy(&bytes))
}
