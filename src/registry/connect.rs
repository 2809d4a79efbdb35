//! Which of a host's addresses to use, after RFC 8305 ("Happy Eyeballs"): an address that does not answer must not hold
//! up those that do.
//!
//! The addresses are tried a quarter of a second apart, and the first that takes a connection is the one that all
//! connections to the host then go to. Only hosts with several addresses pay for this, once.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{ConnectionDetails, Connector, TcpConnector, Transport};

use super::limits;

/// The pause before the next address is tried beside those that have not answered (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Makes TCP connections, to the address of a host that answers first.
#[derive(Debug, Default)]
pub(super) struct RacingConnector {
    tcp: TcpConnector,
    /// Which of a set of addresses answered first.
    winners: Mutex<HashMap<Vec<SocketAddr>, SocketAddr>>,
}

impl<In: Transport> Connector<In> for RacingConnector {
    type Out = <TcpConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let several = details.addrs.len() > 1 && !details.addrs.iter().any(|addr| addr.ip().is_loopback());
        if chained.is_some() || !several {
            return self.tcp.connect(details, chained);
        }
        let Some(winner) = self.winner(&details.addrs) else { return self.tcp.connect(details, chained) };
        let mut addrs = details.resolver.empty();
        addrs.push(winner);
        details.addrs.iter().filter(|addr| **addr != winner).for_each(|addr| addrs.push(*addr));
        let details = ConnectionDetails {
            uri: details.uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        self.tcp.connect(&details, chained)
    }
}

impl RacingConnector {
    fn winner(&self, addrs: &[SocketAddr]) -> Option<SocketAddr> {
        let mut winners = self.winners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(winner) = winners.get(addrs) {
            return Some(*winner);
        }
        let reach = |addr: SocketAddr| TcpStream::connect_timeout(&addr, limits::CONNECT_TIMEOUT / 2).is_ok();
        let winner = race(&in_turns(addrs), limits::CONNECT_TIMEOUT / 2, reach)?;
        winners.insert(addrs.to_vec(), winner);
        Some(winner)
    }
}

/// The addresses with the families in turns, the first one's first (RFC 8305 section 4).
fn in_turns(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addrs.first().is_some_and(SocketAddr::is_ipv4);
    let (one, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addrs.iter().copied().partition(|addr| addr.is_ipv4() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::with_capacity(addrs.len());
    while turns.len() < addrs.len() {
        turns.extend(one.next());
        turns.extend(other.next());
    }
    turns
}

/// The address that `reach` reaches first; none when it reaches none in time. Each runs on a thread of its own, which
/// ends by itself.
fn race(
    addrs: &[SocketAddr],
    limit: Duration,
    reach: impl Fn(SocketAddr) -> bool + Clone + Send + 'static,
) -> Option<SocketAddr> {
    let (sender, receiver) = channel();
    let end = Instant::now() + limit;
    let (mut waiting, mut running) = (addrs.iter().copied(), 0);
    loop {
        let next = waiting.next();
        if let Some(addr) = next {
            let (sender, reach) = (sender.clone(), reach.clone());
            let attempt = move || {
                // Nobody listens any more when another address was faster.
                let _ = sender.send((addr, reach(addr)));
            };
            std::thread::Builder::new().name("connect".into()).spawn(attempt).ok()?;
            running += 1;
        }
        let left = end.saturating_duration_since(Instant::now());
        let pause = if next.is_some() { STAGGER.min(left) } else { left };
        match receiver.recv_timeout(pause) {
            Ok((addr, true)) => return Some(addr),
            // Refused: the next one need not wait.
            Ok((_, false)) => running -= 1,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => return None,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        if running == 0 && waiting.len() == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let given = addrs(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1", "[::1]:1", "[::2]:1"]);
        let turns = addrs(&["1.1.1.1:1", "[::1]:1", "1.1.1.2:1", "[::2]:1", "1.1.1.3:1"]);
        assert_eq!(in_turns(&given), turns);
        assert_eq!(in_turns(&turns[..1]), turns[..1]);
    }

    #[test]
    fn an_address_that_does_not_answer_holds_nobody_up() {
        let all = addrs(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"]);
        let (silent, refusing) = (all[0], all[1]);
        let start = Instant::now();
        let reach = move |addr| {
            if addr == silent {
                std::thread::sleep(Duration::from_secs(3));
            }
            addr != refusing
        };
        assert_eq!(race(&all, Duration::from_secs(10), reach), Some(all[2]));
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(race(&all, Duration::from_secs(10), |_| false), None);
        let slow = |_| {
            std::thread::sleep(Duration::from_secs(2));
            true
        };
        assert_eq!(race(&all[..1], Duration::from_millis(50), slow), None);
    }
}
