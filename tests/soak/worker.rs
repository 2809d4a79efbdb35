//! A worker: one command after the other, drawn by weight. Images of the registry and shared names are everybody's;
//! what has the worker's number in its name only he makes and removes.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::model::{Change, Outcome};
use crate::random::Random;
use crate::run::{Ran, run};
use crate::world::{IMAGES, SHARED, World};

/// A worker.
#[derive(Debug)]
pub struct Worker<'a> {
    world: &'a World,
    number: u64,
    random: Random,
    desk: PathBuf,
    /// Makes content that nobody else has.
    count: u64,
}

/// What a worker can do.
type Deed<'a> = fn(&mut Worker<'a>);

/// The first surprise stops all workers.
struct Alarm<'a>(&'a World);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.failed.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

impl<'a> Worker<'a> {
    pub fn new(world: &'a World, number: u64, seed: u64) -> Self {
        Self { world, number, random: Random::new(seed, number), desk: world.desk(number), count: 0 }
    }

    /// What he does, with how often.
    const DEEDS: [(u64, Deed<'a>); 23] = [
        (12, Self::pull),
        (10, Self::build_own),
        (6, Self::build_shared),
        (10, Self::run_image),
        (6, Self::run_shared),
        (6, Self::detached),
        (5, Self::commit),
        (8, Self::tag),
        (6, Self::remove_own),
        (5, Self::remove_any),
        (8, Self::images),
        (4, Self::ps),
        (6, Self::inspect),
        (4, Self::save_and_load),
        (4, Self::push),
        (5, Self::image_prune),
        (2, Self::remove_unused),
        (3, Self::container_prune),
        (3, Self::other_prunes),
        (4, Self::volumes),
        (2, Self::volume_prune),
        (4, Self::usage),
        (1, Self::check),
    ];

    /// Work until the end.
    pub fn work(mut self, end: Instant) {
        let _alarm = Alarm(self.world);
        let all: u64 = Self::DEEDS.iter().map(|(weight, _)| weight).sum();
        while Instant::now() < end && !self.world.failed.load(Ordering::Relaxed) {
            let mut at = self.random.below(all);
            let (_, deed) = Self::DEEDS
                .iter()
                .find(|(weight, _)| {
                    let found = at < *weight;
                    at = at.saturating_sub(*weight);
                    found
                })
                .unwrap();
            deed(&mut self);
        }
    }

    fn own(&mut self) -> String {
        let n = self.random.below(4);
        self.world.registry.image(&format!("own/w{}:{n}", self.number))
    }

    fn any_image(&mut self) -> String {
        let n = self.random.below(IMAGES);
        self.world.image(n)
    }

    fn any_shared(&mut self) -> String {
        let n = self.random.below(SHARED);
        self.world.shared(n)
    }

    fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}-w{}-{}", self.number, self.count)
    }

    fn strate<S: AsRef<str>>(&mut self, args: &[S]) -> Ran {
        let kill = (self.random.below(100) < self.world.kill_percent)
            .then(|| Duration::from_micros(self.random.below(400_000)));
        self.command(args, kill)
    }

    fn command<S: AsRef<str>>(&self, args: &[S], kill: Option<Duration>) -> Ran {
        let mut command = self.world.env.command(args.iter().map(AsRef::as_ref));
        command.current_dir(&self.desk);
        let ran = run(self.world, command, kill);
        let verb: Vec<&str> = args.iter().map(AsRef::as_ref).take_while(|word| word.is_ascii()).collect();
        let words = if verb
            .get(1)
            .is_some_and(|word| ["prune", "create", "rm", "df", "du", "ls", "check"].contains(word))
        {
            2
        } else {
            1
        };
        let how = if ran.killed() { 2 } else { usize::from(!ran.ok()) };
        self.world.count(&verb[..words].join(" "), how);
        ran
    }

    /// A command that changes a name: what it did goes into the model.
    fn change<S: AsRef<str>>(&mut self, name: &str, sets: bool, args: &[S]) -> Ran {
        let change = self.world.model.begin(name, sets);
        let ran = self.strate(args);
        self.close(&change, &ran);
        ran
    }

    fn close(&self, change: &Change, ran: &Ran) {
        let printed = ran.text().starts_with("sha256:").then(|| ran.text().to_owned());
        let id = printed.or_else(|| self.world.ids.get(change.name()).cloned());
        let outcome = match ran.code {
            Some(0) => Outcome::Done(id),
            None => Outcome::Unknown,
            Some(_) => Outcome::Nothing,
        };
        self.world.model.end(change, outcome);
    }

    /// It must have worked, unless it was killed.
    #[track_caller]
    fn must_work(&self, ran: &Ran) {
        assert!(ran.ok() || ran.killed(), "worker {}: {} failed:\n{ran:?}", self.number, ran.line);
    }

    /// It must have worked, unless the name can have been absent.
    #[track_caller]
    fn must_work_with(&self, ran: &Ran, name: &str) {
        let lacks = ["no such image", "no such object", "no such container"];
        if !ran.ok() && !ran.killed() && lacks.iter().any(|text| ran.stderr.contains(text)) {
            let may = self.world.model.may_lack(name, ran.from, ran.to);
            assert!(may, "worker {}: {name} cannot be gone: {ran:?}", self.number);
            return;
        }
        self.must_work(ran);
    }

    fn pull(&mut self) {
        let name = self.any_image();
        let ran = self.change(&name, true, &["pull", "-q", &name]);
        self.must_work(&ran);
        if ran.ok() {
            assert_eq!(ran.text(), name);
        }
    }

    fn write(&mut self, from: &str) -> String {
        let content = self.fresh("content");
        std::fs::write(self.desk.join("content"), &content).unwrap();
        let run = if self.random.below(2) == 0 { "RUN echo made > /made\n" } else { "" };
        let file = format!("FROM {from}\nCOPY content /content\n{run}");
        std::fs::write(self.desk.join("Dockerfile"), file).unwrap();
        content
    }

    fn build_own(&mut self) {
        let (base, name) = (self.any_image(), self.own());
        let content = self.write(&base);
        // The base is pulled where it is not here.
        let change = self.world.model.begin(&base, true);
        let ran = self.change(&name, true, &["build", "-q", "-t", &name, "."]);
        self.world.model.end(&change, Outcome::Unknown);
        self.must_work(&ran);
        if ran.ok() {
            let ran =
                self.strate(&["run", "--rm", "--network=host", "--pull=never", &name, "cat", "/content"]);
            self.must_work_with(&ran, &name);
            if ran.ok() {
                assert_eq!(ran.text(), content, "{ran:?}");
            }
        }
    }

    fn build_shared(&mut self) {
        let (base, name) = (self.any_image(), self.any_shared());
        self.write(&base);
        let change = self.world.model.begin(&base, true);
        let ran = self.change(&name, true, &["build", "-q", "-t", &name, "."]);
        self.world.model.end(&change, Outcome::Unknown);
        self.must_work(&ran);
    }

    fn run_image(&mut self) {
        let n = self.random.below(IMAGES);
        let name = self.world.image(n);
        let change = self.world.model.begin(&name, true);
        let ran = self.strate(&["run", "--rm", "-q", "--network=host", &name, "cat", "/own"]);
        self.world.model.end(&change, Outcome::Unknown);
        self.must_work(&ran);
        if ran.ok() {
            assert_eq!(ran.text(), format!("app{n}"), "{ran:?}");
        }
    }

    fn run_shared(&mut self) {
        let name = self.any_shared();
        let ran = self.strate(&["run", "--rm", "--network=host", "--pull=never", &name, "cat", "/own"]);
        self.must_work_with(&ran, &name);
        if ran.ok() {
            assert!(ran.text().starts_with("app"), "{ran:?}");
        }
    }

    /// A container in the background, looked at and removed.
    fn detached(&mut self) {
        let (image, name) = (self.any_image(), self.fresh("box"));
        let change = self.world.model.begin(&image, true);
        let ran = self.strate(&["run", "-d", "-q", "--network=host", "--name", &name, &image, "sleep", "60"]);
        self.world.model.end(&change, Outcome::Unknown);
        self.must_work(&ran);
        if ran.ok() {
            let ran = self.strate(&["exec", &name, "cat", "/own"]);
            self.must_work(&ran);
        }
        let ran = self.command(&["rm", "-f", &name], None);
        self.must_work(&ran);
    }

    fn commit(&mut self) {
        let (image, own, name) = (self.any_image(), self.own(), self.fresh("made"));
        let change = self.world.model.begin(&image, true);
        let script = format!("echo {name} > /committed");
        let ran = self.strate(&["run", "-q", "--network=host", "--name", &name, &image, "sh", "-c", &script]);
        self.world.model.end(&change, Outcome::Unknown);
        self.must_work(&ran);
        if ran.ok() {
            // It has stopped: a prune of containers may take it.
            let ran = self.change(&own, true, &["commit", &name, &own]);
            self.may_be_pruned(&ran);
        }
        let ran = self.command(&["rm", "-f", &name], None);
        self.must_work(&ran);
    }

    #[track_caller]
    fn may_be_pruned(&self, ran: &Ran) {
        if !(ran.code == Some(1) && ran.stderr.contains("no such container")) {
            self.must_work(ran);
        }
    }

    fn tag(&mut self) {
        let source = if self.random.below(2) == 0 { self.any_image() } else { self.any_shared() };
        let target = if self.random.below(2) == 0 { self.own() } else { self.any_shared() };
        let ran = self.change(&target, true, &["tag", &source, &target]);
        self.must_work_with(&ran, &source);
    }

    fn remove(&mut self, name: &str) {
        let ran = self.change(name, false, &["rmi", name]);
        // A container, anybody's, may use it.
        if !ran.stderr.contains("is in use by") {
            self.must_work_with(&ran, name);
        }
    }

    fn remove_own(&mut self) {
        let name = self.own();
        self.remove(&name);
    }

    fn remove_any(&mut self) {
        let name = if self.random.below(2) == 0 { self.any_image() } else { self.any_shared() };
        self.remove(&name);
    }

    fn images(&mut self) {
        let ran = self.strate(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]);
        self.must_work(&ran);
        assert_eq!(ran.stderr, "", "{ran:?}");
        for line in ran.stdout.lines().filter(|_| ran.ok()) {
            let (name, id) = line.split_once(' ').unwrap();
            if let Some(known) = self.world.ids.get(name) {
                assert_eq!(id, known, "{name}");
            }
            let named = !name.contains("<none>");
            assert!(!named || self.world.model.may_have(name, ran.from, ran.to), "{name} is not there");
        }
    }

    fn ps(&mut self) {
        let ran = self.strate(&["ps", "-a", "--format", "json"]);
        self.must_work(&ran);
        assert_eq!(ran.stderr, "", "{ran:?}");
    }

    fn inspect(&mut self) {
        let name = self.own();
        let ran = self.strate(&["image", "inspect", &name]);
        self.must_work_with(&ran, &name);
        if ran.ok() {
            assert!(self.world.model.may_have(&name, ran.from, ran.to), "{ran:?}");
        }
    }

    fn save_and_load(&mut self) {
        let name = self.own();
        let archive = self.desk.join("archive.tar").display().to_string();
        let _ = std::fs::remove_file(&archive);
        let ran = self.strate(&["save", "-q", "-o", &archive, &name]);
        self.must_work_with(&ran, &name);
        if ran.ok() {
            let ran = self.change(&name, true, &["load", "-q", "-i", &archive]);
            self.must_work(&ran);
        }
    }

    fn push(&mut self) {
        let (name, count) = (self.own(), self.count);
        let to = self.world.registry.image(&format!("pushed/w{}:{count}", self.number));
        let ran = self.strate(&["push", "-q", &name, &to]);
        self.must_work_with(&ran, &name);
    }

    fn image_prune(&mut self) {
        let ran = self.strate(&["image", "prune", "-f"]);
        self.must_work(&ran);
    }

    fn remove_unused(&mut self) {
        let change = self.world.model.begin_removing_all();
        let ran = self.strate(&["image", "prune", "-a", "-f"]);
        self.close(&change, &ran);
        self.must_work(&ran);
    }

    fn container_prune(&mut self) {
        let ran = self.strate(&["container", "prune", "-f"]);
        self.must_work(&ran);
    }

    fn other_prunes(&mut self) {
        let verb = *self.random.pick(&["builder", "system"]);
        if self.world.has(verb) {
            let ran = self.strate(&[verb, "prune", "-f"]);
            self.must_work(&ran);
        }
    }

    fn volumes(&mut self) {
        if !self.world.has("volume") {
            return;
        }
        let (name, image) = (self.fresh("volume"), self.any_image());
        let ran = self.strate(&["volume", "create", &name]);
        self.must_work(&ran);
        let change = self.world.model.begin(&image, true);
        let mount = format!("{name}:/v");
        let words = ["run", "--rm", "-q", "--network=host", "-v", &mount, &image, "touch", "/v/x"];
        let ran = self.strate(&words);
        self.world.model.end(&change, Outcome::Unknown);
        self.must_work(&ran);
        let ran = self.command(&["volume", "rm", "-f", &name], None);
        // A killed run may leave its container behind, which has the volume.
        if !(self.world.kill_percent > 0 && ran.stderr.contains("in use")) {
            self.must_work(&ran);
        }
    }

    /// Of others too: a `run` that names one makes it again.
    fn volume_prune(&mut self) {
        let all = *self.random.pick(&["-f", "-af"]);
        let ran = self.strate(&["volume", "prune", all]);
        self.must_work(&ran);
    }

    fn usage(&mut self) {
        let words: &[&[&str]] =
            &[&["system", "df"], &["system", "df", "-v"], &["builder", "du"], &["volume", "ls"]];
        let words = *self.random.pick(words);
        let ran = self.strate(words);
        self.must_work(&ran);
        assert_eq!(ran.stderr, "", "{ran:?}");
    }

    /// What others do meanwhile is no fault.
    fn check(&mut self) {
        let ran = self.strate(&["system", "check"]);
        self.must_work(&ran);
    }
}
