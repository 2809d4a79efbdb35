//! Little space, few inodes, few descriptors, small files, little memory, odd umasks, stores that cannot be written: a
//! command fails with a word about what lacks, and leaves a store that works as before.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{Env, Fake, FakeLayer, Output, fake, must, need, shared_registry, skip};

/// Fill a disk of a given size with the work of a command. Arguments: mount point, options of the small disk, the
/// program, an archive that makes the store before the command (or `-`), the checker, then the command.
const ON_A_SMALL_DISK: &str = r#"
disk=$1 options=$2 strate=$3 before=$4 checker=$5; shift 5
mount -t tmpfs -o "$options" tmpfs "$disk" || exit 77
export STRATE_ROOT="$disk/store" SOURCE_DATE_EPOCH=0
fail() { echo "with $options: $*"; cat "$disk.said"; exit 1; }
if [ "$before" != - ]; then
    "$strate" load -q -i "$before" >"$disk.said" 2>&1 || { umount "$disk"; echo "$options: too small to begin"; exit 0; }
fi
"$strate" "$@" >"$disk.said" 2>&1
code=$?
case $code in
    0) word=fits ;;
    1) word='does not fit'; grep -qi 'space' "$disk.said" || fail "it does not say why" ;;
    *) fail "exit code $code" ;;
esac
grep -q panicked "$disk.said" && fail 'it panicked'
"$strate" images -a >"$disk.said" 2>&1 || fail 'images'
"$strate" ps -a >"$disk.said" 2>&1 || fail 'ps'
[ $code = 0 ] || [ ! -e "$STRATE_ROOT/strate.json" ] || "$strate" image prune -f >"$disk.said" 2>&1 ||
    case $options in
        # Without one inode left there is none for a lock: it must say so.
        *inodes*) grep -qi 'space' "$disk.said" || fail 'prune without inodes does not say why' ;;
        *) fail 'prune on the full disk' ;;
    esac
# What mount would add from the list of mounts are ids of the outer namespace.
mount --options-mode ignore -o remount,size=64m,nr_inodes=100k tmpfs "$disk" || exit 77
"$strate" "$@" >"$disk.said" 2>&1 || fail 'again, with space'
python3 "$checker" "$STRATE_ROOT" >"$disk.said" 2>&1 || fail 'the store is damaged'
umount "$disk"
echo "$options: $word"
"#;

/// Run a command on disks of these sizes: of the smallest it must not fit, of the largest it must.
fn sweep(env: &Env, before: Option<&Path>, sizes: &[String], args: &[&str]) {
    let disk = env.work().join("disk");
    let _ = std::fs::create_dir(&disk);
    let checker = env.write("check_store.py", include_str!("../check_store.py"));
    let mut words = Vec::new();
    for size in sizes {
        let mut command = env.program("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", ON_A_SMALL_DISK, "sh"]).arg(&disk).arg(size);
        command.arg(crate::support::strate()).arg(before.unwrap_or(Path::new("-"))).arg(&checker).args(args);
        let output = Output::of(&mut command);
        if output.code == 77 || output.stderr.contains("unshare failed") {
            return skip("no disk can be mounted here");
        }
        assert_eq!(output.code, 0, "{args:?}: {output}");
        words.push(output.text().to_owned());
    }
    assert!(words.iter().any(|word| word.ends_with("does not fit")), "nothing was too small: {words:?}");
    assert!(words.last().unwrap().ends_with(": fits"), "nothing was large enough: {words:?}");
}

fn sizes(kilobytes: &[u32]) -> Vec<String> {
    kilobytes.iter().map(|size| format!("size={size}k")).collect()
}

fn inodes(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| format!("size=8m,nr_inodes={number}")).collect()
}

fn context(env: &Env) {
    env.write("ctx/Dockerfile", "FROM scratch\nCOPY f /f\nCOPY g /g\nENV A=b\n");
    env.write("ctx/f", fake::noise(1, 60_000));
    env.write("ctx/g", fake::noise(2, 60_000));
}

#[test]
fn a_full_disk_stops_a_build_and_harms_nothing() {
    need!("unshare", "python3");
    let env = Env::new();
    context(&env);
    let args = ["build", "-q", "-t", "made:1", "ctx"];
    sweep(&env, None, &sizes(&[24, 64, 100, 160, 220, 300, 380, 2000]), &args);
    sweep(&env, None, &inodes(&[12, 25, 40, 55, 70, 400]), &args);
}

