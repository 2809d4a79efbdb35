//! From a container's description to a runtime plan: pure, so that tests can look at it.

use std::path::PathBuf;

use super::mounts::{Mount, MountKind};
use super::network::NetworkMode;
use super::spec::{ContainerSpec, DEFAULT_SHM, HostOptions, set_env};
use super::{Error, etc, values};
use crate::runtime::{self, BindOptions, Capabilities, MountOp, Namespaces, Network, Plan, Seccomp};
use crate::storage::Backing;

/// What a plan needs to know beyond the description.
pub struct Facts<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The host's name.
    pub host_name: &'a str,
    /// The host's `/etc/resolv.conf`.
    pub resolv_conf: &'a str,
    /// The host's `/etc/hosts`.
    pub hosts: &'a str,
    /// The container whose network it has, with that one's names and resolver, and its id.
    pub name_giver: Option<(&'a ContainerSpec, &'a str)>,
    /// What stands behind a volume.
    pub volume: &'a dyn Fn(&str) -> Backing,
}

impl Facts<'_> {
    /// The container's host name.
    fn hostname(&self, spec: &ContainerSpec) -> String {
        let (spec, id) = self.name_giver.unwrap_or((spec, self.id));
        spec.host_name(id, self.host_name)
    }
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who the program runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups, `gid` included.
    pub groups: Vec<u32>,
    /// `HOME`.
    pub home: String,
}

/// The plan of a container's main program.
///
/// # Errors
/// When a capability is unknown.
pub fn plan(spec: &ContainerSpec, facts: &Facts<'_>, account: &Account) -> Result<Plan, Error> {
    let host = &spec.host;
    let hostname = facts.hostname(spec);
    let confined = !host.privileged;
    let mut plan = Plan {
        args: spec.args(),
        env: with_home(spec.environment(&hostname), account),
        cwd: cwd(&spec.config.working_dir),
        uid: account.uid,
        gid: account.gid,
        groups: account.groups.clone(),
        mounts: mounts(spec, facts, &hostname)?,
        read_only_root: host.read_only,
        devices: host.privileged,
        capabilities: capabilities(host)?,
        seccomp: seccomp(host),
        no_new_privileges: host.security.no_new_privileges,
        namespaces: namespaces(host),
        init: host.init,
        terminal: spec.tty,
        umask: host.umask,
        rlimits: host.ulimits.iter().map(values::Ulimit::kernel).collect(),
        ..Plan::default()
    };
    if confined {
        let security = &host.security;
        plan.masked_paths = runtime::default_masked_paths();
        plan.read_only_paths = runtime::default_read_only_paths();
        for paths in [&mut plan.masked_paths, &mut plan.read_only_paths] {
            paths.retain(|path| !security.leaves(path));
        }
    }
    plan.masked_paths.extend(host.security.mask.iter().cloned());
    if !host.uts_host {
        plan.hostname = hostname;
        plan.domainname.clone_from(&host.domainname);
    }
    Ok(plan)
}

/// The plan of a further program in a running container: who it runs as and what it may do, nothing else.
///
/// # Errors
/// When a capability is unknown.
pub fn exec_plan(spec: &ContainerSpec, facts: &Facts<'_>, account: &Account) -> Result<Plan, Error> {
    let hostname = facts.hostname(spec);
    Ok(Plan {
        args: spec.args(),
        env: with_home(spec.environment(&hostname), account),
        cwd: cwd(&spec.config.working_dir),
        uid: account.uid,
        gid: account.gid,
        groups: account.groups.clone(),
        capabilities: capabilities(&spec.host)?,
        seccomp: seccomp(&spec.host),
        no_new_privileges: spec.host.security.no_new_privileges,
        terminal: spec.tty,
        umask: spec.host.umask,
        ..Plan::default()
    })
}

fn cwd(dir: &str) -> String {
    // As docker cleans it. One that no path can be is left for the refusal.
    let rooted = format!("/{dir}");
    if dir.contains('\0') {
        rooted
    } else {
        super::mounts::clean_target(&rooted).unwrap_or_else(|| "/".into())
    }
}

/// `HOME` comes from the image's passwd file, which may hold anything: one that is no plain path is not used.
fn with_home(mut env: Vec<String>, account: &Account) -> Vec<String> {
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        let plain = account.home.starts_with('/') && !account.home.contains(char::is_control);
        let home = if plain { account.home.as_str() } else { "/" };
        set_env(&mut env, &[format!("HOME={home}")]);
    }
    env
}

/// The capabilities of the container's program.
///
/// # Errors
/// When a name is unknown.
pub fn capabilities(host: &HostOptions) -> Result<Capabilities, Error> {
    if host.privileged {
        return Ok(runtime::capability::all());
    }
    Ok(runtime::capability::resolve(&host.cap_add, &host.cap_drop)?)
}

fn seccomp(host: &HostOptions) -> Seccomp {
    if host.privileged || host.security.seccomp_unconfined { Seccomp::Unconfined } else { Seccomp::Default }
}

fn namespaces(host: &HostOptions) -> Namespaces {
    Namespaces {
        network: if host.network == NetworkMode::None { Network::None } else { Network::Host },
        ipc: !host.ipc_host,
        uts: !host.uts_host,
        cgroup: !host.cgroup_host,
    }
}

