//! What a build reads first: the context, and the Dockerfile in it or beside it.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::fetch::Fetcher;
use super::{BuildRequest, Error};
use crate::build::git_ref::{self, GitRef, redacted};
use crate::build::{self, Board, ContextDir, NamedContext, Remote};
use crate::context::Context;
use crate::image::BoxError;
use crate::storage::Store;

/// Largest Dockerfile that is read, in bytes.
const DOCKERFILE_MAX: u64 = 16 << 20;
/// So much of a stream is looked at to tell an archive from a Dockerfile.
const SNIFFED: u64 = 1024;

/// Where the context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// `-`: standard input is the Dockerfile, or an archive of the context.
    Stdin,
    /// A git repository.
    Git(GitRef),
    /// An archive or a Dockerfile by its address.
    Http(String),
}

impl ContextSource {
    /// What the positional argument means.
    ///
    /// # Errors
    /// When it looks like a git repository and is none.
    pub fn parse(text: &str) -> Result<Self, git_ref::GitRefError> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if let Some(git) = git_ref::parse(text, true)? {
            return Ok(Self::Git(git));
        }
        Ok(if git_ref::is_http(text) { Self::Http(text.into()) } else { Self::Directory(text.into()) })
    }
}

/// What `--build-context NAME=VALUE` means by its value.
///
/// # Errors
/// With the reason, when it means nothing.
pub fn named_context(value: &str) -> Result<NamedContext, BoxError> {
    for scheme in ["docker-image://", "container-image://"] {
        if let Some(name) = value.strip_prefix(scheme) {
            return Ok(NamedContext::Image(name.to_owned()));
        }
    }
    if let Some(place) = value.strip_prefix("oci-layout://") {
        return Ok(NamedContext::Layout(place.to_owned()));
    }
    if value.starts_with("target:") {
        return Err("only a bake file has other targets; name a stage of the Dockerfile with --from".into());
    }
    if let Some(git) = git_ref::parse(value, true)? {
        return Ok(NamedContext::Git(git));
    }
    if git_ref::is_http(value) {
        return Ok(NamedContext::File(value.to_owned()));
    }
    match value.split_once("://") {
        Some((scheme, _)) => Err(format!("unknown kind of context `{scheme}://`").into()),
        None => Ok(NamedContext::Directory(value.into())),
    }
}

/// The context and the Dockerfile.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The Dockerfile's name.
    pub name: String,
    /// Its text; of several files one after the other.
    pub dockerfile: Vec<u8>,
    /// The context; none for a Dockerfile that came alone.
    pub context: Option<ContextDir>,
    /// The time of the context's commit.
    pub context_time: Option<i64>,
    /// The ignore file.
    pub ignore: Option<Vec<u8>>,
}

/// Reads contexts and Dockerfiles; what is fetched or unpacked is kept in the store's scratch space.
pub(super) struct Reading<'a> {
    pub cx: &'a Context,
    pub store: &'a Store,
    pub request: &'a BuildRequest,
    pub fetcher: Fetcher<'a>,
    /// Where it is told that something is fetched.
    pub board: &'a Board<'a>,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
    pub keep_git_dir: bool,
    /// Files of a git context get the time of the commit: `SOURCE_DATE_EPOCH` is given.
    pub commit_times: bool,
}

/// A context, or the Dockerfile that came in its place.
enum Opened {
    Context { dir: ContextDir, time: Option<i64> },
    Dockerfile(Vec<u8>),
}

