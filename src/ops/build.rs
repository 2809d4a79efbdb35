//! `build`: read the Dockerfile and the context's facts, build, publish.

mod bases;
mod fetch;
mod git;
mod given;
mod inputs;
mod output;
mod ssh;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use self::bases::BaseImages;
use self::fetch::Fetcher;
use self::given::{build_args, resolv_conf, secrets};
use self::inputs::{Inputs, Reading};
use super::manifest;
use super::remote::RemoteOptions;
use crate::build::{self, Board, ContextDir, Failure, Interrupt, Request, Workshop, excerpt};
use crate::context::Context;
use crate::image::{BoxError, Reporter};
use crate::oci::{Platform, Reference};
use crate::storage::{self, Budget, Store};
use crate::sys::signals::SignalReader;
use crate::userns::Rung;

pub use crate::build::ast::Span;
pub use crate::build::outline::{Argument, Need, Outline, Target};
pub use crate::build::progress::{Event as BuildEvent, Progress as BuildProgress, Stream};
pub use crate::build::{ContextEntry, NamedContext};
pub use crate::runtime::Network;
pub use given::Dns;
pub use inputs::{ContextSource, named_context};
pub use output::{BuiltImage, Format, Layers, NewCompression, Output, OutputError, Times};
pub use ssh::SshError;

/// How long a build that was asked to end may take to clean up.
const GRACE: Duration = Duration::from_secs(3);

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The positional argument.
    pub context: ContextSource,
    /// `--file`, in order; `-` is standard input.
    pub files: Vec<String>,
    /// `--tag`.
    pub names: Vec<Reference>,
    /// `--ignorefile`: in the place of those beside the Dockerfile and in the context.
    pub ignore_file: Option<PathBuf>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`: name and, unless it is to be taken from the environment, value.
    pub build_args: Vec<(String, Option<String>)>,
    /// `--build-context`.
    pub named_contexts: Vec<(String, NamedContext)>,
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
    /// `--ssh`.
    pub ssh: Vec<SshSource>,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--shm-size`, in bytes.
    pub shm_size: u64,
    /// `--ulimit`: `RLIMIT_*` name, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// `--manifest`: a local index that the image is added to.
    pub manifest: Option<Reference>,
    /// `--from`: the base in the place of the first that the Dockerfile names.
    pub first_base: Option<String>,
    /// `--env`: variables of the image, as `build_args`.
    pub env: Vec<(String, Option<String>)>,
    /// `--unsetenv`.
    pub unset_env: Vec<String>,
    /// `--unsetlabel`.
    pub unset_labels: Vec<String>,
    /// `--dns` and the like.
    pub dns: Dns,
    /// `--http-proxy`: the proxies of the environment are passed on.
    pub proxies: bool,
    /// Registry options.
    pub remote: RemoteOptions,
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