fn mounts(spec: &ContainerSpec, facts: &Facts<'_>, hostname: &str) -> Result<Vec<MountOp>, Error> {
    let taken = |target: &str| spec.mounts.iter().any(|mount| mount.target == target);
    let mut all = runtime::default_mounts(spec.host.shm_size.unwrap_or(DEFAULT_SHM));
    if spec.host.ipc_host {
        all.push(bind(PathBuf::from("/dev/shm"), "/dev/shm", false));
    }
    let naming = facts.name_giver.map_or(spec, |(giver, _)| giver);
    for (own, target, content) in [
        (!spec.host.no_dns, "/etc/resolv.conf", etc::resolv_conf(&naming.host, facts.resolv_conf)),
        (!spec.host.no_hosts, "/etc/hosts", etc::hosts(naming, facts.hosts, hostname)?),
        (!spec.host.no_hostname, "/etc/hostname", format!("{hostname}\n")),
    ] {
        if !own {
            continue;
        }
        all.push(MountOp::File {
            content: content.into(),
            target: target.into(),
            mode: 0o644,
            read_only: false,
        });
    }
    // The proc stays, below whatever the user wants there: what lies on it is checked to be one too.
    all.retain(|op| matches!(op, MountOp::Proc { .. }) || !taken(target_of(op)));
    all.extend(spec.mounts.iter().map(|mount| user_mount(mount, facts)));
    Ok(all)
}

fn target_of(op: &MountOp) -> &str {
    match op {
        MountOp::Bind { target, .. }
        | MountOp::File { target, .. }
        | MountOp::Proc { target }
        | MountOp::Sys { target }
        | MountOp::Dev { target, .. }
        | MountOp::Tmpfs { target, .. } => target,
    }
}

fn bind(source: PathBuf, target: &str, read_only: bool) -> MountOp {
    MountOp::Bind {
        source,
        target: target.into(),
        read_only,
        recursive: true,
        propagation: "rprivate".into(),
        options: BindOptions::default(),
    }
}

fn user_mount(mount: &Mount, facts: &Facts<'_>) -> MountOp {
    let target = mount.target.clone();
    match &mount.kind {
        MountKind::Bind { source } => MountOp::Bind {
            source: source.clone(),
            target,
            read_only: mount.read_only,
            recursive: !mount.non_recursive,
            propagation: if mount.propagation.is_empty() {
                "rprivate".into()
            } else {
                mount.propagation.clone()
            },
            options: BindOptions { beneath: None, no_exec: mount.no_exec, no_suid: mount.no_suid },
        },
        MountKind::Volume { name, subpath, .. } => volume(mount, (facts.volume)(name), subpath.clone()),
        MountKind::Tmpfs { options } => {
            let read_only = if mount.read_only { ",ro" } else { "" };
            MountOp::Tmpfs { target, options: format!("{options}{read_only}") }
        }
    }
}

/// A volume, where its options or the mount's forbid something.
fn volume(mount: &Mount, backing: Backing, beneath: Option<String>) -> MountOp {
    let target = mount.target.clone();
    let (source, all, read_only, no_exec) = match backing {
        Backing::Data { path, .. } => (path, true, false, false),
        Backing::Bind { path, recursive, read_only, no_exec } => (path, recursive, read_only, no_exec),
        Backing::Tmpfs { mut options } => {
            for (set, word) in
                [(mount.read_only, ",ro"), (mount.no_exec, ",noexec"), (mount.no_suid, ",nosuid")]
            {
                options.push_str(if set { word } else { "" });
            }
            return MountOp::Tmpfs { target, options };
        }
    };
    MountOp::Bind {
        source,
        target,
        read_only: read_only || mount.read_only,
        recursive: all,
        propagation: "rprivate".into(),
        options: BindOptions { beneath, no_exec: no_exec || mount.no_exec, no_suid: mount.no_suid },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::container::mounts::volume_flag;

    fn facts() -> Facts<'static> {
        Facts {
            id: "0123456789abcdef",
            host_name: "box",
            resolv_conf: "# c\nnameserver 10.0.0.1\nsearch a.example\noptions ndots:1\n",
            hosts: "127.0.0.1 localhost\n10.0.0.2 box\n",
            name_giver: None,
            volume: &|name| Backing::Data { path: PathBuf::from("/volumes").join(name), owner: None },
        }
    }

    #[test]
    fn homes_that_are_no_paths_are_not_used() {
        for (home, expected) in [("/root", "HOME=/root"), ("/a\nPATH=/evil", "HOME=/"), ("", "HOME=/")] {
            let account = Account { home: home.into(), ..Default::default() };
            assert_eq!(with_home(Vec::new(), &account), [expected]);
        }
        let env = vec!["HOME=/mine".to_owned()];
        assert_eq!(with_home(env.clone(), &Account::default()), env);
    }

    #[test]
    fn a_mount_of_the_user_replaces_ours_and_comes_last() {
        let mut spec = ContainerSpec::default();
        for flag in ["/x:/etc/hosts:ro", "data:/d"] {
            spec.mounts.push(volume_flag(flag, std::path::Path::new("/")).unwrap());
        }
        let plan = plan(&spec, &facts(), &Account::default()).unwrap();
        let targets: Vec<&str> = plan.mounts.iter().map(target_of).collect();
        assert_eq!(targets.iter().filter(|t| **t == "/etc/hosts").count(), 1);
        assert_eq!(targets[targets.len() - 2..], ["/etc/hosts", "/d"]);
        assert!(
            plan.mounts
                .iter()
                .any(|op| matches!(op, MountOp::Bind { source, .. } if source == "/volumes/data"))
        );
        assert_eq!(plan.hostname, "0123456789ab");
        assert_eq!(plan.cwd, "/");
    }

    #[test]
    fn privileged_drops_every_confinement() {
        let mut spec = ContainerSpec::default();
        spec.host.privileged = true;
        let plan = plan(&spec, &facts(), &Account::default()).unwrap();
        assert_eq!(plan.seccomp, Seccomp::Unconfined);
        assert!(plan.masked_paths.is_empty() && plan.read_only_paths.is_empty());
        assert!(plan.capabilities.bounding.contains(&21) && plan.devices);
    }
}
