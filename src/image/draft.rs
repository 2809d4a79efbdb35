//! Pure edits of an index: read, change, write. What this program does not know of a document is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::BoxError;
use crate::oci::{Descriptor, Digest, ManifestError, Platform, RawManifest, media_type};

/// The most images that an index may name: what is copied at once, too.
pub const MAX_MEMBERS: usize = 1024;
/// On a descriptor: the image that its manifest attests something of (BuildKit's attestation storage).
pub const ATTESTS_ANNOTATION: &str = "vnd.docker.reference.digest";

/// An index being put together or changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexDraft {
    schema_version: u64,
    /// OCI index or docker manifest list.
    #[serde(default = "oci_index")]
    media_type: String,
    /// What an index that is an artifact itself is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The images, in the order in which one is looked for.
    #[serde(default)]
    manifests: Vec<Member>,
    /// What the index refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Member>,
    /// Remarks on the index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// One image of an index: a descriptor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The type of the manifest.
    pub media_type: String,
    /// The digest of the manifest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<MemberPlatform>,
    /// Remarks on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What an artifact is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The platform of a descriptor (image-spec, image-index), as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPlatform {
    /// CPU, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// Operating system, in Go's words.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system that it needs.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the operating system that it needs.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The variant of the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Features of the CPU that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What to change about one image of an index; what is `None` or empty stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Operating system.
    pub os: Option<String>,
    /// CPU.
    pub architecture: Option<String>,
    /// Variant of the CPU.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system, all of them.
    pub os_features: Vec<String>,
    /// Features of the CPU, all of them.
    pub features: Vec<String>,
    /// Annotations to set; an empty value takes one away.
    pub annotations: BTreeMap<String, String>,
}

/// Why an edit makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// The document is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The document is not an index.
    #[error("{0} is an image, not an index")]
    NotAnIndex(Digest),
    /// The document is JSON, but no index.
    #[error("{digest} is no usable index")]
    Invalid {
        /// The document.
        digest: Digest,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// Too many images.
    #[error("an index of {0} manifests is more than the {MAX_MEMBERS} that are accepted")]
    TooMany(usize),
    /// An index where an image should be.
    #[error("{0} is an index, and an index holds images only: add its images with --all")]
    Nested(Digest),
    /// The index does not name the image.
    #[error("the index does not name {0}")]
    NoMember(Digest),
    /// The docker format lacks what the index has.
    #[error("a docker manifest list has no place for {0}")]
    NotInDocker(String),
    /// The document could not be written.
    #[error("cannot write the index")]
    Write(#[source] BoxError),
}

fn oci_index() -> String {
    media_type::OCI_INDEX.to_owned()
}

impl Default for IndexDraft {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: oci_index(),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
            rest: Map::new(),
        }
    }
}

impl IndexDraft {
    /// Read an index.
    ///
    /// # Errors
    /// When it is none, or names more images than are accepted.
    pub fn parse(raw: &RawManifest) -> Result<Self, DraftError> {
        if !media_type::is_index(&raw.media_type) {
            return Err(DraftError::NotAnIndex(raw.digest.clone()));
        }
        let mut draft: Self = serde_json::from_slice(&raw.bytes)
            .map_err(|source| DraftError::Invalid { digest: raw.digest.clone(), source })?;
        if draft.manifests.len() > MAX_MEMBERS {
            return Err(DraftError::TooMany(draft.manifests.len()));
        }
        draft.media_type.clone_from(&raw.media_type);
        Ok(draft)
    }

