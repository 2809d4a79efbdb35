//! The keys by which a user leaves a terminal without ending its program.

use crate::ops::container::{Error, values};

/// Docker's: Ctrl-P, Ctrl-Q.
const USUAL: [u8; 2] = [0x10, 0x11];

/// Looks for the keys in what is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// What was typed of them and is not passed on yet.
    held: Vec<u8>,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: USUAL.to_vec(), held: Vec::new() }
    }
}

impl DetachKeys {
    /// Read a list as docker writes it: `ctrl-p,ctrl-q`, `a`, `ctrl-@`. An empty one means the usual keys.
    ///
    /// # Errors
    /// [`Error::BadValue`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = || {
            let why = "it is a list of keys with commas between them, each one character or ctrl- and one of a-z @ [ \\ ] ^ _";
            values::bad("--detach-keys", text, why)
        };
        let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>().ok_or_else(bad)?;
        Ok(Self { keys, held: Vec::new() })
    }

    /// Take what was typed. What is to be passed on goes to `out`; true when the keys are complete, and then nothing
    /// after them is looked at.
    pub fn take(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for byte in typed {
            self.held.push(*byte);
            if self.held == self.keys {
                self.held.clear();
                return true;
            }
            while !self.keys.starts_with(&self.held) {
                out.push(self.held.remove(0));
            }
        }
        false
    }
}

/// The byte that a terminal sends for a key.
fn key(text: &str) -> Option<u8> {
    if let [only] = text.as_bytes() {
        return Some(*only);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [sign @ (b'[' | b'\\' | b']' | b'^' | b'_')] => Some(sign - b'@'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &mut DetachKeys, text: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let left = keys.take(text, &mut out);
        (out, left)
    }

    #[test]
    fn keys_are_read_as_docker_reads_them() {
        for (text, keys) in [
            ("", &[0x10, 0x11][..]),
            ("ctrl-p,ctrl-q", &[0x10, 0x11]),
            ("a", b"a"),
            ("ctrl-a,d", &[1, b'd']),
            ("ctrl-@,ctrl-[,ctrl-_,ctrl-\\", &[0, 27, 31, 28]),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().keys, keys, "{text}");
        }
        for bad in ["ctrl-A", "ctrl-", "ab", "ctrl-p,", ",", "é", "ctrl-1"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_typed_passes_but_the_keys() {
        let mut keys = DetachKeys::default();
        assert_eq!(typed(&mut keys, b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(typed(&mut keys, b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(typed(&mut keys, b"\x11rest"), (Vec::new(), true));
        let mut keys = DetachKeys::parse("a,a,b").unwrap();
        assert_eq!(typed(&mut keys, b"aaab"), (b"a".to_vec(), true));
    }
}
