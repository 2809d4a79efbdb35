//! What a build takes from elsewhere: files by their address, images in layouts. Repositories are `git.rs`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::git::Git;
use crate::build::git_ref::{GitRef, redacted};
use crate::build::{Checkout, Commit, Download, Remote};
use crate::context::Context;
use crate::image::{BoxError, Location, Platforms, Reporter, Selection, copy};
use crate::oci::{Digest, Platform, digest_of};
use crate::ops::remote::RemoteOptions;
use crate::ops::transport::Input;
use crate::registry::{self, Known, Secret};
use crate::storage::{Image, Store};

/// The largest file that is fetched, in bytes.
const MAX_BYTES: u64 = 64 << 30;
/// What a file is that is nothing more special.
const MEDIA_TYPE: &str = "application/octet-stream";
/// Layers that move at once.
const JOBS: usize = 3;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server has another answer than the file.
    #[error("invalid response status {0}")]
    Status(u16),
    /// The file does not end.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The content broke off or cannot be decompressed.
    #[error("the content could not be read")]
    Content(#[source] io::Error),
    /// The file could not be kept.
    #[error("the content could not be kept")]
    Keep(#[source] io::Error),
    /// A layout has no image with this digest.
    #[error("`{place}` has no image {digest}")]
    NoImage {
        /// The layout.
        place: String,
        /// What was asked for.
        digest: String,
    },
}

/// Fetches into a store.
#[derive(Clone, Copy)]
pub(super) struct Fetcher<'a> {
    pub cx: &'a Context,
    pub store: &'a Store,
    pub secrets: &'a BTreeMap<String, Vec<u8>>,
    /// The agent that `--ssh default` names.
    pub agent: Option<&'a Path>,
    /// Options of registries, which hold for files too.
    pub remote: &'a RemoteOptions,
}

/// What is remembered of a file: what to tell the server, and which blob it was.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    digest: Digest,
    size: u64,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Record {
    fn download(&self) -> Download {
        let modified = self.last_modified.as_deref().and_then(registry::http_time);
        Download { digest: self.digest.clone(), size: self.size, modified }
    }
}

impl Fetcher<'_> {
    /// What an earlier build fetched from there, when it is still here.
    fn known(&self, key: &str) -> Result<Option<Record>, BoxError> {
        let Some(bytes) = self.store.cache_get(key)? else { return Ok(None) };
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        Ok(self.store.has_blob(&record.digest, record.size)?.then_some(record))
    }

    /// The credentials that were given as secrets for a host: `HTTP_AUTH_HEADER_host`, `HTTP_AUTH_TOKEN_host`.
    fn authorization(&self, url: &str) -> Option<Secret> {
        let rest = url.split_once("://")?.1;
        let authority = rest.split(['/', '?', '#']).next()?;
        let with_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = match with_port.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => with_port,
        };
        let secret = |kind: &str| {
            let names = [format!("{kind}_{with_port}"), format!("{kind}_{host}")];
            let value = names.iter().find_map(|name| self.secrets.get(name))?;
            Some(String::from_utf8_lossy(value).trim().to_owned())
        };
        let header = secret("HTTP_AUTH_HEADER");
        header.or_else(|| secret("HTTP_AUTH_TOKEN").map(|token| format!("Bearer {token}"))).map(Secret::new)
    }

    fn git(&self) -> Git<'_> {
        Git { cx: self.cx, store: self.store, secrets: self.secrets, agent: self.agent }
    }

    fn keep(&self, content: Box<dyn Read + Send>, moved: &dyn Fn(u64)) -> Result<(Digest, u64), BoxError> {
        let mut out = self.store.blob_writer()?;
        let mut content = content.take(MAX_BYTES + 1);
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0_u64;
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FetchError::Content(error).into()),
            };
            size += n as u64;
            if size > MAX_BYTES {
                return Err(FetchError::TooLarge.into());
            }
            out.write_all(&buffer[..n]).map_err(FetchError::Keep)?;
            moved(size);
        }
        let kept = out.publish(self.store, MEDIA_TYPE)?;
        Ok((digest_of(&kept)?, kept.size()))
    }
}

