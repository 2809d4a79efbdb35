//! A repository at a registry as an image sink (distribution-spec v1.1, "Push").
//!
//! A layer is looked for (HEAD), then mounted from another repository that is known to hold it, then sent. What breaks
//! on the way goes on where the registry says it has got to; `session.rs` speaks that part of the protocol.

use std::io::{self, Read};
use std::sync::PoisonError;
use std::time::Instant;

use ureq::http::Method;

use super::auth::percent;
use super::endpoint::{About, ApiRequest, Endpoint};
use super::http::Payload;
use super::retry::with_retries;
use super::session::{self, Session};
use super::{Client, Error, limits};
use crate::image::{BoxError, Event, LayerPlan, LayerState, Reporter, Sink};
use crate::oci::{Descriptor, Digest, RawManifest, Reference, digest_of};

/// Blobs below this size are sent in the request that ends their session; from it on a body is announced, so that a
/// refusal comes before the bytes are sent, and the session can be taken up again.
const LARGE: u64 = 1 << 20;
/// Progress is told each time so many more bytes have moved.
const REPORT_BYTES: u64 = 256 << 10;
/// Repositories that a blob is tried to be mounted from.
const MOUNT_TRIES: usize = 3;

impl Sink for Client<'_> {
    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError> {
        self.keep_quiet();
        if let Some(partial) = self.take_up(&layer.descriptor)? {
            return Ok(LayerState::Missing { partial });
        }
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
        let digest = digest_of(&layer.descriptor)?;
        let endpoint = self.primary();
        let mut session = match self.uploads.begun(&digest) {
            Some(session) => session,
            None => match self.mount(endpoint, &digest)? {
                Started::Mounted(from) => {
                    report.event(Event::Mounted { digest, from });
                    return Ok(());
                }
                Started::Session(session) => session,
            },
        };
        if offset < session.at {
            // The source cannot start in the middle: what the registry has is passed over.
            io::copy(&mut data.take(session.at - offset), &mut io::sink())?;
        }
        let taken_up = session.at;
        let mut data = Counted { inner: data, digest: &digest, report, bytes: taken_up, told: taken_up };
        let result = self.send(endpoint, &mut session, &digest, &mut data, layer.descriptor.size());
        let bytes = data.bytes;
        result
            .map_err(|error| self.broken_off(&digest, session, taken_up, layer.descriptor.size(), error))?;
        report.event(Event::Moved { digest: digest.clone(), bytes });
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
            let session = session::start(endpoint)?;
            session.commit(endpoint, &digest, Payload::Bytes(data))
        })?;
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError> {
        // The last manifest is sent under its name; those before it are parts of an index and go by digest.
        let pending = &self.uploads.pending;
        let before = pending.lock().unwrap_or_else(PoisonError::into_inner).replace(manifest.clone());
        match before {
            Some(before) if before.digest != manifest.digest => {
                Ok(self.send_manifest(&before, before.digest.as_str())?)
            }
            _ => Ok(()),
        }
    }

    fn set_name(&self, name: &Reference, target: &Descriptor) -> Result<(), BoxError> {
        let pending = self.uploads.pending.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
        if error.retry_after().is_some_and(|wanted| wanted > limits::LONGEST_RETRY_AFTER) {
            return false;
        }
        // Too large in one piece: the next try sends smaller ones, as long as there are smaller ones.
        let too_large = matches!(error, Error::Refused { answer, .. } if answer.status == 413)
            && !self.uploads.takes_no_piece();
        let lost = matches!(error, Error::Refused { answer, .. } | Error::UnknownBlob { answer, .. }
            if answer.code.as_deref() == Some("BLOB_UPLOAD_UNKNOWN"));
        error.is_temporary() || too_large || lost
    }
}

/// How the sending of a blob begins.
enum Started {
    /// It need not be sent: the registry took it from this repository.
    Mounted(String),
    /// A session to send it in.
    Session(Session),
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

    /// How much the registry has of a blob whose upload broke off. An upload that it knows nothing of any more is
    /// forgotten: the blob may be there, or has to be sent again.
    fn take_up(&self, descriptor: &Descriptor) -> Result<Option<u64>, BoxError> {
        let digest = digest_of(descriptor)?;
        let Some(session) = self.uploads.begun(&digest) else { return Ok(None) };
        let endpoint = self.primary();
        let found = with_retries(&self.settings, || session.status(endpoint));
        Ok(match found {
            Ok(Some(session)) if (1..=descriptor.size()).contains(&session.at) => {
                let at = session.at;
                self.uploads.keep(&digest, session);
                Some(at)
            }
            _ => None,
        })
    }

