//! What a tree takes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use super::read_names;
use std::os::fd::AsFd;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Bytes of the regular files below a directory, hard links counted once. What cannot be read counts as nothing, and
/// other file systems mounted below are not entered. One directory is open at a time, however deep the tree goes.
#[must_use]
pub fn size(top: &Path) -> u64 {
    let Some(mut walk) = Walk::begin(top) else { return 0 };
    let (mut bytes, mut seen) = (0_u64, HashSet::new());
    while let Some(stat) = walk.next() {
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && (stat.st_nlink == 1 || seen.insert(stat.st_ino))
        {
            bytes = bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
        }
    }
    bytes
}

/// A walk that goes up by `..`, and ends where that does not lead back to where it came from: somebody moved what it
/// walks through.
struct Walk {
    dir: OwnedFd,
    device: u64,
    levels: Vec<Level>,
}

struct Level {
    inode: u64,
    names: Vec<OsString>,
}

#[allow(clippy::unnecessary_cast, reason = "their width differs between architectures")]
fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

impl Walk {
    fn begin(top: &Path) -> Option<Self> {
        let dir = rustix::fs::openat(CWD, top, DIRECTORY, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&dir).ok()?;
        let level = Level::read(&dir, &stat);
        Some(Self { dir, device: device(&stat), levels: vec![level] })
    }

    /// The status of the next thing that is no directory.
    fn next(&mut self) -> Option<Stat> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.pop() else {
                self.leave()?;
                continue;
            };
            let Ok(stat) = rustix::fs::statat(&self.dir, &*name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Some(stat);
            }
            if let Ok(dir) = rustix::fs::openat(&self.dir, &*name, DIRECTORY, Mode::empty())
                && let Ok(stat) = rustix::fs::fstat(&dir)
                && device(&stat) == self.device
            {
                self.levels.push(Level::read(&dir, &stat));
                self.dir = dir;
            }
        }
    }

    fn leave(&mut self) -> Option<()> {
        self.levels.pop();
        let above = self.levels.last()?;
        let dir = rustix::fs::openat(&self.dir, "..", DIRECTORY, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&dir).ok()?;
        (stat.st_ino == above.inode && device(&stat) == self.device).then(|| self.dir = dir)
    }
}

impl Level {
    fn read(dir: &OwnedFd, stat: &Stat) -> Self {
        let names = read_names(dir.as_fd()).unwrap_or_default();
        Self { inode: stat.st_ino, names: names.into_iter().map(|name| name.name).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_files_once_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("t");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/f"), [0; 1000]).unwrap();
        std::fs::hard_link(top.join("a/b/f"), top.join("g")).unwrap();
        std::fs::write(top.join("a/h"), [0; 24]).unwrap();
        std::fs::write(dir.path().join("outside"), [0; 5000]).unwrap();
        std::os::unix::fs::symlink("../outside", top.join("link")).unwrap();
        std::os::unix::fs::symlink("..", top.join("a/up")).unwrap();
        assert_eq!(size(&top), 1024);
        assert_eq!(size(&top.join("link")), 0);
        assert_eq!(size(&top.join("none")), 0);
    }

    #[test]
    fn no_depth_is_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deep", DIRECTORY, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::openat(&at, "f", flags, Mode::RUSR).unwrap();
        rustix::fs::ftruncate(&file, 77).unwrap();
        assert_eq!(size(dir.path()), 77);
        super::super::remove_path(&dir.path().join("deep")).unwrap();
    }
}
