//! Single HTTP requests: an agent per origin, redirects by our own rules, errors as situations.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, NextTimeout, SocksConnector};
use ureq::{Agent, AsSendBody, SendBody, Timeout};

use super::connect::RacingConnector;
use super::origin::{self, Origin, Scheme};
use super::resolver::{LookupError, SystemResolver};
use super::tls::{self, HandshakeError, TlsConnector, Trust};
use super::{Error, Secret, Settings, limits, proxy};

/// What a request carries.
pub(super) enum Payload<'a> {
    Empty,
    Bytes(&'a [u8]),
    /// A stream of known length; it can be sent once.
    Stream(&'a mut dyn Read, u64),
}

impl Payload<'_> {
    /// The same payload for another try; a stream cannot be sent twice.
    pub fn again(&mut self) -> Option<Payload<'_>> {
        match self {
            Self::Empty => Some(Payload::Empty),
            Self::Bytes(bytes) => Some(Payload::Bytes(bytes)),
            Self::Stream(..) => None,
        }
    }
}

/// One request.
pub(super) struct Call<'a> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub authorization: Option<Secret>,
    pub payload: Payload<'a>,
    /// The payload holds credentials, which are for this origin and no other.
    pub confidential: bool,
    pub response_timeout: Duration,
    /// The response body may be of any length; otherwise it is a document that comes in reasonable time.
    pub streaming: bool,
}

/// What came back, after redirects.
pub(super) struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    /// Who answered in the end.
    pub origin: Origin,
    /// The address that answered.
    pub url: String,
    body: ureq::Body,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body; `None` when it is longer than `limit` bytes.
    pub fn document(self, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let host = self.origin.host_port();
        let mut bytes = Vec::new();
        let mut reader = self.body.into_with_config().limit(u64::MAX).reader().take(limit + 1);
        reader.read_to_end(&mut bytes).map_err(|source| Error::Broken { registry: host, source })?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    /// As much of the body as can be read, at most `limit` bytes: for error messages.
    pub fn beginning(self, limit: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.body.into_with_config().limit(u64::MAX).reader().take(limit).read_to_end(&mut bytes);
        bytes
    }

    pub fn reader(self) -> Box<dyn Read + Send> {
        Box::new(self.body.into_with_config().limit(u64::MAX).reader())
    }
}

/// Sends requests; shared by all threads of a transfer.
pub(super) struct Http {
    settings: Settings,
    /// The registry that this is for; others are hosts it leads to.
    registry: OnceLock<Origin>,
    /// Host and port of registries whose certificates need not be right.
    unverified: Mutex<HashSet<(String, u16)>>,
    agents: Mutex<HashMap<Origin, Agent>>,
    /// Origins that have answered: a failure there may pass.
    answered: Mutex<HashSet<Origin>>,
    resolver: Arc<SystemResolver>,
}

/// The shared resolver, for one agent.
#[derive(Debug)]
struct SharedResolver(Arc<SystemResolver>);

impl Resolver for SharedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout)
    }
}

