//! Owners that the disk cannot hold.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The true owner, mode and kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits with set-id and sticky, and the file type bits (`st_mode`).
    pub mode: u32,
    /// Device numbers (`st_rdev`) for device nodes that stand on disk as an empty file, else 0.
    pub rdev: u64,
}

/// True owners by path (relative, no leading `./`), for the entries whose disk state differs from what the layer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerTable {
    entries: BTreeMap<PathBuf, Owner>,
}

impl OwnerTable {
    /// The true owner of an entry, when the disk does not tell it.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<Owner> {
        self.entries.get(path).copied()
    }

    /// Remember the true owner of an entry.
    pub fn insert(&mut self, path: PathBuf, owner: Owner) {
        self.entries.insert(path, owner);
    }

    /// Forget an entry, when the disk is right after all or the entry is gone.
    pub fn remove(&mut self, path: &Path) {
        self.entries.remove(path);
    }

    /// Forget an entry and all below it.
    pub fn remove_tree(&mut self, path: &Path) {
        let below = self.entries.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        let gone: Vec<PathBuf> =
            below.map(|(path, _)| path).take_while(|entry| entry.starts_with(path)).cloned().collect();
        for path in gone {
            self.entries.remove(&path);
        }
    }

    /// Whether the disk tells the truth about every entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, Owner)> {
        self.entries.iter().map(|(path, owner)| (path.as_path(), *owner))
    }

    /// The table as bytes: a line with the version, then a record for each entry in path order. A record is the path
    /// and a NUL, then owner, group, mode and device in decimal, separated by spaces and ended by a line feed. A path
    /// may hold line feeds but no NUL, so that records are told apart.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for (path, owner) in &self.entries {
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            let Owner { uid, gid, mode, rdev } = owner;
            bytes.extend_from_slice(format!("\0{uid} {gid} {mode} {rdev}\n").as_bytes());
        }
        bytes
    }

    /// The table that [`OwnerTable::to_bytes`] wrote. `None` when the bytes are damaged or of another version: what the
    /// table belongs to is then to be made again.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(HEADER)?;
        let mut entries = BTreeMap::new();
        while !rest.is_empty() {
            let nul = rest.iter().position(|byte| *byte == 0)?;
            let end = nul + rest[nul..].iter().position(|byte| *byte == b'\n')?;
            let numbers = std::str::from_utf8(&rest[nul + 1..end]).ok()?;
            let mut numbers = numbers.split(' ');
            let mut id = || numbers.next()?.parse::<u32>().ok();
            let (uid, gid, mode) = (id()?, id()?, id()?);
            let rdev = numbers.next()?.parse().ok()?;
            if numbers.next().is_some() {
                return None;
            }
            let path = PathBuf::from(std::ffi::OsString::from_vec(rest[..nul].to_vec()));
            entries.insert(path, Owner { uid, gid, mode, rdev });
            rest = &rest[end + 1..];
        }
        Some(Self { entries })
    }
}

/// Name and version of the format.
const HEADER: &[u8] = b"strate owners 1\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_damage_is_seen() {
        let mut table = OwnerTable::default();
        assert_eq!(OwnerTable::from_bytes(&table.to_bytes()), Some(table.clone()));
        for (path, rdev) in [("", 0), ("a", 1), ("a/b\nc 1 2", u64::MAX), ("a-b", 7), ("z/\u{fc}", 0)] {
            table.insert(path.into(), Owner { uid: 70_000, gid: u32::MAX, mode: 0o104_755, rdev });
        }
        let bytes = table.to_bytes();
        assert_eq!(OwnerTable::from_bytes(&bytes), Some(table.clone()));
        assert_eq!(OwnerTable::from_bytes(&bytes[1..]), None);
        assert_eq!(OwnerTable::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(OwnerTable::from_bytes(b""), None);
        table.remove_tree(Path::new("a"));
        let left: Vec<_> = table.iter().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(left, [Path::new(""), Path::new("a-b"), Path::new("z/\u{fc}")]);
    }
}
