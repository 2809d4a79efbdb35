//! From a plan to a process, and to its end.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::channel::{self, Message, Teller};
use super::rootfs::failure;
use super::{Error, Network, Plan, child};
use crate::sys::fork::{Forked, NeverReturn, clone_process, exit_now, fork, single_threaded, wait_pid};
use crate::sys::{SysError, SysResult, ns, signals};

/// The program's three streams.
#[derive(Debug)]
pub enum Stdio {
    /// These descriptors, as they are.
    Descriptors {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new terminal of that size (rows, columns), set before exec; its master side comes back in [`Process`].
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code a shell would show: the code, or 128 and the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    /// Its process id in our pid namespace.
    pub pid: i32,
    /// A descriptor of it, for polling and signals.
    pub pidfd: OwnedFd,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
    /// Files and directories that were made in the root to mount on, as absolute paths, parents first. Whoever keeps the
    /// tree may want to remove them, or leave them out of a layer.
    pub stubs: Vec<String>,
}

impl Process {
    /// Wait for the end.
    ///
    /// # Errors
    /// When it is not a child of this process.
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    return Ok(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => ExitStatus::Code(code),
                        (None, signal) => ExitStatus::Signal(signal.unwrap_or(libc::SIGKILL)),
                    });
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    return Err(SysError::new("wait for", format!("process {}", self.pid), error).into());
                }
            }
        }
    }

    /// Send a signal.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        match signals::send(self.pidfd.as_fd(), signal) {
            Err(error) if error.errno() == Some(libc::ESRCH) => Err(Error::NotRunning),
            other => Ok(other?),
        }
    }
}

/// Start the plan in `root` (a detached mount) and return once the program was executed. The new process (pid 1 of its
/// pid namespace) is a child of the caller. Safe to call while other threads run.
///
/// With `die_with_parent` the parent is the calling *thread* (`man 2 PR_SET_PDEATHSIG`): call it from one that stays.
///
/// # Errors
/// See [`Error`]; nothing is left running then.
pub fn spawn(root: BorrowedFd<'_>, plan: &Plan, stdio: Stdio) -> Result<Process, Error> {
    let flags = namespace_flags(plan);
    let (ours, theirs) = channel::pair()?;
    if plan.init {
        crate::sys::title::remember();
    }
    let body = |teller: Teller<'_>| child::start(root, plan, &stdio, teller);
    if single_threaded() {
        let (forked, pidfd) = clone_process(flags)?;
        return match (forked, pidfd) {
            (Forked::Parent(pid), Some(pidfd)) => {
                drop(theirs);
                listen(&ours, Some((pid, pidfd)))
            }
            _ => end_as_program(theirs, body),
        };
    }
    let between = || ns::unshare(flags);
    launch_sibling(&ours, theirs, between, body)
}

