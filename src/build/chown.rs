//! `--chown`: numbers, or names looked up in the destination's own `/etc/passwd` and `/etc/group`.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat};

use super::beneath::{self, kind};

/// The largest account file that is read, in bytes; the reference's limit.
const MAX_BYTES: u64 = 10 << 20;

/// Why an owner cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChownError {
    /// Neither a number nor a name in the account file.
    #[error("invalid {kind} index: no {kind} `{name}` in {file}")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Where it was looked up.
        file: &'static str,
    },
    /// The account file cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two colons and more.
    #[error("invalid chown string: {0}")]
    Malformed(String),
}

/// The ids that `user[:group]` stands for. Without accounts (`--link`) names cannot be told.
pub(super) fn resolve(text: &str, root: Option<BorrowedFd<'_>>) -> Result<(u32, u32), ChownError> {
    let mut parts = text.splitn(2, ':');
    let user = parts.next().unwrap_or_default();
    let group = parts.next();
    if group.is_some_and(|group| group.contains(':')) {
        return Err(ChownError::Malformed(text.into()));
    }
    let (uid, own_gid) = match user {
        "" | "root" => (0, 0),
        number if number.parse::<u32>().is_ok() => {
            let uid = number.parse().unwrap_or_default();
            (uid, uid)
        }
        name => look_up(root, "user", name, "/etc/passwd")?,
    };
    let gid = match group {
        None => own_gid,
        Some("" | "root") => 0,
        Some(number) if number.parse::<u32>().is_ok() => number.parse().unwrap_or_default(),
        Some(name) => look_up(root, "group", name, "/etc/group")?.0,
    };
    Ok((uid, gid))
}

/// Fields three and four of the entry of that name: uid and gid, or gid and something else.
fn look_up(
    root: Option<BorrowedFd<'_>>,
    kind: &'static str,
    name: &str,
    file: &'static str,
) -> Result<(u32, u32), ChownError> {
    let unknown = || ChownError::Unknown { kind, name: name.into(), file };
    let root = root.ok_or_else(unknown)?;
    let reader = open_accounts(root, file).map_err(|source| ChownError::Read { file, source })?;
    for line in reader.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(|source| ChownError::Read { file, source })?;
        let mut fields = line.split(':');
        if fields.next() == Some(name) {
            let id = fields.nth(1).and_then(|id| id.parse().ok()).ok_or_else(unknown)?;
            return Ok((id, fields.next().and_then(|id| id.parse().ok()).unwrap_or(0)));
        }
    }
    Err(unknown())
}

fn open_accounts(root: BorrowedFd<'_>, file: &str) -> io::Result<Option<BufReader<io::Take<std::fs::File>>>> {
    let found = beneath::resolve(root, Path::new(file), true)?;
    if found.stat.is_none() {
        return Ok(None);
    }
    let fd = beneath::open(root, &found.path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let stat = fstat(&fd)?;
    if kind(&stat) != FileType::RegularFile || stat.st_size.cast_unsigned() > MAX_BYTES {
        return Err(io::Error::other("not a regular file of at most 10 MiB"));
    }
    Ok(Some(BufReader::new(std::fs::File::from(fd).take(MAX_BYTES))))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn numbers_and_names() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:/\nweb:x:33:34::/:/\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\ndevs:x:77:web\n").unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        for (text, ids) in [
            ("5", (5, 5)),
            ("5:6", (5, 6)),
            (":33", (0, 33)),
            ("33:", (33, 0)),
            ("root", (0, 0)),
            ("web", (33, 34)),
            ("web:devs", (33, 77)),
            ("0:devs", (0, 77)),
        ] {
            assert_eq!(resolve(text, Some(root.as_fd())).unwrap(), ids, "{text}");
        }
        assert!(resolve("nobody", Some(root.as_fd())).is_err());
        assert!(resolve("web", None).is_err());
        assert!(resolve("1:2:3", None).is_err());
    }
}
