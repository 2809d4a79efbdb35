//! What a container is: the image's config and the user's words merged once, at creation, exactly as docker does.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mounts::{self, Mount};
use super::network::{NetworkMode, Wishes};
use super::values::Ulimit;
use super::{Error, values};
use crate::oci::{ContainerConfig, Healthcheck};
use crate::runtime::cgroup::Limits;

/// Docker's default `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of `/dev/shm` when nothing else is said.
pub const DEFAULT_SHM: u64 = 64 << 20;

/// How to run a container: stored beside its record, read again at every start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Image and flags merged; what `commit` gives the new image.
    pub config: ContainerConfig,
    /// Host name; empty is the short id, or the host's own with `--network host`.
    pub hostname: String,
    /// A terminal of its own.
    pub tty: bool,
    /// Standard input is open.
    pub open_stdin: bool,
    /// Started in the background.
    pub detached: bool,
    /// Which of the three streams whoever starts it in the foreground gets; `None` is all of them.
    pub attach: Option<[bool; 3]>,
    /// Mounts beyond the usual, outer ones first.
    pub mounts: Vec<Mount>,
    /// What concerns the host.
    pub host: HostOptions,
}

/// The part of a container that is not the image's business (docker's `HostConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostOptions {
    /// The network.
    pub network: NetworkMode,
    /// What is asked of a network of its own.
    pub wishes: Wishes,
    /// Everything that the user namespace allows.
    pub privileged: bool,
    /// Added capabilities, as given.
    pub cap_add: Vec<String>,
    /// Dropped capabilities, as given.
    pub cap_drop: Vec<String>,
    /// The root cannot be written.
    pub read_only: bool,
    /// A reaper as pid 1.
    pub init: bool,
    /// Remove the container when it ends.
    pub auto_remove: bool,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Further groups, names or numbers.
    pub group_add: Vec<String>,
    /// `host:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<(String, String)>,
    /// Name servers instead of the host's.
    pub dns: Vec<String>,
    /// Search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options instead of the host's.
    pub dns_options: Vec<String>,
    /// The image's own `/etc/resolv.conf`.
    pub no_dns: bool,
    /// The image's own `/etc/hosts`.
    pub no_hosts: bool,
    /// The image's own `/etc/hostname`.
    pub no_hostname: bool,
    /// NIS domain name, and the rest of the container's full name.
    pub domainname: String,
    /// Security options.
    pub security: Security,
    /// The host's System V IPC and `/dev/shm`.
    pub ipc_host: bool,
    /// The host's name.
    pub uts_host: bool,
    /// The host's view of cgroups.
    pub cgroup_host: bool,
    /// Keep no log.
    pub no_log: bool,
    /// When the program is started again after its end.
    pub restart: RestartPolicy,
    /// What its cgroup limits.
    pub limits: Limits,
    /// Where a limit cannot be had the container is not started.
    pub strict_limits: bool,
    /// `--cgroup-parent`
    pub cgroup_parent: String,
    /// `--oom-score-adj`
    pub oom_score_adj: Option<i32>,
    /// Annotations, kept for inspect.
    pub annotations: BTreeMap<String, String>,
    /// The user namespace.
    #[serde(skip_serializing_if = "UserNamespace::is_usual")]
    pub user_namespace: UserNamespace,
}

/// `--userns`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// That of all containers: the user is root inside.
    #[default]
    Usual,
    /// The user is inside who they are outside, or these.
    Keep {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// The program runs as that user, as nobody else was asked for.
        runs: bool,
        /// The image's `/etc/passwd` gets a line for it.
        passwd: bool,
    },
    /// That of another container, by its id.
    Container(String),
}

impl UserNamespace {
    fn is_usual(&self) -> bool {
        *self == Self::Usual
    }

