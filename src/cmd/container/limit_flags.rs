//! What a container's cgroup limits: the flags of `run`, `create` and `update`.

use clap::Args;

use crate::ops::container::{Error, limits};
use crate::ops::limits::{Device, Limits};

/// Limits that can also be changed while the program runs.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LimitFlags {
    /// Memory: a number and b, k, m or g
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap together; -1 is no limit for swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is left to it when memory is short
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Memory of the kernel
    #[arg(long, value_name = "BYTES", hide = true)]
    kernel_memory: Option<String>,
    /// Processors, such as 1.5
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,
    /// Processor weight against others; 1024 is usual
    #[arg(short, long, value_name = "WEIGHT", allow_hyphen_values = true)]
    cpu_shares: Option<i64>,
    /// Length of a scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_period: Option<i64>,
    /// Processor time in a scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a real-time scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, hide = true)]
    cpu_rt_period: Option<i64>,
    /// Real-time processor time in a period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, hide = true)]
    cpu_rt_runtime: Option<i64>,
    /// The processors to run on: 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes to use: 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Weight of block devices' use against others: 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u64>,
}

impl LimitFlags {
    /// The limits, each value read as docker reads it.
    pub(super) fn limits(&self) -> Result<Limits, Error> {
        let bytes =
            |flag: &str, text: &Option<String>| text.as_deref().map(|t| limits::bytes(flag, t)).transpose();
        let swap = self.memory_swap.as_deref().map(|text| limits::bytes_or_none("--memory-swap", text));
        Ok(Limits {
            memory: bytes("--memory", &self.memory)?,
            memory_swap: swap.transpose()?,
            memory_reservation: bytes("--memory-reservation", &self.memory_reservation)?,
            kernel_memory: bytes("--kernel-memory", &self.kernel_memory)?,
            nano_cpus: self.cpus.as_deref().map(limits::cpus).transpose()?,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_rt_period: self.cpu_rt_period,
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight,
            ..Limits::default()
        })
    }
}

/// Those that only a new container takes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct NewLimitFlags {
    #[command(flatten)]
    common: LimitFlags,
    /// How gladly its memory is swapped out: 0 to 100
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// The kernel does not kill in it for want of memory
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true)]
    oom_kill_disable: Option<bool>,
    /// How gladly the kernel kills it for want of memory: -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Weight for one block device
    #[arg(long, value_name = "DEVICE:WEIGHT", hide = true)]
    blkio_weight_device: Vec<String>,
    /// Bytes per second to read from a block device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// Bytes per second to write to a block device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// Operations per second to read from a block device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<String>,
    /// Operations per second to write to a block device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<String>,
    /// The cgroup to make the container's own in: from the top with a slash, else below ours
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Do not start the container where a limit cannot be had
    #[arg(long)]
    strict_limits: bool,
}

impl NewLimitFlags {
    /// Put all of it into a container's description.
    pub(super) fn apply(&self, host: &mut crate::ops::container::HostOptions) -> Result<(), Error> {
        let devices = |flag: &'static str, list: &[String]| -> Result<Vec<Device>, Error> {
            list.iter().map(|text| limits::device(flag, text)).collect()
        };
        host.limits = Limits {
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable,
            blkio_weight_device: devices("--blkio-weight-device", &self.blkio_weight_device)?,
            device_read_bps: devices("--device-read-bps", &self.device_read_bps)?,
            device_write_bps: devices("--device-write-bps", &self.device_write_bps)?,
            device_read_iops: devices("--device-read-iops", &self.device_read_iops)?,
            device_write_iops: devices("--device-write-iops", &self.device_write_iops)?,
            ..self.common.limits()?
        };
        limits::check(&host.limits)?;
        let bad = |flag: &str, value: &str, why: &str| Error::BadValue {
            flag: flag.into(),
            value: value.into(),
            why: why.into(),
        };
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(bad("--oom-score-adj", &score.to_string(), "the range is -1000 to 1000"));
        }
        host.oom_score_adj = self.oom_score_adj;
        host.strict_limits = self.strict_limits;
        if let Some(parent) = self.cgroup_parent.as_deref() {
            if parent.split('/').any(|part| part == "..") || parent.contains('\0') {
                return Err(bad("--cgroup-parent", parent, "it must be a path without `..`"));
            }
            host.cgroup_parent = parent.to_owned();
        }
        Ok(())
    }
}
