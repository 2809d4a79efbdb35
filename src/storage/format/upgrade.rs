//! Bringing a store of an older format up to date: steps from each format to the next, as data, under the exclusive store
//! lock. A step may be killed at any instant and is simply done again; `strate.json` says so last.

use std::fs;
use std::time::{Duration, Instant};

use super::{FORMAT, FormatFile, Found, READ_BY, check};
use crate::storage::lock::{LockMode, LockName, Locked, Notice, try_lock};
use crate::storage::{Error, layout::Layout};
use crate::sys::{SysError, lock_holders};

mod volumes;

/// How long others may go on before an upgrade gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the wait stays silent.
const QUIET: Duration = Duration::from_secs(1);

/// One step, from its format to the next.
struct Step {
    from: u32,
    /// Leaves alone what it finds done. Everything that it changed is durable when it returns.
    run: fn(&Layout, &Notice) -> Result<(), Error>,
}

/// Every step, in order.
const STEPS: &[Step] = &[Step { from: 1, run: volumes::get_records }];

/// Bring the store up to the present format, once nobody else writes it. What was done is said.
pub(in crate::storage) fn upgrade(layout: &Layout, notice: &Notice) -> Result<(), Error> {
    upgrade_within(layout, notice, PATIENCE)
}

fn upgrade_within(layout: &Layout, notice: &Notice, patience: Duration) -> Result<(), Error> {
    let _alone = lock_alone(layout, notice, patience)?;
    // Another process may have been faster, or have made it one that we do not even know.
    let Found::Older(mut file) = check(layout, true)? else { return Ok(()) };
    let first = file.format;
    while let Some(step) = STEPS.iter().find(|step| step.from == file.format) {
        (step.run)(layout, notice)?;
        file.format += 1;
        file.needs = Some(READ_BY.to_owned());
        file.write(layout)?;
    }
    if file.format != FORMAT {
        return Err(no_way(layout, &file));
    }
    notice.say(&format!(
        "the store at `{}` was brought from format {first} to {FORMAT}",
        layout.root().display()
    ));
    Ok(())
}

/// There never was a format 0: the file was tampered with.
fn no_way(layout: &Layout, file: &FormatFile) -> Error {
    let what = format!("there is no format {}", file.format);
    Error::Damaged { path: layout.format(), what }
}

/// The store lock, exclusively. Whoever has the store open holds it shared; their ids come from the kernel.
fn lock_alone(layout: &Layout, notice: &Notice, patience: Duration) -> Result<Locked, Error> {
    let (start, mut said) = (Instant::now(), false);
    loop {
        if let Some(lock) = try_lock(layout, &LockName::Store, LockMode::Exclusive)? {
            return Ok(lock);
        }
        let waited = start.elapsed();
        if waited >= patience {
            return Err(Error::Busy { path: layout.root().to_owned(), holders: holders(layout) });
        }
        if waited >= QUIET && !said {
            said = true;
            notice.say(&format!("waiting to upgrade the store{}", used_by(&holders(layout))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn holders(layout: &Layout) -> Vec<u32> {
    let path = layout.lock(&LockName::Store.file_name());
    fs::File::open(path).map(lock_holders::holders).unwrap_or_default()
}

/// `, in use by process 12`
pub(in crate::storage) fn used_by(pids: &[u32]) -> String {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    match list.len() {
        0 => String::new(),
        1 => format!(", in use by process {}", list[0]),
        _ => format!(", in use by processes {}", list.join(", ")),
    }
}

/// What `operation` failed on, as the store's error.
fn failed(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| SysError::path(operation, path, error).into()
}

#[cfg(test)]
mod tests;
