//! The files of an image as a container sees them: owner, mode, links, extended attributes and content.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::Digest;

use super::Env;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `-`, `d`, `l`, `h` (a further name of an earlier file), `c`, `b`, `p`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Where a link leads.
    pub link: String,
    /// Seconds since 1970; directories have none, since mounting touches them.
    pub mtime: u64,
    /// Digest of the content.
    pub content: String,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Files by path.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Entry>);

/// What a container gets from its host and not from its image.
const NOT_THE_IMAGE: [&str; 8] =
    ["dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv", "run/.containerenv"];

impl Tree {
    /// Walk an image by running its own GNU tar in a container.
    #[track_caller]
    pub fn of_image(env: &Env, image: &str) -> Self {
        let mut command = env.command(["run", "--rm", "--network", "none", image, "tar"]);
        command.args(["--create", "--file=-", "--format=posix", "--sort=name", "--numeric-owner"]);
        command.args(["--exclude=./dev", "--exclude=./proc", "--exclude=./sys"]);
        command.args(["--xattrs", "--xattrs-include=*", "--one-file-system", "--directory=/", "."]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cannot walk {image}: {stderr}");
        Self::of_tar(&output.stdout)
    }

    /// Read a tar.
    pub fn of_tar(bytes: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
            if NOT_THE_IMAGE.iter().any(|name| path == *name || path.starts_with(&format!("{name}/"))) {
                continue;
            }
            let file = read_entry(&mut entry);
            files.insert(path, file);
        }
        Self(files)
    }

    /// Paths that differ, with both sides; nothing when the trees are the same.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut paths: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        paths.sort();
        paths.dedup();
        paths
            .into_iter()
            .filter(|path| self.0.get(*path) != other.0.get(*path))
            .map(|path| format!("{path}: {:?} <> {:?}", self.0.get(path), other.0.get(path)))
            .collect()
    }
}

fn read_entry(entry: &mut tar::Entry<'_, &[u8]>) -> Entry {
    let xattrs = entry
        .pax_extensions()
        .unwrap()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|record| {
            let name = record.key().ok()?.strip_prefix("SCHILY.xattr.")?.to_owned();
            Some((name, record.value_bytes().to_vec()))
        })
        .collect();
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Directory => 'd',
        tar::EntryType::Symlink => 'l',
        tar::EntryType::Link => 'h',
        tar::EntryType::Char => 'c',
        tar::EntryType::Block => 'b',
        tar::EntryType::Fifo => 'p',
        _ => '-',
    };
    let mut digest = String::new();
    for byte in sha2::Sha256::digest(&content) {
        digest.push_str(&format!("{byte:02x}"));
    }
    Entry {
        kind,
        mode: header.mode().unwrap(),
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        link: entry
            .link_name_bytes()
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .unwrap_or_default(),
        mtime: if kind == 'd' { 0 } else { header.mtime().unwrap() },
        content: digest,
        xattrs,
    }
}
