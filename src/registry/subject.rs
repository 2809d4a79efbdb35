//! Referrers at registries that keep no list of them: a manifest with a `subject` is entered in an index under a tag
//! made of the subject's digest (distribution-spec v1.1, "Pushing Manifests with Subject", "Referrers Tag Schema").

use serde_json::{Value, json};

use super::endpoint::Endpoint;
use super::retry::with_retries;
use super::{Client, Error};
use crate::oci::{Digest, RawManifest, media_type};

impl Client<'_> {
    /// Enter a manifest that was sent in the list of its subject's referrers, when it has a subject.
    ///
    /// # Errors
    /// When the list cannot be read or written.
    pub(super) fn list_referrer(&self, manifest: &RawManifest) -> Result<(), Error> {
        let Some((subject, entry)) = referrer(manifest) else { return Ok(()) };
        let endpoint = self.primary();
        let tag: String = format!("{}-{}", subject.algorithm(), subject.hex()).chars().take(128).collect();
        let listed = with_retries(&self.settings, || self.list_at(endpoint, &tag))?;
        let Some(list) = with_entry(listed, entry) else { return Ok(()) };
        let bytes = serde_json::to_vec(&list).map_err(|source| crate::oci::ManifestError::Invalid {
            digest: Digest::sha256(b""),
            media_type: media_type::OCI_INDEX.into(),
            source,
        })?;
        self.put_document(&RawManifest::new(bytes, Some(media_type::OCI_INDEX))?, &tag).map(drop)
    }

    /// The list as it is; `None` when there is none.
    fn list_at(&self, endpoint: &Endpoint, tag: &str) -> Result<Option<Value>, Error> {
        match self.fetch_manifest(endpoint, tag) {
            Ok(raw) if media_type::is_index(&raw.media_type) => Ok(serde_json::from_slice(&raw.bytes).ok()),
            Ok(_) => Ok(None),
            Err(Error::UnknownManifest { .. } | Error::UnknownRepository { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The subject of a manifest, and the descriptor to list the manifest by.
fn referrer(manifest: &RawManifest) -> Option<(Digest, Value)> {
    let document: Value = serde_json::from_slice(&manifest.bytes).ok()?;
    let subject: Digest = document.get("subject")?.get("digest")?.as_str()?.parse().ok()?;
    let mut entry = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.as_str(),
        "size": manifest.bytes.len(),
    });
    // Without a type of its own, a manifest is what its config is.
    let own = document.get("artifactType").filter(|kind| kind.as_str().is_some_and(|kind| !kind.is_empty()));
    if let Some(kind) = own.or_else(|| document.get("config")?.get("mediaType")) {
        entry["artifactType"] = kind.clone();
    }
    if let Some(annotations) = document.get("annotations").filter(|value| value.is_object()) {
        entry["annotations"] = annotations.clone();
    }
    Some((subject, entry))
}

/// The list with one more entry, all else as it was; `None` when the entry is there.
fn with_entry(list: Option<Value>, entry: Value) -> Option<Value> {
    let empty = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] });
    let mut list = list.filter(|list| list["manifests"].is_array()).unwrap_or(empty);
    let entries = list["manifests"].as_array_mut()?;
    if entries.iter().any(|known| known["digest"] == entry["digest"]) {
        return None;
    }
    entries.push(entry);
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(document: Value) -> RawManifest {
        RawManifest::new(serde_json::to_vec(&document).unwrap(), Some(media_type::OCI_MANIFEST)).unwrap()
    }

    #[test]
    fn a_manifest_is_listed_by_what_it_is() {
        let subject =
            json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256("x").as_str(), "size": 1});
        let config =
            json!({"mediaType": "application/vnd.me", "digest": Digest::sha256("c").as_str(), "size": 1});
        let plain = raw(json!({"schemaVersion": 2, "config": config, "layers": []}));
        assert!(referrer(&plain).is_none());
        let typed = raw(json!({
            "schemaVersion": 2, "config": config, "layers": [], "subject": subject,
            "artifactType": "application/vnd.sbom", "annotations": {"a": "b"}
        }));
        let (found, entry) = referrer(&typed).unwrap();
        assert_eq!(found, Digest::sha256("x"));
        assert_eq!(
            (&entry["artifactType"], &entry["annotations"]["a"]),
            (&json!("application/vnd.sbom"), &json!("b"))
        );
        let untyped = raw(json!({"schemaVersion": 2, "config": config, "layers": [], "subject": subject}));
        assert_eq!(referrer(&untyped).unwrap().1["artifactType"], "application/vnd.me");
    }

    #[test]
    fn a_list_grows_by_one_and_keeps_what_it_had() {
        let entry = json!({"digest": "sha256:1"});
        let list = with_entry(None, entry.clone()).unwrap();
        assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
        let mut known = list.clone();
        known["annotations"] = json!({"kept": "yes"});
        assert!(with_entry(Some(known.clone()), entry).is_none());
        let longer = with_entry(Some(known), json!({"digest": "sha256:2"})).unwrap();
        assert_eq!(longer["annotations"]["kept"], "yes");
        assert_eq!(longer["manifests"].as_array().unwrap().len(), 2);
    }
}
