//! `sync`: whole repositories, directories or lists of images to a registry or a directory. What is there already
//! with the same digest costs one question on each side.

mod list;
mod versions;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use list::ListError;
use list::{Entry, Wanted};

use super::copy::{self, How};
use super::remote::RemoteOptions;
use super::transport::{self, Input};
use crate::context::Context;
use crate::image::{Conversion, Location, Platforms, Reporter, Source, select_platform};
use crate::oci::{Descriptor, Digest, Parsed, Reference, digest_of, media_type};
use crate::registry::{self, Action, Client};

/// How deep below a directory images are looked for.
const MAX_DEPTH: usize = 32;

/// Where images come from.
#[derive(Debug, Clone)]
pub enum From {
    /// A repository, or one image of it when a tag or digest was typed.
    Registry {
        /// The repository.
        reference: Reference,
        /// Whether just this image is meant.
        single: bool,
    },
    /// Every `dir:` image at or below a directory.
    Dir(PathBuf),
    /// A list in YAML.
    List(PathBuf),
}

/// Where images go.
#[derive(Debug, Clone)]
pub enum To {
    /// Below this name in a registry: `HOST[/PATH]`.
    Registry(String),
    /// A directory each, below this one.
    Dir(PathBuf),
    /// All into one OCI layout.
    OciDir(PathBuf),
}

/// What to sync.
#[derive(Debug, Clone)]
pub struct Request {
    /// The source.
    pub from: From,
    /// The destination.
    pub to: To,
    /// What to take of each index.
    pub platforms: Platforms,
    /// Keep the whole name of the source below the destination.
    pub scoped: bool,
    /// Goes behind each tag at the destination.
    pub append_suffix: String,
    /// Say what would be copied.
    pub dry_run: bool,
    /// Go on after an image that fails.
    pub keep_going: bool,
    /// How many layers of an image move at once.
    pub jobs: usize,
    /// The form at the destination; without one, as it is. What is converted is copied each time.
    pub conversion: Conversion,
    /// Registry options of the source.
    pub source: RemoteOptions,
    /// Registry options of the destination.
    pub destination: RemoteOptions,
}

/// What became of one image.
#[derive(Debug)]
pub struct Step {
    /// Which one it is, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Where it comes from.
    pub from: Location,
    /// Where it goes.
    pub to: Location,
    /// What was done.
    pub outcome: Result<Outcome, Error>,
}

/// What was done with an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was copied.
    Copied(Digest),
    /// It was there.
    Unchanged(Digest),
    /// It would be copied.
    WouldCopy(Digest),
}

/// Why nothing, or not everything, was synced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A place cannot be used.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// An image could not be copied.
    #[error(transparent)]
    Copy(#[from] copy::Error),
    /// The tags of a repository cannot be listed.
    #[error("cannot list the tags of `{repository}`")]
    Tags {
        /// The repository.
        repository: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] crate::oci::ReferenceError),
    /// The list cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The list cannot be used.
    #[error("cannot use the list `{path}`")]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ListError,
    },
    /// There is nothing to sync.
    #[error("`{0}` holds no images to sync")]
    Nothing(String),
}

/// One image to sync.
struct Job<'r> {
    from: Location,
    /// The repository's client, where there is one.
    client: Option<Arc<Client<'r>>>,
    to: Location,
}

