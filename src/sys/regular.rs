//! Files that others may have put there: what is no regular file is not waited for, followed or read without end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Open a regular file for reading; its name may not be a link.
///
/// # Errors
/// As open(2); `InvalidInput` when it is something else.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

/// The bytes of a regular file, at most `most` of them.
///
/// # Errors
/// As [`open`]; `FileTooLarge` when there are more.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// The bytes of a small file of our own, with as few calls as it takes: listings read thousands. A regular file gives all
/// that it has, so what comes short of the room for it is the end.
///
/// # Errors
/// As open(2) and read(2).
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => length += count?,
        }
        if length < bytes.len() {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(2 * length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_sane_length_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, fifo) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("fifo"));
        std::fs::write(&file, "four").unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"four");
        assert_eq!(read(&file, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert!(read(&link, 4).is_err());
        assert!(read(Path::new("/dev/zero"), 4).is_err());
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(read(&fifo, 4).unwrap_err().kind(), io::ErrorKind::InvalidInput, "and does not hang");
        for length in [0, 1, 4095, 4096, 4097, 20_000] {
            std::fs::write(&file, vec![7; length]).unwrap();
            assert_eq!(read_small(&file).unwrap(), vec![7; length]);
        }
        assert!(read_small(dir.path()).is_err());
        assert_eq!(read(&dir.path().join("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
