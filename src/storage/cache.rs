//! Build records: small documents of the build, by key, and the blobs and snapshots each keeps alive while it is fresh.
//!
//! A record is a cache: one that is lost, cut or too old is simply not there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Error, Store};
use crate::oci::Digest;
use crate::sys::{SysError, atomic};

/// A record that nobody used for so long no longer keeps its content.
const FRESH: Duration = Duration::from_secs(7 * 86_400);
/// Use is noted at most so often.
const NOTE_AFTER: Duration = Duration::from_secs(3600);

/// The first line of a record; its bytes follow.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The key, in full: the file name is only its hash.
    key: String,
    /// What a collector keeps while the record is fresh.
    keep: BTreeSet<Digest>,
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
    /// they are not collected while the record is fresh: seven days after its last use.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn cache_put(&self, key: &str, bytes: &[u8], keep: &[Digest]) -> Result<(), Error> {
        self.pin(keep)?;
        let path = self.layout.record(key);
        let head = Head { version: 1, key: key.to_owned(), keep: keep.iter().cloned().collect() };
        let mut document =
            serde_json::to_vec(&head).map_err(|source| Error::Json { path: path.clone(), source })?;
        document.push(b'\n');
        document.extend_from_slice(bytes);
        self.replace_file(&path, &document, atomic::Durability::Fast)
    }

    /// What fresh records keep; stale ones are removed on the way.
    pub(super) fn kept_by_records(&self) -> BTreeSet<Digest> {
        let mut kept = BTreeSet::new();
        let entries = fs::read_dir(self.layout.records()).map(|entries| entries.flatten().collect());
        let entries: Vec<fs::DirEntry> = entries.unwrap_or_default();
        for entry in entries {
            let path = entry.path();
            let used = entry.metadata().and_then(|meta| meta.modified());
            let age = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
            match read(&path) {
                // A clock that was set back makes a record fresh, never stale.
                Ok(Some((head, _))) if age.unwrap_or_default() < FRESH => kept.extend(head.keep),
                _ => {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        kept
    }

    /// Forget every build record; their content goes with the next collection. The number of records is returned.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn cache_clear(&self) -> Result<usize, Error> {
        self.writable()?;
        let dir = self.layout.records();
        let entries = fs::read_dir(&dir).map_err(|error| SysError::path("read", &dir, error))?;
        let mut count = 0;
        for entry in entries.flatten() {
            fs::remove_file(entry.path()).map_err(|error| SysError::path("remove", entry.path(), error))?;
            count += 1;
        }
        Ok(count)
    }
}

/// What every record keeps, stale ones too. Nothing is changed.
pub(super) fn kept_by_all_records(store: &Store) -> BTreeSet<Digest> {
    let entries = fs::read_dir(store.layout.records()).into_iter().flatten().flatten();
    let heads = entries.filter_map(|entry| read(&entry.path()).ok().flatten());
    heads.flat_map(|(head, _)| head.keep).collect()
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
    let head = serde_json::from_slice::<Head>(&bytes[..end]).ok().filter(|head| head.version == 1);
    Ok(head.map(|head| (head, bytes.split_off(end + 1))))
}

/// Note that a record is of use: its modification time is when that was.
fn note_use(path: &Path) {
    let now = SystemTime::now();
    if let Ok(file) = File::open(path)
        && let Ok(used) = file.metadata().and_then(|meta| meta.modified())
        && now.duration_since(used).is_ok_and(|age| age > NOTE_AFTER)
    {
        let _ = file.set_modified(now);
    }
}
