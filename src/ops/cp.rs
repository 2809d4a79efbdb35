//! `cp`: files into a container and out of it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::container::agent::{Access, Agent};
use super::container::copying::{self, Owners, Source, Unpacked, Wanted};
use super::container::{ContainerSpec, Error};
use super::create::spec_of;
use crate::archive::decompressed;
use crate::context::Context;
use crate::image::BoxError;
use crate::layer;
use crate::storage::{ContainerDir, Store};
use crate::sys::{RootDir, SysError};

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// A path in a container.
    Container(String, String),
    /// A path of the host.
    Host(String),
    /// Standard input or output, as a tar.
    Stream,
}

impl Side {
    /// Read an argument as docker does: what is absolute or begins with a dot is a path of the host.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with(['/', '.']) && !container.is_empty() => {
                Self::Container(container.to_owned(), path.to_owned())
            }
            _ => Self::Host(text.to_owned()),
        }
    }
}

/// What to copy and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// From where.
    pub from: Side,
    /// To where.
    pub to: Side,
    /// Keep owners.
    pub archive: bool,
    /// Copy what a link leads to.
    pub follow: bool,
}

/// Copy files.
///
/// # Errors
/// When there is not one container in it, something is not there, or it does not fit.
pub fn cp(cx: &Context, store: &Store, request: &Request) -> Result<Unpacked, Error> {
    let refuse = |why: &str| Err(Error::CopySides(why.into()));
    match (&request.from, &request.to) {
        (Side::Container(..), Side::Container(..)) => refuse("copying between containers is not supported"),
        (Side::Container(name, path), to) => out(cx, &store.find_container(name)?, path, to, request),
        (from, Side::Container(name, path)) => into(cx, &store.find_container(name)?, from, path, request),
        _ => refuse("one of source and destination must be CONTAINER:PATH"),
    }
}

