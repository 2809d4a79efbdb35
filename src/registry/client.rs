//! A repository at a registry, with its mirrors, as an image source.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::Method;

use super::blob::{BlobReader, Watch};
use super::conf::Registries;
use super::endpoint::{About, ApiRequest, Endpoint};
use super::http::Response;
use super::ranges::{self, FirstPart, Parallel, RangeReader};
use super::retry::with_retries_told;
use super::session::Uploads;
use super::{Error, Settings, limits};
use crate::image::{BoxError, Event, Patience, Reporter, Source, StreamFailure};
use crate::oci::{Descriptor, Digest, RawManifest, Reference, descriptor, digest_of, media_type};

/// What a client is going to do: it decides which rights are asked for and whether mirrors serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read.
    Pull,
    /// Read and write.
    Push,
    /// Read and remove.
    Delete,
}

impl Action {
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "pull,delete",
        }
    }

    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

/// After how many broken streams a mirror is left.
const BREAKS: usize = 2;

/// One repository at a registry and, for pulls, its mirrors: an image source and sink.
pub struct Client<'r> {
    pub(super) settings: Settings,
    /// What it was made for.
    reference: Reference,
    pub(super) report: &'r dyn Reporter,
    /// Mirrors first, the registry itself last.
    endpoints: Vec<Arc<Endpoint>>,
    /// The endpoint that answered last.
    current: AtomicUsize,
    /// Streams of the current endpoint that broke.
    broken: AtomicUsize,
    parallel: Arc<Parallel>,
    /// A manifest that had to be fetched to be resolved.
    fetched: Mutex<Option<RawManifest>>,
    /// What goes the other way.
    pub(super) uploads: Uploads<'r>,
    noted: AtomicBool,
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client {:?}", self.endpoints.iter().map(|endpoint| endpoint.name()).collect::<Vec<_>>())
    }
}

impl<'r> Client<'r> {
    /// A client for the repository of `reference`. Nothing is sent yet. Fallbacks are told to `report`.
    ///
    /// # Errors
    /// When registries.conf is broken or blocks the registry.
    pub fn new(
        settings: &Settings,
        reference: &Reference,
        action: Action,
        report: &'r dyn Reporter,
    ) -> Result<Self, Error> {
        let registries = Registries::load(settings)?;
        for note in &registries.notes {
            report.event(Event::Note(note.clone()));
        }
        let places = registries.places(reference, action)?;
        Ok(Self {
            settings: settings.clone(),
            reference: reference.clone(),
            report,
            endpoints: places.iter().map(|place| Arc::new(Endpoint::new(settings, place, action))).collect(),
            current: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            parallel: Arc::default(),
            fetched: Mutex::default(),
            uploads: Uploads::new(),
            noted: AtomicBool::new(false),
        })
    }

    /// Tell which repositories of the same registry hold a blob, the likeliest first, so that it can be mounted.
    #[must_use]
    pub fn with_mounts(mut self, sources: impl Fn(&Digest) -> Vec<String> + Send + Sync + 'r) -> Self {
        self.uploads.set_sources(sources);
        self
    }

    /// Tell which repository of the same registry holds everything that is going to be written.
    #[must_use]
    pub fn with_mount_source(mut self, repository: impl Into<String>) -> Self {
        self.uploads.set_source(repository.into());
        self
    }

    /// The registry itself.
    pub(super) fn primary(&self) -> &Endpoint {
        &self.endpoints[self.endpoints.len() - 1]
    }

