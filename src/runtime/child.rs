//! The child's side: from a fork to the exec, as one list of steps. It runs in the container's new namespaces and tells
//! its parent over the channel what goes wrong.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};

use super::channel::Teller;
use super::dev::{Pts, Terminal, open_slave};
use super::mounts::{self, Scratch, attach_over_root};
use super::program::Program;
use super::rootfs::{Kind, Rootfs, Step, failure, open_in};
use super::{Error, MountOp, Network, Plan, Stdio, StepFailure, init, privileges};
use crate::sys::mount_attr::{MountAttr, READ_ONLY, mount_setattr};
use crate::sys::{exec, ns, signals, tty};

/// `DEVPTS_SUPER_MAGIC` (`man 2 statfs`).
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// The steps of a new container.
pub(super) fn start(
    root: BorrowedFd<'_>,
    plan: &Plan,
    stdio: &Stdio,
    teller: Teller<'_>,
) -> Result<Infallible, Error> {
    // Before hiding, which gives our files in `/proc` to the host's root.
    set_oom_score(plan)?;
    hide()?;
    if !rustix::process::geteuid().is_root() {
        // Whoever starts us may be another user of the namespace, with root's powers.
        super::process::become_root().step("become", "user 0 of the container")?;
        hide()?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter_cgroup(plan)?;
    if plan.namespaces.cgroup && !plan.cgroup.is_empty() {
        ns::unshare(libc::CLONE_NEWCGROUP)
            .map_err(|error| failure("make", "a cgroup namespace", error.errno().unwrap_or(libc::EIO)))?;
    }
    name_and_network(plan)?;
    let (pts, covered) = build_tree(root, plan, teller)?;
    let terminal = match stdio {
        Stdio::Terminal { rows, columns } => Some(pts.open(*rows, *columns, plan.uid)?),
        Stdio::Descriptors { .. } => None,
    };
    enter_root(root, covered)?;
    enter_cwd(plan)?;
    if plan.read_only_root {
        let root = open_root()?;
        let attr = MountAttr { set: READ_ONLY, ..MountAttr::default() };
        mount_setattr(root.as_fd(), false, attr).step("make", "the root read-only")?;
    }
    finish(plan, stdio, terminal, teller)
}

/// The steps of a further program: we are in the container's namespaces already.
pub(super) fn join(plan: &Plan, stdio: &Stdio, teller: Teller<'_>) -> Result<Infallible, Error> {
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let terminal = match stdio {
        Stdio::Terminal { rows, columns } => Some(container_terminal(*rows, *columns, plan.uid)?),
        Stdio::Descriptors { .. } => None,
    };
    enter_cwd(plan)?;
    finish(plan, stdio, terminal, teller)
}

/// From the first moment in the container on, nothing in it may trace us or open our memory, files or binary through
/// `/proc` (CVE-2016-9962, CVE-2019-5736). The exec ends it.
pub(super) fn hide() -> Result<(), StepFailure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("hide", "the set-up process")
}

/// Go to the container's cgroups.
pub(super) fn enter_cgroup(plan: &Plan) -> Result<(), StepFailure> {
    let write = |path: &std::path::Path, text: &str| {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(file, text.as_bytes()).map(drop)
    };
    for door in &plan.cgroup {
        write(door, "0").step("join", format!("the cgroup `{}`", door.display()))?;
    }
    Ok(())
}

/// Set what decides who dies first for want of memory.
pub(super) fn set_oom_score(plan: &Plan) -> Result<(), StepFailure> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|error| {
        failure("set", "the container's oom_score_adj", error.raw_os_error().unwrap_or(libc::EIO))
    })
}

fn name_and_network(plan: &Plan) -> Result<(), StepFailure> {
    if plan.namespaces.uts && !plan.hostname.is_empty() {
        rustix::system::sethostname(plan.hostname.as_bytes())
            .step("set", format!("the host name `{}`", plan.hostname))?;
    }
    if plan.namespaces.uts && !plan.domainname.is_empty() {
        rustix::system::setdomainname(plan.domainname.as_bytes())
            .step("set", format!("the domain name `{}`", plan.domainname))?;
    }
    match (&plan.network, plan.namespaces.network) {
        (Some(join), _) => {
            ns::join(join.namespace.as_fd(), libc::CLONE_NEWNET).step("join", "the container's network")
        }
        (None, Network::None) => ns::loopback_up().step("set up", "the loopback interface"),
        (None, Network::Host) => Ok(()),
    }
}

