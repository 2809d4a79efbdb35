//! The flags that `run` and `create` share, and what they ask for.

use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};

use super::health_flags::HealthFlags;
use super::limit_flags::NewLimitFlags;
use super::network_flags::NetworkFlags;
use super::other_flags::OtherFlags;
use crate::cmd::registry::PolicyArg;
use crate::context::Context;
use crate::oci::Platform;
use crate::ops::container::mounts::{self, Mount};
use crate::ops::container::{
    Error, HostOptions, ImageVolumes, Overrides, RestartPolicy, UserNamespace, names, values,
};
use crate::ops::create::Request;
use crate::ops::enter::Entry;
use crate::ui::Ui;

/// What docker lets one say about a new container.
#[derive(Debug, Args)]
pub(super) struct ContainerFlags {
    /// Keep standard input open
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    pub(super) interactive: bool,
    /// Give the program a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    pub(super) tty: bool,
    /// Attach only to these streams: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// When to start the program again: no, on-failure[:COUNT], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Remove the container and its anonymous volumes when it ends
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    pub(super) rm: bool,
    /// The container's name
    #[arg(long)]
    name: Option<String>,
    /// Remove a container that has the name already
    #[arg(long, requires = "name")]
    replace: bool,
    /// Set an environment variable; without a value the host's is taken
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a directory of the host, or a volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount what other containers mount
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// What the image's volumes become: bind (anonymous volumes), tmpfs, or nothing with ignore
    #[arg(long, value_name = "WHAT", default_value = "bind", hide_default_value = true)]
    image_volume: ImageVolumeArg,
    /// Mount something: type=bind|volume|tmpfs,source=…,target=…
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Give access to a device of the host
    #[arg(long, value_name = "PATH[:TARGET[:rwm]]")]
    device: Vec<String>,
    /// Where the program starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs the program: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Whom the user is inside: root (host), themselves with keep-id[:uid=UID,gid=GID]; or container:NAME
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Give the image's /etc/passwd a line for the user that --userns keep-id keeps
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    passwd: bool,
    /// Add groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Replace the image's entrypoint; empty clears it
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an annotation
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Name a port that the program listens on
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Make the root read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    read_only: bool,
    /// Add capabilities
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Drop capabilities
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// Lift every restriction that the user namespace allows to lift
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    privileged: bool,
    /// Security options: no-new-privileges, seccomp=unconfined, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Run a small init that reaps processes and forwards signals
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    init: bool,
    /// Set a resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// System V IPC: private or host
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name namespace: private or host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// The log: json-file or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// The signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds to wait before a stop kills
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value = "missing")]
    pull: PolicyArg,
    /// The platform of the image
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Write the container's id to a file that does not exist yet
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub(super) quiet: bool,
    #[command(flatten)]
    network: NetworkFlags,
    #[command(flatten)]
    health: HealthFlags,
    #[command(flatten)]
    limits: NewLimitFlags,
    #[command(flatten)]
    other: OtherFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image, the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    words: Vec<String>,
}

/// When and how the container will be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    /// Now, in the foreground.
    Foreground,
    /// Now, in the background.
    Background,
    /// By `start`.
    Later,
}

/// `--image-volume`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ImageVolumeArg {
    /// Anonymous volumes
    #[value(alias = "anonymous")]
    Bind,
    /// Memory
    Tmpfs,
    /// Nothing
    Ignore,
}

impl From<ImageVolumeArg> for ImageVolumes {
    fn from(arg: ImageVolumeArg) -> Self {
        match arg {
            ImageVolumeArg::Bind => Self::Anonymous,
            ImageVolumeArg::Tmpfs => Self::Tmpfs,
            ImageVolumeArg::Ignore => Self::Ignore,
        }
    }
}

/// Read a file that a flag names.
fn read(flag: &'static str, cwd: &Path, path: &Path) -> Result<String, Error> {
    let path = cwd.join(path);
    std::fs::read_to_string(&path).map_err(|source| Error::File { flag, path, source })
}

