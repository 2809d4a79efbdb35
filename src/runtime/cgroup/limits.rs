//! Limits of a container, and the words for them in both versions of cgroups.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::sys::SysError;

/// What is limited for a block device, or how much it weighs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host, as given.
    pub path: String,
    /// Its numbers.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Bytes or operations per second, or the weight.
    pub rate: u64,
}

/// Limits, in docker's units; what is not set is not limited. -1 stands for no limit where docker says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<i64>,
    /// Bytes that are left to it when memory is short.
    pub memory_reservation: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// Bytes of the kernel's memory.
    pub kernel_memory: Option<i64>,
    /// The kernel does not kill for want of memory.
    pub oom_kill_disable: Option<bool>,
    /// Billionths of a processor.
    pub nano_cpus: Option<i64>,
    /// Weight against others; 1024 is usual.
    pub cpu_shares: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds of each period.
    pub cpu_quota: Option<i64>,
    /// Microseconds, real-time.
    pub cpu_rt_period: Option<i64>,
    /// Microseconds, real-time.
    pub cpu_rt_runtime: Option<i64>,
    /// `0-3,7`
    pub cpuset_cpus: Option<String>,
    /// `0,1`
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// 10 to 1000.
    pub blkio_weight: Option<u64>,
    /// The same for one device.
    pub blkio_weight_device: Vec<Device>,
    /// Bytes per second.
    pub device_read_bps: Vec<Device>,
    /// Bytes per second.
    pub device_write_bps: Vec<Device>,
    /// Operations per second.
    pub device_read_iops: Vec<Device>,
    /// Operations per second.
    pub device_write_iops: Vec<Device>,
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: &'static str,
    pub(super) value: String,
}

/// What a flag asks for, in both versions: the first file that can be written counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) flag: &'static str,
    controllers: [&'static str; 2],
    pub(super) v1: Vec<Write>,
    pub(super) v2: Vec<Write>,
    /// Nobody asked for it: it does not matter when it cannot be.
    implied: bool,
}

impl Setting {
    fn new(flag: &'static str, controllers: [&'static str; 2]) -> Self {
        Self { flag, controllers, v1: Vec::new(), v2: Vec::new(), implied: false }
    }

    fn v1(mut self, file: &'static str, value: impl ToString) -> Self {
        self.v1.push(Write { file, value: value.to_string() });
        self
    }

    fn v2(mut self, file: &'static str, value: impl ToString) -> Self {
        self.v2.push(Write { file, value: value.to_string() });
        self
    }

    /// The controller's name in a version.
    pub(super) fn controller(&self, version: usize) -> &'static str {
        self.controllers[version - 1]
    }

    /// Say that it is not in force.
    pub(super) fn tell(&self, error: &SysError, miss: &mut impl FnMut(&'static str, String)) {
        if self.implied {
            return;
        }
        let why = match error.source.raw_os_error() {
            Some(libc::ENOENT) => "the kernel does not have it".to_owned(),
            _ if error.operation == "limit" => error.source.to_string(),
            _ => format!("{error}: {}", error.source),
        };
        miss(self.flag, why);
    }
}

/// No limit, in version 2 and for processes.
fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// The weight of version 2 (1 to 10000, usually 100) for the shares of version 1 (2 to 262144, usually 1024): a curve
/// through both ends and the usual value, as current OCI runtimes draw it.
#[must_use]
pub fn weight_of_shares(shares: i64) -> i64 {
    if shares == 0 {
        return 100;
    }
    #[allow(clippy::cast_precision_loss, reason = "at most 2^18")]
    let bits = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (bits * bits + 125.0 * bits) / 612.0 - 7.0 / 34.0;
    #[allow(clippy::cast_possible_truncation, reason = "at most 10^4")]
    let weight = 10_f64.powf(exponent).ceil() as i64;
    weight.clamp(1, 10_000)
}

