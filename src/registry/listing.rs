//! What a registry lists: tags, referrers, repositories, and what its search finds; and removal of manifests
//! (distribution-spec v1.1, "Content Discovery" and "Content Management").
//!
//! Lists come in pages, each naming the next in a `Link` header. A next page is asked for at the same origin only, as
//! credentials go with it, and a list is bounded, whatever the registry says.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;

use super::auth::percent;
use super::conf::Registries;
use super::endpoint::{About, ApiRequest, Endpoint};
use super::http::Response;
use super::origin::{Origin, Scheme, join};
use super::retry::with_retries;
use super::{Action, Client, Error, Settings, limits};
use crate::oci::{Descriptor, Digest, Index, Reference, media_type};

/// How many entries of a page are asked for.
const PAGE_ENTRIES: u32 = 1000;
/// The most entries of a list that are taken in.
const MOST_ENTRIES: usize = 1_000_000;
/// The most bytes of a list that are taken in, those of all its pages together.
const MOST_BYTES: usize = 64 << 20;
/// The most pages of a list that are asked for.
const MOST_PAGES: usize = 10_000;

/// One repository that a registry's search has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchHit {
    /// Its name below the registry.
    pub name: String,
    /// What its owner says about it.
    pub description: String,
    /// How many people like it.
    pub stars: u64,
    /// Whether the registry vouches for it.
    pub official: bool,
}

/// What a search gave, and how.
#[derive(Debug)]
pub struct Searched {
    /// The repositories.
    pub hits: Vec<SearchHit>,
    /// The registry has no search: its list of repositories was looked through.
    pub from_catalog: bool,
}

/// Referrers of a manifest, and how they were found.
#[derive(Debug)]
pub struct Referrers {
    /// Their descriptors, with `artifactType` where the registry says it.
    pub manifests: Vec<Descriptor>,
    /// The registry has no referrers API: the tag that stands in for it was read.
    pub from_tag: bool,
}

impl Client<'_> {
    /// Every tag of the repository, in the registry's order.
    ///
    /// # Errors
    /// When the repository is unknown or the registry cannot be asked.
    pub fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        self.ask(|endpoint| {
            let first = endpoint.path(&format!("tags/list?n={PAGE_ENTRIES}"));
            let list = pages(endpoint, &first, &[], |page: Page| page.tags.unwrap_or_default());
            match list? {
                Listed::All(tags) => Ok(tags),
                Listed::Not(response) => Err(endpoint.error(*response, &Method::GET, &first, About::Other)),
            }
        })
    }

    /// The manifests whose `subject` is the manifest `subject`: by the referrers API, else from the tag that the
    /// specification names for registries without it.
    ///
    /// # Errors
    /// When the registry cannot be asked. A subject that nothing refers to is no error.
    pub fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Referrers, Error> {
        let mut referrers = self.ask(|endpoint| self.referrers_at(endpoint, subject, artifact_type))?;
        // A registry may ignore the filter.
        if let Some(wanted) = artifact_type {
            referrers.manifests.retain(|found| artifact_type_of(found) == Some(wanted));
        }
        Ok(referrers)
    }

    fn referrers_at(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, Error> {
        let mut first = endpoint.path(&format!("referrers/{subject}"));
        if let Some(wanted) = artifact_type {
            first.push_str(&format!("?artifactType={}", percent(wanted)));
        }
        let accept = [("accept", media_type::OCI_INDEX.to_owned())];
        match pages(endpoint, &first, &accept, |page: Index| page.manifests().clone())? {
            Listed::All(manifests) => Ok(Referrers { manifests, from_tag: false }),
            // Without the API the answer is 404; some say so in other ways.
            Listed::Not(response) if matches!(response.status, 400 | 404 | 405 | 501) => {
                let tag = format!("{}-{}", subject.algorithm(), subject.hex());
                let tag = tag.chars().take(128).collect::<String>();
                let manifests = match self.fetch_manifest(endpoint, &tag) {
                    Ok(raw) => match raw.parse()? {
                        crate::oci::Parsed::Index(index) => index.manifests().clone(),
                        crate::oci::Parsed::Manifest(_) => Vec::new(),
                    },
                    Err(Error::UnknownManifest { .. }) => Vec::new(),
                    Err(error) => return Err(error),
                };
                Ok(Referrers { manifests, from_tag: true })
            }
            Listed::Not(response) => Err(endpoint.error(*response, &Method::GET, &first, About::Other)),
        }
    }

    /// Remove a manifest by its digest, with every tag that stands for it; or, by a tag, the tag alone.
    ///
    /// # Errors
    /// When there is no such manifest, or the registry does not allow to remove it.
    pub fn delete_manifest(&self, selector: &str) -> Result<(), Error> {
        let endpoint = self.primary();
        let path = endpoint.path(&format!("manifests/{selector}"));
        let result = with_retries(&self.settings, || {
            let response = endpoint.send(ApiRequest::new(Method::DELETE, path.as_str()))?;
            match response.status {
                200 | 202 | 204 => Ok(()),
                _ => Err(endpoint.error(response, &Method::DELETE, &path, About::Manifest(selector))),
            }
        });
        self.note(endpoint);
        result
    }
}

