//! Subordinate ids (`man 5 subuid`): whose they are and how the map is made of them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::IdRange;

/// newuidmap takes at most this many lines (`/proc/PID/uid_map` since Linux 4.15).
const MAX_LINES: usize = 340;

/// Users or groups: the two halves of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Users,
    Groups,
}

impl Kind {
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Users => "/etc/subuid",
            Self::Groups => "/etc/subgid",
        }
    }

    pub(super) fn map_file(self) -> &'static str {
        match self {
            Self::Users => "uid_map",
            Self::Groups => "gid_map",
        }
    }

    pub(super) fn helper(self) -> &'static str {
        match self {
            Self::Users => "newuidmap",
            Self::Groups => "newgidmap",
        }
    }
}

/// The ranges of one user: what `getsubids` says where the host keeps them elsewhere than in the files, else the
/// files, else `getsubids` once more (a distribution may have no nsswitch line and still know better).
///
/// The order costs nothing on an ordinary host: without a `subid:` line in nsswitch.conf, `getsubids` reads the same
/// file that we can read without starting it.
pub(super) fn ranges(kind: Kind, uid: u32, name: Option<&str>, path: &[PathBuf]) -> Vec<(u32, u32)> {
    let nsswitch = read_small(Path::new("/etc/nsswitch.conf")).unwrap_or_default();
    if subids_elsewhere(&nsswitch) {
        let found = ask_getsubids(kind, uid, name, path);
        if !found.is_empty() {
            return found;
        }
    }
    let text = read_small(Path::new(kind.file())).unwrap_or_default();
    let found = parse_subid(&text, uid, name);
    if found.is_empty() { ask_getsubids(kind, uid, name, path) } else { found }
}

/// Whether nsswitch.conf names a source of subordinate ids beside the files.
fn subids_elsewhere(nsswitch: &str) -> bool {
    nsswitch
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().strip_prefix("subid:"))
        .any(|sources| sources.split_whitespace().any(|source| source != "files"))
}

/// `user:first:count` lines, the user by name or number. Lines that make no sense are skipped, as shadow does.
fn parse_subid(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (who, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            let ours = Some(who) == name || who.parse() == Ok(uid);
            let range = (first.parse().ok()?, count.parse().ok()?);
            (ours && fields.next().is_none()).then_some(range)
        })
        .collect()
}

/// The answer of `getsubids [-g] NAME`: lines `0: name first count`.
fn ask_getsubids(kind: Kind, uid: u32, name: Option<&str>, path: &[PathBuf]) -> Vec<(u32, u32)> {
    let Some(program) = find_program("getsubids", path) else { return Vec::new() };
    let mut command = Command::new(program);
    if kind == Kind::Groups {
        command.arg("-g");
    }
    let user = name.map_or_else(|| uid.to_string(), str::to_owned);
    if user.starts_with('-') {
        return Vec::new();
    }
    let output = command.arg(user).env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output();
    let Ok(output) = output else { return Vec::new() };
    parse_getsubids(&String::from_utf8_lossy(&output.stdout))
}

fn parse_getsubids(text: &str) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let mut fields = rest.split_whitespace().skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// Our own id becomes `at`, the ranges take the others from 0 on. What overlaps (the kernel would refuse the whole map) or
/// leaves the numbers is dropped.
pub(super) fn map_of(own: u32, at: u32, ranges: &[(u32, u32)]) -> Vec<IdRange> {
    let mut map = vec![IdRange { inside: at, outside: own, count: 1 }];
    let mut next = 0u32;
    for &(first, count) in ranges {
        let Some(end) = first.checked_add(count) else { continue };
        let overlaps = map.iter().any(|r| first < r.outside.saturating_add(r.count) && r.outside < end);
        // One more for our own.
        let fits = next.checked_add(count).and_then(|after| after.checked_add(1)).is_some();
        if overlaps || !fits {
            continue;
        }
        let (mut first, mut left) = (first, count);
        while left > 0 && map.len() < MAX_LINES {
            next += u32::from(next == at);
            let take = if next < at { left.min(at - next) } else { left };
            map.push(IdRange { inside: next, outside: first, count: take });
            (next, first, left) = (next + take, first + take, left - take);
        }
    }
    map
}

/// The user's name in `/etc/passwd`. Read here, as the C library's way loads plug-ins into a static binary.
pub(super) fn user_name(uid: u32) -> Option<String> {
    let text = read_small(Path::new("/etc/passwd"))?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A program in these directories.
pub(super) fn find_program(name: &str, path: &[PathBuf]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    path.iter().map(|dir| dir.join(name)).find(|candidate| {
        candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// A system file of sane size, as text.
pub(super) fn read_small(path: &Path) -> Option<String> {
    const LIMIT: u64 = 4 << 20;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subid_lines() {
        let text = "a:1:2\nbob:100000:65536\n# bob:5:6\n1001:300000:10\nbob:x:1\nbob:7:8:9\n bob:400000:5 \n";
        assert_eq!(parse_subid(text, 1001, Some("bob")), [(100_000, 65536), (300_000, 10), (400_000, 5)]);
        assert_eq!(parse_subid(text, 1001, None), [(300_000, 10)]);
        assert!(parse_subid("bob:100000:99999999999\n", 1, Some("bob")).is_empty());
    }

    #[test]
    fn getsubids_lines() {
        assert_eq!(parse_getsubids("0: tester 100000 65536\n1: tester 9 1\n"), [(100_000, 65536), (9, 1)]);
        assert!(parse_getsubids("Error fetching ranges\n").is_empty());
    }

    #[test]
    fn nsswitch_lines() {
        for (text, expected) in [
            ("passwd: files sss\n", false),
            ("subid: files\n", false),
            ("subid:\tsss\n", true),
            ("subid: files sss # both\n", true),
            ("#subid: sss\n", false),
        ] {
            assert_eq!(subids_elsewhere(text), expected, "{text:?}");
        }
    }

    #[test]
    fn maps_have_no_overlap() {
        let map = map_of(
            1000,
            0,
            &[(100_000, 65536), (165_000, 10), (999, 5), (200_000, 10), (u32::MAX, 10), (5, 0)],
        );
        let expected = [(0, 1000, 1), (1, 100_000, 65536), (65537, 200_000, 10)];
        let map: Vec<_> = map.iter().map(|r| (r.inside, r.outside, r.count)).collect();
        assert_eq!(map, expected);
        let lines = |at: u32, ranges: &[(u32, u32)]| -> Vec<(u32, u32, u32)> {
            map_of(1000, at, ranges).iter().map(|r| (r.inside, r.outside, r.count)).collect()
        };
        assert_eq!(
            lines(1000, &[(100_000, 65536)]),
            [(1000, 1000, 1), (0, 100_000, 1000), (1001, 101_000, 64536)]
        );
        assert_eq!(lines(5, &[(100, 3), (200, 4)]), [(5, 1000, 1), (0, 100, 3), (3, 200, 2), (6, 202, 2)]);
        assert_eq!(lines(70_000, &[(100_000, 65536)]), [(70_000, 1000, 1), (0, 100_000, 65536)]);
        assert_eq!(lines(3, &[(100, 3), (200, 4)]), [(3, 1000, 1), (0, 100, 3), (4, 200, 4)]);
    }
}