/// A `--ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSource {
    /// Its id.
    pub id: String,
    /// One socket, or keys; none is the socket that `SSH_AUTH_SOCK` names.
    pub paths: Vec<PathBuf>,
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
    /// The context or the Dockerfile comes from elsewhere and cannot be had.
    #[error("failed to solve: failed to load {place}")]
    Remote {
        /// Its address.
        place: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// There is no Dockerfile: in the words of the reference, which people and scripts search for.
    #[error("failed to solve: failed to read dockerfile: open {name}: no such file or directory")]
    NoDockerfile {
        /// Its name.
        name: String,
    },
    /// The Dockerfile cannot be read.
    #[error("failed to solve: failed to read dockerfile: open {name}")]
    Dockerfile {
        /// Its name.
        name: String,
        /// Why.
        #[source]
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
    /// An agent cannot be forwarded.
    #[error(transparent)]
    Ssh(#[from] SshError),
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
    /// The index that the image should be added to cannot be used.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// Signals cannot be taken.
    #[error(transparent)]
    Sys(#[from] crate::sys::SysError),
}

impl Error {
    /// What a Dockerfile that cannot be read comes to.
    fn dockerfile(name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoDockerfile { name },
            _ => Self::Dockerfile { name, source },
        }
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
    let notice = Arc::new(notice);
    let of_store = Arc::clone(&notice);
    let store = super::store::write(cx, move |text| of_store(text))?;
    store.settle()?;
    if let Some(name) = &request.manifest {
        manifest::may_gather(&store, name)?;
    }
    let secrets = secrets(cx, &request.secrets)?;
    let agents = ssh::Agents::new(cx, &request.ssh)?;
    let agent = agents.default_socket();
    let fetcher = Fetcher { cx, store: &store, secrets: &secrets, agent, remote: &request.remote };
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(Arc::clone(&interrupt))?;
    let board = Board::new(progress);
    let mut full = prepare(request, &fetcher, &board)?;
    if let Some(word) = full.dockerfile.syntax.as_deref().and_then(build::frontend::remark) {
        notice(&word);
    }
    let index = forced_index(&full)?;
    full.ssh = agents.sockets.clone();
    let bases = BaseImages { cx, store: &store, request };
    let interrupt = &interrupt;
    let shop = Workshop { store: &store, bases: &bases, remote: &fetcher, board: &board, report, interrupt };
    let mut made = Vec::new();
    for platform in platforms(request) {
        full.named_contexts = named_contexts(cx, &request.named_contexts, &platform)?;
        full.platform = platform;
        let built = build::build(shop, &full);
        if interrupt.asked() {
            return Err(Error::Interrupted);
        }
        made.push(built.map_err(|failure| failed(failure, &full.dockerfile))?);
    }
    let delivered = output::Delivery { cx, store: &store, shop, request, index }.deliver(made)?;
    keep_to_budget(cx, &store, &*notice);
    Ok(delivered)
}

/// `STRATE_CACHE_BUDGET`: how large the build cache may grow. The build is done by now, and stays so whatever comes of it.
fn keep_to_budget(cx: &Context, store: &Store, notice: &dyn Fn(&str)) {
    let budget = cx.var("STRATE_CACHE_BUDGET").map_or(Ok(Budget::default()), str::parse);
    let budget = budget.unwrap_or_else(|why| {
        notice(&format!("STRATE_CACHE_BUDGET is ignored: {why}"));
        Budget::default()
    });
    if let Err(error) = store.keep_to_budget(budget) {
        notice(&format!("the build cache could not be brought back to its budget: {error}"));
    }
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

/// What the build would see of its context.
///
/// # Errors
/// When the context or its ignore file cannot be read.
pub fn context_entries(cx: &Context, request: &BuildRequest) -> Result<Vec<ContextEntry>, Error> {
    let store = super::store::write(cx, |_| ())?;
    let full = prepare_unseen(cx, request, &store)?;
    let Some(context) = &full.context else { return Ok(Vec::new()) };
    let entries = build::context_entries(context, full.ignore.as_deref());
    entries.map_err(|error| failed(Failure::from(error), &full.dockerfile))
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

/// Look the Dockerfile over without building anything. `note` is told what could not be looked at.
///
/// # Errors
/// For mistakes that would fail any build.
pub fn check(cx: &Context, request: &BuildRequest, note: &dyn Fn(&str)) -> Result<Vec<Remark>, Error> {
    let store = super::store::write(cx, |_| ())?;
    let full = prepare_unseen(cx, request, &store)?;
    let bases = BaseImages { cx, store: &store, request };
    let configs = |name: &str, platform: &Platform| {
        let config = bases.config(name, platform);
        if config.is_none() {
            note(&format!("`{name}` cannot be looked at: what depends on it is not checked"));
        }
        config
    };
    let found = build::check(&full, &configs).map_err(|failure| failed(failure, &full.dockerfile))?;
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
    let store = super::store::write(cx, |_| ())?;
    let full = prepare_unseen(cx, request, &store)?;
    build::outline(&full).map_err(|failure| failed(failure, &full.dockerfile))
}

/// The stages that can be built.
///
/// # Errors
/// For mistakes in the Dockerfile.
pub fn targets(cx: &Context, request: &BuildRequest) -> Result<Vec<Target>, Error> {
    let store = super::store::write(cx, |_| ())?;
    let full = prepare_unseen(cx, request, &store)?;
    Ok(build::outline::targets(&full.dockerfile))
}

/// With the lines of the Dockerfile that it is about.
fn failed(failure: Failure, dockerfile: &build::ast::Dockerfile) -> Error {
    let excerpts = failure.spans.iter().map(|span| excerpt::excerpt(dockerfile, *span)).collect();
    Error::Failed { failure: Box::new(failure), excerpts }
}

/// As [`prepare`], for verbs that build nothing.
fn prepare_unseen(cx: &Context, request: &BuildRequest, store: &Store) -> Result<Request, Error> {
    let secrets = secrets(cx, &request.secrets)?;
    let agents = ssh::Agents::new(cx, &request.ssh)?;
    let agent = agents.default_socket();
    let fetcher = Fetcher { cx, store, secrets: &secrets, agent, remote: &request.remote };
    prepare(request, &fetcher, &Board::new(&build::progress::Silent))
}

/// Read what the command line points to.
fn prepare(request: &BuildRequest, fetcher: &Fetcher<'_>, board: &Board<'_>) -> Result<Request, Error> {
    let Fetcher { cx, store, secrets, .. } = *fetcher;
    let build_args = build_args(cx, request);
    let truth =
        |name: &str| build_args.get(name).is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    let reading = Reading {
        cx,
        store,
        request,
        fetcher: *fetcher,
        board,
        keep_git_dir: truth("BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
        commit_times: build_args.get("SOURCE_DATE_EPOCH").is_some_and(|value| !value.is_empty()),
    };
    let Inputs { name, dockerfile: source, context, context_time, ignore } = reading.read()?;
    let mut dockerfile = match build::parse(&source, &name) {
        Ok(dockerfile) => dockerfile,
        Err(errors) => {
            let text = String::from_utf8_lossy(&source).into_owned();
            let failure = Failure::from(build::Error::Parse(errors));
            let show = |span: &build::ast::Span| excerpt::of_source(&text, &name, *span);
            let excerpts = failure.spans.iter().map(show).collect();
            return Err(Error::Failed { failure: Box::new(failure), excerpts });
        }
    };
    if let (Some(base), Some(stage)) = (&request.first_base, dockerfile.stages.first_mut()) {
        stage.from.value.base.clone_from(base);
    }
    let first = platforms(request).swap_remove(0);
    Ok(Request {
        dockerfile,
        ignore,
        named_contexts: named_contexts(cx, &request.named_contexts, &first)?,
        target: request.target.clone(),
        build_args,
        labels: request.labels.clone(),
        no_cache: request.no_cache,
        no_cache_stages: request.no_cache_stages.clone(),
        owns_context: context.as_ref().is_some_and(shows_as_it_is),
        context,
        context_time,
        network: request.network,
        platform_given: !request.platforms.is_empty(),
        several_platforms: request.platforms.len() > 1,
        platform: first,
        secrets: secrets.clone(),
        ssh: BTreeMap::new(),
        add_hosts: request.add_hosts.clone(),
        shm_size: request.shm_size,
        rlimits: request.rlimits.clone(),
        resolv_conf: resolv_conf(&request.dns),
        env: given::values(cx, &request.env),
        unset_env: request.unset_env.clone(),
        unset_labels: request.unset_labels.clone(),
        isolated: cx.entered.as_ref().is_some_and(|entered| entered.rung != Rung::None),
    })
}

/// Whether the files of a context show in a step with the owners that they should have: they are the present user's
/// (root's inside a user namespace), or were unpacked with all owners.
fn shows_as_it_is(context: &ContextDir) -> bool {
    match &context.owners {
        Some(owners) => owners.is_empty(),
        None => rustix::fs::stat(&context.path)
            .is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw()),
    }
}

/// Contexts by their normalised names. `name::os/arch` is for one platform, and comes before `name`.
fn named_contexts(
    cx: &Context,
    given: &[(String, NamedContext)],
    platform: &Platform,
) -> Result<BTreeMap<String, NamedContext>, Error> {
    let mut all = BTreeMap::new();
    let mut special = BTreeMap::new();
    for (name, context) in given {
        let context = match context {
            NamedContext::Directory(path) => NamedContext::Directory(inputs::context_directory(cx, path)?),
            other => other.clone(),
        };
        let key = |name: &str| build::graph::context_name(&name.to_lowercase()).to_owned();
        match name.split_once("::") {
            Some((name, only)) if only.parse::<Platform>().is_ok_and(|only| only == *platform) => {
                special.insert(key(name), context);
            }
            Some(_) => {}
            None => {
                all.insert(key(name), context);
            }
        }
    }
    all.extend(special);
    Ok(all)
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
