//! Small values of flags: sizes, limits, hosts, environment and label files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;

/// A resource limit (`man 2 getrlimit`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Docker's name: `nofile`.
    pub name: String,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
}

/// The limits there are.
const ULIMITS: [&str; 15] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "sigpending",
    "stack",
];

/// The error for a flag value that cannot be used.
pub(crate) fn bad(flag: &str, value: &str, why: impl Into<String>) -> Error {
    Error::BadValue { flag: flag.into(), value: value.into(), why: why.into() }
}

/// The streams that `--attach` names: standard input, output, errors; `None` when it names none.
///
/// # Errors
/// [`Error::BadValue`]
pub fn attach(names: &[String]) -> Result<Option<[bool; 3]>, Error> {
    let mut streams = [false; 3];
    for name in names {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams[0] = true,
            "stdout" => streams[1] = true,
            "stderr" => streams[2] = true,
            _ => return Err(bad("--attach", name, "there are stdin, stdout and stderr")),
        }
    }
    Ok((!names.is_empty()).then_some(streams))
}

/// Bytes: a number with an optional unit of 1024 (`64m`, `1g`, `512k`, `1.5gb`, `100`).
///
/// # Errors
/// [`Error::BadValue`]
pub fn size(flag: &str, text: &str) -> Result<u64, Error> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad(flag, text, "expected a number and b, k, m or g")),
    };
    let number: f64 =
        digits.trim().parse().map_err(|_| bad(flag, text, "expected a number and b, k, m or g"))?;
    #[allow(clippy::cast_precision_loss, reason = "a power of two")]
    let bytes = number * (1_u64 << shift) as f64;
    if !(0.0..9.0e18).contains(&bytes) {
        return Err(bad(flag, text, "it is out of range"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    Ok(bytes as u64)
}

/// `name=soft[:hard]`
///
/// # Errors
/// [`Error::BadValue`]
pub fn ulimit(text: &str) -> Result<Ulimit, Error> {
    let refuse = |why: &str| bad("--ulimit", text, why);
    let (name, limits) = text.split_once('=').ok_or_else(|| refuse("expected NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        return Err(refuse(&format!("known limits are {}", ULIMITS.join(", "))));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        _ => text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(|| refuse("expected a number or -1")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = Ulimit { name: name.into(), soft: number(soft)?, hard: number(hard)? };
    if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
        return Err(refuse("the soft limit is above the hard one"));
    }
    Ok(limit)
}

impl Ulimit {
    /// `RLIMIT_NOFILE`, soft, hard as the kernel takes them.
    #[must_use]
    pub fn kernel(&self) -> (String, u64, u64) {
        let value = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
        (format!("RLIMIT_{}", self.name.to_ascii_uppercase()), value(self.soft), value(self.hard))
    }
}

/// `host:address` or `host=address`; the address may be in brackets or `host-gateway`. Gives `(host, address)`.
///
/// # Errors
/// [`Error::BadValue`]
pub fn extra_host(text: &str) -> Result<(String, String), Error> {
    let (host, address) = text
        .split_once(['=', ':'])
        .filter(|(host, _)| !host.is_empty() && !host.contains(char::is_whitespace))
        .ok_or_else(|| bad("--add-host", text, "expected HOST:ADDRESS"))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    // What it stands for depends on the network.
    if address == "host-gateway" {
        return Ok((host.into(), address.into()));
    }
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) => Ok((host.into(), ip.to_string())),
        Err(_) => Err(bad("--add-host", text, "the address is not an IP address")),
    }
}

/// `key=value`, or `key` alone for an empty value.
///
/// # Errors
/// [`Error::BadValue`]
pub fn label(text: &str) -> Result<(String, String), Error> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(bad("--label", text, "the key is empty"));
    }
    Ok((key.into(), value.into()))
}

/// The lines of a label file.
///
/// # Errors
/// [`Error::BadValue`]
pub fn label_file(content: &str, labels: &mut BTreeMap<String, String>) -> Result<(), Error> {
    for line in meaningful_lines(content) {
        let (key, value) = label(line)?;
        labels.insert(key, value);
    }
    Ok(())
}