    /// Ask one endpoint after the other, from the one that answered last on.
    pub(super) fn ask<T>(&self, operation: impl Fn(&Arc<Endpoint>) -> Result<T, Error>) -> Result<T, Error> {
        let mut i = self.current.load(Ordering::Relaxed).min(self.endpoints.len() - 1);
        loop {
            let endpoint = &self.endpoints[i];
            let say = |text: String| self.report.event(Event::Note(text));
            let result = with_retries_told(&self.settings, &say, || operation(endpoint));
            self.note(endpoint);
            match result {
                Ok(value) => {
                    self.current.fetch_max(i, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) if i + 1 < self.endpoints.len() && error.lets_fall_back() => {
                    i += 1;
                    let next = &self.endpoints[i].registry;
                    self.report.event(Event::Note(format!(
                        "mirror {} does not serve this: {error}; going on with {next}",
                        endpoint.registry
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Say once what looking for a login found missing.
    pub(super) fn note(&self, endpoint: &Endpoint) {
        if !endpoint.notes().is_empty() && !self.noted.swap(true, Ordering::Relaxed) {
            for note in endpoint.notes() {
                self.report.event(Event::Note(note.clone()));
            }
        }
    }

    pub(super) fn fetch_manifest(&self, endpoint: &Endpoint, selector: &str) -> Result<RawManifest, Error> {
        let path = endpoint.path(&format!("manifests/{selector}"));
        let about = About::Manifest(selector);
        let response = endpoint.send(manifest_request(Method::GET, &path))?;
        if response.status != 200 {
            return Err(endpoint.error(response, &Method::GET, &path, about));
        }
        let said = response.header("content-type").map(str::to_owned);
        let bytes = response.document(limits::MANIFEST_BYTES)?;
        let bytes = bytes.ok_or_else(|| Error::Corrupt {
            registry: endpoint.registry.clone(),
            what: format!("the manifest `{selector}`"),
            expected: "at most 4 MiB".into(),
            found: "more".into(),
        })?;
        if let Ok(expected) = selector.parse::<Digest>() {
            verify(endpoint, "a manifest", &bytes, &expected)?;
        }
        Ok(RawManifest::new(bytes, said.as_deref())?)
    }

    /// HEAD, which costs nothing of Docker Hub's limit; GET where its answer is not enough, and for the error text.
    fn resolve_at(&self, endpoint: &Endpoint, selector: &str) -> Result<Descriptor, Error> {
        let path = endpoint.path(&format!("manifests/{selector}"));
        let response = endpoint.send(manifest_request(Method::HEAD, &path))?;
        if response.status == 200
            && let Some(found) = described(&response)
            // Who asks by digest gets what that digest says, and no other that a header names.
            && selector.parse::<Digest>().map_or(true, |pinned| pinned.as_str() == found.digest().to_string())
        {
            return Ok(found);
        }
        let raw = self.fetch_manifest(endpoint, selector)?;
        let found = raw.descriptor();
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
        Ok(found)
    }

    fn open_blob(
        &self,
        endpoint: &Arc<Endpoint>,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), Error> {
        let path = endpoint.path(&format!("blobs/{digest}"));
        let part = self.parallel.suits(digest, size - offset).then(|| ranges::first_part(offset, size));
        let mut request = ApiRequest::new(Method::GET, path.as_str());
        request.streaming = true;
        if let Some(part) = part {
            request = request.header("range", ranges::range_header(part));
        } else if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let ranged = part.is_some() || offset > 0;
        let response = endpoint.send(request)?;
        let start = match response.status {
            200 => 0,
            206 if ranged && ranges::is_part(&response, offset, part.map(|part| part.1), size) => offset,
            206 | 416 if ranged => {
                // Not the part that was asked for: all of it, then.
                drop(response);
                self.parallel.give_up(digest);
                return self.open_blob(endpoint, digest, size, 0);
            }
            _ => return Err(endpoint.error(response, &Method::GET, &path, About::Blob(digest))),
        };
        let watch = Watch::new(&endpoint.registry, &self.settings);
        if let (Some(part), 206) = (part, response.status) {
            let first = FirstPart::read(response, part, watch, digest);
            if first.suffices() {
                return Ok((start, first.then(|behind| self.rest_of_blob(endpoint, digest, size, behind))));
            }
            let (endpoint, parallel) = (Arc::clone(endpoint), Arc::clone(&self.parallel));
            let reader = RangeReader::start(endpoint, &self.settings, parallel, digest, size, first);
            return Ok((start, Box::new(reader)));
        }
        Ok((start, Box::new(BlobReader::new(response.reader(), watch, digest, start, size))))
    }

    /// A blob from `offset` on, as one stream.
    fn rest_of_blob(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let path = endpoint.path(&format!("blobs/{digest}"));
        let mut request = ApiRequest::new(Method::GET, path.as_str());
        request = request.header("range", format!("bytes={offset}-"));
        request.streaming = true;
        let response = endpoint.send(request)?;
        match response.status {
            206 if ranges::is_part(&response, offset, None, size) => {
                let watch = Watch::new(&endpoint.registry, &self.settings);
                Ok(Box::new(BlobReader::new(response.reader(), watch, digest, offset, size)))
            }
            200 | 206 | 416 => {
                self.parallel.give_up(digest);
                Err(Error::NoParts { registry: endpoint.registry.clone() })
            }
            _ => Err(endpoint.error(response, &Method::GET, &path, About::Blob(digest))),
        }
    }
}

impl Source for Client<'_> {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, BoxError> {
        let selector = reference.selector();
        let found = self.ask(|endpoint| self.resolve_at(endpoint, selector))?;
        if let Some(expected) = reference.digest() {
            // The digest is what was asked for, whatever a header claims; the bytes are verified against it.
            let claimed = found.digest().to_string();
            if expected.algorithm() == "sha256" && claimed != expected.as_str() {
                return Err(Error::Corrupt {
                    registry: reference.registry().to_owned(),
                    what: "a manifest".into(),
                    expected: expected.to_string(),
                    found: super::error::sanitise(&claimed, 200),
                }
                .into());
            }
        }
        Ok(found)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        let digest = digest_of(descriptor)?;
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(raw) = fetched.filter(|raw| raw.digest == digest) {
            return Ok(raw);
        }
        let raw = self.ask(|endpoint| {
            let raw = self.fetch_manifest(endpoint, digest.as_str())?;
            if raw.bytes.len() as u64 == descriptor.size() {
                return Ok(raw);
            }
            Err(Error::Corrupt {
                registry: endpoint.registry.clone(),
                what: "a manifest".into(),
                expected: format!("{} bytes", descriptor.size()),
                found: format!("{} bytes", raw.bytes.len()),
            })
        })?;
        Ok(raw)
    }

    fn admit(&self, name: Option<&Reference>, documents: &[&RawManifest]) -> Result<(), BoxError> {
        // A name of another repository says nothing about what is read here.
        let is_own = |name: &&Reference| {
            name.registry() == self.reference.registry() && name.repository() == self.reference.repository()
        };
        let name = name.filter(is_own).unwrap_or(&self.reference);
        Ok(super::signature::admit(self, name, documents)?)
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        let digest = digest_of(descriptor)?;
        let (size, offset) = (descriptor.size(), offset.min(descriptor.size()));
        Ok(self.ask(|endpoint| self.open_blob(endpoint, &digest, size, offset))?)
    }

    fn patience(&self) -> Patience {
        let tries =
            self.settings.retries.map_or(Patience::default().tries, |retries| retries.saturating_add(1));
        Patience { tries, pause: self.settings.retry_delay }
    }

    fn blob_failed(&self, descriptor: &Descriptor, how: StreamFailure) -> bool {
        let i = self.current.load(Ordering::Relaxed).min(self.endpoints.len() - 1);
        let large = descriptor.size() >= limits::RANGE_FROM;
        if how == StreamFailure::Wrong
            && large
            && digest_of(descriptor).is_ok_and(|digest| self.parallel.give_up(&digest))
        {
            return true;
        }
        let broken = self.broken.fetch_add(1, Ordering::Relaxed) + 1;
        if how == StreamFailure::Broken && broken < BREAKS || i + 1 >= self.endpoints.len() {
            return false;
        }
        self.broken.store(0, Ordering::Relaxed);
        self.current.fetch_max(i + 1, Ordering::Relaxed);
        let what = match how {
            StreamFailure::Wrong => "served wrong bytes",
            StreamFailure::Broken => "breaks off again and again",
        };
        let (mirror, next) = (&self.endpoints[i].registry, &self.endpoints[i + 1].registry);
        self.report.event(Event::Note(format!("mirror {mirror} {what}; going on with {next}")));
        true
    }
}

fn manifest_request(method: Method, path: &str) -> ApiRequest<'static> {
    let accept = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
    ];
    ApiRequest::new(method, path).header("accept", accept.join(", "))
}

/// The descriptor that the headers of a HEAD response make, when they make one.
fn described(response: &Response) -> Option<Descriptor> {
    let digest: Digest = response.header("docker-content-digest")?.parse().ok()?;
    let kind = response.header("content-type")?.split(';').next()?.trim();
    let size = response.header("content-length")?.parse().ok()?;
    (media_type::is_index(kind) || media_type::is_manifest(kind)).then(|| descriptor(kind, &digest, size))
}

fn verify(endpoint: &Endpoint, what: &str, bytes: &[u8], expected: &Digest) -> Result<(), Error> {
    let mut hasher = expected.hasher();
    hasher.update(bytes);
    let found = hasher.finish();
    if found == *expected {
        return Ok(());
    }
    Err(Error::Corrupt {
        registry: endpoint.registry.clone(),
        what: what.into(),
        expected: expected.to_string(),
        found: found.to_string(),
    })
}