    /// Begin an upload, as a mount when repositories are known that hold the blob.
    fn mount(&self, endpoint: &Endpoint, digest: &Digest) -> Result<Started, Error> {
        let mut begun: Option<Session> = None;
        for from in self.uploads.sources(digest, &endpoint.repository).into_iter().take(MOUNT_TRIES) {
            let added = endpoint.add_source(&from);
            let query = format!("?mount={digest}&from={}", percent(&from));
            match with_retries(&self.settings, || session::start_or_mount(endpoint, &query)) {
                Ok(None) => {
                    if let Some(unused) = begun {
                        unused.cancel(endpoint);
                    }
                    return Ok(Started::Mounted(from));
                }
                // Not mounted, and begun as an upload instead. One is enough.
                Ok(Some(session)) => match begun {
                    None => begun = Some(session),
                    Some(_) => session.cancel(endpoint),
                },
                // No right to read there, or mounting is not known here: it is sent instead.
                Err(
                    Error::Unauthorized { .. }
                    | Error::Denied { .. }
                    | Error::Refused { .. }
                    | Error::UnknownRepository { .. }
                    | Error::UnknownBlob { .. }
                    | Error::Server { .. },
                ) => {
                    if added {
                        endpoint.remove_source(&from);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match begun {
            Some(session) => Ok(Started::Session(session)),
            None => with_retries(&self.settings, || session::start(endpoint)).map(Started::Session),
        }
    }

    /// Send what a session lacks of a blob, and end the session.
    fn send(
        &self,
        endpoint: &Endpoint,
        session: &mut Session,
        digest: &Digest,
        data: &mut Counted<'_>,
        size: u64,
    ) -> Result<(), Error> {
        let piece = self.uploads.piece();
        if session.at == 0 && size < LARGE.min(piece) {
            return session.commit(endpoint, digest, Payload::Stream(data, size));
        }
        while session.at < size {
            // A registry may name a smallest piece; only the last may be smaller.
            let length = piece.max(session.smallest).min(size - session.at);
            session.append(endpoint, data, length, size)?;
        }
        session.commit(endpoint, digest, Payload::Empty)
    }

    /// What remains of an upload that failed: a session to go on with, a smaller piece to try, a pause to make.
    fn broken_off(&self, digest: &Digest, session: Session, taken_up: u64, size: u64, error: Error) -> Error {
        if let Some(wanted) = error.retry_after().filter(|wanted| *wanted <= limits::LONGEST_RETRY_AFTER) {
            self.uploads.be_quiet(wanted);
        }
        let refused = match &error {
            Error::Refused { answer, .. } if answer.status == 413 => {
                self.uploads.smaller(self.uploads.piece().min(size));
                false
            }
            Error::Refused { answer, .. } => matches!(answer.status, 400 | 404 | 416),
            _ => false,
        };
        if taken_up > 0 && refused {
            // What it said it had was not the beginning of this blob. Once more, whole.
            self.uploads.distrust(digest);
            return Error::NotTakenUp {
                registry: self.primary().registry.clone(),
                digest: digest.clone(),
                source: Box::new(error),
            };
        }
        if error.is_temporary() {
            self.uploads.keep(digest, session);
        }
        error
    }

    /// Wait as long as the registry has asked for.
    fn keep_quiet(&self) {
        if let Some(until) = self.uploads.quiet_until() {
            std::thread::sleep(
                until.saturating_duration_since(Instant::now()).min(limits::LONGEST_RETRY_AFTER),
            );
        }
    }

    /// Send a manifest, and see to it that it can be found from its subject.
    fn send_manifest(&self, manifest: &RawManifest, selector: &str) -> Result<(), Error> {
        if self.put_document(manifest, selector)? { Ok(()) } else { self.list_referrer(manifest) }
    }

    /// Send a manifest under a tag or its digest. Whether the registry has listed it with its subject comes back.
    pub(super) fn put_document(&self, manifest: &RawManifest, selector: &str) -> Result<bool, Error> {
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
                _ => Ok(response.header("oci-subject").is_some()),
            }
        })
    }
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
