//! Manifests and indexes as received bytes, next to what they say.

use super::{Descriptor, Digest, DigestError, Index, Manifest, media_type};

/// The largest manifest or index that is read, in bytes (the limit containers/image uses).
const MAX_BYTES: usize = 4 << 20;

/// A manifest or index exactly as received or written, with the media type and digest it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The media type, from the transport or the document.
    pub media_type: String,
    /// The exact bytes; the digest is over these.
    pub bytes: Vec<u8>,
    /// The digest of `bytes`.
    pub digest: Digest,
}

/// What a [`RawManifest`] says.
#[derive(Debug, Clone)]
pub enum Parsed {
    /// One image.
    Manifest(Box<Manifest>),
    /// A list of manifests, by platform.
    Index(Box<Index>),
}

/// Why bytes are not a usable manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than 4 MiB.
    #[error("manifest is {0} bytes long: more than the 4 MiB that are accepted")]
    TooLarge(usize),
    /// Not JSON, or not of the shape its media type promises.
    #[error("manifest {digest} is not a valid {media_type}")]
    Invalid {
        /// The digest of the bytes.
        digest: Digest,
        /// The media type it goes by.
        media_type: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A document that is both a manifest and an index, or says another type than its transport (CVE-2021-41190).
    #[error("manifest {digest} is ambiguous: {what}")]
    Ambiguous {
        /// The digest of the bytes.
        digest: Digest,
        /// Which fields contradict each other.
        what: String,
    },
    /// Docker schema 1.
    #[error(
        "manifest {0} is docker schema 1, which carries no digests of its content; push the image again with a current tool"
    )]
    Schema1(Digest),
    /// A media type this tool does not know.
    #[error("manifest {digest} has the unknown media type `{media_type}`")]
    UnknownType {
        /// The digest of the bytes.
        digest: Digest,
        /// The type.
        media_type: String,
    },
    /// A descriptor in it names an unusable digest.
    #[error("a descriptor names an unusable digest")]
    Digest(#[from] DigestError),
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl RawManifest {
    /// Take in received bytes. `transport_type` is the Content-Type or the descriptor's media type, when known.
    ///
    /// # Errors
    /// When the bytes are too large, not JSON, ambiguous, docker schema 1, or of an unknown type.
    pub fn new(bytes: Vec<u8>, transport_type: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let digest = Digest::sha256(&bytes);
        let said = transport_type.map(|t| t.split(';').next().unwrap_or("").trim().to_owned());
        let probe: Probe = serde_json::from_slice(&bytes).map_err(|source| ManifestError::Invalid {
            digest: digest.clone(),
            media_type: said.clone().unwrap_or_else(|| "manifest".into()),
            source,
        })?;
        let media_type = probe.settle(said.as_deref(), &digest)?;
        Ok(Self { media_type, bytes, digest })
    }

    /// Parse the bytes by the media type.
    ///
    /// # Errors
    /// When the document does not have the shape of its type.
    pub fn parse(&self) -> Result<Parsed, ManifestError> {
        let invalid = |source| ManifestError::Invalid {
            digest: self.digest.clone(),
            media_type: self.media_type.clone(),
            source,
        };
        if media_type::is_index(&self.media_type) {
            serde_json::from_slice(&self.bytes).map(|index| Parsed::Index(Box::new(index))).map_err(invalid)
        } else {
            serde_json::from_slice(&self.bytes)
                .map(|manifest| Parsed::Manifest(Box::new(manifest)))
                .map_err(invalid)
        }
    }

    /// Serialise a manifest of our own making.
    ///
    /// # Errors
    /// When the value cannot be serialised.
    pub fn from_manifest(manifest: &Manifest) -> Result<Self, ManifestError> {
        Self::serialise(manifest, media_type::OCI_MANIFEST)
    }

    /// Serialise an index of our own making.
    ///
    /// # Errors
    /// When the value cannot be serialised.
    pub fn from_index(index: &Index) -> Result<Self, ManifestError> {
        Self::serialise(index, media_type::OCI_INDEX)
    }

    fn serialise(value: &impl serde::Serialize, default_type: &str) -> Result<Self, ManifestError> {
        let bytes = serde_json::to_vec_pretty(value).map_err(|source| ManifestError::Invalid {
            digest: Digest::sha256(b""),
            media_type: default_type.into(),
            source,
        })?;
        Self::new(bytes, None)
    }

    /// The descriptor that names this manifest.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        descriptor(&self.media_type, &self.digest, self.bytes.len() as u64)
    }
}

impl Probe {
    fn settle(self, said: Option<&str>, digest: &Digest) -> Result<String, ManifestError> {
        let ambiguous = |what: String| Err(ManifestError::Ambiguous { digest: digest.clone(), what });
        if self.manifests.is_some() && (self.layers.is_some() || self.config.is_some()) {
            return ambiguous("it has both `manifests` and `layers` or `config`".into());
        }
        if self.fs_layers.is_some()
            || self.schema_version == Some(1)
            || said.is_some_and(|t| media_type::DOCKER_SCHEMA1.contains(&t))
        {
            return Err(ManifestError::Schema1(digest.clone()));
        }
        let shape = if self.manifests.is_some() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        // Registries and proxies answer with generic types; only a specific one counts as a statement.
        let said = said.filter(|t| media_type::is_index(t) || media_type::is_manifest(t));
        let own = self.media_type.as_deref();
        if let (Some(said), Some(own)) = (said, own)
            && said != own
        {
            return ambiguous(format!("it was sent as `{said}` but calls itself `{own}`"));
        }
        let media_type = own.or(said).unwrap_or(shape);
        if !media_type::is_index(media_type) && !media_type::is_manifest(media_type) {
            return Err(ManifestError::UnknownType { digest: digest.clone(), media_type: media_type.into() });
        }
        if media_type::is_index(media_type) != media_type::is_index(shape) {
            return ambiguous(format!("its fields are not those of `{media_type}`"));
        }
        Ok(media_type.into())
    }
}

/// A plain descriptor.
#[must_use]
pub fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor::new(media_type.into(), size, to_spec(digest))
}

/// The digest a descriptor names, as the validated newtype.
///
/// # Errors
/// When the algorithm is neither sha256 nor sha512 or the digits are malformed.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest, DigestError> {
    descriptor.digest().as_ref().parse()
}

fn to_spec(digest: &Digest) -> oci_spec::image::Digest {
    use std::str::FromStr;
    // Every text our parser accepts is accepted by the more lenient one of oci_spec.
    oci_spec::image::Digest::from_str(digest.as_str()).unwrap_or_else(|_| {
        oci_spec::image::Digest::from(
            oci_spec::image::Sha256Digest::from_str(digest.hex()).unwrap_or_else(|_| unreachable!()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERED: &str = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3},"layers":[]}"#;

    #[test]
    fn the_shape_decides_where_nothing_else_does() {
        let raw = RawManifest::new(LAYERED.into(), Some("text/plain; charset=utf-8")).unwrap();
        assert_eq!(raw.media_type, media_type::OCI_MANIFEST);
        assert_eq!(raw.digest, Digest::sha256(LAYERED));
        assert!(matches!(raw.parse().unwrap(), Parsed::Manifest(_)));
    }

    #[test]
    fn contradictions_are_refused() {
        let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(RawManifest::new(both.into(), None), Err(ManifestError::Ambiguous { .. })));
        let sent = RawManifest::new(LAYERED.into(), Some(media_type::OCI_INDEX));
        assert!(matches!(sent, Err(ManifestError::Ambiguous { .. })));
        let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(RawManifest::new(old.into(), None), Err(ManifestError::Schema1(_))));
    }
}
