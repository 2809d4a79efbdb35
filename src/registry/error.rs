//! What can go wrong with a registry.

use std::path::PathBuf;
use std::time::Duration;

use super::limits;
use crate::image::BoxError;
use crate::oci::{Digest, ManifestError};

/// What a registry answered beside the status: its error code and message, made safe to print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The code of the distribution specification (`MANIFEST_UNKNOWN`), when it sent one.
    pub code: Option<String>,
    /// What it said.
    pub message: Option<String>,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// What can go wrong with a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository is there, the tag or digest is not.
    #[error("`{reference}` is not known to the registry ({answer})")]
    UnknownManifest {
        /// The full reference.
        reference: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// The registry knows no such repository.
    #[error("repository `{repository}` does not exist or needs a login ({answer})")]
    UnknownRepository {
        /// Registry and repository.
        repository: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// A blob that a manifest names is not there.
    #[error("blob {digest} is not in `{repository}` ({answer})")]
    UnknownBlob {
        /// The blob.
        digest: Digest,
        /// Registry and repository.
        repository: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// The registry wants a login, or another one.
    #[error("{registry} refused to {action} `{repository}`: {tried} ({answer})")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// `pull` or `push`.
        action: &'static str,
        /// Which credentials were tried, without the secret.
        tried: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// The login is known and may not do this.
    #[error("{registry} denied to {action} `{repository}`: {tried} ({answer})")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// `pull` or `push`.
        action: &'static str,
        /// Which credentials were tried, without the secret.
        tried: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// A token ended while it was in use; the next try gets another.
    #[error("the login at {registry} expired during a transfer")]
    LoginExpired {
        /// The registry.
        registry: String,
    },
    /// User name or password are wrong.
    #[error("{registry} does not accept this user name and password ({answer})")]
    WrongPassword {
        /// The registry.
        registry: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// Too many requests.
    #[error("{registry} limits the rate of requests{}: {tried} ({answer})", wait(*.retry_after))]
    RateLimited {
        /// The registry.
        registry: String,
        /// After which time it wants to be asked again.
        retry_after: Option<Duration>,
        /// Which credentials were used.
        tried: String,
        /// What the registry answered.
        answer: Box<Answer>,
    },
    /// No connection.
    #[error("cannot reach {host}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Whether another try makes sense.
        temporary: bool,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The name has no address.
    #[error("cannot find the address of host `{host}`")]
    UnknownHost {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
    /// The TLS handshake failed.
    #[error("no secure connection to {host}")]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The other side does not speak TLS, and nothing allows plain http.
    #[error("{host} does not speak https, and plain http is not allowed for it")]
    PlainHttp {
        /// Host and port.
        host: String,
        /// What came instead of a handshake.
        #[source]
        source: BoxError,
    },
    /// Silence.
    #[error("{host} did not answer in time while {doing}")]
    Timeout {
        /// Host and port.
        host: String,
        /// What was waited for.
        doing: &'static str,
    },
    /// A stream stopped.
    #[error("{registry} sent nothing for {} s", .after.as_secs_f32())]
    Stalled {
        /// The registry.
        registry: String,
        /// How long nothing came.
        after: Duration,
    },
    /// A stream trickles.
    #[error("{registry} sends less than 1 KiB/s")]
    TooSlow {
        /// The registry.
        registry: String,
    },
    /// The time for everything is over.
    #[error("the time that --timeout gives is over, with {registry} still at work")]
    Deadline {
        /// The registry.
        registry: String,
    },
    /// A blob cannot be read in parts.
    #[error("{registry} does not send the parts of the blob that it is asked for")]
    NoParts {
        /// The registry.
        registry: String,
    },
    /// The registry has a fault of its own (5xx).
    #[error("{registry} failed at {request}{} ({answer})", wait(*.retry_after))]
    Server {
        /// The registry.
        registry: String,
        /// After which time it wants to be asked again.
        retry_after: Option<Duration>,
        /// Method and path.
        request: String,
        /// What it answered.
        answer: Box<Answer>,
    },
    /// The registry refused a request (4xx).
    #[error("{registry} refused {request} ({answer})")]
    Refused {
        /// The registry.
        registry: String,
        /// Method and path.
        request: String,
        /// What it answered.
        answer: Box<Answer>,
    },
    /// The registry broke the protocol.
    #[error("{registry} broke the protocol at {request}: {what}")]
    Protocol {
        /// The registry.
        registry: String,
        /// Method and path.
        request: String,
        /// Which rule.
        what: String,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects to `{to}`, which is refused: {why}")]
    Redirect {
        /// Who redirects.
        from: String,
        /// Where to, without its query.
        to: String,
        /// The reason.
        why: &'static str,
    },
    /// The token server is not one to send credentials to.
    #[error("{registry} names the token server `{realm}`, which is refused: {why}")]
    Realm {
        /// The registry.
        registry: String,
        /// The token server, without its query.
        realm: String,
        /// The reason.
        why: &'static str,
    },
    /// The bytes are not those that were asked for.
    #[error("{registry} served wrong bytes for {what}: expected {expected}, found {found}")]
    Corrupt {
        /// The registry.
        registry: String,
        /// Which document or blob.
        what: String,
        /// Digest or size promised.
        expected: String,
        /// Digest or size that came.
        found: String,
    },
    /// A stream ended early.
    #[error("{registry} sent only {got} of {size} bytes of {digest}")]
    Truncated {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Bytes that came in all.
        got: u64,
        /// Bytes there should be.
        size: u64,
    },
    /// A stream broke.
    #[error("the connection to {registry} broke")]
    Broken {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An upload that broke off could not be taken up where the registry said.
    #[error("{registry} did not take the rest of {digest}, whose upload had broken off")]
    NotTakenUp {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// What it answered.
        #[source]
        source: Box<Error>,
    },
    /// registries.conf forbids the registry.
    #[error("registry `{prefix}` is blocked by `{path}`")]
    Blocked {
        /// The blocked prefix.
        prefix: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// The user's policy does not let an image in.
    #[error("the policy in `{path}` does not let `{image}` in ({scope}): {why}")]
    Policy {
        /// The image.
        image: String,
        /// The policy file.
        path: PathBuf,
        /// Which part of it applies.
        scope: String,
        /// Why.
        why: String,
    },
    /// OpenPGP signatures are demanded and there is nothing to verify them with.
    #[error("the policy demands an OpenPGP signature, and `gpgv` to verify it is not installed")]
    NoVerifier,
    /// A configuration file cannot be used.
    #[error("cannot use `{path}`: {what}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// Why.
        #[source]
        source: Option<BoxError>,
    },
    /// An option or variable cannot be used.
    #[error("cannot use `{value}` of {name}: {what}")]
    Setting {
        /// The option or variable.
        name: &'static str,
        /// What it says, without secrets.
        value: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A credential helper cannot be used.
    #[error(
        "credential helper `docker-credential-{helper}`, named in `{path}`, failed to {operation}: {what}"
    )]
    Helper {
        /// The helper's suffix.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// `get`, `store` or `erase`.
        operation: &'static str,
        /// What it said, or why it was not run.
        what: String,
    },
    /// There is nowhere to keep a login.
    #[error(
        "cannot tell where to keep logins: HOME is not set and neither are DOCKER_CONFIG and REGISTRY_AUTH_FILE"
    )]
    NoAuthFile,
    /// There is no login for the registry.
    #[error("not logged in to {registry}")]
    NotLoggedIn {
        /// The registry.
        registry: String,
    },
    /// A proxy setting cannot be used. Its value may hold a password and is not shown.
    #[error("the proxy set in {variable} cannot be used")]
    Proxy {
        /// The environment variable.
        variable: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A name has no meaning for the operation.
    #[error("`{reference}` names content by digest, which cannot be pushed to: give a tag")]
    PushByDigest {
        /// The reference.
        reference: String,
    },
    /// A manifest is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

fn wait(retry_after: Option<Duration>) -> String {
    match retry_after {
        None => String::new(),
        Some(time) if time > limits::LONGEST_RETRY_AFTER => {
            format!(" and wants to be asked again in {} s only, which is too long to wait", time.as_secs())
        }
        Some(time) => format!(" (try again in {} s)", time.as_secs()),
    }
}

impl Error {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { temporary, .. } => *temporary,
            Self::Timeout { .. } | Self::Broken { .. } | Self::Truncated { .. } => true,
            Self::Stalled { .. } | Self::TooSlow { .. } => true,
            Self::RateLimited { .. } | Self::LoginExpired { .. } | Self::NotTakenUp { .. } => true,
            Self::Server { answer, .. } => matches!(answer.status, 500 | 502 | 503 | 504),
            Self::Refused { answer, .. } => matches!(answer.status, 408 | 425),
            _ => false,
        }
    }

    /// Whether the registry could not be asked at all: nothing was said about what was asked for.
    #[must_use]
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::UnknownHost { .. }) || self.is_temporary()
    }

    /// After which time the registry wants to be asked again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another place that serves the same image should be asked: anything but a statement about us.
    pub(super) fn lets_fall_back(&self) -> bool {
        !matches!(
            self,
            Self::Blocked { .. }
                | Self::Config { .. }
                | Self::Setting { .. }
                | Self::Helper { .. }
                | Self::Deadline { .. }
        )
    }

    /// What the user can do: commands where there are any.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Unauthorized { registry, .. } | Self::WrongPassword { registry, .. } => {
                vec![login(registry)]
            }
            Self::UnknownRepository { repository, .. } => {
                let registry = repository.split('/').next().unwrap_or_default();
                vec![format!("check the name; for a private repository: {}", login(registry))]
            }
            Self::UnknownManifest { reference, .. } => {
                vec![match reference.rsplit_once('@') {
                    Some((name, _)) => {
                        format!("check the digest: nothing that it names is in `{name}`, or not any more")
                    }
                    None => format!("check the tag of `{reference}`; it may have been moved or removed"),
                }]
            }
            Self::Denied { .. } => vec!["ask for the right, or log in as someone who has it".into()],
            Self::RateLimited { registry, .. } => vec![
                format!("a login has a higher limit: {}", login(registry)),
                "a mirror spares the limit: set one as [[registry.mirror]] in ~/.config/containers/registries.conf".into(),
            ],
            Self::PlainHttp { host, .. } => vec![format!(
                "if that is meant: --tls-verify=false, or for good `[[registry]]` with `prefix = \"{host}\"` and `insecure = true` in ~/.config/containers/registries.conf"
            )],
            Self::Tls { host, .. } => vec![
                format!(
                    "for a private authority put its certificate into ~/.config/containers/certs.d/{host}/ca.crt"
                ),
                "to accept any certificate this once: --tls-verify=false".into(),
            ],
            Self::Unreachable { host, .. } => vec![format!("check that the registry runs: curl -sI http://{host}/v2/")],
            Self::Corrupt { .. } => {
                vec!["the registry or something in between served wrong bytes: try again, or pull from a mirror".into()]
            }
            Self::Helper { helper, .. } => {
                vec![format!("install docker-credential-{helper}, or remove it from the file and log in again")]
            }
            Self::NotLoggedIn { registry } => vec![login(registry)],
            Self::Refused { request, answer, .. }
                if request.starts_with("PUT")
                    && request.contains("/manifests/")
                    && (answer.status == 415 || answer.code.as_deref() == Some("MANIFEST_INVALID")) =>
            {
                vec!["a registry that takes docker's manifests alone: push --format v2s2".into()]
            }
            Self::NoVerifier => vec!["install gpgv (Debian, Ubuntu: gpgv; Fedora: gnupg2)".into()],
            _ => Vec::new(),
        }
    }
}

fn login(registry: &str) -> String {
    if registry == crate::oci::DEFAULT_REGISTRY {
        "strate login".into()
    } else {
        format!("strate login {registry}")
    }
}

/// Text from outside, made safe for a terminal: no control characters, no direction marks, of limited length.
pub(super) fn sanitise(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for c in text.chars().take(limit) {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_outage() {
        let registry = || "r.example".to_owned();
        let away = Error::UnknownHost { host: registry(), source: None };
        assert!(away.is_out_of_reach() && Error::TooSlow { registry: registry() }.is_out_of_reach());
        let why = || "reject".to_owned();
        let policy = Error::Policy { image: registry(), path: "/p".into(), scope: why(), why: why() };
        let blocked = Error::Blocked { prefix: registry(), path: "/r".into() };
        let corrupt = Error::Corrupt { registry: registry(), what: why(), expected: why(), found: why() };
        for error in [policy, blocked, corrupt, Error::NoVerifier] {
            assert!(!error.is_out_of_reach(), "{error}");
        }
    }

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        assert_eq!(sanitise("a\x1b[31mb\nc\u{202e}d", 100), "a\\u{1b}[31mb cd");
        assert_eq!(sanitise("abcdef", 3), "abc…");
    }
}
