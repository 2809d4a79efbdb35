//! `login`: check a user name and password with the registry, then keep them.

use super::remote::RemoteOptions;
use crate::context::Context;
use crate::oci::DEFAULT_REGISTRY;
use crate::registry::{self, Login, Settings};

pub use crate::registry::{Error, LoggedIn, Secret};

/// The registry that a user means: docker.io for nothing, and the host of whatever address is given. A path behind a
/// host that is no address (`registry.example/team`) stays: the login is for the repositories below it.
#[must_use]
pub fn login_key(typed: Option<&str>) -> String {
    let typed = typed.unwrap_or(DEFAULT_REGISTRY);
    let (is_address, typed) = typed.split_once("://").map_or((false, typed), |(_, rest)| (true, rest));
    let (host, path) = typed.split_once('/').unwrap_or((typed, ""));
    let registry = match host {
        "" | "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_ascii_lowercase(),
    };
    let path = path.trim_matches('/');
    if is_address || matches!(path, "" | "v1" | "v2") { registry } else { format!("{registry}/{path}") }
}

/// The registry of a key.
#[must_use]
pub fn registry_of(key: &str) -> &str {
    key.split('/').next().unwrap_or(key)
}

/// Check a login and keep it for a key.
///
/// # Errors
/// When the registry cannot be asked or says no, or the login cannot be kept.
pub fn login(
    cx: &Context,
    key: &str,
    user: &str,
    password: &Secret,
    remote: &RemoteOptions,
) -> Result<LoggedIn, Error> {
    registry::log_in(&settings(cx, remote), key, &Login::password(user, password.expose()))
}

/// Check the login that is kept already. The user's name comes back, and where the login is kept; nothing when there
/// is none.
///
/// # Errors
/// When the registry cannot be asked or no longer accepts it, or what is kept cannot be read.
pub fn check_existing(
    cx: &Context,
    key: &str,
    remote: &RemoteOptions,
) -> Result<Option<(String, String)>, Error> {
    let settings = settings(cx, remote);
    let found = match registry::logged_in(&settings, key) {
        Ok(found) => found,
        Err(Error::NotLoggedIn { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    registry::check(&settings, registry_of(key), &found.login)?;
    Ok(Some((found.login.user().unwrap_or("<token>").to_owned(), found.origin)))
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
            (Some("https://r.example/team"), "r.example"),
            (Some("R.example/v2/"), "r.example"),
            (Some("R.example/team/app/"), "r.example/team/app"),
        ] {
            assert_eq!(login_key(typed), name);
        }
    }
}
