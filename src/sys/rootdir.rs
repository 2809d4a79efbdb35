//! Paths resolved beneath a directory descriptor, as if that directory were `/`.
//!
//! The content of images names files. Those names never meet an ordinary path walk: `openat2(2)` with
//! `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` resolves them inside of the root, absolute links and `..` included. Where
//! a seccomp filter hides `openat2` the same is done here component by component, with `O_NOFOLLOW` at every step.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{SysError, SysResult};

/// As many links as the kernel follows in one walk (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// How often a walk that raced with a rename is tried before it is done by hand.
const RACE_TRIES: u32 = 16;

/// Set once `openat2` has turned out to be unavailable.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

/// A directory that stands for `/` in every path given to its methods. Leading slashes do not matter.
#[derive(Debug, Clone, Copy)]
pub struct RootDir<'fd> {
    fd: BorrowedFd<'fd>,
    emulate: bool,
}

/// Where a path leads: a directory and a name in it.
#[derive(Debug)]
pub struct Located {
    /// The directory (`O_PATH`).
    pub parent: OwnedFd,
    /// The name in it; empty when the path is the root itself, which `parent` then is.
    pub name: OsString,
    /// The same as one path from the root, free of links, `.` and `..`.
    pub path: PathBuf,
}

/// A directory that was made with those above it.
#[derive(Debug)]
pub struct MadeDir {
    /// The directory (`O_PATH`).
    pub fd: OwnedFd,
    /// Its path from the root, free of links, `.` and `..`.
    pub path: PathBuf,
    /// The directories that were not there before, outermost first.
    pub made: Vec<PathBuf>,
}

