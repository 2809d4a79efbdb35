//! References: what a user types to name an image (distribution/reference grammar, written by hand because the
//! common regular expression costs 30 ms to compile).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::{Digest, DigestError};

/// The registry of names that do not say one.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of names that say neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// A full reference: registry, repository, and a tag or digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The grammar is broken.
    #[error("invalid reference `{text}`: {why}")]
    Invalid {
        /// What was typed.
        text: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The part after `@` is not a digest.
    #[error("invalid reference `{text}`")]
    Digest {
        /// What was typed.
        text: String,
        /// What is wrong with the digest.
        #[source]
        source: DigestError,
    },
}

impl Reference {
    /// Parse what a user typed: `alpine` means `docker.io/library/alpine:latest`.
    ///
    /// # Errors
    /// When the text breaks the grammar; the error says which rule.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let Parts { registry, repository, tag, digest } = Parts::parse(text)?;
        Ok(Self {
            registry: registry.into_owned(),
            repository: repository.into_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry: host and, when given, port.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository path below the registry (`library/alpine`).
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the registry API is asked for: the digest when there is one, else the tag.
    #[must_use]
    pub fn selector(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// The same repository under another tag.
    ///
    /// # Errors
    /// When `tag` is not a valid tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|why| ReferenceError::Invalid { text: tag.into(), why })?;
        Ok(Self { tag: Some(tag.into()), digest: None, ..self.clone() })
    }

    /// The same repository by digest alone.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same name and tag, with a digest: docker's way to call one image of an index.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Registry and repository without tag and digest, as docker shows them: `alpine`, `quay.io/a/b`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry == DEFAULT_REGISTRY {
            self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// The whole reference as docker shows it: `alpine:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    /// The full form: `docker.io/library/alpine:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.registry, self.repository)))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A reference that was checked and not copied, for who looks at thousands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    registry: Cow<'a, str>,
    repository: Cow<'a, str>,
    tag: Option<&'a str>,
    digest: Option<Digest>,
}

impl<'a> Parts<'a> {
    /// As [`Reference::parse`].
    ///
    /// # Errors
    /// When the text breaks the grammar; the error says which rule.
    pub fn parse(text: &'a str) -> Result<Self, ReferenceError> {
        let invalid = |why| ReferenceError::Invalid { text: text.chars().take(300).collect(), why };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid("64 hex digits are an image id, not a name"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|source| ReferenceError::Digest { text: text.into(), source })?;
                (rest, Some(digest))
            }
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (lower_case(first), path),
            _ => (Cow::Borrowed(DEFAULT_REGISTRY), name),
        };
        let registry = if registry == "index.docker.io" { Cow::Borrowed(DEFAULT_REGISTRY) } else { registry };
        let repository = match registry == DEFAULT_REGISTRY && !path.contains('/') {
            true => Cow::Owned(format!("library/{path}")),
            false => Cow::Borrowed(path),
        };
        check_registry(&registry).map_err(invalid)?;
        check_repository(&repository).map_err(invalid)?;
        if let Some(tag) = tag {
            check_tag(tag).map_err(invalid)?;
        }
        let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
        Ok(Self { registry, repository, tag, digest })
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name as [`Reference::familiar_name`] has it: a registry with its slash, and a repository.
    #[must_use]
    pub fn familiar_name(&self) -> [&str; 3] {
        match &*self.registry {
            DEFAULT_REGISTRY => {
                ["", "", self.repository.strip_prefix("library/").unwrap_or(&self.repository)]
            }
            registry => [registry, "/", &self.repository],
        }
    }

    /// Bytes of [`Parts::familiar`].
    #[must_use]
    pub fn familiar_length(&self) -> usize {
        let name: usize = self.familiar_name().iter().map(|part| part.len()).sum();
        let tag = self.tag.map_or(0, |tag| 1 + tag.len());
        name + tag + self.digest.as_ref().map_or(0, |digest| 1 + digest.as_str().len())
    }

    /// As [`Reference::familiar`].
    #[must_use]
    pub fn familiar(&self) -> String {
        let digest = self.digest.as_ref().map_or("", Digest::as_str);
        let [registry, slash, repository] = self.familiar_name();
        let (colon, tag) = self.tag.map_or(("", ""), |tag| (":", tag));
        [registry, slash, repository, colon, tag, if digest.is_empty() { "" } else { "@" }, digest].concat()
    }
}

/// Hosts are the same in either case, and policies and blocks are looked up by them.
fn lower_case(host: &str) -> Cow<'_, str> {
    match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

/// The first component is a registry when it has a dot or a port, is `localhost`, an IPv6 address or not lower case.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or("the IPv6 address has no closing `]`")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "the registry is not a valid IPv6 address")?;
            ("", after.strip_prefix(':').or(if after.is_empty() { None } else { Some("") }))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    if let Some(port) = port
        && port.parse::<u16>().is_err()
    {
        return Err("the registry's port is not a number up to 65535");
    }
    let good_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !registry.starts_with('[') && !host.split('.').all(good_label) {
        return Err("the registry is not a valid host name");
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), &'static str> {
    if repository.len() > 255 {
        return Err("the repository is longer than 255 characters");
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    if repository.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err("the repository may hold a-z, 0-9 and, between those, `.`, `_`, `__` or dashes")
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii() && alphanumeric(c as u8))
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        [first, rest @ ..]
            if word(*first) && rest.len() < 128 && rest.iter().all(|b| word(*b) || b".-".contains(b)) =>
        {
            Ok(())
        }
        _ => Err(
            "a tag may hold up to 128 letters, digits, `_`, `.` and `-`, and starts with neither `.` nor `-`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000/x:y"),
            ("Quay.IO/a/b:Tag", "quay.io/a/b:Tag", "quay.io/a/b:Tag"),
            ("INDEX.docker.io/x", "docker.io/library/x:latest", "x:latest"),
            ("Localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("a__b.c--d", "docker.io/library/a__b.c--d:latest", "a__b.c--d:latest"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            let parts = Parts::parse(text).unwrap();
            assert_eq!(parts.familiar(), familiar);
            assert_eq!(parts.familiar_length(), familiar.len());
            assert_eq!(parts.familiar_name().concat(), reference.familiar_name());
        }
    }

    #[test]
    fn a_digest_suppresses_the_default_tag() {
        let digest = Digest::sha256("x");
        let reference = Reference::parse(&format!("alpine@{digest}")).unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.selector(), digest.as_str());
        let both = Reference::parse(&format!("alpine:3@{digest}")).unwrap();
        assert_eq!((both.tag(), both.selector()), (Some("3"), digest.as_str()));
        let text = both.to_string();
        assert_eq!(Parts::parse(&text).unwrap().familiar(), both.familiar());
        assert_eq!(Parts::parse(&text).unwrap().familiar_length(), both.familiar().len());
    }

    #[test]
    fn hostile_and_broken_names_are_refused() {
        let digest = Digest::sha256("x");
        for bad in [
            "",
            ":",
            "a/../b",
            "a:..",
            "..:tag",
            "host:99999/x",
            "-flag",
            "Alpine",
            "a//b",
            "a/",
            "/a",
            "a b",
            "a___b",
            "a:",
            "a@",
            "exa mple.com/x",
            "[::1/x",
            "a:b:c",
            "é",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(Reference::parse(&format!("a@{digest}@{digest}")).is_err());
        assert!(Reference::parse(&"a".repeat(64)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
    }
}
