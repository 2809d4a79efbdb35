//! What builds keep for the next build: records, small documents by key with the blobs and snapshots that each keeps
//! alive; and cache mounts (`mounts.rs`).
//!
//! A record is a cache: one that is lost, cut or too old is simply not there. When all of it takes more than its budget,
//! what was used least recently goes first (`budget.rs`).

mod budget;
mod items;
mod mounts;

pub use budget::{Budget, Limits, parse_size};
pub use items::{CacheItem, CacheKind};

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::{Error, Store};
use crate::oci::Digest;
use crate::sys::{SysError, atomic, tree};

/// A record that nobody used for so long goes, whatever room there is.
const FRESH: Duration = Duration::from_secs(60 * 86_400);
/// Use is noted at most so often.
const NOTE_AFTER: Duration = Duration::from_secs(60);

/// The first line of a record; its bytes follow.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The key, in full: the file name is only its hash.
    key: String,
    /// What a collector keeps while the record is fresh.
    keep: BTreeSet<Digest>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    about: String,
    /// When it was made, in Unix seconds.
    #[serde(default)]
    made: i64,
}

/// A record without its content.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) path: PathBuf,
    head: Head,
    /// Another file has another one.
    inode: u64,
    used: SystemTime,
    /// Bytes on disk.
    bytes: u64,
}

/// The records there are, by file name.
#[derive(Debug, Default)]
pub(super) struct Records {
    all: BTreeMap<OsString, Record>,
}

impl Records {
    /// All that are fresh. Others are removed on the way, and what is no record.
    pub(super) fn fresh(layout: &Layout) -> Result<Self, Error> {
        let mut records = Self::read(layout)?;
        for (name, _, path) in files(layout)? {
            if !records.all.contains_key(&name) && Record::read(path.clone(), 0).is_none() {
                let _ = fs::remove_file(path);
            }
        }
        let now = SystemTime::now();
        records.all.retain(|_, record| {
            // A clock that was set back makes a record fresh, never stale.
            let fresh = now.duration_since(record.used).map_or(true, |age| age < FRESH);
            if !fresh {
                let _ = fs::remove_file(&record.path);
            }
            fresh
        });
        Ok(records)
    }

    /// All that can be read. What is none is left out.
    pub(super) fn read(layout: &Layout) -> Result<Self, Error> {
        let mut records = Self::default();
        for (name, inode, path) in files(layout)? {
            if let Some(record) = Record::read(path, inode) {
                records.all.insert(name, record);
            }
        }
        Ok(records)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.all.values()
    }

    /// What the records keep that are there now. Those that came since are read, the others are not looked at again:
    /// what a record keeps never changes.
    pub(super) fn kept_now(&self, layout: &Layout) -> Result<BTreeSet<Digest>, Error> {
        let mut kept = BTreeSet::new();
        for (name, inode, path) in files(layout)? {
            match self.all.get(&name).filter(|record| record.inode == inode) {
                Some(record) => kept.extend(record.head.keep.iter().cloned()),
                None => {
                    kept.extend(Record::read(path, inode).into_iter().flat_map(|record| record.head.keep))
                }
            }
        }
        Ok(kept)
    }
}

impl Record {
    fn read(path: PathBuf, inode: u64) -> Option<Self> {
        let file = File::open(&path).ok()?;
        let meta = file.metadata().ok()?;
        let mut line = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut line).ok()?;
        let head = parse(&line)?;
        Some(Self { path, head, inode, used: meta.modified().ok()?, bytes: tree::blocks(&meta) })
    }

    /// Digests of blobs and keys of snapshots that it keeps.
    pub(super) fn keeps(&self) -> &BTreeSet<Digest> {
        &self.head.keep
    }
}

/// The files of records: name, inode number, path.
fn files(layout: &Layout) -> Result<Vec<(OsString, u64, PathBuf)>, Error> {
    let dir = layout.records();
    layout.entries(&dir)?; // it is a directory of ours
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| SysError::path("read", &dir, error))?,
    };
    Ok(entries.flatten().map(|entry| (entry.file_name(), entry.ino(), entry.path())).collect())
}

impl Store {
    /// The bytes kept under a key; `None` when there are none (any more).
    ///
    /// # Errors
    /// When the disk fails.
    pub fn cache_get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.layout.record(key);
        let Some((head, bytes)) = read(&path)? else { return Ok(None) };
        if head.key != key {
            return Ok(None);
        }
        if self.abilities.is_some() {
            self.pin(&head.keep)?;
            note_use(&path);
        }
        Ok(Some(bytes))
    }

    /// Keep bytes under a key. `keep` names blobs by their digest and snapshots by their layer's diff id (or chain id);
    /// they are not collected while the record is there. `about` says to people what it is.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn cache_put(&self, key: &str, bytes: &[u8], keep: &[Digest], about: &str) -> Result<(), Error> {
        self.pin(keep)?;
        let path = self.layout.record(key);
        let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let head = Head {
            version: 1,
            key: key.to_owned(),
            keep: keep.iter().cloned().collect(),
            about: about.to_owned(),
            made: i64::try_from(made.as_secs()).unwrap_or(0),
        };
        let mut document =
            serde_json::to_vec(&head).map_err(|source| Error::Json { path: path.clone(), source })?;
        document.push(b'\n');
        document.extend_from_slice(bytes);
        self.replace_file(&path, &document, atomic::Durability::Fast)
    }
}

/// What every record keeps, stale ones too. Nothing is changed.
pub(super) fn kept_by_all_records(store: &Store) -> BTreeSet<Digest> {
    let records = Records::read(&store.layout).unwrap_or_default();
    records.iter().flat_map(|record| record.keeps().iter().cloned()).collect()
}

/// Whether a file is a record of the key that its name stands for.
pub(super) fn is_record(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let of = |head: &Head| name == Some(Digest::sha256(&head.key).hex());
    read(path).is_ok_and(|record| record.is_some_and(|(head, _)| of(&head)))
}

fn read(path: &Path) -> Result<Option<(Head, Vec<u8>)>, Error> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(SysError::path("read", path, error).into()),
    };
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    Ok(parse(&bytes[..end]).map(|head| (head, bytes.split_off(end + 1))))
}

fn parse(line: &[u8]) -> Option<Head> {
    serde_json::from_slice::<Head>(line).ok().filter(|head| head.version == 1)
}

/// Note that something is of use: its modification time is when that was.
fn note_use(path: &Path) {
    let now = SystemTime::now();
    if let Ok(file) = File::open(path)
        && let Ok(used) = file.metadata().and_then(|meta| meta.modified())
        // A time that is still to come is of a clock that was wrong.
        && now.duration_since(used).map_or(true, |age| age > NOTE_AFTER)
    {
        let _ = file.set_modified(now);
    }
}
