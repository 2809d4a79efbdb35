//! A network namespace of a container's own, connected to the host's network by a helper program without privileges:
//! pasta, or slirp4netns.
//!
//! A small process of ours, the *keeper*, stands between us and the helper. It is the first process of a pid namespace
//! in which the helper runs, and bound to the life of whoever watches over the container: however that ends, the kernel
//! ends the keeper, and with it the helper, whose ports are free again. The keeper also has a mount namespace, in which
//! lie the names that helpers want for what they work on, so that no file is left anywhere either.

mod address;
mod keeper;
mod pasta;
mod slirp;
#[cfg(test)]
mod tests;

pub use address::{TUN, has_default_route, host_address, mac_address, reserve, tun};

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::oci::Published;
use crate::sys::fork::{
    Forked, NeverReturn, clone_process, exit_now, fork, kill_child, single_threaded, wait_pid,
};
use crate::sys::{SysError, SysResult, ns};

/// The container's address when none is asked for: that of slirp4netns, so that both helpers give the same.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// Where the container sends what is not for its own network.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// A name server that the helper answers for, with what the host's resolver says.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Bits of the container's network.
pub const PREFIX: u8 = 24;

/// A helper program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// `pasta` of passt.
    Pasta,
    /// `slirp4netns`
    Slirp,
}

impl Helper {
    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp => "slirp4netns",
        }
    }

    /// Where it is, by the directories of `PATH`.
    #[must_use]
    pub fn find(self, path: &[PathBuf]) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        path.iter().map(|dir| dir.join(self.name())).find(|candidate| {
            candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    }
}

/// What is asked of a helper.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Which.
    pub helper: Helper,
    /// Its program.
    pub program: &'a Path,
    /// Options as the user gave them, after ours.
    pub options: &'a [String],
    /// The ports that lead into the container.
    pub ports: &'a [Published],
    /// The container's address; else [`ADDRESS`].
    pub address: Option<Ipv4Addr>,
    /// The container's IPv6 address; else the host's.
    pub address6: Option<Ipv6Addr>,
    /// The hardware address; else a random one.
    pub mac: Option<&'a str>,
    /// A directory of the container's that no helper needs: the keeper may cover it, unseen by others.
    pub scratch: &'a Path,
    /// The invoking user outside every namespace of ours.
    pub uid: u32,
}

/// What can go wrong with a network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The helper said no.
    #[error("{} could not set up the network: {said}", .helper.name())]
    Helper {
        /// Which.
        helper: Helper,
        /// Its words.
        said: String,
    },
    /// A port that somebody else has.
    #[error("cannot publish {address}/{protocol}")]
    Port {
        /// Address and port.
        address: String,
        /// The protocol.
        protocol: crate::oci::Protocol,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A helper that cannot do what is asked.
    #[error("{} cannot {what}", .helper.name())]
    Cannot {
        /// Which.
        helper: Helper,
        /// What.
        what: String,
    },
    /// A system call failed on our side.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// A network namespace that a new container joins.
#[derive(Debug)]
pub struct Join {
    /// The namespace.
    pub(super) namespace: OwnedFd,
    /// A byte comes when it is ready, an end when it never will be; none: it is.
    pub(super) gate: Option<OwnedFd>,
}

impl Join {
    /// The network of a process, for another container.
    ///
    /// # Errors
    /// When there is no such process, or it belongs to another user namespace.
    pub fn of_process(pid: i32) -> SysResult<Arc<Self>> {
        Ok(Arc::new(Self { namespace: open_namespace(&format!("/proc/{pid}/ns/net"))?, gate: None }))
    }

    /// The number of the descriptor that a process needs that goes on with this.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.namespace.as_raw_fd()
    }
}

fn open_namespace(path: &str) -> SysResult<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| SysError::path("open", path, error))
}

fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| SysError::new("make", "a pipe", error))
}

/// A network namespace of our user namespace. Only a process of its own can make one and leave us where we are: nobody
/// without rights over the host's could come back.
fn new_namespace() -> SysResult<OwnedFd> {
    let ((told, tell), (wait, go)) = (pipe()?, pipe()?);
    match fork()? {
        Forked::Parent(maker) => {
            drop((tell, wait));
            let mut said = Vec::new();
            let heard = std::fs::File::from(told).take(4).read_to_end(&mut said);
            let namespace = match (heard, <[u8; 4]>::try_from(said.as_slice())) {
                (Ok(_), Ok([0, 0, 0, 0])) => open_namespace(&format!("/proc/{maker}/ns/net")),
                (Ok(_), Ok(errno)) => {
                    let error = std::io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                    Err(SysError::new("make", "a network namespace", error))
                }
                _ => {
                    let error = std::io::Error::from_raw_os_error(libc::EIO);
                    Err(SysError::new("make", "a network namespace", error))
                }
            };
            drop(go);
            wait_pid(maker)?;
            namespace
        }
        Forked::Child => {
            let _guard = NeverReturn;
            drop((told, go));
            let made = ns::unshare(libc::CLONE_NEWNET);
            let errno = made.err().map_or(0, |error| error.errno().unwrap_or(libc::EIO));
            let _ = rustix::io::write(&tell, &errno.to_ne_bytes());
            let _ = rustix::io::read(&wait, &mut [0; 1]);
            exit_now(0)
        }
    }
}

