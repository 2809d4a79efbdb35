//! A repository at a registry as an image sink (distribution-spec v1.1, "Push").
//!
//! A layer is looked for (HEAD), then mounted from another repository that is known to hold it, then sent whole in
//! one request, or in chunks where a registry or something before it does not take it whole.

use std::io::{self, Read};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ureq::http::Method;

use super::auth::percent;
use super::endpoint::{About, ApiRequest, Endpoint};
use super::http::{Payload, Response};
use super::retry::with_retries;
use super::{Client, Error, limits};
use crate::image::{BoxError, Event, LayerPlan, LayerState, Reporter, Sink};
use crate::oci::{Descriptor, Digest, RawManifest, Reference, digest_of};

/// Bodies from this size on are announced first, so that a refusal comes before the bytes are sent.
const ANNOUNCE_BYTES: u64 = 1 << 20;
/// Progress is told each time so many more bytes have moved.
const REPORT_BYTES: u64 = 256 << 10;

impl Sink for Client<'_> {
    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError> {
        Ok(match self.has(&layer.descriptor)? {
            true => LayerState::Complete,
            false => LayerState::Missing { partial: 0 },
        })
    }

    fn put_layer(
        &self,
        layer: &LayerPlan,
        offset: u64,
        data: &mut dyn Read,
        report: &dyn Reporter,
    ) -> Result<(), BoxError> {
        debug_assert_eq!(offset, 0, "layer_state never calls anything partial");
        let digest = digest_of(&layer.descriptor)?;
        let endpoint = self.primary();
        let session = match self.mount(endpoint, &digest)? {
            Started::Mounted(from) => {
                report.event(Event::Mounted { digest, from });
                return Ok(());
            }
            Started::Session(url) => url,
        };
        let size = layer.descriptor.size();
        let mut data = Counted { inner: data, digest: &digest, report, bytes: 0, told: 0 };
        let result = if self.chunked.load(Ordering::Relaxed) {
            send_chunks(endpoint, session, &digest, &mut data, size)
        } else {
            send_whole(endpoint, &session, &digest, Payload::Stream(&mut data, size))
        };
        if let Err(Error::Refused { answer, .. }) = &result
            && answer.status == 413
        {
            self.chunked.store(true, Ordering::Relaxed);
        }
        result?;
        report.event(Event::Moved100(digest));
        Ok(())
    }

    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        self.has(descriptor)
    }

    fn put_blob(&self, descriptor: &Descriptor, data: &[u8]) -> Result<(), BoxError> {
        let digest = digest_of(descriptor)?;
        let endpoint = self.primary();
        with_retries(&self.settings, || {
            let session = start(endpoint, "")?;
            let url = endpoint.location(&session)?;
            send_whole(endpoint, &url, &digest, Payload::Bytes(data))
        })?;
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError> {
        // The last manifest is sent under its name; those before it are parts of an index and go by digest.
        let before = self.pending.lock().unwrap_or_else(PoisonError::into_inner).replace(manifest.clone());
        match before {
            Some(before) if before.digest != manifest.digest => {
                Ok(self.send_manifest(&before, before.digest.as_str())?)
            }
            _ => Ok(()),
        }
    }

    fn set_name(&self, name: &Reference, target: &Descriptor) -> Result<(), BoxError> {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let target = digest_of(target)?;
        let Some(manifest) = pending.filter(|manifest| manifest.digest == target) else {
            return Err(Error::Protocol {
                registry: self.primary().registry.clone(),
                request: format!("naming {name}"),
                what: format!("manifest {target} has not been sent"),
            }
            .into());
        };
        Ok(self.send_manifest(&manifest, name.tag().unwrap_or(manifest.digest.as_str()))?)
    }

    fn may_pass(&self, error: &BoxError) -> bool {
        let Some(error) = error.downcast_ref::<Error>() else { return false };
        // Too large in one piece: the next try sends chunks.
        let too_large = matches!(error, Error::Refused { answer, .. } if answer.status == 413);
        let lost = matches!(error, Error::Refused { answer, .. } | Error::UnknownBlob { answer, .. }
            if answer.code.as_deref() == Some("BLOB_UPLOAD_UNKNOWN"));
        error.is_temporary() || too_large || lost
    }
}

/// How the sending of a blob begins.
enum Started {
    /// It need not be sent: the registry took it from this repository.
    Mounted(String),
    /// An address to send it to.
    Session(String),
}