    /// Read the flag's value; `own` is who the user is outside.
    ///
    /// # Errors
    /// [`Error::BadValue`], [`Error::NotAvailable`]
    pub fn parse(text: &str, own: (u32, u32)) -> Result<Self, Error> {
        let (mode, options) = text.split_once(':').map_or((text, None), |(mode, rest)| (mode, Some(rest)));
        let bad = |why: &str| Err(values::bad("--userns", text, why));
        let refuse =
            |why: &str| Err(Error::NotAvailable { flag: format!("--userns {text}"), why: why.into() });
        match (mode, options) {
            ("" | "host", None) => Ok(Self::Usual),
            ("keep-id", _) if own.0 == 0 => {
                refuse("root is root in its containers: it is for ordinary users")
            }
            ("keep-id", options) => {
                let (mut uid, mut gid) = own;
                for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
                    let (key, value) = option.split_once('=').unwrap_or((option, ""));
                    let id = value.parse::<u32>().ok().filter(|id| i32::try_from(*id).is_ok());
                    match (key, id) {
                        ("uid", Some(id)) => uid = id,
                        ("gid", Some(id)) => gid = id,
                        ("size", Some(_)) => return refuse("all the ids that the user has are given"),
                        ("uid" | "gid" | "size", None) => return bad("an id is a number below 2147483648"),
                        _ => return bad("expected keep-id[:uid=UID,gid=GID]"),
                    }
                }
                if uid == 0 || gid == 0 {
                    return bad("without --userns the user is root in the container");
                }
                Ok(Self::Keep { uid, gid, runs: true, passwd: true })
            }
            ("container", Some(name)) if !name.is_empty() => Ok(Self::Container(name.into())),
            ("nomap" | "auto" | "private" | "ns" | "split", _) => {
                refuse("there are host, keep-id[:uid=UID,gid=GID] and container:NAME")
            }
            _ => bad("there are host, keep-id[:uid=UID,gid=GID] and container:NAME"),
        }
    }

    /// As it was given, for inspect.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Usual => String::new(),
            Self::Keep { uid, gid, .. } => format!("keep-id:uid={uid},gid={gid}"),
            Self::Container(id) => format!("container:{id}"),
        }
    }

    /// Whom the invoking user is inside, where that is not root.
    #[must_use]
    pub fn kept(&self) -> Option<(u32, u32)> {
        match self {
            Self::Keep { uid, gid, .. } => Some((*uid, *gid)),
            Self::Usual | Self::Container(_) => None,
        }
    }
}

/// `--restart`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a failure, so many times; `None` is without end.
    OnFailure(Option<u32>),
    /// Whenever it ends, until somebody stops it.
    Always,
    /// The same: they differ only where something starts containers with the machine.
    UnlessStopped,
}

impl RestartPolicy {
    /// Read the flag's value.
    ///
    /// # Errors
    /// [`Error::BadValue`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
        let bad = |why: &str| values::bad("--restart", text, why);
        match (name, count) {
            ("" | "no", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            ("on-failure", None | Some("" | "0")) => Ok(Self::OnFailure(None)),
            ("on-failure", Some(count)) => match count.parse::<u32>() {
                Ok(count) => Ok(Self::OnFailure(Some(count))),
                Err(_) => Err(bad("the maximum retry count must be a whole number that is not negative")),
            },
            ("no" | "always" | "unless-stopped", Some(_)) => {
                Err(bad("only on-failure takes a maximum retry count"))
            }
            _ => Err(bad("there are no, on-failure[:COUNT], always and unless-stopped")),
        }
    }

    /// Docker's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How many restarts there may be.
    #[must_use]
    pub fn most(self) -> Option<u32> {
        match self {
            Self::OnFailure(most) => most,
            _ => None,
        }
    }

    /// Whether a program that ended with `code` after so many restarts is started again.
    #[must_use]
    pub fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

/// `--image-volume`: what the image's own volumes become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageVolumes {
    /// Anonymous volumes.
    #[default]
    Anonymous,
    /// Memory.
    Tmpfs,
    /// Nothing.
    Ignore,
}

/// `--security-opt`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `no-new-privileges`
    pub no_new_privileges: bool,
    /// `seccomp=unconfined`
    pub seccomp_unconfined: bool,
    /// `systempaths=unconfined`
    pub system_paths_unconfined: bool,
    /// As given, for inspect.
    pub given: Vec<String>,
}