/// The weight of version 2 for that of version 1 (10 to 1000).
fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The controllers that all of it needs, by their names in both versions.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<&'static str> {
        self.settings().iter().flat_map(|setting| setting.controllers).collect()
    }

    /// The flags that it stands for.
    #[must_use]
    pub fn flags(&self) -> BTreeSet<&'static str> {
        self.settings().iter().map(|setting| setting.flag).collect()
    }

    /// Take over what `other` sets.
    pub fn update(&mut self, other: &Self) {
        macro_rules! take {
            ($($field:ident)*) => { $( if other.$field.is_some() { self.$field.clone_from(&other.$field); } )* };
        }
        take!(memory memory_swap memory_reservation memory_swappiness kernel_memory oom_kill_disable);
        take!(nano_cpus cpu_shares cpu_period cpu_quota cpu_rt_period cpu_rt_runtime);
        take!(cpuset_cpus cpuset_mems pids blkio_weight);
        // Two ways to say the same: the new one counts.
        if other.nano_cpus.is_some() {
            (self.cpu_period, self.cpu_quota) = (None, None);
        } else if other.cpu_quota.is_some() || other.cpu_period.is_some() {
            self.nano_cpus = None;
        }
    }

    /// Everything that is to be written, in order.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        self.memory_settings(&mut all);
        self.cpu_settings(&mut all);
        if let Some(pids) = self.pids {
            // Docker: zero is no limit too.
            let value = or_max(if pids == 0 { -1 } else { pids });
            all.push(Setting::new("--pids-limit", ["pids"; 2]).v1("pids.max", &value).v2("pids.max", &value));
        }
        self.io_settings(&mut all);
        all
    }

    fn memory_settings(&self, all: &mut Vec<Setting>) {
        let new = |flag| Setting::new(flag, ["memory"; 2]);
        // No limit is written too: an update may lift one.
        let limit = self.memory.map(|memory| if memory == 0 { -1 } else { memory });
        if let Some(limit) = limit {
            all.push(new("--memory").v1("memory.limit_in_bytes", limit).v2("memory.max", or_max(limit)));
        }
        let asked = self.memory_swap.filter(|swap| *swap != 0);
        // Docker: as much swap as memory when nothing is said.
        let both = asked.or_else(|| limit.map(|limit| if limit < 0 { -1 } else { limit.saturating_mul(2) }));
        if let Some(both) = both {
            let swap = if both < 0 { -1 } else { both - limit.unwrap_or(0).max(0) };
            let mut setting = new("--memory-swap").v1("memory.memsw.limit_in_bytes", both);
            setting = setting.v2("memory.swap.max", or_max(swap));
            all.push(Setting { implied: asked.is_none(), ..setting });
        }
        if let Some(bytes) = self.memory_reservation.filter(|bytes| *bytes != 0) {
            let setting = new("--memory-reservation").v1("memory.soft_limit_in_bytes", bytes);
            all.push(setting.v2("memory.low", bytes.max(0)));
        }
        if let Some(value) = self.memory_swappiness.filter(|value| *value >= 0) {
            all.push(new("--memory-swappiness").v1("memory.swappiness", value));
        }
        if let Some(bytes) = self.kernel_memory.filter(|bytes| *bytes != 0) {
            all.push(new("--kernel-memory").v1("memory.kmem.limit_in_bytes", bytes));
        }
        if self.oom_kill_disable == Some(true) {
            all.push(new("--oom-kill-disable").v1("memory.oom_control", 1));
        }
    }

    fn cpu_settings(&self, all: &mut Vec<Setting>) {
        let new = |flag| Setting::new(flag, ["cpu"; 2]);
        if let Some(shares) = self.cpu_shares {
            let plain = if shares == 0 { 1024 } else { shares };
            all.push(new("--cpu-shares").v1("cpu.shares", plain).v2("cpu.weight", weight_of_shares(shares)));
        }
        if let Some(period) = self.cpu_period.filter(|period| *period != 0) {
            let quota = self.cpu_quota.filter(|quota| *quota > 0).unwrap_or(-1);
            let both = format!("{} {period}", or_max(quota));
            all.push(new("--cpu-period").v1("cpu.cfs_period_us", period).v2("cpu.max", both));
        }
        if let Some(quota) = self.cpu_quota {
            let quota = if quota == 0 { -1 } else { quota };
            let period = self.cpu_period.filter(|period| *period != 0).unwrap_or(PERIOD);
            let both = format!("{} {period}", or_max(quota));
            all.push(new("--cpu-quota").v1("cpu.cfs_quota_us", quota).v2("cpu.max", both));
        }
        if let Some(nano) = self.nano_cpus {
            let quota = if nano == 0 { -1 } else { (nano.saturating_mul(PERIOD) / 1_000_000_000).max(1000) };
            let both = format!("{} {PERIOD}", or_max(quota));
            let period = new("--cpus").v1("cpu.cfs_period_us", PERIOD).v2("cpu.max", &both);
            all.push(period);
            all.push(new("--cpus").v1("cpu.cfs_quota_us", quota).v2("cpu.max", both));
        }
        if let Some(period) = self.cpu_rt_period.filter(|period| *period != 0) {
            all.push(new("--cpu-rt-period").v1("cpu.rt_period_us", period));
        }
        if let Some(runtime) = self.cpu_rt_runtime.filter(|runtime| *runtime != 0) {
            all.push(new("--cpu-rt-runtime").v1("cpu.rt_runtime_us", runtime));
        }
        let set = |flag, file, value: &Option<String>| {
            let value = value.as_ref().filter(|value| !value.is_empty())?;
            Some(Setting::new(flag, ["cpuset"; 2]).v1(file, value).v2(file, value))
        };
        all.extend(set("--cpuset-cpus", "cpuset.cpus", &self.cpuset_cpus));
        all.extend(set("--cpuset-mems", "cpuset.mems", &self.cpuset_mems));
    }

    fn io_settings(&self, all: &mut Vec<Setting>) {
        let new = |flag| Setting::new(flag, ["blkio", "io"]);
        if let Some(weight) = self.blkio_weight.filter(|weight| *weight != 0) {
            let setting = new("--blkio-weight").v1("blkio.bfq.weight", weight).v1("blkio.weight", weight);
            all.push(
                setting.v2("io.bfq.weight", weight).v2("io.weight", format!("default {}", io_weight(weight))),
            );
        }
        for device in &self.blkio_weight_device {
            let Device { major, minor, rate, .. } = device;
            let line = format!("{major}:{minor} {rate}");
            let setting = new("--blkio-weight-device").v1("blkio.bfq.weight_device", &line);
            let setting = setting.v1("blkio.weight_device", &line).v2("io.bfq.weight", &line);
            all.push(setting.v2("io.weight", format!("{major}:{minor} {}", io_weight(*rate))));
        }
        for (flag, list, file, key) in [
            ("--device-read-bps", &self.device_read_bps, "blkio.throttle.read_bps_device", "rbps"),
            ("--device-write-bps", &self.device_write_bps, "blkio.throttle.write_bps_device", "wbps"),
            ("--device-read-iops", &self.device_read_iops, "blkio.throttle.read_iops_device", "riops"),
            ("--device-write-iops", &self.device_write_iops, "blkio.throttle.write_iops_device", "wiops"),
        ] {
            for Device { major, minor, rate, .. } in list {
                let setting = new(flag).v1(file, format!("{major}:{minor} {rate}"));
                all.push(setting.v2("io.max", format!("{major}:{minor} {key}={rate}")));
            }
        }
    }
}

