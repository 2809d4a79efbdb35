use super::*;
use crate::layer::Error;

/// A header block with the given fields.
fn header(name: &str, flag: u8, size: &[u8]) -> Vec<u8> {
    let mut block = ::tar::Header::new_ustar();
    let bytes = block.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[100..107].copy_from_slice(b"0000644");
    bytes[108..115].copy_from_slice(b"0000000");
    bytes[116..123].copy_from_slice(b"0000000");
    bytes[124..124 + size.len()].copy_from_slice(size);
    bytes[136..147].copy_from_slice(b"00000000000");
    bytes[156] = flag;
    sealed(bytes.to_vec())
}

/// With a right checksum.
fn sealed(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn with(mut block: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    sealed(block)
}

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o}").into_bytes()
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn extended(flag: u8, data: &[u8]) -> Vec<u8> {
    [header("PaxHeaders.0/x", flag, &octal(data.len())), padded(data)].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    extended(b'x', &records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<_>>())
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    [header(name, b'0', &octal(content.len())), padded(content)].concat()
}

fn read(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
    let mut input = tar;
    let mut reader = Reader::new(&mut input);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        while let Some(chunk) = reader.chunk()? {
            content.extend_from_slice(chunk);
        }
        all.push((entry, content));
    }
    reader.drain()?;
    assert!(input.is_empty());
    Ok(all)
}

/// Names and contents.
fn shown(tar: &[u8]) -> Option<Vec<(String, String)>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = read(tar).ok()?;
    Some(all.iter().map(|(entry, content)| (text(&entry.path), text(content))).collect())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

#[test]
fn names_and_sizes_come_from_where_they_should() {
    let after = file("after", b"!");
    let end = vec![0; 2 * BLOCK];
    let long = "l".repeat(300);
    let long_nul = [long.as_bytes(), b"\0"].concat();
    let long_name = [(&*long, "1")];
    type Case<'a> = (&'a str, Vec<u8>, &'a [(&'a str, &'a str)]);
    let cases: Vec<Case<'_>> = vec![
        ("nothing", vec![], &[]),
        ("end only", end.clone(), &[]),
        ("one block of zeros at the end", [file("a", b"1"), vec![0; BLOCK]].concat(), &[("a", "1")]),
        ("no end", file("a", b"1"), &[("a", "1")]),
        ("data after the end", [file("a", b"1"), end.clone(), file("b", b"2")].concat(), &[("a", "1")]),
        (
            "size of the record wins over zero",
            [pax(&[("size", b"5")]), header("a", b'0', &octal(0)), padded(b"12345"), after.clone()].concat(),
            &[("a", "12345"), ("after", "!")],
        ),
        (
            "size of the record wins over more",
            [pax(&[("size", b"1")]), header("a", b'0', &octal(1024)), padded(b"1"), after.clone()].concat(),
            &[("a", "1"), ("after", "!")],
        ),
        (
            "last record wins, an empty one takes back",
            [
                pax(&[("path", b"x"), ("path", b"y")]),
                file("a", b"1"),
                pax(&[("path", b"x"), ("path", b"")]),
                file("b", b"2"),
            ]
            .concat(),
            &[("y", "1"), ("x", "2")],
        ),
        (
            "a later header replaces an earlier",
            [pax(&[("path", b"x")]), pax(&[("uid", b"7")]), file("a", b"1")].concat(),
            &[("a", "1")],
        ),
        (
            "a line feed in a value does not end it",
            [pax(&[("SCHILY.xattr.user.x", b"\n10 path=z\n"), ("path", b"y")]), file("a", b"1")].concat(),
            &[("y", "1")],
        ),
        ("GNU long name", [extended(b'L', &long_nul), file("a", b"1")].concat(), &long_name),
        (
            "GNU long name wins over PAX",
            [pax(&[("path", b"x")]), extended(b'L', &long_nul), file("a", b"1")].concat(),
            &long_name,
        ),
        (
            "directory has no content",
            [header("d/", b'5', &octal(512)), after.clone()].concat(),
            &[("d/", ""), ("after", "!")],
        ),
        (
            "link has no content",
            [header("l", b'1', &octal(512)), after.clone()].concat(),
            &[("l", ""), ("after", "!")],
        ),
        (
            "old directory",
            [with(header("d/", b'0', &octal(0)), 156, &[0]), after.clone()].concat(),
            &[("d/", ""), ("after", "!")],
        ),
        ("prefix", with(file("n", b""), 345, b"some/dir"), &[("some/dir/n", "")]),
        ("GNU has no prefix", with(with(file("n", b""), 345, b"1234"), 257, b"ustar  \0"), &[("n", "")]),
        (
            "base-256 size",
            [
                with(header("a", b'0', &[]), 124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
                padded(b"12"),
                after.clone(),
            ]
            .concat(),
            &[("a", "12"), ("after", "!")],
        ),
        ("global owner", [extended(b'g', &record("uid", b"7")), file("a", b"1")].concat(), &[("a", "1")]),
        ("label", [header("label", b'V', &octal(0)), file("a", b"1")].concat(), &[("a", "1")]),
    ];
    for (what, tar, expected) in cases {
        assert_eq!(shown(&tar), Some(pairs(expected)), "{what}");
    }
}

