//! Digests of what a step takes in: type, mode, owner, size, link target, device numbers, file capability and content
//! of every entry, and names below a directory. Times, inode numbers and hard links do not count, nor does where the
//! files lie.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use rustix::fs::{FileType, Mode, OFlags, Stat, fgetxattr, fstat, openat, readlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::beneath::kind;
use super::stat_cache::StatCache;
use super::tree::{Filter, Tree};

/// The one extended attribute that reaches image layers.
pub(super) const CAPABILITY: &str = "security.capability";
/// Large enough for every version of `security.capability` (`man 7 capabilities`).
const CAPABILITY_MAX: usize = 64;
/// How much of a file is read at once.
const READ_SIZE: usize = 256 << 10;

/// What stays the same all through one source.
struct Walk<'a> {
    top: &'a Path,
    filters: &'a [&'a dyn Filter],
}

/// Computes digests over one tree.
pub(super) struct Checksums<'a> {
    tree: &'a Tree,
    cache: Option<&'a Mutex<StatCache>>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Checksums<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checksums").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl<'a> Checksums<'a> {
    /// With a stat cache for trees that stay where they are between builds.
    pub(super) fn new(tree: &'a Tree, cache: Option<&'a Mutex<StatCache>>) -> Self {
        Self { tree, cache, buffer: Vec::new() }
    }

    /// The digest of what lies at a resolved path; the filters see paths relative to it, and do not apply to itself.
    pub(super) fn of(&mut self, path: &Path, stat: &Stat, filters: &[&dyn Filter]) -> io::Result<[u8; 32]> {
        if kind(stat) == FileType::Directory {
            let dir = self.tree.open(path, OFlags::DIRECTORY)?;
            let walk = Walk { top: path, filters };
            let digest = self.directory(dir.as_fd(), path, stat, true, &walk)?;
            return Ok(digest.unwrap_or_default());
        }
        let parent_path = path.parent().unwrap_or(Path::new(""));
        let parent = self.tree.open(parent_path, OFlags::PATH | OFlags::DIRECTORY)?;
        self.leaf(parent.as_fd(), path.file_name().map_or(Path::new("."), Path::new), path, stat)
    }

    /// The digest of a directory; none for one that is hidden and has nothing below that is not.
    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        stat: &Stat,
        wanted: bool,
        walk: &Walk<'_>,
    ) -> io::Result<Option<[u8; 32]>> {
        let mut hash = self.header(path, stat);
        let mut empty = true;
        for child in self.tree.children(dir, path)? {
            let below = child.path.strip_prefix(walk.top).unwrap_or(&child.path);
            let mut hiding = walk.filters.iter().filter(|filter| filter.hides(below)).peekable();
            let wanted = hiding.peek().is_none() && !child.hidden;
            let name = Path::new(&child.name);
            let digest = if kind(&child.stat) == FileType::Directory {
                if !wanted && !hiding.all(|filter| filter.may_show_below(below)) {
                    continue;
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(dir, name, flags, Mode::empty())?;
                self.directory(fd.as_fd(), &child.path, &child.stat, wanted, walk)?
            } else if wanted {
                Some(self.leaf(dir, name, &child.path, &child.stat)?)
            } else {
                None
            };
            if let Some(digest) = digest {
                empty = false;
                put(&mut hash, child.name.as_bytes());
                hash.update(digest);
            }
        }
        Ok((wanted || !empty).then(|| hash.finalize().into()))
    }

    fn leaf(&mut self, dir: BorrowedFd<'_>, name: &Path, path: &Path, stat: &Stat) -> io::Result<[u8; 32]> {
        let mut hash = self.header(path, stat);
        match kind(stat) {
            FileType::Symlink => put(&mut hash, readlinkat(dir, name, Vec::new())?.to_bytes()),
            FileType::RegularFile => hash.update(self.content(dir, name, stat)?),
            _ => {}
        }
        Ok(hash.finalize().into())
    }

    /// The digest of a file's content and capability.
    fn content(&mut self, dir: BorrowedFd<'_>, name: &Path, seen: &Stat) -> io::Result<[u8; 32]> {
        if let Some(digest) = self.cache.and_then(|cache| lock(cache).get(seen)) {
            return Ok(digest);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if kind(&stat) != FileType::RegularFile {
            return Err(io::Error::other("it changed while it was read"));
        }
        let mut hash = Sha256::new();
        put(&mut hash, &capability(file.as_fd())?.unwrap_or_default());
        let mut file = std::fs::File::from(file);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_SIZE, 0);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        self.buffer = buffer;
        let digest = hash.finalize().into();
        if let Some(cache) = self.cache {
            lock(cache).put(&stat, digest, now);
        }
        Ok(digest)
    }

    fn header(&self, path: &Path, stat: &Stat) -> Sha256 {
        let owner = self.tree.owner(path, stat);
        let mut hash = Sha256::new();
        let size = if kind(stat) == FileType::RegularFile { stat.st_size } else { 0 };
        let device = matches!(kind(stat), FileType::CharacterDevice | FileType::BlockDevice);
        hash.update(owner.mode.to_le_bytes());
        hash.update(owner.uid.to_le_bytes());
        hash.update(owner.gid.to_le_bytes());
        hash.update(size.to_le_bytes());
        hash.update((if device { owner.rdev } else { 0 }).to_le_bytes());
        hash
    }
}

