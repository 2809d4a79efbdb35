//! A tar stream, entry by entry.

use std::io::Read;

use super::header::{Block, Layout};
use super::pax::{self, Record};
use super::sparse::{self, Extent, MapReader, PaxSparse};
use super::{BLOCK, Entry, Kind};
use crate::layer::Error;

/// Bytes read ahead: also the largest piece that a file's content is handed out in.
const BUFFER: usize = 256 * 1024;
/// Bytes of an extended header or a long name.
const MAX_EXTENDED: u64 = 1024 * 1024;
/// Extended headers in a row before an entry.
const MAX_EXTENDED_RUN: u32 = 16;

/// Reads entries and their content from a stream.
pub struct Reader<'r> {
    input: &'r mut dyn Read,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the stream before `buffer[start]`.
    offset: u64,
    at_end: bool,
    globals: Vec<Record>,
    /// Bytes of the present entry's content that were not handed out yet.
    left: u64,
    /// Zeros after it, up to a full block.
    padding: u64,
    finished: bool,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// Extended headers collected before an entry.
#[derive(Default)]
struct Extended {
    records: Vec<Record>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    any: bool,
}

impl<'r> Reader<'r> {
    /// Read an uncompressed archive.
    pub fn new(input: &'r mut dyn Read) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            at_end: false,
            globals: Vec::new(),
            left: 0,
            padding: 0,
            finished: false,
        }
    }

    /// The next entry, or nothing after two blocks of zeros or at the end of the stream. What was not read of the
    /// last entry's content is skipped.
    ///
    /// # Errors
    /// When the stream cannot be read or is not a tar.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.finished {
            return Ok(None);
        }
        self.skip(self.left)?;
        self.left = 0;
        let padding = std::mem::take(&mut self.padding);
        if !self.skip_some(padding)? {
            // umoci's `insert` ends an archive with the last byte of content, and Go's reader lets it.
            self.finished = true;
            return Ok(None);
        }
        let mut extended = Extended::default();
        for _ in 0..=MAX_EXTENDED_RUN {
            let Some(block) = self.header_block()? else {
                self.finished = true;
                if extended.any {
                    return Err(self.bad("extended header without an entry"));
                }
                return Ok(None);
            };
            let header = Block::parse(&block).map_err(|what| self.bad(what))?;
            if !self.take_extended(&header, &mut extended)? {
                return self.entry(&header, &extended).map(Some);
            }
        }
        Err(self.bad("too many extended headers in a row"))
    }

    /// The next piece of the present entry's content as the archive holds it (a sparse file's pieces one after the
    /// other), or nothing at its end.
    ///
    /// # Errors
    /// When the stream cannot be read or ends within the content.
    pub fn chunk(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        // Small remains are joined with what follows, so that large files are written in large pieces.
        let have = self.end - self.start;
        if (have as u64) < self.left && have < BUFFER / 2 {
            self.fill()?;
        }
        if self.start == self.end {
            return Err(self.bad("unexpected end of archive"));
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.end - self.start);
        let from = self.start;
        self.advance(length);
        self.left -= length as u64;
        Ok(Some(&self.buffer[from..from + length]))
    }

    /// Read to the very end of the stream, whatever follows the archive.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub fn drain(&mut self) -> Result<(), Error> {
        self.finished = true;
        loop {
            let length = self.end - self.start;
            self.advance(length);
            if self.at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Bytes of the stream that were taken in.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// An error at this place of the stream.
    pub(in crate::layer) fn bad(&self, what: impl Into<String>) -> Error {
        Error::Tar { offset: self.offset, what: what.into() }
    }

    fn advance(&mut self, length: usize) {
        self.start += length;
        self.offset += length as u64;
    }

    /// Fill the buffer up, unless the stream ends.
    fn fill(&mut self) -> Result<(), Error> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < self.buffer.len() && !self.at_end {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(length) => self.end += length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { operation: "read", source }),
            }
        }
        Ok(())
    }

    /// One block, or nothing at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        if self.end - self.start < BLOCK {
            self.fill()?;
        }
        if self.start == self.end {
            return Ok(None);
        }
        let Some(block) = self.buffer[self.start..self.end].first_chunk::<BLOCK>().copied() else {
            return Err(self.bad("unexpected end of archive"));
        };
        self.advance(BLOCK);
        Ok(Some(block))
    }

    /// A header block, or nothing at the end of the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(block) if block != [0; BLOCK] => Err(self.bad("a single block of zeros between entries")),
            _ => Ok(None),
        }
    }

    fn skip(&mut self, length: u64) -> Result<(), Error> {
        if self.skip_some(length)? { Ok(()) } else { Err(self.bad("unexpected end of archive")) }
    }

    /// Pass over bytes; false when the stream ends before.
    fn skip_some(&mut self, mut length: u64) -> Result<bool, Error> {
        while length > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let step = usize::try_from(length).unwrap_or(usize::MAX).min(self.end - self.start);
            if step == 0 {
                return Ok(false);
            }
            self.advance(step);
            length -= step as u64;
        }
        Ok(true)
    }

    /// Take in a header that only describes the next one; false when it is an entry itself.
    fn take_extended(&mut self, header: &Block, extended: &mut Extended) -> Result<bool, Error> {
        match header.typeflag() {
            // Go's reader lets a later header of a kind replace an earlier one.
            b'x' => extended.records = self.records(header)?,
            b'g' => {
                let records = self.records(header)?;
                // Readers differ on these: what one takes for content another takes for headers.
                let dangerous = |key: &[u8]| {
                    matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.")
                };
                if records.iter().any(|(key, _)| dangerous(key)) {
                    return Err(self.bad("global header with a name or a size"));
                }
                self.globals.extend(records);
                if self.globals.len() > 10_000 {
                    return Err(Error::Limit("more than 10000 global header records".into()));
                }
                return Ok(true);
            }
            b'L' => extended.name = Some(self.long_name(header)?),
            b'K' => extended.link = Some(self.long_name(header)?),
            // A volume label has no content.
            b'V' => return Ok(true),
            _ => return Ok(false),
        }
        extended.any = true;
        Ok(true)
    }

    fn records(&mut self, header: &Block) -> Result<Vec<Record>, Error> {
        let data = self.extended_data(header)?;
        pax::parse(&data).map_err(|what| self.bad(what))
    }

    fn long_name(&mut self, header: &Block) -> Result<Vec<u8>, Error> {
        let mut data = self.extended_data(header)?;
        data.truncate(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
        Ok(data)
    }

    fn extended_data(&mut self, header: &Block) -> Result<Vec<u8>, Error> {
        let size = self.size(header)?;
        if size > MAX_EXTENDED {
            return Err(Error::Limit(format!(
                "extended header of {size} bytes, at most {MAX_EXTENDED} allowed"
            )));
        }
        let mut data = Vec::new();
        for _ in 0..size.div_ceil(BLOCK as u64) {
            let block = self.block()?.ok_or_else(|| self.bad("unexpected end of archive"))?;
            data.extend_from_slice(&block);
        }
        // At most MAX_EXTENDED: it fits.
        data.truncate(size as usize);
        Ok(data)
    }

    fn size(&self, header: &Block) -> Result<u64, Error> {
        let size = header.size().map_err(|what| self.bad(what))?;
        u64::try_from(size).map_err(|_| self.bad("negative size"))
    }

    fn entry(&mut self, header: &Block, extended: &Extended) -> Result<Entry, Error> {
        let flag = header.typeflag();
        let records = &extended.records;
        let kind = kind_of(flag).ok_or_else(|| {
            self.bad(format!("entry of unknown type `{}`", char::from(flag).escape_default()))
        })?;
        let mut entry = describe(header, kind).map_err(|what| self.bad(what))?;
        pax::merge(&mut entry, &self.globals).map_err(|what| self.bad(what))?;
        pax::merge(&mut entry, records).map_err(|what| self.bad(what))?;
        let mut stored = match pax::last(records, b"size") {
            Some(size) => pax::decimal(size)
                .filter(|size| i64::try_from(*size).is_ok())
                .ok_or_else(|| self.bad("size is not a number"))?,
            None => self.size(header)?,
        };
        if let Some(name) = extended.name.as_ref().filter(|name| !name.is_empty()) {
            entry.path.clone_from(name);
        }
        if let Some(link) = extended.link.as_ref().filter(|link| !link.is_empty()) {
            entry.link.clone_from(link);
        }
        // Before ustar a trailing slash was the mark of a directory.
        if flag == 0 && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        if entry.kind != Kind::File {
            // No content follows these, whatever their size field says.
            stored = 0;
        }
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        entry.size = stored;
        if entry.kind == Kind::File {
            self.sparse(header, records, &mut entry)?;
        }
        Ok(entry)
    }

    /// Find out whether a file is sparse; its map and its real size.
    fn sparse(&mut self, header: &Block, records: &[Record], entry: &mut Entry) -> Result<(), Error> {
        let (extents, size) = if header.typeflag() == b'S' {
            self.gnu_sparse(header)?
        } else {
            match sparse::from_pax(records).map_err(|what| self.bad(what))? {
                PaxSparse::No => return Ok(()),
                PaxSparse::Map { extents, size } => (extents, size),
                PaxSparse::InData { size } => (self.map_in_data()?, size),
            }
        };
        if let Some(name) = pax::last(records, b"GNU.sparse.name") {
            entry.path = name.to_vec();
        }
        sparse::check(&extents, size, self.left).map_err(|what| self.bad(what))?;
        entry.size = size;
        entry.sparse = Some(extents);
        Ok(())
    }

    fn gnu_sparse(&mut self, header: &Block) -> Result<(Vec<Extent>, u64), Error> {
        if header.layout() != Layout::Gnu {
            return Err(self.bad("sparse entry in a header of another format"));
        }
        let (fields, mut more, size) = header.gnu_sparse();
        let size = size.ok().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.bad("sparse file without a size"))?;
        let mut extents = Vec::new();
        sparse::from_gnu(fields, &mut extents).map_err(|what| self.bad(what))?;
        while more {
            let block = self.block()?.ok_or_else(|| self.bad("unexpected end of archive"))?;
            sparse::from_gnu(&block[..504], &mut extents).map_err(|what| self.bad(what))?;
            more = block[504] != 0;
            if more && extents.is_empty() {
                return Err(self.bad("empty sparse map that goes on"));
            }
        }
        Ok((extents, size))
    }

    fn map_in_data(&mut self) -> Result<Vec<Extent>, Error> {
        let mut map = MapReader::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(self.bad("sparse map longer than its entry"));
            }
            let block = self.block()?.ok_or_else(|| self.bad("unexpected end of archive"))?;
            self.left -= BLOCK as u64;
            if map.feed(&block).map_err(|what| self.bad(what))? {
                return map.finish().map_err(|what| self.bad(what));
            }
        }
    }
}

