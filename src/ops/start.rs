//! `start`, and the second half of `run`: a container's tree is mounted, its program started, its end written down.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::container::log::LogWriter;
use super::container::plan::{self, Account, Facts};
use super::container::{ContainerSpec, Error, monitor, streams, volumes};
use super::create::{Created, spec_of};
use super::when;
use crate::context::Context;
use crate::image::Silent;
use crate::runtime::{self, ExitStatus, Plan, Process, Stdio};
use crate::storage::{Backing, ContainerDir, ContainerState, Mounted, RunLock, Stack, Status, Store};
use crate::userns::Rung;

/// How a start came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The program ran in the foreground and ended with this code.
    Ended(u8),
    /// It runs in the background.
    Detached,
    /// It ran before, and was to be attached to: [`attach`](super::attach::attach).
    RanBefore,
}

/// A container that only waits for its streams.
struct Ready {
    dir: ContainerDir,
    spec: ContainerSpec,
    lock: RunLock,
    mounted: Mounted,
    plan: Plan,
}

/// Start a container that was just created.
///
/// # Errors
/// See [`Error`]; a container with auto-remove is gone then.
pub fn first(cx: &Context, store: Store, created: Created, sig_proxy: bool) -> Result<Outcome, Error> {
    let Created { dir, spec, lock, image } = created;
    let stack = require_namespace(cx).and_then(|()| Ok(store.stack(&image, &Silent)?));
    let prepared = stack.and_then(|stack| {
        prepare(cx, &store, &Opened { dir: &dir, spec: &spec, lock: &lock, new: true }, &stack)
    });
    let (mounted, plan) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(give_up(&dir, &spec, lock, error)),
    };
    let detached = spec.detached;
    let interactive = spec.open_stdin;
    let ready = Ready { dir, spec, lock, mounted, plan };
    if detached { background(ready) } else { foreground(cx, store, ready, interactive, sig_proxy) }
}

/// Start a container again, by the name that the user typed.
///
/// # Errors
/// See [`Error`].
pub fn again(
    cx: &Context,
    mut store: Store,
    text: &str,
    attach: bool,
    stdin: bool,
) -> Result<Outcome, Error> {
    let dir = store.find_container(text)?;
    let new = dir.state()?.status == Status::Created;
    let Some(lock) = lock_unless_running(&dir)? else {
        return Ok(if attach { Outcome::RanBefore } else { Outcome::Detached });
    };
    let spec = spec_of(&dir)?;
    store.read_stores_of(&dir.record);
    let stack = require_namespace(cx).and_then(|()| Ok(store.stack_of(&dir.record.layers, &Silent)?));
    let opened = Opened { dir: &dir, spec: &spec, lock: &lock, new };
    let (mounted, plan) = match stack.and_then(|stack| prepare(cx, &store, &opened, &stack)) {
        Ok(prepared) => prepared,
        Err(error) => return Err(give_up(&dir, &spec, lock, error)),
    };
    let stdin = stdin && spec.open_stdin;
    let ready = Ready { dir, spec, lock, mounted, plan };
    if attach { foreground(cx, store, ready, stdin, true) } else { background(ready) }
}

/// The lock; `None` when the program runs. Somebody who only works with the container is waited for.
pub(super) fn lock_unless_running(dir: &ContainerDir) -> Result<Option<RunLock>, Error> {
    loop {
        if let Some(lock) = dir.try_lock()? {
            return Ok(Some(lock));
        }
        if dir.state()?.is_running() {
            return Ok(None);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn require_namespace(cx: &Context) -> Result<(), Error> {
    match &cx.entered {
        Some(entered) if entered.rung != Rung::None => Ok(()),
        entered => {
            let refused = entered.as_ref().and_then(|entered| entered.refused.last());
            Err(Error::NoNamespace(refused.map(|(_, why)| why.clone())))
        }
    }
}

/// A container that nobody else works on.
struct Opened<'a> {
    dir: &'a ContainerDir,
    spec: &'a ContainerSpec,
    lock: &'a RunLock,
    /// It was never started.
    new: bool,
}

fn prepare(
    cx: &Context,
    store: &Store,
    opened: &Opened<'_>,
    stack: &Stack,
) -> Result<(Mounted, Plan), Error> {
    let Opened { dir, spec, lock, new } = *opened;
    if spec.host.auto_remove {
        dir.mark_auto_remove(lock)?;
    }
    let mounted = store.mount_writable(stack, &dir.path, spec.host.auto_remove)?;
    for mount in spec.mounts.iter().filter(|mount| mount.make_source) {
        mount.ensure_source()?;
    }
    // Docker fills volumes for new containers only.
    let image = new.then(|| mounted.root.as_fd());
    let volumes = volumes::prepare(store, spec, image)?;
    let account = account(mounted.root.as_fd(), &spec.config.user, &spec.host.group_add)?;
    check_mapped(cx, &account)?;
    let host = HostFacts::read();
    let missing = |name: &str| Backing::Data { path: dir.volume_data(name), owner: None };
    let volume = |name: &str| volumes.get(name).cloned().unwrap_or_else(|| missing(name));
    let mut plan = plan::plan(spec, &host.facts(&dir.record.id, &volume), &account)?;
    // Without whoever watches over it, nobody would write down how the program ends.
    plan.die_with_parent = true;
    Ok((mounted, plan))
}

/// Files of the host that a container gets its own version of.
pub(super) struct HostFacts {
    name: String,
    resolv_conf: String,
    hosts: String,
}

impl HostFacts {
    /// What cannot be read is empty: a host without resolver is still a host.
    pub(super) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { name, resolv_conf: read("/etc/resolv.conf"), hosts: read("/etc/hosts") }
    }

    pub(super) fn facts<'a>(&'a self, id: &'a str, volume: &'a dyn Fn(&str) -> Backing) -> Facts<'a> {
        Facts { id, host_name: &self.name, resolv_conf: &self.resolv_conf, hosts: &self.hosts, volume }
    }
}