impl<'fd> RootDir<'fd> {
    /// Resolve beneath this directory.
    #[must_use]
    pub fn new(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, emulate: false }
    }

    /// The directory itself.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'fd> {
        self.fd
    }

    /// Open a path with flags and mode of open(2). `O_CLOEXEC` is added. A last link is followed unless `O_NOFOLLOW`
    /// or `O_EXCL` says otherwise.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> SysResult<OwnedFd> {
        let path = path.as_ref();
        self.try_open(path, flags, mode).map_err(|errno| SysError::path("open", path, errno))
    }

    /// A handle on whatever the path leads to (`O_PATH`); a last link is followed.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_path(&self, path: impl AsRef<Path>) -> SysResult<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// Open a directory for reading.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_dir(&self, path: impl AsRef<Path>) -> SysResult<OwnedFd> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    /// Open a regular file for reading. Anything else (a FIFO would block, a device act) is refused.
    ///
    /// # Errors
    /// As open(2), and `EINVAL` when it is not a regular file.
    pub fn open_read(&self, path: impl AsRef<Path>) -> SysResult<File> {
        let path = path.as_ref();
        let fd = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| SysError::path("stat", path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            FileType::Directory => Err(SysError::path("read", path, Errno::ISDIR)),
            _ => Err(SysError::path("read", path, Errno::INVAL)),
        }
    }

    /// Create a file that is not there yet, for writing. The umask applies.
    ///
    /// # Errors
    /// As open(2); `EEXIST` when anything, a dangling link included, has the name.
    pub fn create(&self, path: impl AsRef<Path>, mode: u32) -> SysResult<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.open(path, flags, Mode::from_raw_mode(mode)).map(File::from)
    }

    /// Where a path leads. Every directory above the last name must be there; the last name need not be.
    /// `follow_last` follows a link of that name, dangling or not.
    ///
    /// # Errors
    /// As open(2) on the directories above.
    pub fn locate(&self, path: impl AsRef<Path>, follow_last: bool) -> SysResult<Located> {
        let path = path.as_ref();
        self.walk(path, follow_last).map_err(|errno| SysError::path("resolve", path, errno))
    }

    /// Make a directory and those above it that are missing. Links are followed, also where they dangle: what they
    /// name is made. The umask applies to `mode`.
    ///
    /// # Errors
    /// As mkdir(2); `ENOTDIR` when something else is in the way.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: u32) -> SysResult<MadeDir> {
        let path = path.as_ref();
        self.try_mkdir_all(path, mode).map_err(|errno| SysError::path("create directory", path, errno))
    }

    /// The target of a link, not resolved.
    ///
    /// # Errors
    /// As readlink(2).
    pub fn readlink(&self, path: impl AsRef<Path>) -> SysResult<PathBuf> {
        let path = path.as_ref();
        let read = || {
            let fd = self.try_open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
            rustix::fs::readlinkat(&fd, "", Vec::new())
        };
        let target = read().map_err(|errno| SysError::path("read link", path, errno))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The status of what a path leads to; a last link is followed.
    ///
    /// # Errors
    /// As stat(2).
    pub fn stat(&self, path: impl AsRef<Path>) -> SysResult<Stat> {
        self.status(path.as_ref(), OFlags::PATH)
    }

    /// The status of what a path names; a last link is not followed.
    ///
    /// # Errors
    /// As lstat(2).
    pub fn lstat(&self, path: impl AsRef<Path>) -> SysResult<Stat> {
        self.status(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn status(&self, path: &Path, flags: OFlags) -> SysResult<Stat> {
        self.try_open(path, flags, Mode::empty())
            .and_then(rustix::fs::fstat)
            .map_err(|errno| SysError::path("stat", path, errno))
    }

    /// Open what a path without any link in it leads to: `ELOOP` or `ENOTDIR` when there is one. For paths that we
    /// made ourselves and know to be plain.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_plain(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let relative = relative(path);
        match self.openat2(relative, flags, Mode::empty(), resolve) {
            Some(answer) => answer,
            None => self.open_names(relative, flags),
        }
    }

    /// [`RootDir::open`] with the bare error number, for callers that expect some to happen.
    ///
    /// # Errors
    /// As open(2).
    pub fn try_open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if let Some(answer) = self.openat2(relative(path), flags, mode, resolve) {
            return answer;
        }
        let keep_last = flags.contains(OFlags::NOFOLLOW) || flags.contains(OFlags::CREATE | OFlags::EXCL);
        let found = self.walk(path, !keep_last)?;
        let name = if found.name.is_empty() { OsStr::new(".") } else { &found.name };
        rustix::fs::openat(&found.parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)
    }

    /// `openat2`, or `None` when it is not to be had.
    fn openat2(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> Option<Result<OwnedFd, Errno>> {
        if self.emulate || NO_OPENAT2.load(Ordering::Relaxed) {
            return None;
        }
        for _ in 0..RACE_TRIES {
            match rustix::fs::openat2(self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS) => {
                    NO_OPENAT2.store(true, Ordering::Relaxed);
                    return None;
                }
                // Some sandboxes answer EPERM for calls they do not know; others mean it.
                Err(Errno::PERM) if self.is_filtered() => {
                    NO_OPENAT2.store(true, Ordering::Relaxed);
                    return None;
                }
                answer => return Some(answer),
            }
        }
        None
    }

    fn is_filtered(&self) -> bool {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let probe = rustix::fs::openat2(self.fd, ".", flags, Mode::empty(), ResolveFlags::BENEATH);
        matches!(probe, Err(Errno::PERM))
    }

    /// A chain of plain names, each opened below the last.
    fn open_names(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut walker = Walker::new(self.fd)?;
        let names: Vec<&OsStr> = path.iter().filter(|name| *name != ".").collect();
        let Some((last, above)) = names.split_last() else {
            return rustix::fs::openat(self.fd, ".", flags | OFlags::CLOEXEC, Mode::empty());
        };
        if names.iter().any(|name| *name == "..") {
            return Err(Errno::XDEV);
        }
        for name in above {
            walker.enter(name)?;
        }
        let fd =
            rustix::fs::openat(&walker.fd, *last, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if flags.contains(OFlags::PATH) && file_type(&fd)? == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        Ok(fd)
    }

    fn walk(&self, path: &Path, follow_last: bool) -> Result<Located, Errno> {
        let mut walker = Walker::new(self.fd)?;
        let mut left = names_reversed(path);
        while let Some(name) = left.pop() {
            if name == ".." {
                walker.leave()?;
                continue;
            }
            let last = left.is_empty();
            if last && !follow_last {
                return Ok(walker.located(name));
            }
            match walker.look(&name) {
                Ok(Step::Link(target)) => walker.follow(&target, &mut left)?,
                Ok(Step::Directory(_) | Step::Other) if last => return Ok(walker.located(name)),
                Ok(Step::Directory(fd)) => walker.descend(fd, name),
                Ok(Step::Other) => return Err(Errno::NOTDIR),
                Err(Errno::NOENT) if last => return Ok(walker.located(name)),
                Err(errno) => return Err(errno),
            }
        }
        let path = walker.path();
        Ok(Located { parent: walker.fd, name: OsString::new(), path })
    }

    fn try_mkdir_all(&self, path: &Path, mode: u32) -> Result<MadeDir, Errno> {
        let mut walker = Walker::new(self.fd)?;
        let mut left = names_reversed(path);
        let mut made = Vec::new();
        while let Some(name) = left.pop() {
            if name == ".." {
                walker.leave()?;
                continue;
            }
            match walker.look(&name) {
                Ok(Step::Link(target)) => walker.follow(&target, &mut left)?,
                Ok(Step::Directory(fd)) => walker.descend(fd, name),
                Ok(Step::Other) => return Err(Errno::NOTDIR),
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&walker.fd, &*name, Mode::from_raw_mode(mode)) {
                        Ok(()) => made.push(walker.path().join(&name)),
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    walker.enter(&name)?;
                }
                Err(errno) => return Err(errno),
            }
        }
        let path = walker.path();
        Ok(MadeDir { fd: walker.fd, path, made })
    }
}

