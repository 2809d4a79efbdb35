//! What can only be done when every entry is there: links to later entries, deletions, and directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::create::{Place, times};
use super::{Applied, Error, Parent, Unpacker};
use crate::layer::whiteout;
use crate::sys::{SysError, xattr};

impl Unpacker<'_> {
    pub(super) fn finish(mut self) -> Result<Applied, Error> {
        self.late_links()?;
        for dir in std::mem::take(&mut self.opaques) {
            self.opaque(&dir)?;
        }
        for path in std::mem::take(&mut self.whiteouts) {
            self.whiteout(&path)?;
        }
        self.applied.implied = std::mem::take(&mut self.implied).into_iter().collect();
        self.applied.opaque_root = self.opaques.contains(Path::new(""));
        self.directories()?;
        Ok(self.applied)
    }

    fn late_links(&mut self) -> Result<(), Error> {
        // A link may wait for another: go round until nothing moves.
        loop {
            let waiting = std::mem::take(&mut self.links);
            let before = waiting.len();
            let mut left = Vec::new();
            for (real, target) in waiting {
                let dir = real.parent().unwrap_or(Path::new(""));
                let Some((parent, name)) = self.enter(dir)?.zip(real.file_name()) else { continue };
                let place = Place { parent, name, real: real.clone() };
                if !self.link(&place, &target)? {
                    left.push((real, target));
                }
            }
            if left.len() == before || left.is_empty() {
                self.applied.foreign_links = left;
                return Ok(());
            }
            self.links = left.into_iter().collect();
        }
    }

    /// Mark a directory as opaque; `self.opaques` then holds where it really is.
    fn opaque(&mut self, dir: &Path) -> Result<(), Error> {
        // Below something that is no directory nothing of the layers below is seen anyway.
        let Some(parent) = self.enter(dir)? else { return Ok(()) };
        mark(&open(&parent)?, whiteout::OPAQUE, whiteout::YES, &parent.path)?;
        self.opaques.insert(parent.path.clone());
        Ok(())
    }

    fn is_hidden(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| self.opaques.contains(above))
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), Error> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        if self.is_hidden(path) {
            return Ok(());
        }
        let Some(parent) = self.enter(dir)? else { return Ok(()) };
        let real = parent.path.join(name);
        if self.is_hidden(&real) {
            return Ok(());
        }
        let failed = |errno| Error::from(SysError::path("create whiteout", &real, errno));
        match rustix::fs::mknodat(&parent.fd, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => self.keep(&parent, name, &real),
            Err(Errno::PERM) => match attribute_whiteout(&parent, name, &real)? {
                true => Ok(()),
                false => self.keep(&parent, name, &real),
            },
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The layer deletes a name and has it: the entry wins, but of a directory below nothing shines through.
    fn keep(&mut self, parent: &Parent, name: &OsStr, real: &Path) -> Result<(), Error> {
        let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| SysError::path("stat", real, errno))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.opaque(real)?;
        }
        Ok(())
    }

    /// The directories that the archive does not name and that are to be given to root.
    fn unnamed(&self) -> BTreeSet<PathBuf> {
        if self.ids == (0, 0) || self.options.mapped_ids <= 1 {
            return BTreeSet::new();
        }
        let root = (!self.applied.names_root).then(PathBuf::new);
        self.applied.implied.iter().cloned().chain(root).collect()
    }

    /// Children before parents, as a mode may forbid to enter.
    fn directories(&mut self) -> Result<(), Error> {
        let unnamed = self.unnamed();
        for (path, meta) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let failed = |operation| move |errno, path: &PathBuf| SysError::path(operation, path, errno);
            let fd = self
                .root
                .open_plain(&path, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|errno| failed("open")(errno, &path))?;
            if unnamed.contains(&path) {
                // Whoever makes it may be another user than root, with root's powers.
                rustix::fs::fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT))
                    .map_err(|errno| failed("set the owner of")(errno, &path))?;
            }
            if meta.current != Some(meta.mode) {
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.mode))
                    .map_err(|errno| failed("set the mode of")(errno, &path))?;
            }
            rustix::fs::futimens(&fd, &times(meta.mtime))
                .map_err(|errno| failed("set the time of")(errno, &path))?;
        }
        Ok(())
    }
}

/// A whiteout where devices are forbidden: an empty file with an attribute, in a directory that says it has such files
/// (kernel documentation, overlayfs.rst, "Whiteouts and opaque directories"). False when the name is taken.
pub(super) fn attribute_whiteout(parent: &Rc<Parent>, name: &OsStr, real: &Path) -> Result<bool, Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent.fd.as_fd(), name, flags, Mode::from_raw_mode(0o600)) {
        Ok(fd) => fd,
        Err(Errno::EXIST) => return Ok(false),
        Err(errno) => return Err(SysError::path("create whiteout", real, errno).into()),
    };
    mark(&fd, whiteout::WHITEOUT, whiteout::YES, real)?;
    mark(&open(parent)?, whiteout::OPAQUE, whiteout::HAS_WHITEOUTS, &parent.path)?;
    Ok(true)
}

/// A descriptor that attributes can be set on, which `O_PATH` is not.
fn open(parent: &Parent) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&parent.fd, ".", flags, Mode::empty())
        .map_err(|errno| SysError::path("open", &parent.path, errno).into())
}

fn mark(fd: &OwnedFd, attribute: &str, value: &[u8], path: &Path) -> Result<(), Error> {
    xattr::set(fd, attribute.as_bytes(), value)
        .map_err(|errno| SysError::path("mark for overlayfs", path, errno).into())
}
