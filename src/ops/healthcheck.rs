//! `healthcheck run`: a container's health check, once, beside those of its monitor.

use super::container::{Error, health, target::Target};
use super::create::spec_of;
use crate::storage::Store;

/// Run the check of a running container: whether it is well, and what the check wrote.
///
/// # Errors
/// When it does not run, has no check, or the check cannot be run.
pub fn run(store: &Store, text: &str) -> Result<(bool, String), Error> {
    let dir = store.find_container(text)?;
    let spec = spec_of(&dir)?;
    if health::command(&spec).is_none() {
        return Err(Error::NoHealthcheck(dir.record.name.clone()));
    }
    let target = Target::of(&dir)?;
    let check = health::once(&dir, &spec, target.pid())?;
    Ok((check.exit_code == 0, check.output))
}
