//! `manifest`: an index of images is put together here, then pushed as one thing.
//!
//! An index lies in the store under its name, as any image does. What it holds of registries is only referred to: the
//! store remembers which repository has it (`io.strate.origins`), and its layers move when the index is pushed.

mod artifact;
mod content;
mod found;
mod inspect;
mod push;

use std::collections::BTreeMap;

pub use artifact::{ArtifactRequest, add_artifact};
pub use content::Content;
pub use found::{Finder, Found, Pick};
pub use inspect::{Detail, documents, inspect};
pub use push::{Format, PushRequest, Pushed, push};

use super::remote::RemoteOptions;
use super::{store, transport};
use crate::context::Context;
use crate::image::{
    BoxError, Change, DraftError, Event, IndexDraft, Member, Reporter, SelectError,
    annotate as set_annotations,
};
use crate::oci::{Digest, RawManifest, Reference, ReferenceError};
use crate::registry::NameError;
use crate::storage::{self, ImageRecord, NewIndex, Removed, Store};

/// Why an index could not be made, changed or sent. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of that name.
    #[error("the index `{0}` is there already")]
    Exists(String),
    /// The name stands for something else.
    #[error("`{0}` is an image, not an index")]
    NotAnIndex(String),
    /// No such index.
    #[error("no such index: {0}")]
    NoSuchIndex(String),
    /// An index that has lost its name.
    #[error("the index {0} has no name")]
    Nameless(String),
    /// A new name with a digest, which no one can choose.
    #[error("`{0}` names a digest, which an index gets from what is in it")]
    Digest(String),
    /// A name that is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The index has no image of that name or digest.
    #[error("the index `{index}` does not hold `{image}`")]
    NotHeld {
        /// The index.
        index: String,
        /// What was asked for.
        image: String,
    },
    /// The name stands for several images of the index.
    #[error("`{image}` stands for {} images of the index `{index}`: name one by its digest", .fits.len())]
    Ambiguous {
        /// The index.
        index: String,
        /// What was asked for.
        image: String,
        /// The digests.
        fits: Vec<Digest>,
    },
    /// An image that was to be added cannot be read.
    #[error("cannot read `{image}`")]
    Read {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// No image for the platform.
    #[error("cannot add `{image}`")]
    Platform {
        /// The index that it was looked for in.
        image: String,
        /// Which there are.
        #[source]
        source: SelectError,
    },
    /// An image of a local index of which nobody knows where it is.
    #[error("{digest} of `{image}` is not here, and it is not known which registry has it")]
    Lost {
        /// The index that names it.
        image: String,
        /// The image.
        digest: Digest,
    },
    /// The edit makes no sense.
    #[error("cannot change the index `{index}`")]
    Draft {
        /// The index.
        index: String,
        /// Why.
        #[source]
        source: DraftError,
    },
    /// A file that was to be added cannot be read.
    #[error("cannot add `{path}`")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The index could not be sent.
    #[error("cannot push `{index}`")]
    Push {
        /// The index.
        index: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A name that means nothing at registries.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A place is unusable.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Who is told what.
#[derive(Clone, Copy)]
pub struct Out<'a> {
    /// Progress and remarks.
    pub report: &'a dyn Reporter,
    /// Waits for locks, and what the store falls back to.
    pub notice: fn(&str),
}

impl std::fmt::Debug for Out<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Out")
    }
}

/// `manifest create`
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The name.
    pub name: String,
    /// Images to begin with.
    pub images: Vec<String>,
    /// Add to an index that is there.
    pub amend: bool,
    /// What to take of images that are indexes themselves.
    pub pick: Pick,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// An index after a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Its name.
    pub name: Reference,
    /// Its digest.
    pub digest: Digest,
}

/// Make an index.
///
/// # Errors
/// See [`Error`].
pub fn create(cx: &Context, request: &CreateRequest, out: &Out<'_>) -> Result<Changed, Error> {
    let name = new_name(&request.name)?;
    let store = writable(cx, out)?;
    let there = match find(&store, &request.name) {
        Ok(record) if record.name.as_ref() == Some(&name) => Some(record),
        Err(Error::NotAnIndex(name)) => return Err(Error::NotAnIndex(name)),
        Ok(_) | Err(Error::NoSuchIndex(_)) => None,
        Err(error) => return Err(error),
    };
    if there.is_some() && !request.amend {
        return Err(Error::Exists(name.familiar()));
    }
    let finder = Finder { cx, store: &store, remote: &request.remote, report: out.report };
    let found = finder.find_all(&request.images, &request.pick)?;
    edit(&store, &name, there.is_none(), |draft, origins| {
        set_annotations(&mut draft.annotations, &request.annotations);
        take_in(draft, origins, &found, &name, out.report)
    })
}

