//! How large the build cache may grow, and removing what is over that: the least recently used first.

use std::fs;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::items::Place;
use super::{CacheItem, mounts};
use crate::storage::collect::{Swept, Trash, Unlink};
use crate::storage::lock::{LockMode, LockName};
use crate::storage::{Error, PrunePlan, Store};
use crate::sys::{SysError, atomic, tree};

/// The cache is looked at after a build when this has passed since the last time, or the disk has filled by a tenth of
/// the budget.
const LOOK_AFTER: Duration = Duration::from_secs(3600);

/// How much of the file system the cache may take when nobody says, in percent, and in bytes whatever that comes to.
const SHARE: u64 = 10;
const MOST: u64 = 20_000_000_000;
/// So much may always be kept, however full the disk is.
const LEAST: u64 = 2_000_000_000;
/// When less of the file system than this is free the cache shrinks, in percent.
const FREE: u64 = 5;

/// How much is kept of a cache, all in bytes; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// What may be kept in any case.
    pub reserved: u64,
    /// What is kept at most.
    pub max_used: u64,
    /// What has to be free on the file system.
    pub min_free: u64,
}

/// What a user says of the cache's size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Budget {
    /// A tenth of the file system, but no more than 20 GB, and less when the disk is nearly full.
    #[default]
    Default,
    /// Bytes.
    Bytes(u64),
    /// A part of the file system, in percent.
    Percent(u64),
    /// As much as there is.
    Unlimited,
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no size: write 10GB, 5% or unlimited");
        match text.trim() {
            "unlimited" | "none" => Ok(Self::Unlimited),
            text => match text.strip_suffix('%') {
                Some(percent) => {
                    let percent = percent.trim().parse().ok().filter(|percent| *percent <= 100);
                    percent.map(Self::Percent).ok_or_else(bad)
                }
                None => parse_size(text).map(Self::Bytes).ok_or_else(bad),
            },
        }
    }
}

/// A size as docker's flags take it: a number with a unit of powers of 1024 (`10GB`, `512m`, `1.5 GiB`), bytes without.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim().to_ascii_lowercase());
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * 1024_f64.powi(power);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to fit and not negative"
    )]
    (bytes.is_finite() && bytes < 9e18).then_some(bytes as u64)
}

/// How large a file system is and what of it is free for this user, in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    total: u64,
    free: u64,
}

impl Limits {
    /// No limit at all: everything may go.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// How much of a cache of `total` bytes is kept.
    fn keeps(&self, total: u64, free: u64) -> u64 {
        let most = if self.max_used == 0 { total } else { self.max_used };
        let kept = match self.min_free.saturating_sub(free) {
            // Only what has to be reserved is kept when nothing else was said.
            0 if self.max_used == 0 && self.min_free == 0 => self.reserved,
            lacking => most.min(total.saturating_sub(lacking)),
        };
        kept.max(self.reserved)
    }
}

impl Budget {
    fn limits(self, disk: Disk) -> Option<Limits> {
        let share = |percent: u64| disk.total / 100 * percent;
        match self {
            Self::Unlimited => None,
            Self::Bytes(bytes) => Some(Limits { max_used: bytes.max(1), ..Limits::default() }),
            Self::Percent(percent) => Some(Limits { max_used: share(percent).max(1), ..Limits::default() }),
            Self::Default => {
                let max_used = share(SHARE).clamp(1, MOST);
                Some(Limits { reserved: LEAST.min(max_used), max_used, min_free: share(FREE) })
            }
        }
    }
}

