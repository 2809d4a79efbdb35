//! Waiting for a lock: announced after a second, given up when its holder does nothing for too long.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use super::holder::Holders;
use super::{LockMode, LockName};
use crate::storage::{Error, layout::Layout};
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

/// What shows that a holder works: it ran, another took its place, or the file that it downloads to grew.
#[derive(PartialEq, Eq)]
struct Life(Holders, Option<u64>);

impl Life {
    fn of(layout: &Layout, name: &LockName<'_>, file: &File) -> Self {
        let bytes = match name {
            LockName::Blob(digest) => fs::metadata(layout.partial(digest)).ok().map(|meta| meta.len()),
            _ => None,
        };
        Self(Holders::of(file), bytes)
    }
}

/// Wait until `file` is locked.
///
/// # Errors
/// [`Error::Busy`]
pub(super) fn wait(
    layout: &Layout,
    name: &LockName<'_>,
    mode: LockMode,
    file: &File,
    patience: &Patience<'_>,
) -> Result<(), Error> {
    let exclusive = mode == LockMode::Exclusive;
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut announced = false;
    // When the holder was last seen to do something, and when we last looked.
    let (mut alive, mut looked) = (start, start);
    let mut life: Option<Life> = None;
    loop {
        if patience.limit.is_some_and(|limit| alive.elapsed() >= limit) {
            let holder = Holders::of(file).to_string();
            let idle = alive.elapsed().as_secs();
            return Err(Error::Busy { what: name.to_string(), holder, idle });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE);
        if flock::try_lock(file, exclusive)? {
            return Ok(());
        }
        if !announced && start.elapsed() >= QUIET {
            (patience.say)(&format!("waiting for {name}{}", Holders::of(file)));
            announced = true;
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            let now = Life::of(layout, name, file);
            if life.as_ref().is_some_and(|before| *before != now) {
                alive = looked;
            }
            life = Some(now);
        }
    }
}
