//! `inspect`: containers, images and volumes by name or id, as JSON.

use serde_json::Value;

use super::inspect_container::inspect_container;
use super::inspect_image::inspect_image;
use super::store;
use crate::context::Context;
use crate::image::BoxError;
use crate::oci::Platform;
use crate::storage::{self, Store};

/// What kind of thing to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Containers, then images, then volumes.
    Any,
    /// Only containers.
    Container,
    /// Only images.
    Image,
    /// Only volumes.
    Volume,
}

/// What was found, and what was not.
#[derive(Debug, Default)]
pub struct Inspected {
    /// One document for each name that was found, in the order asked for.
    pub found: Vec<Value>,
    /// Why the others were not.
    pub failures: Vec<BoxError>,
}

/// Nothing has the name.
#[derive(Debug, thiserror::Error)]
#[error("no such {}: {name}", .kind.word())]
pub struct NotFound {
    kind: Kind,
    name: String,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Any => "object",
            Self::Container => "container",
            Self::Image => "image",
            Self::Volume => "volume",
        }
    }
}

/// How to look.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Add the sizes of containers' own files.
    pub size: bool,
    /// Which image of an index; without it, this machine's.
    pub platform: Option<Platform>,
}

/// Look up each name. A name that is not found does not keep the others from being shown.
///
/// # Errors
/// When the store cannot be opened.
pub fn inspect(cx: &Context, names: &[String], kind: Kind, look: &Look) -> Result<Inspected, storage::Error> {
    let store = store::read(cx)?;
    let mut all = Inspected::default();
    for name in names {
        match one(&store, name, kind, look) {
            Ok(value) => all.found.push(value),
            Err(error) => all.failures.push(error),
        }
    }
    Ok(all)
}

fn one(store: &Store, name: &str, kind: Kind, look: &Look) -> Result<Value, BoxError> {
    if matches!(kind, Kind::Any | Kind::Container)
        && let Some(value) = container(store, name, look.size)?
    {
        return Ok(value);
    }
    if matches!(kind, Kind::Any | Kind::Image) {
        match inspect_image(store, name, look.platform.as_ref()) {
            Err(storage::Error::NoSuchImage(_)) => {}
            other => return Ok(other?),
        }
    }
    if matches!(kind, Kind::Any | Kind::Volume) {
        match super::volume::inspect(store, name) {
            Err(storage::Error::NoSuchVolume(_)) => {}
            other => return Ok(other?),
        }
    }
    Err(NotFound { kind, name: name.into() }.into())
}

/// A container's document; `None` when there is none of that name.
fn container(store: &Store, name: &str, size: bool) -> Result<Option<Value>, BoxError> {
    match store.find_container(name) {
        Err(storage::Error::NoSuchContainer(_)) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some(inspect_container(store, name, size)?)),
    }
}