/// What stands under a name.
enum Step {
    Directory(OwnedFd),
    Link(Vec<u8>),
    Other,
}

/// A walk by hand. `..` walks again from the root, so that one descriptor is enough at any depth and a directory moved
/// out of the root meanwhile cannot be left upwards.
struct Walker<'fd> {
    root: BorrowedFd<'fd>,
    fd: OwnedFd,
    names: Vec<OsString>,
    links: u32,
}

impl<'fd> Walker<'fd> {
    fn new(root: BorrowedFd<'fd>) -> Result<Self, Errno> {
        Ok(Self { root, fd: handle(root, OsStr::new("."))?, names: Vec::new(), links: 0 })
    }

    fn look(&self, name: &OsStr) -> Result<Step, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        match file_type(&fd)? {
            FileType::Directory => Ok(Step::Directory(fd)),
            FileType::Symlink => Ok(Step::Link(rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes())),
            _ => Ok(Step::Other),
        }
    }

    fn descend(&mut self, fd: OwnedFd, name: OsString) {
        self.fd = fd;
        self.names.push(name);
    }

    fn enter(&mut self, name: &OsStr) -> Result<(), Errno> {
        let fd = handle(self.fd.as_fd(), name)?;
        self.descend(fd, name.to_owned());
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Errno> {
        self.names.pop();
        self.restart()
    }

    fn restart(&mut self) -> Result<(), Errno> {
        let mut fd = handle(self.root, OsStr::new("."))?;
        for name in &self.names {
            fd = handle(fd.as_fd(), name)?;
        }
        self.fd = fd;
        Ok(())
    }

    fn follow(&mut self, target: &[u8], left: &mut Vec<OsString>) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        if target.first() == Some(&b'/') {
            self.names.clear();
            self.restart()?;
        }
        left.extend(names_reversed(Path::new(OsStr::from_bytes(target))));
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.names.iter().collect()
    }

    fn located(self, name: OsString) -> Located {
        let path = self.path().join(&name);
        Located { parent: self.fd, name, path }
    }
}

