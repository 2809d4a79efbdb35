//! What a tree takes: on disk, which is what every size of the store means, and apparently, as its programs see it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};

use super::read_names;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Bytes of a block as `stat` counts them, whatever the file system's own are (`man 2 stat`).
const BLOCK: u64 = 512;

/// Bytes on disk of what a path names: the blocks that the file system gave it, and of a directory those of all below it
/// too, files with several names once. Links are not followed, mounts not entered, and what cannot be read or is not
/// there counts as nothing. One directory is open at a time, however deep or wide the tree is.
#[must_use]
pub fn on_disk(path: &Path) -> u64 {
    let Ok(own) = status(CWD, path) else { return 0 };
    let mut bytes = own.stx_blocks * BLOCK;
    let Some(mut walk) = Walk::begin(path) else { return bytes };
    let mut seen = HashSet::new();
    while let Some(status) = walk.next() {
        if kind(&status) == FileType::Directory || status.stx_nlink <= 1 || seen.insert(status.stx_ino) {
            bytes = bytes.saturating_add(status.stx_blocks * BLOCK);
        }
    }
    bytes
}

/// Bytes on disk of one file or directory alone.
#[must_use]
pub fn blocks(meta: &Metadata) -> u64 {
    meta.blocks() * BLOCK
}

/// Apparent bytes: the lengths of the regular files below a directory, hard links counted once. Holes count, and what the
/// file system needs beside the content does not. What is left out is what [`on_disk`] leaves out.
#[must_use]
pub fn apparent(top: &Path) -> u64 {
    let Some(mut walk) = Walk::begin(top) else { return 0 };
    let (mut bytes, mut seen) = (0_u64, HashSet::new());
    while let Some(status) = walk.next() {
        if kind(&status) == FileType::RegularFile && (status.stx_nlink <= 1 || seen.insert(status.stx_ino)) {
            bytes = bytes.saturating_add(status.stx_size);
        }
    }
    bytes
}

/// A walk that goes up by `..`, and ends where that does not lead back to where it came from: somebody moved what it
/// walks through.
struct Walk {
    dir: OwnedFd,
    levels: Vec<Level>,
}

struct Level {
    place: (u32, u32, u64),
    names: Vec<OsString>,
}

fn status(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS;
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH, wanted)
}

fn kind(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
}

fn place(status: &Statx) -> (u32, u32, u64) {
    (status.stx_dev_major, status.stx_dev_minor, status.stx_ino)
}

impl Walk {
    fn begin(top: &Path) -> Option<Self> {
        let dir = rustix::fs::openat(CWD, top, DIRECTORY, Mode::empty()).ok()?;
        let level = Level::read(&dir, &status(&dir, "").ok()?);
        Some(Self { dir, levels: vec![level] })
    }

    /// The status of the next name.
    fn next(&mut self) -> Option<Statx> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.pop() else {
                self.leave()?;
                continue;
            };
            let Ok(found) = status(&self.dir, &*name) else { continue };
            // Linux 5.8 and later tell; before, another device does.
            let device = self.levels.first().map(|top| (top.place.0, top.place.1));
            if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
                || device != Some((found.stx_dev_major, found.stx_dev_minor))
            {
                continue;
            }
            if kind(&found) == FileType::Directory
                && let Ok(dir) = rustix::fs::openat(&self.dir, &*name, DIRECTORY, Mode::empty())
                && let Ok(opened) = status(&dir, "")
                && place(&opened) == place(&found)
            {
                self.levels.push(Level::read(&dir, &opened));
                self.dir = dir;
            }
            return Some(found);
        }
    }

    fn leave(&mut self) -> Option<()> {
        self.levels.pop();
        let above = self.levels.last()?;
        let dir = rustix::fs::openat(&self.dir, "..", DIRECTORY, Mode::empty()).ok()?;
        (place(&status(&dir, "").ok()?) == above.place).then(|| self.dir = dir)
    }
}

impl Level {
    fn read(dir: &OwnedFd, status: &Statx) -> Self {
        let names = read_names(dir.as_fd()).unwrap_or_default();
        Self { place: place(status), names: names.into_iter().map(|name| name.name).collect() }
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
        assert_eq!(apparent(&top), 1024);
        assert_eq!(apparent(&top.join("link")), 0);
        assert_eq!(apparent(&top.join("none")), 0);
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
        assert_eq!(apparent(dir.path()), 77);
        super::super::remove_path(&dir.path().join("deep")).unwrap();
    }
}
