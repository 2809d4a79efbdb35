//! A process that works on a container's files with the powers of the container's own root: as an ordinary user, the
//! command itself has none over what belongs to the container's users.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

use super::{Error, target::Target};
use crate::context::Context;
use crate::image::{BoxError, Silent};
use crate::ops::{chain_text, create, enter, start, store};
use crate::runtime;
use crate::storage::ContainerDir;
use crate::sys::fork::{self, Forked};
use crate::sys::{SysError, SysResult, fds};

/// How a container's files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing is changed.
    Read,
    /// Files may be changed.
    Write,
}

/// The process.
#[derive(Debug)]
pub struct Agent {
    pid: i32,
    words: File,
}

/// What an agent said when it failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

impl Agent {
    /// Have `work` done on the root of a container, in a process of its own, in which the descriptors `not_its` are
    /// closed: other ends of pipes, whose end it has to see.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start(
        cx: &Context,
        dir: &ContainerDir,
        access: Access,
        not_its: &[RawFd],
        work: impl FnOnce(BorrowedFd<'_>) -> Result<(), BoxError>,
    ) -> Result<Self, Error> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| SysError::new("make", "a pipe", error))?;
        match fork::fork()? {
            Forked::Parent(pid) => Ok(Self { pid, words: read.into() }),
            Forked::Child => {
                let _end = fork::NeverReturn;
                drop(read);
                fds::close_these(not_its);
                let failure = run(cx, dir, access, work).err();
                if let Some(error) = &failure {
                    let _ = File::from(write).write_all(chain_text(error.as_ref()).as_bytes());
                }
                fork::exit_now(i32::from(failure.is_some()))
            }
        }
    }

    /// Wait for its end.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn finish(mut self) -> Result<(), BoxError> {
        let mut words = String::new();
        let _ = self.words.read_to_string(&mut words);
        match fork::wait_pid(self.pid)? {
            0 => Ok(()),
            _ if words.is_empty() => Err(Box::new(Said("the process that does it was killed".into()))),
            _ => Err(Box::new(Said(words))),
        }
    }
}

fn run(
    cx: &Context,
    dir: &ContainerDir,
    access: Access,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    match Target::of(dir) {
        Ok(target) => {
            runtime::become_root_of(target.pid())?;
            work(running_root(target.pid())?.as_fd())
        }
        Err(Error::NotRunning(_)) => on_stopped(cx, dir, access, work),
        Err(error) => Err(error.into()),
    }
}

/// The root of a running container, with all that is mounted there.
fn running_root(pid: i32) -> SysResult<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| SysError::path("open", &path, error))
}

fn on_stopped(
    cx: &Context,
    dir: &ContainerDir,
    access: Access,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<(), BoxError>,
) -> Result<(), BoxError> {
    let mut cx = cx.clone();
    let mode = create::spec_of(dir)?.host.user_namespace;
    enter::Entry::of(&mode).enter(&mut cx)?;
    let mut store = store::write_plainly(&cx)?;
    store.read_stores_of(&dir.record);
    let stack = store.stack_of(&dir.record.layers, &Silent)?;
    // Nobody starts or removes it meanwhile.
    let Some(_lock) = start::lock_unless_running(dir)? else {
        return Err(Box::new(Said("the container was just started: try again".into())));
    };
    let copied = dir.path.join("rootfs");
    let as_root = |root: BorrowedFd<'_>| {
        // What comes in is the container's root's, whoever we are there.
        if mode.kept().is_some() {
            runtime::become_root()?;
        }
        work(root)
    };
    match access {
        Access::Write => as_root(store.mount_writable(&stack, &dir.path, false)?.root.as_fd()),
        Access::Read if copied.is_dir() => as_root(File::open(&copied)?.as_fd()),
        Access::Read => {
            let stack = crate::ops::export::with_changes(stack, &dir.path.join("upper"));
            as_root(store.mount_read_only(&stack)?.root.as_fd())
        }
    }
}
