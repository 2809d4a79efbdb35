use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::super::tree::Owners;
use super::*;
use crate::layer::OwnerTable;

struct Dirs {
    source: tempfile::TempDir,
    dest: tempfile::TempDir,
}

impl Dirs {
    /// A source with files of these names, each holding its name.
    fn new(files: &[&str]) -> Self {
        let dirs = Self { source: tempfile::tempdir().unwrap(), dest: tempfile::tempdir().unwrap() };
        for file in files {
            let path = dirs.source.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        dirs
    }

    fn copy(&self, rules: Rules<'_>, source: &str, dest: &str) -> Result<OwnerTable, CopyError> {
        let tree = Tree::new(fs::File::open(self.source.path()).unwrap().into(), Owners::Root, None);
        let root = fs::File::open(self.dest.path()).unwrap();
        let mut copier = Copier::new(Placer::new(root.as_fd()), rules);
        copier.copy(&tree, Path::new(source), dest)?;
        Ok(copier.into_placer().owners)
    }

    fn plain(&self, source: &str, dest: &str) -> Result<OwnerTable, CopyError> {
        self.copy(Rules::default(), source, dest)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dest.path().join(path)).unwrap_or_else(|error| error.to_string())
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.dest.path().join(path)).unwrap().mode() & 0o7777
    }
}

#[test]
fn the_destination_says_where_a_file_goes() {
    for (dest, at) in
        [("/b", "b"), ("/d/", "d/a"), ("/e/f/", "e/f/a"), ("/g/.", "g/a"), ("/deep/er/d", "deep/er/d")]
    {
        let dirs = Dirs::new(&["a"]);
        dirs.plain("/a", dest).unwrap();
        assert_eq!(dirs.read(at), "a", "{dest}");
    }
    let dirs = Dirs::new(&["a"]);
    fs::create_dir(dirs.dest.path().join("etc")).unwrap();
    dirs.plain("/a", "/etc").unwrap();
    dirs.plain("/a", "/etc/passwd").unwrap();
    assert_eq!((dirs.read("etc/a"), dirs.read("etc/passwd")), ("a".into(), "a".into()));
}

#[test]
fn a_directory_gives_its_contents() {
    for dest in ["/one", "/two/", "/three/.", "/four/x"] {
        let dirs = Dirs::new(&["dir/a", "dir/sub/b", "dir/.hidden"]);
        dirs.plain("/dir", dest).unwrap();
        let at = dest.trim_matches(['/', '.']);
        assert_eq!(dirs.read(&format!("{at}/a")), "dir/a", "{dest}");
        assert_eq!(dirs.read(&format!("{at}/sub/b")), "dir/sub/b");
        assert_eq!(dirs.read(&format!("{at}/.hidden")), "dir/.hidden");
    }
}

#[test]
fn links_in_the_destination_are_followed_and_never_out() {
    let dirs = Dirs::new(&["a", "d/e"]);
    let dest = dirs.dest.path();
    fs::create_dir(dest.join("real")).unwrap();
    symlink("/real", dest.join("alias")).unwrap();
    symlink("../../../../real", dest.join("up")).unwrap();
    symlink("/not/yet", dest.join("dangling")).unwrap();
    dirs.plain("/a", "/alias/new/b").unwrap();
    dirs.plain("/a", "/up/c").unwrap();
    dirs.plain("/d", "/alias").unwrap();
    dirs.plain("/a", "/dangling").unwrap();
    assert_eq!(dirs.read("real/new/b"), "a");
    assert_eq!(dirs.read("real/c"), "a");
    assert_eq!(dirs.read("real/e"), "d/e");
    assert_eq!(dirs.read("not/yet"), "a");
}

