//! What a context holds as a build sees it.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use super::beneath::kind;
use super::error::Error;
use super::ignore::{IgnoreFile, Matcher};
use super::remote::ContextDir;
use super::select::Excluding;
use super::tree::{Filter, Owners, Tree};

/// Something that a build may take from its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextEntry {
    /// Its path in the context.
    pub path: PathBuf,
    /// Bytes of a file; 0 for what is none.
    pub size: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What the ignore file leaves of a context, in the order of names. Directories that are left out whole are not read.
///
/// # Errors
/// When a directory cannot be read, or the ignore file has a malformed pattern.
pub fn context_entries(context: &ContextDir, ignore: Option<&[u8]>) -> Result<Vec<ContextEntry>, Error> {
    let read = |path: &Path| {
        let place = context.path.join(path).display().to_string();
        move |source| Error::Read { place, source }
    };
    let root = std::fs::File::open(&context.path).map_err(read(Path::new("")))?;
    let matcher = match ignore {
        Some(bytes) => IgnoreFile::parse(bytes).map_err(|error| Error::Rule(error.to_string()))?,
        None => Matcher::default(),
    };
    let filter = (!matcher.is_empty()).then(|| Box::new(Excluding(matcher)) as Box<dyn Filter>);
    let tree = Tree::new(root.into(), Owners::Root, filter);
    let mut all = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let dir = tree.open(&path, OFlags::DIRECTORY | OFlags::NOFOLLOW).map_err(read(&path))?;
        let mut below = Vec::new();
        for child in tree.children(dir.as_fd(), &path).map_err(read(&path))? {
            let is_dir = kind(&child.stat) == FileType::Directory;
            let is_file = kind(&child.stat) == FileType::RegularFile;
            let size = if is_file { u64::try_from(child.stat.st_size).unwrap_or(0) } else { 0 };
            if !child.hidden {
                all.push(ContextEntry { path: child.path.clone(), size, is_dir });
            }
            if is_dir {
                below.push(child.path);
            }
        }
        open.extend(below.into_iter().rev());
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a", "docs/README.md", "docs/x", "docs/deep/y", "src/main.rs", "target/big"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let list = |ignore: Option<&[u8]>| {
            let entries = context_entries(&ContextDir::of_user(dir.path()), ignore).unwrap();
            entries.iter().map(|e| format!("{}:{}", e.path.display(), e.size)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            list(Some(b"docs\n!docs/README.md\ntarget\n")),
            "a:1 docs/README.md:14 src:0 src/main.rs:11"
        );
        assert!(list(None).contains("target/big:10"));
        assert!(context_entries(&ContextDir::of_user(dir.path()), Some(b"a[")).is_err());
    }
}
