//! What is mounted where, as this process sees it (`/proc/self/mountinfo`, `man 5 proc_pid_mountinfo`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{SysError, SysResult};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// The file system's own options.
    pub options: Vec<String>,
}

/// Everything that is mounted, in the order of the table.
///
/// # Errors
/// When the table cannot be read.
pub fn all() -> SysResult<Vec<Mounted>> {
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read(path).map_err(|error| SysError::path("read", path, error))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(line).collect())
}

fn line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &&[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mounted {
        root: PathBuf::from(unescape(fields.get(3)?)),
        point: PathBuf::from(unescape(fields.get(4)?)),
        kind: fields.get(dash + 1).map(text)?,
        options: fields.get(dash + 3).map(text)?.split(',').map(str::to_owned).collect(),
    })
}

/// The mount points below a directory, not it itself. The path is taken as it is: make it canonical before.
///
/// # Errors
/// When the table cannot be read.
pub fn below(dir: &Path) -> SysResult<Vec<PathBuf>> {
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read(path).map_err(|error| SysError::path("read", path, error))?;
    Ok(points(&table).filter(|point| point != dir && point.starts_with(dir)).collect())
}

/// Whether something is mounted at `point` in the eyes of a process, where its table can be read.
#[must_use]
pub fn is_at(point: &Path, pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/mountinfo"))
        .is_ok_and(|table| points(&table).any(|mounted| mounted == point))
}

fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(unescape(field)))
    })
}

/// Blanks and backslashes stand there as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match (first, digits) {
            (b'\\', Some(digits)) => {
                let value = digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let text = br"36 35 0:30 /a\040b /mnt/c rw,noatime shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct";
        let found = line(text).unwrap();
        assert_eq!((found.root, found.point), ("/a b".into(), "/mnt/c".into()));
        assert_eq!(
            (found.kind.as_str(), found.options.as_slice()),
            ("cgroup", &["rw", "cpu", "cpuacct"].map(String::from)[..])
        );
        assert_eq!(line(b"1 2"), None);
    }

    #[test]
    fn the_root_has_mounts_below_and_names_are_read_back() {
        assert!(below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(is_at(Path::new("/proc"), own) && !is_at(Path::new("/proc/self"), own));
        let table = b"36 35 0:30 / /a\\040b/merged rw - overlay overlay rw\n\n";
        assert_eq!(points(table).collect::<Vec<_>>(), [PathBuf::from("/a b/merged")]);
        assert_eq!(unescape(br"/a\040b\134c"), OsString::from("/a b\\c"));
        assert_eq!(unescape(br"/a\9"), OsString::from("/a\\9"));
    }
}
