//! Opening the places that images are copied between: each transport as a source and as a sink.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::remote::{self, RemoteOptions};
use super::store;
use crate::archive::{self, Format, Reader, Writer};
use crate::context::Context;
use crate::image::{BoxError, Location, LocationError, Platforms, Reporter, Sink, Source, What};
use crate::oci::{Descriptor, Digest, DigestError, ManifestError, Parsed, RawManifest, Reference};
use crate::registry::{self, Action, Client};
use crate::storage;

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no location.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The registry is not usable by its settings.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// A further tag in another repository.
    #[error("the additional tag `{tag}` is not in the repository of `{place}`")]
    OtherRepository {
        /// The tag.
        tag: String,
        /// The destination.
        place: String,
    },
    /// A docker archive that holds something: it is written whole, never added to.
    #[error("`{0}` exists already, and nothing can be added to a docker archive")]
    ArchiveExists(String),
    /// An archive cannot be used.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The image is not to be had.
    #[error("cannot read `{place}`")]
    Read {
        /// The location.
        place: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The image's documents are unusable.
    #[error("cannot read `{place}`")]
    Manifest {
        /// The location.
        place: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

/// A place that an image is read from, with the image found there.
pub struct Input<'r> {
    /// How messages call it.
    pub place: String,
    /// The place.
    pub source: Arc<dyn Source + 'r>,
    /// The manifest or index that was asked for.
    pub target: Descriptor,
    /// Its name, where it is in a registry.
    pub reference: Option<Reference>,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("place", &self.place)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl<'r> Input<'r> {
    /// Open a location and find its image. Only what this needs is read; a registry is asked for one manifest at most.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(
        cx: &Context,
        location: &Location,
        remote: &RemoteOptions,
        report: &'r dyn Reporter,
    ) -> Result<Self, Error> {
        let place = location.to_string();
        match location {
            Location::Registry(reference) => {
                let client = Client::new(&remote.settings(cx), reference, Action::Pull, report)?;
                Self::of_client(Arc::new(client), reference)
            }
            Location::Store(name) => {
                let store = store::hold(cx)?;
                let record = store.find_image(name)?;
                store.hold(&record)?;
                Ok(Self { place, source: Arc::new(store), target: record.target, reference: None })
            }
            file => {
                let (path, format, name) = parts(file);
                let reader = Reader::open(path, Some(format), &scratch(cx))?;
                let reader = reader.with_gate(remote::gate(cx, location));
                let target = reader.target(reader.find(name)?)?;
                Ok(Self { place, source: Arc::new(reader), target, reference: None })
            }
        }
    }

    /// An image of a repository that is open already.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of_client(client: Arc<Client<'r>>, reference: &Reference) -> Result<Self, Error> {
        let place = Location::Registry(reference.clone()).to_string();
        let target =
            client.resolve(reference).map_err(|source| Error::Read { place: place.clone(), source })?;
        Ok(Self { place, source: client, target, reference: Some(reference.clone()) })
    }

    /// The place names a digest that none is.
    #[must_use]
    pub fn bad_digest(&self, source: DigestError) -> Error {
        Error::Manifest { place: self.place.clone(), source: ManifestError::Digest(source) }
    }

    /// The document that was asked for.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn document(&self) -> Result<RawManifest, Error> {
        self.manifest(&self.target)
    }

    /// A manifest or index of the image.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        let failed = |source| Error::Read { place: self.place.clone(), source };
        self.source.manifest(descriptor).map_err(failed)
    }

    /// What a document says.
    ///
    /// # Errors
    /// When it does not have the shape of its type.
    pub fn parse(&self, raw: &RawManifest) -> Result<Parsed, Error> {
        raw.parse().map_err(|source| Error::Manifest { place: self.place.clone(), source })
    }

    /// What a copy starts from.
    #[must_use]
    pub fn what(&self) -> What {
        // The label is the name that a policy speaks of.
        let label = self.reference.as_ref().map_or_else(|| self.place.clone(), Reference::to_string);
        What::Found { label, target: self.target.clone() }
    }
}

