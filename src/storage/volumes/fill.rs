//! A new volume gets what the image has at its mount point, as docker does it.
//!
//! The content is copied to `fill.new` beside the data, synced, and renamed to `fill`: from then on the filling is
//! decided. Its entries move into the data one by one, what is there already wins, and `fill` goes. Whoever uses the
//! volume next completes a `fill` that is still there and removes a `fill.new`: a volume is never taken for filled that
//! is not, and the data directory itself stays the one that others may have mounted.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
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
        !fs::symlink_metadata(&self.fill).is_ok_and(|meta| self.is_ours(meta.dev(), meta.ino()))
    }

    /// Whether what has the name of `fill` is what we put there: in a directory of the host anybody may have made it, who
    /// would have its owner and mode given to that directory.
    fn is_ours(&self, device: u64, inode: u64) -> bool {
        let Some(path) = &self.identity else { return true };
        fs::read_to_string(path).is_ok_and(|text| text == identity_text(device, inode))
    }

    /// Write down which directory it is, before it gets the name of `fill`.
    fn identify(&self, durable: bool) -> Result<(), Error> {
        let Some(path) = &self.identity else { return Ok(()) };
        let meta = fs::symlink_metadata(&self.staged).map_err(|error| self.failed(error))?;
        let text = identity_text(meta.dev(), meta.ino());
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
                take_over(&source, &self.data).map_err(|e| self.failed(e))
            };
        }
        let staged = DirBuilder::new()
            .mode(0o700)
            .create(&self.staged)
            .and_then(|()| open(&self.staged))
            .map_err(|e| self.failed(e))?;
        let copied = staged.try_clone().and_then(|staged| copy_tree(source, staged));
        // Who made the volume may have said whose it is.
        let copied = copied.and_then(|()| match keeps_owner {
            true => take_over(&open(&self.data)?, &self.staged),
            false => Ok(()),
        });
        if let Err(error) = copied {
            tree::remove_path(&self.staged)?;
            return Err(self.failed(error));
        }
        if durable {
            sync_file_system(&self.staged)?;
        }
        self.identify(durable)?;
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
            return Ok(());
        }
        let fill = open(&self.fill).map_err(|error| self.failed(error))?;
        let stat = rustix::fs::fstat(&fill).map_err(|error| self.failed(error))?;
        if !self.is_ours(stat.st_dev, stat.st_ino) {
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
        take_over(&fill, &self.data).map_err(|error| self.failed(error))?;
        if durable {
            sync_dir(&self.data)?;
        }
        fs::remove_dir(&self.fill).map_err(|error| self.failed(error))?;
        // One that stays names an inode that is gone.
        self.identity.as_ref().map_or(Ok(()), fs::remove_file).or(Ok(()))
    }
}

fn identity_text(device: u64, inode: u64) -> String {
    format!("{device} {inode}\n")
}

/// Give a directory what another one has of its own: owner, mode, attributes, times.
fn take_over(from: &OwnedFd, to: &Path) -> io::Result<()> {
    attributes(from, &open(to)?, &rustix::fs::fstat(from)?)
}

pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
