//! Opening the places that images are copied between: each transport as a source and as a sink.

use super::remote::RemoteOptions;
use super::store;
use crate::context::Context;
use crate::image::{BoxError, Location, LocationError, Platforms, Reporter, Sink, Source, What};
use crate::oci::{Descriptor, Digest, ManifestError, Parsed, RawManifest, Reference};
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
    /// A transport that is coming.
    #[error("`{0}`: this transport is not supported yet")]
    NotYet(String),
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
    pub source: Box<dyn Source + 'r>,
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
                let target = client
                    .resolve(reference)
                    .map_err(|source| Error::Read { place: place.clone(), source })?;
                Ok(Self { place, source: Box::new(client), target, reference: Some(reference.clone()) })
            }
            Location::Store(name) => {
                let store = store::read(cx)?;
                let record = store.find_image(name)?;
                Ok(Self { place, source: Box::new(store), target: record.target, reference: None })
            }
            _ => return Err(Error::NotYet(place)),
        }
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
                let store = storage::Store::open_writable(&cx.root, cx.abilities())?;
                store.settle()?;
                Kind::Store(Box::new(store), name)
            }
            _ => return Err(Error::NotYet(place)),
        };
        Ok(Self { place, kind })
    }

    /// What to take of an index: only the store keeps the index beside the one image that was chosen from it.
    #[must_use]
    pub fn platforms(&self, wanted: &Platforms) -> Platforms {
        match (wanted, &self.kind) {
            (Platforms::Best(platform), Kind::Registry(..)) => Platforms::Alone(platform.clone()),
            _ => wanted.clone(),
        }
    }

    /// Where bytes go.
    #[must_use]
    pub fn sink(&self) -> &dyn Sink {
        match &self.kind {
            Kind::Registry(client, _) => client.as_ref(),
            Kind::Store(store, _) => store.as_ref(),
        }
    }

    /// Further names at the destination, from what a user gave as tags: a tag, or a whole reference.
    ///
    /// # Errors
    /// When one is no tag, or names another repository of a registry.
    pub fn tags(&self, texts: &[String]) -> Result<Vec<Reference>, Error> {
        let (Kind::Registry(_, own) | Kind::Store(_, own)) = &self.kind;
        let mut tags = Vec::with_capacity(texts.len());
        for text in texts {
            let tag = match own.with_tag(text) {
                Ok(tag) => tag,
                Err(_) => Reference::parse(text).map_err(LocationError::from)?,
            };
            let same = (tag.registry(), tag.repository()) == (own.registry(), own.repository());
            if !same && matches!(self.kind, Kind::Registry(..)) {
                return Err(Error::OtherRepository { tag: text.clone(), place: self.place.clone() });
            }
            tags.push(tag);
        }
        Ok(tags)
    }

    /// Name what was written, and with `tags` too: the commit point.
    ///
    /// # Errors
    /// When a name cannot be moved.
    pub fn finish(self, target: &Descriptor, tags: &[Reference]) -> Result<(), BoxError> {
        match self.kind {
            Kind::Registry(client, name) => {
                client.set_name(&name, target)?;
                for tag in tags {
                    client.set_name(tag, target)?;
                }
            }
            Kind::Store(store, name) => {
                store.set_name(&name, target)?;
                for tag in tags {
                    store.set_name(tag, target)?;
                }
            }
        }
        Ok(())
    }

    /// The digest that the destination's own name demands.
    #[must_use]
    pub fn demanded_digest(&self) -> Option<&Digest> {
        match &self.kind {
            Kind::Registry(_, name) | Kind::Store(_, name) => name.digest(),
        }
    }
}
