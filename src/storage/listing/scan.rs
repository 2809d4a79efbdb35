//! A reader of `index.json` that sees a window of the file at a time and hands out one line after the other.
//!
//! With a thousand names the file has half a megabyte. To parse it as any JSON costs more than all the rest of a listing,
//! and so do the pages of memory that it would fill. What is unusual here (escapes in a key, a field twice, anything
//! that is no JSON) is not judged: the caller then reads the file as JSON of any kind, which also says what is wrong.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};

use super::{KEYS, Line, Notes, Text};

/// Bytes that are read at a time.
const WINDOW: usize = 32 << 10;
/// Lists and objects within each other: serde_json goes a little deeper.
const DEEPEST: u32 = 100;

/// Why a part of the file was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It goes on behind the window.
    More,
    /// It is not what strate writes.
    Odd,
}

/// Call `each` for the descriptors of an image index, in their order. False when the file is not understood, or has more
/// than `most` bytes: some lines were handed out by then.
pub(super) fn lines(from: impl Read, most: u64, mut each: impl FnMut(&Line<'_>)) -> bool {
    let mut window = Window { from, bytes: vec![0; WINDOW], at: 0, end: 0, left: most, is_whole: false };
    read_index(&mut window, &mut each).is_ok()
}

/// `{"schemaVersion":2,…,"manifests":[…],…}` and nothing behind it.
fn read_index<R: Read>(window: &mut Window<R>, each: &mut dyn FnMut(&Line<'_>)) -> Result<(), Stop> {
    let mut has_list = false;
    window.step(|at| at.expect(b'{'))?;
    let mut ended = window.step(|at| at.take_if(b'}'))?;
    while !ended {
        let is_list = window.step(|at| {
            let is_list = at.key()? == b"manifests";
            // An empty list of other tools is `null`.
            match is_list && at.peek()? == b'[' {
                true => at.expect(b'[').map(|()| true),
                false if is_list && at.peek()? != b'n' => Err(Stop::Odd),
                false => at.skip(0).map(|()| false),
            }
            .map(|goes_on| (is_list, goes_on))
        })?;
        if is_list.0 && std::mem::replace(&mut has_list, true) {
            return Err(Stop::Odd);
        }
        if is_list.1 && !window.step(|at| at.take_if(b']'))? {
            while window.step(|at| {
                let line = at.line()?;
                let goes_on = at.goes_on(b']')?;
                each(&line);
                Ok(goes_on)
            })? {}
        }
        ended = !window.step(|at| at.goes_on(b'}'))?;
    }
    window.at_end()?;
    if has_list { Ok(()) } else { Err(Stop::Odd) }
}

struct Window<R> {
    from: R,
    bytes: Vec<u8>,
    at: usize,
    end: usize,
    /// Bytes that may still come.
    left: u64,
    is_whole: bool,
}

impl<R: Read> Window<R> {
    /// Understand a part of the file. A part that goes on behind the window is tried again with more of it.
    fn step<T>(&mut self, mut part: impl FnMut(&mut Cursor<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        loop {
            let mut cursor = Cursor { bytes: &self.bytes[self.at..self.end], at: 0 };
            match part(&mut cursor) {
                Ok(found) => {
                    self.at += cursor.at;
                    return Ok(found);
                }
                Err(Stop::More) if !self.is_whole => self.fill()?,
                Err(_) => return Err(Stop::Odd),
            }
        }
    }

    /// Move the rest to the front and read on; make room when the rest fills the window.
    fn fill(&mut self) -> Result<(), Stop> {
        self.bytes.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.end == self.bytes.len() {
            self.bytes.resize(self.end * 2, 0);
        }
        let count = loop {
            match self.from.read(&mut self.bytes[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(|_| Stop::Odd)?,
            }
        };
        self.left = self.left.checked_sub(count as u64).ok_or(Stop::Odd)?;
        self.is_whole = count == 0;
        self.end += count;
        Ok(())
    }

    /// Nothing but blanks follows.
    fn at_end(&mut self) -> Result<(), Stop> {
        loop {
            if !self.bytes[self.at..self.end].iter().all(|byte| is_blank(*byte)) {
                return Err(Stop::Odd);
            }
            self.at = self.end;
            if self.is_whole {
                return Ok(());
            }
            self.fill()?;
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

impl<'a> Cursor<'a> {
    /// The next byte that is no blank.
    fn peek(&mut self) -> Result<u8, Stop> {
        loop {
            match self.bytes.get(self.at) {
                Some(byte) if is_blank(*byte) => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(Stop::More),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.take_if(byte)? { Ok(()) } else { Err(Stop::Odd) }
    }

    fn take_if(&mut self, byte: u8) -> Result<bool, Stop> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// After an element: whether a comma follows, or the end.
    fn goes_on(&mut self, end: u8) -> Result<bool, Stop> {
        if self.take_if(b',')? { Ok(true) } else { self.expect(end).map(|()| false) }
    }

    /// What stands between quotes, and whether escapes are in it.
    fn quoted(&mut self) -> Result<(&'a [u8], bool), Stop> {
        self.expect(b'"')?;
        let start = self.at;
        let (mut has_escapes, mut is_ascii) = (false, true);
        loop {
            let rest = self.bytes.get(self.at..).ok_or(Stop::More)?;
            if let Some(eight) = rest.first_chunk::<8>() {
                let word = u64::from_le_bytes(*eight);
                is_ascii &= word & HIGH == 0;
                let ends = ends_in(word);
                if ends == 0 {
                    self.at += 8;
                    continue;
                }
                self.at += (ends.trailing_zeros() / 8) as usize;
            }
            match *self.bytes.get(self.at).ok_or(Stop::More)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 2;
                }
                0..0x20 => return Err(Stop::Odd),
                byte => {
                    is_ascii &= byte.is_ascii();
                    self.at += 1;
                }
            }
        }
        let inside = &self.bytes[start..self.at];
        self.at += 1;
        if !is_ascii && std::str::from_utf8(inside).is_err() {
            return Err(Stop::Odd);
        }
        Ok((inside, has_escapes))
    }

    /// The key of a member, and the colon behind it.
    fn key(&mut self) -> Result<&'a [u8], Stop> {
        match self.quoted()? {
            (key, false) => self.expect(b':').map(|()| key),
            (_, true) => Err(Stop::Odd),
        }
    }

    fn text(&mut self) -> Result<Text<'a>, Stop> {
        let (inside, has_escapes) = self.quoted()?;
        Ok(Text(match has_escapes {
            false => Cow::Borrowed(std::str::from_utf8(inside).map_err(|_| Stop::Odd)?),
            true => Cow::Owned(unescaped(inside)?),
        }))
    }

    fn skip_text(&mut self) -> Result<(), Stop> {
        match self.quoted()? {
            (_, false) => Ok(()),
            (inside, true) => unescaped(inside).map(drop),
        }
    }

    /// A number, `true`, `false` or `null`, as it stands there.
    fn word(&mut self) -> Result<&'a str, Stop> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.iter().position(|byte| !is_part(byte)).ok_or(Stop::More)?;
        self.at += length;
        std::str::from_utf8(&rest[..length]).map_err(|_| Stop::Odd)
    }

    fn number(&mut self) -> Result<u64, Stop> {
        let word = self.word()?;
        let is_plain =
            word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        word.parse().ok().filter(|_| is_plain).ok_or(Stop::Odd)
    }

    /// Walk over a value.
    fn skip(&mut self, depth: u32) -> Result<(), Stop> {
        match self.peek()? {
            _ if depth > DEEPEST => Err(Stop::Odd),
            b'"' => self.skip_text(),
            b'{' => self.members(|at, _| at.skip(depth + 1)),
            b'[' => {
                self.expect(b'[')?;
                if self.take_if(b']')? {
                    return Ok(());
                }
                while {
                    self.skip(depth + 1)?;
                    self.goes_on(b']')?
                } {}
                Ok(())
            }
            _ => {
                let word = self.word()?;
                serde_json::from_str::<serde_json::Value>(word).map(|_| ()).map_err(|_| Stop::Odd)
            }
        }
    }

    /// Call `value` at the value of each member of an object.
    fn members(
        &mut self,
        mut value: impl FnMut(&mut Self, &'a [u8]) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.expect(b'{')?;
        if self.take_if(b'}')? {
            return Ok(());
        }
        while {
            let key = self.key()?;
            value(self, key)?;
            self.goes_on(b'}')?
        } {}
        Ok(())
    }

    /// One descriptor.
    fn line(&mut self) -> Result<Line<'a>, Stop> {
        let (mut media_type, mut digest, mut size, mut annotations) = (None, None, None, None);
        self.members(|at, key| match key {
            b"mediaType" => once(&mut media_type, at.text()?),
            b"digest" => once(&mut digest, at.text()?),
            b"size" => once(&mut size, at.number()?),
            b"annotations" => once(&mut annotations, at.notes()?),
            _ => at.skip(1),
        })?;
        Ok(Line {
            media_type: media_type.ok_or(Stop::Odd)?,
            digest: digest.ok_or(Stop::Odd)?,
            size: size.ok_or(Stop::Odd)?,
            annotations: annotations.unwrap_or_default(),
        })
    }

    fn notes(&mut self) -> Result<Notes<'a>, Stop> {
        let mut notes = Notes::default();
        self.members(|at, key| match KEYS.iter().position(|known| known.as_bytes() == key) {
            Some(index) => {
                notes.0[index] = Some(at.text()?);
                Ok(())
            }
            None => at.skip_text(),
        })?;
        Ok(notes)
    }
}

/// What a text with escapes says.
fn unescaped(inside: &[u8]) -> Result<String, Stop> {
    serde_json::from_slice(&[&b"\""[..], inside, b"\""].concat()).map_err(|_| Stop::Odd)
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Stop> {
    if place.replace(value).is_none() { Ok(()) } else { Err(Stop::Odd) }
}

const LOW: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// Bits of the bytes that end a run of plain characters: quotes, backslashes and control characters. Of bits that are set
/// the lowest is right; above it there may be one too many.
fn ends_in(word: u64) -> u64 {
    let zeros = |word: u64| word.wrapping_sub(LOW) & !word;
    let quotes = zeros(word ^ (LOW * u64::from(b'"')));
    let backslashes = zeros(word ^ (LOW * u64::from(b'\\')));
    let controls = word.wrapping_sub(LOW * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::layout::Layout;
    use crate::storage::listing::Lines;

    /// A reader that gives a few bytes at a time.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.len().min(self.1).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn seen(text: &[u8], at_a_time: usize) -> Option<Vec<String>> {
        let mut all = Vec::new();
        let understood = lines(Slowly(text, at_a_time), 1 << 20, |line| all.push(format!("{line:?}")));
        understood.then_some(all)
    }

    fn by_serde(text: &[u8]) -> Option<Vec<String>> {
        let lines = Lines::parse(&Layout::new(std::path::Path::new("/none")), text).ok()?;
        Some(lines.manifests.iter().map(|line| format!("{line:?}")).collect())
    }

    const GOOD: &str = r#" {"schemaVersion":2,"mediaType":"x\n","manifests":[
        {"mediaType":"m","digest":"sha256:0","size":30,"platform":{"os":"l","v":[1,-2.5e3,true,null,{}]},
         "annotations":{"org.opencontainers.image.ref.name":"a\u002fb:\"c\\","io.strate.size":"7","other":"é日本語 and \"more\""}},
        {"size":0,"digest":"d","mediaType":"n"} , {"size":1,"digest":"d","mediaType":"n","annotations":{}}
        ],"annotations":{"k":["v"]}} "#;

    #[test]
    fn it_sees_what_serde_sees_however_the_file_is_cut() {
        for at_a_time in 1..200 {
            assert_eq!(seen(GOOD.as_bytes(), at_a_time), by_serde(GOOD.as_bytes()), "{at_a_time}");
        }
        assert_eq!(seen(GOOD.as_bytes(), 99).unwrap().len(), 3);
        assert_eq!(seen(br#"{"manifests":null}"#, 99), Some(vec![]));
        assert_eq!(seen(br#"{"manifests":[]}"#, 99), Some(vec![]));
        assert_eq!(seen(br#"{"x":"\uD800","manifests":[]}"#, 99), None, "this is left to serde");
    }

    #[test]
    fn long_lines_make_the_window_grow_and_long_files_end_it() {
        let long = "é".repeat(WINDOW);
        let text = format!(r#"{{"manifests":[{{"mediaType":"{long}","digest":"d","size":1}}]}}"#);
        assert_eq!(seen(text.as_bytes(), 5000), by_serde(text.as_bytes()));
        assert!(!lines(text.as_bytes(), 1000, |_| ()));
    }

    #[test]
    fn whatever_it_takes_serde_takes_too() {
        let good = GOOD.trim_end().as_bytes().to_vec();
        for at in 0..good.len() {
            for bad in *b"\"\\{}],:0-n \x1f\x80" {
                let mut text = good.clone();
                text[at] = bad;
                if let Some(seen) = seen(&text, 1 << 20) {
                    assert_eq!(Some(seen), by_serde(&text), "{}", String::from_utf8_lossy(&text));
                }
            }
            assert_eq!(seen(&good[..at], 1 << 20), None, "cut at {at}");
        }
        let deep = format!(r#"{{"manifests":[],"x":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(!lines(deep.as_bytes(), 1 << 20, |_| ()));
    }
}
