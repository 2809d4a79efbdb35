//! Docker's default system call filter, compiled for a set of capabilities.
//!
//! What the profile does not allow answers `EPERM`; numbers above all that the table knows answer `ENOSYS`, so that
//! programs fall back as they would on an older kernel. `clone3` answers `ENOSYS` because its flags lie in memory that
//! a filter cannot read, and the C library then uses `clone`. Both x86_64 and i386 are filtered by their own numbers; the
//! x32 interface answers `ENOSYS`, as on a kernel without it.

mod bpf;
mod table;

use super::Capabilities;

/// What the profile says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Always.
    Allow,
    /// Never.
    Deny,
    /// With one of these capabilities.
    With(&'static [u8]),
    /// Unless it makes namespaces; freely with `CAP_SYS_ADMIN`.
    Clone,
    /// Only with `CAP_SYS_ADMIN`, and as if unknown without.
    Clone3,
    /// Unless it is for virtual machine sockets, which reach the hypervisor past all network namespaces.
    Socket,
    /// Only for the values that change nothing of weight.
    Personality,
}

const CAP_SYS_ADMIN: u8 = 21;

/// The filter for a program with these capabilities.
pub(super) fn default_filter(capabilities: &Capabilities) -> Vec<libc::sock_filter> {
    let calls = |number: fn(&(&str, i16, i16, Rule)) -> i16| {
        let known = table::SYSCALLS.iter().filter(|row| number(row) >= 0);
        let mut calls: Vec<(u32, bpf::Verdict)> =
            known.map(|row| (u32::from(number(row).unsigned_abs()), verdict(row.3, capabilities))).collect();
        calls.sort_unstable_by_key(|call| call.0);
        calls
    };
    bpf::compile(&calls(|row| row.1), &calls(|row| row.2))
}

fn verdict(rule: Rule, capabilities: &Capabilities) -> bpf::Verdict {
    use bpf::Verdict;
    let has = |capability: &u8| capabilities.bounding.contains(capability);
    match rule {
        Rule::Allow => Verdict::Allow,
        Rule::With(any) if any.iter().any(has) => Verdict::Allow,
        Rule::Clone | Rule::Clone3 if has(&CAP_SYS_ADMIN) => Verdict::Allow,
        Rule::Deny | Rule::With(_) => Verdict::NotPermitted,
        Rule::Clone3 => Verdict::Unknown,
        Rule::Clone => Verdict::UnlessFlags(0x7e02_0000),
        Rule::Socket => Verdict::Unless(40),
        Rule::Personality => Verdict::OneOf(&[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff]),
    }
}

#[cfg(test)]
mod tests;