/// Sync images. `done` is told of each; with `keep_going` of failures too, which otherwise end it.
///
/// # Errors
/// When the source cannot be listed, or, without `keep_going`, at the first image that fails.
pub fn sync(
    cx: &Context,
    request: &Request,
    report: &dyn Reporter,
    done: &mut dyn FnMut(Step),
) -> Result<(), Error> {
    let jobs = plan(cx, request, report)?;
    let of = jobs.len();
    let mut there: Option<(String, Client<'_>)> = None;
    for (index, job) in jobs.into_iter().enumerate() {
        let outcome = one(cx, request, &job, &mut there, report);
        match outcome {
            Err(error) if !request.keep_going => return Err(error),
            outcome => done(Step { number: index + 1, of, from: job.from, to: job.to, outcome }),
        }
    }
    Ok(())
}

/// Every image with its destination, in order.
fn plan<'r>(cx: &Context, request: &Request, report: &'r dyn Reporter) -> Result<Vec<Job<'r>>, Error> {
    let mut jobs = Vec::new();
    match &request.from {
        From::Registry { reference, single } => {
            let client = client(cx, reference, &request.source, report)?;
            let references = match single {
                true => vec![reference.clone()],
                false => tagged(reference, &client, |_| true)?,
            };
            add(&mut jobs, request, client, references)?;
        }
        From::Dir(root) => {
            let mut found = Vec::new();
            find_images(root, 0, &mut found)?;
            if found.is_empty() {
                return Err(Error::Nothing(format!("dir:{}", root.display())));
            }
            for path in found {
                let name = name_below(root, &path);
                let to = destination(request, &name)?;
                jobs.push(Job { from: Location::Dir(path), client: None, to });
            }
        }
        From::List(path) => {
            for entry in read_list(path)? {
                add_entry(cx, request, &entry, report, &mut jobs)?;
            }
        }
    }
    Ok(jobs)
}

fn client<'r>(
    cx: &Context,
    reference: &Reference,
    remote: &RemoteOptions,
    report: &'r dyn Reporter,
) -> Result<Arc<Client<'r>>, Error> {
    let client = Client::new(&remote.settings(cx), reference, Action::Pull, report);
    Ok(Arc::new(client.map_err(transport::Error::from)?))
}

/// The images of a repository by those of its tags that are wanted.
fn tagged(
    reference: &Reference,
    client: &Client<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Reference>, Error> {
    let tags = client
        .tags()
        .map_err(|source| Error::Tags { repository: super::tags::name_of(reference), source })?;
    let wanted = tags.iter().filter(|tag| wanted(tag));
    Ok(wanted.map(|tag| reference.with_tag(tag)).collect::<Result<_, _>>()?)
}

fn add<'r>(
    jobs: &mut Vec<Job<'r>>,
    request: &Request,
    client: Arc<Client<'r>>,
    references: Vec<Reference>,
) -> Result<(), Error> {
    for reference in references {
        let name = reference.to_string();
        let to = destination(request, &name)?;
        jobs.push(Job { from: Location::Registry(reference), client: Some(client.clone()), to });
    }
    Ok(())
}

fn add_entry<'r>(
    cx: &Context,
    request: &Request,
    entry: &Entry,
    report: &'r dyn Reporter,
    jobs: &mut Vec<Job<'r>>,
) -> Result<(), Error> {
    let mut remote = request.source.clone();
    if let Some(credentials) = &entry.credentials {
        remote.creds = Some(credentials.clone());
        remote.registry_token = None;
        remote.anonymous = false;
    }
    remote.tls_verify = entry.tls_verify.or(remote.tls_verify);
    remote.cert_dir = entry.cert_dir.clone().or(remote.cert_dir);
    for (repository, wanted) in &entry.repositories {
        let reference = Reference::parse(&format!("{}/{repository}", entry.registry))?;
        let client = client(cx, &reference, &remote, report)?;
        let references = match wanted {
            Wanted::Listed(tags) if tags.is_empty() => tagged(&reference, &client, |_| true)?,
            Wanted::Listed(tags) => {
                let one = |tag: &String| match tag.parse::<Digest>() {
                    Ok(digest) => Ok(reference.with_digest(digest)),
                    Err(_) => reference.with_tag(tag),
                };
                tags.iter().map(one).collect::<Result<_, _>>()?
            }
            Wanted::Matching(regex) => tagged(&reference, &client, |tag| regex.is_match(tag))?,
            Wanted::Versions(range) => tagged(&reference, &client, |tag| range.fits(tag))?,
        };
        add(jobs, request, client, references)?;
    }
    Ok(())
}

fn read_list(path: &Path) -> Result<Vec<Entry>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(list::MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    list::parse(&text).map_err(|source| Error::List { path: path.to_owned(), source })
}

/// Directories at or below `path` that hold an image as skopeo's `dir:` does. Links are not followed.
fn find_images(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if path.join("manifest.json").is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            below.push(entry.path());
        }
    }
    below.sort();
    below.iter().try_for_each(|path| find_images(path, depth + 1, found))
}

