//! `RUN --mount`: binds of contexts, stages and images, caches, tmpfs, secrets and agents.
//!
//! What is bound is a directory or file of the host that was resolved inside its root first. Stages are mounted on
//! scratch directories of this process's own mount namespace, secrets are written to a tmpfs there: both vanish with
//! the process at the latest.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, FlockOperation, Gid, Mode, OFlags, Uid, flock};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

use super::agent::Forward;
use super::beneath::{self, kind};
use super::copy::{Copier, CopyError, Rules};
use super::error::Error;
use super::execute::Build;
use super::graph::Input;
use super::mount::{Mount, MountType, Sharing};
use super::put::Placer;
use super::record::Key;
use super::run::{Prepared, target};
use super::sources::Origin;
use super::state::StageState;
use crate::runtime::{BindOptions, MountOp};
use crate::storage;
use crate::sys::{SysError, tree};

/// Largest secret, in bytes; BuildKit's limit.
const SECRET_MAX: usize = 500 << 10;

/// What a step's mounts come down to. Dropped after the step, which undoes them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// For the plan, parents before what lies below them.
    pub ops: Vec<MountOp>,
    /// Places that must be there, and whether they are directories.
    pub targets: Vec<(String, bool)>,
    /// Variables with secrets.
    pub env: Vec<String>,
    held: Vec<Held>,
}

/// What must stay until the step has ended.
#[derive(Debug)]
enum Held {
    /// Locked caches.
    Lock { _file: OwnedFd },
    /// A mount on a scratch directory.
    Mount { _point: MountPoint },
    /// The socket of an agent.
    Agent { _forward: Forward, _dir: tempfile::TempDir },
    /// A directory that is removed.
    Scratch { _dir: tempfile::TempDir },
}

#[derive(Debug)]
struct MountPoint {
    path: PathBuf,
    dir: Option<tempfile::TempDir>,
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // What is still mounted goes with our mount namespace. Its place is then left to a later sweep: to remove it now
        // would be to remove what is mounted there.
        if unmount(&self.path, UnmountFlags::DETACH).is_err() {
            self.dir.take().map(tempfile::TempDir::keep);
        }
    }
}

/// A mount's place, what the runtime is to do there, and whether the place is a directory.
type Placed = (String, (MountOp, bool));

/// Something to bind.
struct Bound {
    path: PathBuf,
    is_dir: bool,
}

impl<'a> Build<'a> {
    /// What of a mount belongs to the key: its form, and the content of a bind.
    pub(super) fn mount_key(
        &mut self,
        stage: usize,
        state: &StageState,
        mount: &Mount,
        key: &mut Key,
    ) -> Result<(), Error> {
        key.text(&mount.kind.to_string()).text(&mount.target);
        key.text(if mount.read_only { "ro" } else { "rw" });
        key.option(mount.size.map(|size| size.to_string()).as_deref());
        key.text(&format!("{:?} {:?} {:?}", mount.mode, mount.uid, mount.gid));
        match mount.kind {
            MountType::Bind => {
                let origin = self.mount_origin(stage, state, mount)?;
                let source = if mount.source.is_empty() { "/" } else { &mount.source };
                let source = literal(source);
                key.bytes(&self.sources.digest(&origin, &source, false, &[])?);
            }
            MountType::Secret | MountType::Ssh => {
                key.option(mount.id.as_deref()).option(mount.env.as_deref()).text(&mount.source);
            }
            // Neither the id nor the content of a cache counts, but where in it the step looks does.
            MountType::Cache => {
                key.text(&mount.source);
            }
            MountType::Tmpfs => {}
        }
        Ok(())
    }

    fn mount_origin(&mut self, stage: usize, state: &StageState, mount: &Mount) -> Result<Origin, Error> {
        let input = mount.from.as_deref().map(|from| self.graph.named_input(stage, from));
        self.origin(input, &state.platform)
    }

