//! The copy engine of COPY and ADD: from a [`Tree`] into the mounted root of a step, by directory descriptors.
//!
//! The destination is private to the step, so nothing there changes under us; the source may, and is therefore only
//! opened in ways that cannot lead out of it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, openat};

use super::beneath::{self, kind};
use super::chmod::Chmod;
use super::put::{self, Meta, Placer};
use super::tree::{Child, Filter, Tree};

/// Why a copy stopped.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source is not there, or left out by the ignore file.
    #[error("\"/{}\": not found", .0.display())]
    NotFound(PathBuf),
    /// A directory would replace something that is none.
    #[error("cannot copy to non-directory: /{}", .0.display())]
    NonDirectory(PathBuf),
    /// A file would replace a directory.
    #[error("cannot replace to directory /{} with file", .0.display())]
    OverDirectory(PathBuf),
    /// A call failed.
    #[error("cannot {operation} `/{}`", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what, from its root.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Name the call that failed.
pub(super) fn failed<'a, E: Into<io::Error>>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(E) -> CopyError + use<'a, E> {
    move |source| CopyError::Io { operation, path: path.to_owned(), source: source.into() }
}

impl CopyError {
    /// Whether a file has as many names already as its file system can keep.
    pub(super) fn is_too_many_links(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::TooManyLinks)
    }
}

/// What the flags ask for.
#[derive(Clone, Copy, Default)]
pub(super) struct Rules<'a> {
    /// `--chown`: for everything copied and made.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub mode: Option<&'a Chmod>,
    /// `--exclude` and the patterns of `--parents`: what they hide, by paths relative to the source directory, is
    /// passed over, and directories on the way to the rest are made when they are needed.
    pub filters: &'a [&'a dyn Filter],
    /// Files are handed out to a directory of the user.
    pub export: Option<Export>,
}

/// How files are handed out: what is in their way is replaced, the top directory stays as it is, devices stay behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Export {
    /// The time that everything gets, in seconds; without one times are kept.
    pub epoch: Option<i64>,
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("owner", &self.owner).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Copies into one root.
#[derive(Debug)]
pub(super) struct Copier<'a, 'r> {
    rules: Rules<'r>,
    placer: Placer<'a>,
    /// First place of each file with several names, for the source argument at hand.
    links: HashMap<(u64, u64), PathBuf>,
}

/// A directory of the source and its counterpart, which is opened or made when something is to go into it.
struct Level {
    stat: Stat,
    source: PathBuf,
    dest: PathBuf,
    fd: Option<OwnedFd>,
    /// New entries would get the directory's group instead of ours.
    inherits_group: bool,
}

impl<'a, 'r> Copier<'a, 'r> {
    /// Copy with a placer, by the rules.
    pub(super) fn new(placer: Placer<'a>, rules: Rules<'r>) -> Self {
        Self { rules, placer, links: HashMap::new() }
    }