/// A network that is being set up, or stands. It ends when this is dropped.
#[derive(Debug)]
pub struct Attachment {
    keeper: i32,
    helper: Helper,
    join: Arc<Join>,
    report: Option<OwnedFd>,
}

impl Attachment {
    /// Make a namespace and start the helper for it; does not wait for it. The keeper lives at most as long as the
    /// calling thread.
    ///
    /// # Errors
    /// [`Error::Cannot`], or what the system calls answer.
    pub fn start(wanted: &Wanted<'_>) -> Result<Self, Error> {
        let program = match wanted.helper {
            Helper::Pasta => pasta::arguments(wanted)?,
            Helper::Slirp => slirp::arguments(wanted)?,
        };
        let namespace = new_namespace()?;
        let for_helper = namespace
            .try_clone()
            .map_err(|error| SysError::new("duplicate", "the network namespace", error))?;
        let ((gate, ready), (report, tell)) = (pipe()?, pipe()?);
        crate::sys::title::remember();
        let ends = keeper::Ends { ready, tell, namespace: for_helper };
        let keeper = clone_keeper(|| keeper::live(wanted, &program, ends))?;
        let join = Arc::new(Join { namespace, gate: Some(gate) });
        Ok(Self { keeper, helper: wanted.helper, join, report: Some(report) })
    }

    /// For the container's plan.
    #[must_use]
    pub fn join(&self) -> Arc<Join> {
        self.join.clone()
    }

    /// Why it could not be set up, after the container failed to start: nothing when that was not the reason.
    pub fn failure(&mut self) -> Option<Error> {
        let mut said = Vec::new();
        let report = std::fs::File::from(self.report.take()?);
        // The keeper tells, or closes its end, before the container hears of a failure: this waits for nobody.
        if self.still_at_work() {
            return None;
        }
        report.take(64 << 10).read_to_end(&mut said).ok()?;
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        (!said.is_empty()).then_some(Error::Helper { helper: self.helper, said })
    }

    /// Whether the gate is still closed, without an end.
    fn still_at_work(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(gate) = &self.join.gate else { return false };
        let mut fds = [PollFd::from_borrowed_fd(gate.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(0))
    }
}

impl Drop for Attachment {
    /// When this returns, the helper is gone and its ports are free.
    fn drop(&mut self) {
        end(self.keeper);
    }
}

fn end(keeper: i32) {
    kill_child(keeper, libc::SIGKILL);
    let _ = wait_pid(keeper);
}

/// The keeper's process, in new pid and mount namespaces, as our child.
fn clone_keeper(life: impl FnOnce() -> std::convert::Infallible) -> Result<i32, SysError> {
    const FLAGS: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let run = |life: Box<dyn FnOnce() -> std::convert::Infallible + '_>| -> ! { match life() {} };
    if single_threaded() {
        return match clone_process(FLAGS)?.0 {
            Forked::Parent(pid) => Ok(pid),
            Forked::Child => run(Box::new(life)),
        };
    }
    let (read, write) = pipe()?;
    match fork()? {
        Forked::Parent(between) => {
            drop(write);
            let mut text = String::new();
            let _ = std::fs::File::from(read).read_to_string(&mut text);
            wait_pid(between)?;
            text.parse().map_err(|_| {
                SysError::new("make", "namespaces", std::io::Error::from_raw_os_error(libc::EPERM))
            })
        }
        Forked::Child => {
            let _guard = NeverReturn;
            match ns::unshare(FLAGS).and_then(|()| clone_process(libc::CLONE_PARENT)) {
                Ok((Forked::Parent(pid), _)) => {
                    let _ = rustix::io::write(&write, pid.to_string().as_bytes());
                }
                Ok((Forked::Child, _)) => {
                    drop(write);
                    run(Box::new(life))
                }
                Err(_) => {}
            }
            exit_now(0)
        }
    }
}