/// Wait until the network stands. Until here its set-up and ours went on side by side.
fn network_ready(plan: &Plan) -> Result<(), StepFailure> {
    let Some(gate) = plan.network.as_ref().and_then(|join| join.gate.as_ref()) else { return Ok(()) };
    loop {
        match rustix::io::read(gate, &mut [0; 1]) {
            Ok(1) => return ns::loopback_up().step("set up", "the loopback interface"),
            Ok(_) => return Err(failure("set up", "the network", libc::ENETDOWN)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).step("wait for", "the network"),
        }
    }
}

fn scratch_needed(plan: &Plan) -> bool {
    !plan.masked_paths.is_empty() || plan.mounts.iter().any(|op| matches!(op, MountOp::File { .. }))
}

/// All mounts, while the host's paths can still be reached. Also tells whether the old root is covered by a file system of
/// ours.
fn build_tree(root: BorrowedFd<'_>, plan: &Plan, teller: Teller<'_>) -> Result<(Pts, bool), StepFailure> {
    use rustix::mount::{MountPropagationFlags as Flags, mount_change};
    // Mounts of the host may still arrive below slave binds; ours never travel back.
    mount_change("/", Flags::DOWNSTREAM | Flags::REC).step("make", "the mounts our own")?;
    // Before anything covers it.
    let mut host = mounts::HostRoots::copy(plan)?;
    let mut scratch = if scratch_needed(plan) { Some(Scratch::new()?) } else { None };
    attach_over_root(root).step("attach", "the root")?;
    if !plan.devices {
        mounts::without_devices(root)?;
    }
    let tree = Rootfs::new(root, Some(teller));
    let pts = mounts::mount_all(plan, &tree, &mut scratch, &mut host)?;
    mounts::mask(&plan.masked_paths, &tree, scratch.as_mut())?;
    mounts::read_only(&plan.read_only_paths, &tree)?;
    Ok((pts, scratch.is_some_and(|scratch| scratch.attached())))
}

/// Make the mounted tree `/` and let go of everything else (`man 2 pivot_root`, the "." "." form: the old root then lies
/// over the new one, and is taken away there).
fn enter_root(root: BorrowedFd<'_>, covered: bool) -> Result<(), StepFailure> {
    use rustix::mount::{UnmountFlags, unmount};
    rustix::process::fchdir(root).step("go to", "the root")?;
    rustix::process::pivot_root(".", ".").step("pivot to", "the root")?;
    // What lies over the old root goes first.
    for _ in 0..=usize::from(covered) {
        unmount(".", UnmountFlags::DETACH).step("leave", "the host's root")?;
    }
    rustix::process::chdir("/").step("go to", "the root")
}

/// What new containers and further programs have in common. The order matters: see [`privileges::apply`].
fn finish(
    plan: &Plan,
    stdio: &Stdio,
    terminal: Option<Terminal>,
    teller: Teller<'_>,
) -> Result<Infallible, Error> {
    exec::new_session_keyring();
    network_ready(plan)?;
    privileges::set_limits(&plan.rlimits)?;
    let program = Program::find(plan)?;
    if let Some(terminal) = &terminal {
        teller.terminal(terminal.master.as_fd());
    }
    privileges::apply(plan)?;
    hide()?;
    if plan.die_with_parent {
        die_with_parent(teller)?;
    }
    let _ = rustix::process::setsid();
    if plan.init {
        init::split()?;
        let _ = rustix::process::setsid();
    }
    place_stdio(stdio, terminal)?;
    exec::close_on_exec_from(3).step("close", "what was open")?;
    signals::reset_all();
    if let Some(bits) = plan.umask {
        rustix::process::umask(Mode::from_raw_mode(bits));
    }
    program.run(plan, teller)
}

