//! `index.json`: an OCI image index (image-spec `image-layout.md`) with one descriptor per name.
//!
//! Reads are lock-free: the file is only ever replaced whole. Changes read, edit and replace it under the names lock.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::lock::{LockMode, LockName};
use super::{Error, Store, layout::Layout};
use crate::oci::{Descriptor, Digest, Reference, media_type};
use crate::sys::atomic::{Durability, replace_file, sync_dir};
use crate::sys::{SysError, regular};

/// The name of an image (image-spec `annotations.md`): the full reference here.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where the target is an index: the manifest chosen from it.
pub(super) const MANIFEST: &str = "io.strate.manifest";
/// The digest of the config.
pub(super) const CONFIG: &str = "io.strate.config";
/// The config's `created`.
pub(super) const CREATED: &str = "io.strate.created";
/// What the target is when it is no container image: `artifact`.
pub(super) const KIND: &str = "io.strate.kind";
/// Where images of the target index can be had that are not here: a JSON object, repositories by digest.
pub(super) const ORIGINS: &str = "io.strate.origins";
/// Additional stores that hold layers of the image which are not here: a JSON list of their paths.
pub(super) const STORES: &str = "io.strate.stores";
/// A check sum over the entry.
const SUM: &str = "io.strate.sum";

/// A list of names is not longer, in bytes: one that somebody else keeps may be anything.
pub(super) const LONGEST: u64 = 256 << 20;

/// Bytes of the unpacked layers.
pub(super) const SIZE: &str = "io.strate.size";

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IndexFile {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    /// One descriptor a name, and one for each untagged image. Required: a file without it is damaged and not empty.
    #[serde(deserialize_with = "null_is_empty")]
    pub manifests: Vec<Entry>,
    /// Annotations and whatever another tool put here.
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// One descriptor of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for IndexFile {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.into()),
            manifests: Vec::new(),
            extra: Map::new(),
        }
    }
}

/// Tools written in Go say `null` for an empty list.
fn null_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Entry {
    pub(super) fn new(target: &Descriptor, annotations: BTreeMap<String, String>) -> Self {
        Self {
            media_type: target.media_type().to_string(),
            digest: target.digest().to_string(),
            size: target.size(),
            artifact_type: None,
            platform: None,
            annotations,
        }
    }

    /// What the entry points to; `None` when another tool wrote something that is not a sha256 or sha512 digest.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest.parse().ok()
    }

    /// What stands where the digest should.
    pub(super) fn digest_text(&self) -> &str {
        &self.digest
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Note the check sum of all that the entry says. It goes wrong with the first bit, which no other part of the store
    /// would tell of a name.
    pub(super) fn seal(&mut self) {
        let sum = self.sum();
        self.annotations.insert(SUM.to_owned(), sum);
    }

    fn sum(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.media_type, self.digest, self.size);
        for (key, value) in self.annotations.iter().filter(|(key, _)| *key != SUM) {
            text.push_str(&format!("{}:{key}{}:{value}", key.len(), value.len()));
        }
        Digest::sha256(text).short().to_owned()
    }

    /// Whether the entry is as it was written. One that another tool made has no sum.
    pub(super) fn check_sum(&self) -> Result<(), String> {
        match self.annotations.get(SUM) {
            Some(sum) if *sum != self.sum() => {
                Err("is not as it was written: it is damaged, or another tool has changed it".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_index(&self) -> bool {
        media_type::is_index(&self.media_type)
    }

    /// The name; `None` when there is none, or one that is no reference.
    pub(super) fn name(&self) -> Option<Reference> {
        Reference::parse(self.annotations.get(REF_NAME)?).ok()
    }

    pub(super) fn digest_annotation(&self, key: &str) -> Option<Digest> {
        self.annotations.get(key)?.parse().ok()
    }
}

impl IndexFile {
    pub(super) fn read(layout: &Layout) -> Result<Self, Error> {
        let path = layout.index();
        match regular::read(&path, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source }),
            // A store has one from the start: writing a new one would give up every image.
            Err(error) if error.kind() == ErrorKind::NotFound && layout.format().exists() => {
                Err(Error::Damaged { path, what: "it is not there".into() })
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(Self::default())
            }
            Err(error) => Err(SysError::path("read", &path, error).into()),
        }
    }

    /// Whether it is an index at all (image-spec `image-index.md`).
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.media_type {
            _ if self.schema_version != 2 => Err(format!("has schema version {}", self.schema_version)),
            Some(other) if other != media_type::OCI_INDEX => Err(format!("has the media type {other}")),
            _ => Ok(()),
        }
    }

    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|source| Error::Json { path: "index.json".into(), source })
    }

    /// Move a name to a target. An image that loses its last name by this stays reachable untagged, and one that was
    /// untagged is not listed twice.
    pub(super) fn set_name(&mut self, name: &Reference, mut entry: Entry) {
        let text = name.to_string();
        let old = self.take(|e| e.annotations.get(REF_NAME) == Some(&text));
        self.manifests.retain(|e| e.digest != entry.digest || e.annotations.contains_key(REF_NAME));
        for mut entry_before in old {
            let still_listed = entry_before.digest == entry.digest
                || self.manifests.iter().any(|e| e.digest == entry_before.digest);
            if !still_listed {
                entry_before.annotations.remove(REF_NAME);
                entry_before.seal();
                self.manifests.push(entry_before);
            }
        }
        entry.annotations.insert(REF_NAME.into(), text);
        entry.seal();
        self.manifests.push(entry);
    }

    /// Keep an image without a name, unless it is listed already.
    pub(super) fn add_untagged(&mut self, mut entry: Entry) {
        entry.annotations.remove(REF_NAME);
        entry.seal();
        if !self.manifests.iter().any(|e| e.digest == entry.digest) {
            self.manifests.push(entry);
        }
    }

    /// Take out the entries that `which` picks.
    pub(super) fn take(&mut self, mut which: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let (taken, kept) = std::mem::take(&mut self.manifests).into_iter().partition(|e| which(e));
        self.manifests = kept;
        taken
    }
}

