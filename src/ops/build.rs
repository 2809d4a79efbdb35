//! `build`: read the Dockerfile and the context's facts, build, publish.

mod output;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::pull::{self, PullPolicy, PullRequest};
use super::remote::{self, RemoteOptions};
use crate::build::{self, Bases, Board, Failure, Interrupt, Request, Workshop, excerpt};
use crate::context::Context;
use crate::image::{BoxError, Reporter};
use crate::oci::{Platform, Reference};
use crate::storage::{self, Image, Store};
use crate::sys::signals::SignalReader;
use crate::userns::Rung;

pub use crate::build::ast::Span;
pub use crate::build::outline::{Argument, Need, Outline, Target};
pub use crate::build::progress::{Event as BuildEvent, Progress as BuildProgress, Stream};
pub use crate::runtime::Network;
pub use output::{BuiltImage, Format, Layers, NewCompression, Output, OutputError};

/// Largest Dockerfile that is read, in bytes.
const DOCKERFILE_MAX: u64 = 16 << 20;
/// How long a build that was asked to end may take to clean up.
const GRACE: Duration = Duration::from_secs(3);

/// Where the context comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// `-`: standard input is the Dockerfile, and there are no files.
    Stdin,
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The positional argument.
    pub context: ContextSource,
    /// `--file`; `-` is standard input.
    pub file: Option<String>,
    /// `--tag`.
    pub names: Vec<Reference>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`: name and, unless it is to be taken from the environment, value.
    pub build_args: Vec<(String, Option<String>)>,
    /// `--build-context`: name and directory.
    pub named_contexts: Vec<(String, PathBuf)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`.
    pub no_cache_stages: Vec<String>,
    /// `--pull`: ask registries even for images that are here.
    pub pull: bool,
    /// Whether no registry is asked at all.
    pub offline: bool,
    /// `--network`.
    pub network: Network,
    /// `--platform`; none is this machine's.
    pub platforms: Vec<Platform>,
    /// `--output`; without one the store takes the image.
    pub outputs: Vec<Output>,
    /// `--format docker`: docker's media types and not the OCI ones.
    pub docker_types: bool,
    /// `--annotation`: for manifests.
    pub annotations: BTreeMap<String, String>,
    /// `--annotation index:`: for the index.
    pub index_annotations: BTreeMap<String, String>,
    /// `--secret`.
    pub secrets: Vec<SecretSource>,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--shm-size`, in bytes.
    pub shm_size: u64,
    /// `--ulimit`: `RLIMIT_*` name, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
}

/// A `--secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// Its id.
    pub id: String,
    /// A file, or nothing: then an environment variable, or a file named like the id.
    pub file: Option<PathBuf>,
    /// An environment variable.
    pub env: Option<String>,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The context is not a directory that can be read.
    #[error("unable to prepare context: path {} not found", build::go::quote(&path.display().to_string()))]
    Context {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Both the context and the Dockerfile should come from standard input.
    #[error("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")]
    Ambiguous,
    /// Standard input is an archive.
    #[error("an archive on standard input is not supported as a context yet: unpack it to a directory")]
    ArchiveContext,
    /// The Dockerfile cannot be read.
    #[error("failed to solve: failed to read dockerfile: open {name}: {}", words(source))]
    Dockerfile {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The ignore file cannot be read.
    #[error("cannot read `{path}`")]
    Ignore {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret cannot be read.
    #[error("cannot read secret {id} from `{from}`")]
    Secret {
        /// Its id.
        id: String,
        /// The file or variable.
        from: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step failed.
    #[error("{}", failure.text())]
    Failed {
        /// What failed.
        failure: Box<Failure>,
        /// The places in the Dockerfile, ready to be shown.
        excerpts: Vec<String>,
    },
    /// The result did not get where it should.
    #[error("failed to solve")]
    Output(#[from] OutputError),
    /// The user gave up.
    #[error("the build was interrupted")]
    Interrupted,
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// Signals cannot be taken.
    #[error(transparent)]
    Sys(#[from] crate::sys::SysError),
}

/// What the kernel's errors are called in Go's words, which people search for.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        _ => error.to_string(),
    }
}

/// Build an image for each platform and hand it out. `notice` is told what the user should know about the store: waits
/// and fallbacks. What comes back is the image, when one was made.
///
/// # Errors
/// See [`Error`]; names stand for what they stood for before then.
pub fn build(
    cx: &Context,
    request: &BuildRequest,
    progress: &dyn BuildProgress,
    report: &dyn Reporter,
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Option<BuiltImage>, Error> {
    let mut full = prepare(cx, request)?;
    let index = forced_index(&full)?;
    let store = super::store::write(cx, notice)?;
    store.settle()?;
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(Arc::clone(&interrupt))?;
    let bases = BaseImages { cx, store: &store, pull: request.pull, offline: request.offline };
    let board = Board::new(progress);
    let shop = Workshop { store: &store, bases: &bases, board: &board, report, interrupt: &interrupt };
    let mut made = Vec::new();
    for platform in platforms(request) {
        full.platform = platform;
        let built = build::build(shop, &full);
        if interrupt.asked() {
            return Err(Error::Interrupted);
        }
        made.push(built.map_err(|failure| failed(failure, &full.dockerfile))?);
    }
    output::Delivery { cx, store: &store, shop, request, index }.deliver(made)
}

fn platforms(request: &BuildRequest) -> Vec<Platform> {
    if request.platforms.is_empty() { vec![Platform::host()] } else { request.platforms.clone() }
}

/// `BUILDKIT_MULTI_PLATFORM`: whether even one image is put into an index.
fn forced_index(full: &Request) -> Result<bool, Error> {
    let text = full.build_args.get("BUILDKIT_MULTI_PLATFORM").map_or("", String::as_str);
    let asked = match text {
        "" => None,
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        other => return Err(rule(format!("invalid boolean value for multi-platform: {other}"), full)),
    };
    if asked == Some(false) && full.several_platforms {
        return Err(rule(
            "conflicting config: returning multiple target platforms is not allowed".into(),
            full,
        ));
    }
    Ok(asked == Some(true))
}

fn rule(text: String, full: &Request) -> Error {
    failed(Failure::from(build::Error::Rule(text)), &full.dockerfile)
}

/// A remark about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// BuildKit's name of the rule.
    pub rule: &'static str,
    /// What is questionable.
    pub message: String,
    /// The lines it is about.
    pub span: Span,
    /// Those lines, ready to be shown.
    pub excerpt: String,
}

/// Look the Dockerfile over without building anything.
///
/// # Errors
/// For mistakes that would fail any build.
pub fn check(cx: &Context, request: &BuildRequest) -> Result<Vec<Remark>, Error> {
    let full = prepare(cx, request)?;
    let found = build::check(&full).map_err(|failure| failed(failure, &full.dockerfile))?;
    let remark = |warning: build::ast::Warning| Remark {
        rule: warning.rule,
        message: warning.message,
        span: warning.span,
        excerpt: excerpt::excerpt(&full.dockerfile, warning.span),
    };
    Ok(found.into_iter().map(remark).collect())
}

/// What the target takes: its arguments, secrets and sockets.
///
/// # Errors
/// For mistakes that would fail any build.
pub fn outline(cx: &Context, request: &BuildRequest) -> Result<Outline, Error> {
    let full = prepare(cx, request)?;
    build::outline(&full).map_err(|failure| failed(failure, &full.dockerfile))
}

/// The stages that can be built.
///
/// # Errors
/// For mistakes in the Dockerfile.
pub fn targets(cx: &Context, request: &BuildRequest) -> Result<Vec<Target>, Error> {
    Ok(build::outline::targets(&prepare(cx, request)?.dockerfile))
}

/// With the lines of the Dockerfile that it is about.
fn failed(failure: Failure, dockerfile: &build::ast::Dockerfile) -> Error {
    let excerpts = failure.spans.iter().map(|span| excerpt::excerpt(dockerfile, *span)).collect();
    Error::Failed { failure: Box::new(failure), excerpts }
}

/// Read what the command line points to.
fn prepare(cx: &Context, request: &BuildRequest) -> Result<Request, Error> {
    let directory = match &request.context {
        ContextSource::Directory(path) => Some(context_directory(cx, path)?),
        ContextSource::Stdin => None,
    };
    let (name, source, beside) = dockerfile(cx, request, directory.as_deref())?;
    let dockerfile = match build::parse(&source, &name) {
        Ok(dockerfile) => dockerfile,
        Err(errors) => {
            let text = String::from_utf8_lossy(&source).into_owned();
            let failure = Failure::from(build::Error::Parse(errors));
            let show = |span: &build::ast::Span| excerpt::of_source(&text, &name, *span);
            let excerpts = failure.spans.iter().map(show).collect();
            return Err(Error::Failed { failure: Box::new(failure), excerpts });
        }
    };
    let ignore = directory.as_deref().map(|dir| ignore_file(dir, beside.as_deref())).transpose()?.flatten();
    Ok(Request {
        dockerfile,
        ignore,
        named_contexts: named_contexts(cx, &request.named_contexts)?,
        target: request.target.clone(),
        build_args: build_args(cx, &request.build_args),
        labels: request.labels.clone(),
        no_cache: request.no_cache,
        no_cache_stages: request.no_cache_stages.clone(),
        owns_context: directory.as_deref().is_some_and(is_ours),
        context: directory,
        network: request.network,
        platform_given: !request.platforms.is_empty(),
        several_platforms: request.platforms.len() > 1,
        platform: platforms(request).swap_remove(0),
        secrets: secrets(cx, &request.secrets)?,
        add_hosts: request.add_hosts.clone(),
        shm_size: request.shm_size,
        rlimits: request.rlimits.clone(),
        resolv_conf: std::fs::read("/etc/resolv.conf").unwrap_or_default(),
        isolated: cx.entered.as_ref().is_some_and(|entered| entered.rung != Rung::None),
    })
}

fn context_directory(cx: &Context, path: &Path) -> Result<PathBuf, Error> {
    let path = cx.cwd.join(path);
    let missing = |source| Error::Context { path: path.clone(), source };
    let canonical = std::fs::canonicalize(&path).map_err(missing)?;
    std::fs::read_dir(&canonical).map_err(missing)?;
    Ok(canonical)
}

/// The Dockerfile's name, its bytes, and where it lies when it is a file.
fn dockerfile(
    cx: &Context,
    request: &BuildRequest,
    directory: Option<&Path>,
) -> Result<(String, Vec<u8>, Option<PathBuf>), Error> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| Error::Dockerfile { name, source }
    };
    let stdin = || read_limited(io::stdin().lock()).map_err(failed("-"));
    match (request.file.as_deref(), directory) {
        (Some(_), None) => Err(Error::Ambiguous),
        (None, None) => {
            let bytes = stdin()?;
            if is_archive(&bytes) {
                return Err(Error::ArchiveContext);
            }
            Ok(("Dockerfile".into(), bytes, None))
        }
        (Some("-"), Some(_)) => Ok(("Dockerfile".into(), stdin()?, None)),
        (Some(file), Some(directory)) => {
            let name = Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
            let at = [cx.cwd.join(file), directory.join(file)].into_iter().find(|path| path.exists());
            let path = at.unwrap_or_else(|| cx.cwd.join(file));
            let opened = std::fs::File::open(&path).and_then(read_limited).map_err(failed(file))?;
            Ok((name.into_owned(), opened, Some(path)))
        }
        (None, Some(directory)) => {
            for name in ["Dockerfile", "dockerfile", "Containerfile"] {
                if let Some(bytes) = build::read_inside(directory, Path::new(name)).map_err(failed(name))? {
                    return Ok((name.into(), bytes, Some(directory.join(name))));
                }
            }
            Err(failed("Dockerfile")(io::ErrorKind::NotFound.into()))
        }
    }
}

fn read_limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(DOCKERFILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCKERFILE_MAX {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Whether standard input is a context and no Dockerfile: by magic bytes, or a tar header's.
fn is_archive(bytes: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    magics.iter().any(|magic| bytes.starts_with(magic)) || bytes.get(257..262) == Some(b"ustar")
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

fn named_contexts(cx: &Context, given: &[(String, PathBuf)]) -> Result<BTreeMap<String, PathBuf>, Error> {
    let directory = |(name, path): &(String, PathBuf)| {
        let key = build::graph::context_name(&name.to_lowercase()).to_owned();
        Ok((key, context_directory(cx, path)?))
    };
    given.iter().map(directory).collect()
}

/// Build arguments, those without a value taken from the environment. The client's proxies and `SOURCE_DATE_EPOCH` are
/// passed on unless they are given.
fn build_args(cx: &Context, given: &[(String, Option<String>)]) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    if let Some(epoch) = cx.var("SOURCE_DATE_EPOCH") {
        args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
    }
    for (name, value) in given {
        match value.clone().or_else(|| cx.env.get(name).cloned()) {
            Some(value) => args.insert(name.clone(), value),
            None => args.remove(name),
        };
    }
    args
}

fn secrets(cx: &Context, given: &[SecretSource]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut secrets = BTreeMap::new();
    for SecretSource { id, file, env } in given {
        let name = env.clone().or_else(|| file.is_none().then(|| id.clone()));
        let from_env = name.as_ref().and_then(|name| cx.env.get(name));
        let content = match (from_env, env) {
            (Some(value), _) => value.clone().into_bytes(),
            // A variable that is asked for by name and not set is a secret that was not given.
            (None, Some(_)) => continue,
            (None, None) => {
                let path = cx.cwd.join(file.as_deref().unwrap_or(Path::new(id)));
                let from = path.display().to_string();
                std::fs::read(&path).map_err(|source| Error::Secret { id: id.clone(), from, source })?
            }
        };
        secrets.insert(id.clone(), content);
    }
    Ok(secrets)
}

/// Whether a directory is the present user's (root's inside a user namespace).
fn is_ours(directory: &Path) -> bool {
    rustix::fs::stat(directory).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw())
}

/// Ctrl-C ends the running step and with it the build. When cleaning up takes too long, or it is asked for again, the
/// process ends at once: what is left then is garbage that a later command sweeps.
fn watch_signals(interrupt: Arc<Interrupt>) -> Result<(), Error> {
    let signals = SignalReader::new(&[Signal::INT.as_raw(), Signal::TERM.as_raw(), Signal::HUP.as_raw()])?;
    let watch = move || {
        let wait = |timeout: Option<&rustix::event::Timespec>| {
            let mut fds =
                [rustix::event::PollFd::from_borrowed_fd(signals.fd(), rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) && signals.next().is_some()
        };
        while !wait(None) {}
        let running = interrupt.ask();
        let grace = if running { GRACE } else { GRACE / 6 };
        let grace = rustix::event::Timespec {
            tv_sec: i64::try_from(grace.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(grace.subsec_nanos()),
        };
        wait(Some(&grace));
        std::process::exit(130);
    };
    // Without the thread an interrupted build only takes longer to end.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(watch);
    Ok(())
}

/// Base images: what is here, else from a registry.
struct BaseImages<'a> {
    cx: &'a Context,
    store: &'a Store,
    pull: bool,
    offline: bool,
}

impl Bases for BaseImages<'_> {
    fn reference(&self, name: &str) -> Result<Reference, BoxError> {
        Ok(remote::image_name(self.cx, self.store, name)?.reference)
    }

    fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
        report: &dyn Reporter,
    ) -> Result<Image, BoxError> {
        if !self.pull
            && let Some(image) = self.local(reference, platform)?
        {
            return Ok(image);
        }
        let policy = if self.offline { PullPolicy::Never } else { PullPolicy::Always };
        let request = PullRequest {
            all_platforms: false,
            reference: reference.clone(),
            platform: Some(platform.clone()),
            policy,
            remote: RemoteOptions::default(),
        };
        let pulled = pull::pull(self.cx, &request, report)?;
        Ok(self.store.image(&pulled.manifest)?)
    }
}

impl BaseImages<'_> {
    /// The image of that name, when it is here and fits the platform.
    fn local(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>, BoxError> {
        let record = match self.store.find_image(&reference.to_string()) {
            Ok(record) => record,
            Err(storage::Error::NoSuchImage(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match self.store.image_for(&record, Some(platform)) {
            Ok(image) => Ok(Some(image)),
            Err(storage::Error::NoPlatform { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_dockerfiles() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(b"\x1f\x8b\x08...") && is_archive(b"BZh9"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(b""));
    }

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
