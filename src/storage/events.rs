//! What happened in the store: one line of JSON an event, in `containers/events`.
//!
//! Lines are appended whole with one call, without a lock, and not synced: an event is a remark for whoever watches, and
//! nothing depends on one. A file that has grown is moved aside once, in the place of the one before.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::{ContainerDir, Store};

/// Bytes after which a file is moved aside.
const MOST: u64 = 4 << 20;

/// Characters of the longest value, key, action or id: a line stays one short write that nothing can come between,
/// whatever an image's labels or a command line are.
const LONGEST: usize = 256;

/// Bytes of the longest line. Attributes that do not fit are left out, those of an image or a user before our own.
const LINE: usize = 16 << 10;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// `container`, `image` or `volume`.
    pub kind: String,
    /// Docker's word: `start`, `die`, `pull`.
    pub action: String,
    /// The id of the container or the name of the image or volume.
    pub id: String,
    /// Facts about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The facts about an event: our own, and what an image or a user said.
#[derive(Debug, Default)]
struct Facts {
    own: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

/// What of a text is written down.
fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// The bytes of a text in a line of JSON, or a few more.
fn room_of(text: &str) -> usize {
    // A control character is six: `\u0007`.
    text.chars().map(|char| if char.is_control() { 6 } else { char.len_utf8() + 1 }).sum::<usize>() + 4
}

/// The attributes that a line has room for. Our own always are among them: a label of the same name says nothing.
fn attributes(facts: Facts) -> BTreeMap<String, String> {
    let (mut kept, mut room) = (BTreeMap::new(), LINE);
    for (key, value) in facts.own.into_iter().chain(facts.labels) {
        let (key, value) = (short(&key), short(&value));
        let Some(left) = room.checked_sub(room_of(&key) + room_of(&value)) else { continue };
        if let Entry::Vacant(place) = kept.entry(key) {
            place.insert(value);
            room = left;
        }
    }
    kept
}

/// The line of an event, with its end.
fn line_of(kind: &str, action: &str, id: &str, facts: Facts) -> Option<Vec<u8>> {
    let (action, id) = (short(action), short(id));
    let event = Event { time: now(), kind: kind.into(), action, id, attributes: attributes(facts) };
    let mut line = serde_json::to_vec(&event).ok()?;
    line.push(b'\n');
    Some(line)
}

/// Append an event. One that cannot be written is nobody's loss.
fn append(layout: &Layout, kind: &str, action: &str, id: &str, facts: Facts) {
    let Some(line) = line_of(kind, action, id, facts) else { return };
    let path = layout.events();
    let open =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path);
    let Ok(mut file) = open else { return };
    if file.metadata().is_ok_and(|meta| meta.len() > MOST) {
        // Several may do so at once: the file that the second moves is new and nearly empty, which loses little.
        let _ = fs::rename(&path, layout.older_events());
    }
    let _ = file.write_all(&line);
}

impl ContainerDir {
    /// Note that something happened to the container.
    pub fn tell(&self, action: &str, more: &[(&str, String)]) {
        let spec: serde_json::Value = serde_json::from_str(self.record.spec.get()).unwrap_or_default();
        let labels = spec.get("config").and_then(|config| config.get("Labels"));
        let labels = labels.and_then(|labels| labels.as_object()).into_iter().flatten();
        let labels = labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
        let mut own: Vec<_> = more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        own.push(("image".into(), self.record.image_name.clone()));
        own.push(("name".into(), self.record.name.clone()));
        let facts = Facts { own, labels: labels.collect() };
        append(&self.layout, "container", action, &self.record.id, facts);
    }
}

impl Store {
    /// Note that something happened to an image or a volume.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let own = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        append(self.layout(), kind, action, id, Facts { own, labels: Vec::new() });
    }

    /// Read what happened, oldest first, and go on with what happens.
    #[must_use]
    pub fn events(&self) -> Events {
        Events {
            path: self.layout().events(),
            older: Some(self.layout().older_events()),
            file: None,
            line: Vec::new(),
        }
    }
}

/// Reads events.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    older: Option<PathBuf>,
    file: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl Events {
    /// The next event; `None` when there is none yet.
    pub fn next_event(&mut self) -> Option<Event> {
        if let Some(older) = self.older.take() {
            self.file = File::open(older).ok().map(BufReader::new);
        }
        loop {
            if self.file.is_none() {
                self.file = File::open(&self.path).ok().map(BufReader::new);
            }
            let file = self.file.as_mut()?;
            if file.read_until(b'\n', &mut self.line).is_err() {
                return None;
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if let Ok(event) = serde_json::from_slice(&line) {
                    return Some(event);
                }
                continue;
            }
            // The end, for now: unless the file was moved aside, and a new one goes on.
            let moved = fs::metadata(&self.path)
                .is_ok_and(|there| file.get_ref().metadata().is_ok_and(|ours| ours.ino() != there.ino()));
            if !moved {
                return None;
            }
            // Nobody writes there any more: half a line stays one.
            self.line.clear();
            self.file = None;
        }
    }

    /// The file that grows, for watching.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Pass over what happened before.
    pub fn skip_old(&mut self) {
        self.older = None;
        self.file = File::open(&self.path).ok().map(BufReader::new);
        if let Some(file) = &mut self.file {
            let _ = file.seek(SeekFrom::End(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_short_and_keeps_what_is_ours() {
        let own = [("exitCode", "3"), ("image", "busybox"), ("name", "web")];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut labels: Vec<_> =
            (0..100).map(|i| (format!("a{i}{}", "\u{1}".repeat(100_000)), "\u{1}".repeat(100_000))).collect();
        labels.push(owned(("name", "not mine")));
        labels.push(owned(("last", "fits")));
        let action = format!("exec_start: {}", "x".repeat(5 << 20));
        let line = line_of("container", &action, "id", Facts { own: own.map(owned).into(), labels }).unwrap();
        assert!(line.len() < LINE + (2 << 10), "{}", line.len());
        let event: Event = serde_json::from_slice(&line).unwrap();
        assert_eq!(event.action.chars().count(), LONGEST);
        for (key, value) in own.into_iter().chain([("last", "fits")]) {
            assert_eq!(event.attributes.get(key).map(String::as_str), Some(value));
        }
    }

    #[test]
    fn half_a_line_of_a_file_that_was_moved_aside_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let (path, older) = (dir.path().join("events"), dir.path().join("older"));
        let line = |action: &str| line_of("image", action, "x", Facts::default()).unwrap();
        fs::write(&path, [line("pull"), b"{\"time\":1,".to_vec()].concat()).unwrap();
        let mut events =
            Events { path: path.clone(), older: Some(older.clone()), file: None, line: Vec::new() };
        let mut next = || events.next_event().map(|event| event.action);
        assert_eq!((next().as_deref(), next()), (Some("pull"), None));
        fs::rename(&path, &older).unwrap();
        assert_eq!(next(), None);
        fs::write(&path, line("tag")).unwrap();
        assert_eq!((next().as_deref(), next()), (Some("tag"), None));
    }
}