/// The artifact type that a descriptor of a referrers list gives.
#[must_use]
pub fn artifact_type_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor.artifact_type().as_ref().map(AsRef::as_ref)
}

/// Every repository of a registry, by its catalog.
///
/// # Errors
/// When the registry has none, does not show it to us, or cannot be asked.
pub fn catalog(settings: &Settings, registry: &str) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        repositories: Option<Vec<String>>,
    }
    let endpoint = whole_registry(settings, registry)?;
    endpoint.add_scope("registry:catalog:*");
    let first = format!("/v2/_catalog?n={PAGE_ENTRIES}");
    with_retries(settings, || {
        match pages(&endpoint, &first, &[], |page: Page| page.repositories.unwrap_or_default())? {
            Listed::All(names) => Ok(names),
            Listed::Not(response) => Err(endpoint.error(*response, &Method::GET, &first, About::Other)),
        }
    })
}

/// Search a registry: by the search of the first registry API, which Docker Hub and some others have; else by its
/// catalog, for names that hold `term`.
///
/// # Errors
/// When neither is to be had.
pub fn search(settings: &Settings, registry: &str, term: &str, limit: usize) -> Result<Searched, Error> {
    let endpoint = match registry {
        crate::oci::DEFAULT_REGISTRY => whole_registry(settings, "index.docker.io")?,
        registry => whole_registry(settings, registry)?,
    };
    if let Some(hits) = with_retries(settings, || search_v1(&endpoint, term, limit))? {
        return Ok(Searched { hits, from_catalog: false });
    }
    let wanted = term.to_lowercase();
    let names = catalog(settings, registry)?.into_iter().filter(|name| name.contains(&wanted));
    let hit = |name| SearchHit { name, description: String::new(), stars: 0, official: false };
    Ok(Searched { hits: names.take(limit).map(hit).collect(), from_catalog: true })
}

/// `None` when the registry has no such search.
fn search_v1(endpoint: &Endpoint, term: &str, limit: usize) -> Result<Option<Vec<SearchHit>>, Error> {
    #[derive(Deserialize)]
    struct Results {
        #[serde(default)]
        results: Vec<Hit>,
    }
    #[derive(Deserialize)]
    struct Hit {
        name: String,
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        star_count: u64,
        #[serde(default)]
        is_official: bool,
    }
    let path = format!("/v1/search?q={}&n={limit}", percent(term));
    let response = endpoint.send(ApiRequest::new(Method::GET, path.as_str()))?;
    if response.status != 200 {
        return match response.status {
            401 | 403 | 404 | 405 | 410 | 501 => Ok(None),
            _ => Err(endpoint.error(response, &Method::GET, &path, About::Other)),
        };
    }
    // Registries without a search may answer with their front page.
    let Some(bytes) = response.document(limits::LIST_BYTES)? else { return Ok(None) };
    let Ok(found) = serde_json::from_slice::<Results>(&bytes) else { return Ok(None) };
    let hits = found.results.into_iter().take(limit).map(|hit| SearchHit {
        name: hit.name,
        description: hit.description.unwrap_or_default(),
        stars: hit.star_count,
        official: hit.is_official,
    });
    Ok(Some(hits.collect()))
}

