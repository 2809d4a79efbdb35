//! Upload sessions (distribution-spec v1.1, "Pushing a blob in chunks" and "Pushing a blob monolithically"): begun by
//! POST, filled by PATCH, asked about by GET, ended by PUT. Each answer names the address of the next request.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::auth::percent;
use super::endpoint::{About, ApiRequest, Endpoint};
use super::http::{Payload, Response};
use super::origin::without_query;
use super::{Error, limits};
use crate::oci::{Digest, RawManifest};

/// Tells which repositories of a registry are known to hold a blob, the likeliest first.
type Sources<'r> = dyn Fn(&Digest) -> Vec<String> + Send + Sync + 'r;

/// An upload under way.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// Where the next request goes.
    url: String,
    /// Bytes that the registry has.
    pub at: u64,
    /// The smallest piece that it takes, the last aside.
    pub smallest: u64,
}

/// Begin an upload.
pub(super) fn start(endpoint: &Endpoint) -> Result<Session, Error> {
    let response = post(endpoint, "")?;
    Session::of(endpoint, &response)
}

/// Ask for a mount: `None` when the blob is there now, else an upload was begun.
pub(super) fn start_or_mount(endpoint: &Endpoint, query: &str) -> Result<Option<Session>, Error> {
    let response = post(endpoint, query)?;
    if response.status == 201 { Ok(None) } else { Session::of(endpoint, &response).map(Some) }
}

fn post(endpoint: &Endpoint, query: &str) -> Result<Response, Error> {
    let path = endpoint.path(&format!("blobs/uploads/{query}"));
    let response = endpoint.send(ApiRequest::new(Method::POST, path.as_str()))?;
    match response.status {
        202 => Ok(response),
        201 if !query.is_empty() => Ok(response),
        _ => Err(endpoint.error(response, &Method::POST, &path, About::Other)),
    }
}

impl Session {
    fn of(endpoint: &Endpoint, response: &Response) -> Result<Self, Error> {
        let smallest = response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        Ok(Self { url: endpoint.location(response)?, at: 0, smallest: smallest.unwrap_or(0) })
    }

    /// Send the next `length` bytes of a blob of `size` bytes.
    pub fn append(
        &mut self,
        endpoint: &Endpoint,
        data: &mut dyn Read,
        length: u64,
        size: u64,
    ) -> Result<(), Error> {
        let end = self.at + length;
        let mut piece = data.take(length);
        let mut request = ApiRequest::new(Method::PATCH, self.url.as_str())
            .header("content-type", "application/octet-stream")
            .header("expect", "100-continue");
        if length < size {
            request = request.header("content-range", format!("{}-{}", self.at, end - 1));
        }
        request.payload = Payload::Stream(&mut piece, length);
        request.response_timeout = limits::COMMIT_TIMEOUT;
        let response = endpoint.send(request)?;
        if !matches!(response.status, 200..=204) {
            return Err(endpoint.error(response, &Method::PATCH, &self.url, About::Other));
        }
        let taken = response.header("range").and_then(range_end);
        self.url = endpoint.location(&response)?;
        match taken {
            None => self.at = end,
            Some(taken) if taken == end => self.at = end,
            Some(taken) => {
                return Err(Error::Protocol {
                    registry: endpoint.registry.clone(),
                    request: format!("PATCH {}", without_query(&self.url)),
                    what: format!("it says to have {taken} bytes of the blob after it was sent {end}"),
                });
            }
        }
        Ok(())
    }

    /// End the session; what is in `payload` is the whole blob, or nothing is left to send.
    pub fn commit(&self, endpoint: &Endpoint, digest: &Digest, payload: Payload<'_>) -> Result<(), Error> {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}digest={}", self.url, percent(digest.as_str()));
        let mut request =
            ApiRequest::new(Method::PUT, url.as_str()).header("content-type", "application/octet-stream");
        request.payload = payload;
        request.response_timeout = limits::COMMIT_TIMEOUT;
        let response = endpoint.send(request)?;
        match response.status {
            200..=202 | 204 => Ok(()),
            _ => Err(endpoint.error(response, &Method::PUT, &url, About::Other)),
        }
    }

    /// The same session as the registry sees it now; `None` when it has none.
    pub fn status(&self, endpoint: &Endpoint) -> Result<Option<Self>, Error> {
        let response = endpoint.send(ApiRequest::new(Method::GET, self.url.as_str()))?;
        if !matches!(response.status, 202 | 204) {
            let error = endpoint.error(response, &Method::GET, &self.url, About::Other);
            return if error.is_temporary() { Err(error) } else { Ok(None) };
        }
        let at = response.header("range").and_then(range_end).unwrap_or(0);
        let url = match response.header("location") {
            Some(_) => endpoint.location(&response)?,
            None => self.url.clone(),
        };
        Ok(Some(Self { url, at, smallest: self.smallest }))
    }

