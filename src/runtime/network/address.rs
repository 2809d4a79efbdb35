//! Addresses and ports of the host, as far as networks of containers need them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use super::Error;
use crate::oci::{Protocol, Publish, Published};

/// The address under which the host reaches the world: not loopback. No packet is sent to find it.
#[must_use]
pub fn host_address() -> Option<IpAddr> {
    let towards = |local: IpAddr, far: IpAddr| {
        // Typed addresses: the text of one would pull the name service into the binary.
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).ok()?;
        socket.connect(SocketAddr::new(far, 9)).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
    };
    // Addresses for documentation: nobody has them.
    let far = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(203, 0, 113, 1).into())
        .or_else(|| towards(Ipv6Addr::UNSPECIFIED.into(), far.into()))
}

/// The device that carries a container's packets.
pub const TUN: &str = "/dev/net/tun";

/// Whether that device can be opened here.
///
/// # Errors
/// Why it cannot.
pub fn tun() -> std::io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(TUN, flags, Mode::empty()).map(drop).map_err(Into::into)
}

/// Whether the host has a way out at all: without one pasta finds no interface to take after.
#[must_use]
pub fn has_default_route() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let v4 = read("/proc/net/route");
    let v6 = read("/proc/net/ipv6_route");
    v4.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")
    }) || v6.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00")
            && fields.first().is_some_and(|to| to.bytes().all(|b| b == b'0'))
            && fields.get(9) != Some(&"lo")
    })
}

/// A hardware address: six bytes in hexadecimal, and not one of a group.
#[must_use]
pub fn mac_address(text: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| {
            (part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(part, 16).ok())?
        })
        .collect();
    let bytes = bytes.filter(|bytes| bytes.len() == 6 && bytes[0] & 1 == 0)?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// Find a port of the host for each that is asked for, `before` first, and keep others away from them until the sockets
/// are dropped: a helper can listen on them all the same, as they do not listen and share their address.
///
/// # Errors
/// [`Error::Port`] for a port that cannot be had.
pub fn reserve(asked: &[Publish], before: &[Published]) -> Result<(Vec<Published>, Vec<OwnedFd>), Error> {
    let mut all = Vec::with_capacity(asked.len());
    let mut sockets = Vec::with_capacity(asked.len());
    for publish in asked {
        let ip = publish.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let (port, socket) = reserve_one(publish, ip, before)?;
        all.push(Published {
            host_ip: ip,
            host_port: port,
            container_port: publish.container_port,
            protocol: publish.protocol,
        });
        sockets.push(socket);
    }
    Ok((all, sockets))
}

fn reserve_one(publish: &Publish, ip: IpAddr, before: &[Published]) -> Result<(u16, OwnedFd), Error> {
    let protocol = publish.protocol;
    let same = |old: &&Published| {
        old.host_ip == ip && old.container_port == publish.container_port && old.protocol == protocol
    };
    let old = before.iter().find(same).map(|old| old.host_port);
    let (first, last) = publish.host_ports.unwrap_or((0, 0));
    let fits = |port: &u16| first == 0 || (first..=last).contains(port);
    // What the container had when it last ran is its own again, where it chose for itself.
    if let Some(port) = old.filter(|_| first != last || first == 0).filter(fits)
        && let Ok(taken) = take(ip, port, protocol)
    {
        return Ok(taken);
    }
    let mut failed = Errno::ADDRINUSE;
    for port in first..=last {
        match take(ip, port, protocol) {
            Ok(taken) => return Ok(taken),
            Err(error) => failed = error,
        }
        if !matches!(failed, Errno::ADDRINUSE | Errno::ACCESS) {
            break;
        }
    }
    let address = match (first == last, ip) {
        (true, _) => SocketAddr::new(ip, first).to_string(),
        (false, IpAddr::V6(ip)) => format!("[{ip}]:{first}-{last}"),
        (false, IpAddr::V4(ip)) => format!("{ip}:{first}-{last}"),
    };
    Err(Error::Port { address, protocol, port: first, source: failed.into() })
}

/// A bound socket that lets others bind too, but not with a connection's leftovers in the way.
fn take(ip: IpAddr, port: u16, protocol: Protocol) -> Result<(u16, OwnedFd), Errno> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    // For datagrams sharing means that the last one gets everything: the others would not be noticed.
    let shares = protocol == Protocol::Tcp && port != 0;
    sockopt::set_socket_reuseaddr(&socket, shares)?;
    if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(ip, port))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let bound = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((bound.port(), socket))
}

/// What a helper said, without the lines that say nothing here.
pub(super) fn tidy(said: &str) -> String {
    let says_nothing = |line: &str| {
        let unlogged = line.starts_with("Failed to send ") && line.ends_with("bytes to syslog");
        let usual = ["Don't run as root", "sent tapfd=", "received tapfd="];
        line.is_empty() || unlogged || usual.iter().any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !says_nothing(line)).collect();
    if lines.is_empty() { "it ended without a word".to_owned() } else { lines.join("; ") }
}
