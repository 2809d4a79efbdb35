//! What can go wrong in the store.

use std::path::PathBuf;

use crate::image::BoxError;
use crate::layer;
use crate::oci::{Digest, ManifestError, Platform};
use crate::sys::SysError;

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says where the store should lie.
    #[error("cannot tell where to keep images: HOME is not set and neither are STRATE_ROOT and --root")]
    NoRoot,
    /// No image of that name or id.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// An id prefix that fits several images.
    #[error("image id `{prefix}` is ambiguous: it fits {}", fits.join(", "))]
    AmbiguousImage {
        /// What was typed.
        prefix: String,
        /// The ids it fits.
        fits: Vec<String>,
    },
    /// No container of that name or id.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// An id prefix that fits several containers.
    #[error("container id `{prefix}` is ambiguous: it fits {}", fits.join(", "))]
    AmbiguousContainer {
        /// What was typed.
        prefix: String,
        /// The ids it fits.
        fits: Vec<String>,
    },
    /// Somebody holds a lock and does nothing.
    #[error("{what} is busy: gave up after {idle} s in which nothing happened{holder}")]
    Busy {
        /// What the lock is on.
        what: String,
        /// `, held by process 7 (strate pull)`, as far as it can be seen.
        holder: String,
        /// Seconds.
        idle: u64,
    },
    /// Somebody deleted or replaced a lock file that was held.
    #[error("the lock file `{}` was deleted or replaced while it was held", .0.display())]
    LockLost(PathBuf),
    /// Another container has the name.
    #[error("the container name `{name}` is already in use by container {id}")]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// The record of a container cannot be read.
    #[error("the record of container {id} is damaged")]
    DamagedContainer {
        /// Its short id.
        id: String,
        /// What is wrong.
        #[source]
        source: Box<Error>,
    },
    /// No volume of that name.
    #[error("no such volume: {0}")]
    NoSuchVolume(String),
    /// A name that no volume can have.
    #[error("invalid volume name `{0}`: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed")]
    BadVolumeName(String),
    /// Containers use the volume.
    #[error("volume {name} is in use by {}", containers.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// The names of the containers, running or not.
        containers: Vec<String>,
    },
    /// A container's record is damaged, so that nobody knows whether it uses the volume.
    #[error("volume {name} may be in use by container {container}, whose record is damaged")]
    VolumeMaybeInUse {
        /// The volume.
        name: String,
        /// The container's short id.
        container: String,
    },
    /// The record of a volume cannot be read.
    #[error("the record of volume {name} is damaged")]
    DamagedVolume {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: Box<Error>,
    },
    /// A volume's options make no sense, or cannot work here.
    #[error("volume {name} cannot be had with its options")]
    VolumeOption {
        /// Its name.
        name: String,
        /// Which, and why.
        #[source]
        source: super::BadOption,
    },
    /// The volume has files only while a container runs.
    #[error("volume {0} is memory: it has files only while a container runs")]
    VolumeInMemory(String),
    /// A container uses the image.
    #[error("image {image} is in use by {state} container {container}")]
    ImageInUse {
        /// The image as the user named it.
        image: String,
        /// `running` or `stopped`.
        state: &'static str,
        /// Short id and name of the container.
        container: String,
    },
    /// Removing by id an image that has several names.
    #[error("image {id} has {} names ({}): remove them by name, or all at once with --force", names.len(), names.join(", "))]
    SeveralNames {
        /// The short id.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
    /// The image has other platforms.
    #[error("`{name}` has no image for platform {wanted} here: {}", offer(here, elsewhere))]
    NoPlatform {
        /// The image.
        name: String,
        /// What was asked for.
        wanted: Platform,
        /// The platforms that are here.
        here: Vec<String>,
        /// The platforms that its index names, and that are not here.
        elsewhere: Vec<String>,
    },
    /// A name that stands for something else than a container image.
    #[error("`{name}` is an artifact ({what}), not a container image")]
    NotAnImage {
        /// The name.
        name: String,
        /// The type of the artifact.
        what: String,
    },
    /// A blob that should be here is not.
    #[error("blob {0} is missing from the store")]
    MissingBlob(Digest),
    /// An unpacked layer cannot be made again while somebody reads its files.
    #[error("the files of layer {key} are damaged, and container `{}` runs from them", containers.join("`, `"))]
    SnapshotInUse {
        /// The snapshot's key.
        key: Digest,
        /// The names of the containers.
        containers: Vec<String>,
    },
    /// A layer that lay in an additional store is not there any more.
    #[error(
        "layer {digest} is not here: the image took it from the additional store `{}`",
        stores.join("`, `")
    )]
    BlobElsewhere {
        /// The layer's blob.
        digest: Digest,
        /// The additional stores that the image was made with.
        stores: Vec<String>,
    },
    /// Removing what lies in an additional store.
    #[error("image {image} is in the additional store `{}`, which is only read", store.display())]
    NotOurs {
        /// The image as the user named it.
        image: String,
        /// The store.
        store: PathBuf,
    },
    /// A blob's bytes are not what its name says.
    #[error("blob {digest} in the store is corrupt")]
    CorruptBlob {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: layer::Error,
    },
    /// A blob of an additional store, which is only read, is not what its name says.
    #[error("blob {digest} in the additional store `{}` is corrupt", store.display())]
    CorruptElsewhere {
        /// The blob.
        digest: Digest,
        /// The store.
        store: PathBuf,
        /// What is wrong.
        #[source]
        source: layer::Error,
    },
    /// A file of the store is not what it should be.
    #[error("`{path}` is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The store is of a format this binary does not know.
    #[error(
        "the store at `{path}` has format {found}, and this strate ({OWN}) knows up to {known}: {} can use it",
        version(needs)
    )]
    Format {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
        /// The oldest version that can use it, where the store says so.
        needs: Option<String>,
    },
    /// The store uses a feature this binary does not know.
    #[error(
        "the store at `{path}` uses the feature `{}`, without which it cannot be {}, and this strate ({OWN}) does not \
         know it: {} can",
        feature.escape_debug(),
        if *.write { "written" } else { "read" },
        version(needs)
    )]
    Feature {
        /// The store.
        path: PathBuf,
        /// The feature.
        feature: String,
        /// Whether it only stands in the way of writing.
        write: bool,
        /// The oldest version that can use the store, where it says so.
        needs: Option<String>,
    },
    /// A part of the store does not lie where the rest does.
    #[error(
        "`{path}` is {what}, and all parts of a store lie in one file system: nothing could be renamed into it"
    )]
    Split {
        /// The part.
        path: PathBuf,
        /// The store.
        root: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file system cannot hold a store.
    #[error("no store can lie at `{path}`: {why}")]
    Unfit {
        /// Where.
        path: PathBuf,
        /// What it lacks.
        why: String,
        /// Whether the user may insist.
        negotiable: bool,
    },
    /// The directory holds other things.
    #[error("`{0}` is not empty and not a store")]
    NotAStore(PathBuf),
    /// Nothing says the format of a store that is to be repaired.
    #[error("`{}` and its copy cannot be read: nothing says which format the store has", .0.display())]
    FormatLost(PathBuf),
    /// A directory that a reset does not touch.
    #[error("`{path}` is not reset: {why}")]
    NoReset {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The store cannot be written.
    #[error("the store at `{path}` cannot be written")]
    ReadOnly {
        /// The store.
        path: PathBuf,
        /// Why.
        #[source]
        source: SysError,
    },
    /// The store belongs to someone else.
    #[error("the store at `{path}` belongs to user {owner}, not to you")]
    NotYours {
        /// The store.
        path: PathBuf,
        /// Its owner's id.
        owner: u32,
    },
    /// Not enough space.
    #[error("not enough space at `{path}`: {needed} bytes are needed, {available} are available")]
    Space {
        /// The store.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A layer could not be unpacked or written.
    #[error("cannot unpack or write layer {digest}")]
    Layer {
        /// The layer's blob or diff id.
        digest: Digest,
        /// Why.
        #[source]
        source: layer::Error,
    },
    /// A command needs files of a layer but may not unpack it here.
    #[error(
        "the layers are not unpacked, and unpacking needs a user namespace, which this host does not give"
    )]
    CannotUnpack,
    /// A tar could not become a layer.
    #[error("the file system's archive cannot be taken in")]
    Import(#[source] crate::layer::Error),
    /// An image contradicts itself.
    #[error("image is inconsistent: {0}")]
    Inconsistent(String),
    /// More layers than the kernel stacks.
    #[error("it has {found} layers, and the kernel stacks at most {most}")]
    TooManyLayers {
        /// So many.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// An edited image could not be put together.
    #[error("cannot put the edited image together")]
    Edit(#[source] BoxError),
    /// A manifest is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A value of the store could not be written as JSON or read back.
    #[error("`{path}` does not hold the expected JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl Error {
    /// Whether this process lacks what it takes to look, which says nothing about what it looked at.
    pub(super) fn is_shortage(&self) -> bool {
        let Self::Sys(error) = self else { return false };
        matches!(error.errno(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
    }
}

/// The version of this program.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Who can use a store that this binary cannot.
fn version(needs: &Option<String>) -> String {
    match needs {
        Some(version) => format!("strate {version} or later"),
        None => "a newer strate".to_owned(),
    }
}

fn offer(here: &[String], elsewhere: &[String]) -> String {
    match (here, elsewhere) {
        ([], []) => "it names no platform".to_owned(),
        (here, []) => format!("there is {}", here.join(", ")),
        ([], elsewhere) => format!("it names {}, none of which is here", elsewhere.join(", ")),
        (here, elsewhere) => {
            format!("there is {}; {} it names only", here.join(", "), elsewhere.join(", "))
        }
    }
}
