//! A deterministic tar stream: the same entries give the same bytes, on every machine and at any time.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use ::tar::Header as RawHeader;

use super::{BLOCK, Entry, Kind, Time, pax};
use crate::layer::Error;

/// Largest number of eleven octal digits: sizes and times.
const MAX_OCTAL_11: u64 = 0o777_7777_7777;
/// Largest number of seven octal digits: owners.
const MAX_OCTAL_7: u64 = 0o777_7777;
/// Content is copied in pieces of so many bytes.
const PIECE: usize = 256 * 1024;

/// Writes entries to a stream, in the ustar format, with PAX records only for what ustar cannot say.
pub struct Writer<'w> {
    out: &'w mut dyn Write,
    piece: Vec<u8>,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl<'w> Writer<'w> {
    /// Write an archive to `out`.
    pub fn new(out: &'w mut dyn Write) -> Self {
        Self { out, piece: Vec::new() }
    }

    /// Write an entry. Of `content` exactly `entry.size` bytes are taken for a file, none otherwise. Sparse maps are
    /// not written: holes are zeros.
    ///
    /// # Errors
    /// When the stream fails, or the content is too short.
    pub fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        self.header(entry)?;
        if entry.kind != Kind::File {
            return Ok(());
        }
        self.content(content, entry.size)?;
        self.pad(entry.size)
    }

    /// End the archive.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn finish(self) -> Result<(), Error> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(write_failed)
    }

    fn header(&mut self, entry: &Entry) -> Result<(), Error> {
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records = BTreeMap::new();
        let mut raw = RawHeader::new_ustar();
        let bytes = raw.as_mut_bytes();
        put_path(bytes, &path, &mut records);
        if matches!(entry.kind, Kind::HardLink | Kind::Symlink) {
            put_link(bytes, &entry.link, &mut records);
        }
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        put_number(&mut bytes[100..108], u64::from(entry.mode & 0o7777));
        put_or_record(&mut bytes[108..116], u64::from(entry.uid), MAX_OCTAL_7, b"uid", &mut records);
        put_or_record(&mut bytes[116..124], u64::from(entry.gid), MAX_OCTAL_7, b"gid", &mut records);
        put_or_record(&mut bytes[124..136], size, MAX_OCTAL_11, b"size", &mut records);
        put_time(&mut bytes[136..148], entry.mtime, &mut records);
        bytes[156] = typeflag(entry.kind);
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            put_number(&mut bytes[329..337], u64::from(entry.device.0));
            put_number(&mut bytes[337..345], u64::from(entry.device.1));
        }
        for (name, value) in &entry.xattrs {
            records.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
        }
        raw.set_cksum();
        if !records.is_empty() {
            self.extended(&path, &records)?;
        }
        self.out.write_all(raw.as_bytes()).map_err(write_failed)
    }

    /// An extended header with records in the order of their keys.
    fn extended(&mut self, path: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), Error> {
        let mut data = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} ").as_bytes());
            data.extend_from_slice(key);
            data.push(b'=');
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        let mut raw = RawHeader::new_ustar();
        let bytes = raw.as_mut_bytes();
        let base = path.strip_suffix(b"/").unwrap_or(path).rsplit(|byte| *byte == b'/').next();
        let name: Vec<u8> = b"PaxHeaders.0/"
            .iter()
            .chain(base.unwrap_or_default())
            .map(|byte| byte & 0x7f)
            .take(100)
            .collect();
        bytes[..name.len()].copy_from_slice(&name);
        put_number(&mut bytes[100..108], 0o644);
        put_number(&mut bytes[108..116], 0);
        put_number(&mut bytes[116..124], 0);
        put_number(&mut bytes[124..136], data.len() as u64);
        put_number(&mut bytes[136..148], 0);
        bytes[156] = b'x';
        raw.set_cksum();
        self.out.write_all(raw.as_bytes()).map_err(write_failed)?;
        self.out.write_all(&data).map_err(write_failed)?;
        self.pad(data.len() as u64)
    }

    fn content(&mut self, content: &mut dyn Read, size: u64) -> Result<(), Error> {
        self.piece.resize(PIECE, 0);
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            match content.read(&mut self.piece[..want]) {
                Ok(0) => {
                    let source = std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "a file became shorter while it was read",
                    );
                    return Err(Error::Io { operation: "write", source });
                }
                Ok(length) => {
                    self.out.write_all(&self.piece[..length]).map_err(write_failed)?;
                    left -= length as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { operation: "write", source }),
            }
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        // Less than a block.
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.out.write_all(&[0; BLOCK][..padding]).map_err(write_failed)
    }
}

fn write_failed(source: std::io::Error) -> Error {
    Error::Io { operation: "write", source }
}

fn typeflag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Octal digits with leading zeros and a NUL at the end; too large a number keeps its low digits.
fn put_number(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    field[digits] = 0;
}

fn put_or_record(
    field: &mut [u8],
    value: u64,
    max: u64,
    key: &[u8],
    records: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) {
    if value > max {
        records.insert(key.to_vec(), value.to_string().into_bytes());
        put_number(field, 0);
    } else {
        put_number(field, value);
    }
}

fn put_time(field: &mut [u8], time: Time, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= MAX_OCTAL_11);
    if seconds.is_none() || time.nanos != 0 {
        records.insert(b"mtime".to_vec(), pax::time_text(time).into_bytes());
    }
    put_number(field, seconds.unwrap_or(0));
}

fn put_path(bytes: &mut [u8; BLOCK], path: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    if path.is_ascii() {
        if path.len() <= 100 {
            bytes[..path.len()].copy_from_slice(path);
            return;
        }
        if let Some((prefix, name)) = split(path) {
            bytes[..name.len()].copy_from_slice(name);
            bytes[345..345 + prefix.len()].copy_from_slice(prefix);
            return;
        }
    }
    records.insert(b"path".to_vec(), path.to_vec());
    put_ascii(&mut bytes[..100], path);
}

fn put_link(bytes: &mut [u8; BLOCK], link: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    if !link.is_ascii() || link.len() > 100 {
        records.insert(b"linkpath".to_vec(), link.to_vec());
    }
    put_ascii(&mut bytes[157..257], link);
}

/// What fits, for readers that know no PAX.
fn put_ascii(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = if from.is_ascii() { *from } else { b'_' };
    }
}

/// At a slash into at most 155 bytes before it and at most 100 after it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let from = path.len().saturating_sub(101);
    let slash = path.iter().enumerate().skip(from).find(|(_, byte)| **byte == b'/')?.0;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (!prefix.is_empty() && prefix.len() <= 155 && !name.is_empty()).then_some((prefix, name))
}
