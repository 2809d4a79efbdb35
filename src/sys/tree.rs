//! Reading and removing directories by descriptor.

mod size;

pub use size::size;

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// Remove a name and, when it is a directory, all below it. A name that is not there is no error. Links are removed,
/// never followed, and mounts are never entered: what somebody mounted below is not ours to remove. Directories of ours
/// that forbid it are made accessible.
///
/// # Errors
/// When something cannot be removed; `EXDEV` where something is mounted.
pub fn remove_all(dir: impl AsFd, name: &OsStr) -> SysResult<()> {
    remove(dir.as_fd(), name).map_err(|errno| SysError::path("remove", name, errno))
}

/// [`remove_all`] of what a path names.
///
/// # Errors
/// As [`remove_all`].
pub fn remove_path(path: &Path) -> SysResult<()> {
    let failed = |errno| SysError::path("remove", path, errno);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(Errno::INVAL));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(rustix::fs::CWD, above, flags, Mode::empty()) {
        Ok(dir) => remove(dir.as_fd(), name).map_err(failed),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // unlink(2): EISDIR on Linux; POSIX and some file systems say EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let mut lifted = 0;
    loop {
        let top = open_dir(dir, name)?;
        let before = lifted;
        empty(top.as_fd(), top.as_fd(), 0, &mut lifted)?;
        if before == lifted {
            return rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        }
    }
}

fn empty(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, depth: u32, lifted: &mut u64) -> Result<(), Errno> {
    for entry in read_names(dir)? {
        let name = entry.name.as_os_str();
        if entry.kind != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) if entry.kind == FileType::Unknown => {}
                Err(errno) => return Err(errno),
            }
        }
        if depth == MAX_DEPTH {
            lift(top, dir, name, lifted)?;
            continue;
        }
        let child = open_dir(dir, name)?;
        empty(top, child.as_fd(), depth + 1, lifted)?;
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
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

fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(dir, name, flags, Mode::empty())?
        }
        other => other?,
    };
    let status = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE | StatxFlags::MODE)?;
    // Linux 5.8 and later tell; overlay mounts of ordinary users need a later one.
    if status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::XDEV);
    }
    if status.stx_mode & 0o300 != 0o300 {
        // Writable by mode or by capability: only an owner without the latter needs the bits, and may set them.
        let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
    }
    Ok(fd)
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
            let inner = open_dir(at.as_fd(), OsStr::new("deep")).unwrap();
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
}
