//! Compression of layers: recognised by magic bytes, never by media type; made deterministically.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::bufread::GzDecoder;
use libdeflater::{CompressionLvl, Compressor};

/// Bytes read at once from below a decompressor.
const BUFFER: usize = 128 * 1024;
/// Largest window of a zstd frame, as a power of two: 128 MiB, what `zstd` itself accepts without `--long`. More would
/// let a small layer take any amount of memory.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Uncompressed bytes of a gzip member.
const MEMBER: usize = 1024 * 1024;
/// Of libdeflate's levels. Measured on 400 MB of programs, libraries and documentation, per thread: 1 makes 2.79:1 at
/// 193 MB/s, 2 makes 2.85:1 at 142, 4 makes 2.91:1 at 118, 6 makes 2.97:1 at 90, 9 makes 2.99:1 at 31. Every build
/// step waits for this, and few layers are ever pushed: twice the speed for 6 % more bytes. (gzip -6 lies between 2 and
/// 4 in size, at a third of the speed.)
const LEVEL: i32 = 1;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, possibly of many members.
    Gzip,
    /// zstd.
    Zstd,
}

/// Look at the first bytes and decompress accordingly. The reader ends where the compressed stream ends; all of the
/// input is consumed.
///
/// # Errors
/// When the first bytes cannot be read.
pub fn decompressor<'a>(
    input: Box<dyn Read + Send + 'a>,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut input = input;
    let mut magic = [0_u8; 6];
    let mut have = 0;
    while have < magic.len() {
        match input.read(&mut magic[have..]) {
            Ok(0) => break,
            Ok(length) => have += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = io::Cursor::new(magic).take(have as u64).chain(input);
    match &magic[..have] {
        [0x1f, 0x8b, ..] => {
            let input = BufReader::with_capacity(BUFFER, whole);
            Ok((
                Compression::Gzip,
                Box::new(GzipReader { state: Gzip::Member(Box::new(GzDecoder::new(input))) }),
            ))
        }
        // A frame, or one that decoders skip.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let input = BufReader::with_capacity(BUFFER, whole);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Ok((Compression::Zstd, Box::new(decoder)))
        }
        [b'B', b'Z', b'h', ..] => Err(unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(unsupported("xz")),
        _ => Ok((Compression::None, Box::new(whole))),
    }
}

fn unsupported(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("layers compressed with {name} are not supported"))
}

/// gzip members one after the other, then possibly zeros, as tapes and some builders pad with.
struct GzipReader<R: BufRead> {
    state: Gzip<R>,
}

enum Gzip<R: BufRead> {
    Member(Box<GzDecoder<R>>),
    Between(R),
    End,
}

impl<R: BufRead> GzipReader<R> {
    /// Go to the next member, or to the end.
    fn next(mut input: R) -> io::Result<Gzip<R>> {
        let mut padded = false;
        loop {
            let buffer = match input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                return Ok(Gzip::End);
            }
            match buffer.iter().position(|byte| *byte != 0) {
                Some(0) if !padded => return Ok(Gzip::Member(Box::new(GzDecoder::new(input)))),
                Some(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "data after the end of the gzip stream",
                    ));
                }
                None => {
                    padded = true;
                    let length = buffer.len();
                    input.consume(length);
                }
            }
        }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.state {
                Gzip::End => return Ok(0),
                Gzip::Member(decoder) => {
                    let length = decoder.read(out)?;
                    if length > 0 || out.is_empty() {
                        return Ok(length);
                    }
                }
                Gzip::Between(_) => {}
            }
            self.state = match std::mem::replace(&mut self.state, Gzip::End) {
                Gzip::Member(decoder) => Gzip::Between(decoder.into_inner()),
                Gzip::Between(input) => Self::next(input)?,
                Gzip::End => Gzip::End,
            };
        }
    }
}

/// A gzip encoder whose output depends on its input alone: 1 MiB members, a fixed level, no name and no time. Members
/// are compressed on `threads` threads. Call `finish` on it to end the stream.
///
/// The bytes may change with the version of the compressor: keys are made of diff ids, never of compressed digests.
pub fn gzip_writer<W: Write + Send>(out: W, threads: usize) -> GzipWriter<W> {
    gzip_writer_at(out, threads, LEVEL)
}

/// The same at a level from 1 to 12.
fn gzip_writer_at<W: Write + Send>(out: W, threads: usize, level: i32) -> GzipWriter<W> {
    GzipWriter {
        out,
        level,
        member: Vec::new(),
        threads,
        any: false,
        inline: None,
        workers: Vec::new(),
        pending: VecDeque::new(),
        next: 0,
    }
}