/// The file capability, raw.
pub(super) fn capability(file: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; CAPABILITY_MAX];
    match fgetxattr(file, CAPABILITY, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn lock(cache: &Mutex<StatCache>) -> std::sync::MutexGuard<'_, StatCache> {
    // A thread that panicked while holding it leaves a map that is whole: inserts are its only writes.
    cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Hash bytes with their length before them, so that no two sequences run together.
pub(super) fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::tree::Owners;
    use super::*;

    struct OnlyB;

    impl Filter for OnlyB {
        fn hides(&self, path: &Path) -> bool {
            path == Path::new("b")
        }
        fn may_show_below(&self, _path: &Path) -> bool {
            false
        }
    }

    fn digest(dir: &Path, path: &str) -> [u8; 32] {
        let tree = Tree::new(std::fs::File::open(dir).unwrap().into(), Owners::Root, None);
        let found = tree.resolve(Path::new(path), true).unwrap();
        Checksums::new(&tree, None).of(&found.path, &found.stat.unwrap(), &[]).unwrap()
    }

    #[test]
    fn content_mode_and_names_count_and_times_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("d/f");
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(&file, "x").unwrap();
        symlink("f", dir.path().join("d/l")).unwrap();
        let whole = digest(dir.path(), "d");
        let one = digest(dir.path(), "d/f");
        assert_eq!(digest(dir.path(), "d/l"), one);

        let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(past).unwrap();
        assert_eq!(digest(dir.path(), "d"), whole);

        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(digest(dir.path(), "d/f"), one);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&file, "y").unwrap();
        assert_ne!(digest(dir.path(), "d"), whole);
        std::fs::write(&file, "x").unwrap();
        assert_eq!(digest(dir.path(), "d"), whole);
        std::fs::rename(&file, dir.path().join("d/g")).unwrap();
        assert_ne!(digest(dir.path(), "d"), whole);
    }

    #[test]
    fn what_is_excluded_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        std::fs::write(dir.path().join("b"), "1").unwrap();
        let tree = Tree::new(std::fs::File::open(dir.path()).unwrap().into(), Owners::Root, None);
        let root = tree.resolve(Path::new(""), true).unwrap().stat.unwrap();
        let sum = || Checksums::new(&tree, None).of(Path::new(""), &root, &[&OnlyB]).unwrap();
        let before = sum();
        std::fs::write(dir.path().join("b"), "2").unwrap();
        assert_eq!(sum(), before);
        std::fs::write(dir.path().join("a"), "2").unwrap();
        assert_ne!(sum(), before);
    }
}
