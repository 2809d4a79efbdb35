//! What the workers share: a registry with images that share layers, one store, and what is known of its names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use crate::model::Model;
use crate::support::{Env, Registry, busybox_image, must};

/// How many images the registry has.
pub const IMAGES: u64 = 6;
/// How many local names all workers use.
pub const SHARED: u64 = 4;

/// One store and all around it.
#[derive(Debug)]
pub struct World {
    pub env: Env,
    pub registry: Registry,
    pub model: Model,
    /// The images' ids, by their reference.
    pub ids: BTreeMap<String, String>,
    /// How many of a hundred commands are killed.
    pub kill_percent: u64,
    /// The first words of commands, with how many ended well, failed as they may, and were killed.
    pub done: Mutex<BTreeMap<String, [u64; 3]>>,
    /// A worker has found something.
    pub failed: AtomicBool,
    /// The namespace of verbs that this binary has.
    verbs: Vec<&'static str>,
}

impl World {
    pub fn new(kill_percent: u64) -> Self {
        let (env, registry) = (Env::new(), Registry::start());
        let busybox = registry.put(&busybox_image(), "busybox:latest");
        let mut ids = BTreeMap::new();
        // Made in another store: to the store under test everything is new.
        let maker = Env::new();
        maker.write("shared", "shared\n".repeat(1000));
        for n in 0..IMAGES {
            maker.write("own", format!("app{n}\n"));
            // Each shares one more layer with the next than with the one after it.
            let steps: String = (0..=n).map(|m| format!("COPY shared /shared{m}\n")).collect();
            maker.write("Dockerfile", format!("FROM {busybox}\n{steps}COPY own /own\n"));
            let name = registry.image(&format!("app{n}:1"));
            let built = maker.run(["build", "-q", "-t", &name, "."]).success();
            maker.run(["push", "-q", &name]).success();
            ids.insert(name, built.text().to_owned());
        }
        let known = ["volume", "builder", "system"];
        let has = |verb: &str| maker.run([verb, "prune", "--help"]).code == 0;
        let verbs = known.into_iter().filter(|verb| has(verb)).collect();
        Self {
            env,
            registry,
            model: Model::new(),
            ids,
            kill_percent,
            done: Mutex::default(),
            failed: AtomicBool::default(),
            verbs,
        }
    }

    /// An image of the registry.
    pub fn image(&self, n: u64) -> String {
        self.registry.image(&format!("app{n}:1"))
    }

    /// A name that everybody uses, of an image that no registry has.
    pub fn shared(&self, n: u64) -> String {
        self.registry.image(&format!("shared{n}:1"))
    }

    /// Whether the binary has `volume`, `builder` or `system` with `prune`.
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Where a worker keeps files.
    pub fn desk(&self, worker: u64) -> PathBuf {
        let desk = self.env.work().join(format!("w{worker}"));
        must(std::process::Command::new("mkdir").arg("-p").arg(&desk));
        desk
    }

    /// Count how a command ended.
    pub fn count(&self, verb: &str, how: usize) {
        self.done.lock().unwrap().entry(verb.to_owned()).or_default()[how] += 1;
    }
}