impl Http {
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            registry: OnceLock::new(),
            unverified: Mutex::default(),
            agents: Mutex::default(),
            answered: Mutex::default(),
            resolver: Arc::default(),
        }
    }

    /// Say which registry this is for.
    pub fn belongs_to(&self, registry: &Origin) {
        let _ = self.registry.set(registry.clone());
    }

    /// Accept any certificate of a registry.
    pub fn trust_blindly(&self, origin: &Origin) {
        let mut unverified = self.unverified.lock().unwrap_or_else(PoisonError::into_inner);
        unverified.insert((origin.host.clone(), origin.port));
    }

    /// Send a request and follow redirects: at most five, never from https to http, never to an address that only an
    /// attacker would name, and without credentials once the origin has changed.
    pub fn send(&self, call: Call<'_>) -> Result<Response, Error> {
        let Call { method, mut url, headers, mut authorization, mut payload, confidential, .. } = call;
        let Call { response_timeout, streaming, .. } = call;
        for _ in 0..=limits::REDIRECTS {
            let can_follow = payload.again().is_some();
            let single = Single {
                method: &method,
                url: &url,
                headers: &headers,
                authorization: authorization.as_ref(),
                payload: match &mut payload {
                    Payload::Empty => Payload::Empty,
                    Payload::Bytes(bytes) => Payload::Bytes(bytes),
                    Payload::Stream(reader, size) => Payload::Stream(*reader, *size),
                },
                response_timeout,
                streaming,
                deadline: self.settings.deadline,
            };
            let response = self.send_once(single)?;
            let Some(location) = redirect_of(&response).filter(|_| can_follow) else { return Ok(response) };
            let next = check_redirect(&response, &location)?;
            if Origin::of_url(&next).as_ref() != Some(&response.origin) {
                if confidential {
                    return Err(Error::Redirect {
                        from: response.origin.host_port(),
                        to: origin::without_query(&next),
                        why: "it would take credentials to another host",
                    });
                }
                authorization = None;
            }
            url = next;
        }
        Err(Error::Redirect {
            from: Origin::of_url(&url).map_or_else(String::new, |o| o.host_port()),
            to: origin::without_query(&url),
            why: "there were too many redirects",
        })
    }

    fn send_once(&self, single: Single<'_>) -> Result<Response, Error> {
        let origin = Origin::of_url(single.url).ok_or_else(|| Error::Protocol {
            registry: String::new(),
            request: format!("{} {}", single.method, origin::without_query(single.url)),
            what: "the address is not an http address".into(),
        })?;
        let agent = self.agent(&origin)?;
        let request_name = format!("{} {}", single.method, origin::without_query(single.url));
        let url = single.url.to_owned();
        let result = run(&agent, single);
        let response = result.map_err(|error| self.situation(&origin, &request_name, error))?;
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(origin.clone());
        let (parts, body) = response.into_parts();
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, origin, url, body })
    }

    fn agent(&self, origin: &Origin) -> Result<Agent, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(origin) {
            return Ok(agent.clone());
        }
        let proxy = proxy::choose(&self.settings.env, origin)?;
        let through_https = proxy.as_ref().is_some_and(|p| p.uri().scheme_str() == Some("https"));
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("strate/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(limits::HEADER_BYTES)
            .max_idle_connections_per_host(8)
            .timeout_resolve(Some(limits::RESOLVE_TIMEOUT))
            .timeout_connect(Some(limits::CONNECT_TIMEOUT))
            .timeout_per_read(Some(self.settings.stall()))
            .timeout_per_write(Some(self.settings.stall()))
            .build();
        let tcp =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(RacingConnector::default());
        let resolver = SharedResolver(self.resolver.clone());
        let agent = if origin.scheme == Scheme::Https || through_https {
            Agent::with_parts(config, tcp.chain(TlsConnector(self.tls(origin)?)), resolver)
        } else {
            Agent::with_parts(config, tcp, resolver)
        };
        agents.insert(origin.clone(), agent.clone());
        Ok(agent)
    }

    fn tls(&self, origin: &Origin) -> Result<Arc<rustls::ClientConfig>, Error> {
        let directories = |origin: &Origin| match &self.settings.cert_dir {
            Some(directory) => vec![directory.clone()],
            None => tls::directories(self.settings.config_home().as_deref(), origin),
        };
        let registry = self.registry.get().filter(|r| (&r.host, r.port) != (&origin.host, origin.port));
        let trust = match registry {
            None => Trust { own: directories(origin), registry: Vec::new() },
            // What --cert-dir names is for the registry.
            Some(registry) => Trust {
                own: if self.settings.cert_dir.is_some() { Vec::new() } else { directories(origin) },
                registry: directories(registry),
            },
        };
        let unverified = self.unverified.lock().unwrap_or_else(PoisonError::into_inner);
        let blindly = self.settings.tls_verify == Some(false)
            || unverified.contains(&(origin.host.clone(), origin.port));
        tls::client_config(&self.settings, &trust, !blindly)
    }

    /// What a failure of the transport means.
    fn situation(&self, origin: &Origin, request: &str, error: ureq::Error) -> Error {
        let host = origin.host_port();
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).contains(origin);
        let unreachable = |source: crate::image::BoxError| Error::Unreachable {
            host: host.clone(),
            temporary: answered,
            source: proxy::blame(&self.settings.env, origin, source),
        };
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                unreachable("the connection was not made in time".into())
            }
            ureq::Error::Timeout(Timeout::Global) => Error::Deadline { registry: host },
            ureq::Error::Timeout(_) => Error::Timeout { host, doing: "it was asked or answering" },
            ureq::Error::HostNotFound => Error::UnknownHost { host: origin.host.clone(), source: None },
            ureq::Error::Io(error) if is_refused(&error) => unreachable(error.into()),
            ureq::Error::Io(source) => Error::Broken { registry: host, source },
            ureq::Error::ConnectProxyFailed(said) => {
                unreachable(format!("the proxy refused: {}", super::error::sanitise(&said, 200)).into())
            }
            ureq::Error::Other(error) => match error.downcast::<HandshakeError>() {
                Ok(error) if error.is_not_tls() => Error::PlainHttp { host, source: error },
                Ok(error) => Error::Tls { host, source: error.cause() },
                Err(error) => match error.downcast::<LookupError>() {
                    Ok(error) => Error::UnknownHost { host: error.host, source: error.source },
                    Err(error) => unreachable(error),
                },
            },
            ureq::Error::Tls(what) => Error::Tls { host, source: what.into() },
            ureq::Error::Rustls(error) => Error::Tls { host, source: error.into() },
            error => Error::Protocol {
                registry: host,
                request: request.to_owned(),
                what: super::error::sanitise(&error.to_string(), 300),
            },
        }
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http")
    }
}

