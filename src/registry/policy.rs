//! policy.json (containers-policy.json(5)): which images are let in, and by which signatures.
//!
//! The file is the user's, else the system's; without one everything is let in. What it demands is verified or refused
//! by name, never passed over. The signatures themselves are `signature.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Error;
use super::places::lower_host;
use super::settings::{Settings, read_file};
use crate::image::Location;
use crate::oci::Reference;

/// The variable that names the file, which `--signature-policy` sets for one command.
const VARIABLE: &str = "STRATE_SIGNATURE_POLICY";
/// The variable that turns the policy off, which `--insecure-policy` sets for one command.
const INSECURE: &str = "STRATE_INSECURE_POLICY";

/// A policy, and the file that says it.
#[derive(Debug)]
pub(super) struct Policy {
    pub path: PathBuf,
    file: File,
}

/// What applies to an image: all of these.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    /// Where in the file they stand.
    pub scope: String,
    pub requirements: &'a [Requirement],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: Strict<Strict<Vec<Requirement>>>,
}

/// One requirement.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Requirement {
    InsecureAcceptAnything {},
    Reject {},
    #[serde(rename_all = "camelCase")]
    SignedBy {
        key_type: String,
        key_path: Option<PathBuf>,
        key_paths: Option<Vec<PathBuf>>,
        key_data: Option<String>,
        signed_identity: Option<Identity>,
    },
    /// Reserved in the format and never implemented by anyone.
    #[serde(rename_all = "camelCase")]
    SignedBaseLayer {
        #[allow(dead_code, reason = "refused whatever it says")]
        base_layer_identity: serde_json::Value,
    },
    #[serde(rename_all = "camelCase")]
    SigstoreSigned(Box<Sigstore>),
}

/// `sigstoreSigned`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Sigstore {
    pub key_path: Option<PathBuf>,
    pub key_paths: Option<Vec<PathBuf>>,
    pub key_data: Option<String>,
    pub key_datas: Option<Vec<String>>,
    pub fulcio: Option<serde_json::Value>,
    pub pki: Option<serde_json::Value>,
    pub rekor_public_key_path: Option<serde_json::Value>,
    pub rekor_public_key_paths: Option<serde_json::Value>,
    pub rekor_public_key_data: Option<serde_json::Value>,
    pub rekor_public_key_datas: Option<serde_json::Value>,
    pub signed_identity: Option<Identity>,
}

/// `signedIdentity`: which name a signature must be for.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Identity {
    MatchExact {},
    MatchRepoDigestOrExact {},
    MatchRepository {},
    #[serde(rename_all = "camelCase")]
    ExactReference {
        docker_reference: String,
    },
    #[serde(rename_all = "camelCase")]
    ExactRepository {
        docker_repository: String,
    },
    #[serde(rename = "remapIdentity", rename_all = "camelCase")]
    Remap {
        prefix: String,
        signed_prefix: String,
    },
}

/// A JSON object in which no key stands twice: the later one would silently win.
#[derive(Debug)]
struct Strict<T>(BTreeMap<String, T>);

