//! `--user` and `USER` against the image's `/etc/passwd` and `/etc/group`.
//!
//! The rules are BuildKit's and docker's: what is numeric is an id and never a name; a group that is given replaces all
//! groups of the user; the primary group is always among the supplementary ones. The files come from the image, so
//! they are found inside the root only, must be regular, and are read as a stream of at most [`LARGEST`] bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::rootfs::open_in;
use crate::sys::SysError;

/// Larger files are refused, as by other builders.
const LARGEST: u64 = 10 << 20;

/// Ids above are refused: some file systems and programs keep them in 31 bits, and one that wraps around is root
/// (CVE-2024-40635).
const HIGHEST_ID: u32 = i32::MAX as u32;

/// Who the program will be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    /// The home directory that passwd names; `/` when it names none.
    pub home: String,
    /// The name that passwd has for the id.
    pub name: Option<String>,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Resolve `user[:group]` (empty: root) in the tree behind `root`, with further groups by name or number
/// (`--group-add`).
///
/// # Errors
/// [`Error::UnknownUser`] for a name without an entry, [`Error::Unknown`] for a number out of range,
/// [`Error::ImageFile`] for files that cannot be used.
pub fn resolve(root: BorrowedFd<'_>, spec: &str, group_add: &[String]) -> Result<User, Error> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let mut found = account(root, user, group.is_some_and(|group| id(group).is_some()))?;
    match group {
        Some(group) => {
            found.gid = group_id(root, group)?;
            found.groups = vec![found.gid];
        }
        None => {
            found.groups = vec![found.gid];
            if let Some(name) = found.name.clone() {
                add_groups_of(root, &name, &mut found.groups)?;
            }
        }
    }
    for group in group_add {
        let gid = group_id(root, group)?;
        if !found.groups.contains(&gid) {
            found.groups.push(gid);
        }
    }
    Ok(found)
}

/// Give the tree's `/etc/passwd` and `/etc/group` a line for a user and a group that they do not know. A tree without the
/// files is left without: its programs do not look there.
///
/// # Errors
/// [`Error::ImageFile`] for files that cannot be used or written.
pub fn tell(root: BorrowedFd<'_>, name: &str, uid: u32, gid: u32, home: &str) -> Result<(), Error> {
    let plain =
        |text: &str| !text.is_empty() && !text.contains([':', ',', '/']) && !text.contains(char::is_control);
    let name_for =
        |taken: bool, id: u32| if taken || !plain(name) { format!("user{id}") } else { name.to_owned() };
    let home = if home.contains(':') || home.contains(char::is_control) { "/" } else { home };
    let known = |path: &str, at: usize, text: &str| {
        find(root, path, |line| (line.split(':').nth(at) == Some(text)).then_some(()))
            .map(|found| found.is_some())
    };
    if !known("/etc/passwd", 2, &uid.to_string())? {
        let name = name_for(known("/etc/passwd", 0, name)?, uid);
        append(root, "/etc/passwd", &format!("{name}:*:{uid}:{gid}:{name}:{home}:/bin/sh\n"))?;
    }
    if !known("/etc/group", 2, &gid.to_string())? {
        let name = name_for(known("/etc/group", 0, name)?, gid);
        append(root, "/etc/group", &format!("{name}:x:{gid}:\n"))?;
    }
    Ok(())
}

/// A line at the end of a file of the image; nothing where there is no such file.
fn append(root: BorrowedFd<'_>, path: &str, line: &str) -> Result<(), Error> {
    let Some(mut last) = open_regular(root, path, OFlags::RDONLY)? else { return Ok(()) };
    let Some(mut file) = open_regular(root, path, OFlags::WRONLY | OFlags::APPEND)? else { return Ok(()) };
    let mut end = [b'\n'];
    let whole = last
        .seek(SeekFrom::End(-1))
        .and_then(|_| last.read_exact(&mut end))
        .map_or(true, |()| end == [b'\n']);
    let text = if whole { line.to_owned() } else { format!("\n{line}") };
    file.write_all(text.as_bytes()).map_err(|error| Error::ImageFile {
        path: path.to_owned(),
        what: format!("it cannot be written: {error}"),
    })
}

/// The root of a running container, to resolve users in.
///
/// # Errors
/// [`Error::NotRunning`], or what the kernel answers.
pub fn container_root(pid: i32) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::SRCH) => Err(Error::NotRunning),
        other => other.map_err(|error| SysError::path("open", path, error).into()),
    }
}

