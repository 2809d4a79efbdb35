//! `create`: find the image, merge it with the user's words, keep the container.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::container::spec::merge;
use super::container::{ContainerSpec, Error, NetworkMode, Overrides, UserNamespace, cgroup, names, volumes};
use super::pull::PullPolicy;
use super::when;
use crate::image::{BoxError, select_platform};
use crate::oci::Platform;
use crate::storage::{ContainerDir, ContainerRecord, Image, ImageRecord, NewName, RunLock, Store};
use crate::sys::SysError;

/// A container to be made.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image as typed.
    pub image: String,
    /// The container's name; else a random one.
    pub name: Option<String>,
    /// Take the name over from a container that has it.
    pub replace: bool,
    /// When to pull.
    pub pull: PullPolicy,
    /// The image's platform; else this machine's.
    pub platform: Option<Platform>,
    /// Where to write the id.
    pub cidfile: Option<PathBuf>,
    /// The user's words about the container.
    pub overrides: Overrides,
}

/// What a creation may need from outside: how images are fetched, and where remarks go.
pub trait Helper {
    /// Fetch an image, or with [`PullPolicy::Newer`] see whether there is a newer one.
    ///
    /// # Errors
    /// Whatever stops the fetch.
    fn pull(&mut self, image: &str, platform: Option<&Platform>, policy: PullPolicy) -> Result<(), BoxError>;

    /// Something the user should know.
    fn note(&mut self, text: &str);
}

/// A new container, locked: nobody starts or removes it before its maker does.
#[derive(Debug)]
pub struct Created {
    /// Its directory.
    pub dir: ContainerDir,
    /// Its description.
    pub spec: ContainerSpec,
    /// Its lock.
    pub lock: RunLock,
    /// Its image.
    pub image: Image,
}

/// Make a container. What is wrong with the request is found before anything is fetched or written.
///
/// # Errors
/// See [`Error`]; nothing is left behind then.
pub fn create(store: &Store, mut request: Request, helper: &mut dyn Helper) -> Result<Created, Error> {
    if let Some(path) = &request.cidfile
        && path.exists()
    {
        return Err(Error::CidFileExists(path.clone()));
    }
    let name = request.name.as_deref().map(names::check).transpose()?;
    for mount in &request.overrides.mounts {
        mount.ensure_source()?;
    }
    store.sweep_ended();
    cgroup::sweep(store);
    volumes::inherit(store, &mut request.overrides)?;
    let image = find_image(store, &request, helper)?;
    warn_platform(&request, &image, helper);
    let mut spec = merge(&image.config.config, request.overrides)?;
    if let NetworkMode::Container(name) = &mut spec.host.network {
        // Names may move; what was meant is meant for good.
        *name = store.find_container(name)?.record.id;
    }
    if let UserNamespace::Container(name) = &mut spec.host.user_namespace {
        // As it is: with the user namespace goes who the user is in it.
        let other = store.find_container(name)?;
        spec.host.user_namespace = match spec_of(&other)?.host.user_namespace {
            UserNamespace::Keep { uid, gid, .. } => {
                UserNamespace::Keep { uid, gid, runs: false, passwd: false }
            }
            _ => UserNamespace::Container(other.record.id),
        };
    }
    if let (true, Some(name)) = (request.replace, name) {
        replace(store, name)?;
    }
    let new_name = name.map_or(NewName::Proposed(propose), NewName::Given);
    let (dir, lock) = keep(store, &image, &mut spec, &request.image, new_name)?;
    let created = Created { dir, spec, lock, image };
    created.dir.tell("create", &[]);
    if let Some(path) = &request.cidfile
        && let Err(error) = write_cidfile(path, &created.dir.record.id)
    {
        store.remove_container(&created.dir, created.lock, true)?;
        return Err(error);
    }
    Ok(created)
}

/// How often an image is pulled that peers remove before it can be used.
const PULLS: u32 = 5;

