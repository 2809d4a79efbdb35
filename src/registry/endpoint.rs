//! One repository at one host: which scheme it speaks, its challenges, and what its refusals mean.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::Method;

use super::auth::{Auth, TokenFailure};
use super::credentials::{self, Search};
use super::error::sanitise;
use super::http::{Call, Http, Payload, Response};
use super::origin::{Origin, Scheme, without_query};
use super::places::Place;
use super::retry::{retry_after, with_retries};
use super::{Action, Answer, Error, Login, Secret, Settings, limits};
use crate::oci::{DEFAULT_REGISTRY, Digest};

/// Where the API of docker.io is served.
const HUB_HOST: &str = "registry-1.docker.io";
/// How many challenges of one request are answered: an old token, then a new one, then it is a refusal.
const CHALLENGES: usize = 2;

/// What a request is about, for its errors.
#[derive(Debug, Clone, Copy)]
pub(super) enum About<'a> {
    /// A manifest, by tag or digest.
    Manifest(&'a str),
    /// A blob.
    Blob(&'a Digest),
    /// A login.
    Login,
    /// Anything else.
    Other,
}

/// A request to a registry.
pub(super) struct ApiRequest<'a> {
    pub method: Method,
    /// A path (`/v2/…`) or, where the registry gave one, a whole address.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub payload: Payload<'a>,
    pub response_timeout: Duration,
    pub streaming: bool,
}

impl ApiRequest<'_> {
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            payload: Payload::Empty,
            response_timeout: limits::RESPONSE_TIMEOUT,
            streaming: false,
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// One repository at one host.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As references name it.
    pub registry: String,
    pub repository: String,
    action: Action,
    settings: Settings,
    /// Plain http may be tried when https is not spoken.
    may_fall_back: bool,
    scheme: OnceLock<Scheme>,
    http: Http,
    auth: Auth,
    search: OnceLock<Search>,
    scopes: Mutex<Vec<String>>,
}

impl Endpoint {
    pub fn new(settings: &Settings, place: &Place, action: Action) -> Self {
        let host = if place.registry == DEFAULT_REGISTRY { HUB_HOST } else { &place.registry };
        let origin = Origin::of_registry(Scheme::Https, host);
        let http = Http::new(settings);
        http.belongs_to(&origin);
        if place.insecure {
            http.trust_blindly(&origin);
        }
        // What the user types now wins over what a file says; loopback is as safe as it gets.
        let may_fall_back = match settings.tls_verify {
            Some(verify) => !verify,
            None => place.insecure || origin.is_loopback(),
        };
        let scopes = match place.repository.as_str() {
            "" => Vec::new(),
            repository => vec![format!("repository:{repository}:{}", action.scope())],
        };
        Self {
            registry: place.registry.clone(),
            repository: place.repository.clone(),
            action,
            settings: settings.clone(),
            may_fall_back,
            scheme: OnceLock::new(),
            http,
            auth: Auth::default(),
            search: OnceLock::new(),
            scopes: Mutex::new(scopes),
        }
    }

    /// An endpoint to check a login with, without a repository.
    pub fn for_login(settings: &Settings, registry: &str) -> Result<Self, Error> {
        let registry = registry.to_ascii_lowercase();
        let insecure = super::conf::Registries::load(settings)?.is_insecure(&registry);
        let place = Place { registry, repository: String::new(), insecure };
        Ok(Self::new(settings, &place, Action::Pull))
    }

    /// Ask for the right to pull from another repository too, for mounting its layers.
    /// Whether that is news comes back.
    pub fn add_source(&self, repository: &str) -> bool {
        self.add_scope(&format!("repository:{repository}:pull"))
    }

