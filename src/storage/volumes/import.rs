//! A tar's files are brought into a volume.
//!
//! The archive is unpacked aside first, where nothing of it can lead anywhere else, and to its end: a broken one changes
//! nothing. Then its tree moves into the volume name by name: directories become one, everything else is replaced.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, RenameFlags};
use rustix::io::Errno;

use super::copy::attributes;
use super::fill::{make_private, open};
use super::{Backing, Volume};
use crate::layer::{self, ApplyOptions};
use crate::storage::{Error, Store};
use crate::sys::atomic::sync_file_system;
use crate::sys::{RootDir, SysError, tree};

/// What was brought in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Import {
    /// Entries of the archive.
    pub entries: u64,
    /// Owners that could not be given, as this id map lacks them.
    pub unmapped: usize,
}

/// Limits as for layers: an archive without end is not taken in.
const MAX_ENTRIES: u64 = 10_000_000;

impl Store {
    /// Bring the files of an uncompressed tar into a volume.
    ///
    /// # Errors
    /// [`Error::Import`] for an archive that is none, [`Error::VolumeInMemory`], or when the volume cannot be written.
    pub fn import_volume(&self, volume: &Volume, tar: &mut dyn Read) -> Result<Import, Error> {
        let abilities = self.writable()?;
        let Some(places) = volume.places()? else {
            return Err(Error::VolumeInMemory(volume.record.name.clone()));
        };
        let staged = match volume.backing()? {
            Backing::Bind { path, .. } => path.join(format!(".strate-import-{}", std::process::id())),
            _ => self.stage_path("import")?,
        };
        let aside = make_private(&staged).map_err(|error| SysError::path("create", &staged, error))?;
        let options =
            ApplyOptions { mapped_ids: abilities.mapped_ids, max_entries: MAX_ENTRIES, max_bytes: u64::MAX };
        let result = unpack(&aside, tar, &options).and_then(|(import, implied)| {
            let _lock = volume.lock(self)?;
            places.complete(true)?;
            merge(&aside, &places.data, &implied)?;
            sync_file_system(&places.data)?;
            Ok(import)
        });
        let removed = tree::remove_path(&staged);
        let import = result?;
        removed?;
        Ok(import)
    }
}

/// Unpack into an empty directory; directories that the archive uses without naming them come back.
fn unpack(
    root: &OwnedFd,
    tar: &mut dyn Read,
    options: &ApplyOptions,
) -> Result<(Import, Vec<PathBuf>), Error> {
    let applied = layer::apply_plain(tar, root.as_fd(), options).map_err(Error::Import)?;
    if let Some((name, target)) = applied.foreign_links.first() {
        let (name, target) = (name.clone(), target.clone());
        return Err(Error::Import(layer::Error::LinkTarget { name, target }));
    }
    let import = Import { entries: applied.entries, unmapped: applied.owners.iter().count() };
    let mut implied = applied.implied;
    if !applied.names_root {
        implied.push(PathBuf::new());
    }
    Ok((import, implied))
}

/// Move everything below `from` to where it belongs below `to`.
fn merge(from: &OwnedFd, to: &Path, implied: &[PathBuf]) -> Result<(), Error> {
    let failed = |path: &Path, error: Errno| Error::from(SysError::path("bring in", path, error));
    let to = open(to).map_err(|error| SysError::path("open", to, error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dirs = vec![PathBuf::new()];
    while let Some(path) = dirs.pop() {
        // A container may be at work in the volume: no name of it leads out of it.
        let source =
            RootDir::new(from.as_fd()).open_plain(&path, flags).map_err(|error| failed(&path, error))?;
        let target =
            RootDir::new(to.as_fd()).open_plain(&path, flags).map_err(|error| failed(&path, error))?;
        for entry in tree::sorted_names(&source)? {
            let name = path.join(&entry.name);
            if !place(source.as_fd(), target.as_fd(), &entry.name).map_err(|error| failed(&name, error))? {
                dirs.push(name);
            }
        }
        if !implied.contains(&path) {
            let stat = rustix::fs::fstat(&source).map_err(|error| failed(&path, error))?;
            attributes(&source, &target, &stat).map_err(|error| SysError::path("bring in", &path, error))?;
        }
    }
    Ok(())
}

/// Move one name; `false` when it is a directory on both sides, which become one.
fn place(
    from: std::os::fd::BorrowedFd<'_>,
    to: std::os::fd::BorrowedFd<'_>,
    name: &std::ffi::OsStr,
) -> Result<bool, Errno> {
    let is_dir = |dir| {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok::<_, Errno>(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    // A program in the volume may put something there again and again.
    for _ in 0..16 {
        match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other.map(|()| true),
        }
        let there = match is_dir(to) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        match (is_dir(from)?, there) {
            (true, true) => return Ok(false),
            (false, false) => match rustix::fs::renameat(from, name, to, name) {
                Err(Errno::ISDIR) => {}
                other => return other.map(|()| true),
            },
            _ => tree::remove_all(to, name)
                .map_err(|error| error.errno().map_or(Errno::IO, Errno::from_raw_os_error))?,
        }
    }
    Err(Errno::BUSY)
}