/// The namespaces of a new container.
fn namespace_flags(plan: &Plan) -> i32 {
    let namespaces = &plan.namespaces;
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    for (wanted, flag) in [
        (namespaces.network == Network::None && plan.network.is_none(), libc::CLONE_NEWNET),
        (namespaces.ipc, libc::CLONE_NEWIPC),
        (namespaces.uts, libc::CLONE_NEWUTS),
        // Its root is the cgroup of who makes it: a process that is to be in another one goes there first.
        (namespaces.cgroup && plan.cgroup.is_empty(), libc::CLONE_NEWCGROUP),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    flags
}

/// Fork a helper that does `between` (which must not happen to us), makes the program's process as its own sibling
/// (`CLONE_PARENT`), tells its number, and ends.
fn launch_sibling(
    ours: &OwnedFd,
    theirs: OwnedFd,
    between: impl FnOnce() -> SysResult<()>,
    body: impl FnOnce(Teller<'_>) -> Result<Infallible, Error>,
) -> Result<Process, Error> {
    let helper = match fork()? {
        Forked::Parent(helper) => helper,
        Forked::Child => {
            let _guard = NeverReturn;
            match between().and_then(|()| clone_process(libc::CLONE_PARENT)) {
                Ok((Forked::Parent(pid), _)) => Teller(theirs.as_fd()).pid(pid),
                Ok((Forked::Child, _)) => end_as_program(theirs, body),
                Err(error) => Teller(theirs.as_fd()).failed(&error.into()),
            }
            exit_now(0)
        }
    };
    drop(theirs);
    let started = listen(ours, None);
    wait_pid(helper)?;
    started
}

/// In the child: the body's end is either the program or a message.
fn end_as_program(theirs: OwnedFd, body: impl FnOnce(Teller<'_>) -> Result<Infallible, Error>) -> ! {
    let _guard = NeverReturn;
    let teller = Teller(theirs.as_fd());
    let Err(error) = body(teller);
    teller.failed(&error);
    exit_now(125)
}

/// Hear the child out, until the exec closes its end.
fn listen(ours: &OwnedFd, mut known: Option<(i32, OwnedFd)>) -> Result<Process, Error> {
    let mut terminal = None;
    let mut stubs = Vec::new();
    let mut executing = false;
    let mut failed = None;
    while let Some(message) = channel::receive(ours) {
        match message {
            Message::Pid(pid) => known = Some((pid, open_pidfd(pid)?)),
            Message::Terminal(master) => terminal = Some(master),
            Message::Stub(path) => stubs.push(path),
            Message::Executing => executing = true,
            Message::Failed(error) => failed = failed.or(Some(error)),
        }
    }
    let silent = || Error::Setup(failure("finish", "the set-up: it ended without a word", libc::EIO));
    let Some((pid, pidfd)) = known else { return Err(failed.unwrap_or_else(silent)) };
    let process = Process { pid, pidfd, terminal, stubs };
    match failed {
        None if executing => Ok(process),
        failed => {
            // It is about to end by itself, unless a reaper of ours still holds the namespace.
            let _ = process.kill(libc::SIGKILL);
            let _ = process.wait();
            Err(failed.unwrap_or_else(silent))
        }
    }
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, Error> {
    let pid = Pid::from_raw(pid).ok_or(Error::NotRunning)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::SRCH => Error::NotRunning,
        error => SysError::new("open", format!("process {}", pid.as_raw_nonzero()), error).into(),
    })
}

/// A further program in a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// As in [`Plan`]: args, env, cwd, ids, capabilities, seccomp and terminal count; the rest is the container's.
    pub plan: Plan,
    /// The container's pid 1.
    pub pid: i32,
}

/// Start a program in the namespaces of a running container. It is a child of the caller.
///
/// The caller must own the container's user namespace or be in it: that is, call this from where
/// [`crate::userns::enter`] was *not* called, as every call of that makes a namespace of its own, from which others
/// cannot be joined.
///
/// # Errors
/// [`Error::NotRunning`] when the container has ended; else as [`spawn`].
pub fn exec(request: &ExecRequest, stdio: Stdio) -> Result<Process, Error> {
    let pidfd = open_pidfd(request.pid)?;
    let flags = foreign_namespaces(request.pid)?;
    let (ours, theirs) = channel::pair()?;
    let plan = &request.plan;
    let between = || {
        // While the host's paths can be reached, and with the powers of the host's user.
        child::enter_cgroup(plan).and_then(|()| child::set_oom_score(plan)).map_err(|failure| {
            let error = std::io::Error::from_raw_os_error(failure.errno);
            SysError::new("join", failure.subject, error)
        })?;
        // Visible to the container from here on.
        child::hide().map_err(|failure| {
            SysError::new("hide", "the set-up process", std::io::Error::from_raw_os_error(failure.errno))
        })?;
        ns::join(pidfd.as_fd(), flags)?;
        if flags & libc::CLONE_NEWUSER != 0 { become_root() } else { Ok(()) }
    };
    launch_sibling(&ours, theirs, between, |teller| child::join(plan, &stdio, teller))
}

/// Become user 0 of the user namespace of a running container, in its other namespaces or not: for a process of one
/// thread that goes on to work on the container's files.
///
/// # Errors
/// As [`exec`].
pub fn become_root_of(pid: i32) -> Result<(), Error> {
    let pidfd = open_pidfd(pid)?;
    let flags = foreign_namespaces(pid)? & libc::CLONE_NEWUSER;
    // In the new namespace's own eyes we may be traced by the container's root: nothing of ours may be opened.
    child::hide().map_err(Error::Setup)?;
    if flags != 0 {
        ns::join(pidfd.as_fd(), flags)?;
        become_root()?;
        child::hide().map_err(Error::Setup)?;
    }
    Ok(())
}

/// After joining or making a user namespace: user 0 of it, whoever we were outside.
///
/// # Errors
/// When we have no power to.
pub fn become_root() -> SysResult<()> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    // Refused in a namespace with a single id, where the groups cannot change anyway.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .and_then(|()| set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .map_err(|error| SysError::new("become", "user 0 of the container", error))
}

/// The namespaces in which the process is and we are not: joining one that we are in may be refused.
fn foreign_namespaces(pid: i32) -> Result<i32, Error> {
    let mut flags = 0;
    for (name, flag) in [
        ("user", libc::CLONE_NEWUSER),
        ("mnt", libc::CLONE_NEWNS),
        ("pid", libc::CLONE_NEWPID),
        ("ipc", libc::CLONE_NEWIPC),
        ("uts", libc::CLONE_NEWUTS),
        ("net", libc::CLONE_NEWNET),
        ("cgroup", libc::CLONE_NEWCGROUP),
    ] {
        let identity =
            |who: &str| rustix::fs::stat(format!("/proc/{who}/ns/{name}")).map(|s| (s.st_dev, s.st_ino));
        let theirs = match identity(&pid.to_string()) {
            Ok(theirs) => theirs,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => return Err(Error::NotRunning),
            Err(error) => {
                return Err(
                    SysError::new("look at", format!("the namespaces of process {pid}"), error).into()
                );
            }
        };
        if identity("self").is_ok_and(|ours| ours != theirs) {
            flags |= flag;
        }
    }
    Ok(flags)
}
