//! Xz streams, watched as they are read ("The .xz File Format"): every block says in its header how large a dictionary
//! it wants, and no decoder is given one before that was looked at. The blocks are LZMA2, whose chunks say how long they
//! are, so the next header is found without decoding anything.

use std::io::{self, Read};

/// The largest dictionary of a block: `xz -9` makes 64 MiB. More would let a small archive take any amount of memory.
const LARGEST: u64 = 128 << 20;
/// The first bytes of a stream.
const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// How long the check after a block is, by its number (2.1.1.2).
const CHECKS: [u64; 16] = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];
/// The filter that compresses; all others only rearrange.
const LZMA2: u64 = 0x21;

/// Decompress any number of xz streams, one after the other.
pub(super) fn reader<R: Read>(input: R) -> impl Read {
    lzma_rust2::XzReader::new(Watched { input, watch: Watch::default() }, true)
}

/// What the decoder reads from.
struct Watched<R> {
    input: R,
    watch: Watch,
}

impl<R: Read> Read for Watched<R> {
    /// Fills the buffer as long as there is input: the decoder takes less for the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < buffer.len() {
            match self.input.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.watch.pass(&buffer[..length])?;
        Ok(length)
    }
}

/// What comes next in the input.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The header of a stream, perhaps after zeros.
    Stream,
    /// The size of a block's header; 0: the index.
    BlockSize,
    /// The rest of a block's header.
    Block,
    /// The first byte of a chunk of LZMA2; 0: there are no more.
    Chunk,
    /// The size of a chunk that is not compressed.
    Plain,
    /// The sizes of a chunk that is, and whether a byte of properties follows them.
    Packed { properties: bool },
    /// The number of blocks, as the index has it.
    Records,
    /// The sizes of blocks in the index: how many numbers are left.
    Sizes(u64),
}

/// Where in the input the decoder is.
#[derive(Debug)]
struct Watch {
    next: Next,
    /// How many bytes `next` needs, and those of them that have passed.
    need: usize,
    held: Vec<u8>,
    /// Bytes that are of no interest.
    skip: u64,
    /// The length of the check after each block of the stream.
    check: u64,
    /// Blocks of the stream so far.
    blocks: u64,
    /// The length of the block's data, or of the index, so far.
    length: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { next: Next::Stream, need: 1, held: Vec::new(), skip: 0, check: 0, blocks: 0, length: 0 }
    }
}

impl Watch {
    fn pass(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
            self.skip -= skipped as u64;
            let taken = (self.need - self.held.len()).min(data.len() - skipped);
            self.held.extend_from_slice(&data[skipped..skipped + taken]);
            data = &data[skipped + taken..];
            if self.skip == 0 && self.held.len() == self.need {
                let held = std::mem::take(&mut self.held);
                self.step(&held)?;
            }
        }
        Ok(())
    }

    fn expect(&mut self, next: Next, need: usize) {
        (self.next, self.need) = (next, need);
    }

    fn step(&mut self, held: &[u8]) -> io::Result<()> {
        match (self.next, held) {
            (Next::Stream, [0]) => {}
            (Next::Stream, [first]) => {
                self.held.push(*first);
                self.need = 12;
            }
            (Next::Stream, header) => {
                if !header.starts_with(&MAGIC) {
                    return Err(broken("something else follows a stream"));
                }
                self.check = CHECKS[usize::from(header[7] & 15)];
                self.blocks = 0;
                self.expect(Next::BlockSize, 1);
            }
            (Next::BlockSize, [0]) => {
                self.length = 1;
                self.expect(Next::Records, 1);
            }
            (Next::BlockSize, header) => self.expect(Next::Block, usize::from(header[0]) * 4 + 3),
            (Next::Block, header) => {
                let size = dictionary(header).ok_or_else(|| broken("a block's header is wrong"))?;
                if size > LARGEST {
                    let what = format!("an xz dictionary of {size} bytes: at most {LARGEST} are accepted");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                self.blocks += 1;
                self.length = 0;
                self.expect(Next::Chunk, 1);
            }
            (Next::Records | Next::Sizes(_), _) => self.index(held)?,
            _ => self.chunk(held)?,
        }
        Ok(())
    }

    fn chunk(&mut self, held: &[u8]) -> io::Result<()> {
        self.length += held.len() as u64;
        match (self.next, held) {
            (Next::Chunk, [0]) => {
                self.skip = self.length.wrapping_neg() % 4 + self.check;
                self.expect(Next::BlockSize, 1);
            }
            (Next::Chunk, [1 | 2]) => self.expect(Next::Plain, 2),
            (Next::Chunk, [control]) if *control >= 0x80 => {
                self.expect(Next::Packed { properties: *control >= 0xc0 }, 4);
            }
            (Next::Plain, [high, low]) | (Next::Packed { .. }, [_, _, high, low]) => {
                let properties = matches!(self.next, Next::Packed { properties: true });
                self.skip = u64::from(u16::from_be_bytes([*high, *low])) + 1 + u64::from(properties);
                self.length += self.skip;
                self.expect(Next::Chunk, 1);
            }
            _ => return Err(broken("a chunk of LZMA2 is of no known kind")),
        }
        Ok(())
    }

    /// A number of the index, which comes byte by byte.
    fn index(&mut self, held: &[u8]) -> io::Result<()> {
        if held.last().is_some_and(|byte| byte & 0x80 != 0) {
            if held.len() >= 9 {
                return Err(broken("a number of the index is too long"));
            }
            self.held = held.to_vec();
            self.need = held.len() + 1;
            return Ok(());
        }
        self.length += held.len() as u64;
        let left = match self.next {
            Next::Sizes(left) => left - 1,
            _ if number(held) != Some((self.blocks, held.len())) => {
                return Err(broken("the index is of another number of blocks"));
            }
            _ => self.blocks * 2,
        };
        if left > 0 {
            self.expect(Next::Sizes(left), 1);
        } else {
            // Padding, the check of the index, and the footer of the stream.
            self.skip = self.length.wrapping_neg() % 4 + 4 + 12;
            self.expect(Next::Stream, 1);
        }
        Ok(())
    }
}

/// The size of the dictionary that a block wants: its header without the first byte (3.1 and 5.3.1).
fn dictionary(header: &[u8]) -> Option<u64> {
    let flags = *header.first()?;
    let mut at = 1;
    for present in [flags & 0x40, flags & 0x80] {
        if present != 0 {
            at += number(header.get(at..)?)?.1;
        }
    }
    let mut found = None;
    for _ in 0..=(flags & 3) {
        if found.is_some() {
            return None; // LZMA2 is the last
        }
        let (id, length) = number(header.get(at..)?)?;
        at += length;
        let (size, length) = number(header.get(at..)?)?;
        at += length;
        let properties = header.get(at..at.checked_add(usize::try_from(size).ok()?)?)?;
        at += properties.len();
        if id == LZMA2 {
            let [bits] = properties else { return None };
            found = Some(match u32::from(*bits) {
                bits @ 0..40 => u64::from(2 | (bits & 1)) << (bits / 2 + 11),
                40 => u64::from(u32::MAX),
                _ => return None,
            });
        }
    }
    found
}

/// A number of seven bits in each byte, and its length (1.2).
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let last = bytes.iter().take(9).position(|byte| byte & 0x80 == 0)?;
    let value = bytes[..=last].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, last + 1))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not valid xz: {what}"))
}
