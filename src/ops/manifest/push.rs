//! `manifest push`: every image of an index, from wherever it is, and the index last.

use super::{Content, Error, Out, find, found, name_of, read};
use crate::context::Context;
use crate::image::{BoxError, Location};
use crate::oci::{Digest, Reference, digest_of};
use crate::ops::remote::{RemoteOptions, mount_sources, remember};
use crate::ops::store;
use crate::ops::transport::{Input, Output};
use crate::registry::{Action, Client};
use crate::storage::{Removed, Store};

/// The type of the list that is sent. The images in it stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI index.
    Oci,
    /// Docker manifest list.
    Docker,
}

/// `manifest push`
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The index.
    pub index: String,
    /// Where to: a name or a location. Without it, the index's own name.
    pub destination: Option<String>,
    /// With the images; else the index alone.
    pub all: bool,
    /// As this type; else as it is.
    pub format: Option<Format>,
    /// Remove the index here afterwards.
    pub purge: bool,
    /// Registry options of the destination.
    pub remote: RemoteOptions,
}

/// An index that was sent.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Where it is.
    pub place: String,
    /// Its digest there.
    pub digest: Digest,
    /// What was removed here.
    pub removed: Vec<Removed>,
}

/// Send an index.
///
/// # Errors
/// See [`Error`]. The name at the destination is then as it was.
pub fn push(cx: &Context, request: &PushRequest, out: &Out<'_>) -> Result<Pushed, Error> {
    let store = store::read(cx)?;
    let record = find(&store, &request.index)?;
    let label = record.label();
    let location = match &request.destination {
        Some(text) if Location::is_meant(text) => {
            Location::parse(text).map_err(crate::ops::transport::Error::from)?
        }
        Some(text) => Location::Registry(Reference::parse(text)?),
        None => Location::Registry(name_of(&record)?),
    };
    let index = read(&store, &record)?;
    let raw = match request.format {
        None => Ok(store.raw_document(&record)?),
        Some(Format::Oci) => index.clone().into_oci().to_raw(),
        Some(Format::Docker) => index.clone().into_docker().and_then(|index| index.to_raw()),
    };
    let raw = raw.map_err(|source| Error::Draft { index: label.clone(), source })?;
    // A login that was given is the destination's, and is not shown to other registries.
    let elsewhere = RemoteOptions { creds: None, registry_token: None, ..request.remote.clone() };
    let content = if request.all {
        let origins = found::origins(&store, &record, &index);
        let to = match &location {
            Location::Registry(name) => Some(name),
            _ => None,
        };
        Content::open(cx, (raw.clone(), &index), Some(&store), (&origins, to), &elsewhere, out.report)?
    } else {
        Content::bare(raw.clone(), Some(&store))
    };
    let sending = Sending { cx, store: &store, request, label: &label, out };
    let digest = sending.send(content, &location)?;
    drop(store);
    let removed = match request.purge {
        true => super::writable(cx, out)?.remove_image(&request.index, false)?,
        false => Vec::new(),
    };
    Ok(Pushed { place: location.to_string(), digest, removed })
}

struct Sending<'a> {
    cx: &'a Context,
    store: &'a Store,
    request: &'a PushRequest,
    label: &'a str,
    out: &'a Out<'a>,
}

impl Sending<'_> {
    fn send(&self, content: Content<'_>, location: &Location) -> Result<Digest, Error> {
        let (cx, remote, report) = (self.cx, &self.request.remote, self.out.report);
        let target = content.target();
        let copied = if let Location::Registry(name) = location {
            let client = Client::new(&remote.settings(cx), name, Action::Push, report);
            let client = client.map_err(|error| self.failed(error.into()))?;
            let mounts = content.mounts(name);
            let known = mount_sources(self.store, name);
            let client = client.with_mounts(move |digest| match mounts.get(digest) {
                Some(repository) => vec![repository.clone()],
                None => known(digest),
            });
            let copied = content.send(&client, (self.label, Some(name)), report);
            let copied = copied.map_err(|error| self.failed(error))?;
            remember(self.store, name, &copied);
            copied
        } else {
            let place = self.label.to_owned();
            let nothing = Content::bare(content.root().clone(), None);
            let input = Input { place, source: std::sync::Arc::new(nothing), target, reference: None };
            let output = Output::open(cx, location, &input, remote, report)?;
            let copied = content
                .send(output.sink(), (self.label, None), report)
                .map_err(|error| self.failed(error))?;
            output.finish(&copied.target, &[]).map_err(|error| self.failed(error))?;
            copied
        };
        digest_of(&copied.target).map_err(|error| self.failed(error.into()))
    }

    fn failed(&self, source: BoxError) -> Error {
        Error::Push { index: self.label.to_owned(), source }
    }
}
