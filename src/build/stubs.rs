//! Places for mounts that the image does not have: made before a step, and gone after it when nothing was put there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, statat, unlinkat};
use rustix::io::Errno;

use super::beneath::{self, kind};
use super::put::{mtime, set_mtime};

/// What was made.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    /// In the order of making.
    made: Vec<(PathBuf, FileType)>,
}

impl Stubs {
    /// Make what lacks of `target`, a directory or an empty file, without a trace in the times of what is there.
    pub(super) fn make(&mut self, root: BorrowedFd<'_>, target: &str, is_dir: bool) -> io::Result<()> {
        let found = beneath::resolve(root, Path::new(target), true)?;
        if found.stat.is_some() {
            return Ok(());
        }
        let components: Vec<Component<'_>> = found.path.components().collect();
        let mut path = PathBuf::new();
        for (at, component) in components.iter().enumerate() {
            let parent = path.clone();
            path.push(component);
            if beneath::stat(root, &path)?.is_some() {
                continue;
            }
            let dir = beneath::open(root, &parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            let before = mtime(&rustix::fs::fstat(&dir)?);
            let file_type = if at + 1 == components.len() && !is_dir {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                rustix::fs::openat(
                    &dir,
                    component.as_os_str(),
                    flags | OFlags::CLOEXEC,
                    Mode::from_raw_mode(0o644),
                )?;
                FileType::RegularFile
            } else {
                mkdirat(&dir, component.as_os_str(), Mode::from_raw_mode(0o755))?;
                rustix::fs::chmodat(
                    &dir,
                    component.as_os_str(),
                    Mode::from_raw_mode(0o755),
                    AtFlags::empty(),
                )?;
                FileType::Directory
            };
            set_mtime(dir.as_fd(), before)?;
            self.made.push((path.clone(), file_type));
        }
        Ok(())
    }

    /// Remove what is still empty. The times of the directories above stay as the step left them.
    pub(super) fn clear(self, root: BorrowedFd<'_>) -> io::Result<()> {
        for (path, file_type) in self.made.into_iter().rev() {
            let parent = path.parent().unwrap_or(Path::new(""));
            let name = path.file_name().unwrap_or_default();
            let dir = match beneath::open(root, parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
                // The step put something else in the place of a directory above: what lies behind is not ours.
                Err(error) if is_replaced(&error) => continue,
                other => other?,
            };
            let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let untouched = kind(&stat) == file_type
                && (file_type == FileType::Directory || (stat.st_size == 0 && stat.st_nlink == 1));
            if !untouched {
                continue;
            }
            let before = mtime(&rustix::fs::fstat(&dir)?);
            let is_dir = file_type == FileType::Directory;
            let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(&dir, name, flags) {
                Ok(()) => set_mtime(dir.as_fd(), before)?,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Whether a path ends at nothing, or at a link or a file that stands where a directory was.
fn is_replaced(error: &io::Error) -> bool {
    [Errno::LOOP, Errno::NOTDIR, Errno::NOENT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_places_go_and_filled_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        std::fs::File::open(dir.path().join("etc")).unwrap().set_modified(old).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let mut stubs = Stubs::default();
        stubs.make(root.as_fd(), "/etc/hosts", false).unwrap();
        stubs.make(root.as_fd(), "/new/a/b", true).unwrap();
        stubs.make(root.as_fd(), "/new/file", false).unwrap();
        std::fs::write(dir.path().join("new/kept"), "x").unwrap();
        stubs.clear(root.as_fd()).unwrap();
        assert!(!dir.path().join("etc/hosts").exists() && !dir.path().join("new/a").exists());
        assert!(dir.path().join("new/kept").exists());
        let etc = std::fs::metadata(dir.path().join("etc")).unwrap();
        assert_eq!(etc.modified().unwrap(), old);
    }
}
