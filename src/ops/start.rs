//! `start`, and the second half of `run`: a container's tree is mounted, its program started, its end written down.

mod foreground;
mod watch;

pub(super) use foreground::exit_code;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::container::attend::keys::DetachKeys;
use super::container::log::LogWriter;
use super::container::network::{self, Connected, Wiring};
use super::container::plan::{self, Account, Facts};
use super::container::{ContainerSpec, Error, UserNamespace, cgroup, volumes};
use super::create::{Created, spec_of};
use super::{mount, when};
use crate::context::Context;
use crate::image::Silent;
use crate::runtime::{self, ExitStatus, Plan, Process, Stdio};
use crate::storage::{
    Backing, ContainerDir, ContainerState, Mounted, RunLock, Stack, Status, StopMark, Store,
};
use crate::userns::Rung;

/// How a start came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The program ran in the foreground and ended with this code.
    Ended(u8),
    /// It runs in the background.
    Detached,
    /// It ran in the foreground, until the user left it with the keys.
    Left,
    /// It ran before, and was to be attached to: [`attach`](super::attach::attach).
    RanBefore,
}

/// How a program in the foreground is attended.
#[derive(Debug, Clone)]
pub struct Foreground {
    /// Our standard input is the program's, where the program has one.
    pub stdin: bool,
    /// Pass our signals on.
    pub sig_proxy: bool,
    /// The keys that leave it.
    pub keys: DetachKeys,
}

/// A container that only waits for its streams.
struct Ready {
    dir: ContainerDir,
    spec: ContainerSpec,
    lock: RunLock,
    mounted: Mounted,
    plan: Plan,
    wiring: Wiring,
    /// What keeps its network up while its program runs.
    network: Connected,
}

/// Start a container that was just created.
///
/// # Errors
/// See [`Error`]; a container with auto-remove is gone then.
pub fn first(cx: &Context, store: Store, created: Created, foreground: Foreground) -> Result<Outcome, Error> {
    let Created { dir, spec, lock, image } = created;
    let stack = require_namespace(cx).and_then(|()| Ok(store.stack(&image, &Silent)?));
    let prepared = stack.and_then(|stack| {
        prepare(cx, &store, &Opened { dir: &dir, spec: &spec, lock: &lock, new: true }, &stack)
    });
    let (mounted, plan, wiring) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(give_up(&dir, &spec, lock, error)),
    };
    let ready = Ready { dir, spec, lock, mounted, plan, wiring, network: Connected::default() };
    if ready.spec.detached {
        drop(store);
        watch::background(cx, ready)
    } else {
        foreground::run(cx, store, ready, foreground)
    }
}

/// Start a container again, by the name that the user typed; attended with `foreground`.
///
/// # Errors
/// See [`Error`].
pub fn again(
    cx: &Context,
    mut store: Store,
    text: &str,
    foreground: Option<Foreground>,
) -> Result<Outcome, Error> {
    let dir = store.find_container(text)?;
    cgroup::sweep(&store);
    let status = dir.state()?.status;
    if status == Status::Paused {
        return Err(Error::Paused(dir.record.name.clone()));
    }
    let new = status == Status::Created;
    let Some(lock) = lock_unless_running(&dir)? else {
        return Ok(if foreground.is_some() { Outcome::RanBefore } else { Outcome::Detached });
    };
    mount::refuse_mounted(&dir)?;
    // It may have ended while it was paused.
    let _ = super::pause::release(&dir);
    lock.clear_marks()?;
    let spec = spec_of(&dir)?;
    store.read_stores_of(&dir.record);
    let stack = require_namespace(cx).and_then(|()| Ok(store.stack_of(&dir.record.layers, &Silent)?));
    let opened = Opened { dir: &dir, spec: &spec, lock: &lock, new };
    let (mounted, plan, wiring) = match stack.and_then(|stack| prepare(cx, &store, &opened, &stack)) {
        Ok(prepared) => prepared,
        Err(error) => return Err(give_up(&dir, &spec, lock, error)),
    };
    let ready = Ready { dir, spec, lock, mounted, plan, wiring, network: Connected::default() };
    match foreground {
        Some(foreground) => foreground::run(cx, store, ready, foreground),
        None => {
            drop(store);
            watch::background(cx, ready)
        }
    }
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
) -> Result<(Mounted, Plan, Wiring), Error> {
    let Opened { dir, spec, lock, new } = *opened;
    check_namespace(cx, dir, spec)?;
    let wiring = Wiring::find(cx, store, dir, spec)?;
    let giver = network::name_giver(store, spec)?;
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
    tell_passwd(cx, spec, mounted.root.as_fd())?;
    let account = account(mounted.root.as_fd(), &spec.user(), &spec.host.group_add)?;
    check_mapped(cx, &account)?;
    let host = HostFacts::read();
    let missing = |name: &str| Backing::Data { path: dir.volume_data(name), owner: None };
    let volume = |name: &str| volumes.get(name).cloned().unwrap_or_else(|| missing(name));
    let mut facts = host.facts(&dir.record.id, &volume);
    facts.name_giver = giver.as_ref().map(|(spec, id)| (spec, id.as_str()));
    let mut plan = plan::plan(spec, &facts, &account)?;
    // Without whoever watches over it, nobody would write down how the program ends.
    plan.die_with_parent = true;
    cgroup::set_up(store, dir, spec, &mut plan)?;
    Ok((mounted, plan, wiring))
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
        Facts {
            id,
            host_name: &self.name,
            resolv_conf: &self.resolv_conf,
            hosts: &self.hosts,
            name_giver: None,
            volume,
        }
    }
}

