//! A new volume gets what the image has at its mount point, as docker does it.
//!
//! The content is copied to `fill.new` beside the data, synced, and renamed to `fill`: from then on the filling is
//! decided. Its entries move into the data one by one, what is there already wins, and `fill` goes. Whoever uses the
//! volume next completes a `fill` that is still there and removes a `fill.new`: a volume is never taken for filled that
//! is not, and the data directory itself stays the one that others may have mounted.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::copy::{attributes, copy_tree};
use super::{Backing, Volume};
use crate::storage::{Error, Store};
use crate::sys::atomic::{Durability, replace_file, sync_dir, sync_file_system};
use crate::sys::{RootDir, SysError, tree};

/// What a mount takes from the image.
#[derive(Debug, Clone, Copy)]
pub struct ImageContent<'a> {
    /// The tree of the image.
    pub root: BorrowedFd<'a>,
    /// The mount point in it.
    pub target: &'a str,
}

/// Where a volume's files are, and what is being brought there.
pub(super) struct Places {
    pub(super) data: PathBuf,
    fill: PathBuf,
    staged: PathBuf,
    /// What says which directory is the one that is being brought in, where others can make one of its name.
    identity: Option<PathBuf>,
}

impl Volume {
    /// The places of a volume that has files; `None` for memory.
    pub(super) fn places(&self) -> Result<Option<Places>, Error> {
        Ok(match self.backing()? {
            Backing::Data { path, .. } => {
                let (fill, staged) = (self.dir.join("fill"), self.dir.join("fill.new"));
                Some(Places { data: path, fill, staged, identity: None })
            }
            // Renames work within one file system only: here it is the host's directory itself.
            Backing::Bind { path, .. } => Some(Places {
                fill: path.join(".strate-fill"),
                staged: path.join(".strate-fill.new"),
                data: path,
                identity: Some(self.dir.join("filling")),
            }),
            Backing::Tmpfs { .. } => None,
        })
    }

    /// Make the volume ready for a container: complete what somebody else began and, when it is empty, fill it with
    /// what the image has. With `durable` the content outlives a power cut from here on. A volume in memory has nothing
    /// to be made ready.
    ///
    /// # Errors
    /// When the image's files cannot be read or the volume not be written.
    pub fn prepare(
        &self,
        store: &Store,
        image: Option<ImageContent<'_>>,
        durable: bool,
    ) -> Result<(), Error> {
        let Some(places) = self.places()? else { return Ok(()) };
        let Some(image) = image.filter(|_| places.is_empty()) else {
            return if places.is_clean() { Ok(()) } else { self.complete(store, &places, durable) };
        };
        let Ok(source) = RootDir::new(image.root).open_dir(image.target.trim_start_matches('/')) else {
            return Ok(()); // the image has no such directory
        };
        let _lock = self.lock(store)?;
        places.complete(durable)?;
        if !places.is_empty() {
            return Ok(()); // somebody was faster
        }
        let keeps_owner = matches!(self.backing()?, Backing::Data { owner: Some(_), .. });
        places.fill(source, keeps_owner, durable)
    }

    fn complete(&self, store: &Store, places: &Places, durable: bool) -> Result<(), Error> {
        let _lock = self.lock(store)?;
        places.complete(durable)
    }
}

impl Places {
    /// Nothing in it, and nothing on its way.
    fn is_empty(&self) -> bool {
        let ours = |name: &OsStr| name == ".strate-fill.new";
        self.is_decided_clean()
            && fs::read_dir(&self.data)
                .is_ok_and(|entries| entries.flatten().all(|entry| ours(&entry.file_name())))
    }

    fn is_decided_clean(&self) -> bool {
        match identity(CWD, &self.fill) {
            Ok(found) => !self.is_ours(&found),
            Err(_) => true,
        }
    }

    /// Whether what has the name of `fill` is what we put there: in a directory of the host anybody may have made it, who
    /// would have its owner and mode given to that directory.
    fn is_ours(&self, found: &str) -> bool {
        let Some(path) = &self.identity else { return true };
        fs::read_to_string(path).is_ok_and(|text| text == found)
    }

    /// Write down which directory it is, before it gets the name of `fill`: the one that was made here, whatever has its
    /// name by now.
    fn identify(&self, staged: &OwnedFd, durable: bool) -> Result<(), Error> {
        let Some(path) = &self.identity else { return Ok(()) };
        let text = identity(staged, "").map_err(|error| self.failed(error))?;
        let how = if durable { Durability::Durable } else { Durability::Fast };
        Ok(replace_file(path, &path.with_extension("new"), text.as_bytes(), how)?)
    }

