//! A file from a plain http address, for verbs that take one in the place of a path.

use std::io::Read;

use ureq::http::Method;

use super::http::{Call, Http, Payload};
use super::{Error, Settings, limits, origin};

/// Fetch `url`, without any credentials, by the same rules for certificates, proxies and redirects as registries. What
/// comes is read as it comes; a cut stream ends in an error where the server has told a length.
///
/// # Errors
/// When the host cannot be reached or answers anything but 200.
pub fn fetch(settings: &Settings, url: &str) -> Result<Box<dyn Read + Send>, Error> {
    let response = Http::new(settings).send(Call {
        method: Method::GET,
        url: url.to_owned(),
        headers: Vec::new(),
        authorization: None,
        payload: Payload::Empty,
        confidential: false,
        response_timeout: limits::RESPONSE_TIMEOUT,
        streaming: true,
    })?;
    if response.status == 200 {
        return Ok(response.reader());
    }
    Err(Error::Protocol {
        registry: response.origin.host_port(),
        request: format!("GET {}", origin::without_query(url)),
        what: format!("it answered {}", response.status),
    })
}
