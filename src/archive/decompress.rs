//! The compression around a whole archive: recognised by its first bytes, undone in process.

use std::io::{self, BufReader, Cursor, Read};

use crate::layer::decompressor;

/// The first bytes that tell the compression.
const HEAD: usize = 64;
/// Bytes read at once from below.
const BUFFER: usize = 128 << 10;

/// Decompress gzip, zstd, xz or bzip2; anything else is handed on as it is. Says whether it was compressed.
///
/// # Errors
/// When the first bytes cannot be read. The stream fails where it asks for more memory than is given.
pub fn decompressed<'a>(
    mut input: Box<dyn Read + Send + 'a>,
) -> io::Result<(bool, Box<dyn Read + Send + 'a>)> {
    let head = read_head(&mut input)?;
    let whole = Cursor::new(head.clone()).chain(input);
    match head.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Ok((true, Box::new(super::xz::reader(BufReader::with_capacity(BUFFER, whole)))))
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
        let Some(large) = pipe("xz", &["-c", "--lzma2=preset=0,dict=512MiB"], b"small") else { return };
        let small = pipe("xz", &["-c"], b"small").unwrap();
        for packed in
            [large.clone(), [small.clone(), large.clone()].concat(), [small, vec![0; 8], large].concat()]
        {
            let (_, mut reader) = decompressed(Box::new(Cursor::new(packed))).unwrap();
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains("dictionary of 536870912 bytes"), "{error}");
        }
    }

    /// Later blocks are looked at as the first is, whatever is in front of LZMA2 and however short the reads are.
    #[test]
    fn many_blocks_are_read() {
        struct Short<T>(T);
        impl<T: Read> Read for Short<T> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(7);
                self.0.read(&mut buffer[..length])
            }
        }
        let mut random = 1_u32;
        let data: Vec<u8> = (0..300_000_u32)
            .map(|i| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i % 90_000 < 70_000 { (random >> 24) as u8 } else { (i / 50) as u8 }
            })
            .collect();
        for args in [
            &["-c", "-T2", "--block-size=50001"][..],
            &["-c", "--block-size=77777", "--check=none"],
            &["-c", "--check=sha256", "--x86", "--delta=dist=4", "--lzma2=preset=1", "--block-size=99999"],
        ] {
            let Some(packed) = pipe("xz", args, &data) else { return };
            let packed = [packed.clone(), vec![0; 4], packed].concat();
            for short in [false, true] {
                let input = Cursor::new(packed.clone());
                let input: Box<dyn Read + Send> =
                    if short { Box::new(Short(input)) } else { Box::new(input) };
                let mut out = Vec::new();
                decompressed(input).unwrap().1.read_to_end(&mut out).unwrap();
                assert!(out == data.repeat(2), "{args:?}");
            }
        }
    }
}
