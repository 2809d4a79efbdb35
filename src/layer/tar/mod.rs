//! The tar format: one strict reader and one deterministic writer for everything that reads or writes a layer.
//!
//! The `tar` crate supplies the layout of the header block; its own iterator is not used, because it splits PAX records
//! at line ends instead of by their length and knows no PAX sparse files. Where archives are ambiguous the answer is
//! that of Go's `archive/tar`, which the other tools of the field use, or a refusal: never a third reading.
//!
//! References: POSIX.1-2017 pax(1), "pax Interchange Format" and "ustar Interchange Format"; GNU tar manual, "Basic
//! Tar Format" and "Storing Sparse Files".

mod content;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use content::{Content, edit};
pub use reader::Reader;
pub use sparse::Extent;
pub use writer::Writer;

use std::collections::BTreeMap;

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;

/// Whether a block is the header of an entry: its checksum holds and it is not empty.
#[must_use]
pub fn is_header(block: &[u8; BLOCK]) -> bool {
    block[0] != 0 && header::Block::parse(block).is_ok()
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, possibly negative.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10⁹.
    pub nanos: u32,
}

/// One entry of an archive. Names are bytes as they stand in the archive: nothing about them is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub path: Vec<u8>,
    /// The target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky; never type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content; for a sparse file with its holes.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data of a sparse file goes; the archive holds these pieces only, one after the other.
    pub sparse: Option<Vec<Extent>>,
}

impl Entry {
    /// An entry with nothing but a name and a kind.
    #[must_use]
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            path: path.into(),
            link: Vec::new(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
            sparse: None,
        }
    }

    /// Bytes of content that the archive holds.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        match &self.sparse {
            Some(extents) => extents.iter().map(|extent| extent.length).sum(),
            None => self.size,
        }
    }
}

#[cfg(test)]
mod tests;
