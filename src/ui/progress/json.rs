//! `--progress json`: one object a line on stderr. The names and words are described in `doc/progress.md` and stay.

use std::io::Write;

use serde::Serialize;

/// What happened to a layer or to the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// The layer is part of the transfer.
    Pending,
    /// It waits for its turn.
    Waiting,
    /// It is there already.
    Exists,
    /// Bytes move.
    Transferring,
    /// All bytes moved and verified; unpacking goes on.
    Transferred,
    /// It is unpacked.
    Unpacking,
    /// It is there, complete.
    Done,
    /// The registry took it over from another repository.
    Mounted,
    /// Another try follows.
    Retrying,
    /// A word to the user.
    Notice,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// RFC 3339.
    pub time: String,
    /// `pull`, `push`, `save`, `load`, `copy`.
    pub verb: &'a str,
    pub status: Status,
    /// The digest of the layer's blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Bytes so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes of the blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// The other repository, or why there is another try, or the word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

impl<'a> Line<'a> {
    pub(super) fn new(verb: &'a str, status: Status) -> Self {
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
        Self { time, verb, status, id: None, current: None, total: None, message: None }
    }

    /// Write it, as one write.
    pub(super) fn say(&self) {
        if let Ok(mut text) = serde_json::to_string(self) {
            text.push('\n');
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_names_that_are_documented() {
        let line = Line {
            id: Some("sha256:ab"),
            current: Some(1),
            total: Some(2),
            message: Some("a\u{1b}b\nc"),
            ..Line::new("pull", Status::Transferring)
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(!text.contains('\n') && !text.contains('\u{1b}'), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert_eq!(value["status"], "transferring");
        assert_eq!((&value["verb"], &value["id"]), (&"pull".into(), &"sha256:ab".into()));
        assert_eq!((&value["current"], &value["total"]), (&1.into(), &2.into()));
        let bare = serde_json::to_value(Line::new("push", Status::Notice)).unwrap();
        assert_eq!(bare.as_object().unwrap().len(), 3);
    }
}
