//! What is mounted where, as this process sees it (`/proc/self/mountinfo`, `man 5 proc_pid_mountinfo`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{SysError, SysResult};

/// The mount points below a directory, not it itself. The path is taken as it is: make it canonical before.
///
/// # Errors
/// When the table cannot be read.
pub fn below(dir: &Path) -> SysResult<Vec<PathBuf>> {
    let path = Path::new("/proc/self/mountinfo");
    let table = std::fs::read(path).map_err(|error| SysError::path("read", path, error))?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(unescape(field)))
    });
    Ok(points.filter(|point| point != dir && point.starts_with(dir)).collect())
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
    fn the_root_has_mounts_below_and_names_are_read_back() {
        assert!(below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
        assert_eq!(unescape(br"/a\040b\134c"), OsString::from("/a b\\c"));
        assert_eq!(unescape(br"/a\9"), OsString::from("/a\\9"));
    }
}
