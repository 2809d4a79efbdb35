//! Sparse files: old GNU headers and the three PAX forms (GNU tar manual, "Storing Sparse Files").

use super::header::number;
use super::pax::{Record, decimal, last};

/// At most so many pieces in one file; a map of them takes 1.6 MiB.
pub(super) const MAX_EXTENTS: usize = 100_000;

/// A piece of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u64,
}

/// Pieces must lie in order, apart from each other, within the file, and be as long together as the stored data.
pub(super) fn check(extents: &[Extent], size: u64, stored: u64) -> Result<(), String> {
    let bad = || "contradictory sparse map".to_owned();
    let (mut end, mut sum) = (0_u64, 0_u64);
    for extent in extents {
        if extent.offset < end {
            return Err(bad());
        }
        end = extent.offset.checked_add(extent.length).ok_or_else(bad)?;
        sum = sum.checked_add(extent.length).ok_or_else(bad)?;
    }
    if end > size || sum != stored { Err(bad()) } else { Ok(()) }
}

/// Pieces of an old GNU header, 24 bytes each; the first empty one ends the list.
pub(super) fn from_gnu(fields: &[u8], extents: &mut Vec<Extent>) -> Result<(), String> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        let part = |bytes| {
            let value = number(bytes).map_err(|what| format!("sparse map: {what}"))?;
            u64::try_from(value).map_err(|_| "sparse map: negative number".to_owned())
        };
        push(extents, Extent { offset: part(&field[..12])?, length: part(&field[12..])? })?;
    }
    Ok(())
}

fn push(extents: &mut Vec<Extent>, extent: Extent) -> Result<(), String> {
    if extents.len() == MAX_EXTENTS {
        return Err(format!("sparse map of more than {MAX_EXTENTS} pieces"));
    }
    extents.push(extent);
    Ok(())
}

/// What PAX records say about a sparse file.
pub(super) enum PaxSparse {
    /// Nothing.
    No,
    /// The map is in the records (forms 0.0 and 0.1).
    Map { extents: Vec<Extent>, size: u64 },
    /// The map stands before the data (form 1.0).
    InData { size: u64 },
}

pub(super) fn from_pax(records: &[Record]) -> Result<PaxSparse, String> {
    let size = |key: &[u8]| {
        let value = last(records, key).and_then(decimal);
        value.ok_or_else(|| "sparse file without a size".to_owned())
    };
    match (last(records, b"GNU.sparse.major"), last(records, b"GNU.sparse.minor")) {
        (Some(b"1"), Some(b"0")) => return Ok(PaxSparse::InData { size: size(b"GNU.sparse.realsize")? }),
        (None, None) | (Some(b"0"), Some(b"0" | b"1")) => {}
        _ => return Err("unknown sparse format".into()),
    }
    let mut extents = Vec::new();
    if let Some(map) = last(records, b"GNU.sparse.map") {
        let numbers: Option<Vec<u64>> = map.split(|byte| *byte == b',').map(decimal).collect();
        let numbers = numbers.ok_or("malformed sparse map")?;
        pairs(&numbers, &mut extents)?;
    } else if last(records, b"GNU.sparse.offset").is_some()
        || last(records, b"GNU.sparse.numblocks").is_some()
    {
        pairs(&alternating(records)?, &mut extents)?;
    } else if last(records, b"GNU.sparse.size").is_none() {
        return Ok(PaxSparse::No);
    }
    Ok(PaxSparse::Map { extents, size: size(b"GNU.sparse.size")? })
}

/// Form 0.0: the same two keys over and over, strictly in turn.
fn alternating(records: &[Record]) -> Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    for (key, value) in records {
        let turn = match key.as_slice() {
            b"GNU.sparse.offset" => 0,
            b"GNU.sparse.numbytes" => 1,
            _ => continue,
        };
        if numbers.len() % 2 != turn {
            return Err("malformed sparse map".into());
        }
        numbers.push(decimal(value).ok_or("malformed sparse map")?);
    }
    Ok(numbers)
}

fn pairs(numbers: &[u64], extents: &mut Vec<Extent>) -> Result<(), String> {
    if !numbers.len().is_multiple_of(2) {
        return Err("malformed sparse map".into());
    }
    numbers.chunks_exact(2).try_for_each(|pair| push(extents, Extent { offset: pair[0], length: pair[1] }))
}

/// The map of form 1.0, read block by block: a count, then that many pairs, one number a line.
#[derive(Default)]
pub(super) struct MapReader {
    digits: Vec<u8>,
    numbers: Vec<u64>,
    want: Option<usize>,
}

impl MapReader {
    /// Take in one block; true when the map is complete.
    pub(super) fn feed(&mut self, block: &[u8]) -> Result<bool, String> {
        for byte in block {
            if *byte != b'\n' {
                if self.digits.len() == 20 {
                    return Err("malformed sparse map".into());
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or("malformed sparse map")?;
            self.digits.clear();
            match self.want {
                None => {
                    let count = usize::try_from(number).unwrap_or(usize::MAX);
                    if count > MAX_EXTENTS {
                        return Err(format!("sparse map of more than {MAX_EXTENTS} pieces"));
                    }
                    self.want = Some(count * 2);
                }
                Some(_) => self.numbers.push(number),
            }
            if self.want == Some(self.numbers.len()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn finish(self) -> Result<Vec<Extent>, String> {
        let mut extents = Vec::new();
        pairs(&self.numbers, &mut extents)?;
        Ok(extents)
    }
}