/// A place that an image is written to.
pub struct Output<'r> {
    /// How messages call it.
    pub place: String,
    kind: Kind<'r>,
}

enum Kind<'r> {
    Registry(Box<Client<'r>>, Reference),
    Store(Box<storage::Store>, Reference),
    /// An archive, and what it calls the image.
    Archive(Box<Writer>, Option<String>),
}

/// Another name of what is written.
#[derive(Debug)]
pub enum Name {
    /// A reference.
    Reference(Reference),
    /// What an archive calls an image.
    Label(String),
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<'r> Output<'r> {
    /// Open a location for writing. `from` is what will be written: a registry takes blobs over from another of its
    /// own repositories. Nothing has a name there before [`Output::finish`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(
        cx: &Context,
        location: &Location,
        from: &Input<'_>,
        remote: &RemoteOptions,
        report: &'r dyn Reporter,
    ) -> Result<Self, Error> {
        let place = location.to_string();
        let kind = match location {
            Location::Registry(reference) => {
                let mut client = Client::new(&remote.settings(cx), reference, Action::Push, report)?;
                if let Some(source) = &from.reference
                    && source.registry() == reference.registry()
                    && source.repository() != reference.repository()
                {
                    client = client.with_mount_source(source.repository());
                }
                Kind::Registry(Box::new(client), reference.clone())
            }
            Location::Store(name) => {
                let name = Reference::parse(name).map_err(LocationError::from)?;
                let store = super::store::write_plainly(cx)?;
                store.settle()?;
                Kind::Store(Box::new(store), name)
            }
            file => {
                let (path, format, name) = parts(file);
                if format == Format::DockerArchive && holds_something(path) {
                    return Err(Error::ArchiveExists(place));
                }
                let writer = Writer::create(path, format)?;
                Kind::Archive(Box::new(writer), name.map(|name| full_name(format, name)).transpose()?)
            }
        };
        Ok(Self { place, kind })
    }

    /// What to take of an index: only the store keeps the index beside the one image that was chosen from it.
    #[must_use]
    pub fn platforms(&self, wanted: &Platforms) -> Platforms {
        match (wanted, &self.kind) {
            (Platforms::Best(platform), Kind::Registry(..) | Kind::Archive(..)) => {
                Platforms::Alone(platform.clone())
            }
            _ => wanted.clone(),
        }
    }

    /// Where bytes go.
    #[must_use]
    pub fn sink(&self) -> &dyn Sink {
        match &self.kind {
            Kind::Registry(client, _) => client.as_ref(),
            Kind::Store(store, _) => store.as_ref(),
            Kind::Archive(writer, _) => writer.as_ref(),
        }
    }

    /// How many layers to move at once, when the user wants `jobs`: to a tar they go one after the other.
    #[must_use]
    pub fn jobs(&self, jobs: usize) -> usize {
        match &self.kind {
            Kind::Archive(writer, _) => jobs.min(writer.jobs()),
            _ => jobs,
        }
    }

    /// Further names at the destination, from what a user gave as tags: a tag, or a whole reference.
    ///
    /// # Errors
    /// When one is no tag, or names another repository of a registry.
    pub fn names(&self, texts: &[String]) -> Result<Vec<Name>, Error> {
        texts.iter().map(|text| self.further_name(text)).collect()
    }

    fn further_name(&self, text: &str) -> Result<Name, Error> {
        let (own, is_registry) = match &self.kind {
            Kind::Registry(_, own) => (own, true),
            Kind::Store(_, own) => (own, false),
            Kind::Archive(_, own) => {
                // A tag alone is one of the repository that the image has in the archive.
                let own = own.as_deref().and_then(|own| Reference::parse(own).ok());
                let tag = own.and_then(|own| own.with_tag(text).ok());
                return Ok(Name::Label(tag.map_or_else(|| text.to_owned(), |tag| tag.to_string())));
            }
        };
        let tag = match own.with_tag(text) {
            Ok(tag) => tag,
            Err(_) => Reference::parse(text).map_err(LocationError::from)?,
        };
        let same = (tag.registry(), tag.repository()) == (own.registry(), own.repository());
        if is_registry && !same {
            return Err(Error::OtherRepository { tag: text.to_owned(), place: self.place.clone() });
        }
        Ok(Name::Reference(tag))
    }