#[test]
fn a_full_disk_stops_load_pull_and_commit_and_harms_nothing() {
    need!("unshare", "python3", "gzip");
    let env = Env::new();
    context(&env);
    env.run(["build", "-q", "-t", "made:1", "ctx"]).success();
    env.run(["save", "-q", "-o", "made.tar", "made:1"]).success();
    let archive = env.work().join("made.tar");
    sweep(&env, None, &sizes(&[50, 120, 200, 280, 2000]), &["load", "-q", "-i", "made.tar"]);
    sweep(&env, None, &inodes(&[20, 45, 400]), &["load", "-q", "-i", "made.tar"]);
    let mut many = Fake::default();
    let noise = fake::noise(3, 90_000);
    many.image("1", &[FakeLayer::gzip(&[("f", &noise)]), FakeLayer::gzip(&[("g", b"small")])]);
    let image = many.serve().image("many:1");
    sweep(&env, None, &sizes(&[50, 120, 180, 230, 2000]), &["pull", "-q", "--retry", "0", &image]);
    env.write("more/Dockerfile", "FROM made:1\nCOPY h /h\n");
    env.write("more/h", fake::noise(4, 90_000));
    let more = ["build", "-q", "-t", "more:1", "more"];
    sweep(&env, Some(&archive), &sizes(&[280, 360, 420, 480, 2000]), &more);
}

/// A command under limits that the shell sets.
fn limited(env: &Env, limit: &str, args: &[&str]) -> Output {
    let mut command = env.program("sh");
    command
        .args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"])
        .arg(crate::support::strate())
        .args(args);
    let output = Output::of(&mut command);
    assert!(!output.stderr.contains("panicked") && output.code < 126, "{output}");
    output
}

#[test]
fn sixty_four_descriptors_are_enough() {
    need!("docker-registry", "skopeo", "busybox", "gzip");
    let image = shared_registry().image("busybox:latest");
    let env = Env::new();
    let limit = "-n 64";
    limited(&env, limit, &["pull", "-q", &image]).success();
    env.write("Dockerfile", format!("FROM {image}\nRUN echo x > /x\nCOPY Dockerfile /\n"));
    limited(&env, limit, &["build", "-q", "-t", "made:1", "."]).success();
    limited(&env, limit, &["run", "--name", "c", "--network", "none", "made:1", "cat", "/x"])
        .success()
        .prints("x");
    limited(&env, limit, &["commit", "-q", "c", "kept:1"]).success();
    limited(&env, limit, &["save", "-q", "-o", "a.tar", "made:1", "kept:1"]).success();
    limited(&env, limit, &["load", "-q", "-i", "a.tar"]).success();
    let copy = shared_registry().image("limits:1");
    limited(&env, limit, &["push", "-q", "made:1", &copy]).success();
    limited(&env, limit, &["images"]).success();
    limited(&env, limit, &["system", "check"]).success();
    limited(&env, limit, &["image", "prune", "-f"]).success();
}

/// An image with so many layers, each of one small file.
fn tall(layers: usize) -> String {
    let names: Vec<String> = (0..layers).map(|n| format!("f{n}")).collect();
    let layers: Vec<FakeLayer> = names
        .iter()
        .map(|name| {
            let tar = fake::tar(&[(name, name.as_bytes())]);
            FakeLayer { kind: "application/vnd.oci.image.layer.v1.tar".into(), blob: tar.clone(), tar }
        })
        .collect();
    let mut fake = Fake::default();
    fake.image("1", &layers);
    fake.serve().image("tall:1")
}

#[test]
fn a_hundred_layers_need_no_more_descriptors_than_ten() {
    let (env, image) = (Env::new(), tall(100));
    limited(&env, "-n 64", &["pull", "-q", &image]).success();
    env.write("Dockerfile", format!("FROM {image}\nCOPY Dockerfile /g\n"));
    limited(&env, "-n 64", &["build", "-q", "-t", "made:1", "."]).success();
    limited(&env, "-n 64", &["system", "check"]).success();
    limited(&env, "-n 64", &["create", "--name", "c", "--network", "none", "made:1", "/f1"]).success();
    limited(&env, "-n 64", &["commit", "-q", "c", "kept:1"]).success();
}

