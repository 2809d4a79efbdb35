//! The facts of one invocation: directories, environment, terminals. Small on purpose; the only reader of `std::env`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::userns;

/// Whether the process was started without a standard output that can be written.
#[must_use]
pub fn stdout_was_closed() -> bool {
    crate::sys::fds::stdout_was_closed()
}

/// The facts of one invocation.
#[derive(Debug, Clone)]
pub struct Context {
    /// The environment, as it was at the start.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The user's home, from `HOME`.
    pub home: Option<PathBuf>,
    /// `--root`, `STRATE_ROOT`, or `$XDG_DATA_HOME/strate`. Empty where nothing says where the store should lie: verbs
    /// that need none work all the same, and opening it fails.
    pub root: PathBuf,
    /// The invoking user's real id, outside any namespace of ours.
    pub uid: u32,
    /// The invoking user's real group id.
    pub gid: u32,
    /// Whether standard input, output and error are terminals.
    pub terminals: [bool; 3],
    /// `--debug`.
    pub debug: bool,
    /// Where the store's notices go when a verb has no better place for them.
    pub notice: crate::storage::Notice,
    /// Set once a command that needs it entered the ladder.
    pub entered: Option<userns::Entered>,
}

/// Options before the verb.
#[derive(Debug, Clone, Default)]
pub struct GlobalOptions {
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--debug`
    pub debug: bool,
}

/// Why no context could be made.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The working directory is gone.
    #[error("cannot read the working directory")]
    Cwd(#[source] std::io::Error),
}

impl Context {
    /// Gather the facts.
    ///
    /// # Errors
    /// See [`ContextError`].
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn gather(options: &GlobalOptions) -> Result<Self, ContextError> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let cwd = std::env::current_dir().map_err(ContextError::Cwd)?;
        let home = env.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let absolute = |path: &Path| if path.is_absolute() { path.to_owned() } else { cwd.join(path) };
        let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
        let root = options
            .root
            .clone()
            .or_else(|| set("STRATE_ROOT").map(PathBuf::from))
            .or_else(|| {
                set("XDG_DATA_HOME").filter(|d| d.starts_with('/')).map(|d| Path::new(d).join("strate"))
            })
            .or_else(|| home.as_ref().map(|home| home.join(".local/share/strate")));
        let terminals = [
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        ];
        Ok(Self {
            root: root.map(|root| absolute(&root)).unwrap_or_default(),
            env,
            home,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            terminals,
            debug: options.debug,
            notice: crate::storage::Notice::default(),
            entered: None,
            cwd,
        })
    }

    /// Send the store's notices there.
    pub fn tell_to(&mut self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.notice = crate::storage::Notice::new(tell);
    }

    /// An environment variable that is set and not empty.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The directories of `PATH`.
    #[must_use]
    pub fn path(&self) -> Vec<PathBuf> {
        let path = self.var("PATH").unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path.split(':').filter(|d| d.starts_with('/')).map(PathBuf::from).collect()
    }

    /// What the store may do for this process.
    #[must_use]
    pub fn abilities(&self) -> crate::storage::Abilities {
        let lock_timeout = self.lock_timeout();
        match &self.entered {
            Some(entered) => crate::storage::Abilities {
                mapped_ids: entered.mapped_ids,
                unpack: entered.rung != userns::Rung::None,
                lock_timeout,
            },
            None => crate::storage::Abilities { mapped_ids: 1, unpack: false, lock_timeout },
        }
    }

    /// `--lock-timeout` or `STRATE_LOCK_TIMEOUT`: how long the holder of a lock may do nothing. A value that makes no
    /// sense was refused on the command line; from the environment it means the default.
    fn lock_timeout(&self) -> Option<Duration> {
        let default = crate::storage::Abilities::LOCK_TIMEOUT;
        match self.var("STRATE_LOCK_TIMEOUT") {
            Some("none") => None,
            Some(seconds) => Some(seconds.parse().map_or(default, Duration::from_secs)),
            None => Some(default),
        }
    }
}