/// What the command line says about a new container, values parsed, nothing merged yet.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--entrypoint`; an empty list clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// The words after the image.
    pub command: Vec<String>,
    /// `KEY=value`, or `KEY` to take the image's away.
    pub env: Vec<String>,
    /// `--user`
    pub user: Option<String>,
    /// `--workdir`
    pub working_dir: Option<String>,
    /// `--hostname`
    pub hostname: Option<String>,
    /// `--label`, `--label-file`
    pub labels: BTreeMap<String, String>,
    /// `--expose`, as config keys.
    pub expose: Vec<String>,
    /// `--stop-signal`
    pub stop_signal: Option<String>,
    /// `--stop-timeout`
    pub stop_timeout: Option<i64>,
    /// `-v`, `--mount`, `--tmpfs`, `--device`
    pub mounts: Vec<Mount>,
    /// `--volumes-from`, as given.
    pub volumes_from: Vec<String>,
    /// `--image-volume`
    pub image_volumes: ImageVolumes,
    /// `--tty`
    pub tty: bool,
    /// `--interactive`
    pub interactive: bool,
    /// `--detach`
    pub detach: bool,
    /// `--attach`
    pub attach: Option<[bool; 3]>,
    /// `--health-*`; zero and empty inherit from the image.
    pub health: Option<Healthcheck>,
    /// The rest.
    pub host: HostOptions,
}

impl Security {
    /// Take one `--security-opt`.
    ///
    /// # Errors
    /// [`Error::BadValue`] or [`Error::NotAvailable`]
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let (key, value) =
            text.split_once(['=', ':']).map_or((text, None), |(key, value)| (key, Some(value)));
        let refuse =
            |why: &str| Err(Error::NotAvailable { flag: format!("--security-opt {text}"), why: why.into() });
        match (key, value) {
            ("no-new-privileges", None | Some("true")) => self.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => self.no_new_privileges = false,
            ("seccomp", Some("unconfined")) => self.seccomp_unconfined = true,
            ("seccomp", Some("builtin")) => self.seccomp_unconfined = false,
            ("seccomp", Some(_)) => return refuse("only `unconfined` and the built-in profile are offered"),
            ("systempaths", Some("unconfined")) => self.system_paths_unconfined = true,
            // Neither AppArmor nor SELinux confine a container here: there is nothing to switch off.
            ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {}
            ("apparmor" | "label" | "mask" | "unmask" | "proc-opts", _) => {
                return refuse("the container is confined by capabilities, seccomp and namespaces only");
            }
            _ => return Err(values::bad("--security-opt", text, "this option is not known")),
        }
        self.given.push(text.into());
        Ok(())
    }
}

/// Merge an image's config with the user's words.
///
/// # Errors
/// When there is nothing to run, two mounts collide, or an image asks for an impossible volume.
pub fn merge(image: &ContainerConfig, user: Overrides) -> Result<ContainerSpec, Error> {
    let mut config = image.clone();
    // Triggers are for builds on the image; docker's containers do not carry them either.
    config.on_build = Vec::new();
    config.args_escaped = false;
    merge_command(&mut config, user.entrypoint, user.command)?;
    config.env = merge_env(user.env, &image.env);
    let mut host = user.host;
    if let Some(name) = user.user {
        config.user = name;
        if let UserNamespace::Keep { runs, .. } = &mut host.user_namespace {
            *runs = false;
        }
    }
    if let Some(dir) = user.working_dir {
        let absolute = mounts::clean_target(&dir).or_else(|| dir.starts_with('/').then(|| "/".to_owned()));
        config.working_dir = absolute
            .ok_or_else(|| values::bad("--workdir", &dir, "it must be an absolute path of the container"))?;
    }
    config.labels.extend(user.labels);
    config.exposed_ports.extend(user.expose.into_iter().map(|port| (port, Default::default())));
    let published = host.wishes.ports.iter().map(|port| (port.key(), Default::default()));
    config.exposed_ports.extend(published);
    config.stop_signal = user.stop_signal.or(config.stop_signal);
    config.stop_timeout = user.stop_timeout.or(config.stop_timeout);
    config.healthcheck = merge_health(user.health, config.healthcheck);
    let mut mounts = user.mounts;
    add_image_volumes(&config, user.image_volumes, &mut mounts)?;
    mounts::arrange(&mut mounts)?;
    Ok(ContainerSpec {
        config,
        hostname: user.hostname.unwrap_or_default(),
        tty: user.tty,
        open_stdin: user.interactive,
        detached: user.detach,
        attach: user.attach,
        mounts,
        host,
    })
}

