//! One header block.

use ::tar::Header as RawHeader;

use super::BLOCK;

/// A header block with a right checksum.
pub(super) struct Block(RawHeader);

/// Which of the historic layouts a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Block {
    /// Check the sum over the block, which old tars made of signed bytes.
    pub(super) fn parse(bytes: &[u8; BLOCK]) -> Result<Self, String> {
        let header = RawHeader::from_byte_slice(bytes).clone();
        let stored = number(&header.as_old().cksum)?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored == unsigned || stored == signed {
            Ok(Self(header))
        } else {
            Err("wrong header checksum".into())
        }
    }

    pub(super) fn layout(&self) -> Layout {
        let bytes = self.0.as_bytes();
        match &bytes[257..265] {
            [b'u', b's', b't', b'a', b'r', b' ', b' ', 0] => Layout::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if &bytes[508..512] == b"tar\0" => Layout::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Layout::Ustar,
            _ => Layout::V7,
        }
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0.as_old().linkflag[0]
    }

    /// The name with the prefix field, where the layout has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0.as_old().name);
        let bytes = self.0.as_bytes();
        let prefix = match self.layout() {
            Layout::Ustar => text(&bytes[345..500]),
            Layout::Star => text(&bytes[345..476]),
            Layout::Gnu | Layout::V7 => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0.as_old().linkname).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, String> {
        number(&self.0.as_old().mode).map_err(|what| format!("mode: {what}"))
    }

    pub(super) fn uid(&self) -> Result<i64, String> {
        number(&self.0.as_old().uid).map_err(|what| format!("uid: {what}"))
    }

    pub(super) fn gid(&self) -> Result<i64, String> {
        number(&self.0.as_old().gid).map_err(|what| format!("gid: {what}"))
    }

    pub(super) fn size(&self) -> Result<i64, String> {
        number(&self.0.as_old().size).map_err(|what| format!("size: {what}"))
    }

    pub(super) fn mtime(&self) -> Result<i64, String> {
        number(&self.0.as_old().mtime).map_err(|what| format!("mtime: {what}"))
    }

    /// Major and minor number; a v7 header has none.
    pub(super) fn device(&self) -> Result<(i64, i64), String> {
        if self.layout() == Layout::V7 {
            return Ok((0, 0));
        }
        let bytes = self.0.as_bytes();
        Ok((number(&bytes[329..337])?, number(&bytes[337..345])?))
    }

    /// The four pieces, the flag for more and the real size of an old GNU sparse header.
    pub(super) fn gnu_sparse(&self) -> (&[u8], bool, Result<i64, String>) {
        let bytes = self.0.as_bytes();
        (&bytes[386..482], bytes[482] != 0, number(&bytes[483..495]))
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal text, or two's complement in base 256 when the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, String> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Result<i64, String> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    let mut value = 0_i64;
    for digit in text(&field[start..end]) {
        if !(b'0'..=b'7').contains(digit) {
            return Err("not an octal number".into());
        }
        // 12 octal digits are 36 bits: no overflow.
        value = value * 8 + i64::from(digit - b'0');
    }
    Ok(value)
}

fn base256(field: &[u8]) -> Result<i64, String> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = 0;
    for (at, byte) in field.iter().enumerate() {
        let byte = match (at, negative) {
            (0, false) => byte & 0x7f,
            (0, true) => byte | 0x80,
            _ => *byte,
        };
        value = value << 8 | i128::from(byte);
    }
    if negative {
        value -= 1_i128 << (8 * field.len());
    }
    i64::try_from(value).map_err(|_| "number out of range".into())
}