#[test]
fn more_layers_than_an_overlay_takes_are_worked_with_all_the_same() {
    let (env, image) = (Env::new(), tall(510));
    env.run(["pull", "-q", &image]).success();
    env.write("Dockerfile", format!("FROM {image}\nCOPY Dockerfile /g\n"));
    let built = env.run(["build", "-q", "-t", "made:1", "."]);
    assert!(built.code == 0 || built.stderr.contains("layers"), "{built}");
    env.check_store().sound();
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_with_a_path() {
    let env = Env::new();
    context(&env);
    env.run(["build", "-q", "-t", "made:1", "ctx"]).success();
    // 8 blocks of 512 bytes: the shell's unit.
    let refused = limited(&env, "-f 8", &["save", "-q", "-o", "a.tar", "made:1"]).code(1);
    assert!(refused.stderr.contains("a.tar") && refused.stderr.contains("too large"), "{refused}");
    assert!(!env.work().join("a.tar").exists());
    env.run(["save", "-q", "-o", "a.tar", "made:1"]).success();
    env.run(["image", "prune", "-af"]).success();
    let root = env.work().join("other").display().to_string();
    limited(&env, "-f 8", &["--root", &root, "load", "-q", "-i", "a.tar"]).code(1).stderr_has("too large");
    env.run(["--root", &root, "images", "-aq"]).success().prints("");
    env.run(["--root", &root, "load", "-q", "-i", "a.tar"]).success();
    crate::support::check_store(Path::new(&root), &[]).sound();
}

#[test]
fn a_large_layer_needs_little_memory() {
    need!("gzip");
    let zeros = vec![0_u8; 256 << 20];
    let mut fake = Fake::default();
    fake.image("1", &[FakeLayer::gzip(&[("zeros", &zeros)])]);
    drop(zeros);
    let image = fake.serve().image("large:1");
    let env = Env::new();
    // 160 MiB of addresses for everything, in kibibytes.
    limited(&env, "-v 163840", &["pull", "-q", &image]).success();
    limited(&env, "-v 163840", &["save", "-q", "-o", "a.tar", &image]).success();
}

#[test]
fn without_another_process_or_thread_a_command_works_or_says_so() {
    need!(user);
    need!("prlimit");
    let env = Env::new();
    let image = Fake::small().serve().image("small:latest");
    for args in [&["pull", "-q", &image][..], &["images"], &["image", "prune", "-f"]] {
        // Processes of this user that run already count too.
        let mut command = env.program("prlimit");
        let output = Output::of(command.arg("--nproc=1").arg(crate::support::strate()).args(args));
        assert!(!output.stderr.contains("panicked") && output.code < 126, "{output}");
        assert!(output.code == 0 || output.stderr.contains("error: "), "{output}");
    }
    env.run(["pull", "-q", &image]).success();
    env.check_store().sound();
}

#[test]
fn what_cannot_be_written_asks_no_registry() {
    need!("unshare");
    let env = Env::new();
    let server = Fake::small().serve();
    let image = server.image("small:latest");
    env.run(["pull", "-q", &image]).success();
    let asked = server.seen().len();
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let read_only = |args: &[&str]| {
        let mut command = env.program("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).arg(env.store());
        Output::of(command.arg(crate::support::strate()).args(args))
    };
    let listed = read_only(&["images", "-q"]);
    if listed.stderr.contains("unshare failed") || listed.stderr.contains("mount:") {
        return skip("no mount namespace can be made here");
    }
    assert_eq!(listed.success().text().len(), 12);
    for args in [&["inspect", &image][..], &["history", &image], &["ps", "-a"]] {
        read_only(args).success();
    }
    for args in [&["pull", &image][..], &["tag", &image, "x:1"], &["rmi", &image], &["image", "prune", "-f"]]
    {
        let refused = read_only(args);
        assert!(refused.code == 1 && refused.stderr.contains("cannot be written"), "{refused}");
    }
    assert_eq!(server.seen().len(), asked, "a registry was asked for nothing: {:?}", server.log());
}

#[test]
fn the_umask_changes_no_digest_and_opens_nothing() {
    let env = Env::new();
    context(&env);
    let mut digests = Vec::new();
    for umask in ["077", "022", "000", "027"] {
        let root = env.work().join(format!("store-{umask}"));
        let script = format!("umask {umask} && exec \"$@\"");
        let mut command = env.program("sh");
        command.args(["-c", &script, "sh"]).arg(crate::support::strate()).arg("--root").arg(&root);
        command.args(["build", "-q", "-t", "made:1", "ctx"]).env("SOURCE_DATE_EPOCH", "0");
        digests.push(String::from_utf8(must(&mut command)).unwrap());
        let open = must(env.program("find").arg(&root).args(["-perm", "/022", "-not", "-type", "l"]));
        let open = String::from_utf8(open).unwrap();
        assert!(!open.lines().any(|path| !path.contains("/fs")), "umask {umask} leaves these open: {open}");
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o700, "umask {umask}");
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[test]
fn names_that_are_too_long_are_refused() {
    let env = Env::new();
    context(&env);
    env.run(["build", "-q", "-t", "made:1", "ctx"]).success();
    let long = "a".repeat(300);
    env.run(["tag", "made:1", &format!("x:{long}")]).code(1).stderr_has("error: ");
    env.run(["tag", "made:1", &format!("{long}:1")]).code(1).stderr_has("error: ");
    let refused = env.run(["create", "--name", &long, "--network", "none", "made:1", "/x"]);
    assert!(refused.code != 0 && refused.stderr.contains("error: "), "{refused}");
    // A name in a layer that no file system takes.
    let mut fake = Fake::default();
    fake.image("1", &[FakeLayer::gzip(&[(&long, b"x")])]);
    let image = fake.serve().image("long:1");
    env.run(["pull", "-q", "--retry", "0", &image]).code(1).stderr_has("300 bytes");
    env.check_store().sound();
}
