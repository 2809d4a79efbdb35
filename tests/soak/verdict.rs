//! What must be true when all workers have ended: the state that some serial order gives, a sound store, and nothing
//! left after a prune.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::support::eventually;
use crate::world::World;

/// Look at everything, and clear up.
pub fn give(world: &World, seed: u64) {
    let done = world.done.lock().unwrap().clone();
    let total: u64 = done.values().flatten().sum();
    eprintln!("soak: {total} commands (ended well, in vain, killed) {done:?}");
    for verb in ["pull", "build", "run", "rmi", "image prune"] {
        let well = done.get(verb).map_or(0, |counts| counts[0]);
        assert!(well > 0, "seed {seed}: no {verb} ended well: the soak proves nothing");
    }
    names_are_as_some_order_gives(world);
    is_sound(world);
    no_processes(world);
    clear(world);
    is_sound(world);
    nothing_is_left(world);
}

fn names_are_as_some_order_gives(world: &World) {
    let list =
        world.env.run(["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).success();
    let here: BTreeMap<&str, &str> = list.stdout.lines().filter_map(|line| line.split_once(' ')).collect();
    for (name, id) in world.model.must_be_there() {
        let found = here.get(name.as_str());
        assert!(found.is_some(), "{name} is lost; here are {here:?}");
        if let Some(id) = id {
            assert_eq!(found, Some(&id.as_str()), "{name}");
        }
    }
    for name in world.model.must_be_gone() {
        assert_eq!(here.get(name.as_str()), None, "{name} has come back");
    }
    // Whatever is listed can be read to its last byte.
    for name in here.keys().filter(|name| !name.contains("<none>")) {
        world.env.run(["save", "-q", "-o", "last.tar", name]).success();
        fs::remove_file(world.env.work().join("last.tar")).unwrap();
    }
}

/// Our own check, where this binary has it, and one that shares no code with it.
fn is_sound(world: &World) {
    world.env.run(["system", "check"]).success();
    world.env.check_store().sound();
}

/// Nothing that works on this store lives on.
fn no_processes(world: &World) {
    let store = world.env.store().display().to_string();
    let home = world.env.home().display().to_string();
    let with_store = || -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
            if entry.file_name().to_string_lossy().parse::<u32>().is_ok()
                && text(read("environ")).contains(&home)
                && text(read("comm")).trim() != "docker-registry"
            {
                found.push(format!("{:?}: {}", entry.file_name(), text(read("cmdline"))));
            }
        }
        found
    };
    let list = || world.env.run(["ps", "-q"]).success().text().to_owned();
    if world.kill_percent > 0 {
        // Who kills a command does not kill the container that it had started in the background.
        for id in list().lines() {
            world.env.run(["rm", "-f", id]).success();
        }
    }
    assert_eq!(list(), "");
    eventually("the end of all processes", Duration::from_secs(10), || {
        let found = with_store();
        if found.is_empty() { Some(()) } else { None }.or_else(|| {
            eprintln!("still there: {found:?}");
            std::thread::sleep(Duration::from_millis(500));
            None
        })
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&store), "{mounts}");
}

/// Remove everything.
fn clear(world: &World) {
    let env = &world.env;
    let all = env.run(["ps", "-aq"]).success();
    for id in all.text().lines() {
        env.run(["rm", "-f", "-v", id]).success();
    }
    if world.has("volume") {
        for name in env.run(["volume", "ls", "-q"]).success().text().lines() {
            env.run(["volume", "rm", name]).success();
        }
    }
    env.run(["rmi", "-a", "-f"]).success();
    if world.has("builder") {
        env.run(["builder", "prune", "-a", "-f"]).success();
    }
    env.run(["image", "prune", "-a", "-f"]).success();
    if world.has("system") {
        env.run(["system", "prune", "-a", "-f"]).success();
    }
}

fn nothing_is_left(world: &World) {
    let store = world.env.store();
    let list = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(store.join(dir)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| {
                !["CACHEDIR.TAG", "by-name", "auto-remove", "events", "events.1", "cgroups"]
                    .contains(&name.as_str())
            })
            .collect()
    };
    assert_eq!(world.env.run(["images", "-aq"]).success().text(), "");
    let mut dirs = vec!["containers", "containers/by-name", "containers/auto-remove", "volumes", "tmp"];
    if world.has("builder") {
        dirs.extend(["blobs/sha256", "snapshots", "cache/records", "cache/layers"]);
    }
    for dir in dirs {
        assert_eq!(list(dir), [""; 0], "left in {dir}");
    }
    let locks = list("locks");
    assert!(locks.len() < 2000, "{} lock files", locks.len());
}