/// An image directory's path below the one that was named; its own name when it is that one.
fn name_below(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let below = if below.as_os_str().is_empty() { path.file_name().map_or(path, Path::new) } else { below };
    below.to_string_lossy().into_owned()
}

/// Where an image goes. Without `scoped` only the last part of its name counts.
fn destination(request: &Request, name: &str) -> Result<Location, Error> {
    let name = if request.scoped { name } else { name.rsplit('/').next().unwrap_or(name) };
    // A digest stays what it is: the suffix is for tags.
    let suffix = if name.contains('@') { "" } else { request.append_suffix.as_str() };
    Ok(match &request.to {
        To::Registry(below) => {
            let text = format!("{}/{name}{suffix}", below.trim_end_matches('/'));
            Location::Registry(Reference::parse(&text)?)
        }
        To::Dir(below) => Location::Dir(below.join(format!("{name}{suffix}"))),
        To::OciDir(path) => Location::OciDir { path: path.clone(), name: Some(format!("{name}{suffix}")) },
    })
}

/// One image: compare, and copy when the destination has something else.
fn one<'r>(
    cx: &Context,
    request: &Request,
    job: &Job<'r>,
    there: &mut Option<(String, Client<'r>)>,
    report: &'r dyn Reporter,
) -> Result<Outcome, Error> {
    let input = match (&job.from, &job.client) {
        (Location::Registry(reference), Some(client)) => Input::of_client(client.clone(), reference)?,
        (location, _) => Input::open(cx, location, &request.source, report)?,
    };
    let (platforms, target) = wanted(request, &input)?;
    let digest = digest_of(&target).map_err(|source| input.bad_digest(source))?;
    if already(cx, request, job, there, report)? == Some(digest.clone()) {
        return Ok(Outcome::Unchanged(digest));
    }
    if request.dry_run {
        return Ok(Outcome::WouldCopy(digest));
    }
    if let Location::Dir(path) = &job.to
        && let Some(parent) = path.parent()
    {
        std::fs::create_dir_all(parent).map_err(|source| Error::Read { path: parent.to_owned(), source })?;
    }
    let how = How {
        platforms,
        additional_tags: Vec::new(),
        jobs: request.jobs,
        conversion: request.conversion,
        destination: request.destination.clone(),
    };
    let mut done = digest;
    let to = std::slice::from_ref(&job.to);
    copy::copy_input(cx, &how, &input, to, report, &mut |copied| done = copied.digest)?;
    Ok(Outcome::Copied(done))
}

/// What to take, and what will be named at the destination: the index, or the one image that is taken of it. Of an
/// index that names no platform, as a list of signatures does, everything is taken.
fn wanted(request: &Request, input: &Input<'_>) -> Result<(Platforms, Descriptor), Error> {
    let (platforms, target) = (request.platforms.clone(), input.target.clone());
    let Platforms::Best(platform) = &platforms else { return Ok((platforms, target)) };
    if !media_type::is_index(target.media_type().as_ref()) {
        return Ok((platforms, target));
    }
    let Parsed::Index(index) = input.parse(&input.document()?)? else { return Ok((platforms, target)) };
    if index.manifests().iter().all(|member| member.platform().is_none()) {
        return Ok((Platforms::All, target));
    }
    // A platform that is not there is told by the copy.
    let target = select_platform(&index, platform).map_or(target, Clone::clone);
    Ok((platforms, target))
}

/// The digest that the destination has under the name now.
fn already<'r>(
    cx: &Context,
    request: &Request,
    job: &Job<'r>,
    there: &mut Option<(String, Client<'r>)>,
    report: &'r dyn Reporter,
) -> Result<Option<Digest>, Error> {
    let found = match &job.to {
        Location::Registry(reference) => {
            let repository = super::tags::name_of(reference);
            // The registry itself is asked: a mirror of it may have what it lacks.
            let client = match there {
                Some((known, client)) if *known == repository => client,
                _ => {
                    let settings = request.destination.settings(cx);
                    let client = Client::new(&settings, reference, Action::Push, report)
                        .map_err(transport::Error::from)?;
                    &mut there.insert((repository, client)).1
                }
            };
            client.resolve(reference).ok()
        }
        location => Input::open(cx, location, &request.destination, report).ok().map(|input| input.target),
    };
    Ok(found.and_then(|target| digest_of(&target).ok()))
}
