//! What a listing shows of an image, in one piece of memory: there may be thousands.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::Line;
use crate::image::INDEX_DIGEST_ANNOTATION;
use crate::oci::{Digest, Parts, Reference, media_type};
use crate::storage::ImageRecord;
use crate::storage::index::{CONFIG, CREATED, KIND, MANIFEST, SIZE};

/// One name, or one image without a name, as listings show it. [`ImageRecord`] says more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// Name, id, digest and time of creation one after the other.
    text: Box<str>,
    /// Where repository, name, id and digest end in it.
    ends: [usize; 4],
    /// Where the tag lies in it.
    tag: Option<(usize, usize)>,
    created: Option<Timestamp>,
    /// Bytes of its unpacked layers.
    pub size: u64,
    /// Whether the name stands for an index.
    pub is_index: bool,
    /// Whether it lies in an additional store.
    pub read_only: bool,
}

/// What goes into the text.
struct Words<'a> {
    name: Option<&'a Parts<'a>>,
    id: &'a str,
    digest: &'a str,
    created: Option<&'a str>,
}

impl ListedImage {
    /// What a line says; `None` where its blobs have to be asked.
    pub(in crate::storage) fn of_line(line: &Line<'_>) -> Option<Self> {
        let notes = &line.annotations;
        let is_index = media_type::is_index(line.media_type());
        // As `Store::record` has it, for the usual line alone: one image, and nothing noted that is no digest.
        let usual = notes.get(KIND).is_none() && notes.get(MANIFEST).is_some() == is_index;
        let (id, from) = (notes.get(CONFIG)?, notes.get(INDEX_DIGEST_ANNOTATION));
        let size = notes.get(SIZE)?.parse().ok()?;
        let digests = [Some(line.digest()), Some(id), from, notes.get(MANIFEST)];
        if !usual || digests.iter().flatten().any(|text| Digest::check(text).is_err()) {
            return None;
        }
        let name = line.name_parts();
        let digest = from.unwrap_or(line.digest());
        let words = Words { name: name.as_ref(), id, digest, created: notes.get(CREATED) };
        Some(Self { size, is_index, ..Self::new(&words) })
    }

    /// What a listing shows of a record.
    #[must_use]
    pub fn of(record: &ImageRecord) -> Self {
        let name = record.name.as_ref().map(Reference::to_string);
        let name = name.as_deref().and_then(|text| Parts::parse(text).ok());
        let words = Words {
            name: name.as_ref(),
            id: record.id.digest().as_str(),
            digest: record.digest.as_str(),
            created: record.created.as_deref(),
        };
        let (is_index, read_only) = (record.is_index(), record.store.is_some());
        Self { size: record.size, is_index, read_only, ..Self::new(&words) }
    }

    fn new(words: &Words<'_>) -> Self {
        let name = words.name.map_or(0, |name| name.familiar_length());
        let rest = [words.id, words.digest, words.created.unwrap_or_default()];
        let mut text = String::with_capacity(name + rest.iter().map(|word| word.len()).sum::<usize>());
        let (mut repository_end, mut tag) = (0, None);
        if let Some(name) = words.name {
            name.familiar_name().into_iter().for_each(|part| text.push_str(part));
            repository_end = text.len();
            if let Some(found) = name.tag() {
                text.push(':');
                tag = Some((text.len(), text.len() + found.len()));
                text.push_str(found);
            }
            if let Some(digest) = name.digest() {
                text.push('@');
                text.push_str(digest.as_str());
            }
        }
        let name_end = text.len();
        text.push_str(words.id);
        let id_end = text.len();
        text.push_str(words.digest);
        let digest_end = text.len();
        text.push_str(words.created.unwrap_or_default());
        Self {
            text: text.into(),
            ends: [repository_end, name_end, id_end, digest_end],
            tag,
            created: words.created.and_then(|text| text.parse().ok()),
            size: 0,
            is_index: false,
            read_only: false,
        }
    }

