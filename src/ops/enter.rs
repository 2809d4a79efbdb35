//! Take a rung of the ladder of user namespaces, once, before any thread exists.

use super::container::{NetworkMode, UserNamespace};
use crate::context::Context;
use crate::storage::Store;
use crate::userns::{self, Rung};

/// Why no rung was taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--userns-mode` or `STRATE_USERNS_MODE` names no rung.
    #[error("unknown user namespace mode `{0}`: it is root, full, single or none")]
    UnknownRung(String),
    /// The rung that was asked for does not work here.
    #[error("cannot enter a user namespace")]
    Enter(#[source] userns::Error),
}

/// Take the first rung that works, or the pinned one, and note it in the context.
///
/// # Errors
/// See [`Error`]; without a pinned rung only when a system call fails half way.
pub fn enter(cx: &mut Context) -> Result<(), Error> {
    if cx.entered.is_none() {
        let entered = userns::enter(&request(cx)?).map_err(Error::Enter)?;
        cx.entered = Some(entered);
    }
    Ok(())
}

/// Which user namespace a command enters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Entry {
    /// The usual one, in which the user is root.
    #[default]
    Usual,
    /// That of a container, which may run.
    Beside(String),
    /// One in which the user is this user and group.
    Keep(u32, u32),
}

impl Entry {
    /// What a mode asks for.
    #[must_use]
    pub fn of(mode: &UserNamespace) -> Self {
        match mode {
            UserNamespace::Usual => Self::Usual,
            UserNamespace::Keep { uid, gid, .. } => Self::Keep(*uid, *gid),
            UserNamespace::Container(name) => Self::Beside(name.clone()),
        }
    }

    /// What a container needs, by the name that the user typed. Of one that is not known nothing is: whoever wants to use
    /// it says so.
    #[must_use]
    pub fn of_container(store: &Store, text: &str) -> Self {
        let spec = store.find_container(text).ok().and_then(|dir| super::create::spec_of(&dir).ok());
        let Some(spec) = spec else { return Self::Usual };
        match (&spec.host.network, &spec.host.user_namespace) {
            (NetworkMode::Container(id), _) => Self::Beside(id.clone()),
            (_, mode) => Self::of(mode),
        }
    }

    /// What is needed to see the files of a container with their owners.
    #[must_use]
    pub fn files_of(cx: &Context, text: &str) -> Self {
        let dir = super::store::read(cx).ok().and_then(|store| store.find_container(text).ok());
        let spec = dir.and_then(|dir| super::create::spec_of(&dir).ok());
        spec.map_or(Self::Usual, |spec| match spec.host.user_namespace {
            UserNamespace::Keep { uid, gid, .. } => Self::Keep(uid, gid),
            _ => Self::Usual,
        })
    }

    /// Enter it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn enter(&self, cx: &mut Context) -> Result<(), Error> {
        match self {
            Self::Usual => enter(cx),
            Self::Beside(container) => enter_beside(cx, container),
            Self::Keep(uid, gid) if cx.entered.is_none() => {
                let request = userns::Request { keep: Some((*uid, *gid)), ..request(cx)? };
                cx.entered = Some(userns::enter(&request).map_err(Error::Enter)?);
                Ok(())
            }
            Self::Keep(..) => Ok(()),
        }
    }
}

/// As [`enter`], but for a container that has the network, or the user namespace, of another: into the user namespace of
/// that one, if it is not ours. Where that cannot be done the ladder is climbed as ever, and the start of the container says
/// what is wrong.
fn enter_beside(cx: &mut Context, container: &str) -> Result<(), Error> {
    let store = super::store::read(cx).ok();
    let dir = store.as_ref().and_then(|store| store.find_container(container).ok());
    let pid = dir
        .as_ref()
        .and_then(|dir| super::container::target::Target::of(dir).ok())
        .map(|target| target.pid());
    let identity = |who: &str| {
        rustix::fs::stat(format!("/proc/{who}/ns/user")).map(|stat| (stat.st_dev, stat.st_ino)).ok()
    };
    if let Some(pid) = pid
        && identity(&pid.to_string()).is_some_and(|theirs| Some(theirs) != identity("self"))
    {
        cx.entered = Some(userns::join(pid).map_err(Error::Enter)?);
    }
    enter(cx)
}

/// What is asked of the ladder, from the context.
///
/// # Errors
/// [`Error::UnknownRung`].
pub fn request(cx: &Context) -> Result<userns::Request, Error> {
    let pinned = match cx.var("STRATE_USERNS_MODE") {
        None | Some("auto") => None,
        Some("root") => Some(Rung::Root),
        Some("full") => Some(Rung::Full),
        Some("single") => Some(Rung::Single),
        Some("none") => Some(Rung::None),
        Some(other) => return Err(Error::UnknownRung(other.to_owned())),
    };
    Ok(userns::Request { user: None, pinned, keep: None, path: cx.path() })
}

/// What the user should know about the rung that was taken: one line, or nothing on the full ones.
#[must_use]
pub fn notice(cx: &Context) -> Option<String> {
    let entered = cx.entered.as_ref()?;
    let pinned = cx.var("STRATE_USERNS_MODE").is_some_and(|mode| mode != "auto");
    if entered.rung != Rung::Single || pinned {
        return None;
    }
    let why = entered.refused.iter().rfind(|(rung, _)| *rung == Rung::Full).map(|(_, why)| why.as_str());
    Some(format!(
        "notice: only one user id can be used here{}: files that should belong to others belong to you, and chown \
         fails in containers; `strate doctor` shows the fix",
        why.map(|why| format!(" ({why})")).unwrap_or_default()
    ))
}
