//! Layering: how a stack of snapshots becomes one tree. Probed by really mounting, never remembered.
//!
//! Mounts are made with the descriptor-based mount interface (`fsopen`, `fsconfig`, `fsmount`; Linux 5.2), so that no
//! path of the store is walked by name and nothing stays mounted anywhere. Kernels before 6.5 take all lower
//! directories in one string; there `mount(2)` is used on a private directory and the mount cloned from it.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::materialise::{Source, materialise};
use super::unpack::open_dir;
use super::{Error, Stack, Store};
use crate::layer::hides_all_below;
use crate::sys::{SysError, SysResult, tree};

/// The kernel stacks no more lower directories (`OVL_MAX_STACK`).
const MAX_LOWERS: usize = 500;

/// How a stack becomes one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Kernel overlay with `userxattr`.
    Overlay,
    /// Everything is copied (reflinked where the file system can).
    Copy,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
        })
    }
}

impl std::str::FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "overlay" => Ok(Self::Overlay),
            "copy" => Ok(Self::Copy),
            other => Err(format!("`{other}` is not a layering method: expected overlay or copy")),
        }
    }
}

/// A tree ready for use: a detached mount (`fsmount`/`open_tree`), which goes away with its last descriptor unless it
/// is moved into a mount namespace.
#[derive(Debug)]
pub struct Mounted {
    /// The root of the tree; usable as a directory descriptor and for `move_mount`.
    pub root: OwnedFd,
    /// How it was made.
    pub method: Method,
    /// Where changes land: the overlay's upper directory, or the whole copied tree.
    pub upper: Option<PathBuf>,
}

/// The writable part of an overlay.
pub(super) struct Upper<'a> {
    upper: &'a File,
    work: &'a File,
    volatile: bool,
}

impl Store {
    /// Which method works here, by trying. `STRATE_LAYERING`/`--layering` can force one (passed in by the caller with
    /// [`Store::with_layering`]).
    ///
    /// # Errors
    /// When not even a directory can be made.
    pub fn probe_layering(&self) -> Result<Method, Error> {
        if let Some(method) = self.forced_method {
            return Ok(method);
        }
        let dir = self.scratch_dir()?;
        let works = self.try_overlay(dir.path()).is_ok();
        Ok(if works { Method::Overlay } else { Method::Copy })
    }

    /// Why overlay does not work here, for `doctor`; `None` when it does.
    #[must_use]
    pub fn overlay_refusal(&self) -> Option<Error> {
        let tried = self.scratch_dir().and_then(|dir| self.try_overlay(dir.path()));
        tried.err()
    }

    /// Mount a small overlay, write into it and delete a lower file: what a container will do first.
    fn try_overlay(&self, dir: &Path) -> Result<(), Error> {
        let lower = dir.join("lower");
        make_dir(&lower)?;
        fs::write(lower.join("file"), "").map_err(|error| SysError::path("write", &lower, error))?;
        let mounted = self.overlay_writable(&[lower], None, dir, true)?;
        let failed = |error| SysError::path("use an overlay in", dir, error);
        rustix::fs::unlinkat(&mounted.root, "file", rustix::fs::AtFlags::empty()).map_err(failed)?;
        rustix::fs::mkdirat(&mounted.root, "new", 0o755.into()).map_err(failed)?;
        Ok(())
    }

    /// Mount a stack read-only.
    ///
    /// # Errors
    /// When the kernel refuses every method.
    pub fn mount_read_only(&self, stack: &Stack) -> Result<Mounted, Error> {
        let lowers = lowers_of(stack)?;
        if self.forced_method != Some(Method::Copy) {
            match self.overlay_read_only(lowers) {
                Err(error) if may_fall_back(&error) => self.say_fallback(&error),
                other => return other,
            }
        }
        let dir = self.stage_dir("tree")?;
        Ok(Mounted { upper: None, ..self.copied(stack, &dir)? })
    }

    /// Mount a stack with a place for changes: `dir/upper` and `dir/work` (overlay) or `dir/rootfs` (copy; an existing
    /// one is taken as it is) below `dir`. `volatile` skips every sync, for trees that a crash may lose.
    ///
    /// # Errors
    /// When the kernel refuses every method.
    pub fn mount_writable(&self, stack: &Stack, dir: &Path, volatile: bool) -> Result<Mounted, Error> {
        // A tree that was copied once holds the changes: it stays copied.
        if self.forced_method != Some(Method::Copy) && !dir.join("rootfs").exists() {
            let lowers = lowers_of(stack)?;
            match self.overlay_writable(
                &lowers,
                stack.layers.last().map(|top| top.fs.as_path()),
                dir,
                volatile,
            ) {
                Err(error) if may_fall_back(&error) => self.say_fallback(&error),
                other => return other,
            }
        }
        self.copied(stack, dir)
    }

