//! Answering a registry's challenges: Basic, and Bearer tokens from a token server (distribution-spec token
//! authentication; OAuth2 refresh for identity tokens). Tokens live in memory, for one origin.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::Method;

use super::http::{Call, Http, Payload, Response, check_target};
use super::origin::{Origin, Scheme, without_query};
use super::{Error, Login, Secret, limits};

/// How long a token lives when its server does not say (the specification's default), in seconds.
const DEFAULT_LIFE: u64 = 60;
/// A token is renewed this long before it ends, so that it does not end on the way.
const MARGIN: Duration = Duration::from_secs(10);

/// What a registry has asked for, and what it was given.
#[derive(Debug, Default)]
pub(super) struct Auth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing has been asked for yet.
    #[default]
    Open,
    /// The same header for everything.
    Fixed(Secret),
    Bearer(Bearer),
}

#[derive(Debug)]
struct Bearer {
    realm: String,
    service: Option<String>,
    /// A scope that the registry named itself and that asks for no more than we do.
    extra: Option<String>,
    tokens: HashMap<String, (Secret, Instant)>,
}

/// One challenge of a WWW-Authenticate header.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Why a token was not given.
#[derive(Debug)]
pub(super) enum TokenFailure {
    /// The server does not accept the login, or not for this.
    Refused(Box<Response>),
    /// Anything else.
    Failed(Error),
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response {}", self.status)
    }
}

impl From<Error> for TokenFailure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Auth {
    /// The Authorization header for a request to the registry, when it has asked for one before.
    pub fn header(
        &self,
        http: &Http,
        origin: &Origin,
        login: Option<&Login>,
        scopes: &[String],
    ) -> Result<Option<Secret>, TokenFailure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Open => Ok(None),
            State::Fixed(header) => Ok(Some(header.clone())),
            State::Bearer(bearer) => bearer.header(http, origin, login, scopes).map(Some),
        }
    }

    /// Take in a 401. Whether another try with [`Auth::header`] makes sense comes back.
    pub fn challenged(
        &self,
        response: &Response,
        used: Option<&Secret>,
        login: Option<&Login>,
        scopes: &[String],
    ) -> Result<bool, Error> {
        let challenges: Vec<Challenge> = response
            .headers
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Login::Bearer(token)) = login {
            let header = Secret::new(format!("Bearer {}", token.expose()));
            let new = used != Some(&header);
            *state = State::Fixed(header);
            return Ok(new);
        }
        if let Some(challenge) = challenges.iter().find(|c| c.scheme == "bearer") {
            return state.bearer(&response.origin, challenge, used, scopes);
        }
        if challenges.iter().any(|c| c.scheme == "basic")
            && let Some(Login::Password { user, password }) = login
        {
            let header = basic(user, password);
            let new = used != Some(&header);
            *state = State::Fixed(header);
            return Ok(new);
        }
        Ok(false)
    }

    /// Whether the registry has asked for tokens, which are for a scope.
    pub fn wants_tokens(&self) -> bool {
        matches!(&*self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Bearer(_))
    }

    /// Forget tokens: the registry no longer takes one that seemed good.
    pub fn forget(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Bearer(bearer) = &mut *state {
            bearer.tokens.clear();
        }
    }
}

impl State {
    fn bearer(
        &mut self,
        origin: &Origin,
        challenge: &Challenge,
        used: Option<&Secret>,
        scopes: &[String],
    ) -> Result<bool, Error> {
        let realm = challenge.get("realm").unwrap_or_default();
        check_realm(origin, realm)?;
        if let Self::Bearer(bearer) = self {
            // A token that was refused is dropped; one that another thread has fetched meanwhile is tried.
            bearer.tokens.retain(|_, (token, _)| Some(&*token) != used);
        }
        let known = matches!(self, Self::Bearer(bearer) if bearer.realm == realm);
        if !known {
            *self = Self::Bearer(Bearer {
                realm: realm.to_owned(),
                service: challenge.get("service").map(str::to_owned),
                extra: None,
                tokens: HashMap::new(),
            });
        }
        if let (Self::Bearer(bearer), Some(scope)) = (self, challenge.get("scope"))
            && !scopes.iter().any(|s| s == scope)
            && asks_no_more(scope, scopes)
        {
            bearer.extra = Some(scope.to_owned());
        }
        Ok(true)
    }
}

