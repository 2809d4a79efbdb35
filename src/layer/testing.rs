//! What the tests of this floor share: archives made by hand, and trees as comparable values.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::tar::{Entry, Kind, Writer};
use super::{Applied, ApplyOptions, Error, apply};
use crate::sys::xattr;

pub(super) const ALL: ApplyOptions =
    ApplyOptions { mapped_ids: u32::MAX, max_entries: 1_000_000, max_bytes: 1 << 40 };
pub(super) const SINGLE: ApplyOptions = ApplyOptions { mapped_ids: 1, ..ALL };

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Options that fit who runs the tests: root has all ids, others one.
pub(super) fn own_options() -> ApplyOptions {
    if is_root() { ALL } else { SINGLE }
}

pub(super) fn entry(path: &str, kind: Kind) -> Entry {
    let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
    Entry { mode, ..Entry::new(path, kind) }
}

pub(super) fn file(path: &str, content: &str) -> (Entry, Vec<u8>) {
    let size = content.len() as u64;
    (Entry { size, ..entry(path, Kind::File) }, content.into())
}

pub(super) fn dir(path: &str) -> (Entry, Vec<u8>) {
    (entry(path, Kind::Directory), Vec::new())
}

pub(super) fn symlink(path: &str, target: &str) -> (Entry, Vec<u8>) {
    (Entry { link: target.into(), ..entry(path, Kind::Symlink) }, Vec::new())
}

pub(super) fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    (Entry { link: target.into(), ..entry(path, Kind::HardLink) }, Vec::new())
}

pub(super) fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    for (entry, content) in entries {
        writer.append(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// A directory to unpack into, with a canary beside it that nothing may touch.
pub(super) struct Sandbox {
    pub(super) top: tempfile::TempDir,
    canary: (i64, i64, String),
}

impl Sandbox {
    pub(super) fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("root")).unwrap();
        std::fs::create_dir(top.path().join("canarydir")).unwrap();
        std::fs::write(top.path().join("canary"), "alive").unwrap();
        let canary = Self::look(top.path());
        Self { top, canary }
    }

    fn look(top: &Path) -> (i64, i64, String) {
        let (file, dir) = (top.join("canary"), top.join("canarydir"));
        let content = std::fs::read_to_string(&file).unwrap();
        (file.metadata().unwrap().ctime_nsec(), dir.metadata().unwrap().ctime_nsec(), content)
    }

    pub(super) fn root(&self) -> PathBuf {
        self.top.path().join("root")
    }

    pub(super) fn apply(&self, tar: &[u8], options: &ApplyOptions) -> Result<Applied, Error> {
        let root = File::open(self.root()).unwrap();
        let mut rest = tar;
        let result = apply(&mut rest, root.as_fd(), options);
        assert!(result.is_err() || rest.is_empty(), "the stream is read to its end");
        assert_eq!(Self::look(self.top.path()), self.canary, "the canary was touched");
        let names = std::fs::read_dir(self.top.path()).unwrap().count();
        assert_eq!(names, 3, "something was made outside of the root");
        result
    }
}

/// Everything about a tree that a layer tells, by path.
pub(super) fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut links = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let full = root.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let mut text = format!("{:o} {}:{} ", meta.mode(), meta.uid(), meta.gid());
        if !path.as_os_str().is_empty() {
            text += &format!("t{}.{:09} ", meta.mtime(), meta.mtime_nsec());
        }
        if kind.is_symlink() {
            text += &format!("-> {:?}", std::fs::read_link(&full).unwrap());
        } else if kind.is_block_device() || kind.is_char_device() {
            text += &format!("device {}", meta.rdev());
        } else if (kind.is_file() || kind.is_dir())
            && let Ok(file) = File::open(&full)
        {
            for name in xattr::list(&file).unwrap() {
                if !name.starts_with(b"security.selinux") {
                    let name = String::from_utf8(name).unwrap();
                    let value = xattr::get(&file, &name).unwrap().unwrap();
                    text += &format!("{name}={} ", crate::oci::Digest::sha256(value).short());
                }
            }
            if kind.is_file() {
                let mut content = Vec::new();
                (&file).read_to_end(&mut content).unwrap();
                text += crate::oci::Digest::sha256(content).short();
            }
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            let first = links.entry(meta.ino()).or_insert_with(|| path.clone());
            text += &format!(" linked {}", first.display());
        }
        if kind.is_dir() {
            let mut names: Vec<_> =
                std::fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            left.extend(names.iter().rev().map(|name| path.join(name)));
        }
        all.insert(path, text);
    }
    all
}

/// The names of a tree, but for its root.
pub(super) fn names(root: &Path) -> Vec<String> {
    let all = tree(root);
    all.keys().filter(|path| path.as_os_str() != "").map(|path| path.display().to_string()).collect()
}

/// The attribute that overlayfs reads from a directory.
pub(super) fn overlay_mark(path: &Path) -> Option<String> {
    let value = xattr::get(File::open(path).unwrap(), "user.overlay.opaque").unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

pub(super) fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

/// Run GNU tar.
pub(super) fn gnu_tar(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = std::process::Command::new("tar");
    let out = command.current_dir(dir).env("TZ", "UTC").args(arguments).output().unwrap();
    assert!(out.status.success(), "tar {arguments:?}: {}", OsStr::from_bytes(&out.stderr).display());
    out.stdout
}
