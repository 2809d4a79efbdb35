//! `--chmod`: octal, or symbolic as `man 1 chmod` has it with no umask.

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chmod {
    /// The permission bits.
    Octal(u32),
    /// Changes, in order.
    Symbolic(Vec<Change>),
}

/// One `who op perms` of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// Bits 2, 1, 0: user, group, others.
    who: u8,
    /// Whether `who` was written; without it sticky belongs to the change too.
    all: bool,
    /// `+`, `-` or `=`.
    op: u8,
    perms: Perms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Perms {
    /// `rwx` bits, `X`, `s`, `t`.
    Letters { rwx: u32, cond_x: bool, set_id: bool, sticky: bool },
    /// The bits of another class: shift of user (6), group (3) or others (0).
    Copy(u32),
}

impl Chmod {
    /// Parse; the error is the reference's text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| refuse())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(refuse()) };
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut changes).ok_or_else(refuse)?;
        }
        Ok(Self::Symbolic(changes))
    }

    /// The mode (low twelve bits) that comes out of `mode`.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => {
                changes.iter().fold(mode & 0o7777, |mode, change| change.apply(mode, is_dir))
            }
        }
    }

    /// The number, when it is one: it also applies to directories made on the way.
    pub(super) fn octal(&self) -> Option<u32> {
        match self {
            Self::Octal(mode) => Some(*mode),
            Self::Symbolic(_) => None,
        }
    }
}

fn parse_clause(mut text: &[u8], changes: &mut Vec<Change>) -> Option<()> {
    let mut who = 0;
    while let Some((&c, rest)) = text.split_first() {
        who |= match c {
            b'u' => 4,
            b'g' => 2,
            b'o' => 1,
            b'a' => 7,
            _ => break,
        };
        text = rest;
    }
    let all = who == 0;
    let who = if all { 7 } else { who };
    if text.is_empty() {
        return None;
    }
    while let Some((&op, rest)) = text.split_first() {
        if !b"+-=".contains(&op) {
            return None;
        }
        let end = rest.iter().position(|c| b"+-=".contains(c)).unwrap_or(rest.len());
        let (letters, next) = rest.split_at(end);
        changes.push(Change { who, all, op, perms: parse_perms(letters)? });
        text = next;
    }
    Some(())
}

fn parse_perms(letters: &[u8]) -> Option<Perms> {
    match letters {
        b"u" => return Some(Perms::Copy(6)),
        b"g" => return Some(Perms::Copy(3)),
        b"o" => return Some(Perms::Copy(0)),
        _ => {}
    }
    let (mut rwx, mut cond_x, mut set_id, mut sticky) = (0, false, false, false);
    for letter in letters {
        match letter {
            b'r' => rwx |= 4,
            b'w' => rwx |= 2,
            b'x' => rwx |= 1,
            b'X' => cond_x = true,
            b's' => set_id = true,
            b't' => sticky = true,
            _ => return None,
        }
    }
    Some(Perms::Letters { rwx, cond_x, set_id, sticky })
}

impl Change {
    fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let (rwx, special) = match self.perms {
            Perms::Copy(shift) => ((mode >> shift) & 7, 0),
            Perms::Letters { rwx, cond_x, set_id, sticky } => {
                let x = u32::from(cond_x && (is_dir || mode & 0o111 != 0));
                let mut special = 0;
                if set_id {
                    special |= if self.who & 4 != 0 { 0o4000 } else { 0 };
                    special |= if self.who & 2 != 0 { 0o2000 } else { 0 };
                }
                if sticky && (self.all || self.who == 7 || self.who & 1 != 0) {
                    special |= 0o1000;
                }
                (rwx | x, special)
            }
        };
        let classes = [(4, 6), (2, 3), (1, 0)];
        let of = |bits: u32| {
            classes
                .iter()
                .filter(|(who, _)| self.who & who != 0)
                .fold(0, |sum, (_, shift)| sum | bits << shift)
        };
        match self.op {
            b'+' => mode | of(rwx) | special,
            b'-' => mode & !(of(rwx) | special),
            _ => {
                let mut cleared = of(7);
                // As GNU chmod: `=` leaves a directory's set-id bits unless it names them.
                if !is_dir {
                    cleared |= if self.who & 4 != 0 { 0o4000 } else { 0 };
                    cleared |= if self.who & 2 != 0 { 0o2000 } else { 0 };
                }
                (mode & !cleared) | of(rwx) | special
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_computed_as_chmod_does() {
        for (text, from, dir, to) in [
            ("640", 0o777, false, 0o640),
            ("04755", 0, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("g=u,o-r", 0o644, false, 0o660),
            ("u+s,a-w", 0o644, false, 0o4444),
            ("a=", 0o755, false, 0),
            ("u+r-w", 0o200, false, 0o400),
            ("+t", 0o777, true, 0o1777),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(from, dir), to, "{text} on {from:o}");
        }
        for bad in ["64a", "8", "10000", "", "u", "z+x", "u+q", "u=rw,"] {
            let text = Chmod::parse(bad).unwrap_err();
            assert!(text.starts_with(&format!("invalid chmod parameter: '{bad}'")), "{text}");
        }
    }
}