/// The image, pulled where the policy says so or it is not here for the platform.
fn find_image(store: &Store, request: &Request, helper: &mut dyn Helper) -> Result<Image, Error> {
    use crate::storage::Error as E;
    let platform = request.platform.as_ref();
    let found = match store.find_image(&request.image) {
        Ok(found) => Some(found),
        Err(E::NoSuchImage(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let (found, image) = match found.as_ref().map(|record| store.image_for(record, platform)).transpose() {
        // A peer removed it since the look.
        Err(E::NoSuchImage(_)) => (None, Ok(None)),
        image => (found, image),
    };
    match (image, request.pull) {
        (Ok(Some(image)), PullPolicy::Missing | PullPolicy::Never) => return Ok(image),
        (Ok(None), PullPolicy::Never) => return Err(Error::ImageNotHere(request.image.clone())),
        (Ok(None), _) => {
            let shown = crate::oci::Reference::from_str(&request.image)
                .map_or_else(|_| request.image.clone(), |reference| reference.familiar());
            helper.note(&format!("Unable to find image '{shown}' locally"));
        }
        (Err(E::NoPlatform { .. }), PullPolicy::Missing) => {}
        (Err(error), PullPolicy::Missing | PullPolicy::Never) => return Err(error.into()),
        (Ok(Some(_)) | Err(_), _) => {}
    }
    let reference = found.as_ref().map_or(Ok(None), |record| wanted_of_index(store, record, request))?;
    let reference = reference.unwrap_or_else(|| request.image.clone());
    let policy = if request.pull == PullPolicy::Newer { PullPolicy::Newer } else { PullPolicy::Always };
    for _ in 0..PULLS {
        let pulled = helper.pull(&reference, platform, policy);
        pulled.map_err(|source| Error::Pull { image: reference.clone(), source })?;
        match store.find_image(&reference).and_then(|record| store.image_for(&record, platform)) {
            Err(E::NoSuchImage(_)) => {}
            image => return Ok(image?),
        }
    }
    Err(E::NoSuchImage(reference).into())
}

/// Where the image of an index that was put together here can be had: its name is no help, as no registry knows it. An
/// index without an image for the platform is an error, and so no reason to ask a registry.
fn wanted_of_index(store: &Store, record: &ImageRecord, request: &Request) -> Result<Option<String>, Error> {
    if !record.is_index() {
        return Ok(None);
    }
    let index = store.index_of(record)?;
    let wanted = request.platform.clone().unwrap_or_else(Platform::host);
    match select_platform(&index, &wanted) {
        Ok(child) => {
            let origin = crate::oci::digest_of(child).ok().and_then(|digest| record.origins.get(&digest));
            Ok(origin.map(ToString::to_string))
        }
        Err(_) => store.image_for(record, Some(&wanted)).map(|_| None).map_err(Error::from),
    }
}

fn warn_platform(request: &Request, image: &Image, helper: &mut dyn Helper) {
    let (have, host) = (image.config.platform(), Platform::host());
    if request.platform.is_none() && have.fit(&host).is_none() {
        helper.note(&format!(
            "warning: the image's platform ({have}) does not match the host's ({host}), and no platform was asked for"
        ));
    }
}

/// Make the volumes that it mounts, then the container itself: at no time are there volumes in its record that somebody
/// else may remove.
fn keep(
    store: &Store,
    image: &Image,
    spec: &mut ContainerSpec,
    image_name: &str,
    name: NewName<'_>,
) -> Result<(ContainerDir, RunLock), Error> {
    let held = (!volumes::uses(spec).is_empty()).then(|| store.hold_volumes()).transpose()?;
    let own = volumes::make(store, spec)?;
    let made = record(store, image_name, image, spec)
        .and_then(|record| Ok(store.create_container(record, name, !spec.host.auto_remove)?));
    drop(held);
    if made.is_err() {
        volumes::discard(store, &own);
    }
    made
}

/// 64 random hex digits.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn random_id() -> Result<String, Error> {
    Ok(random_bytes::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags)
        .map_err(|error| SysError::new("get", "random bytes", error))?;
    Ok(bytes)
}

fn propose(attempt: u32) -> String {
    names::random(random_bytes().unwrap_or_default(), attempt)
}

fn replace(store: &Store, name: &str) -> Result<(), Error> {
    match store.find_container(name) {
        Ok(old) if old.record.name == name => super::rm::remove(store, &old, true, false),
        Ok(_) | Err(crate::storage::Error::NoSuchContainer(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn record(
    store: &Store,
    image_name: &str,
    image: &Image,
    spec: &ContainerSpec,
) -> Result<ContainerRecord, Error> {
    let id = random_id()?;
    let layers = image.manifest.layers().iter().cloned().zip(image.config.rootfs.diff_ids.iter().cloned());
    Ok(ContainerRecord {
        name: String::new(),
        created: when::now(),
        image_name: image_name.to_owned(),
        image: image.id.clone(),
        manifest: image.raw.digest.clone(),
        layers: layers.collect(),
        volumes: Some(volumes::uses(spec)),
        stores: store.stores_of(image),
        spec: serde_json::value::to_raw_value(spec)
            .map_err(|source| Error::Spec { id: id.clone(), source })?,
        id,
    })
}

fn write_cidfile(path: &Path, id: &str) -> Result<(), Error> {
    let failed = |source| Error::File { flag: "--cidfile", path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(id.as_bytes()).map_err(failed)
}

/// The description that a container was made with.
///
/// # Errors
/// [`Error::Spec`]
pub fn spec_of(dir: &ContainerDir) -> Result<ContainerSpec, Error> {
    serde_json::from_str(dir.record.spec.get())
        .map_err(|source| Error::Spec { id: dir.short_id().into(), source })
}
