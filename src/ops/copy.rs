//! `copy`: an image from one place to another, byte for byte, without a store between them.

use std::sync::Arc;

use super::remote::{RemoteOptions, inner};
use super::transport::{self, Input, Output};
use crate::context::Context;
use crate::image::{
    BoxError, Conversion, ConvertError, Event, Location, Platforms, Reporter, Selection, Workshop, convert,
    copy as copy_image,
};
use crate::oci::{Descriptor, Digest, digest_of, media_type};
use crate::sys::unnamed::UnnamedFile;

/// What to copy where.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub from: Location,
    /// The places that get it, one after the other.
    pub to: Vec<Location>,
    /// Registry options of the source.
    pub source: RemoteOptions,
    /// How.
    pub how: How,
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct How {
    /// What to take of an index.
    pub platforms: Platforms,
    /// Further tags at each destination.
    pub additional_tags: Vec<String>,
    /// How many layers move at once.
    pub jobs: usize,
    /// The form at the destination; without one, as it is.
    pub conversion: Conversion,
    /// Registry options of the destinations.
    pub destination: RemoteOptions,
}

/// What was copied to one destination.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The destination.
    pub place: String,
    /// The digest of the manifest or index there: the same as at the source.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How many layers moved.
    pub moved: usize,
    /// How many were there.
    pub reused: usize,
}

/// Why a copy failed. Names at the destination are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A place cannot be used.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// The image could not be brought over.
    #[error("cannot copy `{from}` to `{to}`")]
    Copy {
        /// The source.
        from: String,
        /// The destination.
        to: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The image cannot be given the form that is wanted.
    #[error("cannot convert `{from}`")]
    Convert {
        /// The source.
        from: String,
        /// Why.
        #[source]
        source: ConvertError,
    },
    /// The destination names another digest than the image has.
    #[error("`{to}` demands another digest than the image has, which is {found}")]
    OtherDigest {
        /// The destination.
        to: String,
        /// The image's digest.
        found: String,
    },
}

/// Copy an image to each destination. What `done` is told is there, whatever comes after.
///
/// # Errors
/// At the first destination that fails; see [`Error`].
pub fn copy(
    cx: &Context,
    request: &Request,
    report: &dyn Reporter,
    done: &mut dyn FnMut(Copied),
) -> Result<(), Error> {
    let input = Input::open(cx, &request.from, &request.source, report)?;
    copy_input(cx, &request.how, &input, &request.to, report, done)
}

/// Copy an image that was found to each destination, converted where that is wanted: once for all of them.
///
/// # Errors
/// See [`Error`].
pub(super) fn copy_input(
    cx: &Context,
    how: &How,
    input: &Input<'_>,
    to: &[Location],
    report: &dyn Reporter,
    done: &mut dyn FnMut(Copied),
) -> Result<(), Error> {
    if how.conversion == Conversion::default() {
        for location in to {
            done(copy_to(cx, how, input, location, report)?);
        }
        return Ok(());
    }
    let directory = transport::scratch(cx);
    let workshop = Workshop {
        scratch: &|| UnnamedFile::create_in(&directory).map_err(|error| error.source)?.file().try_clone(),
        jobs: how.jobs,
        report,
    };
    let source = input.source.as_ref();
    let name = input.reference.as_ref();
    let converted = convert(source, name, &input.target, &how.platforms, &how.conversion, &workshop)
        .map_err(|source| Error::Convert { from: input.place.clone(), source })?;
    let made = Input {
        place: input.place.clone(),
        source: Arc::new(converted.source(source)),
        target: converted.target.clone(),
        reference: input.reference.clone(),
    };
    // The one image of an index is chosen already.
    let platforms = match &how.platforms {
        Platforms::Best(_) => Platforms::All,
        other => other.clone(),
    };
    let how = How { platforms, ..how.clone() };
    for location in to {
        done(copy_to(cx, &how, &made, location, report)?);
    }
    Ok(())
}

fn copy_to(
    cx: &Context,
    how: &How,
    input: &Input<'_>,
    location: &Location,
    report: &dyn Reporter,
) -> Result<Copied, Error> {
    let output = Output::open(cx, location, input, &how.destination, report)?;
    let names = output.names(&how.additional_tags)?;
    let selection = Selection {
        from: input.what(),
        to: None,
        platforms: output.platforms(&how.platforms),
        jobs: output.jobs(how.jobs),
    };
    let failed =
        |source: BoxError| Error::Copy { from: input.place.clone(), to: location.to_string(), source };
    let copied = copy_image(input.source.as_ref(), output.sink(), &selection, report)
        .map_err(|error| failed(inner(error)))?;
    check_digest(&output, &copied.target)?;
    warn_of_types(location, &copied.target, report);
    let place = output.place.clone();
    output.finish(&copied.target, &names).map_err(failed)?;
    Ok(Copied {
        place,
        digest: digest_of(&copied.target).map_err(|error| failed(error.into()))?,
        size: copied.target.size(),
        moved: copied.moved.len(),
        reused: copied.reused.len(),
    })
}

/// Readers of OCI layouts that only look for OCI's own types do not find an image of docker's.
fn warn_of_types(location: &Location, target: &Descriptor, report: &dyn Reporter) {
    let is_layout = matches!(location, Location::OciDir { .. } | Location::OciArchive { .. });
    let kind = target.media_type().to_string();
    if is_layout && matches!(kind.as_str(), media_type::DOCKER_MANIFEST | media_type::DOCKER_INDEX) {
        report.event(Event::Note(format!(
            "the image keeps docker's types in `{location}`, where some tools only find OCI's: --format oci converts it"
        )));
    }
}

/// A destination that names its digest gets that and nothing else.
fn check_digest(output: &Output<'_>, target: &Descriptor) -> Result<(), Error> {
    let found = target.digest().to_string();
    match output.demanded_digest() {
        Some(demanded) if demanded.as_str() != found => {
            Err(Error::OtherDigest { to: output.place.clone(), found })
        }
        _ => Ok(()),
    }
}
