//! One figure for one thing: what `system df` calls reclaimable, what a prune says before and after, and what the disk
//! got back.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::fake::noise;
use crate::support::{Env, need, shared_registry};

/// Bytes on disk below a directory as `du` counts them, and how many directories there are.
fn du(path: &Path) -> (u64, u64) {
    let (mut bytes, mut dirs, mut seen) = (0, 0, BTreeSet::new());
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            dirs += 1;
            // What the kernel keeps for itself in an overlay's work directory is closed, and empty.
            let entries = std::fs::read_dir(&path).into_iter().flatten();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
        if meta.is_dir() || seen.insert(meta.ino()) {
            bytes += meta.blocks() * 512;
        }
    }
    (bytes, dirs)
}

/// What `system df` says of a kind: `RawReclaimable`, and as it is printed.
fn reclaimable(env: &Env, kind: &str) -> (u64, String) {
    let format = "{{.Type}}|{{.RawReclaimable}}|{{.Reclaimable}}";
    let all = env.run(["system", "df", "--format", format]).success();
    let row = all.stdout.lines().find(|row| row.starts_with(kind)).unwrap();
    let mut fields = row.split('|').skip(1);
    let raw = fields.next().unwrap().parse().unwrap();
    let shown = fields.next().unwrap().split(' ').next().unwrap().to_owned();
    (raw, shown)
}

fn said(env: &Env, args: &[&str]) -> u64 {
    let format = ["--format", "{{.SpaceReclaimed}}"];
    env.run(args.iter().chain(&format)).success().text().parse().unwrap()
}

/// The last word of the last line: `Total reclaimed space: 12kB`.
fn printed(env: &Env, args: &[&str]) -> String {
    let out = env.run(args).success();
    out.text().rsplit(' ').next().unwrap().to_owned()
}

/// An image whose content takes room, with a base that can run.
fn image(env: &Env, name: &str, seed: u64) {
    let base = shared_registry().image("busybox:latest");
    for file in 0..8 {
        env.write(&format!("{name}/content/{file}"), noise(seed * 100 + file, 9000));
    }
    env.write(&format!("{name}/Dockerfile"), format!("FROM {base}\nCOPY content /content\n"));
    env.run(["build", "-q", "-t", name, name]).success();
}

/// Run something and see what the disk got back; within a block for each directory that there was.
fn frees(env: &Env, bytes: u64, prune: impl FnOnce()) {
    let (before, dirs) = du(&env.store());
    prune();
    let freed = before.saturating_sub(du(&env.store()).0);
    assert!(freed.abs_diff(bytes) <= dirs * 4096, "{freed} freed, {bytes} said, {dirs} directories");
}

#[test]
fn containers_and_volumes_have_one_figure_each() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    image(&env, "img", 1);
    // Links count once, holes not at all, small files a block.
    let script = "mkdir /d; for i in 1 2 3 4 5; do echo x >/d/$i; ln /d/$i /d/l$i; ln -s x /d/s$i; done
        dd if=/dev/urandom of=/d/big bs=1k count=100; cp -a /d /v
        for hole in /d/hole /v/hole; do dd if=/dev/zero of=$hole bs=1 seek=50M count=1; done";
    let run = ["run", "--network", "none", "--name", "c", "-v", "vol:/v", "img", "sh", "-c", script];
    env.run(run).success();
    env.run(["create", "--network", "none", "--name", "new", "img", "true"]).success();

    let (bytes, shown) = reclaimable(&env, "Containers");
    assert!((100 << 10..1 << 20).contains(&bytes), "{bytes}");
    assert_eq!(printed(&env, &["container", "prune", "--dry-run"]), shown);
    let listed = env.run(["ps", "-as", "--format", "{{.Names}} {{.Size}}"]).success();
    let detail = env.run(["system", "df", "-v"]).success();
    for line in listed.text().lines() {
        let (name, size) = line.split_once(' ').unwrap();
        let row = detail.stdout.lines().find(|row| row.trim_end().ends_with(name)).unwrap();
        assert!(row.contains(&format!(" {size} ")), "{line}\n{row}");
    }
    frees(&env, bytes, || assert_eq!(printed(&env, &["container", "prune", "-f"]), shown));

    let (bytes, shown) = reclaimable(&env, "Local Volumes");
    assert!((100 << 10..1 << 20).contains(&bytes), "{bytes}");
    assert_eq!(printed(&env, &["volume", "prune", "-a", "--dry-run"]), shown);
    frees(&env, bytes, || assert_eq!(printed(&env, &["volume", "prune", "-af"]), shown));
}

#[test]
fn images_and_the_build_cache_have_one_figure_each() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    for (name, seed) in [("one", 2), ("two", 3), ("three", 4)] {
        image(&env, name, seed);
    }
    // One that only images keep, one that only the cache keeps, one that both do.
    env.run(["rmi", "one"]).success();
    let (cache, _) = reclaimable(&env, "Build Cache");
    assert_eq!(said(&env, &["builder", "prune", "-a", "--dry-run"]), cache);
    let (images, other) = (reclaimable(&env, "Images").0, reclaimable(&env, "Other").0);
    assert_eq!(said(&env, &["image", "prune", "-a", "--dry-run"]), images + other);
    let mut done = 0;
    frees(&env, cache, || done = said(&env, &["builder", "prune", "-af"]));
    assert!(done.abs_diff(cache) <= 10 * 4096, "{done} said, {cache} before");

    let (images, other) = (reclaimable(&env, "Images").0, reclaimable(&env, "Other").0);
    let dry = said(&env, &["image", "prune", "-a", "--dry-run"]);
    assert_eq!(dry, images + other);
    frees(&env, dry, || done = said(&env, &["image", "prune", "-af"]));
    assert!(done.abs_diff(dry) <= 10 * 4096, "{done} said, {dry} before");
    for kind in ["Images", "Build Cache", "Other"] {
        assert_eq!(reclaimable(&env, kind).0, 0, "{kind}");
    }
}

#[test]
fn a_prune_of_everything_knows_what_goes_with_what() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    image(&env, "one", 5);
    image(&env, "two", 6);
    // Kept by a container that goes, with a volume of its own, and by the cache that goes too.
    let script = "dd if=/dev/urandom of=/v/x bs=1k count=50; dd if=/dev/urandom of=/x bs=1k count=70";
    env.run(["run", "--network", "none", "-v", "/v", "one", "sh", "-c", script]).success();
    let dry = said(&env, &["system", "prune", "-a", "--volumes", "--dry-run"]);
    assert!(dry > 200 << 10, "{dry}");
    let mut done = 0;
    frees(&env, dry, || done = said(&env, &["system", "prune", "-af", "--volumes"]));
    assert!(done.abs_diff(dry) <= 20 * 4096, "{done} said, {dry} before");
    env.run(["images", "-aq"]).success().prints("");
    assert_eq!(said(&env, &["system", "prune", "-af", "--volumes"]), 0);
}
