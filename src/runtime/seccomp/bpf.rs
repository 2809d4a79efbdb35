//! From verdicts to classic BPF (`man 2 seccomp`): numbers with the same verdict are joined to ranges, and the ranges
//! searched by halving, so a call costs some eight comparisons. Only the low halves of arguments are looked at: each of
//! these calls takes 32 bits and drops the rest, so looking at more would let a set high bit through.

use libc::sock_filter;

/// The answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// `EPERM`
    NotPermitted,
    /// `ENOSYS`
    Unknown,
    /// Allowed unless the first argument has one of these bits.
    UnlessFlags(u32),
    /// Allowed unless the first argument is this.
    Unless(u32),
    /// Allowed when the first argument is one of these.
    OneOf(&'static [u32]),
}

// Instructions (`linux/bpf_common.h`): load a word, jump if (always, equal, greater or equal, bits set), return.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

// Offsets in `struct seccomp_data`, little endian.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
const AT_FIRST_ARGUMENT: u32 = 16;

pub(super) const ARCH_X86_64: u32 = 0xc000_003e;
pub(super) const ARCH_I386: u32 = 0x4000_0003;

pub(super) const RET_ALLOW: u32 = 0x7fff_0000;
pub(super) const RET_KILL: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
pub(super) const RET_EPERM: u32 = RET_ERRNO | 1;
pub(super) const RET_ENOSYS: u32 = RET_ERRNO | 38;

fn op(code: u16, k: u32, jt: usize, jf: usize) -> sock_filter {
    // Callers keep conditional jumps below 256.
    sock_filter { code, jt: u8::try_from(jt).unwrap_or(u8::MAX), jf: u8::try_from(jf).unwrap_or(u8::MAX), k }
}

/// The whole filter: one search tree for each architecture.
pub(super) fn compile(x86_64: &[(u32, Verdict)], i386: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let (first, second) = (search(&ranges(x86_64)), search(&ranges(i386)));
    let mut program = Vec::with_capacity(first.len() + second.len() + 8);
    let far = |distance: usize| op(JUMP, u32::try_from(distance).unwrap_or(u32::MAX), 0, 0);
    program.push(op(LOAD, AT_ARCH, 0, 0));
    program.push(op(JUMP_EQUAL, ARCH_X86_64, 3, 0));
    program.push(op(JUMP_EQUAL, ARCH_I386, 0, 1));
    program.push(far(first.len() + 2));
    program.push(op(RETURN, RET_KILL, 0, 0));
    program.push(op(LOAD, AT_NUMBER, 0, 0));
    program.extend(first);
    program.push(op(LOAD, AT_NUMBER, 0, 0));
    program.extend(second);
    // The far jump lands on the second load: over the return, the first load and the first tree.
    program
}

/// Neighbours with one verdict as one range, by their first number. Gaps are not permitted, beyond the end is unknown.
fn ranges(calls: &[(u32, Verdict)]) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut next = 0;
    let mut push = |from: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|last| last.1 != verdict) {
            ranges.push((from, verdict));
        }
    };
    for &(number, verdict) in calls {
        if number > next {
            push(next, Verdict::NotPermitted);
        }
        push(number, verdict);
        next = number + 1;
    }
    push(next, Verdict::Unknown);
    ranges
}

fn search(ranges: &[(u32, Verdict)]) -> Vec<sock_filter> {
    match ranges {
        [] => leaf(Verdict::Unknown),
        [(_, verdict)] => leaf(*verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (below, above) = (search(low), search(high));
            let middle = high.first().map_or(u32::MAX, |range| range.0);
            let mut code = Vec::with_capacity(below.len() + above.len() + 2);
            if below.len() <= usize::from(u8::MAX) {
                code.push(op(JUMP_AT_LEAST, middle, below.len(), 0));
            } else {
                code.push(op(JUMP_AT_LEAST, middle, 0, 1));
                code.push(op(JUMP, u32::try_from(below.len()).unwrap_or(u32::MAX), 0, 0));
            }
            code.extend(below);
            code.extend(above);
            code
        }
    }
}

fn leaf(verdict: Verdict) -> Vec<sock_filter> {
    let end = |answer| op(RETURN, answer, 0, 0);
    let argument = op(LOAD, AT_FIRST_ARGUMENT, 0, 0);
    match verdict {
        Verdict::Allow => vec![end(RET_ALLOW)],
        Verdict::NotPermitted => vec![end(RET_EPERM)],
        Verdict::Unknown => vec![end(RET_ENOSYS)],
        Verdict::UnlessFlags(bits) => {
            vec![argument, op(JUMP_BITS, bits, 0, 1), end(RET_EPERM), end(RET_ALLOW)]
        }
        Verdict::Unless(value) => {
            vec![argument, op(JUMP_EQUAL, value, 0, 1), end(RET_EPERM), end(RET_ALLOW)]
        }
        Verdict::OneOf(values) => {
            let mut code = vec![argument];
            for (index, value) in values.iter().enumerate() {
                code.push(op(JUMP_EQUAL, *value, values.len() - index, 0));
            }
            code.extend([end(RET_EPERM), end(RET_ALLOW)]);
            code
        }
    }
}
