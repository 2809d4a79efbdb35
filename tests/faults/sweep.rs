//! One command, stopped or failed at each of its calls in turn; after each, the promises of the store are looked at.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::calls::{Call, Kind};
use super::store::{self, Listing};
use super::support::{Env, Output, check_store};
use super::tracer::{self, Act, Plan, Traced};

/// A command on a store, and how to see what came of it.
pub struct Workload {
    /// What it is called in what is printed.
    pub name: &'static str,
    /// Home, working directory and variables.
    pub env: Env,
    /// Where its store lies, and copies of it.
    pub root: Root,
    /// The command line.
    pub args: Vec<String>,
    /// How many times the store was put back: `@` in the command line becomes this number.
    pub round: Cell<usize>,
    /// Commands that only read and must work whatever happened.
    pub readers: Vec<Vec<String>>,
    /// What must be the same whenever the command has worked.
    pub result: fn(&Workload) -> String,
    /// What lies beside the store and must be the old or the new one.
    pub outside: Option<PathBuf>,
    /// Commands that remove whatever nobody needs.
    pub prune: &'static [&'static str],
    /// The command can be done once only: a second one finds nothing to do and says so.
    pub once: bool,
    /// It removes several things, each by itself: between the old and the new state there are others.
    pub by_parts: bool,
    /// It removes, and when the disk is full it makes room and tries once more: then a failed sync was made good.
    pub makes_room: bool,
    /// What a command that was killed leaves on purpose for the next try: the beginnings of paths.
    pub keeps: &'static [&'static str],
    /// The content has the time in it: blobs have other digests each time.
    pub dated: bool,
}

/// How a store looks at rest.
struct Rest {
    names: BTreeSet<String>,
    listing: Listing,
    result: String,
    outside: Option<Vec<u8>>,
}

/// What is counted and printed of a sweep.
struct Tally {
    name: String,
    calls: usize,
    runs: usize,
    struck: usize,
    survived: usize,
    failures: Vec<String>,
    start: Instant,
}

impl Workload {
    fn store(&self) -> PathBuf {
        self.env.store()
    }

    fn saved(&self) -> PathBuf {
        self.root.join("saved")
    }

    pub fn run<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.env.run(args)
    }

    /// The command, the same one until the store is put back.
    pub fn command(&self) -> Command {
        let round = self.round.get().to_string();
        self.env.command(self.args.iter().map(|arg| arg.replace('@', &round)))
    }

    pub fn restore(&self) {
        self.round.set(self.round.get() + 1);
        store::copy(&self.saved(), &self.store());
        if let Some(path) = &self.outside {
            let _ = std::fs::remove_file(path);
            if let Ok(old) = std::fs::read(self.root.join("outside")) {
                std::fs::write(path, old).unwrap();
            }
        }
    }

    /// Keep the store as it is now: every run starts from it.
    pub fn save(&self) {
        store::copy(&self.store(), &self.saved());
        if let Some(path) = &self.outside
            && path.exists()
        {
            std::fs::copy(path, self.root.join("outside")).unwrap();
        }
    }

    fn rest(&self) -> Rest {
        let (names, result) = (self.names(), (self.result)(self));
        self.collect().unwrap();
        let outside = self.outside.as_ref().and_then(|path| std::fs::read(path).ok());
        Rest { names, listing: self.listing(), result, outside }
    }

    pub fn collect(&self) -> Result<(), String> {
        for line in self.prune {
            let output = self.run(line.split(' '));
            if output.code != 0 {
                return Err(format!("the collection failed: {output}"));
            }
        }
        Ok(())
    }

    fn names(&self) -> BTreeSet<String> {
        let all = store::names(&self.store());
        if !self.dated {
            return all;
        }
        all.into_iter().map(|line| line.split(" sha256:").next().unwrap_or_default().to_owned()).collect()
    }

    fn listing(&self) -> Listing {
        let all = store::listing(&self.store());
        if self.dated { store::without_digests(&all) } else { all }
    }

    fn states(&self) -> (Rest, Rest) {
        self.save();
        let old = self.rest();
        self.restore();
        Output::of(&mut self.command()).success();
        (old, self.rest())
    }

    pub fn count(&self, which: &(dyn Fn(&Call) -> bool + Sync)) -> usize {
        self.restore();
        let traced = tracer::run(self.command(), &Plan { at: 0, act: Act::Count, which });
        assert!(traced.code == 0 && traced.strays.is_empty() && !traced.hung, "{}: {traced}", self.name);
        traced.calls
    }
}

