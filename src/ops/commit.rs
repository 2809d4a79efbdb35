//! `commit`: a container's changes become a layer on top of its image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::container::freeze::Guard;
use super::container::target::Target;
use super::container::{ContainerSpec, Error, changes};
use super::create::spec_of;
use super::when;
use crate::build::{self, Times};
use crate::context::Context;
use crate::image::{Edit, NewLayer, Reporter};
use crate::oci::{History, ImageId, Reference};
use crate::storage::{CommitOptions, ContainerDir, Image, Method, Mounted, Stack, Store};
use crate::sys::SysError;

/// Where the environment says when things were made (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What to commit, and as what.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The container as typed.
    pub container: String,
    /// The new image's name.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// Instructions that change its config.
    pub changes: Vec<String>,
    /// Hold the container still meanwhile.
    pub pause: bool,
    /// When the image was made, in seconds since 1970: else `SOURCE_DATE_EPOCH` says, and else it is now.
    pub epoch: Option<i64>,
    /// The times of the files in the new layer.
    pub times: Times,
}

/// Make an image of a container. Enters the user namespace itself, after the process that can pause the container was
/// made outside of it; `open` then opens the store.
///
/// # Errors
/// See [`Error`]; the container goes on as before.
pub fn commit(
    cx: &mut Context,
    request: &Request,
    open: &dyn Fn(&Context) -> Result<Store, Error>,
    report: &dyn Reporter,
) -> Result<ImageId, Error> {
    let epoch = epoch(cx, request)?;
    let dir = super::store::read(cx)?.find_container(&request.container)?;
    let mut spec = spec_of(&dir)?;
    for change in &request.changes {
        changes::apply(&mut spec.config, change)?;
    }
    let paused = |source| Error::Pause { id: dir.short_id().into(), source };
    let mut guard = match (request.pause, Target::of(&dir)) {
        (true, Ok(target)) => Some(Guard::start(target.pid()).map_err(paused)?),
        _ => None,
    };
    let entry = super::enter::Entry::of(&spec.host.user_namespace);
    entry.enter(cx).map_err(|error| committing(&dir, error))?;
    let mut store = open(cx)?;
    store.read_stores_of(&dir.record);
    let image = store.image(&dir.record.manifest)?;
    let stack = store.stack_of(&dir.record.layers, report)?;
    if let Some(guard) = &mut guard {
        guard.freeze().map_err(paused)?;
    }
    // Nobody starts or removes it while its files are read; a running one is its watcher's.
    let stopped = super::start::lock_unless_running(&dir)?;
    let layer = changes_layer(&store, &dir, &stack)?;
    drop(stopped);
    // The files are read: the container may go on.
    drop(guard);
    let again = |layer: NewLayer| match epoch {
        Some(epoch) => build::set_times(&store, layer, request.times, epoch.as_second()),
        None => Ok(layer),
    };
    let layer = layer.map(again).transpose().map_err(|error| committing(&dir, error))?;
    let made = epoch.map_or_else(when::now, |epoch| epoch.to_string());
    publish(&store, request, &dir, spec, image, layer, made)
}

/// The time that the image is to have: what was asked for, else what the environment says.
fn epoch(cx: &Context, request: &Request) -> Result<Option<Timestamp>, Error> {
    let named = request.epoch.map(|seconds| seconds.to_string());
    let given = named.or_else(|| cx.var(EPOCH).filter(|text| !text.is_empty()).map(str::to_owned));
    let Some(text) = given else { return Ok(None) };
    let time = text.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let bad = || Error::BadValue {
        flag: if request.epoch.is_some() { "--timestamp".into() } else { EPOCH.into() },
        value: text.clone(),
        why: "expected seconds since 1970".into(),
    };
    time.map(Some).ok_or_else(bad)
}

fn committing(dir: &ContainerDir, source: impl Into<crate::image::BoxError>) -> Error {
    Error::Commit { id: dir.short_id().into(), source: source.into() }
}

/// The container's changes as a layer; `None` when it was never started.
fn changes_layer(store: &Store, dir: &ContainerDir, stack: &Stack) -> Result<Option<NewLayer>, Error> {
    let (upper, method) = [("upper", Method::Overlay), ("rootfs", Method::Copy)]
        .map(|(name, method)| (dir.path.join(name), method))
        .into_iter()
        .find(|(path, _)| path.is_dir())
        .unzip();
    let (Some(upper), Some(method)) = (upper, method) else { return Ok(None) };
    let root = fs::File::open(&upper).map_err(|error| SysError::path("open", &upper, error))?;
    let stubs = stubs_of(dir)?;
    let top = upper.clone();
    let skip = |path: &Path| is_stub(&top, path, &stubs);
    let mounted = Mounted { root: root.into(), method, upper: Some(upper) };
    let options = CommitOptions { skip: &skip, take: false };
    let layer = store.commit_layer(stack, mounted, &options).map_err(|error| committing(dir, error))?;
    Ok(Some(layer))
}

/// The paths (relative) that the runtime made in a container's tree only to mount on.
pub(super) fn stubs_of(dir: &ContainerDir) -> Result<BTreeSet<PathBuf>, Error> {
    let stubs = dir.state()?.stubs;
    Ok(stubs.iter().map(|path| PathBuf::from(path.trim_start_matches('/'))).collect())
}

/// Whether a path (relative) is there only to be mounted on: the runtime made it, and it is still an empty file, or a
/// directory of such.
pub(super) fn is_stub(upper: &Path, path: &Path, stubs: &BTreeSet<PathBuf>) -> bool {
    if !stubs.contains(path) {
        return false;
    }
    match fs::symlink_metadata(upper.join(path)) {
        Ok(meta) if meta.is_dir() => {
            let mut entries = fs::read_dir(upper.join(path)).into_iter().flatten().flatten();
            entries.all(|entry| is_stub(upper, &path.join(entry.file_name()), stubs))
        }
        Ok(meta) => meta.is_file() && meta.len() == 0,
        Err(_) => false,
    }
}

fn publish(
    store: &Store,
    request: &Request,
    dir: &ContainerDir,
    spec: ContainerSpec,
    image: Image,
    layer: Option<NewLayer>,
    made: String,
) -> Result<ImageId, Error> {
    let created_by = spec_of(dir)?.args().join(" ");
    let mut config = image.config;
    config.config = spec.config;
    config.author = request.author.clone().or(config.author);
    let history = History {
        author: request.author.clone(),
        comment: request.message.clone(),
        created: Some(made),
        created_by: Some(created_by),
        empty_layer: layer.is_none(),
    };
    let edit = Edit {
        config,
        base_layers: image.manifest.layers().clone(),
        new_layers: layer.into_iter().collect(),
        history: vec![history],
        docker_types: false,
        annotations: std::collections::BTreeMap::new(),
    };
    let names: Vec<Reference> = request.name.iter().cloned().collect();
    let id = store.publish_image(edit, &names)?.id;
    dir.tell("commit", &[("imageID", id.to_string())]);
    Ok(id)
}
