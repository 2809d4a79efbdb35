//! ADD of a local archive: recognised by content, unpacked over what is there.
//!
//! Unlike a layer, an archive lands in a tree that has files already, whose directory links are followed (inside the
//! root), and has no whiteouts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, OFlags, Timespec, XattrFlags, fsetxattr};

use super::beneath::{self, kind};
use super::checksum::CAPABILITY;
use super::copy::{CopyError, failed};
use super::put::{Meta, Placer, set_mtime};
use super::tree::Tree;
use crate::layer::{self, Compression};

/// What a local source of ADD turned out to be.
#[derive(Debug)]
pub(super) enum Sniffed {
    /// Not an archive: copied like any file.
    Plain,
    /// A tar, possibly compressed.
    Archive,
    /// An archive in a format that is not unpacked here.
    Unsupported(&'static str),
}

/// Look whether a source is an archive. Directories and what is not a regular file never are.
pub(super) fn sniff(tree: &Tree, source: &Path) -> Result<Sniffed, CopyError> {
    let Some(mut file) = open(tree, source)? else { return Ok(Sniffed::Plain) };
    let mut start = [0; 8];
    let n = read_full(&mut file, &mut start).map_err(failed("read", source))?;
    let start = &start[..n];
    if start.starts_with(b"BZh") {
        return Ok(Sniffed::Unsupported("bzip2"));
    }
    if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        return Ok(Sniffed::Unsupported("xz"));
    }
    file.rewind().map_err(failed("read", source))?;
    // What cannot be decompressed is no archive but a file that looks like one.
    let Ok((_, mut data)) = layer::decompressor(Box::new(file)) else { return Ok(Sniffed::Plain) };
    let mut block = [0; 512];
    match read_full(&mut data, &mut block) {
        Ok(512) if is_header(&block) => Ok(Sniffed::Archive),
        _ => Ok(Sniffed::Plain),
    }
}

fn open(tree: &Tree, source: &Path) -> Result<Option<File>, CopyError> {
    let found = tree.resolve(source, true).map_err(failed("look at", source))?;
    match found.stat {
        Some(stat) if kind(&stat) == FileType::RegularFile => {
            let fd = tree.open(&found.path, OFlags::NONBLOCK).map_err(failed("open", source))?;
            Ok(Some(File::from(fd)))
        }
        _ => Ok(None),
    }
}

fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Whether a block is a tar header: its checksum holds and it is not empty.
fn is_header(block: &[u8; 512]) -> bool {
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
        .sum();
    block[0] != 0 && header.cksum().is_ok_and(|stored| stored == sum)
}

/// Unpacks one archive.
struct Unpacker<'a, 'p> {
    placer: &'p mut Placer<'a>,
    owner: Option<(u32, u32)>,
    dest: PathBuf,
    /// Times of directories, set when everything is in them.
    times: Vec<(PathBuf, Timespec)>,
}

/// Unpack an archive that [`sniff`] saw below the directory `dest` of the placer's root.
pub(super) fn unpack(
    tree: &Tree,
    source: &Path,
    placer: &mut Placer<'_>,
    dest: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), CopyError> {
    let Some(file) = open(tree, source)? else { return Err(CopyError::NotFound(source.to_owned())) };
    let broken = |error: io::Error| failed("unpack", source)(error);
    let (_, data): (Compression, _) = layer::decompressor(Box::new(file)).map_err(broken)?;
    let (uid, gid) = owner.unwrap_or((0, 0));
    let dest = placer.make_dirs(dest, uid, gid, 0o755)?;
    let mut unpacker = Unpacker { placer, owner, dest, times: Vec::new() };
    let mut archive = tar::Archive::new(data);
    for entry in archive.entries().map_err(broken)? {
        unpacker.entry(entry.map_err(broken)?, source)?;
    }
    unpacker.finish()
}

