//! Why the kernel refuses a user namespace, in words that lead to the fix.

use std::path::Path;

use super::subid::read_small;

/// The switches that forbid user namespaces, looked at only after a refusal.
const UNSHARE: &str = "making a user namespace";

fn sysctl(path: &str) -> Option<i64> {
    read_small(Path::new(path))?.trim().parse().ok()
}

/// Whether Ubuntu's AppArmor rule lets programs make user namespaces but takes the capabilities in them.
pub(super) fn apparmor_restricts() -> bool {
    sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
}

/// The cause of a failed `unshare(CLONE_NEWUSER)`.
pub(super) fn unshare(errno: Option<i32>) -> String {
    let errno = errno.unwrap_or(0);
    if sysctl("/proc/sys/user/max_user_namespaces") == Some(0) {
        return "user namespaces are switched off (sysctl user.max_user_namespaces is 0)".to_owned();
    }
    if sysctl("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return "user namespaces are reserved for root (sysctl kernel.unprivileged_userns_clone is 0)"
            .to_owned();
    }
    if apparmor_restricts() && matches!(errno, libc::EPERM | libc::EACCES) {
        return apparmor();
    }
    match errno {
        libc::ENOSPC | libc::EUSERS => {
            "the limit of user namespaces is reached (sysctl user.max_user_namespaces), or they are nested too deep"
                .to_owned()
        }
        libc::ENOSYS => "this kernel has no user namespaces (CONFIG_USER_NS)".to_owned(),
        libc::EINVAL if !crate::sys::fork::single_threaded() => {
            "the process already has several threads".to_owned()
        }
        libc::EINVAL => "this kernel has no user namespaces (CONFIG_USER_NS)".to_owned(),
        libc::EPERM if filtered() => {
            format!("{UNSHARE} is forbidden by a system call filter (seccomp) of the container or service around us")
        }
        libc::EPERM if chrooted() => format!("{UNSHARE} is not possible inside a chroot"),
        errno => format!("{UNSHARE}: {}", std::io::Error::from_raw_os_error(errno)),
    }
}

/// The cause when the namespace could be made but is powerless.
pub(super) fn powerless(what: &str) -> String {
    if apparmor_restricts() { apparmor() } else { what.to_owned() }
}

fn apparmor() -> String {
    "AppArmor restricts user namespaces to programs with a profile \
     (sysctl kernel.apparmor_restrict_unprivileged_userns is 1)"
        .to_owned()
}

fn filtered() -> bool {
    let status = read_small(Path::new("/proc/self/status")).unwrap_or_default();
    status.lines().any(|line| line.split_once(':').is_some_and(|(k, v)| k == "Seccomp" && v.trim() == "2"))
}

/// The kernel refuses a user namespace when the root directory is not the root of the mount namespace.
fn chrooted() -> bool {
    let mounts = read_small(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    !mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

/// What is wrong with newuidmap or newgidmap at `program`: its words, or a missing privilege.
pub(super) fn helper(program: &Path, said: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    let name = program.display();
    let privileged = program.metadata().is_ok_and(|meta| meta.mode() & 0o4000 != 0 && meta.uid() == 0)
        || rustix::fs::getxattr(program, "security.capability", &mut [0u8; 64]).is_ok();
    if !privileged {
        return format!("`{name}` is neither setuid root nor has file capabilities");
    }
    let said = said.trim();
    let said = said.lines().last().unwrap_or("it failed without a word");
    format!("`{name}` refused: {said}")
}
