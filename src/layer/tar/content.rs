//! The content of an entry as a stream, and archives changed as they pass.

use std::io::{self, Read, Write};

use super::{Entry, Extent, Reader, Writer};
use crate::layer::Error;

/// Content as the archive holds it: a sparse file's pieces one after the other.
struct Pieces<'a, 'r> {
    reader: &'a mut Reader<'r>,
    piece: Vec<u8>,
    taken: usize,
    failed: Option<Error>,
}

/// The content of the entry that a [`Reader`] gave last: as many bytes as the entry says, holes as zeros.
pub struct Content<'a, 'r> {
    pieces: Pieces<'a, 'r>,
    extents: std::vec::IntoIter<Extent>,
    next: Option<Extent>,
    at: u64,
    size: u64,
}

impl std::fmt::Debug for Content<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content {{ at: {}, size: {} }}", self.at, self.size)
    }
}

impl<'a, 'r> Content<'a, 'r> {
    /// The content of `entry`, of which nothing was read yet.
    pub fn new(reader: &'a mut Reader<'r>, entry: &Entry) -> Self {
        let whole = || vec![Extent { offset: 0, length: entry.size }];
        let extents = entry.sparse.clone().unwrap_or_else(whole).into_iter();
        let pieces = Pieces { reader, piece: Vec::new(), taken: 0, failed: None };
        Self { pieces, extents, next: None, at: 0, size: entry.size }
    }

    /// What was wrong with the archive when a read failed: it says more than the read's error.
    #[must_use]
    pub fn into_failure(self) -> Option<Error> {
        self.pieces.failed
    }
}

impl Read for Pieces<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() {
            self.piece.clear();
            self.taken = 0;
            match self.reader.chunk() {
                Ok(Some(chunk)) => self.piece.extend_from_slice(chunk),
                Ok(None) => return Ok(0),
                Err(error) => {
                    let text = error.to_string();
                    self.failed = Some(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        let n = out.len().min(self.piece.len() - self.taken);
        out[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(out.len());
        if left == 0 {
            return Ok(0);
        }
        let extent = loop {
            match self.next.take().or_else(|| self.extents.next()) {
                Some(extent) if extent.offset + extent.length <= self.at => {}
                other => break other,
            }
        };
        self.next = extent;
        // The reader has checked that extents lie in order and inside of the size.
        let (hole, data) = match extent {
            Some(Extent { offset, .. }) if offset > self.at => (offset - self.at, 0),
            Some(Extent { offset, length }) => (0, offset + length - self.at),
            None => (self.size - self.at, 0),
        };
        let limit = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(left);
        let n = if data > 0 {
            self.pieces.read(&mut out[..limit(data)])?
        } else {
            out[..limit(hole)].fill(0);
            limit(hole)
        };
        self.at += n as u64;
        Ok(n)
    }
}

/// Copy an archive; `change` sees every entry. Holes of sparse files become zeros. Nothing that follows the archive is
/// copied, but the input is read to its very end.
///
/// # Errors
/// When the input is not a valid tar, or a stream fails.
pub fn edit(input: &mut dyn Read, out: &mut dyn Write, change: &dyn Fn(&mut Entry)) -> Result<(), Error> {
    let mut reader = Reader::new(input);
    let mut writer = Writer::new(out);
    while let Some(mut entry) = reader.next_entry()? {
        change(&mut entry);
        let mut content = Content::new(&mut reader, &entry);
        let written = writer.append(&entry, &mut content);
        match content.into_failure() {
            Some(error) => return Err(error),
            None => written?,
        }
    }
    reader.drain()?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Time};
    use super::*;
    use crate::layer::testing::archive;

    #[test]
    fn times_change_and_nothing_else() {
        let mut file = Entry::new("d/f", Kind::File);
        (file.size, file.mtime.seconds, file.mode) = (700_000, 1_700_000_000, 0o640);
        let mut dir = Entry::new("d/", Kind::Directory);
        dir.mtime.seconds = 5;
        let content: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
        let old = archive(&[(dir.clone(), Vec::new()), (file.clone(), content.clone())]);
        let clamp = |entry: &mut Entry| {
            entry.mtime = entry.mtime.min(Time { seconds: 1000, nanos: 0 });
        };
        let mut new = Vec::new();
        edit(&mut old.as_slice(), &mut new, &clamp).unwrap();
        file.mtime.seconds = 1000;
        assert!(new == archive(&[(dir, Vec::new()), (file, content)]));
        assert!(edit(&mut &old[..2000], &mut Vec::new(), &clamp).is_err());
    }

    #[test]
    fn holes_are_zeros() {
        let mut file = Entry::new("f", Kind::File);
        file.size = 4;
        let tar = archive(&[(file, b"abcd".to_vec())]);
        let mut input = tar.as_slice();
        let mut reader = Reader::new(&mut input);
        let mut entry = reader.next_entry().unwrap().unwrap();
        entry.size = 9;
        entry.sparse = Some(vec![Extent { offset: 1, length: 2 }, Extent { offset: 5, length: 2 }]);
        let mut out = Vec::new();
        Content::new(&mut reader, &entry).read_to_end(&mut out).unwrap();
        assert_eq!(out, b"\0ab\0\0cd\0\0");
    }
}
