//! Published ports: what `-p` says, and what came of it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(PortError::Protocol(text.to_owned())),
        }
    }
}

/// One port of a container that is to be reachable from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address; none is every IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The host's port: the first free one from the first to the second; none is any free one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ports: Option<(u16, u16)>,
    /// The container's port.
    pub container_port: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A port that is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The host's address.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

impl Publish {
    /// `80/tcp`, as an image's config names it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.container_port, self.protocol)
    }

    /// The host's port as docker's `PortBindings` show it.
    #[must_use]
    pub fn host_port_text(&self) -> String {
        match self.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        }
    }
}

impl Published {
    /// `80/tcp`
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.container_port, self.protocol)
    }

    /// `0.0.0.0:8080` or `[::1]:8080`
    #[must_use]
    pub fn host(&self) -> String {
        std::net::SocketAddr::new(self.host_ip, self.host_port).to_string()
    }
}

/// What is wrong with the value of `-p`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No container's port.
    #[error("no port specified")]
    Empty,
    /// Not an address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Not a port of the host.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// Not a port of the container.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// Not a protocol.
    #[error("invalid proto: {0}; there are tcp and udp")]
    Protocol(String),
    /// Two ranges that cannot be matched.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's.
        container: String,
        /// The host's.
        host: String,
    },
}

/// `[[ip:][hostPort]:]containerPort[/protocol]`, each port perhaps a range; an IPv6 address stands in brackets.
///
/// # Errors
/// [`PortError`], in docker's words.
pub fn parse_publish(text: &str) -> Result<Vec<Publish>, PortError> {
    let (rest, protocol) = text.rsplit_once('/').map_or((text, "tcp"), |(rest, protocol)| (rest, protocol));
    let protocol = protocol.parse()?;
    let (rest, container) = rest.rsplit_once(':').map_or((None, rest), |(rest, port)| (Some(rest), port));
    let (ip, host) = match rest {
        None => (None, ""),
        Some(rest) => rest.rsplit_once(':').map_or((None, rest), |(ip, port)| (Some(ip), port)),
    };
    let host_ip = match ip {
        None | Some("") => None,
        Some(ip) => {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
            Some(bare.parse::<IpAddr>().map_err(|_| PortError::Address(ip.to_owned()))?)
        }
    };
    if container.is_empty() {
        return Err(PortError::Empty);
    }
    let (first, last) = range(container).ok_or_else(|| PortError::Container(container.to_owned()))?;
    let hosts = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| PortError::Host(host.to_owned()))?),
    };
    match hosts {
        // One port of the container, somewhere in a range of the host's.
        Some(_) if first == last => {}
        Some((from, to)) if to - from != last - first => {
            return Err(PortError::Ranges { container: container.to_owned(), host: host.to_owned() });
        }
        _ => {}
    }
    let one = |container_port: u16| {
        let host_ports = match hosts {
            Some((from, _)) if first != last => {
                let port = from + (container_port - first);
                Some((port, port))
            }
            hosts => hosts,
        };
        Publish { host_ip, host_ports, container_port, protocol }
    };
    Ok((first..=last).map(one).collect())
}

/// `80` or `80-90`; no port is 0.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let (first, last) = (number(first)?, number(last)?);
    (first > 0 && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Publish {
        let mut all = parse_publish(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0)
    }

    #[test]
    fn what_docker_takes_is_taken() {
        assert_eq!(one("80").host_ports, None);
        assert_eq!(one("8080:80").host_ports, Some((8080, 8080)));
        assert_eq!(one("127.0.0.1:8080:80/udp").protocol, Protocol::Udp);
        assert_eq!(one("127.0.0.1::80").host_ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(one("127.0.0.1::80").host_ports, None);
        assert_eq!(one("[::1]:8080:80/TCP").host_ip, Some("::1".parse().unwrap()));
        assert_eq!(one("::1:8080:80").host_ip, Some("::1".parse().unwrap()));
        assert_eq!(one("8000-8010:80").host_ports, Some((8000, 8010)));
        assert_eq!(one(":80").host_ports, None);
        let all = parse_publish("8000-8002:80-82").unwrap();
        let pairs: Vec<_> = all.iter().map(|p| (p.host_ports.unwrap().0, p.container_port)).collect();
        assert_eq!(pairs, [(8000, 80), (8001, 81), (8002, 82)]);
        assert_eq!(parse_publish("80-81").unwrap().len(), 2);
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for bad in [
            "",
            ":",
            "x",
            "0",
            "80:0",
            "0:80",
            "65536",
            "80:65536",
            "-1",
            "+80",
            "90-80",
            "localhost:80:80",
            "1.2.3:80:80",
            "80/sctp",
            "80/",
            "80/tcp/udp",
            "8000-8001:80-82",
            "80:80:80:80",
            "[::1:80:80",
            "8080:",
            "80-90-100",
            "８０",
        ] {
            assert!(parse_publish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let published = Published {
            host_ip: "::1".parse().unwrap(),
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!((published.host().as_str(), published.key().as_str()), ("[::1]:8080", "80/tcp"));
        assert_eq!(one("8000-8010:80").host_port_text(), "8000-8010");
        assert_eq!(one("80").host_port_text(), "");
    }
}
