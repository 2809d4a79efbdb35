//! `wait`: until a container ends.

use super::container::Error;
use crate::storage::Store;

/// Wait until a container does not run; its exit code, 0 for one that was never started.
///
/// # Errors
/// When it is unknown.
pub fn wait(store: &Store, text: &str) -> Result<i32, Error> {
    let dir = store.find_container(text)?;
    Ok(dir.wait_for_end()?.unwrap_or(0))
}