/// Who a `user[:group]` is in the tree `root`.
pub(super) fn account(root: BorrowedFd<'_>, user: &str, groups: &[String]) -> Result<Account, Error> {
    let found = runtime::user::resolve(root, user, groups)?;
    Ok(Account { uid: found.uid, gid: found.gid, groups: found.groups, home: found.home })
}

fn check_mapped(cx: &Context, account: &Account) -> Result<(), Error> {
    let mapped = cx.entered.as_ref().map_or(u32::MAX, |entered| entered.mapped_ids);
    if account.uid < mapped && account.gid < mapped {
        Ok(())
    } else {
        Err(Error::UnmappedUser { uid: account.uid, gid: account.gid, mapped })
    }
}

/// Write down why the container could not be started; one with auto-remove goes.
fn give_up(dir: &ContainerDir, spec: &ContainerSpec, lock: RunLock, error: Error) -> Error {
    if spec.host.auto_remove {
        discard(dir, lock);
        return error;
    }
    let before = dir.state().unwrap_or_default();
    let state = ContainerState {
        status: if before.status == Status::Created { Status::Created } else { Status::Exited },
        exit_code: Some(i32::from(error.exit_code())),
        error: Some(error.to_string()),
        pid: None,
        pid_start: None,
        ..before
    };
    // What matters is the first error.
    let _ = lock.write_state(&state);
    error
}

fn discard(dir: &ContainerDir, lock: RunLock) {
    // What cannot be removed now stays for the collector; the program's own end is what counts.
    let _ = dir.remove(lock);
    let _ = dir.remove_own_volumes();
}

/// Run in the foreground: this process watches over the program, shows its output and keeps its log.
fn foreground(
    cx: &Context,
    store: Store,
    ready: Ready,
    interactive: bool,
    sig_proxy: bool,
) -> Result<Outcome, Error> {
    let keeps_log = !ready.spec.host.no_log && !ready.spec.host.auto_remove;
    let wanted = streams::Wanted { tty: ready.spec.tty, interactive, output_seen: keeps_log };
    let streams = streams::attached(cx, &wanted);
    let started = streams.and_then(|(stdio, streams)| Ok((launch(&ready, stdio)?, streams)));
    let ((process, state), streams) = match started {
        Ok(started) => started,
        Err(error) => return Err(give_up(&ready.dir, &ready.spec, ready.lock, error)),
    };
    // The record keeps the container's layers from here on, and a collector need not wait for the program.
    drop(store);
    let mut log = if keeps_log { open_log(&ready.dir) } else { LogWriter::none() };
    let status = streams.relay(&process, sig_proxy, &mut log)?;
    log.finish();
    finish(ready, state, status);
    Ok(Outcome::Ended(u8::try_from(status.code() & 0xff).unwrap_or(1)))
}

/// Run in the background: a monitor watches over the program.
fn background(ready: Ready) -> Result<Outcome, Error> {
    let name = ready.dir.record.name.clone();
    let keep = [ready.lock.as_fd().as_raw_fd(), ready.mounted.root.as_raw_fd()];
    // The parent's own descriptors go when this returns; the monitor's copies hold the lock.
    monitor::leave_behind(&name, &keep, |report| watch(ready, report))?;
    Ok(Outcome::Detached)
}

/// The monitor's life.
fn watch(ready: Ready, report: monitor::Report) {
    let wanted = streams::Wanted {
        tty: ready.spec.tty,
        interactive: ready.spec.open_stdin,
        output_seen: !ready.spec.host.no_log,
    };
    let started =
        streams::detached(&wanted).and_then(|(stdio, streams)| Ok((launch(&ready, stdio)?, streams)));
    let ((process, state), streams) = match started {
        Ok(started) => started,
        Err(error) => return report.failed(&give_up(&ready.dir, &ready.spec, ready.lock, error)),
    };
    let mut log = if ready.spec.host.no_log { LogWriter::none() } else { open_log(&ready.dir) };
    report.started();
    let status = streams.relay(&process, false, &mut log);
    log.finish();
    finish(ready, state, status.unwrap_or(ExitStatus::Code(255)));
}

/// A log that cannot be opened is no reason to end the program.
fn open_log(dir: &ContainerDir) -> LogWriter {
    LogWriter::open(&dir.log()).unwrap_or_else(|_| LogWriter::none())
}

/// Start the program and write down that it runs.
fn launch(ready: &Ready, stdio: Stdio) -> Result<(Process, ContainerState), Error> {
    let process = runtime::spawn(ready.mounted.root.as_fd(), &ready.plan, stdio)?;
    let before = ready.dir.state().unwrap_or_default();
    let mut state = ContainerState::running(process.pid, when::now());
    state.stubs = before.stubs;
    state.stubs.extend(process.stubs.iter().cloned());
    ready.lock.write_state(&state)?;
    Ok((process, state))
}

/// Write down how the program ended; with auto-remove, remove the container instead.
fn finish(ready: Ready, state: ContainerState, status: ExitStatus) {
    let Ready { dir, spec, lock, .. } = ready;
    if spec.host.auto_remove {
        lock.tell_waiters(status.code());
        discard(&dir, lock);
    } else {
        let _ = lock.write_state(&state.exited(status.code(), when::now()));
    }
}
