//! Docker's archives without manifests (moby `image/spec`, "Combined Image JSON + Filesystem Changeset Format"): a table
//! names configs and the tars of layers.
//!
//! A manifest is made for an image when it is asked for. A layer that is compressed already (ggcr and kaniko write such)
//! stays as it is; a plain one is compressed into an unnamed file, once, and hashed on the way. Each is checked against
//! the diff id in the config before anything names it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::image::ImageManifestBuilder;
use serde::Deserialize;

use super::blob::layer_error;
use super::decompress::decompressed;
use super::files::{Files, Opened, normal, read_small};
use super::reader::{At, ImageEntry};
use super::{Error, MAX_DOCUMENT};
use crate::layer::{self, Compression, HashingReader, HashingWriter, decompressor, gzip_writer};
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, RawManifest, Reference, descriptor, media_type};

/// The most layers of an image, and images of an archive.
const MAX_LAYERS: usize = 1024;
const MAX_IMAGES: usize = 10_000;
/// Bytes copied at once.
const CHUNK: usize = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An archive in the old form.
#[derive(Debug)]
pub(super) struct Old {
    path: PathBuf,
    scratch: PathBuf,
    items: Vec<Item>,
    made: Mutex<Made>,
}

/// What has been made so far.
#[derive(Debug, Default)]
struct Made {
    images: BTreeMap<usize, Descriptor>,
    layers: HashMap<String, (Descriptor, DiffId)>,
    blobs: HashMap<Digest, Blob>,
    /// The compressed layers, one after the other, and where they end.
    kept: Option<(Arc<File>, u64)>,
}

/// Where the bytes of a digest are.
#[derive(Debug, Clone)]
enum Blob {
    Bytes(Arc<[u8]>),
    /// In the unnamed file.
    Kept {
        file: Arc<File>,
        offset: u64,
        size: u64,
    },
    /// In the archive, as they are.
    File {
        name: String,
    },
}

impl Old {
    pub(super) fn new(path: &Path, table: &[u8], scratch: &Path) -> Result<Self, Error> {
        let json = |source| Error::Json { path: path.join("manifest.json"), source };
        let items: Vec<Item> = serde_json::from_slice(table).map_err(json)?;
        let limit = |what| Err(Error::Limit { path: path.to_owned(), what });
        if items.len() > MAX_IMAGES {
            return limit(format!("it holds more than {MAX_IMAGES} images"));
        }
        if items.iter().any(|item| item.layers.as_ref().is_some_and(|layers| layers.len() > MAX_LAYERS)) {
            return limit(format!("an image of it has more than {MAX_LAYERS} layers"));
        }
        Ok(Self { path: path.to_owned(), scratch: scratch.to_owned(), items, made: Mutex::default() })
    }

    pub(super) fn images(&self) -> Vec<ImageEntry> {
        let image = |(n, item): (usize, &Item)| {
            let labels = item.repo_tags.clone().unwrap_or_default();
            let names = labels.iter().filter_map(|label| Reference::parse(label).ok());
            let names = names.filter(|name| name.tag().is_some()).collect();
            ImageEntry { names, labels, platform: None, at: At::Made(n) }
        };
        self.items.iter().enumerate().map(image).collect()
    }

