//! What to set up, as data.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::network::Join;

/// Everything between fork and exec.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The program and its arguments; the first is looked up in the environment's `PATH` inside the root.
    pub args: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Where the program starts; created (owned by the user) when it is not there.
    pub cwd: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Supplementary groups, `gid` included.
    pub groups: Vec<u32>,
    /// Host name in an own UTS namespace.
    pub hostname: String,
    /// NIS domain name there; empty leaves it.
    pub domainname: String,
    /// Mounts, in order; targets are resolved beneath the root.
    pub mounts: Vec<MountOp>,
    /// Files replaced by an empty one, directories by an empty directory.
    pub masked_paths: Vec<String>,
    /// Paths remounted read-only.
    pub read_only_paths: Vec<String>,
    /// The root itself read-only.
    pub read_only_root: bool,
    /// Capabilities of the program.
    pub capabilities: Capabilities,
    /// Device files in the root and in what is bound into it work. Without a device cgroup that is for programs that may
    /// do what the user may.
    pub devices: bool,
    /// System call filter.
    pub seccomp: Seccomp,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Namespaces of its own.
    pub namespaces: Namespaces,
    /// A network namespace to join; then `namespaces.network` does not count.
    pub network: Option<Arc<Join>>,
    /// A small reaper as pid 1, the program as its child.
    pub init: bool,
    /// Give the program a terminal of its own.
    pub terminal: bool,
    /// Kill it when its parent (monitor) dies.
    pub die_with_parent: bool,
    /// The program's umask; else 0022.
    pub umask: Option<u32>,
    /// `RLIMIT_*` name, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// The `cgroup.procs` files of the cgroups that it belongs in.
    pub cgroup: Vec<PathBuf>,
    /// How gladly the kernel kills it for want of memory (`man 5 proc_pid_oom_score_adj`); `None` is as the caller.
    pub oom_score_adj: Option<i32>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountOp {
    /// A host file or directory.
    Bind {
        /// Host path.
        source: PathBuf,
        /// Path in the container; made when missing.
        target: String,
        /// Recursively read-only.
        read_only: bool,
        /// With the mounts below it.
        recursive: bool,
        /// `rprivate` (default), `private`, `rslave`, `slave`, `rshared`, `shared`.
        propagation: String,
        /// What else is asked of it.
        options: BindOptions,
    },
    /// A small generated file (resolv.conf, hosts, hostname), on a tmpfs of the container's own or bound from a host path.
    File {
        /// Its content.
        content: Vec<u8>,
        /// Path in the container.
        target: String,
        /// Permission bits.
        mode: u32,
        /// Whether the container may change it (its own copy).
        read_only: bool,
    },
    /// `proc`; the outer one is bound when the kernel refuses a fresh one.
    Proc {
        /// Usually `/proc`.
        target: String,
    },
    /// `sysfs` read-only; the outer one is bound when the kernel refuses a fresh one.
    Sys {
        /// Usually `/sys`.
        target: String,
    },
    /// A tmpfs with the usual device nodes (bound from the host), `pts`, `shm`, `mqueue`, `fd` links.
    Dev {
        /// Usually `/dev`.
        target: String,
        /// Bytes of `/dev/shm`.
        shm_size: u64,
    },
    /// A tmpfs.
    Tmpfs {
        /// Path in the container.
        target: String,
        /// Mount options as `mount -o` takes them (`size=64m,mode=1777,noexec`).
        options: String,
    },
}

/// What a bind may have beside the usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// Only what lies at this path below the source; no link on the way leads out of the source.
    pub beneath: Option<String>,
    /// No programs are started from it.
    pub no_exec: bool,
    /// Set-id bits mean nothing in it.
    pub no_suid: bool,
}

/// Capability sets, by number (`man 7 capabilities`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding set; for uid 0 also permitted and effective. Inheritable and ambient stay empty.
    pub bounding: BTreeSet<u8>,
}

/// System call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default profile for the given capabilities.
    #[default]
    Default,
    /// None.
    Unconfined,
}

/// Network of the program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// A namespace with only `lo`, up.
    None,
}

/// Namespaces beside mount and pid, which are always the program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces {
    /// Network.
    pub network: Network,
    /// System V IPC and message queues.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// Cgroup root, where the kernel has it.
    pub cgroup: bool,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self { network: Network::Host, ipc: true, uts: true, cgroup: true }
    }
}

/// Docker's 14 default capabilities.
#[must_use]
pub fn default_capabilities() -> Capabilities {
    super::capability::defaults()
}

/// `/proc`, `/dev`, `/sys`, as docker mounts them.
#[must_use]
pub fn default_mounts(shm_size: u64) -> Vec<MountOp> {
    vec![
        MountOp::Proc { target: "/proc".to_owned() },
        MountOp::Dev { target: "/dev".to_owned(), shm_size },
        MountOp::Sys { target: "/sys".to_owned() },
    ]
}

/// Docker's masked paths, with those of later advisories: power and thermal readings are side channels.
#[must_use]
pub fn default_masked_paths() -> Vec<String> {
    [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Docker's read-only paths.
#[must_use]
pub fn default_read_only_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).to_vec()
}