#[test]
fn contradictions_are_refused() {
    let plain = header("a", b'0', &octal(0));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("text", b"this is not a tar archive at all".repeat(40)),
        ("half a block", vec![1; 100]),
        ("wrong checksum", {
            let mut block = plain.clone();
            block[0] ^= 1;
            block
        }),
        ("content missing", header("a", b'0', &octal(1))),
        ("content cut", [header("a", b'0', &octal(600)), vec![0; 512]].concat()),
        ("zeros between entries", [vec![0; BLOCK], plain.clone()].concat()),
        ("not octal", header("a", b'0', b"0000000009")),
        ("negative size", with(plain.clone(), 124, &[0xff; 12])),
        (
            "huge size",
            with(
                plain.clone(),
                124,
                &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            ),
        ),
        ("negative mode", with(plain.clone(), 100, &[0xff; 8])),
        ("negative uid", with(plain.clone(), 108, &[0xff; 8])),
        ("uid -1", [pax(&[("uid", b"4294967295")]), plain.clone()].concat()),
        ("uid too large", [pax(&[("uid", b"4294967296")]), plain.clone()].concat()),
        ("size with sign", [pax(&[("size", b"+1")]), plain.clone()].concat()),
        ("size negative", [pax(&[("size", b"-1")]), plain.clone()].concat()),
        ("size 2^63", [pax(&[("size", b"9223372036854775808")]), plain.clone()].concat()),
        ("time 2^63", [pax(&[("mtime", b"9223372036854775808")]), plain.clone()].concat()),
        ("time 1e30", [pax(&[("mtime", b"1e30")]), plain.clone()].concat()),
        ("NUL in a name", [pax(&[("path", b"a\0b")]), plain.clone()].concat()),
        ("record too long", [extended(b'x', b"99 path=a\n"), plain.clone()].concat()),
        ("record too short", [extended(b'x', b"4 path=a\n"), plain.clone()].concat()),
        ("record without end", [extended(b'x', b"9 path=a?"), plain.clone()].concat()),
        ("record without key", [extended(b'x', b"5 =a\n"), plain.clone()].concat()),
        ("record without length", [extended(b'x', b"path=a\n"), plain.clone()].concat()),
        ("header for nothing", pax(&[("path", b"a")])),
        ("global size", [extended(b'g', &record("size", b"7")), plain.clone()].concat()),
        ("global path", [extended(b'g', &record("path", b"x")), plain.clone()].concat()),
        ("unknown type", header("a", b'Z', &octal(0))),
        ("2 GiB name", header("a", b'L', &octal(2 << 30))),
        ("2 MiB records", [extended(b'x', &vec![b'1'; 2 << 20]), plain.clone()].concat()),
        ("many headers", [pax(&[("uid", b"1")]).repeat(20), plain.clone()].concat()),
        ("sparse type in ustar", header("a", b'S', &octal(0))),
    ];
    for (what, tar) in cases {
        assert!(read(&tar).is_err(), "{what}");
    }
}

