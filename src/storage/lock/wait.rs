//! Waiting for a lock: announced after a second, given up when its holder does nothing for too long.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::LockMode;
use super::holder::Holders;
use crate::storage::{Abilities, Error};
use crate::sys::flock;

/// How long a wait stays silent.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is looked whether the holder still does something.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(25);

/// How to wait.
pub(in crate::storage) struct Patience<'a> {
    /// For so long a holder may do nothing; `None`: for ever. A holder that works is waited for as long as it takes:
    /// a large download is no reason to fail.
    pub limit: Option<Duration>,
    /// Told about a wait of more than a second.
    pub say: &'a dyn Fn(&str),
}

impl Patience<'_> {
    /// For locks that are taken before anybody said how long to wait, or where to tell about it.
    pub(in crate::storage) fn usual() -> Self {
        Self { limit: Some(Abilities::LOCK_TIMEOUT), say: &|_| () }
    }
}

/// What is waited for.
pub(super) struct Awaited<'a> {
    /// In words.
    pub(super) what: &'a dyn fmt::Display,
    /// Where the file that is locked lies.
    pub(super) path: PathBuf,
    /// A file that grows while its holder works.
    pub(super) grows: Option<PathBuf>,
}

/// What shows that a holder works: it ran, another took its place, or the file that it downloads to grew.
#[derive(PartialEq, Eq)]
struct Life(Holders, Option<u64>);

impl Life {
    fn of(awaited: &Awaited<'_>, file: &File) -> Self {
        let bytes = awaited.grows.as_ref().and_then(|path| fs::metadata(path).ok()).map(|meta| meta.len());
        Self(Holders::of(file), bytes)
    }
}

/// Wait until `file` is locked, or lies no longer where the lock is: then another file is what to wait for.
///
/// # Errors
/// [`Error::Busy`]
pub(super) fn wait(
    awaited: &Awaited<'_>,
    mode: LockMode,
    file: &File,
    patience: &Patience<'_>,
) -> Result<(), Error> {
    let exclusive = mode == LockMode::Exclusive;
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut announced = false;
    let mut watch = Watch { life: None, alive: start, looked: start };
    loop {
        std::thread::sleep(pause.min(patience.limit.unwrap_or(pause)));
        if flock::try_lock(file, exclusive)? {
            return Ok(());
        }
        if !announced && start.elapsed() >= QUIET {
            (patience.say)(&format!("waiting for {}{}", awaited.what, Holders::of(file)));
            announced = true;
        }
        // Short waits are not worth a look.
        if pause == PAUSE && watch.is_due() {
            if !super::in_place(file, &awaited.path) {
                return Ok(());
            }
            watch.look(Life::of(awaited, file));
        }
        if patience.limit.is_some_and(|limit| watch.alive.elapsed() >= limit) {
            watch.look(Life::of(awaited, file));
            let idle = watch.alive.elapsed();
            if patience.limit.is_some_and(|limit| idle >= limit) {
                let holder = Holders::of(file).to_string();
                return Err(Error::Busy { what: awaited.what.to_string(), holder, idle: idle.as_secs() });
            }
        }
        pause = (pause * 2).min(PAUSE);
    }
}

/// When the holder was last seen to do something, and when we last looked.
struct Watch {
    life: Option<Life>,
    alive: Instant,
    looked: Instant,
}

impl Watch {
    fn is_due(&self) -> bool {
        self.life.is_none() || self.looked.elapsed() >= LOOK
    }

    fn look(&mut self, now: Life) {
        self.looked = Instant::now();
        if self.life.as_ref().is_some_and(|before| *before != now) {
            self.alive = self.looked;
        }
        self.life = Some(now);
    }
}
