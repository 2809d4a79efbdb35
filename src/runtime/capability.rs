//! Capabilities by name (`man 7 capabilities`), and the arithmetic of `--cap-add` and `--cap-drop`.

use std::collections::BTreeSet;

use super::{Capabilities, Error};

/// Names without `CAP_`, at the index of their number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's defaults.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// One more than the highest capability known here.
pub const COUNT: u8 = NAMES.len() as u8;

/// The number of `CAP_X`, `X` or `x`.
///
/// # Errors
/// [`Error::Unknown`].
pub fn number(name: &str) -> Result<u8, Error> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let index = NAMES.iter().position(|known| *known == bare);
    index
        .and_then(|index| u8::try_from(index).ok())
        .ok_or_else(|| Error::Unknown { kind: "capability", value: name.to_owned() })
}

/// `CAP_X` for a number.
#[must_use]
pub fn name(number: u8) -> String {
    NAMES.get(usize::from(number)).map_or_else(|| format!("CAP_{number}"), |name| format!("CAP_{name}"))
}

/// Every capability known here (`--privileged`, `--cap-add ALL`).
#[must_use]
pub fn all() -> Capabilities {
    Capabilities { bounding: (0..COUNT).collect() }
}

/// Docker's 14 default capabilities.
#[must_use]
pub fn defaults() -> Capabilities {
    Capabilities { bounding: DEFAULT.iter().filter_map(|name| number(name).ok()).collect() }
}

/// The defaults with `--cap-add` and `--cap-drop`, as docker adds them up: `--cap-add ALL` gives everything
/// but what is dropped by name, `--cap-drop ALL` only what is added by name; else a name in both lists is added.
///
/// # Errors
/// [`Error::Unknown`] for a name that is no capability.
pub fn resolve(add: &[String], drop: &[String]) -> Result<Capabilities, Error> {
    let is_all = |name: &&String| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all");
    let numbers = |names: &[String]| -> Result<Vec<u8>, Error> {
        names.iter().filter(|name| !is_all(name)).map(|name| number(name)).collect()
    };
    let (added, dropped) = (numbers(add)?, numbers(drop)?);
    let without_dropped = |mut set: BTreeSet<u8>| {
        set.retain(|capability| !dropped.contains(capability));
        set
    };
    if add.iter().any(|name| is_all(&name)) {
        return Ok(Capabilities { bounding: without_dropped(all().bounding) });
    }
    let drop_all = drop.iter().any(|name| is_all(&name));
    let mut bounding = if drop_all { BTreeSet::new() } else { without_dropped(defaults().bounding) };
    bounding.extend(added);
    Ok(Capabilities { bounding })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (given, expected) in
            [("CAP_SYS_ADMIN", 21), ("sys_admin", 21), ("Chown", 0), ("cap_checkpoint_restore", 40)]
        {
            assert_eq!(number(given).unwrap(), expected, "{given}");
        }
        assert_eq!(name(21), "CAP_SYS_ADMIN");
        assert_eq!(number("CAP_NOPE").unwrap_err().to_string(), "unknown capability `CAP_NOPE`");
        let mask = defaults().bounding.iter().fold(0u64, |mask, bit| mask | 1 << bit);
        assert_eq!(mask, 0xa804_25fb, "what docker shows as CapBnd");
    }

    #[test]
    fn arithmetic() {
        let of = |add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
            resolve(&list(add), &list(drop)).unwrap().bounding.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(&[], &[]), defaults().bounding.into_iter().collect::<Vec<_>>());
        assert_eq!(of(&["NET_ADMIN"], &["all"]), [12]);
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert_eq!(of(&[], &["ALL"]), [0u8; 0]);
        assert!(!of(&[], &["MKNOD"]).contains(&27));
        assert!(of(&["SYS_TIME"], &["MKNOD"]).contains(&25));
        assert!(resolve(&["X".into()], &[]).is_err());
    }
}