/// What the user leaves out of a health check is the image's.
fn merge_health(user: Option<Healthcheck>, image: Option<Healthcheck>) -> Option<Healthcheck> {
    let (Some(user), have) = (user, image.clone().unwrap_or_default()) else { return image };
    let or = |user: i64, image: i64| if user == 0 { image } else { user };
    Some(Healthcheck {
        test: if user.test.is_empty() { have.test } else { user.test },
        interval: or(user.interval, have.interval),
        timeout: or(user.timeout, have.timeout),
        start_period: or(user.start_period, have.start_period),
        start_interval: or(user.start_interval, have.start_interval),
        retries: or(user.retries, have.retries),
    })
}

/// An entrypoint of the user's drops the image's command; without one the image's command serves when the user gives
/// none.
fn merge_command(
    config: &mut ContainerConfig,
    entrypoint: Option<Vec<String>>,
    command: Vec<String>,
) -> Result<(), Error> {
    match entrypoint {
        Some(entrypoint) => {
            config.entrypoint = Some(entrypoint).filter(|list| !list.is_empty());
            config.cmd = Some(command).filter(|list| !list.is_empty());
        }
        None if !command.is_empty() => config.cmd = Some(command),
        None => {}
    }
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if empty(&config.entrypoint) && empty(&config.cmd) { Err(Error::NoCommand) } else { Ok(()) }
}

/// The user's variables first, then those of the image that the user does not name; a bare name takes one away.
fn merge_env(user: Vec<String>, image: &[String]) -> Vec<String> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut merged: Vec<String> = Vec::new();
    // The last of the user's definitions of one name counts.
    for pair in user {
        match merged.iter().position(|have| name(have) == name(&pair)) {
            Some(index) => merged[index] = pair,
            None => merged.push(pair),
        }
    }
    for pair in image {
        if pair.contains('=') && !merged.iter().any(|have| name(have) == name(pair)) {
            merged.push(pair.clone());
        }
    }
    merged.retain(|pair| pair.contains('='));
    merged
}

/// The image's volumes become anonymous ones, or what the user wants, unless the user mounts something there.
fn add_image_volumes(
    config: &ContainerConfig,
    become_what: ImageVolumes,
    mounts: &mut Vec<Mount>,
) -> Result<(), Error> {
    for path in config.volumes.keys() {
        let rooted = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
        let target = mounts::clean_target(&rooted).ok_or_else(|| Error::ImageVolume(path.clone()))?;
        let beneath = |dir: &str| target == dir || target.starts_with(&format!("{dir}/"));
        if beneath("/proc") || beneath("/sys") || target == "/dev" {
            return Err(Error::ImageVolume(path.clone()));
        }
        if mounts.iter().any(|mount| mount.target == target) {
            continue;
        }
        match become_what {
            ImageVolumes::Anonymous => mounts.push(Mount::anonymous(target)),
            ImageVolumes::Tmpfs => mounts.push(mounts::tmpfs_flag(&format!("{target}:exec"))?),
            ImageVolumes::Ignore => {}
        }
    }
    Ok(())
}

impl ContainerSpec {
    /// Who runs the program, as `--user` or `USER` says it.
    #[must_use]
    pub fn user(&self) -> String {
        match self.host.user_namespace {
            UserNamespace::Keep { uid, gid, runs: true, .. } => format!("{uid}:{gid}"),
            _ => self.config.user.clone(),
        }
    }

