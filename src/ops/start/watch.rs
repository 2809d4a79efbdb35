//! The life of a monitor: it watches over the program of one container, keeps its log, serves whoever is attached, and
//! starts it again where its restart policy says so.

use std::time::{Duration, Instant};

use super::{
    Connected, ContainerState, ExitStatus, LogWriter, Opened, Outcome, Ready, Silent, Store, descriptors,
    ended, finish, give_up, launch, open_log, prepare, when,
};
use crate::context::Context;
use crate::ops::container::attend::hub::{Hub, Owner};
use crate::ops::container::attend::serve::{Chore, Serving};
use crate::ops::container::health::{self, Checks};
use crate::ops::container::{Error, attend, monitor, streams};
use crate::ops::create::spec_of;
use crate::runtime::Process;
use crate::runtime::relay::Pipes;

/// The first pause before a restart, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A program that ran so long has recovered: the next pause is the first one again.
const RECOVERED: Duration = Duration::from_secs(10);

/// How often a monitor that pauses looks whether it shall not start the program again.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the container's health is checked.
pub(super) fn checks(ready: &Ready) -> bool {
    health::command(&ready.spec).is_some()
}

/// Run in the background.
pub(super) fn background(cx: &Context, ready: Ready) -> Result<Outcome, Error> {
    let name = ready.dir.record.name.clone();
    let keep = descriptors(&ready);
    // The parent's own descriptors go when this returns; the monitor's copies hold the lock.
    monitor::leave_behind(&name, &keep, |report| watch(cx, ready, None, streams::NO_TERMINAL, report))?;
    Ok(Outcome::Detached)
}

/// The monitor's life.
pub(super) fn watch(
    cx: &Context,
    mut ready: Ready,
    owner: Option<Owner>,
    size: (u16, u16),
    report: monitor::Report,
) {
    // Where the file system has no sockets there is no attaching, and all the rest works.
    let listener = attend::listen(&ready.lock.socket()).ok();
    let mut hub = Hub::new(listener, owner);
    let mut log = if ready.spec.host.no_log { LogWriter::none() } else { open_log(&ready.dir) };
    let (mut process, state, pipes) = match start(&mut ready, size, 0) {
        Ok(started) => started,
        Err(error) => return report.failed(&give_up(&ready.dir, &ready.spec, ready.lock, error)),
    };
    report.started();
    // What the command needed before is of no use to who watches for days.
    crate::sys::memory::give_back();
    let mut policy = Policy { restarts: 0, pause: PAUSE };
    let (mut state, mut pipes) = (state, pipes);
    loop {
        let start_time = Instant::now();
        let status = serve(&ready, &mut hub, &mut log, &mut process, pipes);
        log.finish();
        policy.after(start_time.elapsed());
        // Its ports are free before anybody hears of its end.
        ready.network = Connected::default();
        read_anew(&mut ready);
        if !policy.wants(&ready, status) {
            break end(ready, state, status, hub);
        }
        ready.dir.tell("die", &[("exitCode", status.code().to_string())]);
        state = ended(&ready.dir, state).restarting(status.code(), when::now());
        let _ = ready.lock.write_state(&state);
        if !policy.wait(&ready, &mut hub) {
            break end(ready, state, status, hub);
        }
        policy.restarts += 1;
        let next = remount(cx, &mut ready).and_then(|()| start(&mut ready, size, policy.restarts));
        (process, state, pipes) = match next {
            Ok(started) => started,
            Err(error) => {
                let code = i32::from(error.exit_code());
                let _ = give_up(&ready.dir, &ready.spec, ready.lock, error);
                return hub.farewell(code);
            }
        };
    }
}

/// Somebody may have changed the limits or the restart policy while the program ran.
fn read_anew(ready: &mut Ready) {
    if ready.dir.read_anew().is_ok()
        && let Ok(spec) = spec_of(&ready.dir)
    {
        ready.spec = spec;
    }
}

fn end(ready: Ready, state: ContainerState, status: ExitStatus, hub: Hub) {
    finish(ready, state, status);
    hub.farewell(status.code());
}

fn start(
    ready: &mut Ready,
    size: (u16, u16),
    restarts: u32,
) -> Result<(Process, ContainerState, Pipes), Error> {
    let (stdio, pipes) = streams::attended(ready.spec.tty, ready.spec.open_stdin, size)?;
    let (process, state) = launch(ready, stdio)?;
    let state = ContainerState { restarts, ..state }.watched();
    let _ = ready.lock.write_state(&state);
    Ok((process, state, pipes))
}

fn serve(
    ready: &Ready,
    hub: &mut Hub,
    log: &mut LogWriter,
    process: &mut Process,
    pipes: Pipes,
) -> ExitStatus {
    let stdin_once = !ready.spec.detached && ready.spec.open_stdin;
    let mut checks = Checks::new(&ready.dir, &ready.spec, process.pid);
    let chore = checks.as_mut().map(|checks| checks as &mut dyn Chore);
    let serving = Serving { hub, log, stdin_once, ends_with_owner: false, chore };
    serving.run(process, pipes).unwrap_or(ExitStatus::Code(255))
}

/// The container's tree is gone with the last program: mount it for the next one.
fn remount(cx: &Context, ready: &mut Ready) -> Result<(), Error> {
    let mut store: Store = crate::ops::store::write_plainly(cx)?;
    store.read_stores_of(&ready.dir.record);
    let stack = store.stack_of(&ready.dir.record.layers, &Silent)?;
    let opened = Opened { dir: &ready.dir, spec: &ready.spec, lock: &ready.lock, new: false };
    (ready.mounted, ready.plan, ready.wiring) = prepare(cx, &store, &opened, &stack)?;
    Ok(())
}

/// When the program is started again.
struct Policy {
    restarts: u32,
    pause: Duration,
}

impl Policy {
    /// The program ran so long.
    fn after(&mut self, ran: Duration) {
        if ran >= RECOVERED {
            self.pause = PAUSE;
        }
    }

    fn wants(&self, ready: &Ready, status: ExitStatus) -> bool {
        ready.dir.stop_mark().is_none() && ready.spec.host.restart.wants(status.code(), self.restarts)
    }

    /// Pause, and see to whoever is attached meanwhile; false when somebody stopped the container.
    fn wait(&mut self, ready: &Ready, hub: &mut Hub) -> bool {
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        loop {
            if ready.dir.stop_mark().is_some() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            hub.wait(left.min(LOOK));
        }
    }
}