#[test]
fn an_archive_may_end_with_the_last_byte_of_content() {
    for length in [5, 6, 100, 511] {
        let tar = [header("a", b'0', &octal(5)), vec![b'x'; length]].concat();
        assert_eq!(read(&tar).unwrap().len(), 1, "{length}");
    }
}

#[test]
fn sparse_maps_are_checked() {
    let pax_map = |map: &[u8], size: &[u8], data: &[u8]| {
        [
            pax(&[("GNU.sparse.map", map), ("GNU.sparse.size", size), ("GNU.sparse.name", b"real")]),
            file("a", data),
        ]
        .concat()
    };
    let in_data = |map: &str, size: &[u8], data: &[u8]| {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", size)];
        [pax(&records), file("a", &[padded(map.as_bytes()), data.to_vec()].concat())].concat()
    };
    let gnu = |pieces: &[(u64, u64)], size: u64, data: &[u8]| {
        let mut block = with(header("a", b'S', &octal(data.len())), 257, b"ustar  \0");
        block[345..500].fill(0);
        for (at, (offset, length)) in pieces.iter().enumerate() {
            block = with(block, 386 + at * 24, format!("{offset:011o}\0{length:011o}\0").as_bytes());
        }
        [with(block, 483, format!("{size:011o}").as_bytes()), padded(data)].concat()
    };
    let extents = |list: &[(u64, u64)]| {
        Some(
            list.iter()
                .map(|(offset, length)| Extent { offset: *offset, length: *length })
                .collect::<Vec<_>>(),
        )
    };
    let eight_exbi = 1_u64 << 63;
    for (tar, expected) in [
        (pax_map(b"0,2,10,1", b"20", b"abc"), Some((20, extents(&[(0, 2), (10, 1)])))),
        (pax_map(b"0,2,1,1", b"20", b"abc"), None),
        (pax_map(b"10,2,0,1", b"20", b"abc"), None),
        (pax_map(b"0,2,10,1", b"10", b"abc"), None),
        (pax_map(b"0,2,10,2", b"20", b"abc"), None),
        (pax_map(b"0,2,10", b"20", b"ab"), None),
        (pax_map(b"9223372036854775808,18446744073709551615", b"20", b"ab"), None),
        (in_data("2\n0\n2\n10\n1\n", b"20", b"abc"), Some((20, extents(&[(0, 2), (10, 1)])))),
        (in_data("0\n", b"20", b""), Some((20, extents(&[])))),
        (in_data("99999999\n", b"20", b""), None),
        (in_data("2\n0\n2\n", b"20", b"ab"), None),
        (in_data("x\n", b"20", b""), None),
        (gnu(&[(0, 2), (10, 1)], 20, b"abc"), Some((20, extents(&[(0, 2), (10, 1)])))),
        (gnu(&[(0, 2), (1, 1)], 20, b"abc"), None),
        (gnu(&[(0, 2)], 1, b"ab"), None),
        (gnu(&[(0, eight_exbi >> 31)], 20, b"ab"), None),
    ] {
        let found = read(&tar).ok().map(|all| (all[0].0.size, all[0].0.sparse.clone()));
        assert_eq!(found, expected);
    }
}

