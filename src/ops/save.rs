//! `save`: images become an archive or a directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::store;
pub use crate::archive::Format;
use crate::archive::{self, Member, Writer};
use crate::context::Context;
use crate::image::{
    CopyError, Event, Platforms, Reporter, Selection, Source, What, copy, is_container_image,
};
use crate::oci::{Parsed, Platform, Reference, digest_of, media_type};
use crate::storage;

/// Where the archive goes.
#[derive(Debug)]
pub enum Target {
    /// Standard output, which is no terminal.
    Stdout,
    /// A file, or for the directory formats a directory.
    Path(PathBuf),
}

/// What to save.
#[derive(Debug)]
pub struct Request {
    /// Names and ids.
    pub images: Vec<String>,
    /// In which form.
    pub format: Format,
    /// Where to.
    pub target: Target,
    /// Which images of an index; none means all that are here.
    pub platforms: Vec<Platform>,
}

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot go to a stream.
    #[error("a directory needs a place: say where with --output")]
    NeedsPath,
    /// The archive could not be written.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// An image could not be written.
    #[error("cannot save `{image}`")]
    Copy {
        /// As the user called it.
        image: String,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// The image is for another platform than those asked for.
    #[error("`{image}` is for {found}, not for what was asked for")]
    Platform {
        /// As the user called it.
        image: String,
        /// What it is for.
        found: Platform,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Write images to an archive. A file appears under its name only when it is whole.
///
/// # Errors
/// When an image is unknown or cannot be read, or the archive cannot be written.
pub fn save(cx: &Context, request: &Request, report: &dyn Reporter) -> Result<(), Error> {
    let store = store::hold(cx)?;
    let members = members(&store, &request.images)?;
    let platforms = match request.platforms.as_slice() {
        [] => Platforms::Present,
        wanted => Platforms::Only(wanted.to_vec()),
    };
    let path = match &request.target {
        Target::Path(path) => path,
        Target::Stdout if request.format.is_dir() => return Err(Error::NeedsPath),
        Target::Stdout => Path::new("-"),
    };
    if request.format == Format::Dir && members.len() > 1 {
        return Err(archive::Error::OneImageOnly.into());
    }
    if matches!(request.format, Format::OciArchive | Format::OciDir) {
        say_docker_types(&store, &members, report);
    }
    if !request.platforms.is_empty() {
        for (image, member) in &members {
            check_platform(&store, member, &request.platforms, image)?;
        }
    }
    let writer = Writer::create(path, request.format)?;
    writer.announce(&store, &members.iter().map(|(_, m)| m.clone()).collect::<Vec<_>>(), &platforms)?;
    for (image, member) in members {
        let selection = Selection {
            from: What::Found { label: image.clone(), target: member.target },
            to: None,
            platforms: platforms.clone(),
            jobs: writer.jobs(),
        };
        copy(&store, &writer, &selection, report).map_err(|source| Error::Copy { image, source })?;
    }
    Ok(writer.finish()?)
}

/// A single image is only taken when it is for one of the platforms; an index is looked at by the copy.
fn check_platform(
    store: &storage::Store,
    member: &Member,
    wanted: &[Platform],
    image: &str,
) -> Result<(), Error> {
    let digest = digest_of(&member.target).map_err(archive::Error::from)?;
    let raw = Source::manifest(store, &member.target);
    if !raw.is_ok_and(|raw| matches!(raw.parse(), Ok(Parsed::Manifest(m)) if is_container_image(&m))) {
        return Ok(());
    }
    let found = store.image(&digest)?.config.platform();
    if wanted.iter().any(|wanted| found.fit(wanted).is_some()) {
        return Ok(());
    }
    Err(Error::Platform { image: image.to_owned(), found })
}

/// An image keeps its bytes, and so docker's types: a few readers of OCI layouts do not look at such.
fn say_docker_types(store: &storage::Store, members: &[(String, Member)], report: &dyn Reporter) {
    for (image, member) in members {
        let Ok(raw) = Source::manifest(store, &member.target) else { continue };
        if [media_type::DOCKER_MANIFEST, media_type::DOCKER_INDEX].contains(&raw.media_type.as_str()) {
            report.event(Event::Note(format!(
                "`{image}` has a manifest of docker's types, which skopeo and podman do not find in an OCI layout: \
                 for these, save it as docker-archive or docker-dir"
            )));
        }
    }
}

/// Every image once, with the names it was asked for by.
fn members(store: &storage::Store, images: &[String]) -> Result<Vec<(String, Member)>, Error> {
    let mut members: Vec<(String, Member)> = Vec::new();
    let mut seen = BTreeSet::new();
    for text in images {
        let record = store.find_image(text)?;
        store.hold(&record)?;
        // Named by id, an image has no name in the archive either.
        let typed = Reference::parse(text).is_ok_and(|name| record.name.as_ref() == Some(&name));
        let name = record.name.filter(|name| typed && name.tag().is_some()).map(|name| name.to_string());
        if let Some(name) = &name
            && !seen.insert(name.clone())
        {
            continue;
        }
        match members.iter_mut().find(|(_, member)| member.target == record.target) {
            Some((_, member)) => member.names.extend(name),
            None => members
                .push((text.clone(), Member { names: name.into_iter().collect(), target: record.target })),
        }
    }
    Ok(members)
}
