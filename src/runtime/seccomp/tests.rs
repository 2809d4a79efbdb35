//! Every number of both tables, run through an interpreter of the compiled filter.

use super::bpf::{ARCH_I386, ARCH_X86_64, RET_ALLOW, RET_ENOSYS, RET_EPERM, RET_KILL};
use super::{Rule, default_filter, table};
use crate::runtime::{Capabilities, capability};

/// What the kernel's interpreter does for the few instructions we use.
fn run(filter: &[libc::sock_filter], arch: u32, number: u32, argument: u64) -> u32 {
    let mut word = 0u32;
    let mut at = 0;
    for _ in 0..filter.len() {
        let op = filter[at];
        at += 1;
        let (jt, jf) = (usize::from(op.jt), usize::from(op.jf));
        match op.code {
            0x20 => {
                word = match op.k {
                    0 => number,
                    4 => arch,
                    16 => argument as u32,
                    20 => (argument >> 32) as u32,
                    other => panic!("load of {other}"),
                }
            }
            0x05 => at += op.k as usize,
            0x15 => at += if word == op.k { jt } else { jf },
            0x35 => at += if word >= op.k { jt } else { jf },
            0x45 => at += if word & op.k != 0 { jt } else { jf },
            0x06 => return op.k,
            code => panic!("instruction {code}"),
        }
    }
    panic!("no end");
}

fn expected(rule: Rule, caps: &Capabilities, argument: u64) -> u32 {
    let has = |number: u8| caps.bounding.contains(&number);
    let yes = |allowed: bool| if allowed { RET_ALLOW } else { RET_EPERM };
    match rule {
        Rule::Allow => RET_ALLOW,
        Rule::Deny => RET_EPERM,
        Rule::With(any) => yes(any.iter().any(|number| has(*number))),
        Rule::Clone => yes(has(21) || argument & 0x7e02_0000 == 0),
        Rule::Clone3 => {
            if has(21) {
                RET_ALLOW
            } else {
                RET_ENOSYS
            }
        }
        Rule::Socket => yes(argument as u32 != 40),
        Rule::Personality => yes([0, 8, 0x20000, 0x20008, u32::MAX].contains(&(argument as u32))),
    }
}

#[test]
fn every_number_gets_its_rule() {
    let none = Capabilities::default();
    for caps in [none, capability::defaults(), capability::all()] {
        let filter = default_filter(&caps);
        assert!(filter.len() < 1000, "{} instructions", filter.len());
        for argument in
            [0, 1, 8, 40, 38, 0x1_0000_0028, 0x1000_0000, 0x0002_0000, 0x2_0008, 0xffff_ffff, 0x11]
        {
            for (arch, column) in [(ARCH_X86_64, 1), (ARCH_I386, 2)] {
                for number in 0..600u32 {
                    let found = table::SYSCALLS.iter().find(|row| {
                        let known = if column == 1 { row.1 } else { row.2 };
                        u32::try_from(known) == Ok(number)
                    });
                    let wanted = match found {
                        Some(row) => expected(row.3, &caps, argument),
                        None if number > 467 => RET_ENOSYS,
                        None => RET_EPERM,
                    };
                    let got = run(&filter, arch, number, argument);
                    assert_eq!(got, wanted, "{arch:x} {number} {argument:x} {found:?}");
                }
            }
        }
        assert_eq!(run(&filter, ARCH_X86_64, 0x4000_0000, 0), RET_ENOSYS, "x32");
        assert_eq!(run(&filter, ARCH_X86_64, u32::MAX, 0), RET_ENOSYS);
        assert_eq!(run(&filter, 0xc000_00b7, 0, 0), RET_KILL, "another machine");
    }
}

#[test]
fn numbers_are_those_of_the_kernel() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("clone3", libc::SYS_clone3),
        ("keyctl", libc::SYS_keyctl),
        ("openat2", libc::SYS_openat2),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("fchmodat2", libc::SYS_fchmodat2),
        ("mseal", libc::SYS_mseal),
    ] {
        let row = table::SYSCALLS.iter().find(|row| row.0 == name).unwrap();
        assert_eq!(i64::from(row.1), number, "{name}");
    }
    let rule = |name: &str| table::SYSCALLS.iter().find(|row| row.0 == name).map(|row| row.3);
    for name in
        ["keyctl", "add_key", "request_key", "userfaultfd", "kexec_load", "io_uring_setup", "pivot_root"]
    {
        assert_eq!(rule(name), Some(Rule::Deny), "{name}");
    }
    assert_eq!(rule("mount"), Some(Rule::With(&[21])));
    let mut names: Vec<_> = table::SYSCALLS.iter().map(|row| row.0).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a name twice");
}

/// Compiling must cost next to nothing beside a container's start.
#[test]
fn compiling_is_quick() {
    let caps = capability::defaults();
    let before = std::time::Instant::now();
    for _ in 0..100 {
        assert!(!default_filter(&caps).is_empty());
    }
    println!("compile: {:?}, {} instructions", before.elapsed() / 100, default_filter(&caps).len());
}
