//! PAX extended header records.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Entry, Time};

/// A record: key and value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Split the data of an extended header into its records, by the length that each begins with.
pub(super) fn parse(mut data: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let bad = || "malformed PAX record".to_owned();
        let space = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = usize::try_from(decimal(&data[..space]).ok_or_else(bad)?).map_err(|_| bad())?;
        if length > data.len() || length < space + 3 || data[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let names_something = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname" | b"GNU.sparse.name");
        let with_nul = if names_something { value } else { key };
        if key.is_empty() || with_nul.contains(&0) {
            return Err(bad());
        }
        records.push((key.to_vec(), value.to_vec()));
        data = &data[length..];
    }
    Ok(records)
}

/// Digits only: no sign, no blank.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The last record of a key; an empty value takes the key back.
pub(super) fn last<'a>(records: &'a [Record], key: &[u8]) -> Option<&'a [u8]> {
    let (_, value) = records.iter().rev().find(|(name, _)| name == key)?;
    (!value.is_empty()).then_some(value)
}

/// What records say about an entry, but for its size and its sparse map. Later records win; an empty value leaves what
/// the header says.
pub(super) fn merge(entry: &mut Entry, records: &[Record]) -> Result<(), String> {
    for (key, value) in records {
        let id = || {
            let id = decimal(value).and_then(|id| u32::try_from(id).ok());
            id.filter(|id| *id != u32::MAX).ok_or_else(|| "owner id out of range".to_owned())
        };
        let set = !value.is_empty();
        match key.as_slice() {
            b"path" if set => entry.path.clone_from(value),
            b"linkpath" if set => entry.link.clone_from(value),
            b"uid" if set => entry.uid = id()?,
            b"gid" if set => entry.gid = id()?,
            b"mtime" if set => {
                entry.mtime = time(value).ok_or_else(|| "mtime is not a time".to_owned())?;
            }
            key => merge_xattr(entry, key, value),
        }
    }
    Ok(())
}

fn merge_xattr(entry: &mut Entry, key: &[u8], value: &[u8]) {
    let (name, value) = if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        (name.to_vec(), value.to_vec())
    } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
        // Written by bsdtar beside the other form: name in URL encoding, value in base64. Not for us if it is neither.
        let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let Ok(value) = GeneralPurpose::new(&STANDARD, lenient).decode(value) else { return };
        (percent_decoded(name), value)
    } else {
        return;
    };
    if name.is_empty() || name.contains(&0) {
        return;
    }
    if value.is_empty() {
        entry.xattrs.remove(&name);
    } else {
        entry.xattrs.insert(name, value);
    }
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let hex = if *first == b'%' { tail.get(..2) } else { None };
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    out
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped.
pub(super) fn time(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos =
        (0..9).fold(0, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    Some(match (negative, nanos) {
        (false, _) => Time { seconds: whole, nanos },
        (true, 0) => Time { seconds: -whole, nanos: 0 },
        (true, _) => Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// The text of a time with a fraction, as a PAX record holds it.
pub(super) fn time_text(time: Time) -> String {
    let (sign, seconds, nanos) = match time {
        Time { seconds, nanos } if seconds >= 0 => ("", i128::from(seconds), nanos),
        Time { seconds, nanos: 0 } => ("-", -i128::from(seconds), 0),
        Time { seconds, nanos } => ("-", -i128::from(seconds) - 1, 1_000_000_000 - nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}
