//! Reading and removing directories by descriptor.

mod size;

pub use size::{apparent, blocks, on_disk};

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{SysError, SysResult};

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirName {
    /// The name.
    pub name: OsString,
    /// What the directory says it is; `Unknown` on some file systems.
    pub kind: FileType,
}

/// All names in a directory but `.` and `..`, sorted by their bytes.
///
/// # Errors
/// When the directory cannot be read.
pub fn sorted_names(dir: impl AsFd) -> SysResult<Vec<DirName>> {
    let mut names = read_names(dir.as_fd()).map_err(|errno| SysError::new("read", "a directory", errno))?;
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(names)
}

fn read_names(dir: BorrowedFd<'_>) -> Result<Vec<DirName>, Errno> {
    // The position belongs to the open file: a directory read before must be read from its start again.
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(DirName { name: OsStr::from_bytes(name).to_owned(), kind: entry.file_type() });
        }
    }
    Ok(names)
}

/// So many descriptors are held at most while a tree is removed, so that a low `RLIMIT_NOFILE` does; what lies deeper is
/// moved up first.
const MAX_DEPTH: u32 = 16;

/// The clock is looked at once in so many entries.
const LOOK_EVERY: u64 = 64;

/// Remove a name and, when it is a directory, all below it. A name that is not there is no error. Links are removed,
/// never followed, and mounts are never entered: what somebody mounted below is not ours to remove. Directories of ours
/// that forbid it are made accessible.
///
/// # Errors
/// When something cannot be removed; `EXDEV` where something is mounted.
pub fn remove_all(dir: impl AsFd, name: &OsStr) -> SysResult<()> {
    let outcome = Remover::default().remove(dir.as_fd(), name);
    outcome.map(drop).map_err(|errno| SysError::path("remove", name, errno))
}

/// [`remove_all`] of what a path names.
///
/// # Errors
/// As [`remove_all`].
pub fn remove_path(path: &Path) -> SysResult<()> {
    Remover::default().remove_path(path).map(drop)
}

/// Removes trees, counts what that frees on disk, and may be given a time to stop at.
#[derive(Debug, Default)]
pub struct Remover {
    counting: bool,
    until: Option<Instant>,
    bytes: u64,
    entries: u64,
}

/// Whether a removal came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// All is gone.
    Done,
    /// The time was over first.
    Unfinished,
}