impl Client<'_> {
    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        let digest = digest_of(descriptor)?;
        let endpoint = self.primary();
        let path = endpoint.path(&format!("blobs/{digest}"));
        let found = with_retries(&self.settings, || {
            let about = About::Blob(&digest);
            let response = endpoint.send(ApiRequest::new(Method::HEAD, path.as_str()))?;
            match response.status {
                200 => Ok(true),
                404 => Ok(false),
                _ => Err(endpoint.error(response, &Method::HEAD, &path, about)),
            }
        });
        self.note(endpoint);
        Ok(found?)
    }

    /// Begin an upload, as a mount when a repository is known that holds the blob.
    fn mount(&self, endpoint: &Endpoint, digest: &Digest) -> Result<Started, Error> {
        with_retries(&self.settings, || {
            if let Some(from) = self.mounts.get(digest).or(self.mount_source.as_ref()) {
                endpoint.add_source(from);
                let query = format!("?mount={digest}&from={}", percent(from));
                match start(endpoint, &query) {
                    Ok(response) if response.status == 201 => return Ok(Started::Mounted(from.clone())),
                    Ok(response) => return Ok(Started::Session(endpoint.location(&response)?)),
                    // No right to read there, or mounting is not known here: it is sent instead.
                    Err(Error::Unauthorized { .. } | Error::Denied { .. } | Error::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let response = start(endpoint, "")?;
            Ok(Started::Session(endpoint.location(&response)?))
        })
    }

    fn send_manifest(&self, manifest: &RawManifest, selector: &str) -> Result<(), Error> {
        let endpoint = self.primary();
        let path = endpoint.path(&format!("manifests/{selector}"));
        let about = About::Manifest(selector);
        with_retries(&self.settings, || {
            let mut request = ApiRequest::new(Method::PUT, path.as_str())
                .header("content-type", manifest.media_type.as_str());
            request.payload = Payload::Bytes(&manifest.bytes);
            let response = endpoint.send(request)?;
            if !matches!(response.status, 200..=202) {
                return Err(endpoint.error(response, &Method::PUT, &path, about));
            }
            match response.header("docker-content-digest") {
                Some(said) if said != manifest.digest.as_str() => Err(Error::Corrupt {
                    registry: endpoint.registry.clone(),
                    what: "the manifest it was sent".into(),
                    expected: manifest.digest.to_string(),
                    found: super::error::sanitise(said, 200),
                }),
                _ => Ok(()),
            }
        })
    }
}

/// Ask for an upload session (202), or a mount (201).
fn start(endpoint: &Endpoint, query: &str) -> Result<Response, Error> {
    let path = endpoint.path(&format!("blobs/uploads/{query}"));
    let response = endpoint.send(ApiRequest::new(Method::POST, path.as_str()))?;
    match response.status {
        202 => Ok(response),
        201 if !query.is_empty() => Ok(response),
        _ => Err(endpoint.error(response, &Method::POST, &path, About::Other)),
    }
}

fn with_digest(url: &str, digest: &Digest) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}digest={}", percent(digest.as_str()))
}

/// Send a blob in the one request that ends its session.
fn send_whole(
    endpoint: &Endpoint,
    session: &str,
    digest: &Digest,
    payload: Payload<'_>,
) -> Result<(), Error> {
    let url = with_digest(session, digest);
    let mut request =
        ApiRequest::new(Method::PUT, url.as_str()).header("content-type", "application/octet-stream");
    if matches!(&payload, Payload::Stream(_, size) if *size >= ANNOUNCE_BYTES) {
        request = request.header("expect", "100-continue");
    }
    request.payload = payload;
    request.response_timeout = limits::COMMIT_TIMEOUT;
    let response = endpoint.send(request)?;
    match response.status {
        200..=202 | 204 => Ok(()),
        _ => Err(endpoint.error(response, &Method::PUT, &url, About::Other)),
    }
}

/// Send a blob in several requests, then end its session.
fn send_chunks(
    endpoint: &Endpoint,
    mut session: String,
    digest: &Digest,
    data: &mut dyn Read,
    size: u64,
) -> Result<(), Error> {
    let mut at = 0;
    while at < size {
        let length = limits::CHUNK_BYTES.min(size - at);
        let mut chunk = data.take(length);
        let mut request = ApiRequest::new(Method::PATCH, session.as_str())
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{at}-{}", at + length - 1));
        request.payload = Payload::Stream(&mut chunk, length);
        request.response_timeout = limits::COMMIT_TIMEOUT;
        let response = endpoint.send(request)?;
        if !matches!(response.status, 202 | 204) {
            return Err(endpoint.error(response, &Method::PATCH, &session, About::Other));
        }
        session = endpoint.location(&response)?;
        at += length;
    }
    send_whole(endpoint, &session, digest, Payload::Empty)
}

/// Tells how much of a layer has been sent.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    digest: &'a Digest,
    report: &'a dyn Reporter,
    bytes: u64,
    told: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        if self.bytes - self.told >= REPORT_BYTES || n == 0 {
            self.told = self.bytes;
            self.report.event(Event::Moved { digest: self.digest.clone(), bytes: self.bytes });
        }
        Ok(n)
    }
}
