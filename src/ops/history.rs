//! `history`: how an image was made, newest step first.

use super::store;
use crate::context::Context;
use crate::oci::{ImageId, Platform};
use crate::storage::Error;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The image's id for the newest step; what stood after the others was never an image here.
    pub id: Option<ImageId>,
    /// RFC 3339.
    pub created: Option<String>,
    /// The instruction or command.
    pub created_by: String,
    /// Bytes of the layer it made.
    pub size: u64,
    /// A remark.
    pub comment: String,
}

/// The steps of an image (of an index: of the one for `platform`), newest first. Layers that no step accounts for are shown as steps without a command.
///
/// # Errors
/// When the image is unknown or its documents cannot be read.
pub fn history(cx: &Context, text: &str, platform: Option<&Platform>) -> Result<Vec<Step>, Error> {
    let store = store::read(cx)?;
    let image = store.image_for(&store.find_image(text)?, platform)?;
    let mut sizes = store.layer_sizes(&image).into_iter();
    let mut steps: Vec<Step> = image
        .config
        .history
        .iter()
        .map(|entry| Step {
            id: None,
            created: entry.created.clone(),
            created_by: entry.created_by.clone().unwrap_or_default(),
            size: if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
            comment: entry.comment.clone().unwrap_or_default(),
        })
        .collect();
    steps.extend(sizes.map(|size| Step {
        id: None,
        created: image.config.created.clone(),
        created_by: String::new(),
        size,
        comment: String::new(),
    }));
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        newest.id = Some(image.id);
    }
    Ok(steps)
}
