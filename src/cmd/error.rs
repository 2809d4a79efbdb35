//! The one translation from domain errors to what a user reads: message, cause chain, hints and exit code.

use std::error::Error;

use crate::context::ContextError;
use crate::image::{BoxError, ConvertError, LocationError};
use crate::ui::{ErrorReport, StdoutError};
use crate::{archive, ops, registry, storage, userns};

/// An error on its way to the terminal. Any error becomes one by `?`.
#[derive(Debug)]
pub struct CmdError {
    exit_code: Option<u8>,
    /// Said to the user already, or nothing to say.
    silent: bool,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl CmdError {
    /// An error that ends the command with code 1 (for `run`, `create` and `exec`: 125).
    pub fn new(source: impl Into<BoxError>) -> Self {
        let source = source.into();
        let message = source.to_string();
        let causes = causes(source.as_ref(), &message);
        Self { exit_code: None, silent: false, message, causes, hints: hints(source.as_ref()) }
    }

    /// Wrong usage that clap cannot see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit_code: None,
            silent: false,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// End with a code and say nothing more: everything was said.
    #[must_use]
    pub fn silent(code: u8) -> Self {
        Self {
            exit_code: Some(code),
            silent: true,
            message: String::new(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// With another exit code.
    #[must_use]
    pub fn with_exit_code(mut self, code: u8) -> Self {
        self.exit_code = Some(code);
        self
    }

    /// With this exit code when none was chosen.
    #[must_use]
    pub fn or_exit_code(mut self, code: u8) -> Self {
        self.exit_code.get_or_insert(code);
        self
    }

    /// With a hint: a command that helps.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// With a headline of what was being done; what the error said before becomes the first cause.
    #[must_use]
    pub fn while_doing(mut self, headline: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.message, headline.into());
        self.causes.insert(0, inner);
        self
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code.unwrap_or(1)
    }

    /// What failed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why, outermost cause first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// Commands that help.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// What to print; nothing when all was said.
    #[must_use]
    pub fn report(&self) -> Option<ErrorReport> {
        (!self.silent).then(|| ErrorReport {
            message: self.message.clone(),
            causes: self.causes.clone(),
            hints: self.hints.clone(),
        })
    }
}

impl<E: Into<BoxError> + Error> From<E> for CmdError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// The causes below an error, outermost first; a wrapper that only repeats its cause counts once.
fn causes(error: &(dyn Error + 'static), message: &str) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if causes.last().map_or(message, String::as_str) != text {
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

/// Commands that help, from what the domain errors in the chain say.
fn hints(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let error = inner(error);
        if is_elsewhere(error) {
            break;
        }
        let own = None
            .or_else(|| error.downcast_ref::<registry::Error>().map(registry::Error::hints))
            .or_else(|| error.downcast_ref::<ConvertError>().map(ConvertError::hints))
            .or_else(|| error.downcast_ref::<ops::push::Error>().map(ops::push::Error::hints));
        let found: Vec<String> = match own {
            Some(hints) => hints,
            None => None
                .or_else(|| error.downcast_ref().and_then(storage_hint))
                .or_else(|| error.downcast_ref().and_then(container_hint))
                .or_else(|| error.downcast_ref().and_then(import_store_hint))
                .or_else(|| error.downcast_ref().and_then(archive_hint))
                .or_else(|| error.downcast_ref().and_then(manifest_hint))
                .or_else(|| error.downcast_ref().and_then(transport_hint))
                .or_else(|| error.downcast_ref().and_then(LocationError::hint).map(str::to_owned))
                .or_else(|| error.downcast_ref().map(userns_hint))
                .or_else(|| error.downcast_ref().map(context_hint))
                .or_else(|| error.downcast_ref().and_then(io_hint))
                .into_iter()
                .collect(),
        };
        for hint in found {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        next = error.source();
    }
    hints
}

/// The domain error behind an operation's transparent wrapper, which the chain of sources leaves out.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    macro_rules! look {
        ($($verb:ident: $($variant:ident),+;)+) => {
            $( match error.downcast_ref::<ops::$verb::Error>() {
                $( Some(ops::$verb::Error::$variant(below)) => return inner(below), )+
                _ => {}
            } )+
        };
    }
    look! {
        build: Store;
        container: Storage;
        copy: Transport;
        export: Store, Archive;
        images: Store;
        import: Store, Change;
        load: Store, Archive;
        pull_file: Store, Archive;
        manifest: Store, Transport;
        prune: Store, Images, Container, Volume;
        pull: Storage, Registry;
        remote: Config;
        push: Storage, Registry, Transport;
        referrers: Transport;
        save: Store, Archive;
        remote_inspect: Transport;
        sync: Transport, Copy;
        tag: Store;
        volume: Store, Archive;
        tags: Transport;
        transport: Archive, Store, Registry, Location;
    }
    match error.downcast_ref() {
        Some(ops::build::OutputError::Archive(below)) => return inner(below),
        Some(ops::build::OutputError::Store(below)) => return inner(below),
        _ => {}
    }
    // What was written through has an error of its own in its place.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(below) if below.is::<archive::Error>() => below,
        _ => error,
    }
}

fn storage_hint(error: &storage::Error) -> Option<String> {
    use storage::Error as E;
    Some(match error {
        E::NoSuchImage(_) => "`strate images` lists the images that are here".to_owned(),
        E::SnapshotInUse { containers, .. } => {
            format!("`strate stop {}`, and try again: it is unpacked anew then", containers.join(" "))
        }
        E::BlobElsewhere { stores, .. } => format!(
            "name that store with `--imagestore {}`, or pull the image again",
            stores.first().map_or("PATH", String::as_str)
        ),
        E::CorruptElsewhere { store, .. } => format!(
            "pull the image, which fetches what is wrong there into your own store; its owner mends it with \
             `strate --root {} system check --repair`",
            store.display()
        ),
        E::NotOurs { store, .. } => format!("its owner removes it with `strate --root {} rmi`", store.display()),
        E::NoSuchContainer(_) => "`strate ps -a` lists all containers".to_owned(),
        E::DamagedContainer { id, .. } => format!("`strate rm -f {id}` removes it"),
        E::NoSuchVolume(_) => "`strate volume ls` lists all volumes".to_owned(),
        E::VolumeInUse { containers, .. } => {
            format!("remove what uses it first: `strate rm {}`", containers.join(" "))
        }
        E::VolumeMaybeInUse { name, container } => format!(
            "`strate rm -f {container}` removes that container, `strate volume rm -f {name}` the volume all the same"
        ),
        E::DamagedVolume { name, .. } => {
            format!("`strate system check` says more, `strate volume rm {name}` removes it with its files")
        }
        E::Busy { .. } => {
            "wait for that process or end it; --lock-timeout says how long one may do nothing".to_owned()
        }
        E::LockLost(_) => "nothing was changed: try again, and keep others out of `locks/`".to_owned(),
        E::NameInUse { name, .. } => {
            format!("remove that container with `strate rm {name}`, or choose another --name")
        }
        E::ImageInUse { container, .. } => {
            let id = container.split_whitespace().next().unwrap_or(container);
            format!("remove the container first with `strate rm {id}`")
        }
        E::SeveralNames { id, .. } => format!("`strate rmi -f {id}` removes all of its names"),
        E::NoRoot => "set HOME, or say where with `strate --root DIR`".to_owned(),
        E::ReadOnly { .. } => "choose a directory that you can write with --root or STRATE_ROOT".to_owned(),
        E::NotYours { .. } => "choose a store of your own with --root or STRATE_ROOT".to_owned(),
        E::Format { .. } | E::Feature { .. } => "use a newer strate, or another store with --root".to_owned(),
        E::Split { root, .. } => format!("mount the file system at `{}` itself, or choose another place with --root", root.display()),
        E::Unfit { negotiable: true, .. } => "choose a directory on a local disk with --root or STRATE_ROOT; where only one process at a time uses the store, STRATE_UNSAFE_STORE=1 takes it".to_owned(),
        E::Unfit { .. } => "choose a directory on a local disk with --root or STRATE_ROOT".to_owned(),
        E::Space { .. } => {
            "free some with `strate system prune`, or use another disk with --root".to_owned()
        }
        E::CannotUnpack => "`strate doctor` says how to allow it on this host".to_owned(),
        E::NoPlatform { name, here, elsewhere, .. } => match (here.first(), elsewhere.first()) {
            (Some(platform), _) => format!("take one that is here with `--platform {platform}`"),
            (None, Some(platform)) => format!("`strate pull --platform {platform} {name}` fetches one"),
            (None, None) => return None,
        },
        E::MissingBlob(_) | E::CorruptBlob { .. } => {
            "pull or build the image again, or try `strate system check --repair`".to_owned()
        }
        E::FormatLost(_) => "`strate system check --repair --force` takes it for one that this version can write; where a newer one wrote it, use that".to_owned(),
        E::Json { .. } | E::Damaged { .. } => {
            "`strate system check --repair` mends what can be mended".to_owned()
        }
        _ => return None,
    })
}

fn container_hint(error: &ops::container::Error) -> Option<String> {
    use ops::container::Error as E;
    Some(match error {
        E::VolumeDiffers(name) => {
            format!("`strate volume inspect {name}` shows them; leave them out to use it as it is")
        }
        E::NotRunning(name) => format!("`strate start {name}` starts it again"),
        E::RemoveRunning(name) => format!("`strate rm -f {name}` kills it first"),
        E::BindSource { source_path, source, .. } if source.errno() == Some(libc::ENOENT) => {
            format!("`mkdir -p {}` makes it a directory, as `-v` would", source_path.display())
        }
        E::NotATerminal => "leave out -t, or run it on a terminal".to_owned(),
        E::NoNetworkHelper("neither pasta nor slirp4netns") => {
            "install passt, which brings pasta, or slirp4netns; or choose --network host or none".to_owned()
        }
        E::NoNetworkHelper(_) => "choose --network private for whichever helper there is".to_owned(),
        E::NoTun(source) if source.kind() == std::io::ErrorKind::NotFound => {
            "`modprobe tun` as root makes it; a container gets it with `--device /dev/net/tun`; or choose --network \
             host or none"
                .to_owned()
        }
        E::NoTun(_) => {
            "`chmod 666 /dev/net/tun` as root allows it, which is how most systems have it; or choose --network host \
             or none"
                .to_owned()
        }
        E::NoSuchNetwork(_) => {
            "there are private, host, none, container:NAME, pasta[:OPTIONS] and slirp4netns[:OPTIONS]".to_owned()
        }
        E::JoinStopped(name) => format!("`strate start {name}` starts it"),
        E::OtherNamespace(_) => "start this container by a command of its own".to_owned(),
        E::Runtime(error) => return port_hint(error),
        _ => return None,
    })
}

fn port_hint(error: &ops::RuntimeError) -> Option<String> {
    let (port, source) = error.port()?;
    Some(match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("`ss -lnp 'sport = :{port}'` shows who has it, and `strate ps` which container")
        }
        std::io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 are root's: take a higher one, or `sysctl net.ipv4.ip_unprivileged_port_start={port}` as \
             root"
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            "`ip address` lists the addresses that the host has".to_owned()
        }
        _ => return None,
    })
}

