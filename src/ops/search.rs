//! `search`: repositories of a registry by a word.

use super::remote::RemoteOptions;
use crate::context::Context;
use crate::image::{Event, Reporter};
use crate::oci::DEFAULT_REGISTRY;
use crate::registry;

pub use crate::registry::SearchHit;

/// What to look for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The word; before a slash may stand a registry.
    pub term: String,
    /// The most hits that are wanted.
    pub limit: usize,
    /// Only hits with so many stars.
    pub stars: u64,
    /// Only hits that are official, or that are not.
    pub official: Option<bool>,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where was looked.
    pub registry: String,
    /// The repositories.
    pub hits: Vec<SearchHit>,
}

/// Why nothing could be looked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry cannot be searched.
    #[error("cannot search {registry}")]
    Search {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// The registry has neither a search nor a list of its repositories.
    #[error("{registry} cannot be searched: it has no search, and it does not list its repositories")]
    NoSearch {
        /// The registry.
        registry: String,
        /// What it answered.
        #[source]
        source: registry::Error,
    },
}

/// Search a registry.
///
/// # Errors
/// See [`Error`].
pub fn search(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<Found, Error> {
    let (registry, term) = split(&request.term);
    let found = registry::search(&request.remote.settings(cx), registry, term, request.limit);
    let found = found.map_err(|source| match &source {
        registry::Error::Refused { .. } | registry::Error::UnknownRepository { .. } => {
            Error::NoSearch { registry: registry.to_owned(), source }
        }
        _ => Error::Search { registry: registry.to_owned(), source },
    })?;
    if found.from_catalog {
        report.event(Event::Note(format!(
            "{registry} has no search: its list of repositories was looked through"
        )));
    }
    let fits = |hit: &SearchHit| {
        hit.stars >= request.stars && request.official.is_none_or(|wanted| hit.official == wanted)
    };
    Ok(Found { registry: registry.to_owned(), hits: found.hits.into_iter().filter(fits).collect() })
}

/// `REGISTRY/TERM`, where the first part can only be a registry.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((DEFAULT_REGISTRY | "index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, term),
    }
}