impl<T> Default for Strict<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Strict<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Strict<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if entries.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("duplicate field `{key}`")));
                    }
                }
                Ok(Strict(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl Policy {
    /// Read the policy: none with `--insecure-policy`, else `--signature-policy`, else `~/.config/containers/policy.json`, else
    /// `/etc/containers/policy.json`. `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Config`] when a file cannot be read or is not strictly right.
    pub fn load(settings: &Settings) -> Result<Option<Self>, Error> {
        if settings.var(INSECURE).is_some_and(|value| value == "1") {
            return Ok(None);
        }
        if let Some(path) = settings.var(VARIABLE) {
            let path = Path::new(path);
            let Some(text) = read_file(path)? else {
                return Err(Error::Config {
                    path: path.to_owned(),
                    what: "there is no such file",
                    source: None,
                });
            };
            return Self::parse(path, &text).map(Some);
        }
        let user = settings.config_home().map(|directory| directory.join("containers/policy.json"));
        for path in [user, Some(PathBuf::from("/etc/containers/policy.json"))].into_iter().flatten() {
            if let Some(text) = read_file(&path)? {
                return Self::parse(&path, &text).map(Some);
            }
        }
        Ok(None)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let broken = |source: crate::image::BoxError| Error::Config {
            path: path.to_owned(),
            what: "it is not a valid policy.json (containers-policy.json(5))",
            source: Some(source),
        };
        let mut file: File = serde_json::from_str(text).map_err(|error| broken(error.into()))?;
        if let Some(scopes) = file.transports.0.get_mut("docker") {
            for (scope, requirements) in std::mem::take(&mut scopes.0) {
                let lower = lower_host(&scope);
                if scopes.0.insert(lower, requirements).is_some() {
                    return Err(broken(format!("the scope `{scope}` stands there twice").into()));
                }
            }
        }
        let all = file.transports.0.values().flat_map(|scopes| scopes.0.values());
        if all.chain([&file.default]).any(Vec::is_empty) {
            return Err(broken("a list of requirements is empty".into()));
        }
        for (transport, scopes) in &file.transports.0 {
            if matches!(transport.as_str(), "dir" | "oci" | "oci-archive")
                && let Some(scope) = scopes.0.keys().find(|scope| !scope.is_empty() && !is_clean_path(scope))
            {
                return Err(broken(format!("`{scope}` is not an absolute path without `.` and `..`").into()));
            }
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// What applies to an image of a registry.
    pub fn for_registry(&self, name: &Reference) -> Rules<'_> {
        self.find("docker", &scopes(name))
    }

    /// What applies to an image in a file or directory.
    pub fn for_path(&self, transport: &str, path: &Path, name: Option<&str>) -> Rules<'_> {
        let mut scopes = Vec::new();
        let mut path = path.to_string_lossy().into_owned();
        scopes.extend(name.map(|name| format!("{path}:{name}")));
        while path.len() > 1 {
            scopes.push(path.clone());
            path.truncate(path.rfind('/').unwrap_or(0));
        }
        self.find(transport, &scopes)
    }

    /// The most specific requirements alone count.
    fn find(&self, transport: &str, scopes: &[String]) -> Rules<'_> {
        let Some(known) = self.file.transports.0.get(transport) else {
            return Rules { scope: "default".into(), requirements: &self.file.default };
        };
        for scope in scopes {
            if let Some(requirements) = known.0.get(scope) {
                return Rules { scope: format!("{transport} `{scope}`"), requirements };
            }
        }
        match known.0.get("") {
            Some(requirements) => Rules { scope: format!("all of {transport}"), requirements },
            None => Rules { scope: "default".into(), requirements: &self.file.default },
        }
    }

    /// The error that says that an image is not let in.
    pub fn refusal(&self, image: impl fmt::Display, rules: &Rules<'_>, why: impl Into<String>) -> Error {
        Error::Policy {
            image: image.to_string(),
            path: self.path.clone(),
            scope: rules.scope.clone(),
            why: why.into(),
        }
    }
}

/// Whether the policy lets images in from a place. A registry's own are asked about one by one, when they are read
/// ([`crate::image::Source::admit`]); what our store holds was let in before. Files and directories carry no signatures
/// that could be verified, so there a demand for one is refused.
///
/// # Errors
/// [`Error::Policy`], [`Error::Config`].
pub fn admit_location(settings: &Settings, location: &Location) -> Result<(), Error> {
    let (transport, path, name) = match location {
        Location::Registry(_) | Location::Store(_) => return Ok(()),
        Location::OciDir { path, name } => ("oci", path, name.as_deref()),
        Location::OciArchive { path, name } => ("oci-archive", path, name.as_deref()),
        Location::DockerArchive { path, name } => ("docker-archive", path, name.as_deref()),
        Location::Dir(path) => ("dir", path, None),
    };
    let Some(policy) = Policy::load(settings)? else { return Ok(()) };
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let rules = policy.for_path(transport, &real, name);
    for requirement in rules.requirements {
        let why = match requirement {
            Requirement::InsecureAcceptAnything {} => continue,
            Requirement::Reject {} => "it says `reject`".to_owned(),
            _ => format!(
                "it demands a signature, and what lies in {transport}: carries none that can be verified"
            ),
        };
        return Err(policy.refusal(location, &rules, why));
    }
    Ok(())
}

/// The scopes that an image of a registry is in, most specific first.
pub(super) fn scopes(name: &Reference) -> Vec<String> {
    let full = format!("{}/{}", name.registry(), name.repository());
    let mut scopes = Vec::new();
    scopes.extend(name.digest().map(|digest| format!("{full}@{digest}")));
    scopes.extend(name.tag().map(|tag| format!("{full}:{tag}")));
    let mut rest = full.as_str();
    loop {
        scopes.push(rest.to_owned());
        match rest.rsplit_once('/') {
            Some((above, _)) => rest = above,
            None => break,
        }
    }
    let mut host = rest.split(':').next().unwrap_or(rest);
    while let Some((_, domain)) = host.split_once('.') {
        scopes.push(format!("*.{domain}"));
        host = domain;
    }
    scopes
}

fn is_clean_path(scope: &str) -> bool {
    let path = scope.split(':').next().unwrap_or(scope);
    path.len() > 1
        && path.starts_with('/')
        && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A name in a signature or policy: a repository, and what it says of tag and digest.
#[derive(Debug, PartialEq, Eq)]
struct SignedName {
    repository: String,
    exact: Option<String>,
}

impl SignedName {
    /// Read one as people write it; nothing is added to it but the registry and `library/`.
    fn parse(text: &str) -> Option<Self> {
        let parsed = Reference::parse(text).ok()?;
        let repository = format!("{}/{}", parsed.registry(), parsed.repository());
        let says_tag = text.split('@').next()?.rsplit('/').next()?.contains(':');
        let mut exact = String::new();
        if let Some(tag) = parsed.tag().filter(|_| says_tag) {
            exact.push(':');
            exact.push_str(tag);
        }
        if let Some(digest) = parsed.digest() {
            exact.push('@');
            exact.push_str(digest.as_str());
        }
        Some(Self { repository, exact: (!exact.is_empty()).then_some(exact) })
    }

    fn is_exactly(&self, other: &Self) -> bool {
        self.exact.is_some() && self == other
    }
}

impl Identity {
    /// Whether a signature for `signed` is one for `image`.
    pub fn accepts(&self, image: &Reference, signed: &str) -> bool {
        let Some(signed) = SignedName::parse(signed) else { return false };
        let own = SignedName::parse(&image.to_string());
        let Some(own) = own else { return false };
        let named = |text: &String| SignedName::parse(text);
        match self {
            Self::MatchExact {} => own.is_exactly(&signed),
            Self::MatchRepoDigestOrExact {} => repo_digest_or_exact(image, &own, &signed),
            Self::MatchRepository {} => own.repository == signed.repository,
            Self::ExactReference { docker_reference } => {
                named(docker_reference).is_some_and(|wanted| wanted.is_exactly(&signed))
            }
            Self::ExactRepository { docker_repository } => {
                named(docker_repository).is_some_and(|wanted| wanted.repository == signed.repository)
            }
            Self::Remap { prefix, signed_prefix } => {
                let (prefix, signed_prefix) = (lower_host(prefix), lower_host(signed_prefix));
                let repository = match super::places::matched(&prefix, &own.repository) {
                    Some(length) => format!("{signed_prefix}{}", &own.repository[length..]),
                    None => own.repository.clone(),
                };
                repo_digest_or_exact(image, &SignedName { repository, ..own }, &signed)
            }
        }
    }
}

fn repo_digest_or_exact(image: &Reference, own: &SignedName, signed: &SignedName) -> bool {
    // The digest of the name is what the bytes are verified against, so the repository is enough.
    if image.digest().is_some() { own.repository == signed.repository } else { own.is_exactly(signed) }
}

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
