//! Who the program is and what it may do: capabilities, ids, limits, the system call filter.

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::rootfs::{Step, failure};
use super::{Plan, Seccomp, StepFailure, capability, seccomp};
use crate::sys::exec;

/// Take everything away that the plan does not give. After this only harmless calls may follow.
///
/// A filter needs either `CAP_SYS_ADMIN` or no_new_privs, so without the latter it has to come first; it allows what
/// follows. Else it comes last.
pub(super) fn apply(plan: &Plan) -> Result<(), StepFailure> {
    if !plan.no_new_privileges {
        install_filter(plan)?;
    }
    drop_bounding(plan)?;
    set_ids(plan)?;
    reduce(plan)?;
    if plan.no_new_privileges {
        set_no_new_privs(true).step("set", "no_new_privs")?;
        install_filter(plan)?;
    }
    Ok(())
}

fn install_filter(plan: &Plan) -> Result<(), StepFailure> {
    match plan.seccomp {
        Seccomp::Unconfined => Ok(()),
        Seccomp::Default => {
            let filter = seccomp::default_filter(&plan.capabilities);
            exec::install_filter(&filter).step("install", "the system call filter")
        }
    }
}

fn drop_bounding(plan: &Plan) -> Result<(), StepFailure> {
    for number in (0..capability::COUNT).filter(|number| !plan.capabilities.bounding.contains(number)) {
        let name = capability::name(number);
        let Ok(known) = name.parse::<caps::Capability>() else { continue };
        if let Err(error) = caps::drop(None, caps::CapSet::Bounding, known) {
            // Kernels older than a capability refuse its number, and then have none to drop.
            if caps::has_cap(None, caps::CapSet::Bounding, known).unwrap_or(false) {
                return Err(failure("drop", format!("{name} ({error})"), libc::EPERM));
            }
        }
    }
    Ok(())
}

fn set_ids(plan: &Plan) -> Result<(), StepFailure> {
    let groups: Vec<Gid> = plan.groups.iter().copied().map(Gid::from_raw).collect();
    match set_thread_groups(&groups) {
        // A namespace with a single id forbids it. The groups that stay are the invoking user's, which are not
        // mapped and open nothing of the image.
        Ok(()) | Err(Errno::PERM) => {}
        other => other.step("set", format!("the groups {:?}", plan.groups))?,
    }
    let gid = Gid::from_raw(plan.gid);
    set_thread_res_gid(gid, gid, gid).step("become", format!("group {}", plan.gid))?;
    let uid = Uid::from_raw(plan.uid);
    set_thread_res_uid(uid, uid, uid).step("become", format!("user {}", plan.uid))
}

/// Permitted and effective for user 0, nothing for others; inheritable (and with it ambient) stays empty for all.
fn reduce(plan: &Plan) -> Result<(), StepFailure> {
    let have = capabilities(None).step("read", "our capabilities")?;
    let wanted = plan.capabilities.bounding.iter().filter(|number| **number < 64);
    let wanted = wanted.fold(0u64, |bits, number| bits | 1 << number);
    let wanted = if plan.uid == 0 { CapabilitySet::from_bits_retain(wanted) } else { CapabilitySet::empty() };
    let given = wanted & have.permitted;
    let sets = CapabilitySets { effective: given, permitted: given, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).step("set", "the capabilities")
}

/// Resource limits by name: `RLIMIT_NOFILE` or `nofile`.
pub(super) fn set_limits(limits: &[(String, u64, u64)]) -> Result<(), StepFailure> {
    for (name, soft, hard) in limits {
        let subject = || format!("the limit `{name}`");
        let number = limit_number(name).ok_or_else(|| failure("set", subject(), libc::EINVAL))?;
        exec::set_limit(number, *soft, *hard).step("set", subject())?;
    }
    Ok(())
}

fn limit_number(name: &str) -> Option<u32> {
    let lower = name.to_ascii_lowercase();
    Some(match lower.strip_prefix("rlimit_").unwrap_or(&lower) {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return None,
    })
}
