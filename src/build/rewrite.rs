//! New layers made again for an output: other times, another compression.

use std::io::{self, Write};

use super::execute::Made;
use crate::image::NewLayer;
use crate::layer::{self, HashingWriter, VerifiedReader, decompressor, gzip_writer, tar};
use crate::oci::{Descriptor, DiffId, descriptor, digest_of, media_type};
use crate::storage::{self, BlobWriter, Store};

/// Threads that compress.
const THREADS: usize = 2;
/// What `zstd` does without being told.
const ZSTD_LEVEL: i32 = 3;

/// How a layer is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewCompression {
    /// Not at all.
    None,
    /// gzip at a level from 0 to 9; without one as steps are.
    Gzip(Option<u32>),
    /// zstd at a level from 0 to 22.
    Zstd(Option<i32>),
}

/// What to change about layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewriting {
    /// The compression; `None` leaves it.
    pub compression: Option<NewCompression>,
    /// The base's layers are compressed anew as well.
    pub force: bool,
    /// The times of files in the layers of this build, where there is a `SOURCE_DATE_EPOCH`.
    pub times: Times,
}

/// The times of files in layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// As they are.
    #[default]
    Kept,
    /// None later than `SOURCE_DATE_EPOCH`.
    Clamped,
    /// All `SOURCE_DATE_EPOCH`.
    Same,
}

/// Why a layer could not be made again.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The layer cannot be read or written.
    #[error("cannot compress layer {digest} anew")]
    Layer {
        /// The layer.
        digest: String,
        /// Why.
        #[source]
        source: layer::Error,
    },
    /// A layer has an unusable digest.
    #[error("a layer has an unusable digest")]
    Digest(#[from] crate::oci::DigestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Change the layers of what was built as asked. Layers of the base keep their times, and so their diff ids: others
/// have them too.
///
/// # Errors
/// When a layer cannot be read or the new one not be kept.
pub fn rewrite(store: &Store, made: &mut Made, how: &Rewriting) -> Result<(), RewriteError> {
    let limit = made.epoch.filter(|_| how.times != Times::Kept).map(|epoch| (how.times, epoch));
    for layer in &mut made.edit.new_layers {
        if limit.is_some() || differs(&layer.descriptor, how.compression) {
            *layer = again(store, &layer.descriptor, how.compression, limit)?;
        }
    }
    if how.force {
        for layer in &mut made.edit.base_layers {
            if differs(layer, how.compression) {
                *layer = again(store, layer, how.compression, None)?.descriptor;
            }
        }
    }
    Ok(())
}

/// Make one layer again with other times of its files.
///
/// # Errors
/// When it cannot be read or the new one not be kept.
pub fn set_times(store: &Store, layer: NewLayer, times: Times, epoch: i64) -> Result<NewLayer, RewriteError> {
    match times {
        Times::Kept => Ok(layer),
        _ => again(store, &layer.descriptor, None, Some((times, epoch))),
    }
}

/// Whether a layer is compressed in another way than is wanted; a level is taken as another way.
fn differs(layer: &Descriptor, wanted: Option<NewCompression>) -> bool {
    let kind = layer.media_type().to_string();
    match wanted {
        None => false,
        Some(NewCompression::None) => kind.ends_with("gzip") || kind.ends_with("zstd"),
        Some(NewCompression::Gzip(level)) => level.is_some() || !kind.ends_with("gzip"),
        Some(NewCompression::Zstd(level)) => level.is_some() || !kind.ends_with("zstd"),
    }
}

fn again(
    store: &Store,
    old: &Descriptor,
    compression: Option<NewCompression>,
    limit: Option<(Times, i64)>,
) -> Result<NewLayer, RewriteError> {
    let digest = digest_of(old)?;
    let failed = |source| RewriteError::Layer { digest: digest.to_string(), source };
    let io = |operation| move |source| failed(layer::Error::Io { operation, source });
    let blob = VerifiedReader::new(store.open_blob(&digest)?, digest.clone(), old.size());
    let (_, mut tar) = decompressor(Box::new(blob)).map_err(io("read"))?;
    let compression = compression.unwrap_or(NewCompression::Gzip(None));
    let mut out = HashingWriter::new(Encoder::new(store.blob_writer()?, compression).map_err(io("write"))?);
    match limit {
        Some((times, epoch)) => {
            tar::edit(&mut tar, &mut out, &|entry| set_time(entry, times, epoch)).map_err(failed)?;
        }
        None => {
            io::copy(&mut tar, &mut out).map_err(io("copy"))?;
        }
    }
    let (encoder, diff_id, _) = out.finish();
    let blob = encoder.finish().map_err(io("write"))?;
    let kind = match compression {
        NewCompression::None => media_type::OCI_LAYER,
        NewCompression::Gzip(_) => media_type::OCI_LAYER_GZIP,
        NewCompression::Zstd(_) => media_type::OCI_LAYER_ZSTD,
    };
    let published = blob.publish(store, kind)?;
    let new = descriptor(kind, &digest_of(&published)?, published.size());
    Ok(NewLayer { descriptor: new, diff_id: DiffId(diff_id) })
}

fn set_time(entry: &mut tar::Entry, times: Times, epoch: i64) {
    let epoch = tar::Time { seconds: epoch, nanos: 0 };
    entry.mtime = if times == Times::Same { epoch } else { entry.mtime.min(epoch) };
}

/// A compressor whose output depends on its input alone.
enum Encoder {
    None(BlobWriter),
    Gzip(layer::GzipWriter<BlobWriter>),
    GzipAt(flate2::write::GzEncoder<BlobWriter>),
    Zstd(zstd::Encoder<'static, BlobWriter>),
}

impl Encoder {
    fn new(blob: BlobWriter, compression: NewCompression) -> io::Result<Self> {
        Ok(match compression {
            NewCompression::None => Self::None(blob),
            NewCompression::Gzip(None) => Self::Gzip(gzip_writer(blob, THREADS)),
            NewCompression::Gzip(Some(level)) => {
                Self::GzipAt(flate2::write::GzEncoder::new(blob, flate2::Compression::new(level)))
            }
            NewCompression::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(blob, level.unwrap_or(ZSTD_LEVEL))?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn finish(self) -> io::Result<BlobWriter> {
        match self {
            Self::None(blob) => Ok(blob),
            Self::Gzip(encoder) => encoder.finish(),
            Self::GzipAt(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(blob) => blob.write(data),
            Self::Gzip(encoder) => encoder.write(data),
            Self::GzipAt(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(blob) => blob.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::GzipAt(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
