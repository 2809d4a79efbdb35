//! `manifest inspect`: the document itself, of an index that is here or of anything in a registry, without pulling it.

use super::{Error, Finder, found};
use crate::context::Context;
use crate::image::{BoxError, IndexDraft, Location, Member, Reporter, is_container_image};
use crate::oci::{Parsed, RawManifest, Reference};
use crate::ops::remote::{self, RemoteOptions};
use crate::ops::store;
use crate::ops::transport::Input;
use crate::storage;

/// One image with what docker shows of it.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Its name, with its digest where it is one of an index.
    pub name: Option<Reference>,
    /// Its descriptor.
    pub member: Member,
    /// Its manifest.
    pub raw: RawManifest,
}

/// The manifest or index that a name stands for: an index that is here, else what a registry has. With `image` the
/// manifest of that image of it.
///
/// # Errors
/// When it cannot be found or read.
pub fn inspect(
    cx: &Context,
    name: &str,
    image: Option<&str>,
    remote: &RemoteOptions,
    report: &dyn Reporter,
) -> Result<RawManifest, Error> {
    let input = open(cx, name, remote, report)?;
    let raw = input.document()?;
    let Some(image) = image else { return Ok(raw) };
    let index = IndexDraft::parse(&raw).map_err(|source| Error::Draft { index: name.to_owned(), source })?;
    let store = store::read(cx)?;
    let digest = super::held(&Finder { cx, store: &store, remote, report }, (name, &index), image)?;
    let member = index.members().iter().find(|member| member.digest == digest);
    let gone = || Error::NotHeld { index: name.to_owned(), image: image.to_owned() };
    Ok(input.manifest(&member.ok_or_else(gone)?.descriptor())?)
}

/// Every image that a name stands for, with its manifest. The second value is whether it is an index.
///
/// # Errors
/// When one cannot be found or read.
pub fn documents(
    cx: &Context,
    name: &str,
    remote: &RemoteOptions,
    report: &dyn Reporter,
) -> Result<(Vec<Detail>, bool), Error> {
    let input = open(cx, name, remote, report)?;
    let failed = |source: BoxError| Error::Read { image: name.to_owned(), source };
    let raw = input.document()?;
    if let Parsed::Manifest(manifest) = input.parse(&raw)? {
        let mut member = Member::new(&raw, None);
        if is_container_image(&manifest) {
            member.platform = Some(found::platform(input.source.as_ref(), &manifest).map_err(failed)?);
        }
        let reference = input.reference.clone().or_else(|| Reference::parse(name).ok());
        return Ok((vec![Detail { name: reference, member, raw }], false));
    }
    let index = IndexDraft::parse(&raw).map_err(|error| failed(error.into()))?;
    let name = input.reference.clone().or_else(|| Reference::parse(name).ok());
    let mut details = Vec::new();
    for member in index.members() {
        let raw = input.manifest(&member.descriptor())?;
        let name = name.as_ref().map(|name| name.at_digest(member.digest.clone()));
        details.push(Detail { name, member: member.clone(), raw });
    }
    Ok((details, true))
}

/// Where the document is.
fn open<'a>(
    cx: &Context,
    name: &str,
    remote: &RemoteOptions,
    report: &'a dyn Reporter,
) -> Result<Input<'a>, Error> {
    if Location::is_meant(name) {
        let location = Location::parse(name).map_err(crate::ops::transport::Error::from)?;
        return Ok(Input::open(cx, &location, remote, report)?);
    }
    let reference = Reference::parse(name);
    let here = match store::read(cx)?.find_image(name) {
        // A single image is asked of the registry: scripts look in this way whether it is there.
        Ok(record) => record.is_index() || reference.as_ref().ok() != record.name.as_ref(),
        Err(storage::Error::NoSuchImage(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let location = if here {
        Location::Store(name.to_owned())
    } else {
        Location::Registry(remote::told_name(cx, name, report)?)
    };
    Ok(Input::open(cx, &location, remote, report)?)
}
