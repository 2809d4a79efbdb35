//! Names in a layer: made relative and plain, and told apart from whiteouts (OCI image-spec, layer.md "Whiteouts").

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What begins the name of a whiteout.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// What begins the names that AUFS kept for itself.
const AUFS: &[u8] = b".wh..wh.";
/// The name that makes its directory opaque.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// `PATH_MAX` without the NUL: longer paths cannot be handed to the kernel at once.
pub(super) const MAX_PATH: usize = 4095;
/// `NAME_MAX` of every Linux file system.
const MAX_NAME: usize = 255;

/// What the name of an entry stands for. Paths are relative, without `.`, `..` and double slashes; empty for the root.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// An entry.
    Entry(PathBuf),
    /// What has this path in the layers below is gone.
    Whiteout(PathBuf),
    /// Everything that the layers below have in this directory is gone.
    Opaque(PathBuf),
    /// Bookkeeping of AUFS.
    Ignored,
}

/// The name of an entry of an archive that is no layer.
pub(super) fn plain(raw: &[u8]) -> Result<Name, String> {
    if raw.is_empty() { Err("entry without a name".into()) } else { normalise(raw).map(Name::Entry) }
}

/// Understand the name of an entry.
pub(super) fn classify(raw: &[u8]) -> Result<Name, String> {
    let Name::Entry(path) = plain(raw)? else { return Ok(Name::Ignored) };
    let names: Vec<&[u8]> = path.iter().map(OsStr::as_bytes).collect();
    let Some((last, above)) = names.split_last() else { return Ok(Name::Entry(path)) };
    if above.iter().any(|name| name.starts_with(AUFS)) {
        return Ok(Name::Ignored);
    }
    if above.iter().any(|name| name.starts_with(WHITEOUT)) {
        return Err(format!("`{}` lies in a directory with the name of a whiteout", path.display()));
    }
    let dir = path.parent().unwrap_or(Path::new(""));
    if *last == OPAQUE {
        return Ok(Name::Opaque(dir.to_owned()));
    }
    if last.starts_with(AUFS) {
        return Ok(Name::Ignored);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Name::Entry(path)),
        Some(b"" | b"." | b"..") => Err(format!("`{}` is a whiteout of nothing", path.display())),
        Some(name) => Ok(Name::Whiteout(dir.join(OsStr::from_bytes(name)))),
    }
}

/// A name as a plain relative path. `..` may lead back, but not out of the root.
pub(super) fn normalise(raw: &[u8]) -> Result<PathBuf, String> {
    let shown = || String::from_utf8_lossy(&raw[..raw.len().min(200)]).escape_debug().to_string();
    if raw.contains(&0) {
        return Err(format!("name `{}` with a NUL", shown()));
    }
    if raw.len() > MAX_PATH {
        return Err(format!("name `{}…` of {} bytes", shown(), raw.len()));
    }
    let mut path = PathBuf::new();
    for name in raw.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if !path.pop() {
                    return Err(format!("name `{}` leads out of the root", shown()));
                }
            }
            name if name.len() > MAX_NAME => {
                return Err(format!("name `{}…` with a part of {} bytes", shown(), name.len()));
            }
            name => path.push(OsStr::from_bytes(name)),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_or_refused() {
        let entry = |path: &str| Some(Name::Entry(path.into()));
        let whiteout = |path: &str| Some(Name::Whiteout(path.into()));
        for (raw, expected) in [
            ("a/b", entry("a/b")),
            ("./a//b/", entry("a/b")),
            ("/abs/x", entry("abs/x")),
            ("a/../b", entry("b")),
            ("./../x", None),
            ("../../canary", None),
            ("a/../../canary", None),
            ("", None),
            ("/", entry("")),
            (".", entry("")),
            ("a\0b", None),
            ("a\nb", entry("a\nb")),
            ("..a/...", entry("..a/...")),
            (".wh.x", whiteout("x")),
            ("d/.wh.x/", whiteout("d/x")),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".wh....", whiteout("...")),
            (".wh./x", None),
            (".wh.d/x", None),
            (".wh..wh.x", Some(Name::Ignored)),
            (".wh..wh.plnk/12.3", Some(Name::Ignored)),
            (".wh..wh..opq", Some(Name::Opaque("".into()))),
            ("d/.wh..wh..opq", Some(Name::Opaque("d".into()))),
        ] {
            assert_eq!(classify(raw.as_bytes()).ok(), expected, "{raw:?}");
        }
        assert!(classify(&[b'n'; 256]).is_err());
        assert!(classify(&[b'n'; 255]).is_ok());
        assert!(classify("d/".repeat(2500).as_bytes()).is_err());
        assert!(classify(b"a\xff").is_ok());
    }
}