    /// Do not ask for that right any more: it is not given.
    pub fn remove_source(&self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != scope);
    }

    /// Ask for a further right. Whether that is news comes back.
    pub fn add_scope(&self, scope: &str) -> bool {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !scopes.iter().any(|known| known == scope);
        if new {
            scopes.push(scope.to_owned());
        }
        new
    }

    /// Whether the registry accepts the login.
    pub fn check_login(&self) -> Result<(), Error> {
        with_retries(&self.settings, || {
            let response = self.send(ApiRequest::new(Method::GET, "/v2/"))?;
            match response.status {
                200 => Ok(()),
                _ => Err(self.error(response, &Method::GET, "/v2/", About::Login)),
            }
        })
    }

    /// The path of something in the repository: `manifests/latest`.
    pub fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }

    /// `HOST/REPOSITORY`, for messages.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What looking for credentials found missing, once.
    pub fn notes(&self) -> &[String] {
        self.search.get().map_or(&[], |search| &search.notes)
    }

    /// Send a request, answering challenges. Any status but 401 is the caller's to judge; see [`Endpoint::error`].
    pub fn send(&self, mut request: ApiRequest<'_>) -> Result<Response, Error> {
        let mut challenges = 0;
        loop {
            let (url, scheme_is_known) = self.url(&request.target);
            let origin =
                Origin::of_url(&url).ok_or_else(|| self.protocol(&request, "it gave a bad address"))?;
            let authorization = self.authorization(&origin)?;
            let used = authorization.clone();
            let resendable = request.payload.again().is_some();
            let call = Call {
                method: request.method.clone(),
                url,
                headers: request.headers.clone(),
                authorization,
                payload: match &mut request.payload {
                    Payload::Empty => Payload::Empty,
                    Payload::Bytes(bytes) => Payload::Bytes(bytes),
                    Payload::Stream(reader, size) => Payload::Stream(*reader, *size),
                },
                confidential: false,
                response_timeout: request.response_timeout,
                streaming: request.streaming,
            };
            let response = match self.http.send(call) {
                Err(Error::PlainHttp { .. }) if !scheme_is_known && self.may_fall_back => {
                    let _ = self.scheme.set(Scheme::Http);
                    continue;
                }
                result => result?,
            };
            let _ = self.scheme.set(origin.scheme);
            if response.status != 401 || response.origin != self.origin() {
                return Ok(response);
            }
            if !resendable {
                self.auth.forget();
                return Err(Error::LoginExpired { registry: self.registry.clone() });
            }
            challenges += 1;
            if challenges > CHALLENGES || !self.answer(&response, used.as_ref())? {
                return Ok(response);
            }
        }
    }

    fn answer(&self, response: &Response, used: Option<&Secret>) -> Result<bool, Error> {
        let login = self.login()?;
        self.auth.challenged(response, used, login, &self.scopes())
    }

    /// The header for a request to `origin`: credentials go to the registry itself and to nobody else.
    fn authorization(&self, origin: &Origin) -> Result<Option<Secret>, Error> {
        if *origin != self.origin() {
            return Ok(None);
        }
        let login = self.search.get().and_then(|search| search.found.as_ref()).map(|found| &found.login);
        match self.auth.header(&self.http, origin, login, &self.scopes()) {
            Ok(header) => Ok(header),
            Err(TokenFailure::Failed(error)) => Err(error),
            Err(TokenFailure::Refused(response)) => {
                let about = if self.repository.is_empty() { About::Login } else { About::Other };
                Err(self.error(*response, &Method::GET, "the token", about))
            }
        }
    }

    fn scopes(&self) -> Vec<String> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The login for the registry, looked up when it first asks for one.
    fn login(&self) -> Result<Option<&Login>, Error> {
        if self.search.get().is_none() {
            let _ = self.search.set(credentials::find(&self.settings, &self.registry, &self.repository)?);
        }
        Ok(self.search.get().and_then(|search| search.found.as_ref()).map(|found| &found.login))
    }

    /// Where the registry is, as far as is known.
    pub fn origin(&self) -> Origin {
        let host = if self.registry == DEFAULT_REGISTRY { HUB_HOST } else { &self.registry };
        let scheme = self.scheme.get().copied().unwrap_or(Scheme::Https);
        Origin::of_registry(scheme, host)
    }

    fn url(&self, target: &str) -> (String, bool) {
        let known = self.scheme.get().is_some();
        if target.starts_with('/') {
            (format!("{}{target}", self.origin()), known)
        } else {
            (target.to_owned(), true)
        }
    }

    /// The absolute address that a Location of a response means, for requests of an upload. A registry behind a proxy
    /// that ends TLS may name itself with http: it means the address it was reached by.
    pub fn location(&self, response: &Response) -> Result<String, Error> {
        let broken = |what: &str| Error::Protocol {
            registry: self.registry.clone(),
            request: "the start of an upload".into(),
            what: what.into(),
        };
        let location = response.header("location").ok_or_else(|| broken("it gave no Location"))?;
        let mut url =
            super::origin::join(&response.url, location).ok_or_else(|| broken("it gave a bad Location"))?;
        let own = self.origin();
        if own.scheme == Scheme::Https
            && let Some(rest) = url.strip_prefix("http://")
            && Origin::of_url(&url).is_some_and(|origin| origin.host == own.host)
        {
            let path = rest.find('/').map_or("/", |i| &rest[i..]);
            url = format!("{own}{path}");
        }
        let target = Origin::of_url(&url).ok_or_else(|| broken("it gave a bad Location"))?;
        super::http::check_target(&own, &target).map_err(|why| Error::Redirect {
            from: own.host_port(),
            to: without_query(&url),
            why,
        })?;
        Ok(url)
    }

    fn protocol(&self, request: &ApiRequest<'_>, what: &str) -> Error {
        Error::Protocol {
            registry: self.registry.clone(),
            request: format!("{} {}", request.method, without_query(&request.target)),
            what: what.into(),
        }
    }

    /// What a response with an unexpected status means. Reads its body.
    pub fn error(&self, response: Response, method: &Method, target: &str, about: About<'_>) -> Error {
        let wait = retry_after(response.header("retry-after"));
        let status = response.status;
        let answer = Box::new(parse_answer(status, &response.beginning(limits::ERROR_BYTES)));
        let registry = self.registry.clone();
        let request = format!("{method} {}", without_query(target));
        let code = answer.code.as_deref().unwrap_or_default().to_owned();
        match (status, about) {
            (401 | 403, About::Login) => Error::WrongPassword { registry, answer },
            (429, _) => Error::RateLimited { registry, retry_after: wait, tried: self.tried(), answer },
            (_, _) if code == "TOOMANYREQUESTS" => {
                Error::RateLimited { registry, retry_after: wait, tried: self.tried(), answer }
            }
            (401, _) => Error::Unauthorized {
                registry,
                repository: self.repository.clone(),
                action: self.action.verb(),
                tried: self.tried(),
                answer,
            },
            (403, _) => Error::Denied {
                registry,
                repository: self.repository.clone(),
                action: self.action.verb(),
                tried: self.tried(),
                answer,
            },
            (404, _) if code == "NAME_UNKNOWN" => {
                Error::UnknownRepository { repository: self.name(), answer }
            }
            (404, About::Manifest(selector)) => {
                let separator = if selector.contains(':') { '@' } else { ':' };
                Error::UnknownManifest { reference: format!("{}{separator}{selector}", self.name()), answer }
            }
            (404, About::Blob(digest)) => {
                Error::UnknownBlob { digest: digest.clone(), repository: self.name(), answer }
            }
            (500.., _) => Error::Server { registry, retry_after: wait, request, answer },
            _ => Error::Refused { registry, request, answer },
        }
    }

    fn tried(&self) -> String {
        let tried = self.search.get().map_or_else(|| "tried without a login".into(), Search::tried);
        match self.scopes() {
            scopes if self.auth.wants_tokens() && !scopes.is_empty() => {
                format!("{tried}, for the scope `{}`", sanitise(&scopes.join(" "), 300))
            }
            _ => tried,
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    /// Token servers answer in one of these.
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

fn parse_answer(status: u16, body: &[u8]) -> Answer {
    let safe = |text: String| Some(sanitise(&text, 300)).filter(|text| !text.is_empty());
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(mut parsed) if !parsed.errors.is_empty() => {
            let first = parsed.errors.swap_remove(0);
            Answer {
                status,
                code: first.code.map(|code| sanitise(&code, 60)),
                message: first.message.and_then(safe),
            }
        }
        Ok(parsed) => Answer { status, code: None, message: parsed.details.or(parsed.error).and_then(safe) },
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let is_page = text.trim_start().starts_with('<');
            Answer { status, code: None, message: if is_page { None } else { safe(text.into_owned()) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_registries_token_servers_and_proxies_are_understood() {
        let registry =
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown\u001b[31m","detail":{}}]}"#;
        let answer = parse_answer(404, registry);
        assert_eq!(answer.to_string(), "HTTP 404 MANIFEST_UNKNOWN: manifest unknown\\u{1b}[31m");
        assert_eq!(parse_answer(401, br#"{"details":"wrong"}"#).to_string(), "HTTP 401: wrong");
        assert_eq!(parse_answer(502, b"<html>bad gateway</html>").to_string(), "HTTP 502");
        assert_eq!(parse_answer(404, b"404 page not found\n").to_string(), "HTTP 404: 404 page not found");
        assert_eq!(parse_answer(404, b"").to_string(), "HTTP 404");
    }
}