impl Unpacker<'_, '_> {
    fn entry(&mut self, mut entry: tar::Entry<'_, impl Read>, source: &Path) -> Result<(), CopyError> {
        let broken = |error: io::Error| failed("unpack", source)(error);
        let extensions = extensions(&mut entry).map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let kind = entry.header().entry_type();
        let meta = self.meta(entry.header(), kind, &extensions).map_err(broken)?;
        let inside = normal(&name);
        if inside.as_os_str().is_empty() {
            let dest = self.dest.clone();
            return if kind.is_dir() { self.directory(&dest, &meta) } else { Ok(()) };
        }
        // Directories that the archive does not name are root's, whatever `--chown` says: the reference's way.
        let parent = self.dest.join(inside.parent().unwrap_or(Path::new("")));
        let parent = self.placer.make_dirs(&parent, 0, 0, 0o755)?;
        let path = parent.join(inside.file_name().unwrap_or_default());
        if kind.is_dir() {
            return self.directory(&path, &meta);
        }
        let dir = self.placer.open_dir(&parent)?;
        self.placer.clear_all(dir.as_fd(), &path)?;
        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                self.file(&mut entry, dir.as_fd(), &path, &meta, extensions.get(XATTR_CAPABILITY))
            }
            tar::EntryType::Link => {
                let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                let target = self.inside(&target)?;
                let name = path.file_name().unwrap_or_default();
                self.placer.hard_link(&target, dir.as_fd(), name, &path)?;
                // What the archive says of this name is said of the file, as in the reference.
                match beneath::stat(self.placer.root, &path).map_err(failed("look at", &path))? {
                    Some(stat) if beneath::kind(&stat) == FileType::RegularFile => {
                        self.placer.finish_at(dir.as_fd(), &path, &meta, true)
                    }
                    _ => Ok(()),
                }
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.placer.symlink(&target, dir.as_fd(), &path, &meta)
            }
            tar::EntryType::Char | tar::EntryType::Block => self.placer.special(dir.as_fd(), &path, &meta),
            // The reference leaves pipes out here, and knows no other kinds.
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        data: &mut dyn Read,
        dir: BorrowedFd<'_>,
        path: &Path,
        meta: &Meta,
        capability: Option<&Vec<u8>>,
    ) -> Result<(), CopyError> {
        self.placer.file(dir, path, data, meta)?;
        if let Some(value) = capability {
            let file: OwnedFd = beneath::open(
                self.placer.root,
                path,
                OFlags::RDONLY | OFlags::NONBLOCK,
                rustix::fs::Mode::empty(),
            )
            .map_err(failed("open", path))?;
            // Best effort, as the reference: a kernel may refuse it to us.
            let _ = fsetxattr(&file, CAPABILITY, value, XattrFlags::empty());
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, meta: &Meta) -> Result<(), CopyError> {
        let found = beneath::stat(self.placer.root, path).map_err(failed("look at", path))?;
        let parent = self.placer.open_dir(path.parent().unwrap_or(Path::new("")))?;
        if found.is_some_and(|stat| kind(&stat) != FileType::Directory) {
            self.placer.clear_all(parent.as_fd(), path)?;
        }
        let dir = if path.as_os_str().is_empty() {
            self.placer.open_dir(path)?
        } else {
            self.placer.enter_dir(parent.as_fd(), path)?
        };
        self.placer.finish_dir(dir.as_fd(), path, &Meta { mtime: None, ..*meta })?;
        self.times.extend(meta.mtime.map(|mtime| (path.to_owned(), mtime)));
        Ok(())
    }

    /// A hard link's target: a path of the archive, below the destination.
    fn inside(&self, target: &Path) -> Result<PathBuf, CopyError> {
        let path = self.dest.join(normal(target));
        let found = beneath::resolve(self.placer.root, &path, false).map_err(failed("look at", &path))?;
        found.stat.map(|_| found.path).ok_or(CopyError::NotFound(path))
    }

    fn meta(
        &self,
        header: &tar::Header,
        kind: tar::EntryType,
        extensions: &HashMap<String, Vec<u8>>,
    ) -> io::Result<Meta> {
        let number = |key: &str| {
            extensions.get(key).and_then(|value| std::str::from_utf8(value).ok()?.parse::<u32>().ok())
        };
        let id = |key: &str, plain: io::Result<u64>| -> io::Result<u32> {
            match number(key) {
                Some(id) => Ok(id),
                None => u32::try_from(plain?).map_err(|_| io::Error::other("an owner is out of range")),
            }
        };
        let (uid, gid) = match self.owner {
            Some(owner) => owner,
            None => (id("uid", header.uid())?, id("gid", header.gid())?),
        };
        let file_type = match kind {
            tar::EntryType::Directory => FileType::Directory,
            tar::EntryType::Symlink => FileType::Symlink,
            tar::EntryType::Char => FileType::CharacterDevice,
            tar::EntryType::Block => FileType::BlockDevice,
            _ => FileType::RegularFile,
        };
        let device = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
        Ok(Meta {
            uid,
            gid,
            mode: file_type.as_raw_mode() | (header.mode()? & 0o7777),
            rdev: rustix::fs::makedev(device(header.device_major()), device(header.device_minor())),
            mtime: Some(mtime(header, extensions)?),
            chown_always: true,
        })
    }

    fn finish(self) -> Result<(), CopyError> {
        for (path, mtime) in self.times.iter().rev() {
            let dir = self.placer.open_dir(path)?;
            set_mtime(dir.as_fd(), *mtime).map_err(failed("set the times of", path))?;
        }
        Ok(())
    }
}