#[test]
fn what_is_in_the_way() {
    let dirs = Dirs::new(&["src/f", "src/sub/x", "file"]);
    let dest = dirs.dest.path();
    fs::create_dir_all(dest.join("d/sub")).unwrap();
    fs::write(dest.join("out"), "outside").unwrap();
    symlink("/out", dest.join("d/f")).unwrap();
    dirs.plain("/src", "/d").unwrap();
    assert_eq!((dirs.read("d/f"), dirs.read("out")), ("src/f".into(), "outside".into()));

    fs::create_dir_all(dest.join("e/f")).unwrap();
    assert!(matches!(dirs.plain("/src", "/e"), Err(CopyError::OverDirectory(_))));
    symlink("/d", dest.join("e2")).unwrap();
    fs::create_dir(dest.join("g")).unwrap();
    symlink("/d", dest.join("g/sub")).unwrap();
    assert!(matches!(dirs.plain("/src", "/g"), Err(CopyError::NonDirectory(_))));
    assert!(matches!(dirs.plain("/src", "/out"), Err(CopyError::NonDirectory(_))));
    assert!(dirs.plain("/file", "/out/below").is_err());
    assert!(matches!(dirs.plain("/nope", "/x"), Err(CopyError::NotFound(_))));
}

#[test]
fn modes_times_links_and_hard_links_are_kept() {
    let dirs = Dirs::new(&["d/f", "d/s/x"]);
    let source = dirs.source.path();
    fs::set_permissions(source.join("d/f"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(source.join("d/s"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::hard_link(source.join("d/f"), source.join("d/s/hard")).unwrap();
    symlink("no/where", source.join("d/l")).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 123_456_789);
    fs::File::options().write(true).open(source.join("d/f")).unwrap().set_modified(old).unwrap();
    dirs.plain("/d", "/o").unwrap();
    let at = |path: &str| fs::symlink_metadata(dirs.dest.path().join(path)).unwrap();
    assert_eq!((dirs.mode("o/f"), dirs.mode("o/s"), dirs.mode("o")), (0o4751, 0o711, 0o755));
    assert_eq!((at("o/f").mtime(), at("o/f").mtime_nsec()), (1_000_000, 123_456_789));
    assert_eq!(at("o/f").ino(), at("o/s/hard").ino());
    assert_eq!(fs::read_link(dirs.dest.path().join("o/l")).unwrap(), Path::new("no/where"));
}

#[test]
fn chmod_reaches_files_directories_and_made_parents() {
    let dirs = Dirs::new(&["a", "d/s/f"]);
    let chmod = Chmod::parse("770").unwrap();
    let rules = Rules { mode: Some(&chmod), ..Rules::default() };
    dirs.copy(rules, "/a", "/p/q/r").unwrap();
    dirs.copy(rules, "/d", "/o").unwrap();
    for path in ["p", "p/q", "p/q/r", "o", "o/s", "o/s/f"] {
        assert_eq!(dirs.mode(path), 0o770, "{path}");
    }
}

#[test]
fn owners_are_put_on_disk_or_remembered() {
    let dirs = Dirs::new(&["a"]);
    let rules = Rules { owner: Some((33, 37)), ..Rules::default() };
    let owners = dirs.copy(rules, "/a", "/p/a").unwrap();
    for path in ["p", "p/a"] {
        let disk = fs::symlink_metadata(dirs.dest.path().join(path)).unwrap();
        let told = owners.get(Path::new(path)).map(|owner| (owner.uid, owner.gid));
        assert_eq!(told.unwrap_or((disk.uid(), disk.gid())), (33, 37), "{path}");
    }
}

struct Hide(&'static [&'static str]);

impl Filter for Hide {
    fn hides(&self, path: &Path) -> bool {
        self.0.iter().any(|hidden| path.starts_with(hidden))
    }
    fn may_show_below(&self, _path: &Path) -> bool {
        true
    }
}

#[test]
fn filters_hide_and_leave_no_empty_parents() {
    let dirs = Dirs::new(&["d/a", "d/s/b", "d/t/u/c"]);
    let hide = Hide(&["s", "t"]);
    let rules = Rules { filters: &[&hide], ..Rules::default() };
    dirs.copy(rules, "/d", "/o").unwrap();
    assert_eq!(dirs.read("o/a"), "d/a");
    assert!(!dirs.dest.path().join("o/s").exists() && !dirs.dest.path().join("o/t").exists());
}
