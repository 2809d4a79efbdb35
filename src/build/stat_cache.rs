//! Digests of files that were read before, by what `lstat` says of them, so that a second look costs no read.
//!
//! As in git's index, a file whose last change is not older than the look at it is not remembered: it may change again
//! within the clock's granularity and keep its times.

use std::collections::HashMap;

use rustix::fs::Stat;

use crate::oci::Digest;

/// First line of the stored form.
const MAGIC: &[u8] = b"strate stat cache 1\n";
/// Bytes of one stored entry: six numbers and a digest.
const ENTRY: usize = 6 * 8 + 32;
/// Times closer than this to the look are too fresh, in nanoseconds: the tick of coarse kernel clocks, generously.
const RACY_NS: i128 = 20_000_000;

/// What `lstat` says that changes when content may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    mode: u64,
}

/// The digests of the regular files of one tree.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    known: HashMap<Key, [u8; 32]>,
    used: HashMap<Key, [u8; 32]>,
    fresh: bool,
}

impl StatCache {
    /// Read the stored form; anything unexpected makes an empty cache.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut cache = Self::default();
        let Some(entries) = bytes.strip_prefix(MAGIC) else { return cache };
        for entry in entries.chunks_exact(ENTRY) {
            let (numbers, digest) = entry.split_at(6 * 8);
            let number = |at: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&numbers[at * 8..at * 8 + 8]);
                u64::from_le_bytes(bytes)
            };
            let key = Key {
                dev: number(0),
                ino: number(1),
                size: number(2),
                mtime_ns: number(3).cast_signed(),
                ctime_ns: number(4).cast_signed(),
                mode: number(5),
            };
            if let Ok(digest) = digest.try_into() {
                cache.known.insert(key, digest);
            }
        }
        cache
    }

    /// The stored form, when there is something new in it.
    pub(super) fn to_bytes(&self) -> Option<Vec<u8>> {
        if !self.fresh {
            return None;
        }
        // What this build did not look at may serve the next one: keep it, unless it is much more than what was used.
        let keep_old = self.known.len() <= 4 * self.used.len() + 4096;
        let mut all: Vec<(&Key, &[u8; 32])> = self.used.iter().collect();
        if keep_old {
            all.extend(self.known.iter().filter(|(key, _)| !self.used.contains_key(key)));
        }
        let mut bytes = Vec::with_capacity(MAGIC.len() + all.len() * ENTRY);
        bytes.extend_from_slice(MAGIC);
        for (key, digest) in all {
            let Key { dev, ino, size, mtime_ns, ctime_ns, mode } = *key;
            for number in [dev, ino, size, mtime_ns.cast_unsigned(), ctime_ns.cast_unsigned(), mode] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(digest);
        }
        Some(bytes)
    }

    /// The digest of a file's content, when it was read in just this state.
    pub(super) fn get(&mut self, stat: &Stat) -> Option<[u8; 32]> {
        let key = key(stat);
        let digest = self.used.get(&key).or_else(|| self.known.get(&key)).copied()?;
        self.used.insert(key, digest);
        Some(digest)
    }

    /// Remember a digest that was just computed. `now_ns` is the time before the file was opened.
    pub(super) fn put(&mut self, stat: &Stat, digest: [u8; 32], now_ns: i128) {
        let key = key(stat);
        if i128::from(key.ctime_ns.max(key.mtime_ns)) + RACY_NS < now_ns {
            self.used.insert(key, digest);
            self.fresh = true;
        }
    }
}

/// The name under which the cache of a directory is kept.
pub(super) fn record_name(directory: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    format!("context-{}", Digest::sha256(directory.as_os_str().as_bytes()).hex())
}

fn key(stat: &Stat) -> Key {
    Key {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        mtime_ns: stat.st_mtime.wrapping_mul(1_000_000_000).wrapping_add_unsigned(stat.st_mtime_nsec),
        ctime_ns: stat.st_ctime.wrapping_mul(1_000_000_000).wrapping_add_unsigned(stat.st_ctime_nsec),
        mode: u64::from(stat.st_mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settled_files_are_remembered_and_any_change_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x").unwrap();
        let stat = rustix::fs::stat(file.path()).unwrap();
        let changed = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
        let mut cache = StatCache::default();
        cache.put(&stat, [1; 32], changed + 1);
        assert_eq!(cache.get(&stat), None);
        assert_eq!(cache.to_bytes(), None);
        cache.put(&stat, [1; 32], changed + 1_000_000_000);
        let mut again = StatCache::from_bytes(&cache.to_bytes().unwrap());
        assert_eq!(again.get(&stat), Some([1; 32]));
        assert_eq!(again.to_bytes(), None);
        let mut other = stat;
        other.st_size += 1;
        assert_eq!(again.get(&other), None);
        assert_eq!(StatCache::from_bytes(b"junk").get(&stat), None);
    }
}
