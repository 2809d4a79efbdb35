//! The volumes of a container: made with it, filled when it first starts.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use super::mounts::{Mount, MountKind};
use super::{ContainerSpec, Error, Overrides};
use crate::ops::{create, when};
use crate::storage::{Backing, ImageContent, LOCAL, Store, Volume, VolumeRecord, VolumeUse};
use crate::sys::SysError;

/// The label of anonymous volumes, by which docker's users pick them.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// Make the volumes of a new container that are not there yet; anonymous ones get their names, which are added to `own`.
/// The caller holds the volumes ([`Store::hold_volumes`]) until the container has its record.
///
/// # Errors
/// When one cannot be made. The caller gives up its hold then, and after that removes those in `own` ([`discard`]).
pub fn make(store: &Store, spec: &mut ContainerSpec, own: &mut Vec<String>) -> Result<(), Error> {
    let passing = spec.host.auto_remove;
    spec.mounts.iter_mut().try_for_each(|mount| make_one(store, mount, passing, own))
}

fn make_one(store: &Store, mount: &mut Mount, passing: bool, own: &mut Vec<String>) -> Result<(), Error> {
    let MountKind::Volume { name, anonymous, labels, options, .. } = &mut mount.kind else { return Ok(()) };
    if *anonymous {
        *name = create::random_id()?;
    }
    let mut labels = std::mem::take(labels);
    if *anonymous {
        labels.insert(ANONYMOUS_LABEL.into(), String::new());
    }
    let record = VolumeRecord {
        name: name.clone(),
        driver: LOCAL.into(),
        created: when::now(),
        anonymous: *anonymous,
        labels,
        options: std::mem::take(options),
    };
    let asked = record.options.clone();
    let (volume, made) = store.create_volume(record, !(*anonymous && passing))?;
    if *anonymous {
        own.push(name.clone());
    }
    if !made && !asked.is_empty() && volume.record.options != asked {
        return Err(Error::VolumeDiffers(name.clone()));
    }
    Ok(())
}

/// Remove volumes of a container that could not be made. The caller does not hold the volumes any more.
pub fn discard(store: &Store, own: &[String]) {
    for name in own {
        // What stays is an unused anonymous volume, which a prune takes.
        let _ = store.remove_volume(name, true);
    }
}

/// What the container's record says about its volumes.
#[must_use]
pub fn uses(spec: &ContainerSpec) -> Vec<VolumeUse> {
    let used = |mount: &Mount| match &mount.kind {
        MountKind::Volume { name, anonymous, .. } => Some(VolumeUse { name: name.clone(), own: *anonymous }),
        _ => None,
    };
    spec.mounts.iter().filter_map(used).collect()
}

/// Make the volumes ready for the container's program: what stands behind each. `image` is the container's tree when it
/// starts for the first time.
///
/// # Errors
/// When one cannot be filled, or the host's directory behind it is not there.
pub fn prepare(
    store: &Store,
    spec: &ContainerSpec,
    image: Option<BorrowedFd<'_>>,
) -> Result<BTreeMap<String, Backing>, Error> {
    let mut backings = BTreeMap::new();
    for mount in &spec.mounts {
        let MountKind::Volume { name, anonymous, no_copy, subpath, .. } = &mount.kind else { continue };
        let volume = find_or_make(store, name, *anonymous)?;
        let backing = volume.backing()?;
        if let Backing::Bind { path, .. } = &backing {
            rustix::fs::stat(path).map_err(|error| Error::BindSource {
                source_path: path.clone(),
                target: mount.target.clone(),
                source: SysError::path("find", path, error),
            })?;
        }
        // A part of a volume is there already, or the mount fails.
        let copies = !no_copy && subpath.is_none();
        let image = image.filter(|_| copies).map(|root| ImageContent { root, target: &mount.target });
        volume.prepare(store, image, !(*anonymous && spec.host.auto_remove))?;
        backings.insert(name.clone(), backing);
    }
    Ok(backings)
}

/// A volume that is not there any more, though the container has kept it, is made again.
fn find_or_make(store: &Store, name: &str, anonymous: bool) -> Result<Volume, Error> {
    match store.find_volume(name) {
        Err(crate::storage::Error::NoSuchVolume(_)) => {}
        other => return Ok(other?),
    }
    store.remark(&format!("volume {name} is not there any more: the container gets a new, empty one"));
    let record = VolumeRecord {
        name: name.into(),
        driver: LOCAL.into(),
        created: when::now(),
        anonymous,
        ..VolumeRecord::default()
    };
    Ok(store.create_volume(record, true)?.0)
}

/// `--volumes-from CONTAINER[:ro|rw]`: what other containers mount, but where the user mounts something else.
///
/// # Errors
/// When a container is unknown, or what follows its name makes no sense.
pub fn inherit(store: &Store, overrides: &mut Overrides) -> Result<(), Error> {
    for text in std::mem::take(&mut overrides.volumes_from) {
        let (name, mode) = text.split_once(':').unwrap_or((&text, ""));
        let read_only = match mode {
            "" | "rw" | "z" | "Z" => false,
            "ro" | "ro,z" | "z,ro" => true,
            _ => return Err(super::values::bad("--volumes-from", &text, "expected CONTAINER[:ro|rw]")),
        };
        let other = create::spec_of(&store.find_container(name)?)?;
        for mut mount in other.mounts {
            match &mut mount.kind {
                MountKind::Tmpfs { .. } => continue,
                // It stays the other container's.
                MountKind::Volume { anonymous, .. } => *anonymous = false,
                MountKind::Bind { .. } => {}
            }
            mount.read_only |= read_only;
            if !overrides.mounts.iter().any(|own| own.target == mount.target) {
                overrides.mounts.push(mount);
            }
        }
    }
    Ok(())
}