    /// Make everything ready that the step's mounts show.
    pub(super) fn prepare_mounts(
        &mut self,
        stage: usize,
        state: &StageState,
        run: &Prepared,
    ) -> Result<Mounts, Error> {
        let mut mounts = Mounts::default();
        let mut ops: Vec<(String, Option<(MountOp, bool)>)> = Vec::new();
        let mut sockets = 0;
        for mount in &run.mounts {
            let (place, op) = match mount.kind {
                MountType::Bind => self.bind(stage, state, run, mount, &mut mounts)?,
                MountType::Cache => self.cache(stage, state, run, mount, &mut mounts)?,
                MountType::Tmpfs => tmpfs(run, mount)?,
                MountType::Secret => match self.secret(run, mount, &mut mounts)? {
                    Some(op) => op,
                    None => continue,
                },
                MountType::Ssh => {
                    let number = sockets;
                    sockets += 1;
                    match self.ssh(run, mount, number, &mut mounts)? {
                        Some(op) => op,
                        None => continue,
                    }
                }
            };
            // Two mounts on one place: the last wins.
            ops.retain(|(known, _)| *known != place);
            ops.push((place, Some(op)));
        }
        ops.sort_by(|(a, _), (b, _)| Path::new(a).cmp(Path::new(b)));
        let places: Vec<String> = ops.iter().map(|(place, _)| place.clone()).collect();
        for (place, op) in ops {
            let Some((op, is_dir)) = op else { continue };
            // What lies on another mount is made there and not in the image.
            let covered = |other: &String| *other != place && Path::new(&place).starts_with(other);
            let of_ours = ["/dev", "/proc", "/sys"].iter().any(|mount| Path::new(&place).starts_with(mount));
            if !places.iter().any(covered) && !of_ours {
                mounts.targets.push((place, is_dir));
            }
            mounts.ops.push(op);
        }
        Ok(mounts)
    }

    fn bind(
        &mut self,
        stage: usize,
        state: &StageState,
        run: &Prepared,
        mount: &Mount,
        mounts: &mut Mounts,
    ) -> Result<Placed, Error> {
        let place = target(&run.cwd, &mount.target)?;
        let origin = self.mount_origin(stage, state, mount)?;
        let source = Path::new(if mount.source.is_empty() { "/" } else { &mount.source });
        let found = {
            let tree = self.sources.tree(&origin)?;
            tree.resolve(source, true).map_err(|error| place_error(&origin, error))?
        };
        let missing = || CopyError::NotFound(source.strip_prefix("/").unwrap_or(source).to_owned());
        let stat =
            found.stat.ok_or_else(|| Error::Input { place: origin.name().to_owned(), source: missing() })?;
        let is_dir = kind(&stat) == FileType::Directory;
        let bound = match &origin {
            Origin::Local(local) if mount.read_only && !local.filtered && self.request.owns_context => {
                // Held by a descriptor: somebody may swap what the path leads to before it is mounted.
                let tree = self.sources.tree(&origin)?;
                let flags = if is_dir { OFlags::PATH | OFlags::DIRECTORY } else { OFlags::PATH };
                let held = tree.open(&found.path, flags).map_err(|error| place_error(&origin, error))?;
                Bound { path: self.pinned(&held, is_dir, mounts)?, is_dir }
            }
            Origin::Local(_) => {
                let dir = self.shop.store.scratch_dir()?;
                let path = self.copy_out(&origin, source, dir.path(), is_dir)?;
                mounts.held.push(Held::Scratch { _dir: dir });
                Bound { path, is_dir }
            }
            Origin::Layered(layered) => {
                let layers = layered.layers.clone();
                let top = self.mount_layers(&layers, mount.read_only, mounts)?;
                Bound { path: top.join(&found.path), is_dir }
            }
        };
        Ok((place.clone(), (bind_op(bound.path, place, mount.read_only), bound.is_dir)))
    }