impl Reading<'_> {
    /// Have the context and read the Dockerfile.
    pub(super) fn read(&self) -> Result<Inputs, Error> {
        let opened = match &self.request.context {
            ContextSource::Directory(path) => {
                let dir = ContextDir::of_user(&context_directory(self.cx, path)?);
                Opened::Context { dir, time: None }
            }
            ContextSource::Stdin => self.stdin()?,
            ContextSource::Git(git) => self.git(git)?,
            ContextSource::Http(url) => self.http(url)?,
        };
        let (dir, time) = match opened {
            Opened::Context { dir, time } => (dir, time),
            Opened::Dockerfile(dockerfile) => {
                if !self.request.files.is_empty() {
                    return Err(Error::Ambiguous);
                }
                let name = "Dockerfile".into();
                return Ok(Inputs { name, dockerfile, context: None, context_time: None, ignore: None });
            }
        };
        let (name, dockerfile, beside) = self.dockerfile(&dir)?;
        // As in the reference, what was fetched or unpacked is taken as it is.
        let ignore = match (&self.request.ignore_file, &dir.held) {
            (Some(path), _) => {
                let path = self.cx.cwd.join(path);
                let read = File::open(&path).and_then(read_limited);
                Some(read.map_err(|source| Error::Ignore { path, source })?)
            }
            (None, Some(_)) => None,
            (None, None) => ignore_file(&dir.path, beside.as_deref())?,
        };
        Ok(Inputs { name, dockerfile, context: Some(dir), context_time: time, ignore })
    }

    fn stdin(&self) -> Result<Opened, Error> {
        if self.request.files.iter().any(|file| file == "-") {
            return Err(Error::Ambiguous);
        }
        self.stream(Box::new(io::stdin()), "standard input")
    }

    /// An archive is unpacked; anything else is a Dockerfile.
    fn stream(&self, mut stream: Box<dyn Read + Send>, place: &str) -> Result<Opened, Error> {
        let failed = |source| Error::dockerfile(place, source);
        let mut start = Vec::new();
        stream.by_ref().take(SNIFFED).read_to_end(&mut start).map_err(failed)?;
        let archive = build::looks_like_archive(&start);
        let whole = Cursor::new(start).chain(stream);
        if !archive {
            return Ok(Opened::Dockerfile(read_limited(whole).map_err(failed)?));
        }
        let held = self.store.scratch_dir()?;
        let path = held.path().join("context");
        let unusable = |source: BoxError| Error::Remote { place: place.to_owned(), source };
        std::fs::create_dir(&path).map_err(|error| unusable(error.into()))?;
        let root = File::open(&path).map_err(|error| unusable(error.into()))?;
        let work = self.board.begin("[internal] load build context".into(), false);
        let owners =
            build::unpack_context(Box::new(whole), root.as_fd()).map_err(|error| unusable(error.into()));
        work.ended(&owners);
        let owners = owners?;
        let dir = ContextDir { path, owners: Some(Arc::new(owners)), held: Some(Arc::new(held)) };
        Ok(Opened::Context { dir, time: None })
    }

    fn git(&self, git: &GitRef) -> Result<Opened, Error> {
        let mut git = git.clone();
        git.keep_git_dir = git.keep_git_dir.or(Some(self.keep_git_dir));
        git.commit_times |= self.commit_times;
        let failed = |source| Error::Remote { place: redacted(&git.remote), source };
        let work = self.board.begin(format!("[internal] load git source {}", redacted(&git.remote)), false);
        let commit = self.fetcher.commit(&git);
        let checkout = commit.and_then(|commit| self.fetcher.checkout(&git, &commit)).map_err(failed);
        work.ended(&checkout);
        let checkout = checkout?;
        let dir = ContextDir { path: checkout.path, owners: None, held: Some(checkout.held) };
        Ok(Opened::Context { dir, time: Some(checkout.time) })
    }

    fn http(&self, url: &str) -> Result<Opened, Error> {
        let place = redacted(url);
        let failed = |source| Error::Remote { place: place.clone(), source };
        let work = self.board.begin(format!("[internal] load remote build context {place}"), false);
        let file =
            self.fetcher.download(url, &|bytes, all| work.moved("context", bytes, all)).map_err(failed);
        work.ended(&file);
        let file = file?;
        let opened = self.stream(Box::new(self.store.open_blob(&file.digest)?), &place)?;
        Ok(match opened {
            Opened::Context { dir, .. } => Opened::Context { dir, time: file.modified },
            dockerfile @ Opened::Dockerfile(_) => dockerfile,
        })
    }

    /// The Dockerfile's name, its bytes, and where it lies when it is a file.
    fn dockerfile(&self, context: &ContextDir) -> Result<(String, Vec<u8>, Option<PathBuf>), Error> {
        let missing = Error::dockerfile;
        if self.request.files.is_empty() {
            for name in ["Dockerfile", "dockerfile", "Containerfile"] {
                let read = build::read_inside(&context.path, Path::new(name));
                if let Some(bytes) = read.map_err(|error| missing(name, error))? {
                    return Ok((name.into(), bytes, Some(context.path.join(name))));
                }
            }
            return Err(missing("Dockerfile", io::ErrorKind::NotFound.into()));
        }
        // Several files are one after the other, as in podman: what they say adds up.
        let mut all: Option<(String, Vec<u8>, Option<PathBuf>)> = None;
        for file in &self.request.files {
            let (name, mut bytes, path) = self.dockerfile_at(file, context)?;
            match &mut all {
                None => all = Some((name, bytes, path)),
                Some((_, before, _)) => {
                    before.push(b'\n');
                    before.append(&mut bytes);
                }
            }
        }
        all.ok_or(Error::Ambiguous)
    }

    /// One `--file`: standard input, an address, a path of ours, a path in the context.
    fn dockerfile_at(
        &self,
        file: &str,
        context: &ContextDir,
    ) -> Result<(String, Vec<u8>, Option<PathBuf>), Error> {
        let failed = |source| Error::dockerfile(file, source);
        if file == "-" {
            return Ok(("Dockerfile".into(), read_limited(io::stdin().lock()).map_err(failed)?, None));
        }
        if git_ref::is_http(file) {
            let failed_to_load = |source| Error::Remote { place: redacted(file), source };
            let place = redacted(file);
            let work = self.board.begin(format!("[internal] load remote Dockerfile {place}"), false);
            let moved = |bytes, all| work.moved("Dockerfile", bytes, all);
            let found = self.fetcher.download(file, &moved).map_err(failed_to_load);
            work.ended(&found);
            let found = found?;
            let bytes = read_limited(self.store.open_blob(&found.digest)?).map_err(failed)?;
            return Ok(("Dockerfile".into(), bytes, None));
        }
        let name =
            Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy()).into_owned();
        let relative = Path::new(file).is_relative();
        if context.held.is_some() && relative {
            let inside: PathBuf = Path::new(file).components().filter(|c| *c != Component::CurDir).collect();
            let read = build::read_inside(&context.path, &inside).map_err(failed)?;
            let bytes = read.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            return Ok((name, bytes, None));
        }
        let at = [self.cx.cwd.join(file), context.path.join(file)].into_iter().find(|path| path.exists());
        let path = at.unwrap_or_else(|| self.cx.cwd.join(file));
        let bytes = File::open(&path).and_then(read_limited).map_err(failed)?;
        Ok((name, bytes, Some(path)))
    }
}

