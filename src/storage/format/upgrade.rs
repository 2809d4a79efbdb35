//! Bringing a store of an older format up to date: steps from each format to the next, as data, under the exclusive store
//! lock. A step may be killed at any instant and is simply done again; `strate.json` says so last.

use std::time::Duration;

use super::{FORMAT, FormatFile, Found, READ_BY, check};
use crate::storage::lock::{LockMode, LockName, Notice, Patience, lock};
use crate::storage::{Error, layout::Layout};
use crate::sys::SysError;

mod volumes;

/// One step, from its format to the next.
struct Step {
    from: u32,
    /// Leaves alone what it finds done. Everything that it changed is durable when it returns.
    run: fn(&Layout, &Notice) -> Result<(), Error>,
}

/// Every step, in order.
const STEPS: &[Step] = &[Step { from: 1, run: volumes::get_records }];

/// Bring the store up to the present format, once nobody else writes it. What was done is said; who has the store open
/// is waited for, and may do nothing for as long as `limit` says.
pub(in crate::storage) fn upgrade(
    layout: &Layout,
    notice: &Notice,
    limit: Option<Duration>,
) -> Result<(), Error> {
    let patience = Patience { limit, say: &|text| notice.say(text) };
    let _alone = lock(layout, &LockName::Store, LockMode::Exclusive, &patience)?;
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

/// What `operation` failed on, as the store's error.
fn failed(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| SysError::path(operation, path, error).into()
}

#[cfg(test)]
mod tests;