    /// Copy what a bind shows, where it must be shown filtered, owned by root, or may be written to.
    fn copy_out(&self, origin: &Origin, source: &Path, dir: &Path, is_dir: bool) -> Result<PathBuf, Error> {
        let tree = self.sources.tree(origin)?;
        let root = fs::File::open(dir).map_err(|error| cache_error(dir, error))?;
        let mut copier = Copier::new(Placer::new(root.as_fd()), Rules::default());
        let name = if is_dir { "/bound/" } else { "/bound" };
        copier.copy(tree, source, name).map_err(Error::Copy)?;
        Ok(dir.join("bound"))
    }

    /// Mount the layers of a stage or an image where they can be bound from.
    fn mount_layers(
        &self,
        layers: &super::sources::Layers,
        read_only: bool,
        mounts: &mut Mounts,
    ) -> Result<PathBuf, Error> {
        let store = self.shop.store;
        let dir = store.scratch_dir()?;
        let path = dir.path().join("mnt");
        fs::create_dir(&path).map_err(|error| cache_error(&path, error))?;
        if layers.is_empty() {
            mounts.held.push(Held::Scratch { _dir: dir });
            return Ok(path);
        }
        let stack = store.stack_of(layers, self.shop.report)?;
        let mounted = if read_only {
            store.mount_read_only(&stack)?
        } else {
            let changes = dir.path().join("changes");
            fs::create_dir(&changes).map_err(|error| cache_error(&changes, error))?;
            store.mount_writable(&stack, &changes, true)?
        };
        move_mount(&mounted.root, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| cache_error(&path, errno.into()))?;
        mounts.held.push(Held::Mount { _point: MountPoint { path: path.clone(), dir: Some(dir) } });
        Ok(path)
    }