impl Store {
    /// Remove parts of the build cache, the least recently used first, as far as `limits` ask for it. `pick` says which
    /// may go. What went comes back, and what that freed.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune_cache(
        &self,
        limits: &Limits,
        pick: &dyn Fn(&CacheItem) -> bool,
        unlink: Unlink,
    ) -> Result<(Vec<CacheItem>, Swept), Error> {
        let mut gone = Vec::new();
        let mut swept =
            self.with_room(|| self.take_cache(self.doomed_cache(limits, pick, None)?, &mut gone, unlink))?;
        if gone.is_empty() {
            return Ok((gone, swept));
        }
        let content = self.collect(unlink)?;
        swept.bytes += content.bytes;
        swept.gone = content.gone;
        swept.stuck.extend(content.stuck);
        Ok((gone, swept))
    }

    /// Remove these parts of the cache, but not what they keep; those that went are added to `gone`.
    fn take_cache(
        &self,
        doomed: Vec<CacheItem>,
        gone: &mut Vec<CacheItem>,
        unlink: Unlink,
    ) -> Result<Swept, Error> {
        if doomed.is_empty() {
            return Ok(Swept::default());
        }
        // Making it takes the collect lock shared.
        let _staging = self.staging()?;
        let mut trash = Trash::default();
        let mut bytes = 0;
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        let pins = self.pins_of_others(&alone)?;
        alone.verify()?;
        for item in doomed {
            match &item.place {
                Place::Mount { name, .. } if pins.contains(&mounts::pin(name)) => continue,
                Place::Mount { name, path } => {
                    trash.take(&self.layout, path)?;
                    let facts = self.layout.cache_mount_facts(name);
                    let size = tree::on_disk(&facts);
                    if fs::remove_file(facts).is_ok() {
                        bytes += size;
                    }
                }
                Place::Record(path) => {
                    let size = tree::on_disk(path);
                    match fs::remove_file(path) {
                        Ok(()) => bytes += size,
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(SysError::path("remove", path, error).into()),
                    }
                }
            }
            gone.push(item);
        }
        drop(alone);
        Ok(match unlink {
            Unlink::Now => {
                let emptied = trash.empty();
                Swept { bytes: bytes + emptied.bytes, stuck: emptied.stuck, ..Swept::default() }
            }
            Unlink::Behind => {
                trash.discard();
                Swept { bytes, ..Swept::default() }
            }
        })
    }

    /// The parts of the cache that [`Store::prune_cache`] would remove, in its order, after a prune of images where one
    /// is given.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn doomed_cache(
        &self,
        limits: &Limits,
        pick: &dyn Fn(&CacheItem) -> bool,
        after: Option<&PrunePlan>,
    ) -> Result<Vec<CacheItem>, Error> {
        let items = self.build_cache_after(after)?;
        let mut total: u64 = items.iter().map(|item| item.own).sum();
        let free = self.disk()?.free;
        let keep = limits.keeps(total, free);
        let mut doomed = Vec::new();
        for item in items {
            if !limits.is_none() && total <= keep {
                break;
            }
            if !item.in_use && pick(&item) {
                total -= item.own;
                doomed.push(item);
            }
        }
        Ok(doomed)
    }

    /// After a build: bring the cache back to its budget, when it is time to look. Nobody waits for files to be unlinked.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn keep_to_budget(&self, budget: Budget) -> Result<(), Error> {
        let disk = self.disk()?;
        let Some(limits) = budget.limits(disk) else { return Ok(()) };
        let path = self.layout.budget();
        let note = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let looked = fs::metadata(&path).and_then(|meta| meta.modified()).ok();
        let lately = looked
            .is_some_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < LOOK_AFTER));
        let step = limits.max_used / 10;
        if lately && note.is_some_and(|free| disk.free.saturating_add(step) >= free) {
            return Ok(());
        }
        self.prune_cache(&limits, &|_| true, Unlink::Behind)?;
        let free = self.disk()?.free.to_string();
        self.replace_file(&path, free.as_bytes(), atomic::Durability::Fast)
    }

    fn disk(&self) -> Result<Disk, Error> {
        let root = self.layout.root();
        let stat = rustix::fs::statvfs(root).map_err(|error| SysError::path("stat", root, error))?;
        let size = stat.f_frsize;
        Ok(Disk { total: stat.f_blocks.saturating_mul(size), free: stat.f_bavail.saturating_mul(size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_budgets_are_read_as_docker_reads_them() {
        for (text, size) in [
            ("10GB", Some(10 << 30)),
            ("512m", Some(512 << 20)),
            ("1.5 KiB", Some(1536)),
            ("0", Some(0)),
            ("", None),
            ("GB", None),
            ("-1", None),
            ("1x", None),
            ("1e99g", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
        assert_eq!("5%".parse(), Ok(Budget::Percent(5)));
        assert_eq!("unlimited".parse(), Ok(Budget::Unlimited));
        assert_eq!("1k".parse(), Ok(Budget::Bytes(1024)));
        assert!("101%".parse::<Budget>().is_err() && "lots".parse::<Budget>().is_err());
    }

    #[test]
    fn limits_say_how_much_is_kept() {
        let keeps = |reserved, max_used, min_free, total, free| {
            Limits { reserved, max_used, min_free }.keeps(total, free)
        };
        assert_eq!(keeps(0, 0, 0, 100, 10), 0, "nothing said: nothing kept");
        assert_eq!(keeps(30, 0, 0, 100, 10), 30);
        assert_eq!(keeps(0, 40, 0, 100, 10), 40);
        assert_eq!(keeps(0, 40, 0, 20, 10), 20);
        assert_eq!(keeps(0, 0, 25, 100, 10), 85, "15 are lacking");
        assert_eq!(keeps(90, 0, 25, 100, 10), 90);
        assert_eq!(keeps(0, 40, 25, 100, 0), 40);
        assert_eq!(keeps(0, 0, 25, 100, 50), 100);
    }

    #[test]
    fn the_default_budget_follows_the_disk() {
        let limits = |total, free| Budget::Default.limits(Disk { total, free }).unwrap();
        let large = limits(1_000_000_000_000, 500_000_000_000);
        assert_eq!((large.max_used, large.reserved), (MOST, LEAST));
        let small = limits(10_000_000_000, 1);
        assert_eq!(
            (small.max_used, small.reserved, small.min_free),
            (1_000_000_000, 1_000_000_000, 500_000_000)
        );
        assert_eq!(Budget::Unlimited.limits(Disk { total: 1, free: 1 }), None);
    }
}
