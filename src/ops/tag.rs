//! `tag`: an image gets another name.

use super::store;
use crate::context::Context;
use crate::oci::{Reference, ReferenceError};
use crate::storage;

/// Why a name could not be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The new name is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The new name has a digest, which no one can choose.
    #[error("cannot tag as `{0}`: a new name may have a tag, not a digest")]
    Digest(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Give the image that `source` names each of `targets` too. All are checked before the first is given.
///
/// # Errors
/// When the image is unknown, a name is malformed, or the store cannot be written.
pub fn tag(
    cx: &Context,
    source: &str,
    targets: &[String],
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), Error> {
    let mut names = Vec::new();
    for target in targets {
        let name = Reference::parse(target)?;
        if name.digest().is_some() {
            return Err(Error::Digest(target.clone()));
        }
        names.push(name);
    }
    let store = store::write(cx, notice)?;
    let image = store.find_image(source)?;
    for name in &names {
        store.tag(&image, name)?;
        store.tell("image", "tag", &image.id.to_string(), &[("name", &name.familiar())]);
    }
    Ok(())
}