/// Which points of `all` are tried: every one in a full sweep, else about `budget` of them, from one on that the seed
/// chooses. Seeds that count runs come by all of them.
pub fn points(all: usize, budget: usize) -> Vec<usize> {
    if let Some(only) = asked() {
        return only.collect();
    }
    let stride = if is_full() { 1 } else { all.div_ceil(budget).max(1) };
    (1 + seed() % stride..=all).step_by(stride).collect()
}

/// `STRATE_FAULTS_AT`: one point or, since threads do not come to a call at the same number each time, some: `7-11`.
fn asked() -> Option<std::ops::RangeInclusive<usize>> {
    let text = std::env::var("STRATE_FAULTS_AT").ok()?;
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    Some(first.parse().unwrap()..=last.parse().unwrap())
}

/// Whether everything is to be tried (`make faults`).
fn is_full() -> bool {
    std::env::var_os("STRATE_FAULTS_FULL").is_some()
}

/// Whether everything is looked at after each point: what is asked for by its number is what failed.
fn is_thorough() -> bool {
    is_full() || asked().is_some()
}

/// Where strided sweeps start. `contrib/test.sh` gives the number of the run, where continuous integration counts them.
pub fn seed() -> usize {
    static SEED: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
        let drawn = || usize::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        std::env::var("STRATE_FAULTS_SEED").map_or_else(|_| drawn(), |text| text.parse().unwrap())
    });
    *SEED
}

/// The line that tries a point of this test once more, and those around it.
pub fn repeat(at: usize) -> String {
    let test = std::thread::current().name().unwrap_or("").to_owned();
    let (first, last) = (at.saturating_sub(2).max(at.min(1)), at + 2);
    let variables = format!("STRATE_FAULTS_SEED={} STRATE_FAULTS_AT={first}-{last}", seed());
    format!("again: {variables} cargo test --test faults -- --exact {test}")
}

impl Tally {
    fn new(name: String, calls: usize) -> Self {
        Self { name, calls, runs: 0, struck: 0, survived: 0, failures: Vec::new(), start: Instant::now() }
    }

    /// One more run.
    fn ran(&mut self, at: usize, traced: &Traced, survived: bool) {
        self.runs += 1;
        self.struck += usize::from(traced.hit.is_some());
        self.survived += usize::from(survived);
        if asked().is_some() {
            super::say(&format!("FAULTS: {} at {at}: {}, code {}\n", self.name, place(traced), traced.code));
        }
    }

    fn failed(&mut self, at: usize, traced: &Traced, why: &str) {
        let hit = place(traced);
        self.failures.push(format!("{} at {at}, {hit}: {why}\n    {traced}\n    {}", self.name, repeat(at)));
    }

    fn finish(self) {
        let line = format!(
            "FAULTS: {:<34} {:>4} calls, {:>4} runs, {:>4} struck, {:>3} survived, {} failures, {:.1} s, seed {}\n",
            self.name,
            self.calls,
            self.runs,
            self.struck,
            self.survived,
            self.failures.len(),
            self.start.elapsed().as_secs_f32(),
            seed(),
        );
        super::say(&line);
        let text: String = self.failures.iter().take(5).fold(String::new(), |mut text, failure| {
            let _ = writeln!(text, "{failure}");
            text
        });
        assert!(self.failures.is_empty(), "{} failures:\n{text}", self.failures.len());
    }
}

fn place(traced: &Traced) -> String {
    traced.hit.as_ref().map_or("nowhere".to_owned(), Call::to_string)
}

/// Kill the command at its calls, and look at the store each time.
pub fn kill(workload: &Workload, act: Act, budget: usize) {
    let (old, new) = workload.states();
    let which = |call: &Call| call.kind.changes();
    let calls = workload.count(&which);
    let mut tally = Tally::new(format!("{} {act:?}", workload.name), calls);
    for at in points(calls, budget) {
        workload.restore();
        let traced = tracer::run(workload.command(), &Plan { at, act, which: &which });
        // Threads do not come to the same number of calls each time.
        tally.ran(at, &traced, traced.hit.is_none());
        if let Err(why) = after_a_kill(workload, &old, &new, at, &traced) {
            tally.failed(at, &traced, &why);
        }
    }
    tally.finish();
}

