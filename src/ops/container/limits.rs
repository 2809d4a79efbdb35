//! Limits as docker's flags give them: values, units and what is refused.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::{Error, values};
use crate::runtime::cgroup::{Device, Limits};

/// The least memory that docker gives a container.
const LEAST_MEMORY: i64 = 6 << 20;

/// Bytes; zero is no limit.
///
/// # Errors
/// [`Error::BadValue`]
pub fn bytes(flag: &str, text: &str) -> Result<i64, Error> {
    let bytes = values::size(flag, text)?;
    i64::try_from(bytes).map_err(|_| values::bad(flag, text, "it is out of range"))
}

/// The same, and -1 for no limit at all.
///
/// # Errors
/// [`Error::BadValue`]
pub fn bytes_or_none(flag: &str, text: &str) -> Result<i64, Error> {
    if text.trim() == "-1" { Ok(-1) } else { bytes(flag, text) }
}

/// Processors as a decimal number, in billionths.
///
/// # Errors
/// [`Error::BadValue`]
pub fn cpus(text: &str) -> Result<i64, Error> {
    let bad = |why: &str| values::bad("--cpus", text, why);
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return Err(bad("expected a number of processors, such as 1.5"));
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err(bad("value is too precise"));
    }
    let number = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<i64>() };
    let nano = number(whole).ok().and_then(|whole| whole.checked_mul(1_000_000_000));
    let part = number(&format!("{part:0<9}")).ok();
    nano.zip(part).and_then(|(whole, part)| whole.checked_add(part)).ok_or_else(|| bad("it is out of range"))
}

/// `/dev/sda:1mb`, `/dev/sda:1000`
///
/// # Errors
/// [`Error::BadValue`]
pub fn device(flag: &'static str, text: &str) -> Result<Device, Error> {
    let bad = |why: &str| values::bad(flag, text, why);
    let (path, rate) = text.split_once(':').ok_or_else(|| bad("expected DEVICE:NUMBER"))?;
    let rate = match flag {
        "--device-read-bps" | "--device-write-bps" => values::size(flag, rate)?,
        _ => rate.parse().map_err(|_| bad("expected DEVICE:NUMBER, a whole number that is not negative"))?,
    };
    if flag == "--blkio-weight-device" && rate != 0 && !(10..=1000).contains(&rate) {
        return Err(bad("range of blkio weight is from 10 to 1000"));
    }
    let meta = std::fs::metadata(path).map_err(|error| bad(&format!("`{path}`: {error}")))?;
    if !path.starts_with('/') || !meta.file_type().is_block_device() {
        return Err(bad("it is no block device"));
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(Device { path: path.into(), major, minor, rate })
}

/// The numbers of a list such as `0-3,7`.
fn list(text: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The kernel has 8192 at most.
        if last < first || last > 8191 {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

fn check_list(flag: &str, what: &str, text: Option<&String>, online: &str) -> Result<(), Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(()) };
    let bad = |why: String| values::bad(flag, text, why);
    let wanted = list(text).ok_or_else(|| bad(format!("invalid value {text} for {what}")))?;
    let online = std::fs::read_to_string(online).unwrap_or_default();
    let online = online.trim();
    match list(online) {
        Some(there) if !there.is_empty() && !wanted.is_subset(&there) => {
            Err(bad(format!("requested {what} are not available: there are {online}")))
        }
        _ => Ok(()),
    }
}

/// Refuse what docker refuses.
///
/// # Errors
/// [`Error::BadValue`] or [`Error::Conflict`]
pub fn check(limits: &Limits) -> Result<(), Error> {
    check_memory(limits)?;
    check_cpus(limits)?;
    if limits.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
        let weight = limits.blkio_weight.unwrap_or(0).to_string();
        return Err(values::bad("--blkio-weight", &weight, "range of blkio weight is from 10 to 1000"));
    }
    if let Some(pids) = limits.pids.filter(|pids| *pids < -1) {
        return Err(values::bad("--pids-limit", &pids.to_string(), "-1 is the number for no limit"));
    }
    Ok(())
}

fn check_memory(limits: &Limits) -> Result<(), Error> {
    let refuse = |flag: &str, value: i64, why: &str| Err(values::bad(flag, &value.to_string(), why));
    for (flag, what, value) in [
        ("--memory", "memory limit", limits.memory),
        ("--memory-reservation", "memory reservation", limits.memory_reservation),
        ("--kernel-memory", "kernel memory limit", limits.kernel_memory),
    ] {
        if let Some(value) = value.filter(|value| *value > 0 && *value < LEAST_MEMORY) {
            return refuse(flag, value, &format!("minimum {what} allowed is 6MB"));
        }
    }
    let memory = limits.memory.unwrap_or(0);
    if let Some(swap) = limits.memory_swap.filter(|swap| *swap > 0) {
        if memory == 0 {
            let why = "you should always set the memory limit when using the memoryswap limit";
            return refuse("--memory-swap", swap, why);
        }
        if swap < memory {
            return refuse(
                "--memory-swap",
                swap,
                "minimum memoryswap limit should be larger than memory limit",
            );
        }
    }
    if let Some(value) = limits.memory_reservation.filter(|value| memory > 0 && *value > memory) {
        let why = "minimum memory limit can not be less than memory reservation limit";
        return refuse("--memory-reservation", value, why);
    }
    match limits.memory_swappiness {
        Some(value) if !(-1..=100).contains(&value) => {
            refuse("--memory-swappiness", value, "valid memory swappiness range is 0-100")
        }
        _ => Ok(()),
    }
}