    /// Give up an upload that is not needed. It would end by itself some day: failures do not matter.
    pub fn cancel(&self, endpoint: &Endpoint) {
        let _ = endpoint.send(ApiRequest::new(Method::DELETE, self.url.as_str()));
    }
}

/// How many bytes `0-N` means. Registries answer `0-0` for nothing at all.
fn range_end(header: &str) -> Option<u64> {
    let range = header.trim();
    let range = range.strip_prefix("bytes=").or_else(|| range.strip_prefix("bytes ")).unwrap_or(range);
    let (begin, end) = range.split_once('-')?;
    let end: u64 = end.trim().parse().ok()?;
    (begin.trim() == "0").then(|| if end == 0 { 0 } else { end.saturating_add(1) })
}

/// What a client remembers of its uploads.
pub(super) struct Uploads<'r> {
    /// Where blobs may be mounted from.
    sources: Option<Box<Sources<'r>>>,
    /// A repository of the same registry that holds whatever is copied here.
    source: Option<String>,
    /// The last manifest that was put: it is sent under its name at once.
    pub pending: Mutex<Option<RawManifest>>,
    /// Uploads that broke off.
    sessions: Mutex<HashMap<Digest, Session>>,
    /// Blobs whose broken uploads are not taken up.
    distrusted: Mutex<HashSet<Digest>>,
    /// Bytes that are sent in one request.
    piece: AtomicU64,
    /// Even the smallest was too large.
    too_small: AtomicBool,
    /// Nothing is sent before.
    quiet_until: Mutex<Option<Instant>>,
}

impl<'r> Uploads<'r> {
    pub fn new() -> Self {
        Self {
            sources: None,
            source: None,
            pending: Mutex::default(),
            sessions: Mutex::default(),
            distrusted: Mutex::default(),
            piece: AtomicU64::new(u64::MAX),
            too_small: AtomicBool::new(false),
            quiet_until: Mutex::default(),
        }
    }

    pub fn set_sources(&mut self, sources: impl Fn(&Digest) -> Vec<String> + Send + Sync + 'r) {
        self.sources = Some(Box::new(sources));
    }

    pub fn set_source(&mut self, repository: String) {
        self.source = Some(repository);
    }

    /// Repositories that should hold a blob; `here` is not one to mount from.
    pub fn sources(&self, digest: &Digest, here: &str) -> Vec<String> {
        let mut found: Vec<String> = self.source.iter().cloned().collect();
        for repository in self.sources.as_ref().map(|sources| sources(digest)).unwrap_or_default() {
            if !found.contains(&repository) {
                found.push(repository);
            }
        }
        found.retain(|repository| repository != here);
        found
    }

    /// The upload of a blob that broke off.
    pub fn begun(&self, digest: &Digest) -> Option<Session> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(digest)
    }

    /// Remember an upload that broke off.
    pub fn keep(&self, digest: &Digest, session: Session) {
        if !self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).contains(digest) {
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), session);
        }
    }

    /// Uploads of this blob are begun anew from now on.
    pub fn distrust(&self, digest: &Digest) {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
    }

    /// Bytes that are sent in one request.
    pub fn piece(&self) -> u64 {
        self.piece.load(Ordering::Relaxed)
    }

    /// Something on the way does not take `refused` bytes at once.
    pub fn smaller(&self, refused: u64) {
        let next = match refused {
            refused if refused > limits::CHUNK_BYTES => limits::CHUNK_BYTES,
            refused => (refused / 4).max(limits::SMALLEST_CHUNK_BYTES),
        };
        self.piece.fetch_min(next, Ordering::Relaxed);
        self.too_small.fetch_or(refused <= limits::SMALLEST_CHUNK_BYTES, Ordering::Relaxed);
    }

    /// Whether the smallest piece was refused too.
    pub fn takes_no_piece(&self) -> bool {
        self.too_small.load(Ordering::Relaxed)
    }

    pub fn be_quiet(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = Some(quiet.map_or(until, |before| before.max(until)));
    }

    pub fn quiet_until(&self) -> Option<Instant> {
        *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_how_much_is_there() {
        for (header, bytes) in [
            ("0-0", Some(0)),
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("bytes 0-99", Some(100)),
            ("5-99", None),
            ("", None),
            ("0-", None),
            ("0--5", None),
            ("0-18446744073709551615", Some(u64::MAX)),
        ] {
            assert_eq!(range_end(header), bytes, "{header}");
        }
    }

    #[test]
    fn pieces_get_smaller_down_to_a_limit() {
        let uploads = Uploads::new();
        let mut pieces = vec![uploads.piece()];
        while !uploads.takes_no_piece() {
            uploads.smaller(uploads.piece());
            pieces.push(uploads.piece());
        }
        assert_eq!(pieces, [u64::MAX, 16 << 20, 4 << 20, 1 << 20, 1 << 20]);
        let uploads = Uploads::new();
        uploads.smaller(2_000_000);
        assert_eq!(uploads.piece(), 1 << 20);
    }
}
