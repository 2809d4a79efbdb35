//! What a client needs to know of the invocation: environment, home, and the registry options of a verb.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, Login, limits};

/// The environment and options of a client.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The environment. Read for proxies, configuration files and credentials.
    pub env: BTreeMap<String, String>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The user's id, outside any namespace of ours.
    pub uid: Option<u32>,
    /// `--creds`.
    pub creds: Option<Login>,
    /// `--no-creds`: no login is looked for.
    pub anonymous: bool,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--retry`: how often a request is repeated after a failure that may pass.
    pub retries: Option<u32>,
    /// `--retry-delay`: the pause before each repetition; without it the pauses grow.
    pub retry_delay: Option<Duration>,
    /// `--timeout`, as the moment when everything has to be done.
    pub deadline: Option<Instant>,
    /// `--stall-timeout`: the longest silence of a connection.
    pub stall: Option<Duration>,
}

impl Settings {
    /// A variable that is set and not empty.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub(super) fn config_home(&self) -> Option<PathBuf> {
        let set = self.var("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        set.or_else(|| Some(self.home.as_ref()?.join(".config")))
    }

    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        let directory = self.var("DOCKER_CONFIG").map(PathBuf::from);
        Some(directory.or_else(|| Some(self.home.as_ref()?.join(".docker")))?.join("config.json"))
    }

    pub(super) fn stall(&self) -> Duration {
        // A silence of nothing would never see a byte.
        self.stall.unwrap_or(limits::STALL_TIMEOUT).max(Duration::from_millis(10))
    }

    pub(super) fn retries(&self) -> u32 {
        self.retries.unwrap_or(limits::RETRIES)
    }
}

/// Read a small configuration file. `None` when it is not there.
///
/// # Errors
/// [`Error::Config`] when it is not a regular file, too large or unreadable.
pub(super) fn read_file(path: &Path) -> Result<Option<String>, Error> {
    let fail = |what, source: std::io::Error| Error::Config {
        path: path.to_owned(),
        what,
        source: Some(Box::new(source)),
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(fail("it cannot be read", error)),
    };
    if path == Path::new("/dev/null") {
        return Ok(Some(String::new())); // how people say that there is nothing to read
    }
    // A FIFO or device would block or never end.
    if !metadata.is_file() || metadata.len() > limits::FILE_BYTES {
        return Err(Error::Config {
            path: path.to_owned(),
            what: "it is not a regular file of at most 4 MiB",
            source: None,
        });
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(fail("it cannot be read", error)),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
