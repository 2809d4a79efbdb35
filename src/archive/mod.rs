//! Floor 2: images in files: OCI layouts and docker's archives, as a [`Source`](crate::image::Source) and a
//! [`Sink`](crate::image::Sink).
//!
//! | form | what it is |
//! |---|---|
//! | [`Format::OciDir`] | an OCI image layout: `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>` |
//! | [`Format::OciArchive`] | the same as a tar |
//! | [`Format::DockerArchive`] | the same with docker's `manifest.json` beside it, as docker writes it since version 25 |
//! | [`Format::Dir`] | skopeo's `dir:`: `version`, `manifest.json` and blobs by their hex digits, one image |
//!
//! Blobs go in and come out byte for byte, each once, so an image that is saved and loaded keeps its digests. Tars are
//! indexed by offset and never unpacked to disk (`tarfile.rs`).
//!
//! **The old docker form** (docker before 25, podman, skopeo, kaniko) has no manifests: a table names a config and the
//! tars of its layers, mostly not compressed. Its images get a manifest here, and layers that are plain tars are
//! compressed once, by the deterministic encoder that builds use too (`old.rs`). To keep them plain would be less work
//! now, but then the store would hold, and every push send, three times the bytes. The manifests are of OCI's types:
//! those go into every registry and every form, which docker's do not, and can name zstd. Loading the same archive
//! twice gives the same digests twice.

mod blob;
mod contents;
mod decompress;
mod dir_out;
mod error;
mod files;
mod layout;
mod old;
mod out_file;
mod reader;
mod tar_out;
mod tarfile;
mod writer;
mod xz;

pub use decompress::decompressed;
pub use error::Error;
pub use out_file::OutFile;
pub use reader::{Gate, ImageEntry, Reader};
pub use writer::{Member, Writer};

/// A form of images in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tar that docker and podman load: docker's table of contents and an OCI layout side by side, as docker writes it
    /// since version 25.
    DockerArchive,
    /// A tar of an OCI layout.
    OciArchive,
    /// An OCI layout in a directory.
    OciDir,
    /// Manifest and blobs of one image as plain files in a directory, as skopeo writes them.
    Dir,
}

impl Format {
    /// Whether it is a directory and no file.
    #[must_use]
    pub fn is_dir(self) -> bool {
        matches!(self, Self::OciDir | Self::Dir)
    }
}

/// The name of an image in an OCI layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name of an image, where the OCI one holds only its tag (containerd, docker).
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Files that say what an archive holds.
const TABLES: [&str; 3] = ["index.json", "manifest.json", "oci-layout"];
/// What is said of a tar or directory without them.
const NO_TABLES: &str = "it has neither an index.json nor a manifest.json";
/// The longest table that is read, in bytes.
const MAX_TABLE: u64 = 16 << 20;
/// The largest manifest or config, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