/// Microseconds of a period when none is given.
const PERIOD: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn words(limits: &Limits) -> [Vec<String>; 2] {
        let all = limits.settings();
        let text =
            |writes: &Vec<Write>| writes.first().map(|write| format!("{}={}", write.file, write.value));
        [
            all.iter().filter_map(|setting| text(&setting.v1)).collect(),
            all.iter().filter_map(|setting| text(&setting.v2)).collect(),
        ]
    }

    #[test]
    fn memory_and_swap_are_counted_together_in_one_and_apart_in_two() {
        let limits = Limits { memory: Some(100), ..Default::default() };
        let [one, two] = words(&limits);
        assert_eq!(one, ["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=200"]);
        assert_eq!(two, ["memory.max=100", "memory.swap.max=100"]);
        let limits = Limits { memory_swap: Some(150), ..limits };
        assert_eq!(words(&limits)[1], ["memory.max=100", "memory.swap.max=50"]);
        let limits = Limits { memory_swap: Some(-1), ..limits };
        assert_eq!(words(&limits)[0][1], "memory.memsw.limit_in_bytes=-1");
        assert_eq!(words(&limits)[1][1], "memory.swap.max=max");
        let lifted = Limits { memory: Some(0), ..Default::default() };
        assert_eq!(words(&lifted)[1], ["memory.max=max", "memory.swap.max=max"]);
    }

    #[test]
    fn processors_become_quotas_and_shares_weights() {
        let limits = Limits { nano_cpus: Some(1_500_000_000), pids: Some(-1), ..Default::default() };
        let [one, two] = words(&limits);
        assert_eq!(one, ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000", "pids.max=max"]);
        assert_eq!(two[0], "cpu.max=150000 100000");
        for (shares, weight) in [(0, 100), (2, 1), (1024, 100), (262_144, 10_000), (1, 1), (i64::MAX, 10_000)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let mut limits = limits;
        limits.update(&Limits { cpu_quota: Some(5000), ..Default::default() });
        assert_eq!((limits.nano_cpus, limits.cpu_quota, limits.pids), (None, Some(5000), Some(-1)));
    }

    #[test]
    fn controllers_are_those_of_what_is_set() {
        let limits = Limits { pids: Some(5), blkio_weight: Some(100), ..Default::default() };
        assert_eq!(limits.controllers(), BTreeSet::from(["pids", "blkio", "io"]));
        assert!(Limits::default().controllers().is_empty() && Limits::default().is_empty());
    }
}
