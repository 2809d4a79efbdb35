//! `logout`: forget logins.

use super::remote::RemoteOptions;
use crate::context::Context;
use crate::registry;

pub use crate::registry::{Error, LoggedOut};

/// Forget the login to a registry, or with `None` all that lie in auth files.
///
/// # Errors
/// When a file cannot be written or a helper fails.
pub fn logout(cx: &Context, registry: Option<&str>, remote: &RemoteOptions) -> Result<LoggedOut, Error> {
    let settings = remote.settings(cx);
    match registry {
        Some(registry) => registry::log_out(&settings, registry),
        None => registry::log_out_all(&settings),
    }
}