    /// Name what was written, by its own name and others: the commit point.
    ///
    /// # Errors
    /// When a name cannot be moved, or an archive not be ended.
    pub fn finish(self, target: &Descriptor, others: &[Name]) -> Result<(), BoxError> {
        let (sink, own): (&dyn Sink, _) = match &self.kind {
            Kind::Registry(client, own) => (client.as_ref(), own),
            Kind::Store(store, own) => (store.as_ref(), own),
            Kind::Archive(..) => return self.finish_archive(target, others),
        };
        sink.set_name(own, target)?;
        for name in others {
            if let Name::Reference(name) = name {
                sink.set_name(name, target)?;
            }
        }
        Ok(())
    }

    fn finish_archive(self, target: &Descriptor, others: &[Name]) -> Result<(), BoxError> {
        let Kind::Archive(writer, own) = self.kind else { return Ok(()) };
        let others = others.iter().filter_map(|name| match name {
            Name::Label(label) => Some(label.as_str()),
            Name::Reference(_) => None,
        });
        let names: Vec<&str> = own.as_deref().into_iter().chain(others).collect();
        if names.is_empty() {
            writer.name(None, target);
        }
        for name in names {
            writer.name(Some(name), target);
        }
        Ok(writer.finish()?)
    }

    /// The digest that the destination's own name demands.
    #[must_use]
    pub fn demanded_digest(&self) -> Option<&Digest> {
        match &self.kind {
            Kind::Registry(_, name) | Kind::Store(_, name) => name.digest(),
            Kind::Archive(..) => None,
        }
    }
}

/// Whether a regular file with something in it has the name. skopeo users know that such a copy fails, so nobody
/// expects what was there to be replaced.
fn holds_something(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
}

/// What an archive or layout calls its images.
///
/// # Errors
/// When it cannot be read.
pub fn labels(cx: &Context, location: &Location) -> Result<Vec<String>, Error> {
    let (path, format, _) = parts(location);
    let reader = Reader::open(path, Some(format), &scratch(cx))?;
    Ok(reader.images().iter().flat_map(|image| image.labels.clone()).collect())
}

/// The path, form and name of a location that is a file or directory.
pub(super) fn parts(location: &Location) -> (&Path, Format, Option<&str>) {
    match location {
        Location::OciDir { path, name } => (path, Format::OciDir, name.as_deref()),
        Location::OciArchive { path, name } => (path, Format::OciArchive, name.as_deref()),
        Location::DockerArchive { path, name } => (path, Format::DockerArchive, name.as_deref()),
        Location::Dir(path) => (path, Format::Dir, None),
        // Never asked for.
        Location::Registry(_) | Location::Store(_) => (Path::new(""), Format::Dir, None),
    }
}

/// What a docker archive calls its images are whole references, as docker reads nothing else; an OCI layout takes any
/// text.
fn full_name(format: Format, name: &str) -> Result<String, Error> {
    if format != Format::DockerArchive {
        return Ok(name.to_owned());
    }
    Ok(Reference::parse(name).map_err(LocationError::from)?.to_string())
}

/// Where archives are kept that cannot be read where they are: no store is needed for that.
pub(super) fn scratch(cx: &Context) -> PathBuf {
    match cx.var("TMPDIR") {
        Some(dir) => cx.cwd.join(dir),
        None if Path::new("/var/tmp").is_dir() => PathBuf::from("/var/tmp"),
        None => PathBuf::from("/tmp"),
    }
}