fn after_a_kill(w: &Workload, old: &Rest, new: &Rest, at: usize, traced: &Traced) -> Result<(), String> {
    if !traced.strays.is_empty() {
        return Err(format!("processes are left: {:?}", traced.strays));
    }
    readable(w, at)?;
    old_or_new(w, old, new)?;
    // One time the command is tried again at once, with all that lies about; the other time a collection comes first.
    if at.is_multiple_of(2) || is_thorough() {
        store::copy(&w.store(), &w.root.join("middle"));
        again(w, old, new)?;
        store::copy(&w.root.join("middle"), &w.store());
    }
    if at % 2 == 1 || is_thorough() {
        prune_first(w, old, new)?;
    }
    Ok(())
}

/// Reading works, and what is named is whole.
fn readable(w: &Workload, at: usize) -> Result<(), String> {
    let turn = |i: usize| is_thorough() || at % w.readers.len() == i;
    for (_, reader) in w.readers.iter().enumerate().filter(|(i, _)| turn(*i)) {
        let output = w.run(reader);
        if output.code != 0 {
            return Err(format!("a reader failed: {output}"));
        }
    }
    whole(w)?;
    checked(w, at)
}

fn whole(w: &Workload) -> Result<(), String> {
    let defects = store::defects(&w.store());
    if defects.is_empty() { Ok(()) } else { Err(format!("the store is damaged: {defects:#?}")) }
}

/// What the command and the independent checker say of the store. They take long, so not every time.
fn checked(w: &Workload, at: usize) -> Result<(), String> {
    if !is_thorough() && !(at / 2).is_multiple_of(4) {
        return Ok(());
    }
    let said = w.run(["system", "check"]);
    if said.code != 0 {
        return Err(format!("the check found something: {said}"));
    }
    if ((at / 2).is_multiple_of(8) || asked().is_some()) && w.store().join("strate.json").exists() {
        let found = check_store(&w.store(), &[]);
        if !found.defects.is_empty() {
            return Err(format!("the independent checker found {:#?}", found.defects));
        }
    }
    Ok(())
}

/// Which of the two states it is; an error when it is neither.
fn old_or_new(w: &Workload, old: &Rest, new: &Rest) -> Result<bool, String> {
    if let Some(path) = &w.outside {
        let found = std::fs::read(path).ok();
        if found != old.outside && found != new.outside {
            return Err(format!("{} is neither the old nor the new one", path.display()));
        }
    }
    let found = w.names();
    if found == new.names {
        return Ok(true);
    }
    if found == old.names {
        return Ok(false);
    }
    if w.by_parts && found.is_subset(&old.names) && found.is_superset(&new.names) {
        return Ok(false);
    }
    Err(format!("names are neither the old nor the new ones: {found:?}"))
}

fn again(w: &Workload, old: &Rest, new: &Rest) -> Result<(), String> {
    let done = old_or_new(w, old, new)?;
    let output = Output::of(&mut w.command());
    if output.code != 0 && !w.once {
        return Err(format!("the next try failed: {output}"));
    }
    if output.code != 0 && !done && (w.result)(w) != new.result {
        return Err(format!("the next try failed: {output}"));
    }
    is_new(w, new)
}

fn is_new(w: &Workload, new: &Rest) -> Result<(), String> {
    let result = (w.result)(w);
    if result != new.result {
        return Err(format!("the next try made {result}, a fresh store {}", new.result));
    }
    whole(w)?;
    checked(w, w.round.get())?;
    w.collect()?;
    same(w, &[new], &[])
}

fn prune_first(w: &Workload, old: &Rest, new: &Rest) -> Result<(), String> {
    w.collect()?;
    whole(w)?;
    same(w, &[old, new], w.keeps)?;
    again(w, old, new)
}

/// The store has just the files that one of these had, and some that are kept.
fn same(w: &Workload, rests: &[&Rest], keeps: &[&str]) -> Result<(), String> {
    let found = w.listing();
    let difference = |rest: &&Rest| {
        let kept =
            |name: &str| keeps.iter().any(|kept| name.starts_with(kept)) && !rest.listing.contains_key(name);
        let found = found.clone().into_iter().filter(|(name, _)| !kept(name)).collect();
        store::difference(&found, &rest.listing)
    };
    let differences: Vec<_> = rests.iter().map(difference).collect();
    if differences.iter().any(Vec::is_empty) {
        Ok(())
    } else {
        Err(format!("files are left: {differences:#?}"))
    }
}