fn import_store_hint(error: &ops::import_store::Error) -> Option<String> {
    use ops::import_store::Error as E;
    Some(match error {
        E::NoStore(_) => "`podman info --format '{{.Store.GraphRoot}}'` says where it is, for --from".to_owned(),
        E::NoSuchImage { store, .. } => {
            format!("`strate import-store containers-storage --dry-run --from {}` lists them", store.display())
        }
        E::NoTool => "install skopeo; or export an image where podman is, with `podman save --format oci-archive -o FILE \
                      IMAGE`, and `strate load -i FILE` here"
            .to_owned(),
        _ => return None,
    })
}

fn archive_hint(error: &archive::Error) -> Option<String> {
    use archive::Error as E;
    Some(match error {
        E::NotAnArchive { what, .. } if what.contains("neither") => {
            "if it holds a file system, `strate import` makes an image of it".to_owned()
        }
        E::TooOld(_) => "load it with docker 1.10 to 24 and save it again".to_owned(),
        E::Spool { .. } => "use another disk with --root".to_owned(),
        E::NotOurs { .. } => "name a directory that is empty or not there yet".to_owned(),
        E::OneImageOnly => "save to oci-dir, or one image at a time".to_owned(),
        E::Shared(error) => return archive_hint(error),
        _ => return None,
    })
}

