//! Files that are either the old or the new one, whenever the machine stops.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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
        file.sync_data().map_err(|error| SysError::path("sync", path, error))?;
    }
    Ok(())
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
    let failed = |error: std::io::Error| SysError::path("sync the file system of", path, error);
    let dir = File::open(path).map_err(failed)?;
    rustix::fs::syncfs(&dir).map_err(|error| failed(error.into()))
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