/// The kernel forgets this on a change of credentials, so it comes after them. The parent may have gone before.
fn die_with_parent(teller: Teller<'_>) -> Result<(), StepFailure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .step("bind", "our life to the parent's")?;
    if teller.parent_lives() { Ok(()) } else { Err(failure("find", "the parent", libc::ESRCH)) }
}

/// The working directory, made and owned by the user when missing. It is found inside the root and without magic
/// links, so `/proc/self/fd/7` leads nowhere (CVE-2024-21626).
fn enter_cwd(plan: &Plan) -> Result<(), StepFailure> {
    let cwd = if plan.cwd.is_empty() { "/" } else { &plan.cwd };
    let subject = format!("the working directory `{cwd}`");
    if !cwd.starts_with('/') {
        return Err(failure("use", subject, libc::EINVAL));
    }
    let root = open_root()?;
    let tree = Rootfs::new(root.as_fd(), None);
    tree.ensure(cwd, Kind::Directory, Some((plan.uid, plan.gid))).step("make", &subject)?;
    let directory = open_in(root.as_fd(), cwd, OFlags::PATH | OFlags::DIRECTORY).step("open", &subject)?;
    rustix::process::fchdir(&directory).step("enter", &subject)?;
    // A directory outside the root shows as "(unreachable)".
    let shown = rustix::process::getcwd(Vec::new()).step("enter", &subject)?;
    if shown.as_bytes().starts_with(b"/") { Ok(()) } else { Err(failure("enter", subject, libc::EXDEV)) }
}

fn open_root() -> Result<OwnedFd, StepFailure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).step("open", "the root")
}

/// Streams on 0, 1, 2. They are lifted above these numbers first, as one may lie where another belongs.
fn place_stdio(stdio: &Stdio, terminal: Option<Terminal>) -> Result<(), StepFailure> {
    let lift = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).step("duplicate", "a stream");
    let streams = match (stdio, &terminal) {
        (_, Some(terminal)) => {
            tty::make_controlling(terminal.slave.as_fd()).step("take", "the terminal")?;
            let slave = terminal.slave.as_fd();
            [lift(slave)?, lift(slave)?, lift(slave)?]
        }
        (Stdio::Descriptors { stdin, stdout, stderr }, None) => {
            [lift(stdin.as_fd())?, lift(stdout.as_fd())?, lift(stderr.as_fd())?]
        }
        (Stdio::Terminal { .. }, None) => return Err(failure("open", "a terminal", libc::ENODEV)),
    };
    for (number, stream) in (0..).zip(&streams) {
        exec::place_descriptor(stream.as_fd(), number).step("place", "a stream")?;
    }
    // The terminal's own descriptors may have had a low number themselves, which is now a stream: closing them would
    // close that. All go at exec.
    std::mem::forget(terminal);
    Ok(())
}

/// A terminal of a running container: the container may have put anything at that path, so look at what it is.
fn container_terminal(rows: u16, columns: u16, owner: u32) -> Result<Terminal, StepFailure> {
    let subject = "the container's /dev/pts/ptmx";
    let root = open_root()?;
    let place = open_in(root.as_fd(), "/dev/pts/ptmx", OFlags::PATH).step("open", subject)?;
    let fs = rustix::fs::fstatfs(&place).step("look at", subject)?;
    let stat = rustix::fs::fstat(&place).step("look at", subject)?;
    let ptmx = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (5, 2);
    if fs.f_type != DEVPTS_MAGIC || !ptmx {
        return Err(failure("use", subject, libc::ENODEV));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let master = open_in(root.as_fd(), "/dev/pts/ptmx", flags).step("open", subject)?;
    if rustix::fs::fstatfs(&master).step("look at", subject)?.f_type != DEVPTS_MAGIC {
        return Err(failure("use", subject, libc::ENODEV));
    }
    rustix::fs::fcntl_setfl(&master, OFlags::RDWR).step("open", subject)?;
    open_slave(master, rows, columns, owner)
}
