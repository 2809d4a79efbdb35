//! The log of a container: docker's json-file lines, one object a line of output.
//!
//! `{"log":"text\n","stream":"stdout","time":"2026-01-02T12:00:00.123456789Z"}`
//!
//! A line of output that never ends is cut every 16 KiB, as docker does, so that neither the writer nor a reader ever
//! holds more.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Deserialize;

use crate::ops::when;

/// The longest piece of a line.
const PIECE: usize = 16 * 1024;

/// Which stream a piece came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// Writes a log.
#[derive(Debug)]
pub struct LogWriter {
    file: Option<File>,
    /// What came since the last newline, for each stream.
    pending: [Vec<u8>; 2],
    buffer: Vec<u8>,
}

impl LogWriter {
    /// Go on with the log at `path`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A link planted in its place must not make us write elsewhere.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        Ok(Self { file: Some(file), pending: Default::default(), buffer: Vec::new() })
    }

    /// A log that nobody wants.
    #[must_use]
    pub fn none() -> Self {
        Self { file: None, pending: Default::default(), buffer: Vec::new() }
    }

    /// Take some output. A log that cannot be written any more (a full disk) ends; the container goes on.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        if self.file.is_none() || bytes.is_empty() {
            return;
        }
        let time = when::now();
        while !bytes.is_empty() {
            let pending = &mut self.pending[stream as usize];
            let room = PIECE - pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let newline = window.iter().position(|b| *b == b'\n');
            let taken = newline.map_or(window.len(), |at| at + 1);
            pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if newline.is_some() || pending.len() == PIECE {
                let whole = if newline.is_some() { pending.len() } else { cut(pending) };
                encode(&mut self.buffer, &pending[..whole], stream, &time);
                pending.drain(..whole);
            }
            if self.buffer.len() >= 4 * PIECE {
                self.flush();
            }
        }
        self.flush();
    }

    /// Write what has no newline yet.
    pub fn finish(&mut self) {
        let time = when::now();
        for stream in [Stream::Out, Stream::Err] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() && self.file.is_some() {
                encode(&mut self.buffer, &pending, stream, &time);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && !self.buffer.is_empty()
            && file.write_all(&self.buffer).is_err()
        {
            self.file = None;
        }
        self.buffer.clear();
    }
}

/// Where to cut a full piece: not inside a character.
fn cut(piece: &[u8]) -> usize {
    match std::str::from_utf8(piece) {
        // Only an incomplete end has no error length.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => piece.len(),
    }
}

fn encode(out: &mut Vec<u8>, piece: &[u8], stream: Stream, time: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in piece.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// JSON string escapes (RFC 8259, 7).
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let replacement: Cow<'_, [u8]> = match byte {
            b'"' => Cow::Borrowed(b"\\\""),
            b'\\' => Cow::Borrowed(b"\\\\"),
            b'\n' => Cow::Borrowed(b"\\n"),
            b'\r' => Cow::Borrowed(b"\\r"),
            b'\t' => Cow::Borrowed(b"\\t"),
            0..0x20 => Cow::Owned(format!("\\u{byte:04x}").into_bytes()),
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        out.extend_from_slice(&replacement);
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// One line of a log.
#[derive(Debug, Deserialize)]
pub struct Entry<'a> {
    /// The text, newline included.
    #[serde(borrow)]
    pub log: Cow<'a, str>,
    /// `stdout` or `stderr`.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// RFC 3339 with nanoseconds.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
}

/// Reads a log that may still grow.
#[derive(Debug)]
pub struct LogReader {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl LogReader {
    /// Open the log at `path`, at its last `tail` lines when given.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, tail: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if let Some(lines) = tail {
            let start = tail_start(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(Self { file: BufReader::with_capacity(64 * 1024, file), line: Vec::new() })
    }

    /// The next complete line; `None` at the end, for now. A line that is no JSON (torn by a crash) is skipped.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry<'_>>> {
        loop {
            if self.line.ends_with(b"\n") {
                self.line.clear();
            }
            // What is left of a line that was not complete stays and grows.
            self.file.read_until(b'\n', &mut self.line)?;
            if !self.line.ends_with(b"\n") {
                return Ok(None);
            }
            if serde_json::from_slice::<Entry<'_>>(&self.line).is_ok() {
                break;
            }
        }
        Ok(serde_json::from_slice(&self.line).ok())
    }

    /// The file, for watching.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.get_ref()
    }
}

/// Where the last `lines` lines of a file start, found from its end.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut missing = lines.saturating_add(1);
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            missing -= 1;
            if missing == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path, tail: Option<u64>) -> Vec<(String, String)> {
        let mut reader = LogReader::open(path, tail).unwrap();
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            assert!(entry.time.parse::<jiff::Timestamp>().is_ok());
            all.push((entry.stream.to_string(), entry.log.to_string()));
        }
        all
    }

    #[test]
    fn what_goes_in_comes_out_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path).unwrap();
        log.write(Stream::Out, b"one\ntw");
        log.write(Stream::Err, b"\x1b[1m\"\\\t\r\0\n");
        log.write(Stream::Out, b"o\n\xff\xfe\xc3\xa9\nend");
        log.finish();
        let expected = [
            ("stdout", "one\n"),
            ("stderr", "\u{1b}[1m\"\\\t\r\0\n"),
            ("stdout", "two\n"),
            ("stdout", "\u{fffd}\u{fffd}é\n"),
            ("stdout", "end"),
        ];
        let expected: Vec<_> = expected.iter().map(|(s, l)| ((*s).to_owned(), (*l).to_owned())).collect();
        assert_eq!(entries(&path, None), expected);
        assert_eq!(entries(&path, Some(2)), expected[3..]);
        assert_eq!(entries(&path, Some(0)), []);
        assert_eq!(entries(&path, Some(99)), expected);
    }

    #[test]
    fn an_endless_line_is_cut_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path).unwrap();
        let text = "xé".repeat(PIECE);
        for chunk in text.as_bytes().chunks(1000) {
            log.write(Stream::Out, chunk);
            assert!(log.pending[0].len() <= PIECE && log.buffer.is_empty());
        }
        log.finish();
        let entries = entries(&path, None);
        assert_eq!(entries.len(), 4);
        assert_eq!(entries.iter().map(|(_, log)| log.as_str()).collect::<String>(), text);
    }

    #[test]
    fn torn_lines_are_skipped_and_incomplete_ones_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = r#"{"log":"a\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        std::fs::write(&path, format!("{}\n{line}\n{}", &line[..20], &line[..30])).unwrap();
        let mut reader = LogReader::open(&path, None).unwrap();
        assert!(reader.next_entry().unwrap().is_some());
        assert!(reader.next_entry().unwrap().is_none());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(format!("{}\n", &line[30..]).as_bytes()).unwrap();
        assert!(reader.next_entry().unwrap().is_some());
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink(dir.path().join("canary"), &path).unwrap();
        assert!(LogWriter::open(&path).is_err());
        assert!(!dir.path().join("canary").exists());
    }
}