fn check_cpus(limits: &Limits) -> Result<(), Error> {
    let refuse = |flag: &str, value: i64, why: &str| Err(values::bad(flag, &value.to_string(), why));
    if let Some(nano) = limits.nano_cpus.filter(|nano| *nano != 0) {
        if limits.cpu_period.is_some_and(|period| period != 0) {
            return Err(Error::Conflict("--cpus", "--cpu-period"));
        }
        if limits.cpu_quota.is_some_and(|quota| quota != 0) {
            return Err(Error::Conflict("--cpus", "--cpu-quota"));
        }
        let there = online_processors();
        if nano < 10_000_000 || nano > there.saturating_mul(1_000_000_000) {
            let why =
                format!("range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available");
            #[allow(clippy::cast_precision_loss, reason = "for a message")]
            let shown = nano as f64 / 1e9;
            return Err(values::bad("--cpus", &shown.to_string(), why));
        }
    }
    if let Some(period) = limits.cpu_period.filter(|p| *p != 0 && !(1000..=1_000_000).contains(p)) {
        let why = "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)";
        return refuse("--cpu-period", period, why);
    }
    if let Some(quota) = limits.cpu_quota.filter(|quota| *quota > 0 && *quota < 1000) {
        return refuse("--cpu-quota", quota, "CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares < 0) {
        return refuse("--cpu-shares", shares, "it must not be negative");
    }
    check_list("--cpuset-cpus", "CPUs", limits.cpuset_cpus.as_ref(), "/sys/devices/system/cpu/online")?;
    check_list(
        "--cpuset-mems",
        "memory nodes",
        limits.cpuset_mems.as_ref(),
        "/sys/devices/system/node/online",
    )
}

/// All processors of the machine, whichever of them this process may use.
fn online_processors() -> i64 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = list(text.trim()).map_or(0, |all| all.len());
    i64::try_from(count).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        for (text, nano) in [
            ("1.5", Some(1_500_000_000)),
            (".5", Some(500_000_000)),
            ("2", Some(2_000_000_000)),
            ("0", Some(0)),
            ("1.000000000000", Some(1_000_000_000)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1e3", None),
            ("0.0000000001", None),
            ("99999999999999", None),
        ] {
            assert_eq!(cpus(text).ok(), nano, "{text}");
        }
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(list("0-2,5"), Some(BTreeSet::from([0, 1, 2, 5])));
        assert_eq!(list(""), Some(BTreeSet::new()));
        for text in ["a", "3-1", "1-", "-1", "0-4294967295"] {
            assert_eq!(list(text), None, "{text}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        const MB: i64 = 1 << 20;
        let refused = |limits: Limits| check(&limits).is_err();
        let base = Limits::default;
        check(&Limits { memory: Some(6 * MB), memory_swap: Some(-1), ..base() }).unwrap();
        check(&Limits { memory: Some(0), cpu_quota: Some(-1), ..base() }).unwrap();
        assert!(refused(Limits { memory: Some(6 * MB - 1), ..base() }));
        assert!(refused(Limits { memory_swap: Some(9 * MB), ..base() }));
        assert!(refused(Limits { memory: Some(9 * MB), memory_swap: Some(8 * MB), ..base() }));
        assert!(refused(Limits { memory: Some(9 * MB), memory_reservation: Some(10 * MB), ..base() }));
        assert!(refused(Limits { memory_swappiness: Some(101), ..base() }));
        assert!(refused(Limits { nano_cpus: Some(1_000_000_000), cpu_quota: Some(5000), ..base() }));
        assert!(refused(Limits { nano_cpus: Some(1_000_000_000_000_000), ..base() }));
        assert!(refused(Limits { cpu_period: Some(999), ..base() }));
        assert!(refused(Limits { cpuset_cpus: Some("0,8000".into()), ..base() }));
        assert!(refused(Limits { cpuset_mems: Some("x".into()), ..base() }));
        assert!(refused(Limits { blkio_weight: Some(9), ..base() }));
        assert!(refused(Limits { pids: Some(-2), ..base() }));
    }

    #[test]
    fn devices_must_be_block_devices() {
        assert!(device("--device-read-bps", "/dev/null:1mb").is_err());
        assert!(device("--device-read-bps", "/no/such:1mb").is_err());
        assert!(device("--device-read-iops", "nothing").is_err());
    }
}
