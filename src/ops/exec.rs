//! `exec`: a further program in a running container.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

use super::container::log::LogWriter;
use super::container::spec::{ContainerSpec, set_env};
use super::container::target::Target;
use super::container::{Error, monitor, mounts, plan, streams, values};
use super::create::spec_of;
use super::start::{HostFacts, account};
use crate::context::Context;
use crate::runtime::{self, ExecRequest, Plan};
use crate::storage::{Backing, ContainerDir, Store};
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
}

/// Run a program in a running container; its exit code, 0 when it goes on in the background.
///
/// # Errors
/// See [`Error`].
pub fn exec(cx: &Context, store: &Store, request: &Request) -> Result<u8, Error> {
    let dir = store.find_container(&request.container)?;
    let target = Target::of(&dir)?;
    let exec = ExecRequest { plan: program(&dir, &target, request)?, pid: target.pid() };
    let wanted = streams::Wanted { tty: request.tty, interactive: request.interactive, output_seen: false };
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
        return Ok(0);
    }
    let (stdio, streams) = streams::attached(cx, &wanted)?;
    let process = runtime::exec(&exec, stdio)?;
    let status = streams.relay(&process, true, &mut LogWriter::none())?;
    Ok(u8::try_from(status.code() & 0xff).unwrap_or(1))
}

/// The container's description with the request's words in it becomes the program's plan.
fn program(dir: &ContainerDir, target: &Target, request: &Request) -> Result<Plan, Error> {
    let mut spec = spec_of(dir)?;
    overlay(&mut spec, request)?;
    let path = format!("/proc/{}/root", target.pid());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|error| SysError::path("open", &path, error))?;
    let account = account(root.as_fd(), &spec.config.user, &spec.host.group_add)?;
    let host = HostFacts::read();
    let volume = |name: &str| Backing::Data { path: dir.volume_data(name), owner: None };
    plan::exec_plan(&spec, &host.facts(&dir.record.id, &volume), &account)
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
