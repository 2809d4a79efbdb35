//! The monitor's clients, and what waits for each of them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SocketFlags;

use super::wire::{Answer, MOST, Moved, Request, receive, send};
use crate::ops::container::log::Stream;

/// How many clients there may be.
const MOST_CLIENTS: usize = 32;

/// How many bytes may wait for a guest before it is let go: enough for a burst.
const PATIENCE: usize = 4 << 20;

/// How many bytes may wait for the owner before the program's output is not read on.
const OWNER_PATIENCE: usize = 64 * 1024;

/// How long guests may take to read the last words.
const FAREWELL: Duration = Duration::from_secs(2);

/// One client.
#[derive(Debug)]
struct Client {
    fd: OwnedFd,
    owner: bool,
    shows: [bool; 2],
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Nothing more is queued for it; it goes when the queue is empty.
    leaving: bool,
    gone: bool,
}

impl Client {
    fn tell(&mut self, packet: Vec<u8>) {
        if self.gone || self.leaving {
            return;
        }
        if self.queue.is_empty() {
            match send(&self.fd, &packet) {
                Moved::Whole(_) => return,
                Moved::Gone => {
                    self.gone = true;
                    return;
                }
                Moved::Later => {}
            }
        }
        self.queued += packet.len();
        self.queue.push_back(packet);
        if !self.owner && self.queued > PATIENCE {
            self.queue.clear();
            self.leave("it read the output more slowly than the container wrote it");
        }
    }

    fn leave(&mut self, why: &str) {
        self.queued = 0;
        self.queue.push_back(Answer::Bye(why).encode());
        self.leaving = true;
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(packet) = self.queue.front() {
            match send(&self.fd, packet) {
                Moved::Whole(_) => {
                    self.queued = self.queued.saturating_sub(packet.len());
                    self.queue.pop_front();
                }
                Moved::Later => return,
                Moved::Gone => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.gone |= self.leaving;
    }
}

/// What a client wants that concerns the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Input, from the client of this number.
    Input(u64, Vec<u8>),
    /// A client has no more input.
    InputEnd,
    /// The size of its terminal.
    Size(u16, u16),
    /// A signal.
    Signal(i32),
    /// The owner is gone without a word.
    OwnerLost,
}

/// The first client of a program in the foreground.
#[derive(Debug)]
pub struct Owner {
    /// Our end of its connection.
    pub fd: OwnedFd,
    /// Which output it is shown from the first byte on.
    pub shows: [bool; 2],
}

/// All clients.
#[derive(Debug, Default)]
pub struct Hub {
    listener: Option<OwnedFd>,
    clients: Vec<(u64, Client)>,
    last: u64,
}

impl Hub {
    /// With a socket for guests and the owner, where there are.
    #[must_use]
    pub fn new(listener: Option<OwnedFd>, owner: Option<Owner>) -> Self {
        let mut hub = Self { listener, ..Self::default() };
        if let Some(Owner { fd, shows }) = owner {
            hub.add(fd, true, shows);
        }
        hub
    }

    fn add(&mut self, fd: OwnedFd, owner: bool, shows: [bool; 2]) {
        self.last += 1;
        let client =
            Client { fd, owner, shows, queue: VecDeque::new(), queued: 0, leaving: false, gone: false };
        self.clients.push((self.last, client));
    }

    /// The descriptors to poll, and for what, in an order that [`Hub::serve`] knows.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(listener) = &self.listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        for (_, client) in &self.clients {
            let more = if client.queue.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(&client.fd, PollFlags::IN | more));
        }
    }

    /// Whether the owner has so much to read that the program shall wait.
    #[must_use]
    pub fn is_owner_behind(&self) -> bool {
        self.clients.iter().any(|(_, client)| client.owner && client.queued > OWNER_PATIENCE)
    }

    /// Serve everybody who is ready: what they want of the program.
    pub fn serve(&mut self) -> Vec<Wish> {
        self.welcome();
        let mut wishes = Vec::new();
        let mut buffer = vec![0; MOST + 1];
        for (number, client) in &mut self.clients {
            client.flush();
            let mut left = false;
            while !client.gone && !left {
                match receive(&client.fd, &mut buffer) {
                    Moved::Later => break,
                    Moved::Gone => {
                        client.gone = true;
                        if client.owner {
                            wishes.push(Wish::OwnerLost);
                        }
                    }
                    Moved::Whole(got) => match Request::decode(&buffer[..got]) {
                        Some(Request::Show(shows)) => client.shows = shows,
                        Some(Request::Input(bytes)) => wishes.push(Wish::Input(*number, bytes.to_vec())),
                        Some(Request::InputEnd) => wishes.push(Wish::InputEnd),
                        Some(Request::Size(rows, columns)) => wishes.push(Wish::Size(rows, columns)),
                        Some(Request::Signal(signal)) => wishes.push(Wish::Signal(signal)),
                        Some(Request::Detach) => {
                            client.gone = true;
                            left = true;
                        }
                        // Words of another version: whoever says them cannot be served.
                        None => client.leave("its words were not understood"),
                    },
                }
            }
        }
        self.clients.retain(|(_, client)| !client.gone);
        wishes
    }

    fn welcome(&mut self) {
        while let Some(listener) = &self.listener
            && let Ok(fd) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC)
        {
            self.add(fd, false, [false; 2]);
            if self.clients.len() > MOST_CLIENTS
                && let Some((_, client)) = self.clients.last_mut()
            {
                client.leave("too many are attached already");
            }
        }
    }

    /// Whether anybody is there to be told something.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Show output to all who want it.
    pub fn show(&mut self, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(MOST) {
            for (_, client) in self.clients.iter_mut().filter(|(_, client)| client.shows[stream as usize]) {
                client.tell(Answer::Output(stream, piece).encode());
            }
        }
    }

    /// Tell a client that the program took some of its input.
    pub fn taken(&mut self, number: u64, count: usize) {
        if let Some((_, client)) = self.clients.iter_mut().find(|(have, _)| *have == number) {
            client.tell(Answer::Taken(count).encode());
        }
    }

    /// Wait for so long at most while no program runs: who wants something of it wants it in vain, but may leave.
    pub fn wait(&mut self, pause: Duration) {
        let mut fds = Vec::new();
        self.poll_fds(&mut fds);
        let _ = rustix::event::poll(&mut fds, Timespec::try_from(pause).ok().as_ref());
        for wish in self.serve() {
            if let Wish::Input(number, bytes) = wish {
                self.taken(number, bytes.len());
            }
        }
    }

    /// Tell all that the program has ended, and wait until the owner knows; guests get a moment.
    pub fn farewell(mut self, code: i32) {
        self.listener = None;
        let start = Instant::now();
        for (_, client) in &mut self.clients {
            client.tell(Answer::Ended(code).encode());
            client.leaving = true;
            client.flush();
        }
        loop {
            let _ = self.serve();
            let left = FAREWELL.saturating_sub(start.elapsed());
            let owner = self.clients.iter().any(|(_, client)| client.owner);
            if self.clients.is_empty() || (left.is_zero() && !owner) {
                return;
            }
            let mut fds = Vec::new();
            self.poll_fds(&mut fds);
            let timeout = if owner { None } else { Timespec::try_from(left).ok() };
            let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        }
    }
}
