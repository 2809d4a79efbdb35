//! `image prune`, `builder prune`, `builder du`, `system prune`, `system df`; what they say against what the disk says.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::support::{Env, eventually, is_root, need};

/// An image of some files, without a base: nothing is fetched. They are noise: what is packed takes as much as they do.
fn build(env: &Env, name: &str, files: usize, size: usize) {
    let dir = env.work().join(name);
    std::fs::create_dir_all(dir.join("content")).unwrap();
    for i in 0..files {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (i as u64 + 1);
        let mut content: Vec<u8> = std::iter::repeat_with(|| next_noise(&mut state)).take(size).collect();
        content.extend(format!("{name} {i}").into_bytes());
        std::fs::write(dir.join("content").join(i.to_string()), content).unwrap();
    }
    std::fs::write(
        dir.join("Dockerfile"),
        format!("FROM scratch\nLABEL made={name}\nCOPY content /content\n"),
    )
    .unwrap();
    env.run(["build", "-q", "-t", name, name]).success();
}

/// Bytes that cannot be packed (xorshift64).
fn next_noise(state: &mut u64) -> u8 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()[3]
}

/// Bytes on disk below a directory, as `du` counts them.
fn du(path: &Path) -> u64 {
    let mut bytes = std::fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512);
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let meta = entry.metadata().unwrap();
        bytes += if meta.is_dir() { du(&entry.path()) } else { meta.blocks() * 512 };
    }
    bytes
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

#[test]
fn a_prune_says_before_what_it_will_free_and_frees_that() {
    let env = Env::new();
    build(&env, "one", 200, 3000);
    build(&env, "two", 10, 100_000);
    env.run(["builder", "prune", "-af"]).success();
    let before = du(&env.store());
    let plan = env.run(["image", "prune", "-a", "--dry-run"]).success().stdout_has("untagged: one:latest");
    assert!(plan.stdout.contains("Total reclaimable space: "), "{plan}");
    let planned = number(
        env.run(["image", "prune", "-a", "--dry-run", "--format", "{{.SpaceReclaimed}}"]).success().text(),
    );
    assert_eq!(env.run(["images", "-q"]).success().stdout.lines().count(), 2);
    let said = number(env.run(["image", "prune", "-af", "--format", "{{.SpaceReclaimed}}"]).success().text());
    let freed = before - du(&env.store());
    assert!(freed.abs_diff(said) < 64 * 1024, "{freed} freed, {said} said");
    // Directories may be of any size on disk.
    assert!(planned.abs_diff(freed) < freed / 10 + 64 * 1024, "{freed} freed, {planned} planned");
    env.run(["images", "-q"]).success().prints("");
    env.run(["image", "prune", "-af"]).success().prints("Total reclaimed space: 0B");
}

#[test]
fn nothing_is_removed_without_an_answer() {
    let env = Env::new();
    build(&env, "kept", 1, 10);
    for verb in [&["image", "prune", "-a"][..], &["system", "prune", "-a"], &["builder", "prune", "-a"]] {
        env.run(verb).code(1).stderr_has("--force");
        env.run_with_input(verb, "n\n").success().stderr_has("WARNING!").prints("");
        env.run_with_input(verb, "\n").success().prints("");
    }
    env.run(["images", "--format", "{{.Repository}}"]).success().prints("kept");
    env.run(["image", "prune", "--filter", "nonsense=1", "-f"]).code(1).stderr_has("nonsense");
    env.run(["builder", "prune", "--filter", "nonsense=1", "-f"]).code(1).stderr_has("nonsense");
    env.run(["builder", "prune", "--keep-storage", "lots", "-f"]).code(2).stderr_has("lots");
    env.run_with_input(["image", "prune", "-a"], "y\n").success().stdout_has("untagged: kept:latest");
    env.run(["images", "-q"]).success().prints("");
}