impl Store {
    /// Read, change and replace `index.json` under the names lock; durable when it returns. Everything the new state
    /// names must be published before.
    pub(super) fn edit_index<T>(
        &self,
        change: impl FnOnce(&mut IndexFile) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let temp = self.stage_path("index")?;
        self.sync_published()?;
        let lock = self.lock(&LockName::Names, LockMode::Exclusive)?;
        let mut index = IndexFile::read(&self.layout)?;
        let before = index.to_bytes()?;
        let answer = change(&mut index)?;
        let after = index.to_bytes()?;
        if before != after {
            self.keep_previous_index();
            lock.verify()?;
            replace_file(&self.layout.index(), &temp, &after, Durability::Durable)?;
        } else {
            // Whoever changed it to this may have been killed before that was durable, and we say that it is done.
            sync_dir(self.layout.root())?;
        }
        Ok(answer)
    }
}

impl Store {
    /// The list as it is now becomes the one before: `check --repair` turns to it when the list is lost. A failure is
    /// none, as nothing else needs it.
    fn keep_previous_index(&self) {
        let Ok(link) = self.stage_path("previous") else { return };
        if fs::hard_link(self.layout.index(), &link).is_ok() {
            let _ = fs::rename(&link, self.layout.previous_index());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::descriptor;

    fn entry(content: &str) -> Entry {
        let target = descriptor(media_type::OCI_MANIFEST, &Digest::sha256(content), 1);
        Entry::new(&target, BTreeMap::new())
    }

    fn listed(index: &IndexFile) -> Vec<(String, String)> {
        let mut all: Vec<_> = index
            .manifests
            .iter()
            .map(|e| (e.name().map_or("-".into(), |n| n.familiar()), e.digest().unwrap().short().to_owned()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_moved_name_leaves_the_old_image_untagged_unless_it_has_another_name() {
        let (a, b) = (Reference::parse("a").unwrap(), Reference::parse("b").unwrap());
        let short = |content: &str| Digest::sha256(content).short().to_owned();
        let mut index = IndexFile::default();
        index.set_name(&a, entry("1"));
        index.set_name(&b, entry("1"));
        index.set_name(&a, entry("2"));
        assert_eq!(listed(&index), [("a:latest".into(), short("2")), ("b:latest".into(), short("1"))]);
        index.set_name(&b, entry("2"));
        assert_eq!(
            listed(&index),
            [("-".into(), short("1")), ("a:latest".into(), short("2")), ("b:latest".into(), short("2"))]
        );
        index.set_name(&a, entry("1"));
        assert_eq!(listed(&index), [("a:latest".into(), short("1")), ("b:latest".into(), short("2"))]);
        index.add_untagged(entry("1"));
        assert_eq!(index.manifests.len(), 2);
    }

    #[test]
    fn what_other_tools_write_is_kept_and_bad_digests_do_no_harm() {
        let text = r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"sha256:../../x","size":3,
            "annotations":{"org.opencontainers.image.ref.name":"NOT A NAME"}}],"annotations":{"k":"v"}}"#;
        let index: IndexFile = serde_json::from_str(text).unwrap();
        assert_eq!((index.manifests[0].digest(), index.manifests[0].name()), (None, None));
        let again: Value = serde_json::from_slice(&index.to_bytes().unwrap()).unwrap();
        assert_eq!(again["annotations"]["k"], "v");
        assert_eq!(again["manifests"][0]["digest"], "sha256:../../x");
    }
}
