//! Floor 2: images in one file: OCI archives and docker's, which are the same blobs with different tables of contents.
//!
//! Blobs go in byte for byte, each once, so that an image that is saved and loaded keeps its digests.

mod contents;
mod error;
mod out;

pub use error::Error;

use std::io::Write;
use std::path::Path;

use contents::Contents;
use out::{DirOut, TarOut};

use crate::image::Source;
use crate::oci::{Descriptor, Reference};

/// A form to save images in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A tar that docker and podman load: docker's table of contents and an OCI layout side by side, as docker writes it
    /// since version 25.
    DockerArchive,
    /// A tar of an OCI layout.
    OciArchive,
    /// An OCI layout in a directory.
    OciDir,
}

/// One image to save.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its names in the archive.
    pub names: Vec<Reference>,
    /// Its manifest or index.
    pub target: Descriptor,
}

/// Write images as a tar.
///
/// # Errors
/// When an image cannot be read or the stream not be written.
pub fn write(
    source: &dyn Source,
    members: &[Member],
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let contents = Contents::gather(source, members)?;
    let mut out = TarOut::new(out);
    contents.write(source, format, &mut out)?;
    out.finish()
}

/// Write images as an OCI layout into a directory, which is made when it is not there. Images that are in it already
/// stay; names move.
///
/// # Errors
/// When an image cannot be read or the directory not be written.
pub fn write_dir(source: &dyn Source, members: &[Member], path: &Path) -> Result<(), Error> {
    let contents = Contents::gather(source, members)?;
    let mut out = DirOut::new(path)?;
    contents.write(source, Format::OciDir, &mut out)?;
    out.finish()
}
