//! `image prune`: images that nothing uses go.

use jiff::Timestamp;

use super::{store, when};
use crate::context::Context;
pub use crate::storage::Collected;
use crate::storage::{self, PruneImages};

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A filter that makes no sense here.
    #[error("invalid filter `{0}`: there are until=<time>, label=<key>[=<value>] and label!=<key>[=<value>]")]
    Filter(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Read the filters of a prune.
///
/// # Errors
/// [`Error::Filter`].
pub fn parse(all: bool, filters: &[String]) -> Result<PruneImages, Error> {
    let mut what = PruneImages { all, ..PruneImages::default() };
    for text in filters {
        let bad = || Error::Filter(text.clone());
        match text.split_once('=').ok_or_else(bad)? {
            ("until", value) => {
                let time = when::parse(value, Timestamp::now()).ok_or_else(bad)?;
                what.until = Some(what.until.map_or(time.as_second(), |until| until.min(time.as_second())));
            }
            ("label", value) => what.labels.push(value.into()),
            ("label!", value) => what.not_labels.push(value.into()),
            // docker's spelling of --all
            ("dangling", value) => what.all = !super::images::flag(value).ok_or_else(bad)?,
            _ => return Err(bad()),
        }
    }
    Ok(what)
}

/// Remove what the filters pick and collect the garbage.
///
/// # Errors
/// When the store cannot be written.
pub fn prune_images(
    cx: &Context,
    what: &PruneImages,
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Collected, Error> {
    Ok(store::write(cx, notice)?.prune_images(what)?)
}
