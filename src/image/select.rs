//! Choosing one manifest of an index.

use crate::oci::{Descriptor, Index, Platform};

/// No manifest of the index fits.
#[derive(Debug, thiserror::Error)]
#[error("no image for platform {wanted}: the index offers {}", offer(.offered))]
pub struct SelectError {
    /// What was asked for.
    pub wanted: Platform,
    /// What there is.
    pub offered: Vec<String>,
}

fn offer(offered: &[String]) -> String {
    if offered.is_empty() { "none that name a platform".into() } else { offered.join(", ") }
}

/// The manifest that fits `wanted` best; the first of equals, as the specification asks.
///
/// # Errors
/// When none fits; the error lists the platforms there are.
pub fn select_platform<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, SelectError> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut offered = Vec::new();
    for descriptor in index.manifests() {
        let Some(platform) = descriptor.platform().as_ref().map(Platform::from) else { continue };
        if platform.os == "unknown" {
            continue; // attestations
        }
        offered.push(platform.to_string());
        if let Some(fit) = platform.fit(wanted)
            && best.is_none_or(|(so_far, _)| fit < so_far)
        {
            best = Some((fit, descriptor));
        }
    }
    match (best, index.manifests().as_slice()) {
        (Some((_, descriptor)), _) => Ok(descriptor),
        // A single manifest without a platform is taken at its word.
        (None, [only]) if only.platform().is_none() => Ok(only),
        _ => Err(SelectError { wanted: wanted.clone(), offered }),
    }
}