#[test]
fn filters_pick_images_as_those_of_images_do() {
    let env = Env::new();
    for name in ["team/one", "team/two", "other"] {
        build(&env, name, 1, 10);
    }
    let pruned = |filter: &str| {
        let out = env.run(["image", "prune", "-a", "--dry-run", "--filter", filter]).success();
        out.stdout.lines().filter(|line| line.starts_with("untagged: ")).count()
    };
    assert_eq!(pruned("reference=team/*"), 2);
    assert_eq!(pruned("label=made=other"), 1);
    assert_eq!(pruned("label!=made=other"), 2);
    assert_eq!(pruned("until=10h"), 0);
    assert_eq!(pruned("until=0s"), 3);
    assert_eq!(pruned("dangling=true"), 0);
}

#[test]
fn the_build_cache_outlives_its_images_until_it_is_pruned() {
    let env = Env::new();
    build(&env, "x", 3, 5000);
    env.run(["rmi", "x"]).success();
    let again = env.run(["build", "--progress", "plain", "-t", "x", "x"]).success();
    assert_eq!(again.cached_steps(), 1, "{again}");
    env.run(["rmi", "x"]).success();
    let mounts = env.store().join("cache/mounts/cache-abc");
    std::fs::create_dir_all(&mounts).unwrap();
    std::fs::write(mounts.join("package"), vec![1; 20_000]).unwrap();
    let list = env.run(["builder", "du"]).success().stdout_has("RECLAIMABLE");
    assert!(list.stdout.contains("Total:"), "{list}");
    env.run(["builder", "du", "--verbose"])
        .success()
        .stdout_has("COPY content /content")
        .stdout_has("regular");
    env.run(["builder", "prune", "--filter", "until=1h", "-f"]).success().prints("Total reclaimed space: 0B");
    env.run(["builder", "prune", "--keep-storage", "1GB", "-f"])
        .success()
        .prints("Total reclaimed space: 0B");
    let plan = env.run(["buildx", "prune", "--filter", "type=exec.cachemount", "--dry-run"]).success();
    assert!(plan.stdout.contains("20.") || plan.stdout.contains("24."), "{plan}");
    env.run(["builder", "prune", "--filter", "type=exec.cachemount", "-f"]).success();
    assert!(!mounts.exists());
    let before = du(&env.store());
    let gone = env.run(["builder", "prune", "-f", "--format", "{{.SpaceReclaimed}}"]).success();
    let freed = before - du(&env.store());
    assert!(freed.abs_diff(number(gone.text())) < 40 * 1024, "{freed} freed, {gone}");
    let anew = env.run(["build", "--progress", "plain", "-t", "x", "x"]).success();
    assert_eq!(anew.cached_steps(), 0, "{anew}");
}

#[test]
fn the_budget_of_the_build_cache_is_kept_to() {
    let env = Env::new().with("STRATE_CACHE_BUDGET", "100kB");
    build(&env, "large", 10, 50_000);
    env.run(["rmi", "large"]).success();
    // The next build looks, as the disk has filled by more than a tenth of the budget.
    std::fs::remove_file(env.store().join("cache/budget")).unwrap();
    build(&env, "small", 1, 10);
    let left = env.run(["builder", "du", "--format", "{{.Description}}"]).success();
    assert_eq!(left.stdout.matches("COPY content").count(), 1, "{left}");
    let nonsense = Env::new().with("STRATE_CACHE_BUDGET", "lots");
    std::fs::write(nonsense.work().join("Dockerfile"), "FROM scratch\nLABEL a=b\n").unwrap();
    nonsense.run(["build", "-q", "."]).success().stderr_has("STRATE_CACHE_BUDGET");
}