    fn is_clean(&self) -> bool {
        self.is_decided_clean() && fs::symlink_metadata(&self.staged).is_err()
    }

    fn failed(&self, error: impl Into<io::Error>) -> Error {
        SysError::path("copy the image's files to", &self.data, error).into()
    }

    fn fill(&self, source: OwnedFd, keeps_owner: bool, durable: bool) -> Result<(), Error> {
        if tree::sorted_names(&source)?.is_empty() {
            // Docker gives even an empty one the owner and mode that the image's directory has.
            return if keeps_owner {
                Ok(())
            } else {
                open(&self.data).and_then(|data| take_over(&source, &data)).map_err(|e| self.failed(e))
            };
        }
        let staged = make_private(&self.staged).map_err(|e| self.failed(e))?;
        let copied = staged.try_clone().and_then(|staged| copy_tree(source, staged));
        // Who made the volume may have said whose it is.
        let copied = copied.and_then(|()| match keeps_owner {
            true => take_over(&open(&self.data)?, &staged),
            false => Ok(()),
        });
        if let Err(error) = copied {
            tree::remove_path(&self.staged)?;
            return Err(self.failed(error));
        }
        if durable {
            sync_file_system(&self.staged)?;
        }
        self.identify(&staged, durable)?;
        fs::rename(&self.staged, &self.fill).map_err(|error| self.failed(error))?;
        if let Some(above) = self.fill.parent().filter(|_| durable) {
            sync_dir(above)?;
        }
        self.complete(durable)
    }

    /// Bring in what is decided, remove what is not.
    pub(super) fn complete(&self, durable: bool) -> Result<(), Error> {
        tree::remove_path(&self.staged)?;
        if self.is_decided_clean() {
            return self.forget_identity();
        }
        let fill = open(&self.fill).map_err(|error| self.failed(error))?;
        if !self.is_ours(&identity(&fill, "").map_err(|error| self.failed(error))?) {
            return Ok(()); // swapped just now
        }
        let data = open(&self.data).map_err(|error| self.failed(error))?;
        for entry in tree::sorted_names(&fill)? {
            match rustix::fs::renameat_with(&fill, &*entry.name, &data, &*entry.name, RenameFlags::NOREPLACE)
            {
                Ok(()) => {}
                Err(Errno::EXIST) => tree::remove_all(&fill, &entry.name)?,
                Err(error) => return Err(self.failed(error)),
            }
        }
        take_over(&fill, &data).map_err(|error| self.failed(error))?;
        if durable {
            sync_dir(&self.data)?;
        }
        fs::remove_dir(&self.fill).map_err(|error| self.failed(error))?;
        self.forget_identity()
    }

    /// Nothing is decided: what was noted of it names a directory that is gone.
    fn forget_identity(&self) -> Result<(), Error> {
        match self.identity.as_ref().map_or(Ok(()), fs::remove_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }
}

/// Which directory something is. Its inode's number may be another's once it is gone; when it was made, nobody can set.
pub(super) fn identity(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<String> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let status = rustix::fs::statx(dir, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
    let (major, minor, inode) = (status.stx_dev_major, status.stx_dev_minor, status.stx_ino);
    Ok(match StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::BTIME) {
        true => {
            format!("{major}:{minor} {inode} {}.{:09}\n", status.stx_btime.tv_sec, status.stx_btime.tv_nsec)
        }
        false => format!("{major}:{minor} {inode}\n"),
    })
}

/// Make a directory that is nobody else's, where others may be able to put one in its place: what comes back is empty,
/// belongs to us and lets nobody else in, and is worked with by its descriptor alone. What an access list of the
/// directory above would have given it is taken away.
pub(super) fn make_private(path: &Path) -> io::Result<OwnedFd> {
    DirBuilder::new().mode(0o700).create(path)?;
    let dir = open(path)?;
    for list in ["system.posix_acl_default", "system.posix_acl_access"] {
        match rustix::fs::fremovexattr(&dir, list) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let stat = rustix::fs::fstat(&dir)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
    let is_empty = tree::sorted_names(&dir).is_ok_and(|names| names.is_empty());
    if is_ours && is_empty {
        return Ok(dir);
    }
    Err(io::Error::other(format!("somebody else put something in the place of `{}`", path.display())))
}

/// Give a directory what another one has of its own: owner, mode, attributes, times.
fn take_over(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    attributes(from, to, &rustix::fs::fstat(from)?)
}

pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