fn absolute(path: &str) -> Wanted {
    Wanted::new(&if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

fn on_host(cx: &Context, path: &str) -> Wanted {
    Wanted::new(&if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", cx.cwd.display()) })
}

fn host_root() -> Result<std::fs::File, Error> {
    Ok(std::fs::File::open("/").map_err(|error| SysError::path("open", "/", error))?)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| SysError::new("make", "a pipe", error))?)
}

/// A mount of the container is there only while it runs: without it the files would go where nobody sees them.
fn check_mounts(dir: &ContainerDir, spec: &ContainerSpec, wanted: &Wanted) -> Result<(), Error> {
    if dir.state()?.is_running() {
        return Ok(());
    }
    let beneath = |mount: &str| wanted.path == mount || wanted.path.starts_with(&format!("{mount}/"));
    match spec.mounts.iter().find(|mount| beneath(&mount.target)) {
        Some(mount) => Err(Error::NotMounted { name: dir.record.name.clone(), target: mount.target.clone() }),
        None => Ok(()),
    }
}

/// Out of a container.
fn out(
    cx: &Context,
    dir: &ContainerDir,
    path: &str,
    to: &Side,
    request: &Request,
) -> Result<Unpacked, Error> {
    let wanted = absolute(path);
    check_mounts(dir, &spec_of(dir)?, &wanted)?;
    let failed = |source: BoxError| Error::Copy { source };
    let named = matches!(to, Side::Stream);
    let (read, write) = if named {
        let stdout = rustix::stdio::stdout().try_clone_to_owned();
        (None, stdout.map_err(|error| SysError::new("copy", "a descriptor", error))?)
    } else {
        let (read, write) = pipe()?;
        (Some(read), write)
    };
    let (from, follow) = (wanted.clone(), request.follow);
    let not_its: Vec<RawFd> = read.iter().map(AsRawFd::as_raw_fd).collect();
    let agent = Agent::start(cx, dir, Access::Read, &not_its, move |root| {
        let source = copying::find(RootDir::new(root), &from, follow)?;
        pack(&source, true, if named { Some(&from) } else { None }, write)
    })?;
    let unpacked = match (read, to) {
        (Some(read), Side::Host(to)) => {
            let owners = if request.archive { Owners::Kept } else { Owners::Own };
            let root = host_root()?;
            let mut tar = std::fs::File::from(read);
            copying::unpack(&mut tar, RootDir::new(root.as_fd()), &on_host(cx, to), Some(&wanted), owners)
        }
        _ => Ok(Unpacked::default()),
    };
    // Why the container's side failed says more than that its stream broke off.
    match (agent.finish(), unpacked) {
        (_, Err(error)) if !matches!(error, copying::Error::Archive(_)) => Err(failed(error.into())),
        (Err(said), _) => Err(failed(said)),
        (Ok(()), unpacked) => {
            dir.tell("archive-path", &[("path", path.to_owned())]);
            unpacked.map_err(|error| failed(error.into()))
        }
    }
}

/// Into a container.
fn into(
    cx: &Context,
    dir: &ContainerDir,
    from: &Side,
    path: &str,
    request: &Request,
) -> Result<Unpacked, Error> {
    let to = absolute(path);
    let spec = spec_of(dir)?;
    check_mounts(dir, &spec, &to)?;
    let failed = |source: BoxError| Error::Copy { source };
    if spec.host.read_only && !dir.state()?.is_running() {
        return Err(Error::ReadOnlyRoot(dir.record.name.clone()));
    }
    let wanted = match from {
        Side::Host(path) => Some(on_host(cx, path)),
        _ => None,
    };
    let source = match &wanted {
        Some(wanted) => {
            let root = host_root()?;
            let found = copying::find(RootDir::new(root.as_fd()), wanted, request.follow);
            Some(found.map_err(|error| failed(error.into()))?)
        }
        None => None,
    };
    let (read, write) = pipe()?;
    let (report_read, report_write) = pipe()?;
    let owners = if request.archive || wanted.is_none() { Owners::Kept } else { Owners::Root };
    let name = wanted.clone();
    let not_its = [write.as_raw_fd(), report_read.as_raw_fd()];
    let agent = Agent::start(cx, dir, Access::Write, &not_its, move |root| {
        let mut tar = std::fs::File::from(read);
        let done = copying::unpack(&mut tar, RootDir::new(root), &to, name.as_ref(), owners)?;
        let words = format!("{} {} {}", done.bytes, done.disowned, done.skipped);
        Ok(std::fs::File::from(report_write).write_all(words.as_bytes())?)
    })?;
    let packed = match &source {
        Some(source) => pack(source, false, None, write),
        None => pour_in(write),
    };
    let mut words = String::new();
    let ended = agent.finish();
    let _ = std::fs::File::from(report_read).read_to_string(&mut words);
    // Why the container's side failed says more than that nobody reads it any more.
    ended.and(packed).map_err(failed)?;
    dir.tell("extract-to-dir", &[("path", path.to_owned())]);
    let mut numbers = words.split(' ').map(|word| word.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Ok(Unpacked { bytes: next(), disowned: next(), skipped: next() })
}

/// Write a source as a tar; `name` gives it its own name there.
fn pack(source: &Source, in_container: bool, name: Option<&Wanted>, out: OwnedFd) -> Result<(), BoxError> {
    let prefix = name.filter(|name| !name.contents).map(|name| name.base.as_bytes().to_vec());
    let rename = |path: &mut Vec<u8>| {
        let Some(prefix) = &prefix else { return };
        *path = if path == b"." { prefix.clone() } else { [prefix, &b"/"[..], path].concat() };
    };
    let edit = |entry: &mut layer::tar::Entry| {
        rename(&mut entry.path);
        if entry.kind == layer::tar::Kind::HardLink {
            rename(&mut entry.link);
        }
    };
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, std::fs::File::from(out));
    let skip = |path: &Path| in_container && source.is_of_kernel(path);
    layer::write_name(source.dir.as_fd(), &source.name, &mut out, &skip, &edit)?;
    Ok(out.flush()?)
}

/// Standard input, decompressed here and by no program.
fn pour_in(out: OwnedFd) -> Result<(), BoxError> {
    let (_, mut tar) = decompressed(Box::new(std::io::stdin()))?;
    std::io::copy(&mut tar, &mut std::fs::File::from(out))?;
    Ok(())
}

/// A side as it was typed.
#[must_use]
pub fn shown(side: &Side) -> String {
    match side {
        Side::Container(name, path) => format!("{name}:{path}"),
        Side::Host(path) => path.clone(),
        Side::Stream => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart_as_docker_does() {
        let container = |name: &str, path: &str| Side::Container(name.into(), path.into());
        for (text, expected) in [
            ("web:/etc", container("web", "/etc")),
            ("web:", container("web", "")),
            ("/a:b", Side::Host("/a:b".into())),
            ("./a:b", Side::Host("./a:b".into())),
            ("file", Side::Host("file".into())),
            (":x", Side::Host(":x".into())),
            ("-", Side::Stream),
        ] {
            assert_eq!(Side::parse(text), expected, "{text}");
        }
    }
}