/// The user part. With a numeric group a numeric user needs no entry, and a broken passwd only costs its home.
fn account(root: BorrowedFd<'_>, user: &str, numeric_group: bool) -> Result<User, Error> {
    let number = match user {
        "" => Some(0),
        user => checked_id("user", user)?,
    };
    let wanted = |account: &Account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == user,
    };
    let entry = match find(root, "/etc/passwd", |line| parse_account(line).filter(wanted)) {
        Err(_) if numeric_group && number.is_some() => None,
        other => other?,
    };
    match (entry, number) {
        (Some(entry), _) => Ok(User {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: if entry.home.starts_with('/') { entry.home } else { "/".to_owned() },
            name: Some(entry.name),
        }),
        (None, Some(uid)) => {
            let (home, name) = if user.is_empty() {
                ("/root".to_owned(), Some("root".to_owned()))
            } else {
                ("/".to_owned(), None)
            };
            Ok(User { uid, gid: 0, groups: Vec::new(), home, name })
        }
        (None, None) => Err(Error::UnknownUser { kind: "user", name: user.to_owned(), file: "passwd" }),
    }
}

fn group_id(root: BorrowedFd<'_>, group: &str) -> Result<u32, Error> {
    if let Some(gid) = checked_id("group", group)? {
        return Ok(gid);
    }
    find(root, "/etc/group", |line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        (name == group).then_some(gid)
    })?
    .ok_or_else(|| Error::UnknownUser { kind: "group", name: group.to_owned(), file: "group" })
}

fn add_groups_of(root: BorrowedFd<'_>, user: &str, groups: &mut Vec<u32>) -> Result<(), Error> {
    find(root, "/etc/group", |line| -> Option<()> {
        let mut fields = line.split(':');
        let gid = id(fields.nth(2)?)?;
        let member = fields.next()?.split(',').any(|member| member.trim() == user);
        if member && !groups.contains(&gid) {
            groups.push(gid);
        }
        None
    })
    .map(drop)
}

/// An id when it is a number; a number out of range is an error and not a name.
fn checked_id(kind: &'static str, text: &str) -> Result<Option<u32>, Error> {
    if let Some(id) = id(text) {
        return Ok(Some(id));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let kind = if kind == "user" { "user id" } else { "group id" };
        return Err(Error::Unknown { kind, value: text.to_owned() });
    }
    Ok(None)
}

fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= HIGHEST_ID)
}

fn parse_account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    let home = fields.nth(1).unwrap_or("").to_owned();
    (!name.is_empty()).then_some(Account { name, uid, gid, home })
}

/// The first line for which `pick` has an answer. A missing file has no lines.
fn find<T>(
    root: BorrowedFd<'_>,
    path: &str,
    mut pick: impl FnMut(&str) -> Option<T>,
) -> Result<Option<T>, Error> {
    let unusable = |what: &str| Error::ImageFile { path: path.to_owned(), what: what.to_owned() };
    let Some(file) = open_regular(root, path, OFlags::RDONLY)? else { return Ok(None) };
    if file.metadata().map_err(|error| unusable(&error.to_string()))?.len() > LARGEST {
        return Err(unusable("it is larger than 10 MiB"));
    }
    let mut reader = BufReader::new(file.take(LARGEST));
    let mut line = Vec::new();
    loop {
        line.clear();
        let got = reader.read_until(b'\n', &mut line).map_err(|error| unusable(&error.to_string()))?;
        if got == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        if let Some(found) = pick(text.trim_end_matches(['\n', '\r'])) {
            return Ok(Some(found));
        }
    }
}

