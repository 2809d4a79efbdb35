//! What an index holds, from wherever it is: the store, or the registries that its images were named in.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use super::found::origins;
use super::{Error, read};
use crate::context::Context;
use crate::image::{
    BoxError, Copied, IndexDraft, Member, Patience, Platforms, Reporter, Selection, Sink, Source,
    StreamFailure, What, copy,
};
use crate::oci::{Descriptor, Digest, Parsed, RawManifest, Reference, digest_of};
use crate::ops::pull::JOBS;
use crate::ops::remote::{RemoteOptions, inner};
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
    /// The images to send before the index: those that the destination's own repository does not have already.
    to_send: Vec<Descriptor>,
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
        Self {
            root,
            store,
            clients: Vec::new(),
            manifests: HashMap::new(),
            blobs: HashMap::new(),
            to_send: Vec::new(),
        }
    }

    /// Find everything that an index names: in the store, else where `origins` says. What is in the repository that it
    /// is meant for already, `to`, need not be found.
    ///
    /// # Errors
    /// [`Error::Lost`] when an image is in neither; when a registry cannot be asked.
    pub fn open(
        cx: &Context,
        (root, index): (RawManifest, &IndexDraft),
        store: Option<&'a Store>,
        (origins, to): (&BTreeMap<Digest, Reference>, Option<&Reference>),
        remote: &RemoteOptions,
        report: &'a dyn Reporter,
    ) -> Result<Self, Error> {
        let mut content = Self::bare(root, store);
        for member in index.members() {
            let origin = origins.get(&member.digest);
            let there = origin.is_some_and(|origin| to.is_some_and(|to| same_repository(origin, to)));
            if there && member.digest != content.root.digest {
                continue;
            }
            content.to_send.push(member.descriptor());
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
        self.ask(client, origin, member).map_err(failed)
    }

    /// The index.
    #[must_use]
    pub fn target(&self) -> Descriptor {
        self.root.descriptor()
    }

    /// The document.
    #[must_use]
    pub fn root(&self) -> &RawManifest {
        &self.root
    }

    /// The client of a repository.
    fn client(
        &mut self,
        cx: &Context,
        origin: &Reference,
        remote: &RemoteOptions,
        report: &'a dyn Reporter,
    ) -> Result<usize, BoxError> {
        if let Some(known) = self.clients.iter().position(|(known, _)| same_repository(known, origin)) {
            return Ok(known);
        }
        let client = Client::new(&remote.settings(cx), origin, Action::Pull, report)?;
        self.clients.push((origin.clone(), client));
        Ok(self.clients.len() - 1)
    }

    /// Fetch the manifest of an image, and note whose its blobs are.
    ///
    /// An index of the store may never have been let in with all that it names: it was kept beside one signed image, or
    /// comes from a file. So what its registry has of it is let in here, by its own signature or that of the index.
    /// Without a store, the caller has just let in each image itself.
    fn ask(&mut self, client: usize, origin: &Reference, member: &Member) -> Result<(), BoxError> {
        let source = &self.clients[client].1;
        let raw = source.manifest(&member.descriptor())?;
        if self.store.is_some() {
            source.admit(Some(origin), &[&self.root, &raw])?;
        }
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

    /// Send the images, then the index, and give it a name when all is there.
    ///
    /// # Errors
    /// When a place fails; the name is then as it was.
    pub fn send(
        &self,
        to: &dyn Sink,
        (label, name): (&str, Option<&Reference>),
        report: &dyn Reporter,
    ) -> Result<Copied, BoxError> {
        let root = [(self.root.descriptor(), Platforms::IndexOnly)];
        let images = self.to_send.iter().map(|image| (image.clone(), Platforms::All));
        let mut sent: Option<Copied> = None;
        for (target, platforms) in images.chain(root) {
            let name = name.filter(|_| platforms == Platforms::IndexOnly).cloned();
            let from = What::Found { label: label.to_owned(), target };
            let selection = Selection { from, to: name, platforms, jobs: JOBS };
            let copied = copy(self, to, &selection, report).map_err(inner)?;
            let before = sent.take();
            let sent = sent.insert(copied);
            if let Some(before) = before {
                sent.moved.extend(before.moved);
                sent.reused.extend(before.reused);
            }
        }
        sent.ok_or_else(|| "nothing was sent".into())
    }
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    (one.registry(), one.repository()) == (other.registry(), other.repository())
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
        Ok(()) // what is in the store was let in, and `ask` lets in the rest
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

    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        let digest = digest_of(descriptor)?;
        let known = digest == self.root.digest || self.manifests.contains_key(&digest);
        Ok(known || self.store.is_some_and(|store| store.has_manifest(descriptor)))
    }

    fn patience(&self) -> Patience {
        self.clients.first().map_or_else(Patience::default, |(_, client)| client.patience())
    }

    fn blob_failed(&self, descriptor: &Descriptor, how: StreamFailure) -> bool {
        let client = digest_of(descriptor).ok().and_then(|digest| self.blobs.get(&digest).copied());
        client.is_some_and(|client| self.clients[client].1.blob_failed(descriptor, how))
    }
}
