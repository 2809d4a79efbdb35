//! Compression of layers: recognised by magic bytes, never by media type; made deterministically.

use std::io::{self, Read, Write};

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
    _input: Box<dyn Read + Send + 'a>,
) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    todo!()
}

/// A gzip encoder whose output depends on its input alone: 1 MiB members, a fixed level, no name and no time. Members
/// are compressed on `threads` threads. Call `finish` on it to end the stream.
pub fn gzip_writer<W: Write + Send>(_out: W, _threads: usize) -> GzipWriter<W> {
    todo!()
}

/// See [`gzip_writer`].
#[derive(Debug)]
pub struct GzipWriter<W: Write + Send> {
    out: W,
}

impl<W: Write + Send> GzipWriter<W> {
    /// Write what remains and give back the writer below.
    ///
    /// # Errors
    /// When the writer below fails.
    pub fn finish(self) -> io::Result<W> {
        todo!()
    }
}

impl<W: Write + Send> Write for GzipWriter<W> {
    fn write(&mut self, _data: &[u8]) -> io::Result<usize> {
        todo!()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