/// An endpoint for what is not about one repository.
fn whole_registry(settings: &Settings, registry: &str) -> Result<Endpoint, Error> {
    // Any repository will do to find out whether the registry is blocked, and where it really is.
    if let Ok(reference) = Reference::parse(&format!("{registry}/any")) {
        Registries::load(settings)?.places(&reference, Action::Push)?;
    }
    Endpoint::for_login(settings, registry)
}

/// What asking for a list gave.
enum Listed<T> {
    /// Its entries.
    All(Vec<T>),
    /// The first page was not to be had.
    Not(Box<Response>),
}

/// Read a list page by page, each page's document turned into entries by `entries`.
fn pages<P: DeserializeOwned, T>(
    endpoint: &Endpoint,
    first: &str,
    headers: &[(&'static str, String)],
    entries: impl Fn(P) -> Vec<T>,
) -> Result<Listed<T>, Error> {
    let mut list = Vec::new();
    let mut taken = 0;
    let mut seen = HashSet::new();
    let mut next = first.to_owned();
    while seen.insert(next.clone()) && seen.len() <= MOST_PAGES {
        let mut request = ApiRequest::new(Method::GET, next.as_str());
        request.headers.extend(headers.iter().cloned());
        let response = endpoint.send(request)?;
        if response.status != 200 {
            if seen.len() == 1 {
                return Ok(Listed::Not(Box::new(response)));
            }
            return Err(endpoint.error(response, &Method::GET, &next, About::Other));
        }
        let broken = |what: &str| Error::Protocol {
            registry: endpoint.registry.clone(),
            request: format!("GET {}", super::origin::without_query(&next)),
            what: what.to_owned(),
        };
        let after = next_page(endpoint, &response, &broken)?;
        let bytes = response.document(limits::LIST_BYTES)?;
        let bytes = bytes.ok_or_else(|| broken("a page of its list is longer than 16 MiB"))?;
        taken += bytes.len();
        let page = serde_json::from_slice(&bytes)
            .map_err(|_| broken("a page of its list is not the JSON it should be"))?;
        let fresh = entries(page);
        let was_empty = fresh.is_empty();
        list.extend(fresh);
        if list.len() > MOST_ENTRIES || taken > MOST_BYTES {
            return Err(broken("its list does not end"));
        }
        match after {
            // An empty page that names another leads nowhere.
            Some(after) if !was_empty => next = after,
            _ => return Ok(Listed::All(list)),
        }
    }
    Err(Error::Protocol {
        registry: endpoint.registry.clone(),
        request: format!("GET {}", super::origin::without_query(first)),
        what: "its list names its own pages as the next ones".to_owned(),
    })
}

/// The address of the next page, when the response names one (RFC 8288): at the origin that answered, and no other.
fn next_page(
    endpoint: &Endpoint,
    response: &Response,
    broken: &dyn Fn(&str) -> Error,
) -> Result<Option<String>, Error> {
    let links = response.headers.get_all("link").iter().filter_map(|value| value.to_str().ok());
    let Some(link) = links.flat_map(|value| value.split(',')).find_map(next_link) else { return Ok(None) };
    let next = join(&response.url, link).ok_or_else(|| broken("it names a bad address as the next page"))?;
    // Behind a proxy that ends TLS a registry may take itself for a plain one.
    let next = match (response.origin.scheme, next.strip_prefix("http://")) {
        (Scheme::Https, Some(rest)) => format!("https://{rest}"),
        _ => next,
    };
    if Origin::of_url(&next).as_ref() != Some(&endpoint.origin()) {
        return Err(broken("it names a page of another host as the next one"));
    }
    Ok(Some(next))
}

/// The target of a link with `rel="next"`.
fn next_link(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        parameter.trim().split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        })
    });
    is_next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_page_is_followed() {
        for (link, next) in [
            (r#"</v2/a/tags/list?n=2&last=b>; rel="next""#, Some("/v2/a/tags/list?n=2&last=b")),
            ("</v2/_catalog?last=x>; rel=next", Some("/v2/_catalog?last=x")),
            (r#"<https://h/x>; title="a"; REL="NEXT""#, Some("https://h/x")),
            (r#"<https://h/x>; rel="last""#, None),
            ("https://h/x; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(link), next, "{link}");
        }
    }
}