/// Whether a scope that a registry names is for one repository and no right beyond those we ask for.
fn asks_no_more(scope: &str, scopes: &[String]) -> bool {
    let actions_of = |scope: &str| scope.rsplit_once(':').map(|(_, actions)| actions.to_owned());
    let ours: Vec<String> = scopes.iter().filter_map(|s| actions_of(s)).collect();
    scope.starts_with("repository:")
        && !scope.contains(char::is_whitespace)
        && actions_of(scope).is_some_and(|actions| {
            actions.split(',').all(|action| ours.iter().any(|o| o.split(',').any(|o| o == action)))
        })
}

/// A token server gets credentials: it must be reached over https, or be the same insecure host as the registry.
fn check_realm(origin: &Origin, realm: &str) -> Result<(), Error> {
    let refused = |why| Error::Realm { registry: origin.host_port(), realm: without_query(realm), why };
    let target = Origin::of_url(realm).ok_or_else(|| refused("it is not an http address"))?;
    let same_insecure = origin.scheme == Scheme::Http
        && (target.host == origin.host || (target.is_loopback() && origin.is_loopback()));
    if target.scheme == Scheme::Http && !same_insecure {
        return Err(refused("it is not reached over https"));
    }
    check_target(origin, &target).map_err(refused)
}

impl Bearer {
    fn header(
        &mut self,
        http: &Http,
        origin: &Origin,
        login: Option<&Login>,
        scopes: &[String],
    ) -> Result<Secret, TokenFailure> {
        let mut scopes = scopes.to_vec();
        scopes.extend(self.extra.clone());
        scopes.sort();
        scopes.dedup();
        let key = scopes.join(" ");
        if let Some((token, until)) = self.tokens.get(&key)
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let (token, life) = self.fetch(http, origin, login, &scopes)?;
        let header = Secret::new(format!("Bearer {}", token.expose()));
        // A life shorter than the margin still lets the token be used once or twice instead of being fetched for ever.
        let until = Instant::now() + life.saturating_sub(MARGIN).max(Duration::from_secs(5));
        self.tokens.insert(key, (header.clone(), until));
        Ok(header)
    }

    fn fetch(
        &self,
        http: &Http,
        origin: &Origin,
        login: Option<&Login>,
        scopes: &[String],
    ) -> Result<(Secret, Duration), TokenFailure> {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if let Some(service) = &self.service {
            fields.push(("service", service));
        }
        fields.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let joined = scopes.join(" ");
        let form;
        let mut call = Call {
            method: Method::GET,
            url: self.realm.clone(),
            headers: Vec::new(),
            authorization: None,
            payload: Payload::Empty,
            confidential: false,
            response_timeout: limits::RESPONSE_TIMEOUT,
            streaming: false,
        };
        match login {
            Some(Login::Identity(token)) => {
                fields.retain(|(key, _)| *key != "scope");
                fields.extend([
                    ("scope", joined.as_str()),
                    ("grant_type", "refresh_token"),
                    ("client_id", "strate"),
                    ("refresh_token", token.expose()),
                ]);
                form = encode(&fields);
                call.method = Method::POST;
                call.headers.push(("content-type", "application/x-www-form-urlencoded".into()));
                call.payload = Payload::Bytes(form.as_bytes());
                call.confidential = true;
            }
            other => {
                if let Some(Login::Password { user, password }) = other {
                    fields.push(("account", user));
                    call.authorization = Some(basic(user, password));
                }
                let separator = if self.realm.contains('?') { '&' } else { '?' };
                call.url = format!("{}{separator}{}", self.realm, encode(&fields));
            }
        }
        let response = http.send(call)?;
        match response.status {
            200 => parse_token(origin, response).map_err(TokenFailure::Failed),
            _ => Err(TokenFailure::Refused(Box::new(response))),
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

fn parse_token(origin: &Origin, response: Response) -> Result<(Secret, Duration), Error> {
    let broken = |what: &str| Error::Protocol {
        registry: origin.host_port(),
        request: "the request for a token".into(),
        what: what.into(),
    };
    let bytes =
        response.document(limits::TOKEN_BYTES)?.ok_or_else(|| broken("the answer is longer than 1 MiB"))?;
    // serde's message would quote the answer, which holds the token.
    let answer: TokenAnswer =
        serde_json::from_slice(&bytes).map_err(|_| broken("the answer is not the expected JSON"))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(broken("the answer holds no usable token"));
    }
    let life = answer.expires_in.unwrap_or(DEFAULT_LIFE).min(24 * 3600);
    Ok((Secret::new(token), Duration::from_secs(life)))
}

fn basic(user: &str, password: &Secret) -> Secret {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose()))))
}