#[test]
fn disk_usage_leaves_nothing_out() {
    let env = Env::new();
    env.run(["system", "df"]).success().stdout_has("RECLAIMABLE");
    build(&env, "one", 50, 5000);
    build(&env, "two", 50, 5000);
    let partial = env.store().join("partial").join(format!("sha256-{}", "a".repeat(64)));
    std::fs::write(&partial, vec![1; 100_000]).unwrap();
    // So old that a prune gives it up.
    let old = std::time::SystemTime::now() - Duration::from_secs(8 * 86_400);
    std::fs::File::options().write(true).open(&partial).unwrap().set_modified(old).unwrap();
    std::fs::create_dir_all(env.store().join("tmp/00000000-1-0")).unwrap();
    std::fs::write(env.store().join("tmp/00000000-1-0/dead"), vec![1; 50_000]).unwrap();
    let rows = env.run(["system", "df", "--format", "json"]).success();
    let rows: Vec<serde_json::Value> =
        rows.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row["Type"].as_str().unwrap()).collect();
    assert_eq!(names, ["Images", "Containers", "Local Volumes", "Build Cache", "Other"]);
    let sum: u64 = rows.iter().map(|row| row["RawSize"].as_u64().unwrap()).sum();
    let all = du(&env.store());
    assert!(sum.abs_diff(all) < all / 10 + 128 * 1024, "{sum} of {all}");
    for row in &rows {
        assert!(row["RawReclaimable"].as_u64() <= row["RawSize"].as_u64(), "{row}");
    }
    assert!(rows[4]["RawReclaimable"].as_u64().unwrap() >= 150_000, "{}", rows[4]);
    let whole = env.run(["system", "df", "-v"]).success();
    for part in ["UNIQUE SIZE", "CACHE TYPE", "VOLUME NAME", "CONTAINER ID", "Partial downloads"] {
        assert!(whole.stdout.contains(part), "{part}: {whole}");
    }
    env.run(["system", "df", "-v", "--format", "{{len .Images}}"]).success().prints("2");
    env.run(["system", "prune", "-a", "--dry-run"]).success().stdout_has("Would delete Images:");
    env.run(["system", "prune", "-af"]).success().stdout_has("Deleted build cache objects:");
    let after = env.run(["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]).success();
    assert!(after.stdout.starts_with("Images 0\nContainers 0\n"), "{after}");
    assert!(after.stdout.contains("Build Cache 0\n"), "{after}");
    assert!(!env.store().join("tmp/00000000-1-0").exists());
}

#[test]
fn removing_a_large_image_does_not_keep_anybody_waiting() {
    let env = Env::new();
    build(&env, "large", 6000, 0);
    env.run(["builder", "prune", "-af"]).success();
    env.run(["rmi", "large"]).success().stdout_has("Deleted: ");
    env.run(["images", "-q"]).success().prints("");
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(env.store().join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("snapshots"), ["CACHEDIR.TAG"]);
    eventually("the files to be gone", Duration::from_secs(30), || names("tmp").is_empty().then_some(()));
}

#[test]
fn on_a_full_disk_images_can_be_removed() {
    need!("unshare", "mount");
    let env = Env::new();
    let script = r#"
        set -e
        mkdir -p store && mount -t tmpfs -o size=6m tmpfs store
        head -c 300000 /dev/urandom > noise && printf 'FROM scratch\nCOPY noise /\n' > Dockerfile
        "$0" --root "$PWD/store/s" build -q -t x . > /dev/null
        cat /dev/zero > store/fill 2> /dev/null || true
        echo > store/more 2> /dev/null && echo x >> store/more 2> /dev/null && { echo "there is room"; exit 9; }
        "$0" --root "$PWD/store/s" "$@"
        "$0" --root "$PWD/store/s" images -q
    "#;
    for verb in [&["rmi", "x"][..], &["image", "prune", "-af"], &["system", "prune", "-af"]] {
        let mut command = env.program("unshare");
        command.args(if is_root() { &["-m"][..] } else { &["-Urm"] });
        command.args(["sh", "-c", script]).arg(crate::support::strate()).args(verb);
        let output = crate::support::Output::of(&mut command);
        if output.stderr.contains("unshare failed") {
            return crate::support::skip("no user namespaces");
        }
        let output = output.success();
        assert!(output.stdout.contains("ntagged: x:latest"), "{output}");
        assert!(!output.stdout.lines().last().unwrap().chars().all(|c| c.is_ascii_hexdigit()), "{output}");
    }
}
