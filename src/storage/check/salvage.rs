//! The list of names after damage: what can be read of it, what the one before it says, and what the blobs tell.

use std::collections::BTreeSet;
use std::fs;

use crate::oci::{Digest, Parsed, RawManifest, digest_of, media_type};
use crate::storage::blobs::SMALL;
use crate::storage::index::{Entry, IndexFile, REF_NAME};
use crate::storage::{Error, LockMode, LockName, Store, layout};
use crate::sys::atomic::{Durability, replace_file};

use super::references::{Needs, files_of};

impl Store {
    /// Bring the list of names in order. What was done is returned, a line each; nothing when all was well.
    ///
    /// A list that cannot be read is put together again: from those entries of it that are whole, from the list before
    /// it, and, without names, from the manifests that are here. One that can be read keeps its entries; those that are
    /// not as they were written are described anew where their manifest is here, or replaced by what the list before it
    /// says. Names whose manifest is not here are given up only with `insist`. The list that was there is kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mend_names(&self, insist: bool) -> Result<Vec<String>, Error> {
        let temp = self.stage_path("index")?;
        loop {
            let before = fs::read(self.layout.index()).ok();
            let mut done = Vec::new();
            let index = match IndexFile::read(&self.layout) {
                Ok(mut index) if index.check().is_ok() => {
                    self.mend_entries(&mut index, &mut done);
                    index
                }
                _ => self.put_together(insist, &mut done),
            };
            if done.is_empty() {
                return Ok(done);
            }
            let _lock = self.lock(&LockName::Names, LockMode::Exclusive)?;
            // Somebody else may have written a name meanwhile: then all is looked at once more.
            if fs::read(self.layout.index()).ok() == before {
                if let Some(path) = self.keep_index()? {
                    done.push(format!("the list of images as it was is kept in `{}`", path.display()));
                }
                replace_file(&self.layout.index(), &temp, &index.to_bytes()?, Durability::Durable)?;
                return Ok(done);
            }
        }
    }

    fn mend_entries(&self, index: &mut IndexFile, done: &mut Vec<String>) {
        let before = self.previous_entries();
        let mut named = BTreeSet::new();
        let name_of = |entry: &Entry| entry.annotations.get(REF_NAME).cloned();
        let names: BTreeSet<String> = index.manifests.iter().filter_map(name_of).collect();
        for mut entry in std::mem::take(&mut index.manifests) {
            let label = super::references::label_of(&entry);
            let is_bad = entry.check_sum().is_err() || entry.digest().is_none() || !self.agrees(&entry);
            if is_bad
                && let Some(better) =
                    self.renamed(&entry, &before, &names).or_else(|| self.better(&entry, &before))
            {
                done.push(format!("the entry of `{label}` was written anew"));
                entry = better;
            }
            let is_second = entry.annotations.get(REF_NAME).is_some_and(|name| !named.insert(name.clone()));
            if is_second {
                done.push(format!("`{label}` was listed more than once: the first stays"));
                index.add_untagged(entry);
            } else {
                index.manifests.push(entry);
            }
        }
    }

    /// The entry whose name it was that is damaged: the list before had it with the same target under a name that is
    /// listed no more, and did not know this one.
    fn renamed(&self, entry: &Entry, before: &[Entry], names: &BTreeSet<String>) -> Option<Entry> {
        let name = |entry: &Entry| entry.annotations.get(REF_NAME).cloned();
        if entry.digest().is_none() || before.iter().any(|other| name(other) == name(entry)) {
            return None;
        }
        let fits = |other: &&Entry| {
            other.digest() == entry.digest() && name(other).is_some_and(|name| !names.contains(&name))
        };
        before.iter().find(fits).filter(|other| self.is_here(other)).cloned()
    }

    /// An entry in place of one that is damaged; `None` when nothing better is known.
    fn better(&self, entry: &Entry, before: &[Entry]) -> Option<Entry> {
        if let Some(anew) = self.described(entry) {
            return Some(anew);
        }
        let name = entry.annotations.get(REF_NAME)?;
        let same = |other: &&Entry| other.annotations.get(REF_NAME) == Some(name);
        before.iter().find(same).filter(|other| self.is_here(other)).cloned()
    }

    fn agrees(&self, entry: &Entry) -> bool {
        let mut index = IndexFile::default();
        index.manifests.push(entry.clone());
        let faults = Needs::of_entries(self, &index).faults;
        !faults.iter().any(|fault| matches!(fault, super::Fault::Entry { .. }))
    }

    /// The same name and target, with notes that fit the blobs; `None` when the target cannot be read.
    fn described(&self, entry: &Entry) -> Option<Entry> {
        let digest = entry.digest()?;
        let raw = RawManifest::new(self.read_blob(&digest).ok()?, None).ok()?;
        raw.parse().ok()?;
        let target = raw.descriptor();
        let mut anew = Entry::new(&target, self.describe_target(&target).ok()?);
        let kept = [REF_NAME, crate::image::INDEX_DIGEST_ANNOTATION, crate::storage::index::ORIGINS];
        for key in kept {
            if let Some(value) = entry.annotations.get(key) {
                anew.annotations.insert(key.to_owned(), value.clone());
            }
        }
        let from = anew.digest_annotation(crate::image::INDEX_DIGEST_ANNOTATION);
        if from.is_none_or(|index| !self.layout.blob(&index).exists()) {
            anew.annotations.remove(crate::image::INDEX_DIGEST_ANNOTATION);
        }
        anew.seal();
        Some(anew)
    }

    fn is_here(&self, entry: &Entry) -> bool {
        entry.check_sum().is_ok() && entry.digest().is_some_and(|digest| self.layout.blob(&digest).is_file())
    }

    fn previous_entries(&self) -> Vec<Entry> {
        fs::read(self.layout.previous_index()).map(|bytes| salvage(&bytes)).unwrap_or_default()
    }

    fn put_together(&self, insist: bool, done: &mut Vec<String>) -> IndexFile {
        let damaged = fs::read(self.layout.index()).unwrap_or_default();
        let mut index = IndexFile::default();
        let mut names = BTreeSet::new();
        let entries = salvage(&damaged).into_iter().chain(self.previous_entries());
        // What is here goes before what is lost, whichever list it stands in.
        let (here, lost): (Vec<_>, Vec<_>) = entries.partition(|entry| self.is_here(entry));
        for entry in here {
            match entry.name() {
                Some(name) if names.insert(name.to_string()) => index.set_name(&name, entry),
                Some(_) => {}
                None => index.add_untagged(entry),
            }
        }
        let mut left = Vec::new();
        for entry in lost {
            let Some(name) = entry.name().filter(|name| names.insert(name.to_string())) else { continue };
            let label = super::references::label_of(&entry);
            if insist {
                left.push(format!("`{label}` was given up: its manifest is not here"));
            } else {
                left.push(format!("`{label}` stays in the list, though its manifest is not here"));
                index.set_name(&name, entry);
            }
        }
        self.add_unnamed(&mut index);
        let named = index.manifests.iter().filter(|entry| entry.name().is_some()).count();
        done.push(format!(
            "the list of images was put together anew: {named} with a name, {} without; the last change to it may be lost",
            index.manifests.len().saturating_sub(named)
        ));
        done.append(&mut left);
        index
    }

    /// Every manifest that is here and that nothing listed leads to.
    fn add_unnamed(&self, index: &mut IndexFile) {
        let mut found = Vec::new();
        for entry in files_of(&self.layout.blob_dir("sha256")) {
            let digest = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            let small = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= SMALL);
            let Some(digest) = digest.filter(|_| small) else { continue };
            if let Some(raw) = self.manifest_in(&digest) {
                found.push(raw);
            }
        }
        // Indexes first: their images are then reached.
        found.sort_by_key(|raw| !media_type::is_index(&raw.media_type));
        for raw in found {
            let reached = Needs::of_entries(self, index);
            if reached.blobs.contains_key(&raw.digest) {
                continue;
            }
            let target = raw.descriptor();
            if let Ok(notes) = self.describe_target(&target) {
                index.add_untagged(Entry::new(&target, notes));
            }
        }
    }

    fn manifest_in(&self, digest: &Digest) -> Option<RawManifest> {
        let bytes = self.read_blob(digest).ok()?;
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let raw = RawManifest::new(bytes, None).ok()?;
        match raw.parse().ok()? {
            // What lacks a part was on its way.
            Parsed::Manifest(manifest) => {
                let mut parts = manifest.layers().iter().chain([manifest.config()]);
                let here = |digest: Digest| self.layout.blob(&digest).is_file();
                parts.all(|part| digest_of(part).is_ok_and(here)).then_some(raw)
            }
            Parsed::Index(index) => {
                let here = |digest: Digest| self.layout.blob(&digest).is_file();
                index.manifests().iter().any(|d| digest_of(d).is_ok_and(here)).then_some(raw)
            }
        }
    }

    /// Put a blob's verified bytes in its place, whatever lies there.
    ///
    /// # Errors
    /// When the bytes are not those of the digest, or cannot be kept.
    pub fn replace_blob(
        &self,
        digest: &Digest,
        size: u64,
        data: &mut dyn std::io::Read,
    ) -> Result<(), Error> {
        let _lock = self.lock(&LockName::Blob(digest), LockMode::Exclusive)?;
        let path = self.stage_path("blob")?;
        let mut file = crate::sys::atomic::create(&path)?;
        let mut data = crate::layer::VerifiedReader::new(data, digest.clone(), size);
        if let Err(error) = std::io::copy(&mut data, &mut file) {
            let _ = fs::remove_file(&path);
            let source = crate::storage::facts::layer_error(error);
            return Err(Error::Layer { digest: digest.clone(), source });
        }
        self.clear_place(digest)?;
        self.publish_blob(&file, &path, digest)?;
        self.sync_published()
    }

    /// Nothing but a file can be replaced by one.
    fn clear_place(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.layout.blob(digest);
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            let trash = self.stage_path(&layout::file_name(digest))?;
            fs::rename(&path, &trash)
                .map_err(|error| crate::sys::SysError::path("move away", &path, error))?;
            let _ = crate::sys::tree::remove_path(&trash);
        }
        Ok(())
    }
}

/// The whole entries in what may be left of a list.
fn salvage(bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    while let Some(start) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'{')) {
        let start = at + start;
        let mut stream = serde_json::Deserializer::from_slice(&bytes[start..]).into_iter::<Entry>();
        match stream.next() {
            Some(Ok(entry)) if entry.digest().is_some() && entry.check_sum().is_ok() => {
                at = start + stream.byte_offset();
                entries.push(entry);
            }
            _ => at = start + 1,
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_entries_are_found_in_what_is_left_of_a_list() {
        let digest = Digest::sha256("x");
        let entry = |name: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":3,"annotations":{{"{REF_NAME}":"{name}"}}}}"#
            )
        };
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry("a"), entry("b"));
        for end in 0..=text.len() {
            let found = salvage(&text.as_bytes()[..end]);
            let whole =
                [entry("a"), entry("b")].iter().filter(|one| text[..end].contains(one.as_str())).count();
            assert_eq!(found.len(), whole, "{end} bytes");
        }
        let broken = text.replacen("size", "siz\u{1}", 1);
        assert_eq!(salvage(broken.as_bytes()).len(), 1);
    }
}