impl Read for Reader<'_> {
    /// The content of the present entry, as [`Reader::chunk`] tells.
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 || out.is_empty() {
            return Ok(0);
        }
        if self.start == self.end {
            self.fill().map_err(std::io::Error::other)?;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = left.min(self.end - self.start).min(out.len());
        if length == 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                self.bad("unexpected end of archive"),
            ));
        }
        out[..length].copy_from_slice(&self.buffer[self.start..self.start + length]);
        self.advance(length);
        self.left -= length as u64;
        Ok(length)
    }
}

fn kind_of(flag: u8) -> Option<Kind> {
    Some(match flag {
        // '7' is a file that wants to lie in one piece.
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

fn describe(header: &Block, kind: Kind) -> Result<Entry, String> {
    let id = |value: i64| {
        let id = u32::try_from(value).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| "owner id out of range".to_owned())
    };
    let mut entry = Entry::new(header.path(), kind);
    entry.link = header.link();
    let mode = u64::try_from(header.mode()?).map_err(|_| "negative mode".to_owned())?;
    // Old archives keep the type bits here too.
    entry.mode = (mode & 0o7777) as u32;
    entry.uid = id(header.uid()?)?;
    entry.gid = id(header.gid()?)?;
    entry.mtime.seconds = header.mtime()?;
    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        let part = |value: i64| u32::try_from(value).map_err(|_| "device number out of range".to_owned());
        let (major, minor) = header.device()?;
        entry.device = (part(major)?, part(minor)?);
    }
    Ok(entry)
}