/// Let calls of the command itself fail, one after the other.
pub fn fail(workload: &Workload, act: Act, kinds: &[Kind], budget: usize) {
    let (old, new) = workload.states();
    let which = |call: &Call| kinds.contains(&call.kind) && !call.foreign;
    let calls = workload.count(&which);
    let mut tally = Tally::new(format!("{} {}", workload.name, describe(act)), calls);
    for at in points(calls, budget) {
        workload.restore();
        let traced = tracer::run(workload.command(), &Plan { at, act, which: &which });
        tally.ran(at, &traced, traced.code == 0);
        if let Err(why) = after_an_error(workload, act, (&old, &new), at, &traced) {
            tally.failed(at, &traced, &why);
        }
    }
    tally.finish();
}

/// Let the command run with files of at most so many bytes (`RLIMIT_FSIZE`): with none, which it must notice, and with
/// some of `sizes`.
pub fn limit(workload: &Workload, sizes: &[usize]) {
    let (old, new) = workload.states();
    let which = |_: &Call| false;
    let mut tally = Tally::new(format!("{} with small files", workload.name), 1 + sizes.len());
    let some = points(sizes.len(), 2).into_iter().filter_map(|at| sizes.get(at - 1).copied());
    let all: Vec<usize> = asked().map_or_else(|| [0].into_iter().chain(some).collect(), Iterator::collect);
    for at in all {
        workload.restore();
        let command = workload.command();
        let mut limited = workload.env.program("prlimit");
        limited.arg(format!("--fsize={at}")).arg("--").arg(command.get_program()).args(command.get_args());
        let traced = tracer::run(limited, &Plan { at: 0, act: Act::Count, which: &which });
        tally.ran(at, &traced, traced.code == 0);
        tally.struck += usize::from(traced.code != 0);
        let held = if at == 0 && traced.code == 0 {
            Err("it worked without a byte in any file".to_owned())
        } else {
            after_an_error(workload, Act::Fail(libc::EFBIG), (&old, &new), at, &traced)
        };
        if let Err(why) = held {
            tally.failed(at, &traced, &why);
        }
    }
    tally.finish();
}

fn describe(act: Act) -> String {
    match act {
        Act::Fail(errno) => format!("errno {errno} once"),
        Act::FailAll(errno) => format!("errno {errno} from then on"),
        other => format!("{other:?}"),
    }
}

fn after_an_error(
    w: &Workload,
    act: Act,
    (old, new): (&Rest, &Rest),
    at: usize,
    traced: &Traced,
) -> Result<(), String> {
    if traced.hung || !traced.strays.is_empty() {
        return Err(format!("hung: {}, processes left: {:?}", traced.hung, traced.strays));
    }
    readable(w, at)?;
    let is_new_state = old_or_new(w, old, new)?;
    if traced.code == 0 {
        // Survived: then the result must be right, and what was to be durable must be.
        if !is_new_state || (w.result)(w) != new.result {
            return Err("it said that it worked, but it did not".into());
        }
        if let (Act::Fail(errno) | Act::FailAll(errno), Some(call)) = (act, &traced.hit)
            && must_be_told(call)
            && !(w.makes_room && errno == libc::ENOSPC)
        {
            return Err("a failed sync was not told".into());
        }
    } else if traced.code > 127 || traced.stderr.contains("panicked") {
        return Err("it crashed".into());
    } else if let Act::Fail(errno) | Act::FailAll(errno) = act
        && errno != libc::EINTR
    {
        names_its_cause(errno, traced)?;
    } else {
        return Err("a short or interrupted call is no error".into());
    }
    let output = Output::of(&mut w.command());
    if output.code != 0 && !w.once {
        return Err(format!("the next try failed: {output}"));
    }
    is_new(w, new)
}

/// Syncs of what names rely on. Caches are not synced.
fn must_be_told(call: &Call) -> bool {
    call.kind == Kind::Sync
}

fn names_its_cause(errno: i32, traced: &Traced) -> Result<(), String> {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os").next().unwrap().to_ascii_lowercase();
    let said = traced.stderr.to_ascii_lowercase();
    if !said.contains(&text) {
        return Err(format!("the message does not say {text:?}"));
    }
    if !said.contains(['/', '`']) && !said.contains("dockerfile") {
        return Err("the message names no path".into());
    }
    Ok(())
}

/// A directory that goes with its owner.
pub struct Root(pub PathBuf);

impl std::ops::Deref for Root {
    type Target = PathBuf;

    fn deref(&self) -> &PathBuf {
        &self.0
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        store::remove(&self.0);
    }
}
