//! `login`: check a user name and password with the registry, then keep them.

use super::remote::RemoteOptions;
use crate::context::Context;
use crate::oci::DEFAULT_REGISTRY;
use crate::registry::{self, Login, Settings};

pub use crate::registry::{Error, LoggedIn, Secret};

/// The registry that a user means: docker.io for nothing, and the host of whatever address is given.
#[must_use]
pub fn registry_name(typed: Option<&str>) -> String {
    let typed = typed.unwrap_or(DEFAULT_REGISTRY);
    let typed = typed.split_once("://").map_or(typed, |(_, rest)| rest);
    match typed.split('/').next().unwrap_or(typed) {
        "" | "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_ascii_lowercase(),
    }
}

/// Check a login and keep it.
///
/// # Errors
/// When the registry cannot be asked or says no, or the login cannot be kept.
pub fn login(
    cx: &Context,
    registry: &str,
    user: &str,
    password: &Secret,
    remote: &RemoteOptions,
) -> Result<LoggedIn, Error> {
    registry::log_in(&settings(cx, remote), registry, &Login::password(user, password.expose()))
}

/// The user that would be used for a registry.
///
/// # Errors
/// [`Error::NotLoggedIn`].
pub fn current_user(cx: &Context, registry: &str, remote: &RemoteOptions) -> Result<String, Error> {
    let found = registry::logged_in(&settings(cx, remote), registry)?;
    Ok(found.login.user().unwrap_or("<token>").to_owned())
}

fn settings(cx: &Context, remote: &RemoteOptions) -> Settings {
    remote.settings(cx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_name_registries_in_many_ways() {
        for (typed, name) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("http://127.0.0.1:5000/v2/"), "127.0.0.1:5000"),
            (Some("R.example/team"), "r.example"),
        ] {
            assert_eq!(registry_name(typed), name);
        }
    }
}
