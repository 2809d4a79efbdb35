//! Floor 0: the values of the OCI image specification, without any I/O.
//!
//! Descriptors, manifests and indexes are `oci_spec`'s; the image config is our own superset,
//! because `oci_spec` drops what it does not know (`Healthcheck`, `OnBuild`, `Shell`), and
//! references and digests are newtypes that are parsed once and then trusted.

mod chain_id;
mod config;
mod digest;
mod manifest;
pub mod media_type;
mod platform;
mod port;
mod reference;

pub use chain_id::{ChainId, chain_ids};
pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{DiffId, Digest, DigestError, Hasher, ImageId};
pub use manifest::{ManifestError, Parsed, RawManifest, descriptor, digest_of};
pub use oci_spec::image::{Descriptor, ImageIndex as Index, ImageManifest as Manifest};
pub use platform::{Platform, PlatformError};
pub use port::{PortError, Protocol, Publish, Published, parse_publish};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Parts, Reference, ReferenceError};
