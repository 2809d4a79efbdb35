//! Origins: scheme, host and port. Credentials are bound to one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ureq::http::Uri;

/// `https` or `http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Https,
    Http,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Who is talked to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub scheme: Scheme,
    /// Lower case; IPv6 addresses in brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// The origin of a registry as references name it (`HOST` or `HOST:PORT`).
    pub fn of_registry(scheme: Scheme, registry: &str) -> Self {
        let (host, port) = match registry.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().unwrap_or(scheme.default_port()))
            }
            _ => (registry, scheme.default_port()),
        };
        Self { scheme, host: host.to_ascii_lowercase(), port }
    }

    /// The origin of an absolute http or https address; `None` for anything else.
    pub fn of_url(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = match uri.scheme_str()? {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None; // user information in an address is a trick or a leak
        }
        let port = authority.port_u16().unwrap_or(scheme.default_port());
        Some(Self { scheme, host: authority.host().to_ascii_lowercase(), port })
    }

    /// The host as an address, when it is one.
    pub fn address(&self) -> Option<IpAddr> {
        let host = self.host.trim_end_matches('.');
        host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// This machine itself: 127.0.0.0/8, `::1` or `localhost`.
    pub fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }

    /// A literal address that never is a registry, its storage or its token server, unless on the same machine: only
    /// an answer that wants to reach something else would name it.
    pub fn is_suspicious_target(&self) -> bool {
        let forbidden_v4 = |ip: Ipv4Addr| ip.is_loopback() || ip.is_link_local() || ip.is_unspecified();
        match self.address() {
            Some(IpAddr::V4(ip)) => forbidden_v4(ip),
            Some(IpAddr::V6(ip)) => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_unicast_link_local()
                    || ip.to_ipv4_mapped().is_some_and(forbidden_v4)
            }
            // Odd spellings of addresses (decimal, hexadecimal, short) have no business in an answer.
            None => {
                self.is_loopback()
                    || self.host.trim_end_matches('.').rsplit('.').next().is_some_and(looks_numeric)
            }
        }
    }

    /// `HOST:PORT`, without the port where it is the scheme's own.
    pub fn host_port(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host_port())
    }
}

fn looks_numeric(label: &str) -> bool {
    let digits = label.strip_prefix("0x").unwrap_or(label);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        || label.starts_with("0x") && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a host name or literal address means this machine.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
        return true;
    }
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The absolute address that a `Location` header means, seen from the address that was asked.
pub(super) fn join(base: &str, location: &str) -> Option<String> {
    if location.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return None;
    }
    if location.contains("://") && location.split("://").next().is_some_and(is_scheme) {
        return Origin::of_url(location).map(|_| location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let path = &rest[authority.len()..];
    let path = path.split(['?', '#']).next().unwrap_or("");
    if location.starts_with('?') {
        return Some(format!("{scheme}://{authority}{path}{location}"));
    }
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Some(format!("{scheme}://{authority}{directory}/{location}"))
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// An address without its query, which may hold a signature.
pub(super) fn without_query(url: &str) -> String {
    super::error::sanitise(url.split(['?', '#']).next().unwrap_or(""), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_keep_scheme_host_and_port_apart() {
        for (url, text) in [
            ("https://A.example/x", Some("https://a.example")),
            ("https://a.example:443/x", Some("https://a.example")),
            ("http://a.example:443/x", Some("http://a.example:443")),
            ("http://[::1]:5000/v2/", Some("http://[::1]:5000")),
            ("https://user@a.example/", None),
            ("file:///etc/passwd", None),
            ("gopher://a/", None),
            ("/v2/", None),
        ] {
            assert_eq!(Origin::of_url(url).map(|o| o.to_string()).as_deref(), text, "{url}");
        }
        assert_eq!(Origin::of_registry(Scheme::Https, "[::1]:5000").port, 5000);
        assert_eq!(Origin::of_registry(Scheme::Http, "[::1]").port, 80);
    }

    #[test]
    fn locations_are_joined_as_browsers_do() {
        let base = "https://r.example/v2/a/blobs/uploads/?x=1";
        for (location, joined) in [
            ("/v2/b", Some("https://r.example/v2/b")),
            ("https://s.example/c?sig=1", Some("https://s.example/c?sig=1")),
            ("//s.example/c", Some("https://s.example/c")),
            ("next?y", Some("https://r.example/v2/a/blobs/uploads/next?y")),
            ("?y", Some("https://r.example/v2/a/blobs/uploads/?y")),
            ("file:///etc/passwd", None),
            ("https://u:p@s.example/", None),
            ("/a\r\nX: y", None),
        ] {
            assert_eq!(join(base, location).as_deref(), joined, "{location}");
        }
    }

    #[test]
    fn addresses_that_reach_inside_are_recognised() {
        for url in [
            "http://127.0.0.1/",
            "https://169.254.169.254/",
            "https://[::1]/",
            "https://[::]/",
            "https://0.0.0.0/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:127.0.0.1]/",
            "https://localhost/",
            "https://a.localhost/",
            "https://169.254.169.254./",
            "https://2852039166./",
        ] {
            assert!(Origin::of_url(url).unwrap().is_suspicious_target(), "{url}");
        }
        for url in ["https://r.example/", "https://10.0.0.1:5000/", "https://1password.example/"] {
            assert!(!Origin::of_url(url).unwrap().is_suspicious_target(), "{url}");
        }
    }
}
