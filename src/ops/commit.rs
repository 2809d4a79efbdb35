//! `commit`: a container's changes become a layer on top of its image.

use std::fs;
use std::path::{Path, PathBuf};

use super::container::freeze::Guard;
use super::container::target::Target;
use super::container::{ContainerSpec, Error, changes};
use super::create::spec_of;
use super::when;
use crate::context::Context;
use crate::image::{Edit, NewLayer, Reporter};
use crate::oci::{History, ImageId, Reference};
use crate::storage::{CommitOptions, ContainerDir, Image, Method, Mounted, Stack, Store};
use crate::sys::SysError;

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
    let dir = Store::open(&cx.root)?.find_container(&request.container)?;
    let mut spec = spec_of(&dir)?;
    for change in &request.changes {
        changes::apply(&mut spec.config, change)?;
    }
    let paused = |source| Error::Pause { id: dir.short_id().into(), source };
    let mut guard = match (request.pause, Target::of(&dir)) {
        (true, Ok(target)) => Some(Guard::start(target.pid()).map_err(paused)?),
        _ => None,
    };
    super::enter::enter(cx).map_err(|error| committing(&dir, error))?;
    let store = open(cx)?;
    let image = store.image(&dir.record.manifest)?;
    let stack = store.stack_of(&dir.record.layers, report)?;
    if let Some(guard) = &mut guard {
        guard.freeze().map_err(paused)?;
    }
    let layer = changes_layer(&store, &dir, &spec, &stack)?;
    // The files are read: the container may go on.
    drop(guard);
    publish(&store, request, &dir, spec, image, layer)
}

fn committing(dir: &ContainerDir, source: impl Into<crate::image::BoxError>) -> Error {
    Error::Commit { id: dir.short_id().into(), source: source.into() }
}

/// The container's changes as a layer; `None` when it was never started.
fn changes_layer(
    store: &Store,
    dir: &ContainerDir,
    spec: &ContainerSpec,
    stack: &Stack,
) -> Result<Option<NewLayer>, Error> {
    let (upper, method) = [("upper", Method::Overlay), ("rootfs", Method::Copy)]
        .map(|(name, method)| (dir.path.join(name), method))
        .into_iter()
        .find(|(path, _)| path.is_dir())
        .unzip();
    let (Some(upper), Some(method)) = (upper, method) else { return Ok(None) };
    let root = fs::File::open(&upper).map_err(|error| SysError::path("open", &upper, error))?;
    let stubs = stubs(spec, &upper, stack);
    let skip = |path: &Path| stubs.iter().any(|stub| path.starts_with(stub));
    let mounted = Mounted { root: root.into(), method, upper: Some(upper) };
    let options = CommitOptions { skip: &skip, take: false };
    let layer = store.commit_layer(stack, mounted, &options).map_err(|error| committing(dir, error))?;
    Ok(Some(layer))
}

/// Paths (relative) that are there only to be mounted on, with what lies below: the mount points themselves, and a
/// directory above them that holds nothing else and that the image does not have.
fn stubs(spec: &ContainerSpec, upper: &Path, stack: &Stack) -> Vec<PathBuf> {
    let ours = ["proc", "sys", "dev", "etc/resolv.conf", "etc/hosts", "etc/hostname"].map(PathBuf::from);
    let users = spec.mounts.iter().map(|mount| PathBuf::from(mount.target.trim_start_matches('/')));
    let mut stubs: Vec<PathBuf> = ours.into_iter().chain(users).collect();
    let in_image = |path: &Path| stack.layers.iter().any(|layer| layer.fs.join(path).exists());
    let mut next = 0;
    while let Some(stub) = stubs.get(next).cloned() {
        next += 1;
        let Some(parent) = stub.parent().filter(|parent| !parent.as_os_str().is_empty()) else { continue };
        if stubs.iter().any(|stub| stub == parent) || in_image(parent) {
            continue;
        }
        let entries = fs::read_dir(upper.join(parent)).into_iter().flatten().flatten();
        let only_stubs = entries.map(|entry| parent.join(entry.file_name())).all(|path| stubs.contains(&path));
        if only_stubs {
            stubs.push(parent.to_owned());
        }
    }
    stubs
}

fn publish(
    store: &Store,
    request: &Request,
    dir: &ContainerDir,
    spec: ContainerSpec,
    image: Image,
    layer: Option<NewLayer>,
) -> Result<ImageId, Error> {
    let created_by = spec_of(dir)?.args().join(" ");
    let mut config = image.config;
    config.config = spec.config;
    config.author = request.author.clone().or(config.author);
    let history = History {
        author: request.author.clone(),
        comment: request.message.clone(),
        created: Some(when::now()),
        created_by: Some(created_by),
        empty_layer: layer.is_none(),
    };
    let edit = Edit {
        config,
        base_layers: image.manifest.layers().clone(),
        new_layers: layer.into_iter().collect(),
        history: vec![history],
    };
    let names: Vec<Reference> = request.name.iter().cloned().collect();
    Ok(store.publish_image(edit, &names)?.id)
}
