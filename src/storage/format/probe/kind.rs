//! Which file system a path lies on, from the mount table, and what that means for a store.

use std::path::Path;

/// What the mount table and `statfs(2)` say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nature {
    /// As `mount` calls it.
    pub name: String,
    /// Locks stay on this machine.
    pub local_locks: bool,
}

/// Names of file systems by their magic number (`linux/magic.h`, `man 2 statfs`), for where there is no mount table.
const MAGICS: [(u64, &str); 19] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x2fc1_2fc1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x6573_5546, "fuse"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x1983_0326, "beegfs"),
];

/// What a kind of file system means, by the beginning of its name; the first that fits counts.
const MEANINGS: [(&str, &str); 15] = [
    ("nfs", "every file costs a round trip, and the server may refuse the owners of files"),
    ("cifs", "every file costs a round trip, and owners and modes of files are not kept"),
    ("smb", "every file costs a round trip, and owners and modes of files are not kept"),
    ("lustre", "many small files are slow, and overlay mounts do not work"),
    ("gpfs", "many small files are slow, and the server may refuse the owners of files"),
    ("ceph", "every file costs a round trip"),
    ("beegfs", "many small files are slow, and overlay mounts do not work"),
    ("afs", "every file costs a round trip, and modes of files are not kept"),
    ("9p", "it is slow, and overlay mounts do not work"),
    ("virtiofs", "overlay mounts may not work"),
    ("fuse", "it is slow, and locks and safety from crashes are what its server makes of them"),
    ("overlay", "an overlay cannot lie on another, so the files of containers are copied"),
    ("aufs", "an overlay cannot lie on it, so the files of containers are copied"),
    ("ecryptfs", "an overlay cannot lie on it, so the files of containers are copied"),
    ("ramfs", "images take memory and are gone after a restart"),
];

/// What the name of a file system means for a store; `None` for a local disk.
pub(super) fn meaning(name: &str) -> Option<&'static str> {
    MEANINGS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, what)| *what)
}

impl Nature {
    /// Of the file system that `path` lies on.
    pub(super) fn of(path: &Path) -> Self {
        let magic = rustix::fs::statfs(path).map_or(0, |stat| stat.f_type as u64);
        let by_magic = MAGICS.iter().find(|(number, _)| *number == magic & 0xffff_ffff);
        let name = by_magic.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned());
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        find(&table, &real).unwrap_or(Self { name, local_locks: false })
    }
}

/// The mount that holds a path: of those at the longest mount point above it the last, which covers the others
/// (`proc_pid_mountinfo(5)`).
fn find(table: &str, path: &Path) -> Option<Nature> {
    let mut best: Option<(usize, Nature)> = None;
    for line in table.lines() {
        let (left, right) = line.split_once(" - ")?;
        let point = unescape(left.split(' ').nth(4)?);
        let mut right = right.split(' ');
        let (name, options) = (right.next()?, right.nth(1).unwrap_or_default());
        if path.starts_with(&point) && best.as_ref().is_none_or(|(length, _)| point.len() >= *length) {
            best = Some((point.len(), Nature { name: name.to_owned(), local_locks: local(name, options) }));
        }
    }
    best.map(|(_, nature)| nature)
}

/// `nolock` and `local_lock=` (`man 5 nfs`), and Lustre's `localflock`.
fn local(name: &str, options: &str) -> bool {
    let options: Vec<&str> = options.split(',').collect();
    let has = |wanted: &[&str]| wanted.iter().any(|option| options.contains(option));
    match name {
        "nfs" | "nfs4" => has(&["nolock", "local_lock=flock", "local_lock=all"]),
        "lustre" => has(&["localflock"]),
        "cifs" | "smb3" => has(&["nobrl"]),
        _ => false,
    }
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let table = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    table.into_iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
90 22 0:50 / /home rw - nfs4 server:/home rw,vers=4.2,local_lock=none,addr=10.0.0.1
91 90 0:51 / /home/old\\040place rw - nfs server:/old rw,vers=3,nolock,local_lock=all
92 22 0:52 / /mnt rw - fuse.sshfs host: rw,user_id=0
93 92 0:53 / /mnt rw - tmpfs tmpfs rw
";

    #[test]
    fn the_mount_that_holds_a_path_is_found() {
        let nature = |path: &str| find(TABLE, Path::new(path)).map(|n| (n.name, n.local_locks));
        let table = [
            ("/var/lib", ("ext4", false)),
            ("/home/u/store", ("nfs4", false)),
            ("/home/old place/store", ("nfs", true)),
            ("/homework", ("ext4", false)),
            ("/mnt/x", ("tmpfs", false)),
        ];
        for (path, (name, local)) in table {
            assert_eq!(nature(path), Some((name.to_owned(), local)), "{path}");
        }
        assert_eq!(find("nonsense\n", Path::new("/")), None);
    }

    #[test]
    fn network_and_stacked_file_systems_have_a_meaning_and_disks_have_none() {
        for name in ["nfs4", "fuse.fuse-overlayfs", "fuseblk", "overlay", "cifs", "lustre", "9p"] {
            assert!(meaning(name).is_some(), "{name}");
        }
        for name in ["ext4", "xfs", "btrfs", "tmpfs", "zfs"] {
            assert!(meaning(name).is_none(), "{name}");
        }
    }
}