/// The PAX record of a file capability.
const XATTR_CAPABILITY: &str = "SCHILY.xattr.security.capability";

fn extensions(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<HashMap<String, Vec<u8>>> {
    let mut all = HashMap::new();
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            let record = record?;
            if let Ok(key) = record.key() {
                all.insert(key.to_owned(), record.value_bytes().to_vec());
            }
        }
    }
    Ok(all)
}

fn mtime(header: &tar::Header, extensions: &HashMap<String, Vec<u8>>) -> io::Result<Timespec> {
    let exact = extensions.get("mtime").and_then(|value| std::str::from_utf8(value).ok());
    if let Some((seconds, fraction)) = exact.map(|text| text.split_once('.').unwrap_or((text, "")))
        && let Ok(seconds) = seconds.parse::<i64>()
    {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        return Ok(Timespec { tv_sec: seconds, tv_nsec: digits.parse().unwrap_or(0) });
    }
    Ok(Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or(0), tv_nsec: 0 })
}

/// A path of the archive, `..` clamped at its top.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if !name.as_bytes().is_empty() => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::super::tree::Owners;
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType, data: &str, link: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(if kind == tar::EntryType::Directory { 0o750 } else { 0o640 });
            header.set_mtime(1_234_567_890);
            header.set_uid(0);
            header.set_gid(0);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            if !link.is_empty() {
                header.set_link_name_literal(link).unwrap();
            }
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        };
        add("r.txt", tar::EntryType::Regular, "r", "");
        add("bin", tar::EntryType::Directory, "", "");
        add("bin/x", tar::EntryType::Regular, "x", "");
        add("bin/h", tar::EntryType::Link, "", "bin/x");
        add("ln", tar::EntryType::Symlink, "", "bin/x");
        add("../../up", tar::EntryType::Regular, "up", "");
        add("alias/in", tar::EntryType::Regular, "in", "");
        add("fifo", tar::EntryType::Fifo, "", "");
        builder.into_inner().unwrap()
    }

    #[test]
    fn an_archive_lands_over_what_is_there_and_never_outside() {
        let (source, outer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(source.path().join("a.bin"), archive()).unwrap();
        std::fs::write(source.path().join("text.tar"), "just text").unwrap();
        std::fs::write(source.path().join("bad.gz"), b"\x1f\x8b\x08 not gzip at all").unwrap();
        let tree = Tree::new(File::open(source.path()).unwrap().into(), Owners::Root, None);
        assert!(matches!(sniff(&tree, Path::new("a.bin")).unwrap(), Sniffed::Archive));
        assert!(matches!(sniff(&tree, Path::new("text.tar")).unwrap(), Sniffed::Plain));
        assert!(matches!(sniff(&tree, Path::new("bad.gz")).unwrap(), Sniffed::Plain));

        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("out/r.txt/in/the/way")).unwrap();
        std::fs::create_dir_all(root.join("real")).unwrap();
        symlink("/real", root.join("out/alias")).unwrap();
        let fd = File::open(&root).unwrap();
        let mut placer = Placer::new(fd.as_fd());
        unpack(&tree, Path::new("a.bin"), &mut placer, Path::new("/out"), None).unwrap();
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("out/r.txt"), "r");
        assert_eq!(read("out/ln"), "x");
        assert_eq!(read("out/up"), "up");
        assert_eq!(read("real/in"), "in");
        assert!(!root.join("out/fifo").exists() && !outer.path().join("up").exists());
        let at = |path: &str| std::fs::metadata(root.join(path)).unwrap();
        assert_eq!(at("out/bin/h").ino(), at("out/bin/x").ino());
        assert_eq!((at("out/bin").mtime(), at("out/r.txt").mode() & 0o7777), (1_234_567_890, 0o640));
        assert_eq!(at("out/bin/x").mode() & 0o7777, 0o640);
    }
}
