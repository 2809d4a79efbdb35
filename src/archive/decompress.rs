//! The compression around a whole archive: recognised by its first bytes, undone in process.

use std::io::{self, BufReader, Cursor, Read};

use crate::layer::decompressor;

/// The first bytes that tell the compression, and the memory an xz stream wants.
const HEAD: usize = 64;
/// The largest dictionary of an xz stream: `xz -9` makes 64 MiB. More would let a small archive take any amount of
/// memory.
const XZ_DICTIONARY: u64 = 128 << 20;
/// Bytes read at once from below.
const BUFFER: usize = 128 << 10;

/// Decompress gzip, zstd, xz or bzip2; anything else is handed on as it is. Says whether it was compressed.
///
/// # Errors
/// When the first bytes cannot be read, or ask for more memory than is given.
pub fn decompressed<'a>(
    mut input: Box<dyn Read + Send + 'a>,
) -> io::Result<(bool, Box<dyn Read + Send + 'a>)> {
    let head = read_head(&mut input)?;
    let whole = Cursor::new(head.clone()).chain(input);
    match head.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            if let Some(size) = xz_dictionary(&head)
                && size > XZ_DICTIONARY
            {
                let what = format!("an xz dictionary of {size} bytes: at most {XZ_DICTIONARY} are accepted");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            let input = BufReader::with_capacity(BUFFER, whole);
            Ok((true, Box::new(lzma_rust2::XzReader::new(input, true))))
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
            Ok((true, Box::new(bzip2::read::MultiBzDecoder::new(BufReader::with_capacity(BUFFER, whole)))))
        }
        _ => {
            let (kind, reader) = decompressor(Box::new(whole))?;
            Ok((kind != crate::layer::Compression::None, reader))
        }
    }
}

/// Whether these first bytes are those of a compressed stream.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    matches!(
        head,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', ..]
            | [0x1f, 0x8b, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

fn read_head(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    input.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The dictionary size that the first block of an xz stream asks for ("The .xz File Format", 3.1 and 5.3.1).
fn xz_dictionary(head: &[u8]) -> Option<u64> {
    let block = head.get(12..)?;
    let flags = *block.get(1)?;
    let mut at = 2;
    for present in [flags & 0x40, flags & 0x80] {
        if present != 0 {
            at += block.get(at..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
        }
    }
    // Filters in front of LZMA2 have small ids of their own; it is always the last.
    for _ in 0..=(flags & 3) {
        let (id, length) = (*block.get(at)?, usize::from(*block.get(at + 1)?));
        if id == 0x21 {
            let bits = u32::from(*block.get(at + 2)? & 0x3f);
            return Some(if bits >= 40 { 1 << 32 } else { u64::from(2 | (bits & 1)) << (bits / 2 + 11) });
        }
        at += 2 + length;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn pipe(program: &str, args: &[&str], data: &[u8]) -> Option<Vec<u8>> {
        let mut child =
            Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut stdin = child.stdin.take().unwrap();
        let data = data.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&data));
        let out = child.wait_with_output().unwrap().stdout;
        feeder.join().unwrap().unwrap();
        Some(out)
    }

    #[test]
    fn every_compression_is_undone() {
        let data: Vec<u8> = (0..200_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for (program, args) in
            [("gzip", &["-c"][..]), ("xz", &["-c"]), ("xz", &["-9c"]), ("bzip2", &["-c"]), ("zstd", &["-c"])]
        {
            let Some(packed) = pipe(program, args, &data) else { continue };
            assert!(is_compressed(&packed), "{program}");
            for copies in [1, 2] {
                let (compressed, mut reader) =
                    decompressed(Box::new(Cursor::new(packed.repeat(copies)))).unwrap();
                let mut out = Vec::new();
                reader.read_to_end(&mut out).unwrap();
                assert!(compressed && out == data.repeat(copies), "{program} {copies}");
            }
            let mut out = Vec::new();
            let cut = packed[..packed.len() - 9].to_vec();
            let ended =
                decompressed(Box::new(Cursor::new(cut))).and_then(|(_, mut r)| r.read_to_end(&mut out));
            assert!(ended.is_err(), "{program} cut short");
        }
        let (compressed, mut reader) = decompressed(Box::new(&b"plain"[..])).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert!(!compressed && out == b"plain");
    }

    #[test]
    fn an_xz_stream_cannot_ask_for_any_memory() {
        let Some(packed) = pipe("xz", &["-c", "--lzma2=preset=0,dict=512MiB"], b"small") else { return };
        assert_eq!(xz_dictionary(&packed), Some(512 << 20));
        assert!(decompressed(Box::new(Cursor::new(packed))).is_err());
    }
}
