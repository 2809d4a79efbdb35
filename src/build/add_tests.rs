use std::os::unix::fs::{MetadataExt, symlink};

use super::super::tree::Owners;
use super::*;

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, data: &str, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(if kind == tar::EntryType::Directory { 0o750 } else { 0o640 });
        header.set_mtime(1_234_567_890);
        header.set_uid(0);
        header.set_gid(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    };
    add("r.txt", tar::EntryType::Regular, "r", "");
    add("bin", tar::EntryType::Directory, "", "");
    add("bin/x", tar::EntryType::Regular, "x", "");
    add("bin/h", tar::EntryType::Link, "", "bin/x");
    add("ln", tar::EntryType::Symlink, "", "bin/x");
    add("../../up", tar::EntryType::Regular, "up", "");
    add("alias/in", tar::EntryType::Regular, "in", "");
    add("fifo", tar::EntryType::Fifo, "", "");
    builder.into_inner().unwrap()
}

#[test]
fn an_archive_lands_over_what_is_there_and_never_outside() {
    let (source, outer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("a.bin"), archive()).unwrap();
    std::fs::write(source.path().join("text.tar"), "just text").unwrap();
    std::fs::write(source.path().join("bad.gz"), b"\x1f\x8b\x08 not gzip at all").unwrap();
    let tree = Tree::new(File::open(source.path()).unwrap().into(), Owners::Root, None);
    assert!(sniff(&tree, Path::new("a.bin")).unwrap());
    assert!(!sniff(&tree, Path::new("text.tar")).unwrap());
    assert!(!sniff(&tree, Path::new("bad.gz")).unwrap());

    let root = outer.path().join("root");
    std::fs::create_dir_all(root.join("out/r.txt/in/the/way")).unwrap();
    std::fs::create_dir_all(root.join("real")).unwrap();
    symlink("/real", root.join("out/alias")).unwrap();
    let fd = File::open(&root).unwrap();
    let mut placer = Placer::new(fd.as_fd());
    unpack(&tree, Path::new("a.bin"), &mut placer, Path::new("/out"), None).unwrap();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(read("out/r.txt"), "r");
    assert_eq!(read("out/ln"), "x");
    assert_eq!(read("out/up"), "up");
    assert_eq!(read("real/in"), "in");
    assert!(!root.join("out/fifo").exists() && !outer.path().join("up").exists());
    let at = |path: &str| std::fs::metadata(root.join(path)).unwrap();
    assert_eq!(at("out/bin/h").ino(), at("out/bin/x").ino());
    assert_eq!((at("out/bin").mtime(), at("out/r.txt").mode() & 0o7777), (1_234_567_890, 0o640));
    assert_eq!(at("out/bin/x").mode() & 0o7777, 0o640);
}
