//! Removing on a full disk. A name is removed by writing the list of names anew, which takes room; so when there is none
//! what can be made again goes first, in ways that take none.

use std::fs;

use super::Trash;
use crate::storage::lock::{LockMode, LockName};
use crate::storage::{Error, Store, layout};
use crate::sys::SysError;
use crate::sys::tree;

/// Room enough to remove names: the list of names, the lease and the directories of a few thousand images.
const ENOUGH: u64 = 4 << 20;

/// Whether a call failed for want of room on the disk, or in the user's share of it.
pub(super) fn is_short(error: &SysError) -> bool {
    matches!(error.errno(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl Store {
    /// Do something that removes, and once more with room made for it when the disk is full. The first try may have
    /// come far: what it removed is for `remove` to remember.
    ///
    /// # Errors
    /// What `remove` answers.
    pub(in crate::storage) fn with_room<T>(
        &self,
        mut remove: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        match remove() {
            Err(Error::Sys(error)) if is_short(&error) => {
                self.make_room()?;
                remove()
            }
            other => other,
        }
    }

    /// Free some room without needing any: what dead processes left, partial downloads, what was computed from blobs,
    /// and then snapshots that no container and no living process needs, when that can be told. All of it can be made
    /// again.
    fn make_room(&self) -> Result<(), Error> {
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        let mut trash = Trash::default();
        for path in self.layout.entries(&self.layout.tmp())? {
            trash.adopt(&path);
        }
        alone.verify()?;
        let mut freed = trash.empty().bytes;
        for path in self.layout.entries(&self.layout.partials())? {
            let digest = path.file_name().and_then(|name| name.to_str()).and_then(layout::parse_file_name);
            if let Some(digest) = digest
                && let Ok(Some(_lock)) = self.try_lock(&LockName::Blob(&digest), LockMode::Exclusive)
            {
                freed += unlink(&path);
            }
        }
        for dir in [self.layout.layer_facts(), self.layout.places()] {
            freed += self.layout.entries(&dir)?.iter().map(|path| unlink(path)).sum::<u64>();
        }
        if freed >= ENOUGH || self.has_damaged_container()? {
            return Ok(());
        }
        // Neither directory nor lease of our own: they may be what there was no room for.
        let mut needed = crate::storage::staging::pins(&self.layout, None)?;
        for container in self.all_containers()? {
            let diff_ids: Vec<_> = container.record.layers.iter().map(|(_, id)| id.clone()).collect();
            needed.extend(super::snapshot_keys(&diff_ids));
        }
        for content in self.contents()?.into_iter().filter(|content| content.is_snapshot) {
            if needed.contains(&content.digest) {
                continue;
            }
            // The marker first: a snapshot without one is none, however far its removal comes.
            freed += unlink(&content.path.join("meta.json"));
            let mut remover = tree::Remover::counting();
            // What cannot be removed is left to a collection.
            let _ = remover.remove_path(&content.path);
            freed += remover.bytes();
            if freed >= ENOUGH {
                break;
            }
        }
        drop(alone);
        Ok(())
    }
}

/// Remove a file; the bytes on disk that it took.
pub(super) fn unlink(path: &std::path::Path) -> u64 {
    let bytes = tree::on_disk(path);
    if fs::remove_file(path).is_ok() { bytes } else { 0 }
}