fn transport_hint(error: &ops::transport::Error) -> Option<String> {
    use ops::transport::Error as E;
    match error {
        E::ArchiveExists(_) => {
            Some("remove it first, or write all images at once with `strate save -o FILE IMAGE…`".to_owned())
        }
        _ => None,
    }
}

fn manifest_hint(error: &ops::manifest::Error) -> Option<String> {
    use ops::manifest::Error as E;
    Some(match error {
        E::Exists(name) => {
            format!("--amend adds to it; `strate manifest rm {name}` removes it first")
        }
        E::NotAnIndex(_) => "`strate manifest create NAME IMAGE…` makes an index of images".to_owned(),
        E::NoSuchIndex(name) => format!("`strate manifest create {name}` makes it"),
        E::Nameless(id) => format!("`strate tag {id} NAME` gives it one"),
        E::NotHeld { index, .. } | E::Ambiguous { index, .. } => {
            format!("`strate manifest inspect {index}` lists what it holds")
        }
        E::Lost { image, .. } => format!("`strate pull --all-platforms {image}` fetches all of it"),
        _ => return None,
    })
}

fn userns_hint(error: &userns::Error) -> String {
    let _ = error;
    "`strate doctor` says what is missing on this host".to_owned()
}

fn context_hint(error: &ContextError) -> String {
    match error {
        ContextError::Cwd(_) => "`cd` to a directory that exists".to_owned(),
    }
}