    fn say_fallback(&self, error: &Error) {
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        let what = match error {
            Error::TooManyLayers { .. } => "no overlay can be mounted",
            _ => "overlay mounts do not work here",
        };
        self.notice.say(&format!("{what} ({why}): the image's files are copied"));
    }

    /// A private directory for a build step's changes, on the store's file system, removed when dropped by the guard.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn scratch_dir(&self) -> Result<tempfile::TempDir, Error> {
        let parent = self.stage_dir("scratch")?;
        tempfile::Builder::new()
            .prefix("step-")
            .tempdir_in(&parent)
            .map_err(|error| SysError::path("create a directory in", parent, error).into())
    }

    /// The kernel wants two lower directories where there is no upper one; an empty one at the bottom changes nothing.
    fn overlay_read_only(&self, mut lowers: Vec<PathBuf>) -> Result<Mounted, Error> {
        while lowers.len() < 2 {
            lowers.insert(0, self.empty_dir()?);
        }
        let root = self.overlay(&lowers, None)?;
        Ok(Mounted { root, method: Method::Overlay, upper: None })
    }

    fn overlay_writable(
        &self,
        lowers: &[PathBuf],
        top: Option<&Path>,
        dir: &Path,
        volatile: bool,
    ) -> Result<Mounted, Error> {
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        if make_dir(&upper)? {
            like_root_of(&upper, top)?;
        }
        // The kernel refuses a work directory that a volatile mount has left (work/incompat/volatile).
        tree::remove_path(&work)?;
        make_dir(&work)?;
        let (upper_dir, work_dir) = (open_dir(&upper)?, open_dir(&work)?);
        let writable = Upper { upper: &upper_dir, work: &work_dir, volatile };
        let root = if lowers.is_empty() {
            self.overlay(&[self.empty_dir()?], Some(&writable))?
        } else {
            self.overlay(lowers, Some(&writable))?
        };
        Ok(Mounted { root, method: Method::Overlay, upper: Some(upper) })
    }

    fn empty_dir(&self) -> Result<PathBuf, Error> {
        let path = self.stage_path("empty")?;
        make_dir(&path)?;
        Ok(path)
    }

    /// Mount an overlay; `lowers` lowest first.
    fn overlay(&self, lowers: &[PathBuf], upper: Option<&Upper<'_>>) -> Result<OwnedFd, Error> {
        if lowers.len() > MAX_LOWERS {
            return Err(Error::TooManyLayers { found: lowers.len(), most: MAX_LOWERS });
        }
        match overlay_by_fd(lowers, upper) {
            Err(Errno::INVAL | Errno::NOSYS) => self.overlay_by_string(lowers, upper),
            other => {
                other.map_err(|error| SysError::path("mount an overlay in", self.layout.root(), error).into())
            }
        }
    }

    /// For kernels that know no `lowerdir+`: `mount(2)`, which takes one page of options.
    pub(super) fn overlay_by_string(
        &self,
        lowers: &[PathBuf],
        upper: Option<&Upper<'_>>,
    ) -> Result<OwnedFd, Error> {
        let failed = |error| SysError::path("mount an overlay in", self.layout.root(), error);
        let lowers = lowers.iter().map(|lower| open_dir(lower)).collect::<Result<Vec<File>, Error>>()?;
        let mut options = String::from("userxattr,lowerdir=");
        for (i, lower) in lowers.iter().rev().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            let _ = write!(options, "{colon}{}", by_number(lower));
        }
        if let Some(Upper { upper, work, volatile }) = upper {
            let _ = write!(options, ",upperdir={},workdir={}", by_number(upper), by_number(work));
            options.push_str(if *volatile { ",volatile" } else { "" });
        }
        let target = self.empty_dir()?;
        let flags = if upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
        let options = std::ffi::CString::new(options).map_err(|_| failed(Errno::INVAL))?;
        rustix::mount::mount("overlay", &target, "overlay", flags, options.as_c_str()).map_err(failed)?;
        let tree = clone_tree(&target);
        let gone = rustix::mount::unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        gone.map_err(failed)?;
        let _ = fs::remove_dir(&target);
        Ok(tree?)
    }

    /// The copy method: the merged tree in `dir/rootfs`. Changes that an overlay left in `dir/upper` go on top of it.
    fn copied(&self, stack: &Stack, dir: &Path) -> Result<Mounted, Error> {
        let rootfs = dir.join("rootfs");
        if !rootfs.exists() {
            let part = dir.join("rootfs.part");
            tree::remove_path(&part)?;
            make_dir(&part)?;
            let mut layers: Vec<Source> = stack.layers.iter().map(|layer| Source::new(&layer.fs)).collect();
            let upper = dir.join("upper");
            if upper.exists() {
                layers.push(Source::new(&upper));
            }
            materialise(&layers, &part)?;
            fs::rename(&part, &rootfs).map_err(|error| SysError::path("rename to", &rootfs, error))?;
        }
        let root = match clone_tree(&rootfs) {
            // Without the right to mount the directory itself will do for whoever only reads and writes files.
            Err(error) if error.errno() == Some(Errno::PERM.raw_os_error()) => open_dir(&rootfs)?.into(),
            other => other?,
        };
        Ok(Mounted { root, method: Method::Copy, upper: Some(rootfs) })
    }
}