#[test]
fn attributes_and_times() {
    let records: [(&str, &[u8]); 6] = [
        ("SCHILY.xattr.user.a", b"\0\n\xff"),
        ("LIBARCHIVE.xattr.user.%62%", b"AAo"),
        ("LIBARCHIVE.xattr.user.bad", b"***"),
        ("SCHILY.xattr.user.gone", b"x"),
        ("SCHILY.xattr.user.gone", b""),
        ("mtime", b"-1.25"),
    ];
    let (entry, _) = read(&[pax(&records), file("a", b"")].concat()).unwrap().remove(0);
    let expected: [(&[u8], &[u8]); 2] = [(b"user.a", b"\0\n\xff"), (b"user.b%", b"\0\n")];
    assert_eq!(entry.xattrs, expected.map(|(key, value)| (key.to_vec(), value.to_vec())).into());
    assert_eq!(entry.mtime, Time { seconds: -2, nanos: 750_000_000 });
    for (text, time) in [
        ("0", Some((0, 0))),
        ("1.5", Some((1, 500_000_000))),
        ("1.", Some((1, 0))),
        ("1.0000000019", Some((1, 1))),
        ("-1", Some((-1, 0))),
        ("-0.000000001", Some((-1, 999_999_999))),
        ("", None),
        (".5", None),
        ("1.-5", None),
        ("+1", None),
        ("--1", None),
    ] {
        let time = time.map(|(seconds, nanos)| Time { seconds, nanos });
        assert_eq!(super::pax::time(text.as_bytes()), time, "{text}");
        if let Some(time) = time {
            assert_eq!(super::pax::time(super::pax::time_text(time).as_bytes()), Some(time));
        }
    }
}

mod random {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::layer::testing::{Sandbox, archive, own_options};

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::File),
            Just(Kind::Directory),
            Just(Kind::Symlink),
            Just(Kind::HardLink),
            Just(Kind::Fifo),
            Just(Kind::CharDevice)
        ]
    }

    fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
        let name = vec(
            prop_oneof![
                vec(any::<u8>().prop_filter("NUL", |b| *b != 0), 1..120),
                Just(b"..".to_vec()),
                Just(b"a".to_vec()),
                Just(b".wh.a".to_vec()),
                Just(b".wh..wh..opq".to_vec())
            ],
            1..4,
        )
        .prop_map(|parts| parts.join(&b'/'));
        let numbers = (0_u32..0o10000, any::<u16>(), 0..u32::MAX, any::<i64>(), 0_u32..1_000_000_000);
        let xattrs =
            btree_map("user\\.[a-z.]{1,20}".prop_map(String::into_bytes), vec(any::<u8>(), 1..40), 0..3);
        (name.clone(), name, kind(), numbers, xattrs, vec(any::<u8>(), 0..2000)).prop_map(
            |(path, link, kind, (mode, uid, gid, seconds, nanos), xattrs, content)| {
                let mut entry = Entry::new(path, kind);
                (entry.mode, entry.uid, entry.gid) = (mode, uid.into(), gid);
                // What pax_text must bear; the kernel clamps the rest.
                entry.mtime = Time { seconds: seconds >> 8, nanos };
                entry.xattrs = xattrs;
                if matches!(kind, Kind::Symlink | Kind::HardLink) {
                    entry.link = link;
                }
                if kind == Kind::Directory && !entry.path.ends_with(b"/") {
                    entry.path.push(b'/');
                }
                if kind == Kind::File {
                    entry.size = content.len() as u64;
                    return (entry, content);
                }
                (entry, Vec::new())
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// What is written is read again, and the same entries give the same bytes.
        #[test]
        fn entries_come_back(entries in vec(entry(), 0..8)) {
            let tar = archive(&entries);
            prop_assert_eq!(&read(&tar).unwrap(), &entries);
            prop_assert!(archive(&read(&tar).unwrap()) == tar);
        }

        /// Whatever an archive says, unpacking it ends, and ends inside of the root.
        #[test]
        fn damage_stays_inside(
            entries in vec(entry(), 1..8),
            flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            seal in any::<bool>(),
        ) {
            let mut tar = archive(&entries);
            for (at, value) in &flips {
                let at = at.index(tar.len());
                tar[at] = *value;
                // Half of the time past the checksum.
                let block = at / BLOCK * BLOCK;
                if seal {
                    let whole = sealed(tar[block..block + BLOCK].to_vec());
                    tar[block..block + BLOCK].copy_from_slice(&whole);
                }
            }
            let sandbox = Sandbox::new();
            let _ = sandbox.apply(&tar, &own_options());
            let fd = std::fs::File::open(sandbox.top.path()).unwrap();
            crate::sys::tree::remove_all(&fd, "root".as_ref()).unwrap();
        }
    }
}
