//! The table of verbs: each line is a verb, its arguments, its function, what it needs and, where docker's exit code
//! for our own failures is not 1, that code.
//!
//! To add a verb, write `fn verb(cx: &mut Context, ui: &mut Ui, args: VerbArgs) -> CmdResult` in the file of its group
//! and add (or uncomment) its line here; a verb known in two forms (`images`, `image ls`) has a line in both tables.
//! The doc comment is its line in the help. A verb that wants `-h` for itself (docker's `run -h NAME`) puts
//! `#[command(disable_help_flag = true)]` on its arguments and declares `--help` with `ArgAction::Help`.

use clap::Subcommand;

#[allow(unused_imports, reason = "their verbs are coming")]
use super::{
    CmdResult, archive, build, check, container, copy, disk, image, imagetools, import_store, man, manifest,
    prune, registry, remote, reset, sync, system, volume,
};
use crate::context::Context;
use crate::ops::enter::Entry;
use crate::ui::Ui;

/// What a verb needs before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: works in any process.
    Nothing,
    /// A rung of the ladder of user namespaces, taken once, before any thread exists. A rung with limits is said once.
    UserNamespace,
    /// The same, without saying anything: the verb itself reports the rung.
    Quietly,
}

macro_rules! verbs {
    ($(#[$outer:meta])* $table:ident {
        $( $(#[$attr:meta])* $name:ident($args:ty) => $run:path, $needs:ident $(, $code:literal)?; )*
    }) => {
        $(#[$outer])*
        #[derive(Debug, Subcommand)]
        // A start pays for the flags of its own verb, not for those of all.
        #[command(defer = true)]
        #[allow(clippy::large_enum_variant, reason = "there is one value, made once")]
        pub(super) enum $table {
            $( $(#[$attr])* $name($args), )*
        }

        impl $table {
            fn needs(&self) -> Needs {
                match *self {
                    $( Self::$name(_) => Needs::$needs, )*
                }
            }

            fn failure_code(&self) -> u8 {
                match *self {
                    $( Self::$name(_) => [1 $(, $code)?].last().copied().unwrap_or(1), )*
                }
            }

            fn run(self, cx: &mut Context, ui: &mut Ui) -> CmdResult {
                let _ = (&cx, &ui);
                match self {
                    $( Self::$name(args) => $run(cx, ui, args), )*
                }
            }
        }
    };
}

verbs! {
    /// Verbs without an object.
    PlainVerb {
        /// Create and run a new container from an image
        Run(container::RunArgs) => container::run, UserNamespace, 125;

        /// Run another program in a running container
        Exec(container::ExecArgs) => container::exec, Nothing, 125;

        /// List containers
        #[command(visible_alias = "list")]
        Ps(container::PsArgs) => container::ps, Nothing;

        /// Build an image from a Dockerfile
        #[command(alias = "bud")]
        Build(build::BuildArgs) => build::build, UserNamespace;

        /// Fetch an image from a registry
        Pull(registry::PullArgs) => registry::pull, UserNamespace;

        /// Remove unused images and build cache
        #[command(hide = true)]
        Prune(prune::BuildahArgs) => prune::buildah, UserNamespace;

        /// Send an image to a registry
        Push(registry::PushArgs) => registry::push, Nothing;

        /// List images
        Images(image::ImagesArgs) => image::images, Nothing;

        /// Log in to a registry
        Login(registry::LoginArgs) => registry::login, Nothing;

        /// Log out of a registry
        Logout(registry::LogoutArgs) => registry::logout, Nothing;

        /// Show a running container's streams, and give it input
        Attach(container::AttachArgs) => container::attach, Nothing;

        /// Make a new image from a container's changes
        Commit(container::CommitArgs) => container::commit, Nothing;

        /// Copy an image from one place to another: registries, archives, directories, the store
        Copy(copy::CopyArgs) => copy::copy, Nothing;

        /// Delete an image from a registry
        Delete(remote::DeleteArgs) => remote::delete, Nothing;

        /// Print the digest of an image in a registry
        Digest(remote::DigestArgs) => remote::digest, Nothing;

        /// Copy files into a container or out of it
        Cp(container::CpArgs) => container::cp, Nothing;

        /// Create a container without starting it
        Create(container::CreateArgs) => container::create, UserNamespace, 125;

        /// Show what a container changed of its image's files
        Diff(container::DiffArgs) => container::diff, UserNamespace;

        /// Show what happens to containers, images and volumes
        Events(container::EventsArgs) => container::events, Nothing;

        /// Write a container's file system to a tar
        Export(archive::ExportArgs) => archive::export, UserNamespace;

        /// Run the health check of a container
        Healthcheck(container::HealthcheckArgs) => container::healthcheck, Nothing, 125;

        /// Show how an image was made
        History(image::HistoryArgs) => image::history, Nothing;

        /// Make an image of a tar of a file system
        Import(archive::ImportArgs) => archive::import, UserNamespace;

        /// Show everything about images and containers, as JSON
        Inspect(image::InspectArgs) => image::inspect, Nothing;

        /// Send a signal to running containers
        Kill(container::KillArgs) => container::kill, Nothing;

        /// Read images from an archive
        Load(archive::LoadArgs) => archive::load, UserNamespace;

        /// List the tags of a repository
        ListTags(remote::ListTagsArgs) => remote::list_tags, Nothing;

        /// Print the digest of a manifest in a file
        #[command(hide = true)]
        ManifestDigest(remote::ManifestDigestArgs) => remote::manifest_digest, Nothing;

        /// List what refers to an image: signatures, attestations, other artifacts
        Referrers(remote::ReferrersArgs) => remote::referrers, Nothing;

        /// Search a registry
        Search(remote::SearchArgs) => remote::search, Nothing;

        /// Show what a container has written
        Logs(container::LogsArgs) => container::logs, Nothing;

        /// Make the files of stopped containers reachable under a path
        Mount(container::MountArgs) => container::mount, Nothing;

        /// Hold the processes of containers still
        Pause(container::PauseArgs) => container::pause, Nothing;

        /// Show which ports of a container are reachable, and how
        Port(container::PortArgs) => container::port, Nothing;

        /// Rename a container
        Rename(container::RenameArgs) => container::rename, Nothing;

        /// Stop containers and start them again
        Restart(container::RestartArgs) => container::restart, UserNamespace;

        /// Remove containers
        Rm(container::RmArgs) => container::rm, UserNamespace;

        /// Remove images
        Rmi(image::RmiArgs) => image::rmi, UserNamespace;

        /// Write images to a tar archive
        Save(archive::SaveArgs) => archive::save, Nothing;

        /// Start stopped containers
        Start(container::StartArgs) => container::start, UserNamespace;

        /// Show what running containers use: processor, memory, network, disks
        Stats(container::StatsArgs) => container::stats, Nothing;

        /// Stop running containers
        Stop(container::StopArgs) => container::stop, Nothing;

        /// Copy whole repositories or lists of images, as far as they are not there yet
        Sync(sync::SyncArgs) => sync::sync, Nothing;

        /// Give an image another name
        Tag(image::TagArgs) => image::tag, Nothing;

        /// Show the processes of a container
        Top(container::TopArgs) => container::top, Nothing;

        /// Undo what mount did
        #[command(visible_alias = "unmount")]
        Umount(container::UmountArgs) => container::umount, Nothing;

        /// Let paused containers go on
        Unpause(container::PauseArgs) => container::unpause, Nothing;

        /// Change the limits and the restart policy of containers
        Update(container::UpdateArgs) => container::update, Nothing;

        /// Wait until containers stop, then print their exit codes
        Wait(container::WaitArgs) => container::wait, Nothing;
    }
}

verbs! {
    /// Verbs of `image`.
    ImageVerb {
        /// Build an image from a Dockerfile
        Build(build::BuildArgs) => build::build, UserNamespace;

        /// Show how an image was made
        History(image::HistoryArgs) => image::history, Nothing;

        /// Make an image of a tar of a file system
        Import(archive::ImportArgs) => archive::import, UserNamespace;

        /// Show everything about images, as JSON
        Inspect(image::ImageInspectArgs) => image::image_inspect, Nothing;

        /// Read images from an archive
        Load(archive::LoadArgs) => archive::load, UserNamespace;

        /// List images
        #[command(visible_alias = "list")]
        Ls(image::ImagesArgs) => image::images, Nothing;

        /// Remove images that nothing uses
        Prune(prune::ImageArgs) => prune::images, UserNamespace;

        /// Fetch an image from a registry
        Pull(registry::PullArgs) => registry::pull, UserNamespace;

        /// Send an image to a registry
        Push(registry::PushArgs) => registry::push, Nothing;

        /// Remove images
        #[command(visible_aliases = ["remove", "rmi"])]
        Rm(image::RmiArgs) => image::rmi, UserNamespace;

        /// Write images to a tar archive
        Save(archive::SaveArgs) => archive::save, Nothing;

        /// Give an image another name
        Tag(image::TagArgs) => image::tag, Nothing;
    }
}

verbs! {
    /// Verbs of `container`.
    ContainerVerb {
        /// Show a running container's streams, and give it input
        Attach(container::AttachArgs) => container::attach, Nothing;

        /// Make a new image from a container's changes
        Commit(container::CommitArgs) => container::commit, Nothing;

        /// Copy files into a container or out of it
        Cp(container::CpArgs) => container::cp, Nothing;

        /// Create a container without starting it
        Create(container::CreateArgs) => container::create, UserNamespace, 125;

        /// Show what a container changed of its image's files
        Diff(container::DiffArgs) => container::diff, UserNamespace;

        /// Run another program in a running container
        Exec(container::ExecArgs) => container::exec, Nothing, 125;

        /// Say by the exit code whether there is such a container
        Exists(container::ExistsArgs) => container::exists, Nothing, 125;

        /// Write a container's file system to a tar
        Export(archive::ExportArgs) => archive::export, UserNamespace;

        /// Show everything about containers, as JSON
        Inspect(container::InspectArgs) => container::inspect, Nothing;

        /// Send a signal to running containers
        Kill(container::KillArgs) => container::kill, Nothing;

        /// Show what a container has written
        Logs(container::LogsArgs) => container::logs, Nothing;

        /// List containers
        #[command(visible_aliases = ["list", "ps"])]
        Ls(container::PsArgs) => container::ps, Nothing;

        /// Remove containers that do not run
        Prune(container::PruneArgs) => container::prune, UserNamespace;

        /// Make the files of stopped containers reachable under a path
        Mount(container::MountArgs) => container::mount, Nothing;

        /// Hold the processes of containers still
        Pause(container::PauseArgs) => container::pause, Nothing;

        /// Show which ports of a container are reachable, and how
        Port(container::PortArgs) => container::port, Nothing;

        /// Rename a container
        Rename(container::RenameArgs) => container::rename, Nothing;

        /// Stop containers and start them again
        Restart(container::RestartArgs) => container::restart, UserNamespace;

        /// Remove containers
        #[command(visible_alias = "remove")]
        Rm(container::RmArgs) => container::rm, UserNamespace;

        /// Create and run a new container from an image
        Run(container::RunArgs) => container::run, UserNamespace, 125;

        /// Start stopped containers
        Start(container::StartArgs) => container::start, UserNamespace;

        /// Show what running containers use: processor, memory, network, disks
        Stats(container::StatsArgs) => container::stats, Nothing;

        /// Stop running containers
        Stop(container::StopArgs) => container::stop, Nothing;

        /// Show the processes of a container
        Top(container::TopArgs) => container::top, Nothing;

        /// Undo what mount did
        #[command(visible_alias = "unmount")]
        Umount(container::UmountArgs) => container::umount, Nothing;

        /// Let paused containers go on
        Unpause(container::PauseArgs) => container::unpause, Nothing;

        /// Change the limits and the restart policy of containers
        Update(container::UpdateArgs) => container::update, Nothing;

        /// Wait until containers stop, then print their exit codes
        Wait(container::WaitArgs) => container::wait, Nothing;
    }
}

verbs! {
    /// Verbs of `manifest`.
    ManifestVerb {
        /// Add images to an index
        Add(manifest::AddArgs) => manifest::add, Nothing;

        /// Change what an index says of an image, or of itself
        Annotate(manifest::AnnotateArgs) => manifest::annotate, Nothing;

        /// Make an index of images
        Create(manifest::CreateArgs) => manifest::create, Nothing;

        /// Say by the exit code whether there is such an index
        Exists(manifest::ExistsArgs) => manifest::exists, Nothing;

        /// Show a manifest or index, of a registry without pulling it
        Inspect(manifest::InspectArgs) => manifest::inspect, Nothing;

        /// Send an index and its images to a registry
        Push(manifest::PushArgs) => manifest::push, Nothing;

        /// Take an image out of an index
        Remove(manifest::RemoveArgs) => manifest::remove, Nothing;

        /// Remove indexes
        Rm(manifest::RmArgs) => manifest::rm, UserNamespace;
    }
}

verbs! {
    /// Verbs of `volume`.
    VolumeVerb {
        /// Create a volume
        Create(volume::CreateArgs) => volume::create, Quietly;

        /// Say by the exit code whether there is such a volume
        Exists(volume::ExistsArgs) => volume::exists, Nothing;

        /// Write a volume's files to a tar
        Export(volume::ExportArgs) => volume::export, UserNamespace;

        /// Bring the files of a tar into a volume
        Import(volume::ImportArgs) => volume::import, UserNamespace;

        /// Show everything about volumes, as JSON
        Inspect(volume::InspectArgs) => volume::inspect, Nothing;

        /// List volumes
        #[command(visible_alias = "list")]
        Ls(volume::LsArgs) => volume::ls, Nothing;

        /// Remove volumes that no container uses
        Prune(volume::PruneArgs) => volume::prune, UserNamespace;

        /// Remove volumes
        #[command(visible_alias = "remove")]
        Rm(volume::RmArgs) => volume::rm, UserNamespace;
    }
}

verbs! {
    /// Verbs that come last in the help.
    ToolVerb {
        /// Print a completion script for a shell
        Completion(system::CompletionArgs) => system::completion, Nothing;

        /// Check this host and say how to fix what is missing
        Doctor(system::DoctorArgs) => system::doctor, Quietly;

        /// Show facts about this host and the store
        Info(system::InfoArgs) => system::info, Quietly;

        /// Copy the images of another tool's store: `import-store containers-storage`
        ImportStore(import_store::ImportStoreArgs) => import_store::import_store, Nothing;

        /// Write the manual pages
        #[command(hide = true)]
        InternalMan(man::ManArgs) => man::man, Nothing;

        /// Run a program of the host in the user namespace of the containers
        Unshare(container::UnshareArgs) => container::unshare, UserNamespace, 125;

        /// Show the version
        Version(system::VersionArgs) => system::version, Nothing;
    }
}

verbs! {
    /// Verbs of `system`.
    SystemVerb {
        /// Check that everything in the store is as it should be
        Check(check::CheckArgs) => check::check, UserNamespace, 125;

        /// Show what takes how much room
        Df(disk::DfArgs) => disk::df, Quietly;

        /// Check this host and say how to fix what is missing
        Doctor(system::DoctorArgs) => system::doctor, Quietly;

        /// Show what happens to containers, images and volumes
        Events(container::EventsArgs) => container::events, Nothing;

        /// Show facts about this host and the store
        Info(system::InfoArgs) => system::info, Quietly;

        /// Remove everything that nothing uses: containers, images, build cache
        Prune(prune::SystemArgs) => prune::system, UserNamespace;

        /// Remove the store and everything in it
        Reset(reset::ResetArgs) => reset::reset, UserNamespace;

        /// Let other users read the images of this store
        Share(import_store::ShareArgs) => import_store::share, UserNamespace;
    }
}

/// Every verb.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
#[allow(clippy::large_enum_variant, reason = "there is one value, made once")]
pub(super) enum Verb {
    #[command(flatten)]
    Plain(PlainVerb),
    /// Manage images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Manage containers
    #[command(subcommand)]
    Container(ContainerVerb),
    /// Manage indexes of images for several platforms
    #[command(subcommand)]
    Manifest(ManifestVerb),
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Look at this host and the store
    #[command(subcommand)]
    System(SystemVerb),
    /// Build images and manage the build cache
    #[command(subcommand, alias = "buildx")]
    Builder(BuilderVerb),
    #[command(flatten)]
    Tool(ToolVerb),
}

verbs! {
    /// Verbs of `builder` and `buildx`.
    BuilderVerb {
        /// Build an image from a Dockerfile
        #[command(alias = "b")]
        Build(build::BuildArgs) => build::build, UserNamespace;

        /// Show what the build cache takes
        Du(disk::DuArgs) => disk::du, Quietly;

        /// Remove build cache
        Prune(prune::CacheArgs) => prune::cache, UserNamespace;

        /// Work on images in registries
        Imagetools(imagetools::ImagetoolsArgs) => imagetools::imagetools, Nothing;
    }
}

macro_rules! each_table {
    ($self:expr, $verb:ident => $result:expr) => {
        match $self {
            Verb::Plain($verb) => $result,
            Verb::Image($verb) => $result,
            Verb::Container($verb) => $result,
            Verb::Manifest($verb) => $result,
            Verb::Volume($verb) => $result,
            Verb::System($verb) => $result,
            Verb::Builder($verb) => $result,
            Verb::Tool($verb) => $result,
        }
    };
}

impl Verb {
    /// What it needs before it runs.
    pub(super) fn needs(&self) -> Needs {
        each_table!(self, verb => verb.needs())
    }

    /// The user namespace to enter: a container may need another than the usual one.
    pub(super) fn entry(&self, cx: &Context) -> Entry {
        match self {
            Self::Plain(PlainVerb::Run(args)) | Self::Container(ContainerVerb::Run(args)) => args.entry(cx),
            Self::Plain(PlainVerb::Create(args)) | Self::Container(ContainerVerb::Create(args)) => {
                args.entry(cx)
            }
            Self::Plain(PlainVerb::Start(args)) | Self::Container(ContainerVerb::Start(args)) => {
                args.entry(cx)
            }
            Self::Plain(PlainVerb::Restart(args)) | Self::Container(ContainerVerb::Restart(args)) => {
                args.entry(cx)
            }
            Self::Plain(PlainVerb::Diff(args)) | Self::Container(ContainerVerb::Diff(args)) => args.entry(cx),
            Self::Plain(PlainVerb::Export(args)) | Self::Container(ContainerVerb::Export(args)) => {
                args.entry(cx)
            }
            _ => Entry::Usual,
        }
    }

    /// The exit code of our own failures.
    pub(super) fn failure_code(&self) -> u8 {
        each_table!(self, verb => verb.failure_code())
    }

    /// Run it.
    pub(super) fn run(self, cx: &mut Context, ui: &mut Ui) -> CmdResult {
        each_table!(self, verb => verb.run(cx, ui))
    }
}
