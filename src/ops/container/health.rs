//! Health checks: a program of the container's own says now and then whether it is well. The monitor runs it.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::ContainerSpec;
use super::attend::serve::Chore;
use super::streams;
use crate::oci::Healthcheck;
use crate::ops::{exec, when};
use crate::runtime::{self, Process};
use crate::storage::ContainerDir;
use crate::sys::atomic::{Durability, replace_file};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// How many outputs are kept, and how much of each.
const KEPT: usize = 5;
const OUTPUT: usize = 4096;

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last checks, oldest first.
    pub log: VecDeque<Check>,
}

/// One check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// The program's code; -1 when it could not be run or took too long.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// What checks a container, from its config; nothing where it has no check.
#[must_use]
pub fn command(spec: &ContainerSpec) -> Option<Vec<String>> {
    let check = spec.config.healthcheck.as_ref()?;
    match check.test.split_first() {
        Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Some(rest.to_vec()),
        Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
            let usual = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut words = spec.config.shell.clone().filter(|shell| !shell.is_empty()).unwrap_or_else(usual);
            words.extend_from_slice(rest);
            Some(words)
        }
        _ => None,
    }
}

/// How a container that has checks is; nothing where it has none, or was never started.
#[must_use]
pub fn read(dir: &ContainerDir) -> Option<Health> {
    serde_json::from_slice(&fs::read(dir.health_file()).ok()?).ok()
}

fn write(dir: &ContainerDir, health: &Health) {
    if let Ok(bytes) = serde_json::to_vec(health) {
        let _ = replace_file(&dir.health_file(), &dir.path.join(".health.json"), &bytes, Durability::Fast);
    }
}

fn time(nanoseconds: i64, usual: Duration) -> Duration {
    u64::try_from(nanoseconds).ok().filter(|time| *time > 0).map_or(usual, Duration::from_nanos)
}

/// The checks of one run of a container's program.
#[derive(Debug)]
pub struct Checks<'a> {
    dir: &'a ContainerDir,
    pid: i32,
    command: Vec<String>,
    settings: Healthcheck,
    started: Instant,
    next: Instant,
    running: Option<Running>,
    health: Health,
}

/// A check that runs.
#[derive(Debug)]
struct Running {
    process: Process,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: String,
    deadline: Instant,
}

impl<'a> Checks<'a> {
    /// The checks of the program `pid`, which has just started; `None` where there are none.
    #[must_use]
    pub fn new(dir: &'a ContainerDir, spec: &ContainerSpec, pid: i32) -> Option<Self> {
        let command = command(spec)?;
        let settings = spec.config.healthcheck.clone().unwrap_or_default();
        let health = Health { status: "starting".into(), ..Health::default() };
        write(dir, &health);
        let now = Instant::now();
        let mut checks = Self { dir, pid, command, settings, started: now, next: now, running: None, health };
        checks.next = now + checks.interval();
        Some(checks)
    }

    fn in_grace(&self) -> bool {
        self.health.status == "starting"
            && self.started.elapsed() < time(self.settings.start_period, Duration::ZERO)
    }

    fn interval(&self) -> Duration {
        if self.in_grace() {
            time(self.settings.start_interval, START_INTERVAL)
        } else {
            time(self.settings.interval, INTERVAL)
        }
    }

    fn timeout(&self) -> Duration {
        time(self.settings.timeout, INTERVAL)
    }

    fn begin(&mut self) {
        let start = when::now();
        match self.spawn() {
            Ok((process, output)) => {
                let deadline = Instant::now() + self.timeout();
                self.running = Some(Running { process, output, text: Vec::new(), start, deadline });
            }
            Err(error) => {
                let output = crate::ops::chain_text(&error);
                self.record(Check { start, end: when::now(), exit_code: -1, output });
            }
        }
    }

    fn spawn(&self) -> Result<(Process, Option<OwnedFd>), super::Error> {
        let request = exec::Request { command: self.command.clone(), ..exec::Request::default() };
        let plan = exec::plan_of(self.dir, self.pid, &request)?;
        let (stdio, output) = streams::one_output()?;
        let process = runtime::exec(&runtime::ExecRequest { plan, pid: self.pid }, stdio)?;
        Ok((process, Some(output)))
    }

    /// Take what a running check wrote; its end, if it ended or has to.
    fn look(&mut self) -> Option<Check> {
        let running = self.running.as_mut()?;
        running.drain();
        let ended = is_ready(running.process.pidfd.as_fd());
        let late = Instant::now() >= running.deadline;
        if !ended && !late {
            return None;
        }
        if !ended {
            let _ = running.process.kill(libc::SIGKILL);
        }
        let status = running.process.wait();
        running.drain();
        let mut output = String::from_utf8_lossy(&running.text).into_owned();
        let mut exit_code = status.map_or(-1, |status| status.code());
        if !ended {
            exit_code = -1;
            let limit = self.timeout();
            output = format!("Health check exceeded timeout ({}s): {output}", limit.as_secs_f64());
            output = output.trim_end_matches(": ").to_owned();
        }
        let start = self.running.take().map(|running| running.start).unwrap_or_default();
        Some(Check { start, end: when::now(), exit_code, output })
    }

    fn record(&mut self, check: Check) {
        let before = self.health.status.clone();
        if check.exit_code == 0 {
            self.health.failing_streak = 0;
            self.health.status = "healthy".into();
        } else if !self.in_grace() {
            self.health.failing_streak += 1;
            let retries = u32::try_from(self.settings.retries).ok().filter(|retries| *retries > 0);
            if self.health.failing_streak >= retries.unwrap_or(RETRIES) {
                self.health.status = "unhealthy".into();
            }
        }
        self.health.log.push_back(check);
        while self.health.log.len() > KEPT {
            self.health.log.pop_front();
        }
        write(self.dir, &self.health);
        if before != self.health.status {
            self.dir.tell(&format!("health_status: {}", self.health.status), &[]);
        }
        self.next = Instant::now() + self.interval();
    }
}

impl Chore for Checks<'_> {
    fn pause(&self) -> Option<Duration> {
        let until = self.running.as_ref().map_or(self.next, |running| running.deadline);
        Some(until.saturating_duration_since(Instant::now()))
    }

    fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        if let Some(running) = &self.running {
            fds.push(running.process.pidfd.as_fd());
            fds.extend(running.output.as_ref().map(AsFd::as_fd));
        }
    }

    fn act(&mut self) {
        if self.running.is_some() {
            if let Some(check) = self.look() {
                self.record(check);
            }
        } else if Instant::now() >= self.next {
            if self.dir.paused_by().is_some() {
                self.next = Instant::now() + self.interval();
            } else {
                self.begin();
            }
        }
    }
}

impl Drop for Checks<'_> {
    /// The program has ended: what still checks it has too.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            let _ = running.process.kill(libc::SIGKILL);
            let _ = running.process.wait();
        }
        self.health.status = "unhealthy".into();
        write(self.dir, &self.health);
    }
}

impl Running {
    fn drain(&mut self) {
        let mut buffer = [0; OUTPUT];
        while let Some(output) = &self.output
            && is_ready(output.as_fd())
        {
            match rustix::io::read(output, &mut buffer) {
                Ok(got @ 1..) => {
                    let room = OUTPUT.saturating_sub(self.text.len()).min(got);
                    self.text.extend_from_slice(&buffer[..room]);
                }
                Err(rustix::io::Errno::INTR) => {}
                _ => self.output = None,
            }
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}
