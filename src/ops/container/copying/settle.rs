//! Files on their way to their names, in directories that others may change at the same time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Dev, FallocateFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// A file that was just made and cannot be opened: a link, a pipe, a device. Its attributes are set by descriptor: a
/// process in the container that puts a link to a file of the host in its place must not have that file changed.
pub(super) struct Made(OwnedFd);

impl Made {
    /// Take hold of `name`; `None` when that is no longer what was made: one name of that kind and device number.
    pub(super) fn open(
        dir: &OwnedFd,
        name: &OsStr,
        kind: FileType,
        device: Dev,
    ) -> Result<Option<Self>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let same = FileType::from_raw_mode(stat.st_mode) == kind
            && stat.st_nlink == 1
            && (device == 0 || stat.st_rdev == device);
        Ok(same.then_some(Self(file)))
    }

    /// Set its owner.
    pub(super) fn chown(&self, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
        rustix::fs::chownat(&self.0, "", uid, gid, AtFlags::EMPTY_PATH)
    }

    /// Set its mode, of all but a link.
    pub(super) fn chmod(&self, mode: Mode) -> Result<(), Errno> {
        // `fchmod` takes no such descriptor.
        rustix::fs::chmod(format!("/proc/self/fd/{}", self.0.as_raw_fd()), mode)
    }
}

/// The written file, which is called `temporary`, takes its name. What is mounted there (a container's /etc/hosts)
/// cannot be replaced, only written.
pub(super) fn settle(dir: &OwnedFd, file: &mut File, temporary: &OsStr, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat(dir, temporary, dir, name) {
        Err(Errno::BUSY) => {}
        other => return other,
    }
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let there = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&there)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::BUSY);
    }
    overwrite(file, &mut File::from(there))?;
    match rustix::fs::unlinkat(dir, temporary, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Give one file the content of another. It is never empty on the way: the space is asked for before the first byte
/// changes, and the length goes last. The content is read from the descriptor, whatever became of its name.
fn overwrite(from: &mut File, to: &mut File) -> Result<(), Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let size = from.metadata().map_err(errno)?.len();
    if size > 0 {
        match rustix::fs::fallocate(&*to, FallocateFlags::KEEP_SIZE, 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error),
        }
    }
    from.seek(SeekFrom::Start(0)).map_err(errno)?;
    to.seek(SeekFrom::Start(0)).map_err(errno)?;
    let copied = std::io::copy(from, to).map_err(errno)?;
    to.set_len(copied).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::{Entry, Kind, Writer};
    use crate::ops::container::copying::{Owners, Wanted, unpack};
    use crate::sys::RootDir;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn open_dir(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn canary(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("canary");
        std::fs::write(&path, "host").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn only_what_was_made_is_taken_hold_of() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let canary = canary(outside.path());
        let dir = open_dir(inside.path());
        symlink(&canary, inside.path().join("link")).unwrap();
        std::fs::hard_link(&canary, inside.path().join("hard")).unwrap();
        for name in ["link", "hard", "none"] {
            assert!(Made::open(&dir, name.as_ref(), FileType::Fifo, 0).unwrap().is_none(), "{name}");
        }
        rustix::fs::mknodat(&dir, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
        let made = Made::open(&dir, "fifo".as_ref(), FileType::Fifo, 0).unwrap().unwrap();
        // Replaced after that: the pipe is changed, not what took its name.
        std::fs::rename(inside.path().join("fifo"), inside.path().join("away")).unwrap();
        symlink(&canary, inside.path().join("fifo")).unwrap();
        made.chmod(Mode::from_raw_mode(0o777)).unwrap();
        assert_eq!((mode(&canary), mode(&inside.path().join("away"))), (0o600, 0o777));
    }

    #[test]
    fn links_put_in_the_place_of_pipes_change_no_file_outside() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let canary = canary(outside.path());
        let mut tar = Vec::new();
        let mut writer = Writer::new(&mut tar);
        for number in 0..500 {
            let entry = Entry { mode: 0o777, ..Entry::new(format!("{number}"), Kind::Fifo) };
            writer.append(&entry, &mut std::io::empty()).unwrap();
        }
        writer.finish().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for entry in std::fs::read_dir(inside.path()).unwrap().flatten() {
                        if entry.file_name().to_string_lossy().starts_with(".strate-cp-") {
                            let link = inside.path().join("link");
                            let _ = symlink(&canary, &link);
                            let _ = std::fs::rename(&link, entry.path());
                        }
                    }
                }
            });
            let root = open_dir(inside.path());
            for _ in 0..10 {
                // It may fail, when it sees what happens.
                let _ = unpack(
                    &mut tar.as_slice(),
                    RootDir::new(root.as_fd()),
                    &Wanted::new("/"),
                    None,
                    Owners::Own,
                );
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(mode(&canary), 0o600);
    }

    #[test]
    fn a_file_is_overwritten_from_one_that_has_no_name_any_more() {
        let dir = tempfile::tempdir().unwrap();
        for (old, new) in [("longer than that", "new"), ("old", "longer than that"), ("old", "")] {
            let mut from = tempfile::tempfile_in(dir.path()).unwrap();
            std::io::Write::write_all(&mut from, new.as_bytes()).unwrap();
            let there = dir.path().join("there");
            std::fs::write(&there, old).unwrap();
            overwrite(&mut from, &mut File::options().write(true).open(&there).unwrap()).unwrap();
            assert_eq!(std::fs::read_to_string(&there).unwrap(), new);
        }
    }
}