/// `manifest add`
#[derive(Debug, Clone)]
pub struct AddRequest {
    /// The index.
    pub index: String,
    /// Images to add.
    pub images: Vec<String>,
    /// What to take of images that are indexes themselves.
    pub pick: Pick,
    /// What to say of the image beyond what it says itself.
    pub change: Change,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// Add images to an index.
///
/// # Errors
/// See [`Error`].
pub fn add(cx: &Context, request: &AddRequest, out: &Out<'_>) -> Result<Changed, Error> {
    let store = writable(cx, out)?;
    let name = name_of(&find(&store, &request.index)?)?;
    let finder = Finder { cx, store: &store, remote: &request.remote, report: out.report };
    let mut found = finder.find_all(&request.images, &request.pick)?;
    for member in found.members.iter_mut().filter(|member| member.attests().is_none()) {
        member.change(&request.change);
    }
    edit(&store, &name, false, |draft, origins| take_in(draft, origins, &found, &name, out.report))
}

/// Whether [`gather`] may put images into an index of that name.
///
/// # Errors
/// When the name stands for an image.
pub(super) fn may_gather(store: &Store, name: &Reference) -> Result<(), Error> {
    match find(store, &name.to_string()) {
        Ok(_) | Err(Error::NoSuchIndex(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Add images that lie in the store to an index, which is made when there is none.
///
/// # Errors
/// See [`Error`].
pub(super) fn gather(
    store: &Store,
    name: &Reference,
    images: &[RawManifest],
    report: &dyn Reporter,
) -> Result<Changed, Error> {
    let read = |source| Error::Read { image: name.familiar(), source };
    let members =
        images.iter().map(|raw| Finder::member(store, raw)).collect::<Result<_, _>>().map_err(read)?;
    let found = Found { members, origins: BTreeMap::new() };
    loop {
        let there = match find(store, &name.to_string()) {
            Ok(_) => true,
            Err(Error::NoSuchIndex(_)) => false,
            Err(error) => return Err(error),
        };
        match edit(store, name, !there, |draft, origins| take_in(draft, origins, &found, name, report)) {
            // Another process has made or removed it meanwhile.
            Err(Error::Exists(_)) if !there => {}
            Err(Error::NoSuchIndex(_)) if there => {}
            other => return other,
        }
    }
}

/// `manifest annotate`
#[derive(Debug, Clone)]
pub struct AnnotateRequest {
    /// The index.
    pub index: String,
    /// An image of it, by name or digest; `None`: the index itself.
    pub image: Option<String>,
    /// What to change. Of the index itself, only annotations.
    pub change: Change,
    /// What the index refers to, by name or digest.
    pub subject: Option<String>,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// Change what an index says of an image, or of itself.
///
/// # Errors
/// See [`Error`].
pub fn annotate(cx: &Context, request: &AnnotateRequest, out: &Out<'_>) -> Result<Changed, Error> {
    let store = writable(cx, out)?;
    let record = find(&store, &request.index)?;
    let name = name_of(&record)?;
    let finder = Finder { cx, store: &store, remote: &request.remote, report: out.report };
    let member = match &request.image {
        Some(image) => Some(held(&finder, (&record.label(), &read(&store, &record)?), image)?),
        None => None,
    };
    let subject = match &request.subject {
        Some(subject) => Some(finder.document(subject)?),
        None => None,
    };
    edit(&store, &name, false, |draft, _| {
        if let Some(subject) = &subject {
            draft.subject = Some(Member::new(subject, None));
        }
        match &member {
            Some(digest) => draft.annotate(digest, &request.change),
            None => {
                set_annotations(&mut draft.annotations, &request.change.annotations);
                Ok(())
            }
        }
    })
}

/// Take an image out of an index.
///
/// # Errors
/// See [`Error`].
pub fn remove(cx: &Context, index: &str, image: &str, out: &Out<'_>) -> Result<(Changed, Digest), Error> {
    let store = writable(cx, out)?;
    let record = find(&store, index)?;
    let name = name_of(&record)?;
    let remote = RemoteOptions::default();
    let finder = Finder { cx, store: &store, remote: &remote, report: out.report };
    let digest = held(&finder, (&record.label(), &read(&store, &record)?), image)?;
    let changed = edit(&store, &name, false, |draft, origins| {
        origins.remove(&digest);
        draft.remove(&digest)
    })?;
    Ok((changed, digest))
}

/// Remove an index, and what nothing else needs.
///
/// # Errors
/// When it is unknown or a container needs it.
pub fn delete(cx: &Context, index: &str, out: &Out<'_>) -> Result<Vec<Removed>, Error> {
    let store = writable(cx, out)?;
    find(&store, index)?;
    Ok(store.remove_image(index, false)?)
}

/// Whether there is an index of that name or id.
///
/// # Errors
/// When the store cannot be read.
pub fn exists(cx: &Context, index: &str) -> Result<bool, Error> {
    match find(&store::read(cx)?, index) {
        Ok(_) => Ok(true),
        Err(Error::NoSuchIndex(_) | Error::NotAnIndex(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn writable(cx: &Context, out: &Out<'_>) -> Result<Store, Error> {
    Ok(store::write(cx, out.notice)?)
}

fn new_name(text: &str) -> Result<Reference, Error> {
    let name = Reference::parse(text)?;
    if name.digest().is_some() {
        return Err(Error::Digest(text.to_owned()));
    }
    Ok(name)
}

/// An index that is here.
fn find(store: &Store, text: &str) -> Result<ImageRecord, Error> {
    match store.find_image(text) {
        Ok(record) if record.is_index() => Ok(record),
        Ok(record) => Err(Error::NotAnIndex(record.label())),
        Err(storage::Error::NoSuchImage(text)) => Err(Error::NoSuchIndex(text)),
        Err(error) => Err(error.into()),
    }
}

fn name_of(record: &ImageRecord) -> Result<Reference, Error> {
    record.name.clone().ok_or_else(|| Error::Nameless(record.id.to_string()))
}

/// Which image of an index a user means.
fn held(finder: &Finder<'_>, (name, draft): (&str, &IndexDraft), image: &str) -> Result<Digest, Error> {
    let holds = |digest: &Digest| draft.members().iter().any(|member| member.digest == *digest);
    let fits: Vec<Digest> = finder.digests(image, draft)?.into_iter().filter(holds).collect();
    let (index, image) = (name.to_owned(), image.to_owned());
    match fits.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::NotHeld { index, image }),
        _ => Err(Error::Ambiguous { index, image, fits }),
    }
}

fn read(store: &Store, record: &ImageRecord) -> Result<IndexDraft, Error> {
    let raw = store.raw_document(record)?;
    IndexDraft::parse(&raw).map_err(|source| Error::Draft { index: record.label(), source })
}

/// Add what was found to an index.
fn take_in(
    draft: &mut IndexDraft,
    origins: &mut BTreeMap<Digest, Reference>,
    found: &Found,
    name: &Reference,
    report: &dyn Reporter,
) -> Result<(), DraftError> {
    for member in &found.members {
        let hidden_by =
            draft.add(member.clone())?.filter(|_| member.runs()).map(|first| first.digest.clone());
        if let Some(first) = hidden_by {
            report.event(Event::Note(format!(
                "`{}` has {} for the same platform already, and takes that one for {}",
                name.familiar(),
                first.short(),
                member.digest.short()
            )));
        }
    }
    origins.extend(found.origins.clone());
    Ok(())
}

/// Read, change and write an index; anew, when another process has changed it meanwhile.
fn edit(
    store: &Store,
    name: &Reference,
    fresh: bool,
    change: impl Fn(&mut IndexDraft, &mut BTreeMap<Digest, Reference>) -> Result<(), DraftError>,
) -> Result<Changed, Error> {
    let failed = |source| Error::Draft { index: name.familiar(), source };
    loop {
        let record = match find(store, &name.to_string()) {
            Ok(_) if fresh => return Err(Error::Exists(name.familiar())),
            Ok(record) => Some(record),
            Err(Error::NoSuchIndex(_)) if fresh => None,
            Err(error) => return Err(error),
        };
        let mut draft = record.as_ref().map(|record| read(store, record)).transpose()?.unwrap_or_default();
        let mut origins =
            record.as_ref().map(|record| found::origins(store, record, &draft)).unwrap_or_default();
        change(&mut draft, &mut origins).map_err(failed)?;
        // What is here needs no other place.
        origins.retain(|digest, _| {
            draft.members().iter().any(|m| m.digest == *digest && !store.has_manifest(&m.descriptor()))
        });
        let raw = draft.settled().to_raw().map_err(failed)?;
        let replaces = record.as_ref().map(|record| record.target_digest()).transpose()?;
        let new = NewIndex { raw: &raw, origins: &origins, replaces: replaces.as_ref() };
        if store.publish_index(name, &new)? {
            return Ok(Changed { name: name.clone(), digest: raw.digest });
        }
    }
}