/// One request to one address.
struct Single<'a> {
    method: &'a Method,
    url: &'a str,
    headers: &'a [(&'static str, String)],
    authorization: Option<&'a Secret>,
    payload: Payload<'a>,
    response_timeout: Duration,
    streaming: bool,
    deadline: Option<Instant>,
}

fn run(agent: &Agent, single: Single<'_>) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let mut request = Request::builder().method(single.method).uri(single.url);
    for (name, value) in single.headers {
        request = request.header(*name, value);
    }
    if let Some(authorization) = single.authorization {
        let mut value = HeaderValue::from_str(authorization.expose()).map_err(ureq::http::Error::from)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let has_body = matches!(*single.method, Method::POST | Method::PUT | Method::PATCH);
    if !has_body {
        return agent.run(with_timeouts(
            agent,
            request.body(())?,
            single.response_timeout,
            single.streaming,
            single.deadline,
        ));
    }
    let (mut bytes, mut empty);
    let (reader, size): (&mut dyn Read, u64) = match single.payload {
        Payload::Empty => {
            empty = std::io::empty();
            (&mut empty, 0)
        }
        Payload::Bytes(data) => {
            bytes = data;
            (&mut bytes, data.len() as u64)
        }
        Payload::Stream(reader, size) => (reader, size),
    };
    let request = request.header(CONTENT_LENGTH, size).body(SendBody::from_reader(reader))?;
    agent.run(with_timeouts(agent, request, single.response_timeout, single.streaming, single.deadline))
}

fn with_timeouts<B: AsSendBody>(
    agent: &Agent,
    request: Request<B>,
    response: Duration,
    streaming: bool,
    deadline: Option<Instant>,
) -> Request<B> {
    // None at all would be no limit.
    let left = |end: Instant| end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    agent
        .configure_request(request)
        .timeout_global(deadline.map(left))
        .timeout_recv_response(Some(response))
        .timeout_recv_body((!streaming).then_some(limits::DOCUMENT_TIMEOUT))
        .build()
}

fn redirect_of(response: &Response) -> Option<String> {
    if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    Some(response.headers.get(LOCATION)?.to_str().unwrap_or("\0").to_owned())
}

/// Where a redirect leads, when it may be followed.
fn check_redirect(response: &Response, location: &str) -> Result<String, Error> {
    let refused =
        |why| Error::Redirect { from: response.origin.host_port(), to: origin::without_query(location), why };
    let next = origin::join(&response.url, location).ok_or_else(|| refused("it is not an http address"))?;
    let target = Origin::of_url(&next).ok_or_else(|| refused("it is not an http address"))?;
    check_target(&response.origin, &target).map_err(refused)?;
    Ok(next)
}

/// Whether an answer of `from` may lead to `target`.
pub(super) fn check_target(from: &Origin, target: &Origin) -> Result<(), &'static str> {
    if from.scheme == Scheme::Https && target.scheme == Scheme::Http {
        return Err("it leads from https to http");
    }
    let within_machine = from.is_loopback() && target.is_loopback();
    if from.host != target.host && target.is_suspicious_target() && !within_machine {
        return Err("it leads to an address inside this machine or network");
    }
    Ok(())
}

fn is_refused(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_lead_to_itself() {
        let may =
            |from, to| check_target(&Origin::of_url(from).unwrap(), &Origin::of_url(to).unwrap()).is_ok();
        for (from, to, expected) in [
            ("http://127.0.0.1:5000/", "http://localhost:9000/", true),
            ("http://127.0.0.1:5000/", "http://169.254.169.254/", false),
            ("http://localhost/", "http://2852039166/", false),
            ("http://127.0.0.1:5000/", "https://cdn.example/", true),
            ("http://r.example/", "http://127.0.0.1/", false),
            ("https://r.example/", "http://r.example/", false),
            ("http://r.example/", "http://10.1.2.3/", true),
        ] {
            assert_eq!(may(from, to), expected, "{from} {to}");
        }
    }
}
