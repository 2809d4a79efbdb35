//! The first use of a volume: what the image has at the mount point is copied into it, as docker does.
//!
//! Both sides are walked by descriptors, names relative to an open directory and links never followed, because the
//! image decides what lies there.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::volumes::Volume;
use crate::storage::Error;
use crate::sys::SysError;

/// How deep directories may nest.
const DEEPEST: usize = 1000;

impl Volume {
    /// Fill the volume with what lies at `target` in the tree `root`; nothing when that is no directory. All or nothing:
    /// the content is staged beside the volume's directory and takes its place.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn fill(&self, root: BorrowedFd<'_>, target: &str) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let relative = target.trim_start_matches('/');
        let Ok(source) = rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) else {
            return Ok(());
        };
        let staged = self.data.with_file_name(format!(".fill-{}", std::process::id()));
        let result = self
            .stage(&source, &staged)
            .map_err(|error| Error::from(SysError::path("copy the image's files to", &self.data, error)));
        if result.is_err() {
            let _ = std::fs::remove_dir_all(&staged);
        }
        result
    }

    fn stage(&self, source: &OwnedFd, staged: &PathBuf) -> io::Result<()> {
        std::fs::create_dir(staged)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let top = rustix::fs::open(staged, flags, Mode::empty())?;
        let mut copier = Copier { links: HashMap::new(), top: top.as_fd(), depth: 0 };
        copier.directory(source, &top, Path::new(""))?;
        let stat = rustix::fs::fstat(source)?;
        copier.directory_attributes(source, &top, &stat)?;
        // Replaces an empty directory only: when somebody else was faster, theirs stays.
        match rustix::fs::renameat(CWD, staged, CWD, &self.data) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => std::fs::remove_dir_all(staged),
            other => Ok(other?),
        }
    }
}

struct Copier<'a> {
    /// Where a file with several names was copied to first, relative to the top.
    links: HashMap<(u64, u64), PathBuf>,
    top: BorrowedFd<'a>,
    depth: usize,
}

impl Copier<'_> {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> io::Result<()> {
        if self.depth > DEEPEST {
            return Err(Errno::NAMETOOLONG.into());
        }
        self.depth += 1;
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.entry(from, to, name, &path.join(name.to_string_lossy().as_ref()))?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &Path) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            #[allow(clippy::unnecessary_cast, reason = "their width differs between architectures")]
            let key = (stat.st_dev as u64, stat.st_ino as u64);
            if let Some(first) = self.links.get(&key) {
                return Ok(rustix::fs::linkat(self.top, first, to, name, AtFlags::empty())?);
            }
            self.links.insert(key, path.to_owned());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
                self.directory(&source, &target, path)?;
                self.directory_attributes(&source, &target, &stat)
            }
            FileType::RegularFile => regular(from, to, name, &stat),
            FileType::Symlink => {
                let link: CString = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&link, to, name)?;
                own(to, name, &stat)?;
                Ok(rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            _ => special(to, name, kind, &stat),
        }
    }

    fn directory_attributes(&self, from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
        own(to, c"", stat)?;
        rustix::fs::fchmod(to, mode(stat))?;
        copy_xattrs(from, to)?;
        Ok(rustix::fs::futimens(to, &times(stat))?)
    }
}

fn regular(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (mut source, mut target) = (File::from(source), File::from(target));
    io::copy(&mut source, &mut target)?;
    own(&target, c"", stat)?;
    // After the owner, whose change drops set-id bits and file capabilities.
    rustix::fs::fchmod(&target, mode(stat))?;
    copy_xattrs(&source, &target)?;
    Ok(rustix::fs::futimens(&target, &times(stat))?)
}

/// Fifos and sockets are made anew; a device that may not be made here is left out, as it could not be used either.
fn special(to: &OwnedFd, name: &CStr, kind: FileType, stat: &Stat) -> io::Result<()> {
    match rustix::fs::mknodat(to, name, kind, mode(stat), stat.st_rdev) {
        Ok(()) => own(to, name, stat),
        Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An owner that this id map lacks cannot be given: the file then stays ours.
fn own(dir: impl AsFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags) {
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    #[allow(clippy::unnecessary_cast, reason = "their type differs between architectures")]
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    #[allow(clippy::unnecessary_cast, reason = "their type differs between architectures")]
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as u64),
    }
}

/// What may not be set here (another security module, a namespace we lack) is left out.
fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0_u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(&from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.") {
            continue;
        }
        value.resize(64 * 1024, 0);
        let Ok(size) = rustix::fs::fgetxattr(&from, name, value.as_mut_slice()) else { continue };
        match rustix::fs::fsetxattr(&to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_arrives_with_everything_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::create_dir_all(image.join("data/sub")).unwrap();
        std::fs::write(image.join("data/f"), "text").unwrap();
        std::fs::set_permissions(image.join("data/f"), PermissionsExt::from_mode(0o4751)).unwrap();
        std::fs::hard_link(image.join("data/f"), image.join("data/sub/g")).unwrap();
        symlink("/etc/passwd", image.join("data/link")).unwrap();
        std::fs::set_permissions(image.join("data"), PermissionsExt::from_mode(0o1770)).unwrap();
        symlink("/data", image.join("alias")).unwrap();
        let data = dir.path().join("_data");
        std::fs::create_dir(&data).unwrap();
        let volume = Volume {
            name: "v".into(),
            created: String::new(),
            anonymous: false,
            data: data.clone(),
            new: true,
        };
        let root = rustix::fs::open(&image, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        volume.fill(root.as_fd(), "/nothing").unwrap();
        volume.fill(root.as_fd(), "/data/f").unwrap();
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        volume.fill(root.as_fd(), "/alias").unwrap();
        let meta = std::fs::metadata(data.join("f")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o4751, 2));
        assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o7777, 0o1770);
        assert_eq!(std::fs::read_link(data.join("link")).unwrap(), Path::new("/etc/passwd"));
        // Somebody was faster: what is there stays.
        std::fs::write(data.join("f"), "mine").unwrap();
        volume.fill(root.as_fd(), "/data").unwrap();
        assert_eq!(std::fs::read_to_string(data.join("f")).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
