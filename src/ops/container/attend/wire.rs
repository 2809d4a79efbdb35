//! What a monitor and its clients say to each other: one packet a message, a letter and its content.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::ops::container::log::Stream;

/// The most bytes of output or input in one message.
pub const MOST: usize = 32 * 1024;

/// How much input a client may send before it hears that some was taken. So the monitor always reads what clients say,
/// also when the program reads nothing, and a signal never waits behind input.
pub const CREDIT: usize = 64 * 1024;

/// A client's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Which output it wants: standard output, standard error. Nothing is sent before.
    Show([bool; 2]),
    /// Input of the program.
    Input(&'a [u8]),
    /// There is no more input.
    InputEnd,
    /// The size of its terminal: rows, columns.
    Size(u16, u16),
    /// A signal for the program.
    Signal(i32),
    /// It goes, and the program shall go on.
    Detach,
}

/// A monitor's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Output of the program.
    Output(Stream, &'a [u8]),
    /// So many bytes of input were taken.
    Taken(usize),
    /// The program ended with this code, and all its output was sent.
    Ended(i32),
    /// The connection ends, and why.
    Bye(&'a str),
}

fn packet(letter: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(content.len() + 1);
    packet.push(letter);
    packet.extend_from_slice(content);
    packet
}

fn number(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.try_into().ok()?))
}

impl<'a> Request<'a> {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Show([out, err]) => packet(b'W', &[u8::from(*out), u8::from(*err)]),
            Self::Input(bytes) => packet(b'I', bytes),
            Self::InputEnd => packet(b'E', &[]),
            Self::Size(rows, columns) => packet(b'R', &[rows.to_ne_bytes(), columns.to_ne_bytes()].concat()),
            Self::Signal(signal) => packet(b'S', &signal.to_ne_bytes()),
            Self::Detach => packet(b'D', &[]),
        }
    }

    /// Read a packet; `None` for one that makes no sense.
    #[must_use]
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (letter, content) = packet.split_first()?;
        Some(match (letter, content) {
            (b'W', [out, err]) => Self::Show([*out != 0, *err != 0]),
            (b'I', bytes) => Self::Input(bytes),
            (b'E', []) => Self::InputEnd,
            (b'R', [a, b, c, d]) => Self::Size(u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d])),
            (b'S', bytes) => Self::Signal(number(bytes)?),
            (b'D', []) => Self::Detach,
            _ => return None,
        })
    }
}

impl<'a> Answer<'a> {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Output(Stream::Out, bytes) => packet(b'o', bytes),
            Self::Output(Stream::Err, bytes) => packet(b'e', bytes),
            Self::Taken(count) => packet(b't', &u32::try_from(*count).unwrap_or(u32::MAX).to_ne_bytes()),
            Self::Ended(code) => packet(b'x', &code.to_ne_bytes()),
            Self::Bye(why) => packet(b'b', why.as_bytes()),
        }
    }

    /// Read a packet; `None` for one that makes no sense.
    #[must_use]
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (letter, content) = packet.split_first()?;
        Some(match letter {
            b'o' => Self::Output(Stream::Out, content),
            b'e' => Self::Output(Stream::Err, content),
            b't' => Self::Taken(usize::try_from(number(content)?).ok()?),
            b'x' => Self::Ended(number(content)?),
            b'b' => Self::Bye(std::str::from_utf8(content).ok()?),
            _ => return None,
        })
    }
}

/// What became of sending or receiving a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It was moved; so many bytes.
    Whole(usize),
    /// Not now.
    Later,
    /// The other side is gone.
    Gone,
}

/// Send a packet without waiting.
pub fn send(fd: impl AsFd, packet: &[u8]) -> Moved {
    loop {
        match rustix::net::send(&fd, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => return Moved::Whole(sent),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::NOBUFS) => return Moved::Later,
            Err(_) => return Moved::Gone,
        }
    }
}

/// Receive a packet without waiting, into a buffer of at least [`MOST`] + 1 bytes.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> Moved {
    loop {
        match rustix::net::recv(&fd, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Moved::Gone,
            Ok((got, _)) => return Moved::Whole(got),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Moved::Later,
            Err(_) => return Moved::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_said() {
        for request in [
            Request::Show([true, false]),
            Request::Input(b"ab"),
            Request::InputEnd,
            Request::Size(40, 120),
            Request::Signal(15),
            Request::Detach,
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for answer in [
            Answer::Output(Stream::Out, b"x"),
            Answer::Output(Stream::Err, b""),
            Answer::Taken(70_000),
            Answer::Ended(137),
            Answer::Bye("why"),
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        for bad in [&b""[..], b"S", b"R123", b"z", b"W1"] {
            assert_eq!((Request::decode(bad), Answer::decode(bad)), (None, None), "{bad:?}");
        }
    }
}
