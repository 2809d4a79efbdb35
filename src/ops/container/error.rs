//! What can go wrong with containers.

use std::path::PathBuf;

use crate::image::BoxError;
use crate::sys::SysError;
use crate::{runtime, storage};

/// What can go wrong with containers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no container can have.
    #[error("invalid container name `{0}`: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed")]
    BadName(String),
    /// A flag's value.
    #[error("invalid value `{value}` for {flag}: {why}")]
    BadValue {
        /// The flag.
        flag: String,
        /// The value.
        value: String,
        /// Why.
        why: String,
    },
    /// A flag that docker has and that is not offered yet.
    #[error("flag {flag} is known but not available yet: {why}")]
    NotAvailable {
        /// The flag.
        flag: String,
        /// What to do instead, or what lacks.
        why: String,
    },
    /// Two flags that exclude each other.
    #[error("flags {0} and {1} cannot be used together")]
    Conflict(&'static str, &'static str),
    /// Two mounts at one place.
    #[error("duplicate mount point: {0}")]
    DuplicateMount(String),
    /// The source of a bind mount.
    #[error("cannot bind `{source_path}` at {target}")]
    BindSource {
        /// The path on the host.
        source_path: PathBuf,
        /// The path in the container.
        target: String,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A volume that is there already, and not as asked for.
    #[error("volume {0} is there already, with other options")]
    VolumeDiffers(String),
    /// A mount point that an image asks for and that would break the container.
    #[error("image volume `{0}` cannot be mounted: it would hide the container's own files")]
    ImageVolume(String),
    /// Neither the image nor the command line says what to run.
    #[error("no command specified: the image has neither an entrypoint nor a default command")]
    NoCommand,
    /// The image is not here and may not be pulled.
    #[error("no such image: {0}")]
    ImageNotHere(String),
    /// The pull that `run` needs failed.
    #[error("cannot pull `{image}`")]
    Pull {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A file that a flag names.
    #[error("cannot use `{path}` for {flag}")]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `--cidfile` names a file that exists.
    #[error("container id file `{0}` exists: make sure that no other container uses it, or delete it")]
    CidFileExists(PathBuf),
    /// `-t` with a standard input that is none.
    #[error("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")]
    NotATerminal,
    /// The host gives no namespace to run programs in.
    #[error("cannot run programs here: this process gets no user namespace{}", .0.as_ref().map_or(String::new(), |why| format!(" ({why})")))]
    NoNamespace(Option<String>),
    /// A user of the image that the id map does not reach.
    #[error("user {uid}:{gid} cannot be used: this user namespace maps ids below {mapped} only")]
    UnmappedUser {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// How many ids there are.
        mapped: u32,
    },
    /// A container that needs another user namespace than the one that the command is in.
    #[error("container {0} has another user namespace than the command is in, which has one for all it does")]
    OtherUserNamespace(String),
    /// A port of a container that is not reachable.
    #[error("no public port '{port}' published for {container}")]
    NotPublished {
        /// The container's port.
        port: String,
        /// The container.
        container: String,
    },
    /// A network that is not there.
    #[error("no such network: {0}")]
    NoSuchNetwork(String),
    /// No program that could connect a network of the container's own.
    #[error("the container cannot have a network of its own: {0} is installed")]
    NoNetworkHelper(&'static str),
    /// The device that carries its packets.
    #[error("the container cannot have a network of its own: `{}` cannot be opened", runtime::network::TUN)]
    NoTun(#[source] std::io::Error),
    /// The container whose network is to be joined does not run.
    #[error("cannot join network of a non running container: {0}")]
    JoinStopped(String),
    /// The container whose network is to be joined was started by another command than the one we joined.
    #[error("cannot join the network of container {0} from here: it is in another user namespace")]
    OtherNamespace(String),
    /// `host-gateway` on a host that is not connected.
    #[error("cannot find what `host-gateway` stands for: the host has no address but loopback")]
    NoHostAddress,
    /// A flag that means nothing with that network.
    #[error("conflicting options: {0} and the network mode")]
    NetworkConflict(&'static str),
    /// A running container cannot be removed without force.
    #[error("cannot remove container {0}: it is running; stop it first or use --force")]
    RemoveRunning(String),
    /// The container does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// Nothing says how to check the container's health.
    #[error("container {0} has no health check")]
    NoHealthcheck(String),
    /// The container is paused already, or something needs it to move.
    #[error("container {0} is paused")]
    Paused(String),
    /// The container is not paused.
    #[error("container {0} is not paused")]
    NotPaused(String),
    /// The container's processes cannot be frozen or let go.
    #[error(
        "cannot pause or unpause container {id}: that needs a freezer of the kernel that this user may use"
    )]
    Freeze {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: SysError,
    },
    /// Limits that cannot be had, where they must be.
    #[error("cannot limit the container: {0}")]
    StrictLimits(String),
    /// Limits that cannot be had for a running container.
    #[error("cannot change the limits of container {name}: {words}")]
    NotLimited {
        /// The container.
        name: String,
        /// What lacks.
        words: String,
    },
    /// It did not end though it was killed.
    #[error("container {0} did not end within {1} seconds after it was killed")]
    Unkillable(String, u64),
    /// Several containers where one is allowed.
    #[error("you cannot start and attach several containers at once")]
    AttachSeveral,
    /// There is no log to read.
    #[error("container {0} keeps no log: it was started with {1}")]
    NoLog(String, &'static str),
    /// An instruction that `commit --change` does not take.
    #[error("invalid change `{text}`: {why}")]
    Change {
        /// The instruction.
        text: String,
        /// Why.
        why: String,
    },
    /// The container's processes could not be stopped for a commit.
    #[error("cannot pause container {id}; use --pause=false to commit without pausing")]
    Pause {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: SysError,
    },
    /// The monitor ended without a word.
    #[error("the monitor of container {0} ended before it could start the program")]
    MonitorGone(String),
    /// The monitor ended, and so did the program.
    #[error("the monitor of container {0} ended, and its program with it")]
    MonitorLost(String),
    /// The monitor ended the connection.
    #[error("the connection to container {name} was ended: {why}")]
    Dismissed {
        /// The container.
        name: String,
        /// Why.
        why: String,
    },
    /// The container stands where it cannot be attached to.
    #[error("cannot attach to container {name}: it is {state}; {instead}")]
    NotAttachable {
        /// The container.
        name: String,
        /// Where it stands.
        state: &'static str,
        /// What to do first.
        instead: &'static str,
    },
    /// The monitor could not start the program; it sent its words.
    #[error("{message}")]
    Monitor {
        /// What failed.
        message: String,
        /// Why.
        #[source]
        source: Option<BoxError>,
        /// Docker's exit code: 125, 126 or 127.
        exit_code: u8,
    },
    /// Not one side of a copy is in a container.
    #[error("cannot copy: {0}")]
    CopySides(String),
    /// Files could not be copied.
    #[error("cannot copy")]
    Copy {
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A path lies in a mount that is not there.
    #[error("{target} is mounted in container {name} only while it runs: start it first")]
    NotMounted {
        /// The container.
        name: String,
        /// The mount.
        target: String,
    },
    /// The root of a stopped container may not be changed.
    #[error("the root of container {0} is read-only")]
    ReadOnlyRoot(String),
    /// A container's changes could not be read.
    #[error("cannot tell what container {id} changed")]
    Diff {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The namespaces that we are in give no power to mount.
    #[error("containers are mounted by root, or inside of `strate unshare`")]
    NotUnshared,
    /// Somebody has mounted the container's files.
    #[error("container {0} is mounted by `strate mount`: unmount it first")]
    Mounted(String),
    /// Somebody has just started the container.
    #[error("container {0} was just started")]
    Started(String),
    /// A filter that is not known.
    #[error("invalid filter `{0}`: {1}")]
    Filter(String, String),
    /// A stored description that cannot be read.
    #[error("the description of container {id} is damaged")]
    Spec {
        /// The container.
        id: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The new image could not be made.
    #[error("cannot commit container {id}")]
    Commit {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// A reference.
    #[error(transparent)]
    Reference(#[from] crate::oci::ReferenceError),
    /// A digest.
    #[error(transparent)]
    Digest(#[from] crate::oci::DigestError),
}

impl Error {
    /// Docker's exit code for a failed run, create, start -a or exec.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(error) => error.exit_code(),
            Self::Monitor { exit_code, .. } => *exit_code,
            _ => 125,
        }
    }
}
