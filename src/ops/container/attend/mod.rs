//! Attending a program from elsewhere: a monitor holds its terminal or pipes, and any number of clients see its output
//! and give it input, over a socket in the container's directory.
//!
//! The first client of a program in the foreground is its *owner*: it came over a socket pair before the program ran, and
//! when it does not read, the program waits, as it would for a terminal. All others are guests: one that does not read
//! is let go, and nobody waits for it.

pub mod client;
pub mod hub;
pub mod keys;
pub mod serve;
mod socket;
pub mod wire;

pub use socket::{connect, listen, pair};
