//! Files that have no name until they are whole (`O_TMPFILE`, `man 2 open`): whatever ends the process, nothing is left
//! behind, and nobody can have planted anything under a name that does not exist.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{SysError, SysResult, atomic};

/// How often another random name is tried.
const NAME_TRIES: u32 = 32;

/// A file on its way to its name. Where the file system knows no unnamed files it has a random one, which goes away
/// when this is dropped.
#[derive(Debug)]
pub struct UnnamedFile {
    file: File,
    dir: PathBuf,
    /// The random name, where one was needed.
    named: Option<PathBuf>,
}

impl UnnamedFile {
    /// Make a file in `dir`, with the mode that the umask leaves of `0666`.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn create_in(dir: &Path) -> SysResult<Self> {
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
            Ok(fd) => return Ok(Self { file: fd.into(), dir: dir.to_owned(), named: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(error) => return Err(SysError::path("create a file in", dir, error)),
        }
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let (path, fd) = with_random_name(dir, |path| rustix::fs::openat(CWD, path, flags, mode))?;
        Ok(Self { file: fd.into(), dir: dir.to_owned(), named: Some(path) })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Give it its name, in one step and whatever had that name before. It should lie in the directory that the file
    /// was made in.
    ///
    /// # Errors
    /// When the name cannot be given; what had it is untouched then.
    pub fn publish(mut self, target: &Path) -> SysResult<()> {
        let temp = match self.named.take() {
            Some(path) => path,
            None => self.link()?,
        };
        let renamed = rustix::fs::rename(&temp, target);
        if renamed.is_err() {
            let _ = rustix::fs::unlink(&temp);
        }
        renamed.map_err(|error| SysError::path("replace", target, error))
    }

    /// The same for a file that must outlive a power cut: on disk, then under its name, then its directory on disk.
    ///
    /// # Errors
    /// When a step fails; but for the last, what had the name is untouched then.
    pub fn publish_durably(self, target: &Path) -> SysResult<()> {
        atomic::sync_file(&self.file, target)?;
        let dir = self.dir.clone();
        self.publish(target)?;
        atomic::sync_dir(&dir)
    }

    /// A random name: `linkat` never replaces, so it takes a link and a rename.
    fn link(&self) -> SysResult<PathBuf> {
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |path: &Path| rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW);
        with_random_name(&self.dir, link).map(|(path, ())| path)
    }
}

impl Drop for UnnamedFile {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            let _ = rustix::fs::unlink(path);
        }
    }
}

fn with_random_name<T>(dir: &Path, make: impl Fn(&Path) -> Result<T, Errno>) -> SysResult<(PathBuf, T)> {
    let failed = |error: Errno| SysError::path("create a file in", dir, error);
    for _ in 0..NAME_TRIES {
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(failed)?;
        let path = dir.join(format!(".strate-{:016x}", u64::from_ne_bytes(random)));
        match make(&path) {
            Ok(made) => return Ok((path, made)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(Errno::EXIST))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        fs::write(&target, "old").unwrap();
        let dropped = UnnamedFile::create_in(dir.path()).unwrap();
        dropped.file().write_all(b"lost").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let kept = UnnamedFile::create_in(dir.path()).unwrap();
        kept.file().write_all(b"new").unwrap();
        kept.publish(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(UnnamedFile::create_in(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_link_at_the_target_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (canary, target) = (dir.path().join("canary"), dir.path().join("out"));
        fs::write(&canary, "safe").unwrap();
        std::os::unix::fs::symlink(&canary, &target).unwrap();
        let file = UnnamedFile::create_in(dir.path()).unwrap();
        file.publish(&target).unwrap();
        assert_eq!(fs::read_to_string(&canary).unwrap(), "safe");
        assert!(fs::symlink_metadata(&target).unwrap().is_file());
    }
}