impl Remote for Fetcher<'_> {
    fn download(&self, url: &str, moved: &dyn Fn(u64, u64)) -> Result<Download, BoxError> {
        let key = format!("http-{}", Digest::sha256(url).hex());
        let before = self.known(&key)?;
        let known = before
            .as_ref()
            .map(|record| Known { etag: record.etag.clone(), last_modified: record.last_modified.clone() });
        // A login for a registry is none for whoever serves a file.
        let settings = RemoteOptions { creds: None, ..self.remote.clone() }.settings(self.cx);
        let authorization = self.authorization(url);
        let fetched = registry::download(&settings, url, &known.unwrap_or_default(), authorization.as_ref())?;
        if let (304, Some(record)) = (fetched.status, &before) {
            return Ok(record.download());
        }
        if !(200..300).contains(&fetched.status) {
            return Err(FetchError::Status(fetched.status).into());
        }
        let (digest, size) =
            self.keep(fetched.content, &|bytes| moved(bytes, fetched.length.unwrap_or(0)))?;
        let record = Record { digest, size, etag: fetched.etag, last_modified: fetched.last_modified };
        let keep = std::slice::from_ref(&record.digest);
        self.store.cache_put(
            &key,
            &serde_json::to_vec(&record)?,
            keep,
            &format!("fetched from {}", redacted(url)),
        )?;
        Ok(record.download())
    }

    fn commit(&self, git: &GitRef) -> Result<Commit, BoxError> {
        Ok(self.git().commit(git)?)
    }

    fn checkout(&self, git: &GitRef, commit: &Commit) -> Result<Checkout, BoxError> {
        Ok(self.git().checkout(git, commit)?)
    }

    fn layout(&self, place: &str, platform: &Platform, report: &dyn Reporter) -> Result<Image, BoxError> {
        let (path, tag, digest) = layout_parts(place);
        let path: PathBuf = self.cx.cwd.join(path);
        let open = |name: Option<&str>| {
            let location = Location::OciDir { path: path.clone(), name: name.map(str::to_owned) };
            Input::open(self.cx, &location, &RemoteOptions::default(), report)
        };
        let input = match (tag, digest) {
            (Some(tag), _) => open(Some(tag))?,
            // What is called latest, else the only one.
            (None, None) => open(Some("latest")).or_else(|_| open(None))?,
            (None, Some(digest)) => {
                let mut at = 0;
                loop {
                    match open(Some(&format!("@{at}"))) {
                        Ok(input) if input.target.digest().to_string() == digest => break input,
                        Ok(_) => at += 1,
                        Err(_) => {
                            let (place, digest) = (place.to_owned(), digest.to_owned());
                            return Err(FetchError::NoImage { place, digest }.into());
                        }
                    }
                }
            }
        };
        if let Some(digest) = digest.filter(|digest| *digest != input.target.digest().to_string()) {
            return Err(FetchError::NoImage { place: place.to_owned(), digest: digest.to_owned() }.into());
        }
        let selection = Selection {
            from: input.what(),
            to: None,
            platforms: Platforms::Alone(platform.clone()),
            jobs: JOBS,
        };
        let copied = copy(input.source.as_ref(), self.store, &selection, report)?;
        Ok(self.store.image(&digest_of(&copied.target)?)?)
    }
}

/// `PATH[:TAG][@DIGEST]`
fn layout_parts(place: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match place.rsplit_once('@') {
        Some((rest, digest)) if digest.contains(':') && !digest.contains('/') => (rest, Some(digest)),
        _ => (place, None),
    };
    match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() && !path.is_empty() => {
            (path, Some(tag), digest)
        }
        _ => (rest, None, digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_a_tag_or_a_digest() {
        for (place, parts) in [
            ("a/b", ("a/b", None, None)),
            ("/a/b:v1", ("/a/b", Some("v1"), None)),
            ("a@sha256:00", ("a", None, Some("sha256:00"))),
            ("a:x@sha256:00", ("a", Some("x"), Some("sha256:00"))),
            ("a:b/c", ("a:b/c", None, None)),
        ] {
            assert_eq!(layout_parts(place), parts, "{place}");
        }
    }
}
