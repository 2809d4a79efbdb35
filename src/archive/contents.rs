//! What an archive holds: documents, layers and the tables of contents.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::out::Out;
use super::{Error, Format, Member};
use crate::image::{Source, select_platform};
use crate::layer::VerifiedReader;
use crate::oci::{Descriptor, Digest, Index, Manifest, Parsed, Platform, Reference, digest_of, media_type};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Everything that goes into an archive, in order.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Blobs, each once: documents first, so that a reader knows early what will come.
    documents: Vec<Descriptor>,
    layers: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
    /// One for each name, or one for an image without.
    names: Vec<(Option<Reference>, Descriptor)>,
    /// What docker's table of contents lists.
    images: Vec<(Vec<Reference>, Manifest)>,
}

impl Contents {
    pub(super) fn gather(source: &dyn Source, members: &[Member]) -> Result<Self, Error> {
        let mut contents = Self::default();
        for member in members {
            let manifest = contents.take(source, &member.target)?;
            if member.names.is_empty() {
                contents.names.push((None, member.target.clone()));
            }
            for name in &member.names {
                contents.names.push((Some(name.clone()), member.target.clone()));
            }
            if let Some(manifest) = manifest {
                contents.images.push((member.names.clone(), manifest));
            }
        }
        Ok(contents)
    }

    /// Take in a manifest and what it names, or an index and the images of it that are there. The manifest that docker
    /// would show comes back.
    fn take(&mut self, source: &dyn Source, target: &Descriptor) -> Result<Option<Manifest>, Error> {
        let raw = source
            .manifest(target)
            .map_err(|source| Error::Source { what: format!("the manifest {}", target.digest()), source })?;
        self.add(target, false)?;
        match raw.parse()? {
            Parsed::Manifest(manifest) => {
                self.add(manifest.config(), false)?;
                for layer in manifest.layers() {
                    self.add(layer, true)?;
                }
                Ok(Some(*manifest))
            }
            Parsed::Index(index) => self.take_index(source, &index),
        }
    }

    fn take_index(&mut self, source: &dyn Source, index: &Index) -> Result<Option<Manifest>, Error> {
        let shown = select_platform(index, &Platform::host()).ok().map(|d| d.digest().to_string());
        let mut chosen = None;
        for child in index.manifests() {
            if media_type::is_index(child.media_type().as_ref()) || source.manifest(child).is_err() {
                continue; // not here: only some platforms were pulled
            }
            let manifest = self.take(source, child)?;
            if chosen.is_none() || shown.as_deref() == Some(child.digest().as_ref()) {
                chosen = manifest;
            }
        }
        Ok(chosen)
    }

    fn add(&mut self, descriptor: &Descriptor, layer: bool) -> Result<(), Error> {
        if self.seen.insert(digest_of(descriptor)?) {
            let list = if layer { &mut self.layers } else { &mut self.documents };
            list.push(descriptor.clone());
        }
        Ok(())
    }

    pub(super) fn write(&self, source: &dyn Source, format: Format, out: &mut dyn Out) -> Result<(), Error> {
        out.dir("blobs")?;
        let algorithms: BTreeSet<&str> = self.seen.iter().map(Digest::algorithm).collect();
        for algorithm in algorithms {
            out.dir(&format!("blobs/{algorithm}"))?;
        }
        document(out, "oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        // In a tar the tables come first, so that it can be loaded as it streams by; in a directory last, as they name
        // what must be there.
        if format != Format::OciDir {
            self.write_tables(format, out)?;
        }
        for blob in self.documents.iter().chain(&self.layers) {
            write_blob(source, blob, out)?;
        }
        if format == Format::OciDir { self.write_tables(format, out) } else { Ok(()) }
    }

    fn write_tables(&self, format: Format, out: &mut dyn Out) -> Result<(), Error> {
        if format == Format::DockerArchive {
            document(out, "manifest.json", &self.docker_table()?)?;
        }
        let old = out.before("index.json")?;
        let old = old.map(|bytes| serde_json::from_slice::<Value>(&bytes));
        let old = old
            .transpose()
            .map_err(|source| Error::Json { path: "index.json".into(), source })?
            .and_then(|old| old["manifests"].as_array().cloned())
            .unwrap_or_default();
        let new: Vec<Value> = self.names.iter().map(|(name, target)| entry(format, name, target)).collect();
        let kept = old.into_iter().filter(|old| {
            let name = &old["annotations"][REF_NAME];
            !new.iter().any(|new| new == old || (name.is_string() && new["annotations"][REF_NAME] == *name))
        });
        let manifests: Vec<Value> = kept.chain(new.iter().cloned()).collect();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": manifests,
        });
        document(out, "index.json", &index)
    }

    /// `manifest.json` (moby `image/spec`, "Combined Image JSON + Filesystem Changeset Format").
    fn docker_table(&self) -> Result<Value, Error> {
        let mut images = Vec::new();
        for (names, manifest) in &self.images {
            let layers = manifest.layers().iter().map(path_of).collect::<Result<Vec<_>, Error>>()?;
            images.push(json!({
                "Config": path_of(manifest.config())?,
                "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Layers": layers,
            }));
        }
        Ok(Value::Array(images))
    }
}

/// A descriptor of `index.json`. docker's readers take the full name from containerd's annotation and expect a tag in
/// the OCI one; readers of plain OCI layouts know only that, and find images by whatever it holds.
fn entry(format: Format, name: &Option<Reference>, target: &Descriptor) -> Value {
    let mut entry = json!({
        "mediaType": target.media_type().to_string(),
        "digest": target.digest().to_string(),
        "size": target.size(),
    });
    if let Some(name) = name {
        let annotations = match format {
            Format::DockerArchive => json!({
                CONTAINERD_NAME: name.to_string(),
                REF_NAME: name.tag().unwrap_or_default(),
            }),
            _ => json!({ REF_NAME: name.to_string() }),
        };
        entry["annotations"] = annotations;
    }
    entry
}

fn path_of(descriptor: &Descriptor) -> Result<String, Error> {
    let digest = digest_of(descriptor)?;
    Ok(format!("blobs/{}/{}", digest.algorithm(), digest.hex()))
}

fn document(out: &mut dyn Out, path: &str, value: &Value) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::Json { path: path.into(), source })?;
    out.file(path, bytes.len() as u64, &mut bytes.as_slice())
}

fn write_blob(source: &dyn Source, descriptor: &Descriptor, out: &mut dyn Out) -> Result<(), Error> {
    let (path, digest) = (path_of(descriptor)?, digest_of(descriptor)?);
    if out.has(&path, descriptor.size()) {
        return Ok(());
    }
    let (_, stream) = source
        .raw_blob(descriptor, 0)
        .map_err(|source| Error::Source { what: format!("blob {digest}"), source })?;
    let stream = std::io::BufReader::with_capacity(256 << 10, stream);
    out.file(&path, descriptor.size(), &mut VerifiedReader::new(stream, digest, descriptor.size()))
}
