//! Floor 1: who we are: the ladder of user namespaces (`man 7 user_namespaces`).
//!
//! A command that needs isolation calls [`enter`] once, first thing, while the process has one thread. After it the
//! process is uid 0 of its own user and mount namespace (or was root already), and files it makes have container ids.

mod enter;
mod error;
mod probe;
mod refusal;
mod subid;

pub use error::Error;

use std::fmt;

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Root with the capability to mount: only a mount namespace is made.
    Root,
    /// A user namespace with subordinate ids, by newuidmap and newgidmap.
    Full,
    /// A user namespace with one id.
    Single,
    /// No isolation: everything but RUN and run.
    None,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Full => "full",
            Self::Single => "single",
            Self::None => "none",
        })
    }
}

/// One line of an id map: `count` ids from `inside` on stand for those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// An id map: uids and gids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

/// Where the process stands after [`enter`].
#[derive(Debug, Clone)]
pub struct Entered {
    /// The rung that was taken.
    pub rung: Rung,
    /// Why the rungs above it were not.
    pub refused: Vec<(Rung, String)>,
    /// The map in force.
    pub map: IdMap,
    /// Ids from 0 to below this are mapped without a gap, for users and groups alike.
    pub mapped_ids: u32,
    /// Whom the invoking user is inside: 0 and 0 but where [`Request::keep`] asked for others. The process then acts as
    /// that user, with the powers of root over the namespace, so that what it makes in the store is the user's own.
    pub own: (u32, u32),
}

impl Entered {
    /// Whether these ids can be had inside.
    #[must_use]
    pub fn maps(&self, uid: u32, gid: u32) -> bool {
        let has = |ranges: &[IdRange], id: u32| {
            ranges.iter().any(|range| id.checked_sub(range.inside).is_some_and(|at| at < range.count))
        };
        // Without /proc nothing is known, and the kernel answers.
        (self.map.uids.is_empty() || has(&self.map.uids, uid))
            && (self.map.gids.is_empty() || has(&self.map.gids, gid))
    }
}

/// What the caller asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The invoking user's name, for the subordinate id files; `None` looks it up by number.
    pub user: Option<String>,
    /// Take just this rung (`--userns-mode`), or fail.
    pub pinned: Option<Rung>,
    /// Make the invoking user not root inside but these, user and group; only [`Rung::Full`] can.
    pub keep: Option<(u32, u32)>,
    /// Directories of `PATH`, to find newuidmap, newgidmap and getsubids in.
    pub path: Vec<std::path::PathBuf>,
}

/// The name that the host's `/etc/passwd` has for a user.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    subid::user_name(uid)
}

/// Take the first rung that works.
///
/// # Errors
/// When a pinned rung does not work. Not pinned, the lowest rung is [`Rung::None`] and always works.
pub fn enter(request: &Request) -> Result<Entered, Error> {
    enter::climb(request)
}

/// Go into the user namespace of a running process of the same user instead of making one, with a mount namespace of our
/// own there: what belongs to that namespace (a network) can be joined from it.
///
/// # Errors
/// [`Error::Join`]: when the process has ended, or belongs to somebody else.
pub fn join(pid: i32) -> Result<Entered, Error> {
    enter::join(pid)
}

/// The namespaces that this process is in already, where it has the powers of root in them. Nothing is entered, so what is
/// mounted then stays for whoever shares them.
#[must_use]
pub fn present() -> Option<Entered> {
    enter::present()
}

/// What each rung would answer, without entering any (for `info` and `doctor`): probed in a child.
#[must_use]
pub fn probe(request: &Request) -> Vec<(Rung, Result<String, String>)> {
    probe::probe(request)
}
