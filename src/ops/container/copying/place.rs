//! Where copied files come from and where they go, as docker decides it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use super::Error;
use crate::sys::{RootDir, SysError};

/// What is copied.
#[derive(Debug)]
pub struct Source {
    /// The directory that holds it.
    pub dir: OwnedFd,
    /// Its name there; empty for the directory itself.
    pub name: OsString,
    /// Where it is below the root, without links.
    pub path: PathBuf,
}

impl Source {
    /// Whether something in it (a relative path) belongs to the kernel's own file systems of a container, and the source
    /// is a directory above them: they hold no files to be kept.
    #[must_use]
    pub fn is_of_kernel(&self, inner: &Path) -> bool {
        let at = |path: &Path| ["proc", "sys", "dev"].map(Path::new).contains(&path);
        let parent = self.path.join(inner);
        parent.parent().is_some_and(at) && !self.path.ancestors().any(at)
    }
}

/// What a path asks for beyond what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The path without what says so.
    pub path: String,
    /// It must be a directory: it ended in a slash or in `/.`.
    pub directory: bool,
    /// Only what is in it: it ended in `/.`, or is the root.
    pub contents: bool,
    /// The last name, which a copy gets.
    pub base: String,
}

impl Wanted {
    /// Look at a path, which is absolute.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let contents = path.ends_with("/.") || path == ".";
        let directory = contents || path.ends_with('/') || path.ends_with("/..");
        let mut names: Vec<&str> = Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        let base = names.last().copied().unwrap_or_default().to_owned();
        let path = path.trim_end_matches("/.").trim_end_matches('/');
        Self {
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            directory: directory || base.is_empty(),
            contents: contents || base.is_empty(),
            base,
        }
    }
}

/// Find a source below a root: nothing on the way leads out of it. `follow` takes what a last link leads to.
///
/// # Errors
/// When it is not there, or is no directory where one is asked for.
pub fn find(root: RootDir<'_>, wanted: &Wanted, follow: bool) -> Result<Source, Error> {
    let none = |error: SysError| match error.errno() {
        Some(libc::ENOENT) => Error::NoSource(wanted.path.clone()),
        Some(libc::ENOTDIR) => Error::NotADirectory(wanted.path.clone()),
        _ => error.into(),
    };
    let located = root.locate(&wanted.path, follow || wanted.directory).map_err(none)?;
    let name = if located.name.is_empty() { OsString::from(".") } else { located.name.clone() };
    let failed = |error| none(SysError::path("look at", Path::new(&wanted.path), error));
    let stat =
        rustix::fs::statat(&located.parent, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if wanted.directory && FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Error::NotADirectory(wanted.path.clone()));
    }
    Ok(Source { dir: located.parent, name: located.name, path: located.path })
}

/// Where copied files go: a directory, and the name there of what is copied; without one it becomes one with the
/// directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: OwnedFd,
    pub(super) name: Option<OsString>,
}

/// Decide where something goes that is called `source` and is a directory or not.
pub(super) fn decide(root: RootDir<'_>, to: &Wanted, source: &Wanted, is_dir: bool) -> Result<Place, Error> {
    let open = |path: &str| root.open(path, OFlags::PATH | OFlags::DIRECTORY, rustix::fs::Mode::empty());
    match root.stat(&to.path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let inside = (!source.contents || !is_dir).then(|| OsString::from(&source.base));
            Ok(Place { dir: open(&to.path)?, name: inside })
        }
        Ok(_) if to.directory => Err(Error::NotADirectory(to.path.clone())),
        Ok(_) if is_dir => Err(Error::DirectoryOverFile(to.path.clone())),
        Ok(_) => named(root, to),
        Err(error) => match error.errno() {
            Some(libc::ENOENT) if to.directory && !is_dir => Err(Error::NoDirectory(to.path.clone())),
            Some(libc::ENOENT) => named(root, to),
            Some(libc::ENOTDIR) => Err(Error::NotADirectory(to.path.clone())),
            _ => Err(error.into()),
        },
    }
}

/// The name itself, where a last link leads.
fn named(root: RootDir<'_>, to: &Wanted) -> Result<Place, Error> {
    match root.locate(&to.path, true) {
        Ok(located) => Ok(Place { dir: located.parent, name: Some(located.name) }),
        Err(error) if error.errno() == Some(libc::ENOENT) => {
            let parent = Path::new(&to.path).parent().unwrap_or(Path::new("/"));
            Err(Error::NoDirectory(parent.display().to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_wanted() {
        for (path, expected) in [
            ("/a/b", ("/a/b", false, false, "b")),
            ("/a/b/", ("/a/b", true, false, "b")),
            ("/a/b/.", ("/a/b", true, true, "b")),
            ("/a/..", ("/a/..", true, true, "")),
            ("/a/b/..", ("/a/b/..", true, false, "a")),
            ("/", ("/", true, true, "")),
            ("/.", ("/", true, true, "")),
            ("a", ("a", false, false, "a")),
        ] {
            let wanted = Wanted::new(path);
            let found = (wanted.path.as_str(), wanted.directory, wanted.contents, wanted.base.as_str());
            assert_eq!(found, expected, "{path}");
        }
    }
}