    /// The program and its arguments.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let both = [&self.config.entrypoint, &self.config.cmd];
        both.into_iter().flatten().flatten().cloned().collect()
    }

    /// The environment of the program; `HOME` is the runtime user's and comes at start.
    #[must_use]
    pub fn environment(&self, hostname: &str) -> Vec<String> {
        let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
        if self.tty {
            env.push("TERM=xterm".into());
        }
        set_env(&mut env, &self.config.env);
        env
    }

    /// The host name, given the container's id and the host's own name.
    #[must_use]
    pub fn host_name(&self, id: &str, host: &str) -> String {
        match self.host.network {
            _ if !self.hostname.is_empty() => self.hostname.clone(),
            _ if self.host.uts_host => host.into(),
            NetworkMode::Host => host.into(),
            _ => id.chars().take(12).collect(),
        }
    }

    /// The names of the volumes made for this container alone.
    pub fn anonymous_volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.kind {
            mounts::MountKind::Volume { name, anonymous: true, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}

/// Put variables into an environment: in place when the name is there, else at the end.
pub fn set_env(env: &mut Vec<String>, more: &[String]) {
    for pair in more {
        let Some((name, _)) = pair.split_once('=') else { continue };
        let same = |have: &String| have.split_once('=').is_some_and(|(key, _)| key == name);
        match env.iter().position(same) {
            Some(index) => env[index].clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ContainerConfig {
        ContainerConfig {
            entrypoint: Some(list(entrypoint)).filter(|l| !l.is_empty()),
            cmd: Some(list(cmd)).filter(|l| !l.is_empty()),
            ..Default::default()
        }
    }

    #[test]
    fn entrypoint_and_command_follow_docker() {
        for (image, entrypoint, command, args) in [
            (image(&["e"], &["c"]), None, &[][..], Some(&["e", "c"][..])),
            (image(&["e"], &["c"]), None, &["x", "y"], Some(&["e", "x", "y"])),
            (image(&["e"], &["c"]), Some(&["n"][..]), &[], Some(&["n"])),
            (image(&["e"], &["c"]), Some(&["n"]), &["x"], Some(&["n", "x"])),
            (image(&["e"], &["c"]), Some(&[]), &["x"], Some(&["x"])),
            (image(&["e"], &["c"]), Some(&[]), &[], None),
            (image(&[], &["c"]), None, &[], Some(&["c"])),
            (image(&[], &[]), None, &[], None),
            (image(&["e"], &[]), None, &[], Some(&["e"])),
        ] {
            let user =
                Overrides { entrypoint: entrypoint.map(list), command: list(command), ..Default::default() };
            let merged = merge(&image, user);
            assert_eq!(merged.ok().map(|spec| spec.args()), args.map(list));
        }
    }

    #[test]
    fn environments_merge_as_docker_merges_them() {
        let mut image = image(&[], &["c"]);
        image.env = list(&["PATH=/p", "A=1", "B=2", "bad"]);
        let user = Overrides { env: list(&["A=0", "C=3", "A=9", "B"]), tty: true, ..Default::default() };
        let spec = merge(&image, user).unwrap();
        assert_eq!(spec.config.env, ["A=9", "C=3", "PATH=/p"]);
        assert_eq!(spec.environment("h"), ["PATH=/p", "HOSTNAME=h", "TERM=xterm", "A=9", "C=3"]);
    }

    #[test]
    fn image_volumes_give_way_to_mounts_and_must_be_sane() {
        let mut config = image(&[], &["c"]);
        config.volumes.insert("/data/".into(), Default::default());
        config.volumes.insert("logs".into(), Default::default());
        let mount = mounts::volume_flag("/srv:/data", std::path::Path::new("/")).unwrap();
        let spec = merge(&config, Overrides { mounts: vec![mount], ..Default::default() }).unwrap();
        let targets: Vec<&str> = spec.mounts.iter().map(|m| m.target.as_str()).collect();
        assert_eq!(targets, ["/data", "/logs"]);
        assert_eq!(spec.anonymous_volumes().count(), 1);
        for bad in ["/", "../..", "/proc", "/proc/x", "/sys", "/dev", ""] {
            let mut config = image(&[], &["c"]);
            config.volumes.insert(bad.into(), Default::default());
            assert!(merge(&config, Overrides::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names() {
        let mut spec = ContainerSpec::default();
        let id = "0123456789abcdef";
        assert_eq!(spec.host_name(id, "box"), "0123456789ab");
        spec.host.network = NetworkMode::Host;
        assert_eq!(spec.host_name(id, "box"), "box");
        spec.hostname = "mine".into();
        assert_eq!(spec.host_name(id, "box"), "mine");
    }

    #[test]
    fn security_options() {
        let mut security = Security::default();
        for good in ["no-new-privileges", "no-new-privileges:true", "seccomp=unconfined", "label=disable"] {
            security.add(good).unwrap();
        }
        assert!(security.no_new_privileges && security.seccomp_unconfined);
        for bad in ["seccomp=/x.json", "apparmor=p", "odd", "no-new-privileges=odd"] {
            assert!(security.add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_stored_reads_back() {
        let mut image = image(&["e"], &["c"]);
        image.volumes.insert("/v".into(), Default::default());
        let spec = merge(&image, Overrides::default()).unwrap();
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<ContainerSpec>(value).unwrap(), spec);
    }
}
