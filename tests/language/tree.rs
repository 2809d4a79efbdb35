//! Lines that describe files: contexts are made from them, trees compared with them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// One line, taken apart.
#[derive(Debug)]
struct Line<'a> {
    path: &'a str,
    mode: Option<u32>,
    owner: Option<&'a str>,
    what: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let line = line.trim();
        let (path, mut rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut parsed = Line { path, mode: None, owner: None, what: "" };
        loop {
            rest = rest.trim_start();
            let (word, more) = rest.split_once(' ').unwrap_or((rest, ""));
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_number(word) && parsed.mode.is_none() {
                parsed.mode = u32::from_str_radix(word, 8).ok();
            } else if word.split_once(':').is_some_and(|(uid, gid)| is_number(uid) && is_number(gid)) {
                parsed.owner = Some(word);
            } else {
                parsed.what = rest;
                return parsed;
            }
            rest = more;
        }
    }
}

/// The line in the form of [`crate::image::describe`].
pub fn canonical(line: &str) -> String {
    let Line { path, mode, owner, what } = Line::parse(line);
    let owner = owner.unwrap_or("0:0");
    if what.starts_with("->") {
        return format!("{path} {owner} {what}");
    }
    if what.starts_with("=>") {
        return format!("{path} {what}");
    }
    let is_directory = path.ends_with('/');
    let mode = mode.unwrap_or(if is_directory { 0o755 } else { 0o644 });
    let what = if what.is_empty() && !is_directory { "=" } else { what };
    format!("{path} {mode:o} {owner} {what}").trim_end().to_owned()
}

/// Make what the lines describe below `root`.
pub fn make(root: &Path, lines: &[String]) {
    std::fs::create_dir_all(root).unwrap();
    let parsed: Vec<Line<'_>> = lines.iter().map(|line| Line::parse(line)).collect();
    for line in &parsed {
        let path = root.join(line.path.replace("\\s", " "));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some(target) = line.what.strip_prefix("-> ") {
            std::os::unix::fs::symlink(target, &path).unwrap();
            continue;
        } else if let Some(target) = line.what.strip_prefix("=> ") {
            std::fs::hard_link(root.join(target), &path).unwrap();
            continue;
        } else if line.what == "fifo" {
            super::support::must(std::process::Command::new("mkfifo").arg(&path));
        } else if let Some(entries) = line.what.strip_prefix("tar: ") {
            std::fs::write(&path, compressed(line.path, archive(entries))).unwrap();
        } else if line.path.ends_with('/') {
            std::fs::create_dir_all(&path).unwrap();
        } else {
            std::fs::write(&path, unescape(line.what.strip_prefix('=').unwrap_or(line.what).trim_start()))
                .unwrap();
        }
        if !line.path.ends_with('/') {
            let mode = line.mode.unwrap_or(0o644);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    // Directories last: one that may not be written to could not be filled.
    for line in parsed.iter().rev().filter(|line| line.path.ends_with('/')) {
        let mode = std::fs::Permissions::from_mode(line.mode.unwrap_or(0o755));
        std::fs::set_permissions(root.join(line.path), mode).unwrap();
    }
}

/// `a=hello, d/, l->a`: modes 600 and 700, owner 7:8, so that they can be told from what a copy would give.
fn archive(entries: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries.split(", ") {
        let mut header = tar::Header::new_ustar();
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1);
        header.set_size(0);
        if let Some((path, target)) = entry.split_once("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, path, target).unwrap();
        } else if let Some((path, text)) = entry.split_once('=') {
            let text = unescape(text);
            header.set_mode(0o600);
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        } else {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o700);
            builder.append_data(&mut header, entry, std::io::empty()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn compressed(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    match name.rsplit('.').next() {
        Some("gz" | "tgz") => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(bytes.as_slice(), 1).unwrap(),
        Some("bz2") => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => bytes,
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some(other)) => out.push(other),
            (other, _) => out.push(other),
        }
    }
    out
}

/// The reverse of [`unescape`].
pub fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}
