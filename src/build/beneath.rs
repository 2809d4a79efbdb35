//! Paths inside a root that cannot be left, whatever links the tree holds.
//!
//! Links are followed here, one component at a time and clamped at the root; what is then opened is opened with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` (`man 2 openat2`), so that a tree that changes meanwhile gives an error and
//! never a file from outside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

/// As many links as the kernel follows, and some: the limit of Go's path libraries, which the reference uses.
const MAX_LINKS: usize = 255;

/// A path without any link in its existing part.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// Relative to the root; empty for the root itself.
    pub path: PathBuf,
    /// What is there; `None` when nothing is.
    pub stat: Option<Stat>,
}

/// The kind of a file.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// A path as the kernel wants it: the root itself is `.`.
pub(super) fn dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Open a path that holds no links. `path` is relative to `root`; one that leads out or through a link is refused.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, dot(path), flags, mode, resolve) {
            // EAGAIN: a rename elsewhere disturbed the lookup.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Kernels and sandboxes that know no openat2.
            Err(Errno::NOSYS | Errno::PERM) => return open_stepwise(root, path, flags, mode),
            other => return Ok(other?),
        }
    }
}

fn open_stepwise(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let names: Vec<&OsStr> = path
        .components()
        .map(|component| match component {
            Component::Normal(name) => Ok(name),
            _ => Err(Errno::XDEV),
        })
        .collect::<Result<_, _>>()?;
    let Some((last, parents)) = names.split_last() else {
        return Ok(openat(root, ".", flags, mode)?);
    };
    let mut dir: Option<OwnedFd> = None;
    for name in parents {
        let at = dir.as_ref().map_or(root, AsFd::as_fd);
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = Some(openat(at, *name, step, Mode::empty())?);
    }
    let at = dir.as_ref().map_or(root, AsFd::as_fd);
    Ok(openat(at, *last, flags | OFlags::NOFOLLOW, mode)?)
}

/// Look at a path without following its last component. `None` when it is not there.
pub(super) fn stat(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Stat>> {
    match statat(root, dot(path), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Follow the links of `path` inside `root`; `..` and links that lead out stop at the root. Components that do not
/// exist are taken as they are written.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path, follow_last: bool) -> io::Result<Resolved> {
    let mut todo: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
    let mut resolved = Resolved { path: PathBuf::new(), stat: stat(root, Path::new(""))? };
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        match name.as_bytes() {
            b"/" | b"." | b"" => continue,
            b".." => {
                resolved.path.pop();
                resolved.stat = stat(root, &resolved.path)?;
                continue;
            }
            _ => {}
        }
        let Some(here) = &resolved.stat else {
            resolved.path.push(&name);
            continue;
        };
        if kind(here) != FileType::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let next = resolved.path.join(&name);
        let found = stat(root, &next)?;
        let is_link = found.as_ref().is_some_and(|stat| kind(stat) == FileType::Symlink);
        if is_link && (follow_last || todo.iter().any(|rest| rest != ".")) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = PathBuf::from(OsString::from_vec(readlinkat(root, &next, Vec::new())?.into_bytes()));
            if target.is_absolute() {
                resolved = Resolved { path: PathBuf::new(), stat: stat(root, Path::new(""))? };
            }
            for component in target.iter().rev() {
                todo.push_front(component.to_owned());
            }
            continue;
        }
        resolved = Resolved { path: next, stat: found };
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), "x").unwrap();
        for (target, name) in [
            ("a/b", "rel"),
            ("/a/b", "abs"),
            ("../../../a", "up"),
            ("no/where", "dangling"),
            ("loop", "loop"),
        ] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        let root = std::fs::File::open(dir.path()).unwrap().into();
        (dir, root)
    }

    #[test]
    fn links_stay_inside() {
        let (_dir, root) = tree();
        for (path, found) in [
            ("rel/f", "a/b/f"),
            ("/abs/f", "a/b/f"),
            ("up/b/f", "a/b/f"),
            ("../../a", "a"),
            ("rel/..", "a"),
            ("dangling/x", "no/where/x"),
            ("new/x/../y", "new/y"),
            ("/", ""),
        ] {
            let resolved = resolve(root.as_fd(), Path::new(path), true).unwrap();
            assert_eq!(resolved.path, Path::new(found), "{path}");
        }
        assert_eq!(resolve(root.as_fd(), Path::new("rel"), false).unwrap().path, Path::new("rel"));
        let looping = resolve(root.as_fd(), Path::new("loop"), true).unwrap_err();
        assert_eq!(looping.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        let through_file = resolve(root.as_fd(), Path::new("a/b/f/g"), true).unwrap_err();
        assert_eq!(through_file.raw_os_error(), Some(Errno::NOTDIR.raw_os_error()));
    }

    #[test]
    fn opening_refuses_links_and_ways_out() {
        let (_dir, root) = tree();
        let read = |path: &str| open(root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty());
        assert!(read("a/b/f").is_ok());
        assert!(read("").is_ok());
        assert!(read("rel/f").is_err());
        assert!(read("../a").is_err());
        let stepwise =
            |path: &str| open_stepwise(root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty());
        assert!(stepwise("a/b/f").is_ok());
        assert!(stepwise("rel/f").is_err());
        assert!(stepwise("../a").is_err());
    }
}
