//! `exec`: a further program in a running container.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};

use super::container::attend::client::{Left, Session};
use super::container::attend::hub::{Hub, Owner};
use super::container::attend::{self, keys::DetachKeys, serve::Serving};
use super::container::log::LogWriter;
use super::container::spec::{ContainerSpec, set_env};
use super::container::target::Target;
use super::container::{Error, UserNamespace, cgroup, monitor, mounts, plan, streams, values};
use super::create::spec_of;
use super::start::{HostFacts, Outcome, account, exit_code};
use crate::context::Context;
use crate::runtime::relay::Pipes;
use crate::runtime::{self, ExecRequest, ExitStatus, Plan};
use crate::storage::{Backing, ContainerDir, Status, Store};
use crate::sys::SysError;

/// What to run, and where.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The container as typed.
    pub container: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables on top of the container's; a bare name takes one away.
    pub env: Vec<String>,
    /// Who runs it; else the container's user.
    pub user: Option<String>,
    /// Where it starts; else the container's directory.
    pub working_dir: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Give it standard input.
    pub interactive: bool,
    /// With every capability.
    pub privileged: bool,
    /// In the background.
    pub detach: bool,
    /// The keys that leave it.
    pub keys: DetachKeys,
}

/// Run a program in a running container: its exit code, if it is not left to go on.
///
/// # Errors
/// See [`Error`].
pub fn exec(cx: &Context, store: &Store, request: &Request) -> Result<Outcome, Error> {
    let dir = store.find_container(&request.container)?;
    if dir.state()?.status == Status::Paused {
        return Err(Error::Paused(dir.record.name.clone()));
    }
    let target = Target::of(&dir)?;
    let exec = ExecRequest { plan: plan_of(&dir, target.pid(), request)?, pid: target.pid() };
    let wanted = streams::Wanted {
        tty: request.tty,
        interactive: request.interactive,
        output_seen: false,
        shown: [true; 2],
    };
    dir.tell(&format!("exec_start: {}", request.command.join(" ")), &[]);
    if request.detach {
        monitor::leave_behind(&dir.record.name, &[], |report| {
            let started = streams::detached(&wanted)
                .and_then(|(stdio, streams)| Ok((runtime::exec(&exec, stdio)?, streams)));
            match started {
                Ok((process, streams)) => {
                    report.started();
                    let _ = streams.relay(&process, false, &mut LogWriter::none());
                }
                Err(error) => report.failed(&error),
            }
        })?;
        return Ok(Outcome::Detached);
    }
    if request.tty {
        return on_terminal(cx, &dir.record.name, &exec, request);
    }
    let (stdio, streams) = streams::attached(cx, &wanted)?;
    let process = runtime::exec(&exec, stdio)?;
    let status = streams.relay(&process, true, &mut LogWriter::none())?;
    Ok(Outcome::Ended(exit_code(status.code())))
}

/// With a terminal, which a process of its own holds: the user may leave it, and the program goes on.
fn on_terminal(cx: &Context, name: &str, exec: &ExecRequest, request: &Request) -> Result<Outcome, Error> {
    let (ours, theirs) = attend::pair()?;
    let size = streams::terminal_size(cx);
    let keep = [theirs.as_raw_fd()];
    monitor::leave_behind(name, &keep, |report| {
        let started =
            streams::attended(true, true, size).and_then(|(stdio, _)| Ok(runtime::exec(exec, stdio)?));
        let mut process = match started {
            Ok(process) => process,
            Err(error) => return report.failed(&error),
        };
        report.started();
        let mut hub = Hub::new(None, Some(Owner { fd: theirs, shows: [true; 2] }));
        let mut log = LogWriter::none();
        let serving =
            Serving { hub: &mut hub, log: &mut log, stdin_once: false, ends_with_owner: true, chore: None };
        let status = serving.run(&mut process, Pipes::default()).unwrap_or(ExitStatus::Code(255));
        hub.farewell(status.code());
    })?;
    let session = Session {
        socket: ours,
        tty: true,
        input: request.interactive,
        own_terminal: cx.terminals[0],
        proxy: true,
        keys: request.keys.clone(),
        stays: true,
    };
    match session.run()? {
        Left::Ended(code) => Ok(Outcome::Ended(exit_code(code))),
        Left::Signal(signal) => Ok(Outcome::Ended(exit_code(128 + signal))),
        Left::Detached | Left::OutputGone => Ok(Outcome::Left),
        Left::Dismissed(Some(why)) => Err(Error::Dismissed { name: name.into(), why }),
        Left::Dismissed(None) => Err(Error::MonitorLost(name.into())),
    }
}

/// The container's description with the request's words in it becomes the plan of a further program beside the main one,
/// which is `pid`.
///
/// # Errors
/// See [`Error`].
pub fn plan_of(dir: &ContainerDir, pid: i32, request: &Request) -> Result<Plan, Error> {
    let mut spec = spec_of(dir)?;
    overlay(&mut spec, request)?;
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|error| SysError::path("open", &path, error))?;
    let account = account(root.as_fd(), &spec.user(), &spec.host.group_add)?;
    let host = HostFacts::read();
    let volume = |name: &str| Backing::Data { path: dir.volume_data(name), owner: None };
    let mut plan = plan::exec_plan(&spec, &host.facts(&dir.record.id, &volume), &account)?;
    plan.cgroup = cgroup::doors(dir);
    plan.oom_score_adj = cgroup::oom_score(&spec.host);
    Ok(plan)
}

fn overlay(spec: &mut ContainerSpec, request: &Request) -> Result<(), Error> {
    spec.config.entrypoint = None;
    spec.config.cmd = Some(request.command.clone());
    for pair in &request.env {
        if pair.contains('=') {
            set_env(&mut spec.config.env, std::slice::from_ref(pair));
        } else {
            let own = |have: &String| have.split_once('=').is_some_and(|(name, _)| name == pair);
            spec.config.env.retain(|have| !own(have));
        }
    }
    if let Some(user) = &request.user {
        spec.config.user.clone_from(user);
        if let UserNamespace::Keep { runs, .. } = &mut spec.host.user_namespace {
            *runs = false;
        }
    }
    if let Some(dir) = &request.working_dir {
        let rooted = mounts::clean_target(dir).or_else(|| dir.starts_with('/').then(|| "/".to_owned()));
        spec.config.working_dir = rooted
            .ok_or_else(|| values::bad("--workdir", dir, "it must be an absolute path of the container"))?;
    }
    spec.host.privileged |= request.privileged;
    spec.tty = request.tty;
    Ok(())
}
