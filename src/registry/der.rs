//! The little of DER (ITU-T X.690) that is read here: a public key's parts, and the names in a certificate, for
//! messages. Nothing is decided by what the names say.

/// One element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (length, rest) = rest.split_at(count);
        (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
    };
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// An element with this tag: its content, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, _, _)| *found == tag).map(|(_, content, rest)| (content, rest))
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;

/// A SubjectPublicKeyInfo (RFC 5280 section 4.1): the content of its algorithm, and the key.
pub(super) fn public_key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, after) = expect(info, SEQUENCE)?;
    let (algorithm, rest) = expect(info, SEQUENCE)?;
    let (key, end) = expect(rest, BIT_STRING)?;
    let (unused, key) = key.split_first()?;
    (after.is_empty() && end.is_empty() && *unused == 0).then_some((algorithm, key))
}

/// Who a certificate is for, and who made it, for people.
pub(super) fn names(certificate: &[u8]) -> Option<(String, String)> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut body, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(body, 0xa0) {
        body = rest; // version
    }
    let (_, _, body) = element(body)?; // serial number
    let (_, body) = expect(body, SEQUENCE)?; // algorithm
    let (issuer, body) = expect(body, SEQUENCE)?;
    let (_, body) = expect(body, SEQUENCE)?; // validity
    let (subject, _) = expect(body, SEQUENCE)?;
    Some((name(subject), name(issuer)))
}

/// A distinguished name: `CN=registry, O=Example`.
fn name(mut bytes: &[u8]) -> String {
    let mut parts: Vec<String> = Vec::new();
    while let Some((set, rest)) = expect(bytes, SET) {
        bytes = rest;
        let part = expect(set, SEQUENCE).and_then(|(pair, _)| {
            let (kind, rest) = expect(pair, OBJECT)?;
            let (_, value, _) = element(rest)?;
            let kind = match kind {
                [0x55, 4, 3] => "CN",
                [0x55, 4, 10] => "O",
                [0x55, 4, 11] => "OU",
                [0x55, 4, 6] => "C",
                _ => return None,
            };
            Some(format!("{kind}={}", super::error::sanitise(&String::from_utf8_lossy(value), 100)))
        });
        parts.extend(part);
    }
    if parts.is_empty() { "nobody by name".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_input_is_no_key_and_no_name() {
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x80",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x02\x30\x00",
            b"\x30\x85\0\0\0\0\x01\0",
        ] {
            assert!(public_key(bytes).is_none() && names(bytes).is_none());
        }
        let key = [0x30, 9, 0x30, 3, 6, 1, 42, 3, 2, 0, 7];
        assert_eq!(public_key(&key), Some((&[6, 1, 42][..], &[7][..])));
        let mut longer = key.to_vec();
        longer.push(0);
        assert!(public_key(&longer).is_none());
        for end in 0..key.len() {
            assert!(public_key(&key[..end]).is_none());
        }
    }

    #[test]
    fn names_are_shown_safely() {
        let cn = [0x31, 12, 0x30, 10, 6, 3, 0x55, 4, 3, 0x0c, 3, b'a', 0x1b, b'b'];
        assert_eq!(name(&cn), "CN=a\\u{1b}b");
        assert_eq!(name(b""), "nobody by name");
    }
}