/// One `-e`: `KEY=value` as it is; `KEY` alone takes the host's value, and when the host has none the bare `KEY`
/// stays, which takes the image's variable away.
///
/// # Errors
/// [`Error::BadValue`]
pub fn env(text: &str, host: &BTreeMap<String, String>) -> Result<String, Error> {
    if text.is_empty() || text.starts_with('=') {
        return Err(bad("--env", text, "the variable has no name"));
    }
    match (text.contains('='), host.get(text)) {
        (false, Some(value)) => Ok(format!("{text}={value}")),
        _ => Ok(text.into()),
    }
}

/// The lines of an environment file, as docker reads it: no quotes, no expansion, `#` only at the start of a line.
///
/// # Errors
/// [`Error::BadValue`]
pub fn env_file(content: &str, host: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for line in meaningful_lines(content) {
        let key = line.split_once('=').map_or(line, |(key, _)| key);
        if key.contains([' ', '\t']) {
            return Err(bad("--env-file", line, "the variable's name contains white space"));
        }
        // A bare name that the host lacks is skipped here, unlike with -e.
        let pair = env(line, host)?;
        if pair.contains('=') {
            all.push(pair);
        }
    }
    Ok(all)
}

/// Lines without a byte order mark, leading white space, comments and empty lines.
fn meaningful_lines(content: &str) -> impl Iterator<Item = &str> {
    let content = content.strip_prefix('\u{feff}').unwrap_or(content);
    content
        .lines()
        .map(|line| line.trim_start_matches([' ', '\t']))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `--entrypoint`: a program, or a JSON list; an empty one clears the image's.
#[must_use]
pub fn entrypoint(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(list) => list,
        Err(_) => vec![text.into()],
    }
}

/// A port that an image or `--expose` names: `80`, `80/udp`, `8000-8010/tcp`. Gives the keys for the config.
///
/// # Errors
/// [`Error::BadValue`]
pub fn exposed_ports(text: &str) -> Result<Vec<String>, Error> {
    let refuse = || bad("--expose", text, "expected PORT[-PORT][/tcp|udp|sctp]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(refuse());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| refuse())?;
    let last: u16 = last.parse().map_err(|_| refuse())?;
    if first == 0 || last < first {
        return Err(refuse());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("64m", Some(64 << 20)), ("1g", Some(1 << 30)), ("100", Some(100)), ("1.5K", Some(1536))]
        {
            assert_eq!(size("--shm-size", text).ok(), bytes);
        }
        for text in ["", "m", "-1", "1x", "99999999999t", "nan"] {
            assert!(size("--shm-size", text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!(limit.kernel(), ("RLIMIT_NOFILE".into(), 1024, 2048));
        assert_eq!(ulimit("core=-1").unwrap().kernel().1, u64::MAX);
        for text in ["nofile", "files=1", "nofile=2:1", "nofile=x", "nofile=-1:5"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn environment_files_are_read_as_docker_reads_them() {
        let host = BTreeMap::from([("H".to_owned(), "host".to_owned())]);
        let text = "\u{feff}# c\n\n  A=1\nB=\"q\"\nH\nMISSING\nC=a # b\n";
        assert_eq!(env_file(text, &host).unwrap(), ["A=1", "B=\"q\"", "H=host", "C=a # b"]);
        assert!(env_file("A B=1", &host).is_err());
        assert_eq!(env("H", &host).unwrap(), "H=host");
        assert_eq!(env("NO", &host).unwrap(), "NO");
        assert!(env("=x", &host).is_err());
    }

    #[test]
    fn hosts_and_ports() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), ("a".into(), "1.2.3.4".into()));
        assert_eq!(extra_host("a=[::1]").unwrap().1, "::1");
        assert_eq!(extra_host("a:::1").unwrap().1, "::1");
        assert!(extra_host("a:b").is_err());
        assert!(extra_host("a\n1.1.1.1 b:1.2.3.4").is_err());
        assert_eq!(exposed_ports("80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        assert!(exposed_ports("80/x;rm").is_err());
    }

    #[test]
    fn entrypoints() {
        assert!(entrypoint("").is_empty());
        assert_eq!(entrypoint("/bin/sh"), ["/bin/sh"]);
        assert_eq!(entrypoint(r#"["sh","-c"]"#), ["sh", "-c"]);
    }
}