    fn cache(
        &mut self,
        stage: usize,
        state: &StageState,
        run: &Prepared,
        mount: &Mount,
        mounts: &mut Mounts,
    ) -> Result<Placed, Error> {
        let place = target(&run.cwd, &mount.target)?;
        let id = mount.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| place.clone());
        let namespace = state.scope.globals().build_arg("BUILDKIT_CACHE_MOUNT_NS").unwrap_or("").to_owned();
        let mut key = Key::new("cache mount");
        key.text(&namespace).text(&id);
        let special =
            mount.from.is_some() || mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
        if special {
            let from = mount.from.clone().unwrap_or_default();
            key.text(&from).text(&format!("{:?} {:?} {:?}", mount.mode, mount.uid, mount.gid));
        }
        let name = key.finish("cache");
        let (path, lock) = self.cache_dir(&name, &id, mount)?;
        if let Some(from) = mount.from.as_deref() {
            self.fill_cache(stage, state, from, &path)?;
        }
        let mut bound = path;
        if !mount.source.is_empty() && mount.from.is_none() {
            let part = inside(&bound, &mount.source)?;
            bound = self.pinned(&part, true, mounts)?;
        }
        mounts.held.push(Held::Lock { _file: lock });
        Ok((place.clone(), (bind_op(bound, place, mount.read_only), true)))
    }

    /// The directory of a cache, locked as its sharing asks.
    fn cache_dir(&mut self, name: &str, id: &str, mount: &Mount) -> Result<(PathBuf, OwnedFd), Error> {
        for attempt in 0_u32.. {
            let name = if attempt == 0 { name.to_owned() } else { format!("{name}-{attempt}") };
            let path = self.shop.store.cache_mount(&name, id)?;
            let fresh = match fs::create_dir(&path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(cache_error(&path, error)),
            };
            let failed = |error: io::Error| cache_error(&path, error);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
            match mount.sharing {
                Sharing::Shared => {}
                Sharing::Locked => fd = self.shop.store.lock_cache_mount(fd, &path, id)?,
                Sharing::Private => {
                    if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
                        continue;
                    }
                }
            }
            if self.anew && self.reset_caches.insert(path.clone()) && !fresh {
                // `--no-cache` means what earlier builds left in the step's caches too, as in the reference.
                empty(&fd).map_err(storage::Error::from)?;
            }
            if fresh {
                let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
                rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                    .map_err(|e| failed(e.into()))?;
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(mount.mode.unwrap_or(0o755)))
                    .map_err(|e| failed(e.into()))?;
            }
            return Ok((path, fd));
        }
        Err(Error::Rule("too many users of one private cache".into()))
    }

    /// Mount a held directory or file where it can be bound from by a path that nobody else can change.
    fn pinned(&self, held: &OwnedFd, is_dir: bool, mounts: &mut Mounts) -> Result<PathBuf, Error> {
        let dir = self.shop.store.scratch_dir()?;
        let point = dir.path().join("part");
        let failed = |error: io::Error| cache_error(&point, error);
        match is_dir {
            true => fs::create_dir(&point),
            false => fs::File::create(&point).map(drop),
        }
        .map_err(failed)?;
        // With what is mounted below: a user namespace cannot show a directory without it.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(held, "", flags).map_err(|errno| failed(errno.into()))?;
        move_mount(&tree, "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|errno| failed(errno.into()))?;
        mounts.held.push(Held::Mount { _point: MountPoint { path: point.clone(), dir: Some(dir) } });
        Ok(point)
    }

    /// What `from` names is the first content of a cache.
    fn fill_cache(&mut self, stage: usize, state: &StageState, from: &str, path: &Path) -> Result<(), Error> {
        let empty = fs::read_dir(path).map_err(|error| cache_error(path, error))?.next().is_none();
        if !empty {
            return Ok(());
        }
        let input: Input = self.graph.named_input(stage, from);
        let origin = self.origin(Some(input), &state.platform)?;
        let tree = self.sources.tree(&origin)?;
        let root = fs::File::open(path).map_err(|error| cache_error(path, error))?;
        let mut copier = Copier::new(Placer::new(root.as_fd()), Rules::default());
        copier.copy(tree, Path::new("/"), "/").map_err(Error::Copy)
    }

    fn secret(&self, run: &Prepared, mount: &Mount, mounts: &mut Mounts) -> Result<Option<Placed>, Error> {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let id = match (&mount.id, mount.source.as_str(), mount.target.as_str()) {
            (Some(id), _, _) => id.clone(),
            (None, "", target) => base(target),
            (None, source, _) => source.to_owned(),
        };
        let content = self.request.secrets.get(&id);
        if content.is_none() && mount.required {
            let known = self.request.secrets.keys().cloned().collect();
            return Err(Error::NoSecret { id, known });
        }
        if let Some(name) = &mount.env {
            let value = content.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            mounts.env.push(format!("{name}={}", value.unwrap_or_default()));
            if mount.target.is_empty() {
                return Ok(None);
            }
        }
        let Some(content) = content else { return Ok(None) };
        if content.len() > SECRET_MAX {
            return Err(Error::Rule(format!("secret {id} is larger than {SECRET_MAX} bytes")));
        }
        let written = if mount.target.is_empty() {
            format!("/run/secrets/{}", base(&id))
        } else {
            mount.target.clone()
        };
        let place = target(&run.cwd, &written)?;
        let path = self.secret_file(content, mount, mounts)?;
        Ok(Some((place.clone(), (bind_op(path, place, true), false))))
    }

    /// The socket of the step's `number`th agent. The first is what programs are told of, even where there is none.
    fn ssh(
        &self,
        run: &Prepared,
        mount: &Mount,
        number: usize,
        mounts: &mut Mounts,
    ) -> Result<Option<Placed>, Error> {
        let written = if mount.target.is_empty() {
            format!("/run/buildkit/ssh_agent.{number}")
        } else {
            mount.target.clone()
        };
        let place = target(&run.cwd, &written)?;
        if number == 0 && !run.has_variable("SSH_AUTH_SOCK") {
            mounts.env.push(format!("SSH_AUTH_SOCK={place}"));
        }
        let id = mount.id.as_deref().filter(|id| !id.is_empty()).unwrap_or("default");
        let Some(agent) = self.request.ssh.get(id) else {
            if mount.required {
                let id = super::go::quote(id);
                return Err(Error::Rule(format!("no SSH key {id} forwarded from the client")));
            }
            return Ok(None);
        };
        let dir = self.shop.store.scratch_dir()?;
        let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let forward = Forward::start(dir.path(), agent, mount.mode.unwrap_or(0o600), owner)
            .map_err(|error| cache_error(dir.path(), error))?;
        let path = forward.path.clone();
        mounts.held.push(Held::Agent { _forward: forward, _dir: dir });
        Ok(Some((place.clone(), (bind_op(path, place, false), false))))
    }

    /// A file in memory that only this process's mount namespace shows.
    fn secret_file(&self, content: &[u8], mount: &Mount, mounts: &mut Mounts) -> Result<PathBuf, Error> {
        let dir = self.shop.store.scratch_dir()?;
        let point = dir.path().join("secret");
        let failed = |error: io::Error| cache_error(&point, error);
        fs::create_dir(&point).map_err(failed)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("tmpfs", &point, "tmpfs", flags, c"mode=0700").map_err(|e| failed(e.into()))?;
        let path = point.join("content");
        mounts.held.push(Held::Mount { _point: MountPoint { path: point.clone(), dir: Some(dir) } });
        fs::write(&path, content).map_err(failed)?;
        let (uid, gid) = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mount.mode.unwrap_or(0o400)))
            .map_err(failed)?;
        Ok(path)
    }
}