    /// Registry and repository as docker shows them; `None` for an untagged image.
    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        (self.ends[0] > 0).then(|| &self.text[..self.ends[0]])
    }

    /// The tag, where the name has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.map(|(start, end)| &self.text[start..end])
    }

    /// The image's id: the algorithm, a colon and hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.text[self.ends[1]..self.ends[2]]
    }

    /// The first twelve digits of the id.
    #[must_use]
    pub fn short_id(&self) -> &str {
        // Both algorithms that there are have six letters.
        self.id().get(7..19).unwrap_or_default()
    }

    /// The digest it was pulled or pushed by.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.text[self.ends[2]..self.ends[3]]
    }

    /// When it was made, as its config has it (RFC 3339, if it can be trusted).
    #[must_use]
    pub fn created_text(&self) -> Option<&str> {
        Some(&self.text[self.ends[3]..]).filter(|text| !text.is_empty())
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// Newest first, those without a time last; of one time by name, those without one first.
    pub(in crate::storage) fn newest_first(listed: &mut [Self]) {
        listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.by_name(b)));
    }

    fn by_name(&self, other: &Self) -> Ordering {
        self.text[..self.ends[1]].cmp(&other.text[..other.ends[1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Abilities, Store};
    use serde_json::json;

    /// An entry as strate writes it, with changes.
    fn entry(n: u32, changes: &[(&str, Option<&str>)]) -> serde_json::Value {
        let hex = |kind: char| format!("sha256:{kind}{n:063x}");
        let mut notes = json!({
            "org.opencontainers.image.ref.name": format!("docker.io/library/a{n}:1"),
            CONFIG: hex('c'), SIZE: "7", CREATED: format!("2026-01-{:02}T00:00:00Z", n % 7 + 1),
        });
        for (key, value) in changes {
            match value {
                Some(value) => notes[*key] = (*value).into(),
                None => drop(notes.as_object_mut().unwrap().remove(*key)),
            }
        }
        json!({ "mediaType": media_type::OCI_MANIFEST, "digest": hex('a'), "size": 3, "annotations": notes })
    }

    #[test]
    fn a_listing_says_what_the_records_say() {
        let dir = tempfile::tempdir().unwrap();
        let abilities = Abilities { mapped_ids: 1, unpack: false, lock_timeout: None };
        let store = Store::open_writable(&dir.path().join("store"), abilities).unwrap();
        let index = format!("sha256:{}", "f".repeat(64));
        let pinned = format!("docker.io/library/p:1@{index}");
        let name = "org.opencontainers.image.ref.name";
        let mut entries: Vec<_> = (0..40).map(|n| entry(n, &[])).collect();
        entries.push(entry(40, &[(name, None)]));
        entries.push(entry(41, &[(name, Some("NO NAME"))]));
        entries.push(entry(42, &[(name, Some("quay.io/b/c:x")), (INDEX_DIGEST_ANNOTATION, Some(&index))]));
        entries.push(entry(43, &[(name, Some(&pinned))]));
        entries.push(entry(44, &[(CREATED, None)]));
        entries.push(entry(45, &[(CREATED, Some("yesterday"))]));
        entries.push(entry(46, &[(INDEX_DIGEST_ANNOTATION, Some("senseless"))]));
        entries.push(entry(47, &[(KIND, Some("artifact")), (CONFIG, None)]));
        entries.push(entry(48, &[(SIZE, Some("senseless"))]));
        // Nothing is known of these, and their blobs are not here.
        entries.push(entry(49, &[(CONFIG, None)]));
        entries.push(entry(50, &[(CONFIG, Some("senseless"))]));
        let file = json!({ "schemaVersion": 2, "manifests": entries });
        std::fs::write(store.layout().index(), file.to_string()).unwrap();
        let records: Vec<_> = store.images().unwrap().iter().map(ListedImage::of).collect();
        let listed = store.listed_images().unwrap();
        assert_eq!(listed, records);
        assert_eq!(listed.len(), 49);
        let find = |text: &str| listed.iter().find(|one| one.repository() == Some(text)).unwrap();
        assert_eq!((find("quay.io/b/c").tag(), find("quay.io/b/c").digest()), (Some("x"), index.as_str()));
        assert_eq!((find("a3").short_id(), find("a3").size), ("c00000000000", 7));
        assert_eq!(find("a45").created_text(), Some("yesterday"));
        let names = store.image_names().unwrap();
        assert!(names.contains(&("a3:1".to_owned(), false)) && names.len() == 49, "{}", names.len());
        let bytes = super::super::Lines::read(store.layout()).unwrap();
        let lines = super::super::Lines::parse(store.layout(), &bytes).unwrap();
        assert_eq!(lines.manifests.iter().filter(|line| ListedImage::of_line(line).is_some()).count(), 46);
    }
}
