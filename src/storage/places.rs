//! Where blobs were pulled from or pushed to, so that a push can mount them from there and platforms of an index that
//! are not here can be found: one small file a blob, with a repository a line, the latest first.
//!
//! The files are hints. One that is lost or wrong costs an upload, nothing else.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use super::{Store, format, layout};
use crate::oci::{Digest, Reference};
use crate::sys::atomic;

/// Repositories that are remembered of a blob.
const MOST: usize = 8;
/// What is remembered of a blob that is not here goes after so long.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// A repository at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The registry, as references name it.
    pub registry: String,
    /// The repository.
    pub repository: String,
}

impl Place {
    /// The repository of a reference.
    #[must_use]
    pub fn of(reference: &Reference) -> Self {
        Self { registry: reference.registry().to_owned(), repository: reference.repository().to_owned() }
    }

    /// A name for a manifest there.
    #[must_use]
    pub fn manifest(&self, digest: &Digest) -> Option<Reference> {
        Reference::parse(&format!("{}/{}@{digest}", self.registry, self.repository)).ok()
    }

    fn parse(line: &str) -> Option<Self> {
        let (registry, repository) = line.split_once(' ')?;
        let place = Self { registry: registry.to_owned(), repository: repository.to_owned() };
        // Names that are none would be sent to a registry as they are.
        let name = Reference::parse(&format!("{registry}/{repository}")).ok()?;
        (Self::of(&name) == place).then_some(place)
    }
}

impl Store {
    /// Where a blob is known to be, the latest place first.
    #[must_use]
    pub fn places(&self, digest: &Digest) -> Vec<Place> {
        let text = fs::read_to_string(self.layout.place(digest)).unwrap_or_default();
        text.lines().take(MOST).filter_map(Place::parse).collect()
    }

    /// Remember that a repository has blobs or manifests. A failure is none, nor is a store that cannot be written.
    pub fn note_places<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>, place: &Place) {
        if !matches!(format::check(&self.layout, true), Ok(format::Found::Current(_))) {
            return;
        }
        for digest in digests {
            let mut places = self.places(digest);
            if places.first() == Some(place) {
                continue;
            }
            places.retain(|known| known != place);
            places.insert(0, place.clone());
            places.truncate(MOST);
            let text: String =
                places.iter().map(|place| format!("{} {}\n", place.registry, place.repository)).collect();
            let (path, dir) = (self.layout.place(digest), self.layout.places());
            let temp = dir.join(format!(".{}-{}", std::process::id(), layout::file_name(digest)));
            let write = || atomic::replace_file(&path, &temp, text.as_bytes(), atomic::Durability::Fast);
            if write().is_err() {
                // A new store has no such directory. It is not synced: nobody misses hints that a power cut took along.
                let _ = fs::DirBuilder::new().mode(0o700).create(&dir);
                let _ = write();
            }
        }
    }

    /// Forget what nobody asked for in a long time.
    pub(super) fn sweep_places(&self) {
        let entries = fs::read_dir(self.layout.places()).map(|entries| entries.flatten().collect());
        let entries: Vec<fs::DirEntry> = entries.unwrap_or_default();
        for entry in entries {
            let name = entry.file_name();
            let digest = name.to_str().and_then(layout::parse_file_name);
            let used = entry.metadata().and_then(|meta| meta.modified()).ok();
            let is_old = used.and_then(|used| used.elapsed().ok()).is_some_and(|age| age > KEPT);
            if is_old && digest.is_none_or(|digest| !self.layout.blob(&digest).exists()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        self.sweep_facts();
    }

    /// Forget what was computed from blobs that are gone: who was stopped between the two removals left it here.
    fn sweep_facts(&self) {
        for entry in fs::read_dir(self.layout.layer_facts()).into_iter().flatten().flatten() {
            let digest = entry.file_name().to_str().and_then(layout::parse_file_name);
            if digest.is_none_or(|digest| !self.layout.blob(&digest).exists()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::Abilities;

    fn store(root: &Path) -> Store {
        Store::open_writable(root, Abilities { mapped_ids: u32::MAX, unpack: false, lock_timeout: None })
            .unwrap()
    }

    fn place(text: &str) -> Place {
        Place::of(&Reference::parse(text).unwrap())
    }

    #[test]
    fn the_latest_place_comes_first_and_old_ones_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let digest = Digest::sha256("blob");
        assert!(store.places(&digest).is_empty());
        for n in 0..20 {
            store.note_places([&digest], &place(&format!("r:5000/team/app{n}")));
        }
        store.note_places([&digest], &place("r:5000/team/app15"));
        let found = store.places(&digest);
        assert_eq!((found.len(), found[0].repository.as_str()), (MOST, "team/app15"));
        assert_eq!(found[1].repository, "team/app19");
        let name = found[0].manifest(&digest).unwrap();
        assert_eq!(name.to_string(), format!("r:5000/team/app15@{digest}"));
        store.sweep_places();
        assert_eq!(store.places(&digest).len(), MOST, "what is new stays");
    }

    #[test]
    fn a_damaged_file_is_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let digest = Digest::sha256("blob");
        store.note_places([&digest], &place("r:5000/a"));
        let good = "docker.io library/alpine\n";
        let text =
            format!("\0\n../.. x\nr:5000\nr:5000 A?digest=x\nr:5000 a/../b\n{good}docker.io li\u{7}b\n");
        fs::write(store.layout.place(&digest), text).unwrap();
        assert_eq!(store.places(&digest), [place("alpine")]);
    }

    #[test]
    fn a_store_that_is_not_there_remembers_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("none")).unwrap();
        store.note_places([&Digest::sha256("x")], &place("a"));
        assert!(!dir.path().join("none").exists());
    }
}