    /// The manifest of the nth image.
    pub(super) fn make(&self, n: usize, files: &dyn Files) -> Result<Descriptor, Error> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = made.images.get(&n) {
            return Ok(target.clone());
        }
        let Some(item) = self.items.get(n) else { return Err(self.missing(&format!("@{n}"))) };
        let config_name = self.named(&item.config)?;
        let bytes = read_small(files, &self.path, &config_name, MAX_DOCUMENT)?
            .ok_or_else(|| self.missing(&config_name))?;
        let config: ImageConfig = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { path: self.path.join(&config_name), source })?;
        let names = item.layers.as_deref().unwrap_or_default();
        if names.len() != config.rootfs.diff_ids.len() {
            let found = config.rootfs.diff_ids.len();
            let what = format!("lists {found} layers, the table {}", names.len());
            return Err(self.unusable(&config_name, what));
        }
        let mut layers = Vec::with_capacity(names.len());
        for (name, diff_id) in names.iter().zip(&config.rootfs.diff_ids) {
            layers.push(self.layer(&mut made, &self.named(name)?, diff_id, files)?);
        }
        let target = made.finish(&bytes, layers)?;
        made.images.insert(n, target.clone());
        Ok(target)
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).blobs.contains_key(digest)
    }

    pub(super) fn blob(&self, digest: &Digest, offset: u64, files: &dyn Files) -> Result<Opened, Error> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = made.blobs.get(digest).cloned();
        drop(made);
        match blob {
            Some(Blob::Bytes(bytes)) => {
                let offset = offset.min(bytes.len() as u64);
                let mut cursor = io::Cursor::new(bytes);
                cursor.set_position(offset);
                Ok((offset, Box::new(cursor)))
            }
            Some(Blob::Kept { file, offset: start, size }) => {
                let offset = offset.min(size);
                Ok((offset, Box::new(Slice { file, at: start + offset, end: start + size })))
            }
            Some(Blob::File { name }) => {
                let (size, stream) = files.open(&name, offset)?.ok_or_else(|| self.missing(&name))?;
                Ok((offset.min(size), stream))
            }
            None => Err(self.missing(digest.as_str())),
        }
    }

    /// A layer's blob, made or found, checked against the diff id.
    fn layer(
        &self,
        made: &mut Made,
        name: &str,
        diff_id: &DiffId,
        files: &dyn Files,
    ) -> Result<Descriptor, Error> {
        if !made.layers.contains_key(name) {
            let (_, stream) = files.open(name, 0)?.ok_or_else(|| self.missing(name))?;
            let found = self.take(made, name, stream)?;
            made.layers.insert(name.to_owned(), found);
        }
        let (blob, found) = &made.layers[name];
        if found == diff_id {
            return Ok(blob.clone());
        }
        let source = layer::Error::Digest { expected: diff_id.0.clone(), found: found.0.clone() };
        Err(Error::Corrupt { path: self.path.clone(), file: name.to_owned(), source })
    }

    fn take(
        &self,
        made: &mut Made,
        name: &str,
        stream: Box<dyn Read + Send>,
    ) -> Result<(Descriptor, DiffId), Error> {
        let corrupt = |error| Error::Corrupt {
            path: self.path.clone(),
            file: name.to_owned(),
            source: layer_error(error),
        };
        let mut packed = HashingReader::new(stream);
        let mut head = Vec::new();
        Read::by_ref(&mut packed).take(8).read_to_end(&mut head).map_err(corrupt)?;
        let kind = decompressor(Box::new(head.as_slice())).map(|(kind, _)| kind);
        let plain = !matches!(kind, Ok(Compression::Gzip | Compression::Zstd));
        let whole = Box::new(io::Cursor::new(head).chain(&mut packed));
        if plain {
            let (_, tar) = decompressed(whole).map_err(corrupt)?;
            return self.compress(made, tar).map_err(|error| match error {
                Failed::Read(error) => corrupt(error),
                Failed::Write(error) => self.cannot_keep(error),
            });
        }
        let (_, tar) = decompressed(whole).map_err(corrupt)?;
        let mut tar = HashingReader::new(tar);
        io::copy(&mut tar, &mut io::sink()).map_err(corrupt)?;
        let diff_id = DiffId(tar.finish().0);
        io::copy(&mut packed, &mut io::sink()).map_err(corrupt)?;
        let (digest, size) = packed.finish();
        made.blobs.insert(digest.clone(), Blob::File { name: name.to_owned() });
        let media_type = match kind {
            Ok(Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
            _ => media_type::OCI_LAYER_GZIP,
        };
        Ok((descriptor(media_type, &digest, size), diff_id))
    }

    /// A plain tar becomes gzip, at the end of the unnamed file.
    fn compress(
        &self,
        made: &mut Made,
        tar: Box<dyn Read + Send + '_>,
    ) -> Result<(Descriptor, DiffId), Failed> {
        let (file, start) = match &made.kept {
            Some((file, end)) => (Arc::clone(file), *end),
            None => (Arc::new(tempfile::tempfile_in(&self.scratch).map_err(Failed::Write)?), 0),
        };
        let mut out = file.as_ref();
        out.seek(SeekFrom::Start(start)).map_err(Failed::Write)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let mut gzip = gzip_writer(HashingWriter::new(out), threads);
        let mut tar = HashingReader::new(tar);
        let mut buffer = vec![0_u8; CHUNK];
        loop {
            let length = match tar.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failed::Read(error)),
            };
            gzip.write_all(&buffer[..length]).map_err(Failed::Write)?;
        }
        let (_, digest, size) = gzip.finish().map_err(Failed::Write)?.finish();
        let kept = Blob::Kept { file: Arc::clone(&file), offset: start, size };
        made.kept = Some((file, start + size));
        made.blobs.insert(digest.clone(), kept);
        Ok((descriptor(media_type::OCI_LAYER_GZIP, &digest, size), DiffId(tar.finish().0)))
    }

    /// A path that the table names.
    fn named(&self, name: &str) -> Result<String, Error> {
        // What leads up is refused even where it would come back down: nobody honest writes such.
        let up = name.starts_with('/') || name.split('/').any(|part| part == "..");
        normal(name).filter(|_| !up).ok_or_else(|| {
            let what = format!("names `{}`, which is no path inside of the archive", shorten(name));
            self.unusable("manifest.json", what)
        })
    }

    fn missing(&self, file: &str) -> Error {
        Error::Missing { path: self.path.clone(), file: file.to_owned() }
    }

    fn unusable(&self, file: &str, what: String) -> Error {
        Error::Unusable { path: self.path.clone(), file: file.to_owned(), what }
    }

    fn cannot_keep(&self, source: io::Error) -> Error {
        Error::Spool { path: self.path.clone(), scratch: self.scratch.clone(), source }
    }
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

impl Made {
    fn finish(&mut self, config: &[u8], layers: Vec<Descriptor>) -> Result<Descriptor, Error> {
        let id = Digest::sha256(config);
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(media_type::OCI_MANIFEST)
            .config(descriptor(media_type::OCI_CONFIG, &id, config.len() as u64))
            .layers(layers)
            .build()
            .map_err(|error| Error::Source {
                what: "a manifest that was made".into(),
                source: error.into(),
            })?;
        let raw = RawManifest::from_manifest(&manifest)?;
        self.blobs.insert(id, Blob::Bytes(config.into()));
        self.blobs.insert(raw.digest.clone(), Blob::Bytes(raw.bytes.clone().into()));
        Ok(raw.descriptor())
    }
}

/// A part of a file.
struct Slice {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}