/// The directories of a stack, lowest first. A layer that comes twice (steps that did the same) is taken once, at its
/// higher place: everything the lower one says is said again there, and the kernel refuses one directory twice (ELOOP).
/// Nothing is taken from below a layer that hides all: the kernel does not look for the mark on the root of a lower one.
pub(super) fn lowers_of(stack: &Stack) -> Result<Vec<PathBuf>, Error> {
    let mut seen = std::collections::BTreeSet::new();
    let mut lowers = Vec::with_capacity(stack.layers.len());
    for layer in stack.layers.iter().rev().filter(|layer| seen.insert(&layer.fs)) {
        let dir = open_dir(&layer.fs)?;
        lowers.push(layer.fs.clone());
        if hides_all_below(&dir)? {
            break;
        }
    }
    lowers.reverse();
    Ok(lowers)
}

/// `fsopen` and friends; directories are passed as descriptors where the kernel takes them (6.13), else by number. The
/// kernel holds on to each, so that one descriptor does for any number of layers.
fn overlay_by_fd(lowers: &[PathBuf], upper: Option<&Upper<'_>>) -> Result<OwnedFd, Errno> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
    fsconfig_set_flag(fs.as_fd(), "userxattr")?;
    for lower in lowers.iter().rev() {
        let lower = File::open(lower).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        set_dir(&fs, "lowerdir+", &lower)?;
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    if let Some(Upper { upper, work, volatile }) = upper {
        set_dir(&fs, "upperdir", upper)?;
        set_dir(&fs, "workdir", work)?;
        if *volatile {
            fsconfig_set_flag(fs.as_fd(), "volatile")?;
        }
        attributes = MountAttrFlags::empty();
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn set_dir(fs: &OwnedFd, key: &str, dir: &File) -> Result<(), Errno> {
    match fsconfig_set_fd(fs.as_fd(), key, dir.as_fd()) {
        Err(Errno::INVAL | Errno::BADF) => fsconfig_set_string(fs.as_fd(), key, by_number(dir)),
        other => other,
    }
}

/// A directory as the kernel finds it without walking a path, whatever bytes its path has.
fn by_number(dir: &File) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

fn clone_tree(dir: &Path) -> SysResult<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(rustix::fs::CWD, dir, flags).map_err(|error| SysError::path("clone the mount of", dir, error))
}

/// Errors that mean "overlay does not work here", as opposed to a full or broken disk.
fn may_fall_back(error: &Error) -> bool {
    let refused = [Errno::PERM, Errno::NODEV, Errno::INVAL, Errno::OPNOTSUPP, Errno::ACCESS, Errno::NOSYS];
    match error {
        Error::Sys(error) => refused.iter().any(|errno| error.errno() == Some(errno.raw_os_error())),
        Error::TooManyLayers { .. } => true,
        _ => false,
    }
}

/// Make a directory; `false` when it is there.
fn make_dir(path: &Path) -> Result<bool, Error> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(SysError::path("create", path, error).into()),
    }
}

/// The merged root shows the owner and mode of the topmost directory, so a new upper directory takes them from the
/// layer below.
fn like_root_of(upper: &Path, top: Option<&Path>) -> Result<(), Error> {
    let failed = |error| SysError::path("set the owner and mode of", upper, error);
    let mut mode = 0o755;
    if let Some(top) = top {
        let meta = fs::metadata(top).map_err(|error| SysError::path("stat", top, error))?;
        let own = fs::metadata(upper).map_err(failed)?;
        if (meta.uid(), meta.gid()) != (own.uid(), own.gid()) {
            match std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid())) {
                // With one id there is nobody else that it could belong to.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied
                        && !rustix::process::geteuid().is_root() => {}
                done => done.map_err(failed)?,
            }
        }
        mode = meta.mode() & 0o7777;
    }
    Ok(fs::set_permissions(upper, fs::Permissions::from_mode(mode)).map_err(failed)?)
}