    /// The placer again, with the true owners of what the disk could not hold.
    pub(super) fn into_placer(self) -> Placer<'a> {
        self.placer
    }

    /// Copy one source (a path of `tree`; its links are followed) to the destination as it was written, made absolute.
    pub(super) fn copy(&mut self, tree: &Tree, source: &Path, dest: &str) -> Result<(), CopyError> {
        self.links.clear();
        let found = tree.resolve(source, true).map_err(failed("look at", source))?;
        let missing = || CopyError::NotFound(source.strip_prefix("/").unwrap_or(source).to_owned());
        let stat = found.stat.ok_or_else(missing)?;
        let is_dir = kind(&stat) == FileType::Directory;
        let base = source.file_name().or_else(|| found.path.file_name()).unwrap_or_default();
        let target = self.target(dest, base, is_dir)?;
        if is_dir {
            return self.copy_tree(tree, &found.path, stat, target);
        }
        let dir = self.placer.open_dir(target.parent().unwrap_or(Path::new("")))?;
        let parent = found.path.parent().unwrap_or(Path::new(""));
        let source_dir =
            tree.open(parent, OFlags::DIRECTORY | OFlags::PATH).map_err(failed("open", parent))?;
        let name = found.path.file_name().unwrap_or_default().to_owned();
        let child = Child { name, path: found.path, stat, hidden: false };
        let inherits = put::inherits_group(dir.as_fd(), &target)?;
        self.leaf(tree, source_dir.as_fd(), &child, dir.as_fd(), inherits, &target)
    }

    /// Write a file (a heredoc, a download) as if it were copied.
    pub(super) fn write_file(
        &mut self,
        name: &OsStr,
        content: &mut dyn io::Read,
        meta: Meta,
        dest: &str,
    ) -> Result<(), CopyError> {
        let target = self.target(dest, name, false)?;
        let dir = self.placer.open_dir(target.parent().unwrap_or(Path::new("")))?;
        let meta = self.changed(meta, false);
        self.placer.file(dir.as_fd(), &target, content, &meta)
    }

    /// Where a source goes: section by section what `cp -r source/. dest` and `cp source dest` would do, directories on
    /// the way made. The path that comes back holds no links in its existing part.
    pub(super) fn target(&mut self, dest: &str, base: &OsStr, is_dir: bool) -> Result<PathBuf, CopyError> {
        let as_dir = dest.ends_with('/') || dest.ends_with("/.") || dest == ".";
        let written = Path::new(dest);
        let ahead = if as_dir { written } else { written.parent().unwrap_or(Path::new("/")) };
        self.make_dirs(ahead)?;
        let found = beneath::resolve(self.placer.root, written, true).map_err(failed("look at", written))?;
        let is_existing_dir = found.stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory);
        let target = if !is_dir && is_existing_dir { found.path.join(base) } else { found.path };
        if is_dir {
            if found.stat.is_some() && !is_existing_dir {
                return Err(CopyError::NonDirectory(target));
            }
            self.make_dirs(&target)?;
        } else {
            self.make_dirs(target.parent().unwrap_or(Path::new("")))?;
        }
        Ok(target)
    }

    /// Make a directory and those above it, with the owner and mode of the flags.
    pub(super) fn make_dirs(&mut self, path: &Path) -> Result<PathBuf, CopyError> {
        let (uid, gid) = self.rules.owner.unwrap_or((0, 0));
        // As in the reference: special bits are for what is copied only.
        let mode = self.rules.mode.and_then(Chmod::octal).unwrap_or(0o755) & 0o777;
        self.placer.make_dirs(path, uid, gid, mode)
    }

    fn copy_tree(
        &mut self,
        tree: &Tree,
        source: &Path,
        stat: Stat,
        target: PathBuf,
    ) -> Result<(), CopyError> {
        let dir = tree.open(source, OFlags::DIRECTORY).map_err(failed("open", source))?;
        let fd = self.placer.open_dir(&target)?;
        let inherits_group = put::inherits_group(fd.as_fd(), &target)?;
        let top = Level { stat, source: source.to_owned(), dest: target, fd: Some(fd), inherits_group };
        let mut levels = vec![top];
        self.entries(tree, dir.as_fd(), &mut levels)?;
        let top = levels.swap_remove(0);
        if self.rules.export.is_some() {
            return Ok(());
        }
        let fd = top.fd.as_ref().map_or(self.placer.root, AsFd::as_fd);
        put::set_mtime(fd, put::mtime(&top.stat)).map_err(failed("set the times of", &top.dest))
    }

    /// Copy the entries of the innermost level.
    fn entries(
        &mut self,
        tree: &Tree,
        dir: BorrowedFd<'_>,
        levels: &mut Vec<Level>,
    ) -> Result<(), CopyError> {
        let top = levels[0].source.clone();
        let (source, dest) = {
            let here = &levels[levels.len() - 1];
            (here.source.clone(), here.dest.clone())
        };
        for child in tree.children(dir, &source).map_err(failed("read", &source))? {
            let below = child.path.strip_prefix(&top).unwrap_or(&child.path);
            let hiding: Vec<_> = self.rules.filters.iter().filter(|filter| filter.hides(below)).collect();
            let is_dir = kind(&child.stat) == FileType::Directory;
            let wanted = hiding.is_empty() && !child.hidden;
            let target = dest.join(&child.name);
            if is_dir {
                if !wanted && !hiding.iter().all(|filter| filter.may_show_below(below)) {
                    continue;
                }
                self.directory(tree, dir, child, target, wanted, levels)?;
            } else if wanted {
                self.open_level(levels)?;
                let here = &levels[levels.len() - 1];
                let fd = here.fd.as_ref().map_or(self.placer.root, AsFd::as_fd);
                self.leaf(tree, dir, &child, fd, here.inherits_group, &target)?;
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        tree: &Tree,
        dir: BorrowedFd<'_>,
        child: Child,
        target: PathBuf,
        wanted: bool,
        levels: &mut Vec<Level>,
    ) -> Result<(), CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, &child.name, flags, Mode::empty()).map_err(failed("open", &child.path))?;
        let level =
            Level { stat: child.stat, source: child.path, dest: target, fd: None, inherits_group: false };
        levels.push(level);
        if wanted {
            self.open_level(levels)?;
        }
        self.entries(tree, fd.as_fd(), levels)?;
        let Some(level) = levels.pop() else { return Ok(()) };
        match &level.fd {
            Some(made) => {
                let meta = self.meta(tree, &level.source, &level.stat);
                self.placer.finish_dir(made.as_fd(), &level.dest, &meta)
            }
            None => Ok(()),
        }
    }

    /// Make or open the directories of all levels.
    fn open_level(&mut self, levels: &mut [Level]) -> Result<(), CopyError> {
        for at in 1..levels.len() {
            if levels[at].fd.is_some() {
                continue;
            }
            let (above, below) = levels.split_at_mut(at);
            let parent = above[at - 1].fd.as_ref().map_or(self.placer.root, AsFd::as_fd);
            let level = &mut below[0];
            if self.rules.export.is_some() {
                self.make_way(parent, &level.dest, true)?;
            }
            let fd = self.placer.enter_dir(parent, &level.dest)?;
            level.inherits_group = put::inherits_group(fd.as_fd(), &level.dest)?;
            level.fd = Some(fd);
        }
        Ok(())
    }

    /// Copy what is no directory.
    fn leaf(
        &mut self,
        tree: &Tree,
        source_dir: BorrowedFd<'_>,
        child: &Child,
        dir: BorrowedFd<'_>,
        inherits_group: bool,
        target: &Path,
    ) -> Result<(), CopyError> {
        let mut meta = self.meta(tree, &child.path, &child.stat);
        meta.chown_always = inherits_group;
        let name = target.file_name().unwrap_or_default();
        if self.rules.export.is_some() {
            let kind = FileType::from_raw_mode(meta.mode);
            if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Socket) {
                return Ok(());
            }
            self.make_way(dir, target, false)?;
        }
        match FileType::from_raw_mode(meta.mode) {
            FileType::RegularFile => {
                let inode = (child.stat.st_dev, child.stat.st_ino);
                if child.stat.st_nlink > 1 {
                    if let Some(first) = self.links.get(&inode) {
                        match self.placer.hard_link(first, dir, name, target) {
                            Err(error) if error.is_too_many_links() => {}
                            linked => return linked,
                        }
                    }
                    self.links.insert(inode, target.to_owned());
                }
                self.placer.copy_file(source_dir, &child.name, &child.path, dir, target, &meta)
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(source_dir, &child.name, Vec::new())
                    .map_err(failed("read", &child.path))?;
                self.placer.symlink(link.as_bytes(), dir, target, &meta)
            }
            // A socket has no meaning without its process: an empty file stands for it.
            FileType::Socket => {
                let mode = (meta.mode & 0o7777) | FileType::RegularFile.as_raw_mode();
                self.placer.file(dir, target, &mut io::empty(), &Meta { mode, ..meta })
            }
            _ => self.placer.special(dir, target, &meta),
        }
    }

    /// Remove what is in the way of an entry.
    fn make_way(&mut self, dir: BorrowedFd<'_>, path: &Path, is_dir: bool) -> Result<(), CopyError> {
        let name = path.file_name().unwrap_or_default();
        match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_dir && kind(&stat) == FileType::Directory => Ok(()),
            Ok(_) => self.placer.clear_all(dir, path),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("look at", path)(errno)),
        }
    }

    fn meta(&self, tree: &Tree, path: &Path, stat: &Stat) -> Meta {
        let owner = tree.owner(path, stat);
        let meta = Meta {
            uid: owner.uid,
            gid: owner.gid,
            mode: owner.mode,
            rdev: owner.rdev,
            mtime: Some(self.mtime(stat)),
            chown_always: false,
        };
        self.changed(meta, kind(stat) == FileType::Directory)
    }

    fn mtime(&self, stat: &Stat) -> rustix::fs::Timespec {
        match self.rules.export.and_then(|export| export.epoch) {
            Some(tv_sec) => rustix::fs::Timespec { tv_sec, tv_nsec: 0 },
            None => put::mtime(stat),
        }
    }

    /// With the owner and mode of the flags.
    fn changed(&self, mut meta: Meta, is_dir: bool) -> Meta {
        if let Some((uid, gid)) = self.rules.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if let Some(chmod) = self.rules.mode {
            meta.mode = (meta.mode & !0o7777) | chmod.apply(meta.mode & 0o7777, is_dir);
        }
        meta
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "race_tests.rs"]
mod races;