fn tmpfs(run: &Prepared, mount: &Mount) -> Result<Placed, Error> {
    let place = target(&run.cwd, &mount.target)?;
    let mut options = "nosuid".to_owned();
    if let Some(size) = mount.size {
        options.push_str(&format!(",size={size}"));
    }
    if mount.read_only {
        options.push_str(",ro");
    }
    Ok((place.clone(), (MountOp::Tmpfs { target: place, options }, true)))
}

/// Remove what is in a directory. Links that a step left there are not followed, and no mount is entered.
fn empty(dir: &OwnedFd) -> Result<(), SysError> {
    tree::sorted_names(dir)?.iter().try_for_each(|entry| tree::remove_all(dir, &entry.name))
}

/// A path as a pattern that matches only itself: a bind's source never is one.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

fn bind_op(source: PathBuf, target: String, read_only: bool) -> MountOp {
    MountOp::Bind {
        source,
        target,
        read_only,
        recursive: false,
        propagation: "rprivate".into(),
        options: BindOptions::default(),
    }
}

/// A directory below a cache, links followed inside it. What another build makes of the path meanwhile does not matter:
/// it is held from here on, and opening it follows no link (CVE-2024-23651).
fn inside(top: &Path, source: &str) -> Result<OwnedFd, Error> {
    let failed = |error: io::Error| cache_error(top, error);
    let root = fs::File::open(top).map_err(failed)?;
    let found = beneath::resolve(root.as_fd(), Path::new(source), true).map_err(failed)?;
    if found.stat.is_none() {
        return Err(Error::Input {
            place: "cache".into(),
            source: CopyError::NotFound(Path::new(source.trim_start_matches('/')).to_owned()),
        });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    beneath::open(root.as_fd(), &found.path, flags, Mode::empty()).map_err(failed)
}

fn place_error(origin: &Origin, source: io::Error) -> Error {
    Error::Read { place: origin.name().to_owned(), source }
}

fn cache_error(path: &Path, source: io::Error) -> Error {
    Error::Cache { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_part_of_a_cache_is_held_whatever_its_path_becomes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        std::fs::create_dir_all(cache.join("a/b")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside/b")).unwrap();
        std::fs::write(cache.join("a/b/ours"), "").unwrap();
        symlink("/a/b", cache.join("link")).unwrap();
        symlink("../outside/b", cache.join("out")).unwrap();
        let held = inside(&cache, "/link").unwrap();
        std::fs::rename(cache.join("a"), cache.join("old")).unwrap();
        symlink("../outside", cache.join("a")).unwrap();
        assert!(rustix::fs::statat(&held, "ours", rustix::fs::AtFlags::empty()).is_ok());
        for source in ["/out", "/a/b", "../outside"] {
            assert!(inside(&cache, source).is_err(), "{source}");
        }
    }
}
