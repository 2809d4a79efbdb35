//! `system df`: what takes how much room.

use std::collections::BTreeMap;

use super::create::spec_of;
use super::{container, store};
use crate::context::Context;
use crate::storage::{self, Usage};

pub use crate::storage::{ContainerUsage, ImageUsage, OtherUsage};

/// What takes how much room, and who uses which volume.
#[derive(Debug)]
pub struct DiskUsage {
    /// What the store knows.
    pub usage: Usage,
    /// The containers' programs and how many volumes each uses, in the order of `usage.containers`.
    pub programs: Vec<(Vec<String>, usize)>,
    /// How many containers use a volume, by its name.
    pub links: BTreeMap<String, usize>,
}

/// Look at the whole store.
///
/// # Errors
/// When it cannot be read.
pub fn df(cx: &Context) -> Result<DiskUsage, storage::Error> {
    let usage = store::read(cx)?.usage()?;
    let mut links: BTreeMap<String, usize> = BTreeMap::new();
    let mut programs = Vec::new();
    for container in &usage.containers {
        // A description that cannot be read names no program and no volume.
        let spec = spec_of(&container.dir).ok();
        let mut volumes = 0;
        for mount in spec.iter().flat_map(|spec| &spec.mounts) {
            if let container::mounts::MountKind::Volume { name, .. } = &mount.kind {
                *links.entry(name.clone()).or_default() += 1;
                volumes += 1;
            }
        }
        let args = spec.map(|spec| spec.args().iter().map(ToString::to_string).collect());
        programs.push((args.unwrap_or_default(), volumes));
    }
    Ok(DiskUsage { usage, programs, links })
}
