//! Facts about the host, read from the kernel and `/etc`, without the C library's name service.

use std::path::{Path, PathBuf};

/// The value of a key in `os-release` (`man 5 os-release`).
#[must_use]
pub fn os_release(key: &str) -> Option<String> {
    ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    })
}

/// The kernel's release, such as `6.1.0-18-amd64`.
#[must_use]
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The machine's host name.
#[must_use]
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The kernel's version as two numbers, for comparisons.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let release = kernel();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Bytes of memory.
#[must_use]
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// How many processors this process may use.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A user's name in `/etc/passwd`.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A number below `/proc/sys`; nothing when the kernel does not have it.
#[must_use]
pub fn sysctl(name: &str) -> Option<i64> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A program in these directories.
#[must_use]
pub fn find_program(name: &str, path: &[PathBuf]) -> Option<PathBuf> {
    path.iter().map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

/// Whether this process runs in somebody's container.
#[must_use]
pub fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || Path::new("/var/run/secrets/kubernetes.io").exists()
}

/// The version of control groups in use: 2, 1, or nothing.
#[must_use]
pub fn cgroup_version() -> Option<u8> {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Some(2)
    } else {
        Path::new("/sys/fs/cgroup/memory").exists().then_some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_this_host_are_there() {
        assert!(kernel_version() >= (3, 0));
        assert!(memory() > 1 << 20);
        assert!(processors() >= 1);
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert!(sysctl("kernel.pid_max").is_some_and(|max| max > 0));
        assert_eq!(sysctl("no.such.thing"), None);
    }
}
