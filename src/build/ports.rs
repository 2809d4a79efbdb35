//! Port specifications of EXPOSE: `[ip:][host:]port[-end][/protocol]`.

use std::net::IpAddr;

use super::go;

/// A specification that is wrong, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The protocol is not tcp, udp or sctp.
    #[error("invalid port: {}: invalid proto: {protocol}", go::quote(spec))]
    Protocol {
        /// As written, expanded.
        spec: String,
        /// The protocol.
        protocol: String,
    },
    /// No port at all.
    #[error("invalid port: {}: no port specified", go::quote(spec))]
    Missing {
        /// As written, expanded.
        spec: String,
    },
    /// The container's port is not a port or range.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// The host's port is not a port or range.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// The host's address is none.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Two ranges of different length.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's range.
        container: String,
        /// The host's range.
        host: String,
    },
}

/// The `port/protocol` keys of one specification, a range as one key a port.
///
/// # Errors
/// For anything that is not a port specification.
pub fn parse(spec: &str) -> Result<Vec<String>, PortError> {
    let (rest, container) = spec.rsplit_once(':').unwrap_or(("", spec));
    let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (container, protocol) = match container.split_once('/') {
        Some((port, "")) => (port, "tcp"),
        Some((port, protocol)) => (port, protocol),
        None => (container, "tcp"),
    };
    let protocol = protocol.to_lowercase();
    if container.is_empty() {
        return Err(PortError::Missing { spec: spec.to_owned() });
    }
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(PortError::Protocol { spec: spec.to_owned(), protocol });
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(address.to_owned()));
    }
    let (first, last) = range(container).ok_or_else(|| PortError::Container(container.to_owned()))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| PortError::Host(host.to_owned()))?;
        // One container port may take any of a range of the host.
        if last - first != host_last - host_first && first != last {
            return Err(PortError::Ranges { container: container.to_owned(), host: host.to_owned() });
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((first, last)) => Some((port(first)?, port(last)?)).filter(|(first, last)| first <= last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        for (spec, keys) in [
            ("80", &["80/tcp"][..]),
            ("53/UDP", &["53/udp"]),
            ("7000-7002/sctp", &["7000/sctp", "7001/sctp", "7002/sctp"]),
            ("8080:80", &["80/tcp"]),
            ("127.0.0.1:9000:90/udp", &["90/udp"]),
            ("[::1]::90", &["90/tcp"]),
            ("80/", &["80/tcp"]),
        ] {
            assert_eq!(parse(spec).unwrap(), keys, "{spec}");
        }
    }

    #[test]
    fn mistakes() {
        for (spec, text) in [
            ("http", "invalid containerPort: http"),
            ("65536", "invalid containerPort: 65536"),
            ("9-8", "invalid containerPort: 9-8"),
            ("80/quic", "invalid port: \"80/quic\": invalid proto: quic"),
            ("", "invalid port: \"\": no port specified"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("x:80", "invalid hostPort: x"),
            ("nohost:1:80", "invalid IP address: nohost"),
            ("1-2:80-85", "invalid ranges specified for container and host Ports: 80-85 and 1-2"),
        ] {
            assert_eq!(parse(spec).unwrap_err().to_string(), text, "{spec}");
        }
    }
}
