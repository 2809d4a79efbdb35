//! Files by their address that may be known from before, with the same connections, proxies and certificates as registries.

use std::io::Read;

use jiff::Timestamp;
use ureq::http::Method;

use super::http::{Call, Http, Payload};
use super::retry::with_retries;
use super::{Error, Secret, Settings, limits};

/// What is known of a file from before: the server may say that it has not changed.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The `ETag` it came with.
    pub etag: Option<String>,
    /// The `Last-Modified` it came with.
    pub last_modified: Option<String>,
}

/// What a server said.
pub struct Answered {
    /// The HTTP status; 304 when what is known has not changed.
    pub status: u16,
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`, as it was sent.
    pub last_modified: Option<String>,
    /// The length of the content in bytes, as far as the server says.
    pub length: Option<u64>,
    /// The content; decompressed when it was sent with `Content-Encoding: gzip`.
    pub content: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A time as HTTP writes it, in seconds since 1970.
#[must_use]
pub fn http_time(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp()).map(Timestamp::as_second)
}

/// Ask for a file. `authorization` is the value of that header; it is sent to no other host that the server may name.
///
/// # Errors
/// When the server cannot be reached or redirects where it must not.
pub fn download(
    settings: &Settings,
    url: &str,
    known: &Known,
    authorization: Option<&Secret>,
) -> Result<Answered, Error> {
    let http = Http::new(settings);
    let mut headers = vec![("accept-encoding", "gzip".to_owned())];
    headers.extend(known.etag.clone().map(|etag| ("if-none-match", etag)));
    headers.extend(known.last_modified.clone().map(|time| ("if-modified-since", time)));
    let response = with_retries(settings, || {
        http.send(Call {
            method: Method::GET,
            url: url.to_owned(),
            headers: headers.clone(),
            authorization: authorization.cloned(),
            payload: Payload::Empty,
            confidential: false,
            response_timeout: limits::RESPONSE_TIMEOUT,
            streaming: true,
        })
    })?;
    let text = |name: &str| response.header(name).map(str::to_owned);
    let (etag, last_modified, encoding) = (text("etag"), text("last-modified"), text("content-encoding"));
    let length = text("content-length").filter(|_| encoding.is_none()).and_then(|length| length.parse().ok());
    let status = response.status;
    let plain = response.reader();
    let content: Box<dyn Read + Send> = match encoding.as_deref() {
        Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => {
            Box::new(flate2::read::MultiGzDecoder::new(plain))
        }
        _ => plain,
    };
    Ok(Answered { status, etag, last_modified, length, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_http() {
        assert_eq!(http_time("Tue, 14 Nov 2023 22:13:20 GMT"), Some(1_700_000_000));
        assert_eq!(http_time("yesterday"), None);
    }
}
