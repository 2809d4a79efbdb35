//! Health checks: a program of the container's own says now and then whether it is well. The monitor runs it.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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

/// Docker takes no shorter time.
const SHORTEST: Duration = Duration::from_millis(1);

/// How many outputs are kept, and how much of each.
const KEPT: usize = 5;
const OUTPUT: usize = 4096;

/// Bytes that are read before the clock and the program are looked at again: what a pipe holds (`man 7 pipe`).
const A_LOOK: usize = 64 << 10;

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

/// A time of an image's or the user's. The flags refuse less than the floor; nobody looked at an image's.
fn time(nanoseconds: i64, usual: Duration) -> Duration {
    let given = u64::try_from(nanoseconds).ok().filter(|time| *time > 0);
    given.map_or(usual, |time| Duration::from_nanos(time).max(SHORTEST))
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
    timeout: Duration,
}

/// Run the check once, and wait for its end or for its time to be over.
///
/// # Errors
/// When it cannot be run.
pub fn once(dir: &ContainerDir, spec: &ContainerSpec, pid: i32) -> Result<Check, super::Error> {
    let settings = spec.config.healthcheck.clone().unwrap_or_default();
    let timeout = time(settings.timeout, INTERVAL);
    let mut running = Running::start(dir, &command(spec).unwrap_or_default(), pid, timeout)?;
    loop {
        if let Some(check) = running.look() {
            return Ok(check);
        }
        let mut fds = vec![PollFd::new(&running.process.pidfd, PollFlags::IN)];
        fds.extend(running.output.as_ref().map(|output| PollFd::new(output, PollFlags::IN)));
        let left = running.deadline.saturating_duration_since(Instant::now());
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    }
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
        match Running::start(self.dir, &self.command, self.pid, self.timeout()) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                let output = crate::ops::chain_text(&error);
                self.record(Check { start, end: when::now(), exit_code: -1, output });
            }
        }
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
            if let Some(check) = self.running.as_mut().and_then(Running::look) {
                self.running = None;
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
    fn start(
        dir: &ContainerDir,
        command: &[String],
        pid: i32,
        timeout: Duration,
    ) -> Result<Self, super::Error> {
        let request = exec::Request { command: command.to_vec(), ..exec::Request::default() };
        let plan = exec::plan_of(dir, pid, &request)?;
        let (stdio, output) = streams::one_output()?;
        let start = when::now();
        let process = runtime::exec(&runtime::ExecRequest { plan, pid }, stdio)?;
        let deadline = Instant::now() + timeout;
        Ok(Self { process, output: Some(output), text: Vec::new(), start, deadline, timeout })
    }

    /// Take what it wrote; how it went, if it ended or has to. One that never stops writing is as late as a silent one.
    fn look(&mut self) -> Option<Check> {
        self.drain();
        let ended = is_ready(self.process.pidfd.as_fd());
        if !ended && Instant::now() < self.deadline {
            return None;
        }
        if !ended {
            let _ = self.process.kill(libc::SIGKILL);
        }
        let status = self.process.wait();
        self.drain();
        let output = String::from_utf8_lossy(&self.text).into_owned();
        let (exit_code, output) = if ended {
            (status.map_or(-1, |status| status.code()), output)
        } else {
            let late = format!("Health check exceeded timeout ({}s)", self.timeout.as_secs_f64());
            (-1, if output.is_empty() { late } else { format!("{late}: {output}") })
        };
        Some(Check { start: self.start.clone(), end: when::now(), exit_code, output })
    }

    /// Take a pipe's worth of what it wrote: of one that writes for ever the rest waits for the next look.
    fn drain(&mut self) {
        let mut buffer = [0; OUTPUT];
        let mut taken = 0;
        while let Some(output) = &self.output
            && taken < A_LOOK
            && is_ready(output.as_fd())
        {
            match rustix::io::read(output, &mut buffer) {
                Ok(got @ 1..) => {
                    taken += got;
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
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}
