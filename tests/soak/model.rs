//! What names may stand for: everything that was done to them, with when it began and ended. Commands overlap, so the
//! question is never "is it there" but "can it have been there, or not, at some moment of this command": if some serial
//! order of the commands says so.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Nanoseconds since the start.
pub type Moment = u128;

/// What was done to a name.
#[derive(Debug, Clone)]
struct Event {
    start: Moment,
    /// None while it goes on.
    end: Option<Moment>,
    sets: bool,
    /// It is known to have happened. A killed command may or may not have got so far.
    sure: bool,
    /// What the name stands for since.
    id: Option<String>,
}

impl Event {
    fn end(&self) -> Moment {
        self.end.unwrap_or(Moment::MAX)
    }
}

/// How a command ended, for what it did to names.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It did it; the image, where the command says it.
    Done(Option<String>),
    /// It failed: it did nothing.
    Nothing,
    /// It was killed.
    Unknown,
}

/// One thing that is being done to a name.
#[derive(Debug)]
pub struct Change {
    name: String,
    at: usize,
}

impl Change {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// All names.
#[derive(Debug)]
pub struct Model {
    began: Instant,
    names: Mutex<BTreeMap<String, Vec<Event>>>,
}

/// What is removed when somebody removes all there is.
const EVERYTHING: &str = "*";

impl Model {
    pub fn new() -> Self {
        Self { began: Instant::now(), names: Mutex::default() }
    }

    pub fn now(&self) -> Moment {
        self.began.elapsed().as_nanos()
    }

    /// Somebody begins to set or remove a name.
    pub fn begin(&self, name: &str, sets: bool) -> Change {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let events = names.entry(name.to_owned()).or_default();
        events.push(Event { start: self.now(), end: None, sets, sure: false, id: None });
        Change { name: name.to_owned(), at: events.len() - 1 }
    }

    /// Somebody begins to remove all names.
    pub fn begin_removing_all(&self) -> Change {
        self.begin(EVERYTHING, false)
    }

    /// It ended.
    pub fn end(&self, change: &Change, outcome: Outcome) {
        let now = self.now();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let event = &mut names.get_mut(&change.name).unwrap()[change.at];
        match outcome {
            // What removes everything leaves what is in use.
            Outcome::Done(id) => (event.sure, event.id) = (change.name != EVERYTHING, id),
            Outcome::Unknown => {}
            Outcome::Nothing => event.start = Moment::MAX,
        }
        event.end = Some(now);
    }

    fn events(&self, name: &str) -> Vec<Event> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |name| names.get(name).into_iter().flatten();
        of(name).chain(of(EVERYTHING)).cloned().collect()
    }

    /// Whether the name can have been absent at some moment between the two.
    pub fn may_lack(&self, name: &str, from: Moment, to: Moment) -> bool {
        let events = self.events(name);
        let surely_set_after = |moment: Moment| {
            events.iter().any(|event| event.sets && event.sure && event.start > moment && event.end() < from)
        };
        let never_set = !events.iter().any(|event| event.sets && event.sure && event.end() < from);
        never_set || events.iter().any(|e| !e.sets && e.start < to && !surely_set_after(e.end()))
    }

    /// Whether the name can have been there at some moment between the two.
    pub fn may_have(&self, name: &str, from: Moment, to: Moment) -> bool {
        let events = self.events(name);
        let surely_removed_after = |moment: Moment| {
            events.iter().any(|event| !event.sets && event.sure && event.start > moment && event.end() < from)
        };
        events.iter().any(|e| e.sets && e.start < to && !surely_removed_after(e.end()))
    }

    /// Names that must be there now that all is quiet, with what they must stand for where only one thing is possible.
    pub fn must_be_there(&self) -> Vec<(String, Option<String>)> {
        let now = self.now();
        let names: Vec<String> =
            self.names.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let mut found = Vec::new();
        for name in names.into_iter().filter(|name| name != EVERYTHING && !self.may_lack(name, now, now)) {
            let events = self.events(&name);
            let last = events.iter().filter(|e| e.sets && e.sure).max_by_key(|e| e.end()).unwrap();
            let alone = events.iter().all(|e| !e.sets || e.end() < last.start || e.start == last.start);
            found.push((name, last.id.clone().filter(|_| alone)));
        }
        found
    }

    /// Names that must not be there.
    pub fn must_be_gone(&self) -> Vec<String> {
        let now = self.now();
        let names: Vec<String> =
            self.names.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        names.into_iter().filter(|name| name != EVERYTHING && !self.may_have(name, now, now)).collect()
    }
}

#[test]
fn the_model_knows_what_overlaps() {
    let model = Model::new();
    let lacks = |from, to| model.may_lack("x", from, to);
    let has = |from, to| model.may_have("x", from, to);
    let begin = model.now();
    assert!(lacks(begin, begin) && !has(begin, begin));
    let set = model.begin("x", true);
    let during = model.now();
    assert!(lacks(begin, during) && has(begin, during), "it may be set by now");
    model.end(&set, Outcome::Done(Some("one".into())));
    let after = model.now();
    assert!(!lacks(after, after) && has(after, after));
    assert!(lacks(begin, after), "a command that began before may have looked before");
    let remove = model.begin("x", false);
    model.end(&remove, Outcome::Unknown);
    let killed = model.now();
    assert!(lacks(killed, killed) && has(killed, killed));
    let remove = model.begin("x", false);
    model.end(&remove, Outcome::Nothing);
    let set = model.begin("x", true);
    model.end(&set, Outcome::Done(Some("two".into())));
    assert_eq!(model.must_be_there(), [("x".to_owned(), Some("two".to_owned()))]);
    let all = model.begin_removing_all();
    model.end(&all, Outcome::Done(None));
    let pruned = model.now();
    assert!(lacks(pruned, pruned) && has(pruned, pruned), "it may have been in use");
    let remove = model.begin("x", false);
    model.end(&remove, Outcome::Done(None));
    assert_eq!((model.must_be_there(), model.must_be_gone()), (vec![], vec!["x".to_owned()]));
}
