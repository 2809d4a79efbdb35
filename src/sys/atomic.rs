//! Files that are either the old or the new one, whenever the machine stops.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;

use super::{SysError, SysResult};

/// Whether a change must outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced before and after the rename.
    Durable,
    /// Not synced: atomic for other processes, but a power cut may lose it.
    Fast,
}

/// How this process makes durable what must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SyncMode {
    /// Each file and each directory is synced before anything points to it.
    #[default]
    Fsync,
    /// Content is synced all at once, with its file system, before a name is moved to it.
    Syncfs,
    /// Nothing is synced: what is made must not be missed after a power cut.
    None,
}

impl std::str::FromStr for SyncMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "syncfs" => Ok(Self::Syncfs),
            "none" => Ok(Self::None),
            _ => Err(()),
        }
    }
}

/// The mode of this process: a policy like its umask, which holds for every file that it writes.
static MODE: AtomicU8 = AtomicU8::new(SyncMode::Fsync as u8);

/// Choose how this process syncs; [`SyncMode::Fsync`] until then.
pub fn set_sync_mode(mode: SyncMode) {
    MODE.store(mode as u8, Ordering::Relaxed);
}

/// How this process syncs.
#[must_use]
pub fn sync_mode() -> SyncMode {
    match MODE.load(Ordering::Relaxed) {
        mode if mode == SyncMode::Syncfs as u8 => SyncMode::Syncfs,
        mode if mode == SyncMode::None as u8 => SyncMode::None,
        _ => SyncMode::Fsync,
    }
}

/// Replace `target` by a file with `bytes`: written to `temp` (on the same file system; an old one there is
/// overwritten), synced, renamed, directory synced.
///
/// # Errors
/// When a step fails; `target` is untouched then and `temp` is gone.
pub fn replace_file(target: &Path, temp: &Path, bytes: &[u8], durability: Durability) -> SysResult<()> {
    let result = write_new(temp, bytes, durability)
        .and_then(|()| fs::rename(temp, target).map_err(|error| SysError::path("replace", target, error)));
    if result.is_err() {
        let _ = fs::remove_file(temp);
    }
    result?;
    match (durability, target.parent()) {
        (Durability::Durable, Some(parent)) => sync_dir(parent),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8], durability: Durability) -> SysResult<()> {
    let mut file = create(path)?;
    file.write_all(bytes).map_err(|error| SysError::path("write", path, error))?;
    if durability == Durability::Durable {
        sync_file(&file, path)?;
    }
    Ok(())
}

/// Make the bytes of a file durable, which messages call `path`.
///
/// # Errors
/// When the disk fails.
pub fn sync_file(file: &File, path: &Path) -> SysResult<()> {
    if sync_mode() == SyncMode::None {
        return Ok(());
    }
    file.sync_data().map_err(|error| SysError::path("sync", path, error))
}

/// Write a file that others need not see whole and that may be lost, with mode 0644 at most.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> SysResult<()> {
    write_new(path, bytes, Durability::Fast)
}

/// Create (or empty) a regular file with mode 0644, whatever the umask allows beyond that.
///
/// # Errors
/// When it cannot be created.
pub fn create(path: &Path) -> SysResult<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)
        .map_err(|error| SysError::path("create", path, error))
}

/// Make the names in a directory durable.
///
/// # Errors
/// When the disk fails.
pub fn sync_dir(path: &Path) -> SysResult<()> {
    if sync_mode() == SyncMode::None {
        return Ok(());
    }
    let failed = |error: std::io::Error| SysError::path("sync", path, error);
    let dir = File::open(path).map_err(failed)?;
    match rustix::fs::fsync(&dir) {
        // Some file systems (FUSE, network) have nothing to sync in a directory and say so.
        Ok(()) | Err(Errno::INVAL | Errno::NOSYS) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Write everything of the file system that `path` lies on to disk (`man 2 syncfs`).
///
/// # Errors
/// When the disk fails: since Linux 5.8 also when an earlier write-back failed.
pub fn sync_file_system(path: &Path) -> SysResult<()> {
    if sync_mode() == SyncMode::None {
        return Ok(());
    }
    let failed = |error: std::io::Error| SysError::path("sync the file system of", path, error);
    let dir = File::open(path).map_err(failed)?;
    rustix::fs::syncfs(&dir).map_err(|error| failed(error.into()))
}

/// Make a directory and those above it that lack, with `mode`, and make their names durable.
///
/// # Errors
/// When one cannot be made.
pub fn create_dirs(path: &Path, mode: u32) -> SysResult<()> {
    create_dirs_as(path, mode, Durability::Durable)
}

/// [`create_dirs`], where `Fast` leaves the syncing of the directories above to the caller, who makes several.
///
/// # Errors
/// When one cannot be made.
pub fn create_dirs_as(path: &Path, mode: u32, durability: Durability) -> SysResult<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dirs_as(parent, mode, durability)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result.map_err(|error| SysError::path("create", path, error))?,
    }
    if durability == Durability::Durable { sync_dir(parent) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let (target, temp) = (dir.path().join("a"), dir.path().join("a.new"));
        for text in ["one", "two"] {
            replace_file(&target, &temp, text.as_bytes(), Durability::Durable).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
        }
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(replace_file(&dir.path().join("d"), &temp, b"x", Durability::Fast).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
