//! `mount` and `umount`: a stopped container's files under a path, in the namespaces that the command is called in.
//!
//! As an ordinary user that is inside `strate unshare`: elsewhere the mount would be gone with the command.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::container::{Error, target::Target};
use super::start;
use crate::context::Context;
use crate::image::Silent;
use crate::storage::{ContainerDir, Store};
use crate::sys::{SysError, mounts};
use crate::userns;

/// Take the namespaces that we are in as they are.
///
/// # Errors
/// [`Error::NotUnshared`] where they give no power to mount.
pub fn stay(cx: &mut Context) -> Result<(), Error> {
    cx.entered = Some(userns::present().ok_or(Error::NotUnshared)?);
    Ok(())
}

/// Make a container's files reachable: where they are. Those of a running one are reachable already.
///
/// # Errors
/// When it is unknown or cannot be mounted.
pub fn mount(store: &mut Store, text: &str) -> Result<PathBuf, Error> {
    let dir = store.find_container(text)?;
    if let Ok(target) = Target::of(&dir) {
        return Ok(PathBuf::from(format!("/proc/{}/root", target.pid())));
    }
    let point = dir.mount_point();
    if is_mounted(&dir)? {
        return Ok(point);
    }
    let Some(_lock) = start::lock_unless_running(&dir)? else {
        return Err(Error::Started(dir.record.name.clone()));
    };
    // Not here, but in another shell.
    refuse_mounted(&dir)?;
    store.read_stores_of(&dir.record);
    let stack = store.stack_of(&dir.record.layers, &Silent)?;
    let mounted = store.mount_writable(&stack, &dir.path, false)?;
    match fs::create_dir(&point) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(SysError::path("create", &point, error).into());
        }
        _ => {}
    }
    move_mount(&mounted.root, "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| SysError::path("mount at", &point, error))?;
    dir.tell("mount", &[]);
    Ok(point)
}

/// Take the mount away again; false when there is none.
///
/// # Errors
/// When it is unknown, or in use.
pub fn umount(store: &Store, text: &str, force: bool) -> Result<bool, Error> {
    let dir = store.find_container(text)?;
    if !is_mounted(&dir)? {
        return Ok(false);
    }
    let point = dir.mount_point();
    let flags = if force { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    unmount(&point, flags | UnmountFlags::NOFOLLOW)
        .map_err(|error| SysError::path("unmount", &point, error))?;
    // Other namespaces may still use it.
    let _ = fs::remove_dir(&point);
    dir.tell("unmount", &[]);
    Ok(true)
}

/// The containers that are mounted here, with their paths.
///
/// # Errors
/// When the store or the table of mounts cannot be read.
pub fn mounted(store: &Store) -> Result<Vec<(ContainerDir, PathBuf)>, Error> {
    let mut all = Vec::new();
    for dir in store.containers()? {
        if is_mounted(&dir)? {
            let point = dir.mount_point();
            all.push((dir, point));
        }
    }
    Ok(all)
}

fn is_mounted(dir: &ContainerDir) -> Result<bool, Error> {
    let path = fs::canonicalize(&dir.path).map_err(|error| SysError::path("find", &dir.path, error))?;
    let name = dir.mount_point();
    let name = name.file_name().map(Path::new);
    Ok(mounts::below(&path)?.iter().any(|point| point.strip_prefix(&path).ok() == name))
}

/// Refuse to start, mount or change a container whose files somebody has mounted, in whatever namespace: two mounts of one place for
/// changes see neither's changes well.
///
/// # Errors
/// [`Error::Mounted`]
pub fn refuse_mounted(dir: &ContainerDir) -> Result<(), Error> {
    let point = dir.mount_point();
    if !point.is_dir() {
        return Ok(());
    }
    let point = fs::canonicalize(&point).unwrap_or(point);
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    if pids.any(|pid| mounts::is_at(&point, pid)) {
        return Err(Error::Mounted(dir.record.name.clone()));
    }
    // Its namespace ended without a word.
    let _ = fs::remove_dir(&point);
    Ok(())
}