/// A compressor of a kind, whose output depends on its input and level alone. Call `finish` on it to end the stream.
pub enum LayerWriter<W: Write + Send> {
    /// Bytes as they come.
    None(W),
    /// See [`gzip_writer`].
    Gzip(GzipWriter<W>),
    /// One frame with a checksum.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

/// Levels that a kind of compression takes; `None` where there are none.
#[must_use]
pub fn levels(kind: Compression) -> Option<std::ops::RangeInclusive<i32>> {
    match kind {
        Compression::None => None,
        Compression::Gzip => Some(1..=12),
        Compression::Zstd => Some(1..=22),
    }
}

impl<W: Write + Send> LayerWriter<W> {
    /// Compress to `out`; without a level at the one that layers are made with. `threads` help with gzip.
    ///
    /// # Errors
    /// When the compressor cannot be made.
    pub fn new(out: W, kind: Compression, level: Option<i32>, threads: usize) -> io::Result<Self> {
        Ok(match kind {
            Compression::None => Self::None(out),
            Compression::Gzip => Self::Gzip(gzip_writer_at(out, threads, level.unwrap_or(LEVEL))),
            Compression::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(out, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Write what remains and give back the writer below.
    ///
    /// # Errors
    /// When the writer below fails.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(writer) => writer.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write + Send> fmt::Debug for LayerWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None(_) => "LayerWriter::None",
            Self::Gzip(_) => "LayerWriter::Gzip",
            Self::Zstd(_) => "LayerWriter::Zstd",
        })
    }
}

impl<W: Write + Send> Write for LayerWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(data),
            Self::Gzip(writer) => writer.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(out) => out.flush(),
            Self::Gzip(writer) => writer.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// See [`gzip_writer`].
pub struct GzipWriter<W: Write + Send> {
    out: W,
    level: i32,
    /// What the next member will hold.
    member: Vec<u8>,
    threads: usize,
    /// Whether a member was begun: a stream of none would not be gzip.
    any: bool,
    /// For one thread.
    inline: Option<Compressor>,
    workers: Vec<Worker>,
    /// Which workers have a member to give back, in order.
    pending: VecDeque<usize>,
    /// Whose turn it is.
    next: usize,
}

struct Worker {
    work: Option<SyncSender<Vec<u8>>>,
    done: Receiver<io::Result<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

/// Members that wait at each worker: enough to keep it busy while the others are written.
const QUEUE: usize = 2;

impl<W: Write + Send> fmt::Debug for GzipWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GzipWriter").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl<W: Write + Send> GzipWriter<W> {
    /// Write what remains and give back the writer below.
    ///
    /// # Errors
    /// When the writer below fails.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.member.is_empty() || !self.any {
            let member = std::mem::take(&mut self.member);
            if self.workers.is_empty() {
                self.compress_here(&member)?;
            } else {
                self.submit(member)?;
            }
        }
        while !self.pending.is_empty() {
            self.collect()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// A full member. The first is kept back until there is a second, so that small layers start no thread.
    fn member_full(&mut self, more: bool) -> io::Result<()> {
        let member = std::mem::replace(&mut self.member, Vec::with_capacity(MEMBER));
        self.any = true;
        if self.threads <= 1 || (self.workers.is_empty() && !more) {
            return self.compress_here(&member);
        }
        if self.workers.is_empty() {
            for _ in 0..self.threads {
                self.workers.push(Worker::spawn(self.level)?);
            }
        }
        self.submit(member)
    }

    fn submit(&mut self, member: Vec<u8>) -> io::Result<()> {
        if self.pending.len() >= self.workers.len() * QUEUE {
            self.collect()?;
        }
        let turn = self.next;
        self.next = (turn + 1) % self.workers.len();
        let work = self.workers[turn].work.as_ref();
        work.and_then(|work| work.send(member).ok()).ok_or_else(lost)?;
        self.pending.push_back(turn);
        Ok(())
    }

    fn collect(&mut self) -> io::Result<()> {
        let Some(turn) = self.pending.pop_front() else { return Ok(()) };
        let member = self.workers[turn].done.recv().map_err(|_| lost())??;
        self.out.write_all(&member)
    }

    fn compress_here(&mut self, member: &[u8]) -> io::Result<()> {
        let compressor = self.inline.get_or_insert_with(|| compressor(self.level));
        let compressed = compress(compressor, member)?;
        self.out.write_all(&compressed)
    }
}

impl<W: Write + Send> Write for GzipWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.member.len() == MEMBER && !data.is_empty() {
            self.member_full(true)?;
        }
        let length = data.len().min(MEMBER - self.member.len());
        self.member.extend_from_slice(&data[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Worker {
    fn spawn(level: i32) -> io::Result<Self> {
        let (work, todo) = sync_channel::<Vec<u8>>(QUEUE);
        let (finished, done) = sync_channel(QUEUE);
        let run = move || {
            let mut compressor = compressor(level);
            while let Ok(member) = todo.recv() {
                if finished.send(compress(&mut compressor, &member)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("gzip".into()).spawn(run)?;
        Ok(Self { work: Some(work), done, thread: Some(thread) })
    }
}

impl Drop for Worker {
    /// No thread outlives its writer: the process may want to fork afterwards.
    fn drop(&mut self) {
        self.work = None;
        while self.done.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lost() -> io::Error {
    io::Error::other("a compression thread ended early")
}

fn compressor(level: i32) -> Compressor {
    // The level is in range; the fallback is another valid one.
    Compressor::new(CompressionLvl::new(level).unwrap_or_default())
}

fn compress(compressor: &mut Compressor, member: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compressor.gzip_compress_bound(member.len())];
    let length =
        compressor.gzip_compress(member, &mut out).map_err(|_| io::Error::other("cannot compress"))?;
    out.truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(data: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let (kind, mut reader) = decompressor(Box::new(data))?;
        let mut out = Vec::new();
        reader.read_to_end(&mut out)?;
        Ok((kind, out))
    }

    fn pack(data: &[u8], threads: usize) -> Vec<u8> {
        let mut writer = gzip_writer(Vec::new(), threads);
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 28) as u8 * 3
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn output_is_the_same_on_any_number_of_threads() {
        for length in [0, 1, MEMBER - 1, MEMBER, MEMBER + 1, 5 * MEMBER + 7] {
            let data = sample(length);
            let one = pack(&data, 1);
            assert_eq!(&one[..10], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, one[8], 255], "{length}");
            for threads in [0, 2, 3, 8] {
                assert!(pack(&data, threads) == one, "{length} bytes on {threads} threads");
            }
            assert!(unpack(&one).unwrap() == (Compression::Gzip, data));
        }
    }

    #[test]
    fn every_kind_and_level_comes_back_and_is_the_same_twice() {
        let data = sample(2 * MEMBER + 9);
        for (kind, level) in [
            (Compression::None, None),
            (Compression::Gzip, None),
            (Compression::Gzip, Some(1)),
            (Compression::Gzip, Some(9)),
            (Compression::Zstd, None),
            (Compression::Zstd, Some(1)),
            (Compression::Zstd, Some(12)),
        ] {
            let make = |threads| {
                let mut writer = LayerWriter::new(Vec::new(), kind, level, threads).unwrap();
                writer.write_all(&data).unwrap();
                writer.finish().unwrap()
            };
            let made = make(1);
            assert!(made == make(3), "{kind:?} {level:?}");
            assert!(unpack(&made).unwrap() == (kind, data.clone()), "{kind:?} {level:?}");
            if kind == Compression::Gzip && level != Some(9) {
                assert!(made == pack(&data, 2), "a layer is made the same by a build and by a conversion");
            }
        }
    }

    #[test]
    fn gnu_gzip_reads_it() {
        let data = sample(3 * MEMBER + 5);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gz");
        std::fs::write(&path, pack(&data, 2)).unwrap();
        let out = std::process::Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
        assert!(out.status.success() && out.stdout == data);
    }

    #[test]
    fn streams_are_recognised_by_their_first_bytes() {
        let zstd = zstd::encode_all(&b"zzz"[..], 3).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd].concat();
        for (data, expected) in [
            (Vec::new(), (Compression::None, Vec::new())),
            (b"\x1f".to_vec(), (Compression::None, b"\x1f".to_vec())),
            (b"plain".to_vec(), (Compression::None, b"plain".to_vec())),
            (b"longer plain text".to_vec(), (Compression::None, b"longer plain text".to_vec())),
            ([zstd.clone(), zstd.clone()].concat(), (Compression::Zstd, b"zzzzzz".to_vec())),
            (skippable, (Compression::Zstd, b"zzz".to_vec())),
            ([pack(b"a", 1), pack(b"b", 1)].concat(), (Compression::Gzip, b"ab".to_vec())),
            ([pack(b"a", 1), vec![0; 1000]].concat(), (Compression::Gzip, b"a".to_vec())),
        ] {
            assert_eq!(unpack(&data).unwrap(), expected);
        }
    }

    #[test]
    fn damage_is_an_error() {
        let gzip = pack(b"some text that is long enough", 1);
        let zstd = zstd::encode_all(&b"some text that is long enough"[..], 3).unwrap();
        // A window of 2 GiB: frame header descriptor 0, window descriptor of exponent 21.
        let window = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 1, 0, 0];
        for data in [
            &gzip[..gzip.len() - 3],
            &[&gzip[..], b"garbage"].concat(),
            &[&gzip[..], &[0; 10], b"x"].concat(),
            &zstd[..zstd.len() - 3],
            &[&zstd[..], b"garbage"].concat(),
            &window,
            b"\xfd7zXZ\0...",
            b"BZh9...",
        ] {
            assert!(unpack(data).is_err(), "{data:02x?}");
        }
    }
}
