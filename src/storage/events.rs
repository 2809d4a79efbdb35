//! What happened in the store: one line of JSON an event, in `containers/events`.
//!
//! Lines are appended whole with one call, without a lock, and not synced: an event is a remark for whoever watches, and
//! nothing depends on one. A file that has grown is moved aside once, in the place of the one before.

use std::collections::BTreeMap;
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

/// Longest value of an attribute: a line stays one write that nothing can come between.
const LONGEST: usize = 256;

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

/// Append an event. One that cannot be written is nobody's loss.
fn append(layout: &Layout, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
    let short = |(key, value): (String, String)| (key, value.chars().take(LONGEST).collect());
    let attributes = attributes.into_iter().take(32).map(short).collect();
    let event = Event { time: now(), kind: kind.into(), action: action.into(), id: id.into(), attributes };
    let Ok(mut line) = serde_json::to_vec(&event) else { return };
    line.push(b'\n');
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
        let mut attributes = BTreeMap::new();
        for (key, value) in labels.and_then(|labels| labels.as_object()).into_iter().flatten() {
            attributes.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
        }
        attributes.insert("image".into(), self.record.image_name.clone());
        attributes.insert("name".into(), self.record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        append(&self.layout, "container", action, &self.record.id, attributes);
    }
}

impl Store {
    /// Note that something happened to an image or a volume.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        append(self.layout(), kind, action, id, attributes.collect());
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
            if !moved || !self.line.is_empty() {
                return None;
            }
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