/// Look at what it is before opening it: opening a device or a pipe can have effects of its own.
fn open_regular(root: BorrowedFd<'_>, path: &str, access: OFlags) -> Result<Option<File>, Error> {
    let unusable = |what: String| Error::ImageFile { path: path.to_owned(), what };
    let regular = |file: &OwnedFd| {
        rustix::fs::fstat(file)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    };
    let handle = match open_in(root, path, OFlags::PATH) {
        Ok(handle) => handle,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    if !regular(&handle) {
        return Err(unusable("it is not a regular file".to_owned()));
    }
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in(root, path, flags).map_err(|error| unusable(error.to_string()))?;
    if regular(&file) { Ok(Some(file.into())) } else { Err(unusable("it is not a regular file".to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    use super::*;

    struct Root(PathBuf, OwnedFd);

    impl Root {
        fn new(name: &str, passwd: &str, group: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("strate-user-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(dir.join("etc")).unwrap();
            std::fs::write(dir.join("etc/passwd"), passwd).unwrap();
            std::fs::write(dir.join("etc/group"), group).unwrap();
            let fd = std::fs::File::open(&dir).unwrap().into();
            Self(dir, fd)
        }

        fn get(&self, spec: &str) -> Result<(u32, u32, Vec<u32>, String), Error> {
            resolve(self.1.as_fd(), spec, &[]).map(|user| (user.uid, user.gid, user.groups, user.home))
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n1:x:0:0::/evil:\nbob:x:1000:50:Bob:/home/bob:/bin/sh\n\
                          nohome:x:7:8\nlast:x:9:9::/l:/x";
    const GROUP: &str =
        "root:x:0:root\nstaff:x:50:\nadm:x:4:bob,root\nvideo:x:44: bob\nbad:x:z:bob\n5:x:99:bob\n";

    #[test]
    fn the_table() {
        let root = Root::new("table", PASSWD, GROUP);
        for (spec, expected) in [
            ("", (0, 0, vec![0, 4], "/root")),
            ("root", (0, 0, vec![0, 4], "/root")),
            ("bob", (1000, 50, vec![50, 4, 44, 99], "/home/bob")),
            ("1000", (1000, 50, vec![50, 4, 44, 99], "/home/bob")),
            ("1", (1, 0, vec![0], "/")),
            ("4242", (4242, 0, vec![0], "/")),
            ("bob:video", (1000, 44, vec![44], "/home/bob")),
            ("bob:7", (1000, 7, vec![7], "/home/bob")),
            ("bob:5", (1000, 5, vec![5], "/home/bob")),
            ("5:6", (5, 6, vec![6], "/")),
            ("1000:6", (1000, 6, vec![6], "/home/bob")),
            ("bob:", (1000, 50, vec![50, 4, 44, 99], "/home/bob")),
            (":adm", (0, 4, vec![4], "/root")),
            ("nohome", (7, 8, vec![8], "/")),
            ("last", (9, 9, vec![9], "/l")),
        ] {
            let got = root.get(spec).unwrap();
            assert_eq!((got.0, got.1, got.2, got.3.as_str()), expected, "{spec:?}");
        }
        let user = resolve(root.1.as_fd(), "bob:bob2", &[]).unwrap_err();
        assert_eq!(user.to_string(), "unknown group `bob2`: the image's /etc/group has no such entry");
        let added = resolve(root.1.as_fd(), "5:6", &["adm".into(), "12".into(), "6".into()]).unwrap();
        assert_eq!(added.groups, [6, 4, 12]);
    }

    #[test]
    fn a_user_that_is_not_known_is_told_once() {
        let root = Root::new("tell", PASSWD, "root:x:0:root\nme:x:7:");
        for _ in 0..2 {
            tell(root.1.as_fd(), "me", 1234, 1234, "/w").unwrap();
            tell(root.1.as_fd(), "bob", 1000, 50, "/w").unwrap();
            tell(root.1.as_fd(), "bob", 1001, 7, "/w\n:").unwrap();
            tell(root.1.as_fd(), "a:b", 1002, 7, "/").unwrap();
        }
        let read = |path: &str| std::fs::read_to_string(root.0.join(path)).unwrap();
        assert_eq!(
            read("etc/passwd"),
            format!(
                "{PASSWD}\nme:*:1234:1234:me:/w:/bin/sh\nuser1001:*:1001:7:user1001:/:/bin/sh\nuser1002:*:1002:7:user1002:/:/bin/sh\n"
            )
        );
        assert_eq!(read("etc/group"), "root:x:0:root\nme:x:7:\nuser1234:x:1234:\nbob:x:50:\n");
        assert_eq!(root.get("1234").unwrap(), (1234, 1234, vec![1234], "/w".into()));
    }

    #[test]
    fn bad_names_and_numbers() {
        let root = Root::new("bad", PASSWD, GROUP);
        for spec in [
            "4294967296",
            "-1",
            "2147483648",
            "root\n",
            "nobody",
            "0:-1",
            "0:4294967296",
            "a:b:c",
            "99999999999999999999",
            "+5",
        ] {
            assert!(root.get(spec).is_err(), "{spec:?}");
        }
    }

    #[test]
    fn hostile_files() {
        let root = Root::new("hostile", "", "");
        let passwd = root.0.join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        assert_eq!(root.get("").unwrap().2, [0]);
        assert_eq!(root.get("7").unwrap().0, 7);
        assert!(root.get("bob").is_err());
        std::os::unix::fs::symlink("/etc/shadow", &passwd).unwrap();
        assert!(
            matches!(root.get("root"), Err(Error::UnknownUser { .. })),
            "inside the root it leads nowhere"
        );
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        assert!(matches!(root.get("bob"), Err(Error::ImageFile { .. })));
        assert_eq!(root.get("3:4").unwrap().0, 3, "needs no file");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(root.get("bob").unwrap_err().to_string().contains("larger than 10 MiB"));
    }
}