fn handle(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn file_type(fd: &OwnedFd) -> Result<FileType, Errno> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn names_reversed(path: &Path) -> Vec<OsString> {
    let bytes = path.as_os_str().as_bytes();
    let names = bytes.split(|byte| *byte == b'/').rev();
    names
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

/// The path without its leading slashes; `.` when nothing is left.
fn relative(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().position(|byte| *byte != b'/').unwrap_or(bytes.len());
    if start == bytes.len() { Path::new(".") } else { Path::new(OsStr::from_bytes(&bytes[start..])) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib/deep")).unwrap();
        std::fs::write(dir.path().join("canary"), "outside").unwrap();
        std::fs::write(root.join("canary"), "inside").unwrap();
        std::fs::write(root.join("usr/lib/x"), "x").unwrap();
        for (target, name) in [
            ("usr/lib", "lib"),
            ("/usr/lib", "abs"),
            ("../../../canary", "up"),
            ("/canary", "top"),
            ("loop", "loop"),
            ("/new/place", "dangling"),
            ("../../..", "usr/lib/climb"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        dir
    }

    /// Every case by `openat2` and by hand.
    fn both(check: impl Fn(RootDir<'_>, &Path)) {
        for emulate in [false, true] {
            let dir = tree();
            let path = dir.path().join("root");
            let fd = File::open(&path).unwrap();
            check(RootDir { fd: fd.as_fd(), emulate }, &path);
            assert_eq!(std::fs::read(dir.path().join("canary")).unwrap(), b"outside");
        }
    }

    #[test]
    fn links_and_dots_stay_inside() {
        both(|root, _| {
            for (path, content) in [
                ("lib/x", "x"),
                ("/abs/x", "x"),
                ("up", "inside"),
                ("top", "inside"),
                ("../../canary", "inside"),
                ("usr/lib/climb/canary", "inside"),
                ("lib/deep/../x", "x"),
            ] {
                let text = std::io::read_to_string(root.open_read(path).unwrap()).unwrap();
                assert_eq!(text, content, "{path}");
            }
            assert_eq!(root.open_path("loop/x").unwrap_err().errno(), Some(libc::ELOOP));
            assert_eq!(root.open_path("canary/x").unwrap_err().errno(), Some(libc::ENOTDIR));
            assert_eq!(root.open_path("nothing").unwrap_err().errno(), Some(libc::ENOENT));
            assert_eq!(root.open_read("lib").unwrap_err().errno(), Some(libc::EISDIR));
            assert!(root.open_plain(Path::new("lib/x"), OFlags::PATH).is_err());
            assert!(root.open_plain(Path::new("up"), OFlags::PATH).is_err());
            assert!(root.open_plain(Path::new("../canary"), OFlags::PATH).is_err());
            assert!(root.open_plain(Path::new("usr/lib/x"), OFlags::PATH).is_ok());
            assert!(root.open_plain(Path::new(""), OFlags::PATH).is_ok());
        });
    }

    #[test]
    fn locate_names_the_real_place() {
        both(|root, _| {
            for (path, follow, real) in [
                ("lib/x", true, "usr/lib/x"),
                ("lib", false, "lib"),
                ("lib", true, "usr/lib"),
                ("abs/new", true, "usr/lib/new"),
                ("..", true, ""),
                ("/", true, ""),
            ] {
                assert_eq!(root.locate(path, follow).unwrap().path, Path::new(real), "{path}");
            }
            assert_eq!(root.locate("no/such", true).unwrap_err().errno(), Some(libc::ENOENT));
        });
    }

    #[test]
    fn directories_are_made_and_reported() {
        both(|root, path| {
            let made = root.mkdir_all("lib/a/b", 0o755).unwrap();
            assert_eq!(made.path, Path::new("usr/lib/a/b"));
            assert_eq!(made.made, [Path::new("usr/lib/a"), Path::new("usr/lib/a/b")]);
            assert!(root.mkdir_all("lib/a/b", 0o755).unwrap().made.is_empty());
            assert_eq!(root.mkdir_all("dangling/z", 0o755).unwrap().path, Path::new("new/place/z"));
            assert!(path.join("new/place/z").is_dir());
            assert_eq!(root.mkdir_all("canary/z", 0o755).unwrap_err().errno(), Some(libc::ENOTDIR));
            assert_eq!(root.mkdir_all("loop/z", 0o755).unwrap_err().errno(), Some(libc::ELOOP));
        });
    }

    #[test]
    fn creating_never_follows() {
        both(|root, path| {
            assert_eq!(root.create("dangling", 0o644).unwrap_err().errno(), Some(libc::EEXIST));
            assert_eq!(root.create("up", 0o644).unwrap_err().errno(), Some(libc::EEXIST));
            root.create("abs/made", 0o600).unwrap();
            assert!(path.join("usr/lib/made").is_file());
            assert_eq!(root.readlink("abs").unwrap(), Path::new("/usr/lib"));
            assert_eq!(root.readlink("usr").unwrap_err().errno(), Some(libc::ENOENT));
            assert_eq!(root.stat("lib").unwrap().st_mode & libc::S_IFMT, libc::S_IFDIR);
            assert_eq!(root.lstat("lib").unwrap().st_mode & libc::S_IFMT, libc::S_IFLNK);
        });
    }
}