pub(super) fn context_directory(cx: &Context, path: &Path) -> Result<PathBuf, Error> {
    let path = cx.cwd.join(path);
    let missing = |source| Error::Context { path: path.clone(), source };
    let canonical = std::fs::canonicalize(&path).map_err(missing)?;
    std::fs::read_dir(&canonical).map_err(missing)?;
    Ok(canonical)
}

fn read_limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(DOCKERFILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCKERFILE_MAX {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` at the context's root.
fn ignore_file(directory: &Path, dockerfile: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    if let Some(dockerfile) = dockerfile {
        let mut name = dockerfile.as_os_str().to_owned();
        name.push(".dockerignore");
        let path = PathBuf::from(name);
        let plain = |below: &&Path| below.components().all(|part| matches!(part, Component::Normal(_)));
        let read = match path.strip_prefix(directory).ok().filter(plain) {
            // One that the context brings, link or not, does not lead out of it.
            Some(below) => build::read_inside(directory, below),
            None => match std::fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            },
        };
        let read = read.map_err(|source| Error::Ignore { path, source })?;
        if read.is_some() {
            return Ok(read);
        }
    }
    for name in [".dockerignore", ".containerignore"] {
        let read = build::read_inside(directory, Path::new(name));
        let read = read.map_err(|source| Error::Ignore { path: directory.join(name), source })?;
        if read.is_some() {
            return Ok(read);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfiles_own_ignore_file_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(dir.path().join(name), name).unwrap();
        let read = || ignore_file(dir.path(), Some(&dir.path().join("D"))).unwrap();
        assert_eq!(read(), None);
        write(".dockerignore");
        assert_eq!(read().unwrap(), b".dockerignore");
        write("D.dockerignore");
        assert_eq!(read().unwrap(), b"D.dockerignore");
    }

    #[test]
    fn an_ignore_file_of_the_context_is_not_read_from_outside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().join("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let ignore = context.join("D.dockerignore");
        let read = || ignore_file(&context, Some(&context.join("D")));
        std::os::unix::fs::symlink("../secret", &ignore).unwrap();
        assert_eq!(read().unwrap(), None);
        std::fs::remove_file(&ignore).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &ignore).unwrap();
        assert_eq!(read().unwrap(), None);
        std::fs::remove_file(&ignore).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &ignore, 0o600.into()).unwrap();
        assert!(read().is_err());
    }
}
