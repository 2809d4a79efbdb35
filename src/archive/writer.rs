//! An archive that is written.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::contents::{Contents, LAYOUT, blob_path, directories};
use super::dir_out::DirOut;
use super::tar_out::{Stopped, TarOut};
use super::{Error, Format};
use crate::image::{
    BoxError, Event, LayerPlan, LayerState, Platforms, Reporter, Sink, Source, select_platform,
};
use crate::layer::VerifiedReader;
use crate::oci::{Descriptor, Digest, Index, Parsed, RawManifest, Reference, digest_of};

/// Layers that are written at once where that makes sense.
const JOBS: usize = 3;

/// One image to announce.
#[derive(Debug, Clone)]
pub struct Member {
    /// What the archive will call it. Full references, unless the user has said otherwise.
    pub names: Vec<String>,
    /// Its manifest or index.
    pub target: Descriptor,
}

/// An archive being written: a [`Sink`]. Nothing of it is visible (for a directory: named) before [`Writer::finish`].
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    format: Format,
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Place {
    Tar(Mutex<TarOut>),
    Dir(DirOut),
}

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    /// Blobs that were written.
    seen: BTreeSet<Digest>,
    /// Whether the tables were written first.
    tables: bool,
}

impl Writer {
    /// Begin an archive. `-` is standard output. A regular file is replaced whole at the end; other images in an OCI
    /// layout stay.
    ///
    /// # Errors
    /// When the place cannot be written, or is a directory of something else.
    pub fn create(path: &Path, format: Format) -> Result<Self, Error> {
        let place = match format.is_dir() {
            true => Place::Dir(DirOut::create(path, format)?),
            false => Place::Tar(Mutex::new(TarOut::create(path)?)),
        };
        Ok(Self { path: path.to_owned(), format, place, state: Mutex::default() })
    }

    /// How many layers to write at once: to a tar they go one after the other.
    #[must_use]
    pub fn jobs(&self) -> usize {
        if self.format.is_dir() { JOBS } else { 1 }
    }

    /// Say beforehand what will be copied. A tar then begins with its tables and documents, so that readers can load it
    /// as it streams by. Without this the tables come last. [`Writer::name`] is not needed afterwards.
    ///
    /// # Errors
    /// When the documents cannot be read, or the tar not be written.
    pub fn announce(
        &self,
        source: &dyn Source,
        members: &[Member],
        platforms: &Platforms,
    ) -> Result<(), Error> {
        let mut documents = Vec::new();
        for member in members {
            if !self.format.is_dir() {
                self.gather(source, &member.target, platforms, &mut documents)?;
            }
            let mut state = self.state();
            if member.names.is_empty() {
                state.contents.name(None, &member.target);
            }
            for name in &member.names {
                state.contents.name(Some(name), &member.target);
            }
        }
        let Place::Tar(tar) = &self.place else { return Ok(()) };
        let mut out = tar.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        begin(&mut out, &state)?;
        tables(self.format, &self.path, &mut out, &state)?;
        state.tables = true;
        for (digest, bytes) in documents {
            if state.seen.insert(digest.clone()) {
                out.bytes(&blob_path(&digest), &bytes)?;
            }
        }
        Ok(())
    }

    /// Note a manifest, an index and those of its images that will be copied, and their configs.
    fn gather(
        &self,
        source: &dyn Source,
        target: &Descriptor,
        platforms: &Platforms,
        documents: &mut Vec<(Digest, Vec<u8>)>,
    ) -> Result<(), Error> {
        let failed = |what: String| move |source| Error::Source { what, source };
        let raw = source.manifest(target).map_err(failed(format!("the manifest {}", target.digest())))?;
        self.state().contents.take(&raw)?;
        match raw.parse()? {
            Parsed::Manifest(manifest) => {
                let config = manifest.config();
                let digest = digest_of(config)?;
                let what = format!("the config {digest}");
                let (_, stream) = source.raw_blob(config, 0).map_err(failed(what.clone()))?;
                let small = super::blob::VerifiedSmall { limit: super::MAX_DOCUMENT };
                let bytes = small.read(stream, &digest, config.size());
                documents.push((digest, bytes.map_err(|error| failed(what)(error.into()))?));
            }
            Parsed::Index(index) => {
                for child in chosen(source, &index, platforms)? {
                    // An index in an index is refused by the copy, with its reason.
                    if !crate::oci::media_type::is_index(child.media_type().as_ref()) {
                        self.gather(source, child, platforms, documents)?;
                    }
                }
            }
        }
        documents.push((raw.digest, raw.bytes));
        Ok(())
    }

    /// Call an image by a name, or by none. It must be written already, or be written before the end.
    pub fn name(&self, name: Option<&str>, target: &Descriptor) {
        self.state().contents.name(name, target);
    }