fn encode(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}={}", percent(key), percent(value))).collect();
    pairs.join("&")
}

/// Percent-encode a query value (RFC 3986, unreserved characters stay).
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push('%');
            out.extend([byte >> 4, byte & 15].iter().filter_map(|d| char::from_digit(u32::from(*d), 16)));
        }
    }
    out
}

/// Parse a WWW-Authenticate header (RFC 9110 section 11.6.1): challenges with parameters, several in one header.
fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if end == 0 {
            return challenges;
        }
        let (word, after) = rest.split_at(end);
        let after_space = after.trim_start_matches([' ', '\t']);
        let Some(value) = after_space.strip_prefix('=') else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            rest = after;
            continue;
        };
        let (value, left) = parse_value(value.trim_start_matches([' ', '\t']));
        if let Some(challenge) = challenges.last_mut() {
            challenge.parameters.push((word.to_ascii_lowercase(), value));
        }
        rest = left;
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((i, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[i + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed_in_all_their_forms() {
        let header = r#"Basic realm="a, \"b\"", Bearer realm="https://t.example/token?x=1",service=r.example , scope="repository:a:pull,push", Negotiate"#;
        let challenges = parse_challenges(header);
        assert_eq!(challenges.len(), 3);
        assert_eq!(challenges[0].get("realm"), Some("a, \"b\""));
        assert_eq!(challenges[1].get("realm"), Some("https://t.example/token?x=1"));
        assert_eq!(challenges[1].get("service"), Some("r.example"));
        assert_eq!(challenges[1].get("scope"), Some("repository:a:pull,push"));
        assert_eq!(challenges[2].scheme, "negotiate");
        for odd in ["", "=", "Bearer", "Bearer realm=", "Bearer realm=\"open", "\"", ",,,"] {
            parse_challenges(odd);
        }
    }

    #[test]
    fn token_servers_must_be_fit_to_get_a_password() {
        let https = Origin::of_url("https://r.example").unwrap();
        let http = Origin::of_url("http://r.example:5000").unwrap();
        let loopback = Origin::of_url("http://127.0.0.1:5000").unwrap();
        for (origin, realm, good) in [
            (&https, "https://auth.example/token", true),
            (&https, "http://auth.example/token", false),
            (&https, "http://r.example/token", false),
            (&https, "https://127.0.0.1/token", false),
            (&https, "https://169.254.169.254/token", false),
            (&https, "gopher://auth.example/", false),
            (&https, "/token", false),
            (&https, "", false),
            (&http, "http://r.example:5001/token", true),
            (&http, "http://other.example/token", false),
            (&http, "https://auth.example/token", true),
            (&loopback, "http://127.0.0.1:5001/token", true),
            (&loopback, "http://localhost:5001/token", true),
            (&loopback, "http://other.example/token", false),
        ] {
            assert_eq!(check_realm(origin, realm).is_ok(), good, "{origin} {realm}");
        }
    }

    #[test]
    fn a_registry_cannot_make_us_ask_for_more_than_we_need() {
        let ours = ["repository:a/b:pull".to_owned()];
        assert!(asks_no_more("repository:proxy/a/b:pull", &ours));
        for more in [
            "repository:a/b:pull,push",
            "repository:a/b:*",
            "registry:catalog:*",
            "repository:a:pull repository:b:push",
            "x",
        ] {
            assert!(!asks_no_more(more, &ours), "{more}");
        }
    }
}