impl ContainerFlags {
    /// What the flags ask for; warnings are said on the way.
    pub(super) fn request(self, cx: &Context, ui: &mut Ui, starts: Starts) -> Result<Request, Error> {
        let detach = starts == Starts::Background;
        if let Some(warning) = self.other.judge()? {
            ui.warn(warning);
        }
        if let Some(name) = &self.name {
            names::check(name)?;
        }
        let attach = values::attach(&self.attach)?;
        let health = self.health.check()?;
        if detach && attach.is_some() {
            return Err(Error::Conflict("--attach", "--detach"));
        }
        let mounts = self.mounts(cx)?;
        let mut host = self.host()?;
        host.user_namespace = self.user_namespace(cx)?;
        self.network.apply(cx, &mut host, !self.expose.is_empty(), |remark| ui.note(remark))?;
        let mut words = self.words.into_iter();
        let image = words.next().unwrap_or_default();
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(values::env_file(&read("--env-file", &cx.cwd, file)?, &cx.env)?);
        }
        for text in &self.env {
            env.push(values::env(text, &cx.env)?);
        }
        let mut labels = std::collections::BTreeMap::new();
        for file in &self.label_file {
            values::label_file(&read("--label-file", &cx.cwd, file)?, &mut labels)?;
        }
        for text in &self.label {
            labels.extend([values::label(text)?]);
        }
        if let Some(signal) = &self.stop_signal {
            crate::ops::signal::number(signal)?;
        }
        let mut expose = Vec::new();
        for port in &self.expose {
            expose.extend(values::exposed_ports(port)?);
        }
        let overrides = Overrides {
            entrypoint: self.entrypoint.as_deref().map(values::entrypoint),
            command: words.collect(),
            env,
            user: self.user,
            working_dir: self.workdir,
            hostname: self.network.hostname,
            labels,
            expose,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            mounts,
            volumes_from: self.volumes_from,
            image_volumes: self.image_volume.into(),
            tty: self.tty,
            interactive: self.interactive,
            detach,
            attach,
            health,
            host,
        };
        Ok(Request {
            image,
            name: self.name,
            replace: self.replace,
            pull: self.pull.into(),
            platform: self.platform.or_else(|| cx.var("DOCKER_DEFAULT_PLATFORM")?.parse().ok()),
            cidfile: self.cidfile.map(|path| cx.cwd.join(path)),
            overrides,
        })
    }

    /// The user namespace to enter: that of the container whose network the new one is to have, or its own kind.
    pub(super) fn entry(&self, cx: &Context) -> Entry {
        if let Some(name) = self.network.mode.as_deref().and_then(|mode| mode.strip_prefix("container:")) {
            return Entry::Beside(name.to_owned());
        }
        // What is wrong with the value is told when the request is read.
        self.user_namespace(cx).map_or(Entry::Usual, |mode| Entry::of(&mode))
    }

    /// What `--userns` asks for; `$PODMAN_USERNS` is its default, as for podman's users.
    pub(super) fn user_namespace(&self, cx: &Context) -> Result<UserNamespace, Error> {
        let text = self.userns.as_deref().or(cx.var("PODMAN_USERNS")).unwrap_or_default();
        let mut mode = UserNamespace::parse(text, (cx.uid, cx.gid))?;
        if let UserNamespace::Keep { passwd, .. } = &mut mode {
            *passwd = self.passwd;
        }
        Ok(mode)
    }

    fn mounts(&self, cx: &Context) -> Result<Vec<Mount>, Error> {
        let mut all = Vec::new();
        for spec in &self.volume {
            all.push(mounts::volume_flag(spec, &cx.cwd)?);
        }
        for spec in &self.mount {
            all.push(mounts::mount_flag(spec, &cx.cwd)?);
        }
        for spec in &self.tmpfs {
            all.push(mounts::tmpfs_flag(spec)?);
        }
        for spec in &self.device {
            all.push(mounts::device_flag(spec)?);
        }
        Ok(all)
    }

    fn host(&self) -> Result<HostOptions, Error> {
        // Unknown capabilities are refused now and not when the container starts.
        crate::ops::capability::resolve(&self.cap_add, &self.cap_drop)?;
        let mut host = HostOptions {
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            read_only: self.read_only,
            init: self.init,
            auto_remove: self.rm,
            shm_size: self.shm_size.as_deref().map(|text| values::size("--shm-size", text)).transpose()?,
            group_add: self.group_add.clone(),
            ipc_host: shared("--ipc", self.ipc.as_deref(), &["private", "shareable"])?,
            uts_host: shared("--uts", self.uts.as_deref(), &["private"])?,
            cgroup_host: shared("--cgroupns", self.cgroupns.as_deref(), &["private"])?,
            restart: self.restart.as_deref().map(RestartPolicy::parse).transpose()?.unwrap_or_default(),
            ..HostOptions::default()
        };
        if host.auto_remove && host.restart != RestartPolicy::No {
            return Err(Error::Conflict("--restart", "--rm"));
        }
        if host.uts_host && self.network.hostname.is_some() {
            return Err(Error::Conflict("--uts=host", "--hostname"));
        }
        for option in &self.security_opt {
            host.security.add(option)?;
        }
        self.limits.apply(&mut host)?;
        for limit in &self.ulimit {
            host.ulimits.push(values::ulimit(limit)?);
        }
        for text in &self.annotation {
            host.annotations.extend([values::label(text)?]);
        }
        host.no_log = match self.log_driver.as_deref() {
            None | Some("json-file" | "k8s-file" | "local" | "") => false,
            Some("none") => true,
            Some(other) => {
                let flag = format!("--log-driver {other}");
                return Err(Error::NotAvailable { flag, why: "there are json-file and none".into() });
            }
        };
        Ok(host)
    }
}

fn bad(flag: &str, value: &str, why: &str) -> Error {
    Error::BadValue { flag: flag.into(), value: value.into(), why: why.into() }
}

/// Whether a namespace is the host's.
fn shared(flag: &str, mode: Option<&str>, own: &[&str]) -> Result<bool, Error> {
    match mode {
        None | Some("") => Ok(false),
        Some("host") => Ok(true),
        Some(mode) if own.contains(&mode) => Ok(false),
        Some(mode) => Err(bad(flag, mode, "there are host and private")),
    }
}