/// Who a `user[:group]` is in the tree `root`.
pub(super) fn account(root: BorrowedFd<'_>, user: &str, groups: &[String]) -> Result<Account, Error> {
    let found = runtime::user::resolve(root, user, groups)?;
    Ok(Account { uid: found.uid, gid: found.gid, groups: found.groups, home: found.home })
}

/// One command is in one user namespace: of several containers that it starts, some may need another.
fn check_namespace(cx: &Context, dir: &ContainerDir, spec: &ContainerSpec) -> Result<(), Error> {
    let own = cx.entered.as_ref().map(|entered| entered.own).unwrap_or_default();
    match &spec.host.user_namespace {
        UserNamespace::Usual | UserNamespace::Keep { .. } => {
            if spec.host.user_namespace.kept().unwrap_or_default() == own {
                return Ok(());
            }
        }
        UserNamespace::Container(_) => return Ok(()),
    }
    Err(Error::OtherUserNamespace(dir.record.name.clone()))
}

/// Programs look up who they are: the user that is kept gets a line in the image's passwd.
fn tell_passwd(cx: &Context, spec: &ContainerSpec, root: BorrowedFd<'_>) -> Result<(), Error> {
    let UserNamespace::Keep { uid, gid, passwd: true, .. } = spec.host.user_namespace else { return Ok(()) };
    let home = if spec.config.working_dir.is_empty() { "/" } else { &spec.config.working_dir };
    let name = crate::userns::user_name(cx.uid);
    Ok(runtime::user::tell(root, &name.unwrap_or_else(|| format!("user{uid}")), uid, gid, home)?)
}

fn check_mapped(cx: &Context, account: &Account) -> Result<(), Error> {
    let mapped = cx.entered.as_ref().map_or(u32::MAX, |entered| entered.mapped_ids);
    let kept = cx.entered.as_ref().is_some_and(|entered| entered.maps(account.uid, account.gid));
    if kept || account.uid < mapped && account.gid < mapped {
        Ok(())
    } else {
        Err(Error::UnmappedUser { uid: account.uid, gid: account.gid, mapped })
    }
}

/// Write down why the container could not be started; one with auto-remove goes.
fn give_up(dir: &ContainerDir, spec: &ContainerSpec, lock: RunLock, error: Error) -> Error {
    cgroup::clear(dir);
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

/// A log that cannot be opened is no reason to end the program.
fn open_log(dir: &ContainerDir) -> LogWriter {
    LogWriter::open(&dir.log()).unwrap_or_else(|_| LogWriter::none())
}

/// The container's descriptors that a process needs that goes on with it.
fn descriptors(ready: &Ready) -> Vec<RawFd> {
    let mut all = vec![ready.lock.as_fd().as_raw_fd(), ready.mounted.root.as_raw_fd()];
    all.extend(ready.wiring.descriptors());
    all
}

/// Start the program and write down that it runs. The network is set up beside it.
fn launch(ready: &mut Ready, stdio: Stdio) -> Result<(Process, ContainerState), Error> {
    let before = ready.dir.state().unwrap_or_default();
    let mut network = ready.wiring.connect(&ready.spec, &ready.dir)?;
    ready.plan.network.clone_from(&network.join);
    let process = match runtime::spawn(ready.mounted.root.as_fd(), &ready.plan, stdio) {
        Ok(process) => process,
        Err(error) => return Err(network.reason(error)),
    };
    network.settled();
    let mut state = ContainerState::running(process.pid, when::now());
    state.stubs = before.stubs;
    for stub in &process.stubs {
        if !state.stubs.contains(stub) {
            state.stubs.push(stub.clone());
        }
    }
    state.ports.clone_from(&network.ports);
    let limited = cgroup::of(&ready.dir);
    state.without_effect =
        limited.map(|record| record.without_effect.into_iter().collect()).unwrap_or_default();
    ready.network = network;
    ready.lock.write_state(&state)?;
    ready.dir.tell("start", &[]);
    Ok((process, state))
}

/// The cgroup goes, and tells whether memory ran short in it.
fn ended(dir: &ContainerDir, state: ContainerState) -> ContainerState {
    let oom_killed = cgroup::end(dir);
    if oom_killed {
        dir.tell("oom", &[]);
    }
    ContainerState { oom_killed, ..state }
}

/// Write down how the program ended; with auto-remove, remove the container instead. Its ports are free before anybody
/// hears of its end.
fn finish(ready: Ready, state: ContainerState, status: ExitStatus) {
    let Ready { dir, spec, lock, network, .. } = ready;
    drop(network);
    let state = ended(&dir, state);
    lock.forget_socket();
    dir.tell("die", &[("exitCode", status.code().to_string())]);
    let stays = dir.stop_mark() == Some(StopMark::Restart);
    if spec.host.auto_remove && !stays {
        lock.tell_waiters(status.code());
        discard(&dir, lock);
        return;
    }
    if spec.host.auto_remove {
        dir.keep_this_once(&lock);
    }
    let _ = lock.write_state(&state.exited(status.code(), when::now()));
}