/// Whether what follows in the chain is about a place that no room in the store helps: standard output, a device.
fn is_elsewhere(error: &(dyn Error + 'static)) -> bool {
    let path = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(archive::Error::Write { path, .. }), _) => path,
        (_, Some(ops::build::OutputError::Write { path, .. })) => path,
        _ => return error.is::<StdoutError>(),
    };
    path.as_os_str() == "standard output" || path.starts_with("/dev") || path.starts_with("/proc")
}

fn io_hint(error: &std::io::Error) -> Option<String> {
    (error.kind() == std::io::ErrorKind::StorageFull)
        .then(|| "free some space with `strate system prune`, or use another disk with --root".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot pull `x`")]
    struct Outer(#[source] std::io::Error);

    fn full() -> std::io::Error {
        std::io::Error::from(std::io::ErrorKind::StorageFull)
    }

    #[test]
    fn a_chain_keeps_its_causes_and_finds_hints() {
        let error = CmdError::from(Outer(full()));
        assert_eq!(error.message(), "cannot pull `x`");
        assert_eq!(error.causes(), [full().to_string()]);
        assert_eq!(error.hints().len(), 1);
        assert_eq!(error.exit_code(), 1);
        assert_eq!(error.or_exit_code(125).exit_code(), 125);
    }

    #[test]
    fn a_full_device_is_not_the_store() {
        let path = "standard output".into();
        let error = ops::save::Error::Archive(archive::Error::Write { path, source: full() });
        assert_eq!(CmdError::from(error).hints(), [""; 0]);
        let error =
            ops::save::Error::Archive(archive::Error::Write { path: "/x/a.tar".into(), source: full() });
        assert_eq!(CmdError::from(error).hints().len(), 1);
    }

    #[test]
    fn a_headline_pushes_the_rest_down() {
        let error = CmdError::from(Outer(full())).while_doing("cannot run `y`");
        assert_eq!(error.message(), "cannot run `y`");
        assert_eq!(error.causes(), ["cannot pull `x`".to_owned(), full().to_string()]);
        let error = CmdError::usage("bad").while_doing("cannot run");
        assert_eq!(error.causes(), ["bad"]);
    }

    #[test]
    fn storage_errors_have_hints() {
        let error = CmdError::from(storage::Error::NoSuchImage("x".into()));
        assert_eq!(error.hints(), ["`strate images` lists the images that are here"]);
        let wrapped = ops::tag::Error::Store(storage::Error::NoSuchImage("x".into()));
        assert_eq!(CmdError::from(wrapped).hints(), error.hints());
    }
}
