//! What an index holds, from wherever it is: the store, or the registries that its images were named in.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use super::found::origins;
use super::{Error, read};
use crate::context::Context;
use crate::image::{BoxError, IndexDraft, Member, Reporter, Source};
use crate::oci::{Descriptor, Digest, Parsed, RawManifest, Reference, digest_of};
use crate::ops::remote::RemoteOptions;
use crate::registry::{Action, Client};
use crate::storage::{ImageRecord, Store};

/// An index and everything in it, as a source.
pub struct Content<'a> {
    root: RawManifest,
    store: Option<&'a Store>,
    /// One client for each repository.
    clients: Vec<(Reference, Client<'a>)>,
    /// Manifests of registries, with the client that has them.
    manifests: HashMap<Digest, RawManifest>,
    /// Which client has which blob.
    blobs: HashMap<Digest, usize>,
}

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("root", &self.root.digest).finish_non_exhaustive()
    }
}

impl<'a> Content<'a> {
    /// An index alone.
    #[must_use]
    pub fn bare(root: RawManifest, store: Option<&'a Store>) -> Self {
        Self { root, store, clients: Vec::new(), manifests: HashMap::new(), blobs: HashMap::new() }
    }

    /// Find everything that an index names: in the store, else where `origins` says.
    ///
    /// # Errors
    /// [`Error::Lost`] when an image is in neither; when a registry cannot be asked.
    pub fn open(
        cx: &Context,
        (root, index): (RawManifest, &IndexDraft),
        store: Option<&'a Store>,
        origins: &BTreeMap<Digest, Reference>,
        remote: &RemoteOptions,
        report: &'a dyn Reporter,
    ) -> Result<Self, Error> {
        let mut content = Self::bare(root, store);
        for member in index.members() {
            content.find(cx, member, origins, remote, report)?;
        }
        Ok(content)
    }

    /// Find everything that an index of the store names, or the one image that is `wanted` of it.
    ///
    /// # Errors
    /// As [`Content::open`].
    pub fn of_record(
        cx: &Context,
        store: &'a Store,
        record: &ImageRecord,
        wanted: Option<&Descriptor>,
        remote: &RemoteOptions,
        report: &'a dyn Reporter,
    ) -> Result<Self, Error> {
        let index = read(store, record)?;
        let origins = origins(store, record, &index);
        let mut content = Self::bare(store.raw_document(record)?, Some(store));
        let wanted = wanted.map(|wanted| wanted.digest().to_string());
        for member in index.members() {
            if wanted.as_ref().is_none_or(|wanted| wanted == member.digest.as_str()) {
                content.find(cx, member, &origins, remote, report)?;
            }
        }
        Ok(content)
    }

    fn find(
        &mut self,
        cx: &Context,
        member: &Member,
        origins: &BTreeMap<Digest, Reference>,
        remote: &RemoteOptions,
        report: &'a dyn Reporter,
    ) -> Result<(), Error> {
        if self.store.is_some_and(|store| store.has_manifest(&member.descriptor())) {
            return Ok(());
        }
        let origin = origins.get(&member.digest).ok_or_else(|| Error::Lost {
            image: self.root.digest.to_string(),
            digest: member.digest.clone(),
        })?;
        let failed = |source: BoxError| Error::Read { image: origin.to_string(), source };
        let client = self.client(cx, origin, remote, report).map_err(failed)?;
        self.ask(client, member).map_err(failed)
    }

    /// The index.
    #[must_use]
    pub fn target(&self) -> Descriptor {
        self.root.descriptor()
    }

    /// The client of a repository.
    fn client(
        &mut self,
        cx: &Context,
        origin: &Reference,
        remote: &RemoteOptions,
        report: &'a dyn Reporter,
    ) -> Result<usize, BoxError> {
        let same = |known: &Reference| {
            (known.registry(), known.repository()) == (origin.registry(), origin.repository())
        };
        if let Some(known) = self.clients.iter().position(|(known, _)| same(known)) {
            return Ok(known);
        }
        let client = Client::new(&remote.settings(cx), origin, Action::Pull, report)?;
        self.clients.push((origin.clone(), client));
        Ok(self.clients.len() - 1)
    }

    /// Fetch the manifest of an image, and note whose its blobs are.
    fn ask(&mut self, client: usize, member: &Member) -> Result<(), BoxError> {
        let raw = self.clients[client].1.manifest(&member.descriptor())?;
        if let Parsed::Manifest(manifest) = raw.parse()? {
            for blob in manifest.layers().iter().chain([manifest.config()]) {
                self.blobs.insert(digest_of(blob)?, client);
            }
        }
        self.manifests.insert(raw.digest.clone(), raw);
        Ok(())
    }

    /// Which repositories of a registry hold which blobs, so that another one of it can take them over.
    #[must_use]
    pub fn mounts(&self, to: &Reference) -> HashMap<Digest, String> {
        let usable =
            |from: &Reference| from.registry() == to.registry() && from.repository() != to.repository();
        let of = |(digest, client): (&Digest, &usize)| {
            let from = &self.clients[*client].0;
            usable(from).then(|| (digest.clone(), from.repository().to_owned()))
        };
        self.blobs.iter().filter_map(of).collect()
    }
}

impl Source for Content<'_> {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, BoxError> {
        Ok(self.root.descriptor())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        let digest = digest_of(descriptor)?;
        if digest == self.root.digest {
            return Ok(self.root.clone());
        }
        match (self.manifests.get(&digest), self.store) {
            (Some(raw), _) => Ok(raw.clone()),
            (None, Some(store)) => Source::manifest(store, descriptor),
            (None, None) => Err(format!("manifest {digest} is not known").into()),
        }
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(()) // each image was let in when it was added
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        let digest = digest_of(descriptor)?;
        let here = match self.store {
            Some(store) => Store::has_blob(store, &digest, descriptor.size())?,
            None => false,
        };
        match (self.blobs.get(&digest), self.store) {
            (_, Some(store)) if here => store.raw_blob(descriptor, offset),
            (Some(client), _) => self.clients[*client].1.raw_blob(descriptor, offset),
            (None, Some(store)) => store.raw_blob(descriptor, offset),
            (None, None) => Err(format!("blob {digest} is not known").into()),
        }
    }
}