    /// End the archive and put it in its place.
    ///
    /// # Errors
    /// When it cannot be written; what was in its place is untouched then.
    pub fn finish(self) -> Result<(), Error> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (format, path) = (self.format, self.path);
        match self.place {
            Place::Tar(tar) => {
                let mut out = tar.into_inner().unwrap_or_else(PoisonError::into_inner);
                if !state.tables {
                    begin(&mut out, &state)?;
                    tables(format, &path, &mut out, &state)?;
                }
                out.finish()
            }
            Place::Dir(out) if format == Format::Dir => {
                let target = state.contents.only().ok_or(Error::OneImageOnly)?;
                out.finish_dir(&digest_of(target)?, &state.seen)
            }
            Place::Dir(out) => {
                let algorithms = state.seen.iter().map(|digest| digest.algorithm().to_owned()).collect();
                let index = path.join("index.json");
                out.finish_layout(&algorithms, |before| state.contents.index(format, before, &index))
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Write a blob, verified. `Ok(false)` when it is there already.
    fn put(
        &self,
        descriptor: &Descriptor,
        data: &mut dyn Read,
        moved: &mut dyn FnMut(u64),
    ) -> Result<bool, BoxError> {
        let digest = digest_of(descriptor)?;
        let size = descriptor.size();
        let mut verified = VerifiedReader::new(data, digest.clone(), size);
        match &self.place {
            Place::Tar(tar) => {
                let mut out = tar.lock().unwrap_or_else(PoisonError::into_inner);
                if self.state().seen.contains(&digest) {
                    return Ok(false);
                }
                let stopped = out.file(&blob_path(&digest), size, &mut verified, moved);
                stopped.map_err(|stopped| match stopped {
                    Stopped::Read(error) => wrong(error),
                    Stopped::Write(source) => out.failed(source).into(),
                    Stopped::CutOff => Error::CutOff.into(),
                })?;
            }
            Place::Dir(out) => {
                out.blob(&digest, &mut verified, moved).map_err(|error| match error.get_ref() {
                    Some(inner) if inner.is::<crate::layer::Error>() => wrong(error),
                    _ => Error::Write { path: out.blob_path(&digest), source: error }.into(),
                })?
            }
        }
        self.state().seen.insert(digest);
        Ok(true)
    }
}

/// The digest error that a verified stream ended in, as itself.
fn wrong(error: io::Error) -> BoxError {
    match error.downcast::<crate::layer::Error>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

fn begin(out: &mut TarOut, state: &State) -> Result<(), Error> {
    // Directories first, as every tool that unpacks expects; which other algorithms come is not known yet.
    out.dir("blobs")?;
    for algorithm in directories(&state.seen) {
        out.dir(&format!("blobs/{algorithm}"))?;
    }
    out.bytes("oci-layout", LAYOUT.as_bytes())
}

fn tables(format: Format, path: &Path, out: &mut TarOut, state: &State) -> Result<(), Error> {
    if format == Format::DockerArchive {
        out.bytes("manifest.json", &state.contents.docker_table()?)?;
    }
    out.bytes("index.json", &state.contents.index(format, None, path)?)
}

/// The images of an index that a copy with `platforms` takes.
fn chosen<'a>(
    source: &dyn Source,
    index: &'a Index,
    platforms: &Platforms,
) -> Result<Vec<&'a Descriptor>, Error> {
    let failed = |source| Error::Source { what: "an index".into(), source };
    let mut chosen = Vec::new();
    match platforms {
        Platforms::All => chosen.extend(index.manifests()),
        Platforms::Present => {
            for child in index.manifests() {
                if source.has(child).map_err(failed)? {
                    chosen.push(child);
                }
            }
        }
        Platforms::Only(wanted) => {
            for platform in wanted {
                chosen.push(select_platform(index, platform).map_err(|error| failed(error.into()))?);
            }
        }
        Platforms::Best(platform) | Platforms::Alone(platform) => {
            chosen.push(select_platform(index, platform).map_err(|error| failed(error.into()))?);
        }
        Platforms::IndexOnly => {}
    }
    Ok(chosen)
}

impl Sink for Writer {
    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError> {
        let there = self.has_blob(&layer.descriptor)?;
        Ok(if there { LayerState::Complete } else { LayerState::Missing { partial: 0 } })
    }

    fn put_layer(
        &self,
        layer: &LayerPlan,
        offset: u64,
        data: &mut dyn Read,
        report: &dyn Reporter,
    ) -> Result<(), BoxError> {
        if offset != 0 {
            return Err(Error::CutOff.into());
        }
        let digest = digest_of(&layer.descriptor)?;
        let mut moved = |bytes| report.event(Event::Moved { digest: digest.clone(), bytes });
        self.put(&layer.descriptor, data, &mut moved).map(drop)
    }

    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        let digest = digest_of(descriptor)?;
        if self.state().seen.contains(&digest) {
            return Ok(true);
        }
        let Place::Dir(out) = &self.place else { return Ok(false) };
        let there = out.has(&digest, descriptor.size());
        if there {
            self.state().seen.insert(digest);
        }
        Ok(there)
    }

    fn put_blob(&self, descriptor: &Descriptor, mut data: &[u8]) -> Result<(), BoxError> {
        self.put(descriptor, &mut data, &mut |_| ()).map(drop)
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError> {
        match &self.place {
            Place::Tar(_) => {
                if self.format == Format::DockerArchive {
                    self.state().contents.take(manifest)?;
                }
                self.put(&manifest.descriptor(), &mut manifest.bytes.as_slice(), &mut |_| ())?;
            }
            Place::Dir(out) => {
                out.manifest(&manifest.digest, &manifest.bytes)?;
                self.state().seen.insert(manifest.digest.clone());
            }
        }
        Ok(())
    }

    fn set_name(&self, name: &Reference, target: &Descriptor) -> Result<(), BoxError> {
        self.name(Some(&name.to_string()), target);
        Ok(())
    }
}