/// Why a removal stopped.
enum Stop {
    TimeIsOver,
    Failed(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

impl Remover {
    /// One that counts: a call more for each entry.
    #[must_use]
    pub fn counting() -> Self {
        Self { counting: true, ..Self::default() }
    }

    /// Stop at that time.
    #[must_use]
    pub fn until(mut self, time: Instant) -> Self {
        self.until = Some(time);
        self
    }

    /// Bytes on disk (blocks, as `du` counts them) of what was removed so far, files with several names when the last
    /// of them went.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Remove what a path names, as [`remove_all`].
    ///
    /// # Errors
    /// As [`remove_all`].
    pub fn remove_path(&mut self, path: &Path) -> SysResult<Removal> {
        let failed = |errno| SysError::path("remove", path, errno);
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(Errno::INVAL));
        };
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(rustix::fs::CWD, above, flags, Mode::empty()) {
            Ok(dir) => self.remove(dir.as_fd(), name).map_err(failed),
            Err(Errno::NOENT) => Ok(Removal::Done),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Removal, Errno> {
        match self.remove_tree(dir, name) {
            Ok(()) => Ok(Removal::Done),
            Err(Stop::TimeIsOver) => Ok(Removal::Unfinished),
            Err(Stop::Failed(errno)) => Err(errno),
        }
    }

    fn remove_tree(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Stop> {
        match self.unlink(dir, name) {
            Ok(()) => return Ok(()),
            // unlink(2): EISDIR on Linux; POSIX and some file systems say EPERM.
            Err(Stop::Failed(Errno::ISDIR | Errno::PERM)) => {}
            Err(stop) => return Err(stop),
        }
        let mut lifted = 0;
        loop {
            let (top, blocks) = match open_dir(dir, name) {
                Err(Errno::NOENT) => return Ok(()),
                other => other?,
            };
            let before = lifted;
            self.empty(top.as_fd(), top.as_fd(), 0, &mut lifted)?;
            if before == lifted {
                return self.remove_dir(dir, name, blocks);
            }
        }
    }

    fn empty(
        &mut self,
        top: BorrowedFd<'_>,
        dir: BorrowedFd<'_>,
        depth: u32,
        lifted: &mut u64,
    ) -> Result<(), Stop> {
        for entry in read_names(dir)? {
            let name = entry.name.as_os_str();
            if entry.kind != FileType::Directory {
                match self.unlink(dir, name) {
                    Ok(()) => continue,
                    Err(Stop::Failed(Errno::ISDIR)) if entry.kind == FileType::Unknown => {}
                    Err(stop) => return Err(stop),
                }
            }
            if depth == MAX_DEPTH {
                lift(top, dir, name, lifted)?;
                continue;
            }
            // Somebody else may be removing the same tree.
            let (child, blocks) = match open_dir(dir, name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            self.empty(top, child.as_fd(), depth + 1, lifted)?;
            self.remove_dir(dir, name, blocks)?;
        }
        Ok(())
    }

    fn remove_dir(&mut self, dir: BorrowedFd<'_>, name: &OsStr, blocks: u64) -> Result<(), Stop> {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) => self.bytes += blocks,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Stop> {
        self.entries += 1;
        if let Some(until) = self.until
            && self.entries.is_multiple_of(LOOK_EVERY)
            && Instant::now() >= until
        {
            return Err(Stop::TimeIsOver);
        }
        let mut blocks = 0;
        if self.counting {
            let wanted = StatxFlags::NLINK | StatxFlags::BLOCKS;
            let status = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted);
            blocks = status.map_or(0, |s| if s.stx_nlink <= 1 { s.stx_blocks * 512 } else { 0 });
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => self.bytes += blocks,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

/// Move a directory to the top, under a name that nothing there has.
fn lift(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &OsStr, lifted: &mut u64) -> Result<(), Errno> {
    let mut accessible = false;
    loop {
        *lifted += 1;
        let to = format!(".removing-{lifted}");
        match rustix::fs::renameat_with(dir, name, top, &to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // A directory that moves to another one is written to itself, as its `..` changes.
            Err(Errno::ACCESS) if !accessible => {
                accessible = true;
                drop(open_dir(dir, name)?);
            }
            other => return other,
        }
    }
}

/// Let the owner into a directory. By its descriptor: a link that comes into its place meanwhile is not followed.
fn make_accessible(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    // `fchmod` takes no such descriptor.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::chmod(path, Mode::RWXU)
}

/// Open a directory to empty it; with the bytes that it takes on disk by itself.
fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            make_accessible(dir, name)?;
            rustix::fs::openat(dir, name, flags, Mode::empty())?
        }
        other => other?,
    };
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::BLOCKS;
    let status = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, wanted)?;
    // Linux 5.8 and later tell; overlay mounts of ordinary users need a later one.
    if status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::XDEV);
    }
    if status.stx_mode & 0o300 != 0o300 {
        // Writable by mode or by capability: only an owner without the latter needs the bits, and may set them.
        let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
    }
    Ok((fd, status.stx_blocks * 512))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn removes_everything_but_what_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("t/a/b")).unwrap();
        std::fs::write(dir.path().join("canary"), "").unwrap();
        symlink("../../canary", dir.path().join("t/a/link")).unwrap();
        symlink("..", dir.path().join("t/up")).unwrap();
        std::fs::write(dir.path().join("t/a/b/f"), "").unwrap();
        std::fs::set_permissions(dir.path().join("t/a/b"), std::fs::Permissions::from_mode(0o000)).unwrap();
        let top = File::open(dir.path()).unwrap();
        remove_all(&top, OsStr::new("t")).unwrap();
        remove_all(&top, OsStr::new("t")).unwrap();
        let left = sorted_names(&top).unwrap();
        assert_eq!(left.iter().map(|n| n.name.to_str().unwrap()).collect::<Vec<_>>(), ["canary"]);
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_made_accessible() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::create_dir(&secret).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o500)).unwrap();
        symlink("secret", dir.path().join("t")).unwrap();
        let top = File::open(dir.path()).unwrap();
        assert_eq!(make_accessible(top.as_fd(), OsStr::new("t")), Err(Errno::NOTDIR));
        let mode = || std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o500);
        make_accessible(top.as_fd(), OsStr::new("secret")).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn removes_trees_deeper_than_a_path_can_be() {
        let dir = tempfile::tempdir().unwrap();
        let top = File::open(dir.path()).unwrap();
        let mut at = OwnedFd::from(top.try_clone().unwrap());
        for depth in 0..5000 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
            if depth > 0 {
                // Names that removal itself might want.
                rustix::fs::mkdirat(&at, format!(".removing-{depth}"), Mode::RWXU).unwrap();
            }
            let inner = open_dir(at.as_fd(), OsStr::new("deep")).unwrap().0;
            let above = std::mem::replace(&mut at, inner);
            if depth % 10 == 3 {
                rustix::fs::chmodat(above, "deep", Mode::empty(), AtFlags::empty()).unwrap();
            }
        }
        drop(at);
        let most = std::thread::scope(|scope| {
            let removal = scope.spawn(|| remove_all(&top, OsStr::new("deep")).unwrap());
            let mut most = 0;
            while !removal.is_finished() {
                most = most.max(open_below(dir.path()));
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            most
        });
        let left = sorted_names(&top).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert!(most <= MAX_DEPTH as usize + 5, "{most} descriptors at once");
    }

    /// How many descriptors of this process lead below a directory.
    fn open_below(dir: &Path) -> usize {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let leads = |link: std::fs::DirEntry| match std::fs::read_link(link.path()) {
            Ok(path) => path.starts_with(dir),
            Err(error) => error.raw_os_error() == Some(libc::ENAMETOOLONG),
        };
        links.map(leads).filter(|leads| *leads).count()
    }

    #[test]
    fn what_is_mounted_below_is_not_removed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tried: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        let point = dir.path().join("t/a/point");
        std::fs::create_dir_all(&precious).unwrap();
        std::fs::write(precious.join("canary"), "").unwrap();
        std::fs::create_dir_all(&point).unwrap();
        // The same file system: only the mount tells.
        if rustix::mount::mount_bind(&precious, &point).is_err() {
            eprintln!("not tried: mounts are not allowed here");
            return;
        }
        let refused = remove_path(&dir.path().join("t")).unwrap_err();
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(refused.errno(), Some(libc::EXDEV));
        assert!(precious.join("canary").exists());
        remove_path(&dir.path().join("t")).unwrap();
        remove_path(&dir.path().join("no/such")).unwrap();
        assert!(!dir.path().join("t").exists());
    }

    #[test]
    fn what_is_freed_is_counted_as_du_counts_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("t");
        std::fs::create_dir_all(tree.join("a")).unwrap();
        for i in 0..200 {
            std::fs::write(tree.join(format!("a/{i}")), vec![1; 5000]).unwrap();
        }
        std::fs::hard_link(tree.join("a/1"), tree.join("again")).unwrap();
        std::fs::hard_link(tree.join("a/2"), dir.path().join("kept")).unwrap();
        let du = on_disk(&tree);
        assert!(du >= 200 * 5000, "{du}");
        let kept =
            std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(dir.path().join("kept")).unwrap());
        let mut remover = Remover::counting().until(Instant::now());
        assert_eq!(remover.remove_path(&tree).unwrap(), Removal::Unfinished);
        let first = remover.bytes();
        let mut remover = Remover::counting();
        assert_eq!(remover.remove_path(&tree).unwrap(), Removal::Done);
        assert_eq!(first + remover.bytes(), du - kept * 512);
    }
}
