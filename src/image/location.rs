//! Where an image is, in the words of containers-transports(5): `docker://NAME`, `oci:DIR[:REF]` and the like.

use std::fmt;
use std::path::PathBuf;

use crate::oci::{Reference, ReferenceError};

/// A place of an image, as it is written on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker://NAME`: a registry.
    Registry(Reference),
    /// `containers-storage:NAME` or `store:NAME`: our own store. A name or an id.
    Store(String),
    /// `oci:DIR[:REF]`: an OCI layout in a directory.
    OciDir {
        /// The directory.
        path: PathBuf,
        /// Which image of it; any string, or `@N` for the Nth.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:REF]`: an OCI layout in a tar. `-` is standard input or output.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Which image of it; any string, or `@N` for the Nth.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes. `-` is standard input or output.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image of it: a name, or `@N` for the Nth.
        name: Option<String>,
    },
    /// `dir:PATH`: manifest and blobs as plain files, as skopeo writes them.
    Dir(PathBuf),
}

/// Text that is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// No transport is named.
    #[error("`{0}` does not say where the image is: write `docker://{0}` for a registry")]
    NoTransport(String),
    /// An unknown transport.
    #[error(
        "`{0}` is not a transport: there are docker://, oci:, oci-archive:, docker-archive:, dir: and store:"
    )]
    Unknown(String),
    /// A transport of others whose store has another owner.
    #[error("`{0}:` is not a transport of strate")]
    Foreign(&'static str),
    /// A transport without what must follow it.
    #[error("`{0}` lacks a path")]
    NoPath(String),
    /// A bad name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl Location {
    /// Parse `TRANSPORT:REST`.
    ///
    /// # Errors
    /// See [`LocationError`].
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let (transport, rest) =
            text.split_once(':').ok_or_else(|| LocationError::NoTransport(text.to_owned()))?;
        let file = || split_path(text, rest);
        Ok(match transport {
            "docker" => match rest.strip_prefix("//") {
                Some(name) => Self::Registry(Reference::parse(name)?),
                None => return Err(LocationError::NoPath(text.to_owned())),
            },
            "containers-storage" | "store" if !rest.is_empty() => Self::Store(rest.to_owned()),
            "oci" => file().map(|(path, name)| Self::OciDir { path, name })?,
            "oci-archive" => file().map(|(path, name)| Self::OciArchive { path, name })?,
            "docker-archive" => file().map(|(path, name)| Self::DockerArchive { path, name })?,
            "dir" if !rest.is_empty() => Self::Dir(rest.into()),
            "dir" | "store" | "containers-storage" => return Err(LocationError::NoPath(text.to_owned())),
            foreign if FOREIGN.contains(&foreign) => return Err(LocationError::foreign(foreign)),
            // `NAME:TAG`, or `HOST:PORT/NAME`.
            _ if Reference::parse(text).is_ok() => return Err(LocationError::NoTransport(text.to_owned())),
            _ => return Err(LocationError::Unknown(transport.to_owned())),
        })
    }

    /// Whether text begins with a transport, and so is meant as a location and not as a plain image name. A transport's
    /// word and a colon always are one, as podman has it: an image of that name is written with its registry,
    /// `docker.io/library/oci:TAG`. Only `docker` needs its `//`.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.split_once(':').is_some_and(|(transport, rest)| match transport {
            "docker" => rest.starts_with("//"),
            "containers-storage" | "store" | "oci" | "oci-archive" | "docker-archive" | "dir" => true,
            other => FOREIGN.contains(&other),
        })
    }
}

/// Transports of podman and skopeo that reach what only other programs can read.
const FOREIGN: [&str; 4] = ["docker-daemon", "ostree", "sif", "tarball"];

impl LocationError {
    fn foreign(transport: &str) -> Self {
        Self::Foreign(FOREIGN.iter().find(|known| **known == transport).copied().unwrap_or_default())
    }

    /// The command that helps.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Foreign("docker-daemon") => Some("`docker save IMAGE | strate load` brings an image over"),
            Self::Foreign("tarball") => Some("`strate import FILE NAME` makes an image of a tar of files"),
            Self::Foreign(_) => Some("save the image there as an OCI archive, and use oci-archive:FILE"),
            _ => None,
        }
    }
}

/// The path ends at the first colon.
fn split_path(text: &str, rest: &str) -> Result<(PathBuf, Option<String>), LocationError> {
    let (path, name) = match rest.split_once(':') {
        Some((path, name)) => (path, Some(name).filter(|name| !name.is_empty())),
        None => (rest, None),
    };
    if path.is_empty() {
        return Err(LocationError::NoPath(text.to_owned()));
    }
    Ok((path.into(), name.map(str::to_owned)))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, name) = match self {
            Self::Registry(name) => return write!(f, "docker://{name}"),
            Self::Store(name) => return write!(f, "store:{name}"),
            Self::Dir(path) => return write!(f, "dir:{}", path.display()),
            Self::OciDir { path, name } => ("oci", path, name),
            Self::OciArchive { path, name } => ("oci-archive", path, name),
            Self::DockerArchive { path, name } => ("docker-archive", path, name),
        };
        write!(f, "{transport}:{}", path.display())?;
        name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_told_apart() {
        for (text, shown) in [
            ("docker://alpine", "docker://docker.io/library/alpine:latest"),
            ("docker://h:5000/a/b:c", "docker://h:5000/a/b:c"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:dir:name:tag", "oci:dir:name:tag"),
            ("oci-archive:f.tar:@1", "oci-archive:f.tar:@1"),
            ("docker-archive:-", "docker-archive:-"),
            ("docker-archive:x.tar:a/b:c", "docker-archive:x.tar:a/b:c"),
            ("dir:/x:y", "dir:/x:y"),
            ("containers-storage:alpine", "store:alpine"),
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), shown);
            assert!(Location::is_meant(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_location_says_why() {
        assert!(matches!(Location::parse("alpine"), Err(LocationError::NoTransport(_))));
        assert!(matches!(Location::parse("alpine:3"), Err(LocationError::NoTransport(_))));
        assert!(matches!(Location::parse("h:5000/a"), Err(LocationError::NoTransport(_))));
        assert!(matches!(Location::parse("oci:"), Err(LocationError::NoPath(_))));
        assert!(matches!(Location::parse("docker:x"), Err(LocationError::NoPath(_))));
        assert!(matches!(Location::parse("zip://a"), Err(LocationError::Unknown(_))));
        let foreign = Location::parse("docker-daemon:alpine:3").unwrap_err();
        assert!(foreign.hint().unwrap().contains("docker save"));
        assert!(Location::is_meant("docker-daemon:alpine"));
        assert!(matches!(Location::parse("docker://UPPER"), Err(LocationError::Reference(_))));
        for text in ["dir:d", "oci:latest", "store:bb", "oci-archive:f", "oci:", "docker-archive:x"] {
            assert!(Location::is_meant(text), "{text}");
        }
        for text in ["docker.io/library/dir:latest", "dir", "store/oci:1", "localhost/oci:latest", "docker"] {
            assert!(!Location::is_meant(text), "{text}");
        }
        assert!(!Location::is_meant("docker:24-dind"));
    }
}