    /// The images, in their order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.manifests
    }

    /// Add an image. One that is there already gets what the new descriptor says beyond the old one. The image that
    /// comes first for the same platform is returned, as it hides the new one.
    ///
    /// # Errors
    /// When it is an index, or there are too many.
    pub fn add(&mut self, new: Member) -> Result<Option<&Member>, DraftError> {
        if media_type::is_index(&new.media_type) {
            return Err(DraftError::Nested(new.digest));
        }
        if let Some(at) = self.manifests.iter().position(|old| old.digest == new.digest) {
            let old = &mut self.manifests[at];
            old.platform = new.platform.or(old.platform.take());
            old.annotations.extend(new.annotations);
            old.artifact_type = new.artifact_type.or(old.artifact_type.take());
            return Ok(None);
        }
        if self.manifests.len() >= MAX_MEMBERS {
            return Err(DraftError::TooMany(self.manifests.len() + 1));
        }
        let first = self.manifests.iter().position(|old| old.runs() && old.platform == new.platform);
        self.manifests.push(new);
        Ok(first.map(|at| &self.manifests[at]))
    }

    /// Take an image out, and with it what attests something of it.
    ///
    /// # Errors
    /// [`DraftError::NoMember`]
    pub fn remove(&mut self, digest: &Digest) -> Result<(), DraftError> {
        let before = self.manifests.len();
        self.manifests.retain(|member| member.digest != *digest);
        if self.manifests.len() == before {
            return Err(DraftError::NoMember(digest.clone()));
        }
        self.manifests.retain(|member| member.attests() != Some(digest.as_str()));
        Ok(())
    }

    /// Change what is said of an image.
    ///
    /// # Errors
    /// [`DraftError::NoMember`]
    pub fn annotate(&mut self, digest: &Digest, change: &Change) -> Result<(), DraftError> {
        let member = self.manifests.iter_mut().find(|member| member.digest == *digest);
        member.ok_or_else(|| DraftError::NoMember(digest.clone()))?.change(change);
        Ok(())
    }

    /// Set an annotation on the images for a platform, or on all.
    pub fn annotate_where(&mut self, platform: Option<&Platform>, key: &str, value: &str) {
        for member in &mut self.manifests {
            let own = member.platform.as_ref().map(Platform::from);
            if platform.is_none() || platform == own.as_ref() {
                member.annotations.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    /// The document.
    ///
    /// # Errors
    /// When it cannot be written or is larger than a manifest may be.
    pub fn to_raw(&self) -> Result<RawManifest, DraftError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| DraftError::Write(error.into()))?;
        Ok(RawManifest::new(bytes, Some(&self.media_type))?)
    }

    /// The same list as an OCI index.
    #[must_use]
    pub fn into_oci(mut self) -> Self {
        self.media_type = oci_index();
        self
    }

    /// The same list in docker's older format. The images in it stay as they are.
    ///
    /// # Errors
    /// When it has what that format lacks: annotations, a subject, artifacts.
    pub fn into_docker(mut self) -> Result<Self, DraftError> {
        let lacks = |what: &str| Err(DraftError::NotInDocker(what.to_owned()));
        if !self.annotations.is_empty() || self.manifests.iter().any(|m| !m.annotations.is_empty()) {
            return lacks("annotations");
        }
        if self.subject.is_some() {
            return lacks("a subject");
        }
        if self.artifact_type.is_some() || self.manifests.iter().any(|m| m.artifact_type.is_some()) {
            return lacks("artifacts");
        }
        if self.manifests.iter().any(|member| member.platform.is_none()) {
            return lacks("an image without a platform");
        }
        media_type::DOCKER_INDEX.clone_into(&mut self.media_type);
        Ok(self)
    }

    /// In its own format, unless that is docker's older one and has no place for what is in it now.
    #[must_use]
    pub fn settled(self) -> Self {
        if self.media_type != media_type::DOCKER_INDEX || self.clone().into_docker().is_ok() {
            return self;
        }
        self.into_oci()
    }

    /// Whether everything in it is of docker's types, so that the list may be as well.
    #[must_use]
    pub fn is_docker(&self) -> bool {
        !self.manifests.is_empty()
            && self.manifests.iter().all(|m| m.media_type == media_type::DOCKER_MANIFEST)
    }
}

impl Member {
    /// The descriptor of a manifest.
    #[must_use]
    pub fn new(raw: &RawManifest, platform: Option<MemberPlatform>) -> Self {
        Self {
            media_type: raw.media_type.clone(),
            digest: raw.digest.clone(),
            size: raw.bytes.len() as u64,
            platform,
            annotations: BTreeMap::new(),
            artifact_type: None,
            rest: Map::new(),
        }
    }

    /// The plain descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        crate::oci::descriptor(&self.media_type, &self.digest, self.size)
    }

    /// Whether it is an image that runs on some platform, and not an attestation or another artifact.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os != "unknown") && self.attests().is_none()
    }

    /// The digest of the image that this attests something of.
    #[must_use]
    pub fn attests(&self) -> Option<&str> {
        self.annotations.get(ATTESTS_ANNOTATION).map(String::as_str)
    }

    /// Change what is said of it.
    pub fn change(&mut self, change: &Change) {
        let set = |old: &mut Option<String>, new: &Option<String>| {
            if let Some(new) = new {
                *old = Some(new.clone()).filter(|new| !new.is_empty());
            }
        };
        if change.names_platform() {
            let platform = self.platform.get_or_insert_default();
            if let Some(os) = &change.os {
                platform.os.clone_from(os);
            }
            if let Some(architecture) = &change.architecture {
                platform.architecture.clone_from(architecture);
            }
            set(&mut platform.variant, &change.variant);
            set(&mut platform.os_version, &change.os_version);
            if !change.os_features.is_empty() {
                platform.os_features.clone_from(&change.os_features);
            }
            if !change.features.is_empty() {
                platform.features.clone_from(&change.features);
            }
        }
        annotate(&mut self.annotations, &change.annotations);
    }
}

/// Set annotations; an empty value takes one away.
pub fn annotate(old: &mut BTreeMap<String, String>, new: &BTreeMap<String, String>) {
    for (key, value) in new {
        match value.as_str() {
            "" => old.remove(key),
            value => old.insert(key.clone(), value.to_owned()),
        };
    }
}

impl Change {
    fn names_platform(&self) -> bool {
        self.os.is_some()
            || self.architecture.is_some()
            || self.variant.is_some()
            || self.os_version.is_some()
            || !self.os_features.is_empty()
            || !self.features.is_empty()
    }
}

impl From<&Platform> for MemberPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..Self::default()
        }
    }
}

impl From<&MemberPlatform> for Platform {
    fn from(platform: &MemberPlatform) -> Self {
        Self::new(&platform.os, &platform.architecture, platform.variant.as_deref())
    }
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
