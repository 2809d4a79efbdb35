//! `rmi`: names and images go, content that nothing else needs with them.

use std::sync::Arc;

use super::store;
use crate::context::Context;
pub use crate::storage::Removed;
use crate::storage::{Error, Store};

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Names and ids.
    pub images: Vec<String>,
    /// Every image.
    pub all: bool,
    /// Untag even if a stopped container uses it, or it has several names.
    pub force: bool,
    /// An image that is not there is fine.
    pub ignore: bool,
}

/// What became of one of them.
#[derive(Debug)]
pub struct Outcome {
    /// What went, in docker's order.
    pub removed: Vec<Removed>,
    /// Why it did not go.
    pub failure: Option<Failure>,
}

/// Why an image did not go.
#[derive(Debug)]
pub struct Failure {
    /// What the store said.
    pub error: Error,
    /// Whether it only is not there.
    pub absent: bool,
    /// Whether a container uses it.
    pub in_use: bool,
}

/// Remove images one by one; a failure of one does not keep the next from going.
///
/// # Errors
/// When the store cannot be opened or read at all.
pub fn remove_images(
    cx: &Context,
    request: &Request,
    notice: Arc<dyn Fn(&str) + Send + Sync>,
) -> Result<Vec<Outcome>, Error> {
    let store = store::write(cx, move |text| notice(text))?;
    // What should have removed itself uses nothing any more.
    store.sweep_ended();
    let (images, force) = match request.all {
        true => (everything(&store)?, true),
        false => (request.images.clone(), request.force),
    };
    let mut outcomes = Vec::new();
    for image in &images {
        outcomes.push(match store.remove_image(image, force) {
            Ok(removed) => {
                tell(&store, &removed);
                Outcome { removed, failure: None }
            }
            Err(Error::NoSuchImage(_)) if request.ignore || request.all => {
                Outcome { removed: Vec::new(), failure: None }
            }
            Err(error) => Outcome { removed: Vec::new(), failure: Some(Failure::new(error)) },
        });
    }
    Ok(outcomes)
}

fn tell(store: &Store, removed: &[Removed]) {
    for one in removed {
        match one {
            Removed::Untagged(name) => store.tell("image", "untag", name, &[("name", name)]),
            Removed::Deleted(id) => store.tell("image", "delete", id, &[("name", id)]),
        }
    }
}

impl Failure {
    fn new(error: Error) -> Self {
        let absent = matches!(error, Error::NoSuchImage(_));
        let in_use = matches!(error, Error::ImageInUse { .. });
        Self { error, absent, in_use }
    }
}

fn everything(store: &Store) -> Result<Vec<String>, Error> {
    let mut ids: Vec<String> = store.images()?.iter().map(|record| record.id.to_string()).collect();
    ids.dedup();
    Ok(ids)
}
