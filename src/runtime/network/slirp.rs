//! What slirp4netns is told (`man 1 slirp4netns`).

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{ADDRESS, Error, Helper, Wanted};
use crate::oci::Published;

/// The interface in the container.
pub(super) const INTERFACE: &str = "eth0";

/// The socket by which ports are published, in the directory where it starts: paths of sockets are short.
pub(super) const SOCKET: &str = "api";

/// The command line but for the namespace and the interface.
///
/// # Errors
/// [`Error::Cannot`] for addresses that it cannot give or listen on.
pub(super) fn arguments(wanted: &Wanted<'_>) -> Result<Vec<String>, Error> {
    let cannot = |what: &str| Err(Error::Cannot { helper: Helper::Slirp, what: what.to_owned() });
    if wanted.address.is_some_and(|address| address != ADDRESS) || wanted.address6.is_some() {
        return cannot("give a container an address of choice: install passt for its pasta");
    }
    if wanted.ports.iter().any(|port| port.host_ip.is_ipv6()) {
        return cannot("publish ports on IPv6 addresses: install passt for its pasta");
    }
    let mut args: Vec<String> = [
        "slirp4netns",
        "--configure",
        "--mtu=65520",
        "--enable-sandbox",
        "--enable-seccomp",
        "--netns-type=path",
        "--ready-fd=3",
    ]
    .map(str::to_owned)
    .to_vec();
    let loopback = ["allow_host_loopback=true", "allow_host_loopback=1"];
    if !wanted.options.iter().any(|option| loopback.contains(&option.as_str())) {
        args.push("--disable-host-loopback".into());
    }
    if !wanted.ports.is_empty() {
        args.push(format!("--api-socket={SOCKET}"));
    }
    args.extend(wanted.mac.map(|mac| format!("--macaddress={mac}")));
    for option in wanted.options.iter().filter(|option| !loopback.contains(&option.as_str())) {
        args.push(own_option(option)?);
    }
    Ok(args)
}

/// An option in podman's words.
fn own_option(option: &str) -> Result<String, Error> {
    let number = |text: &str| text.parse::<u32>().is_ok();
    match option.split_once('=').unwrap_or((option, "")) {
        ("mtu", mtu) if number(mtu) => Ok(format!("--mtu={mtu}")),
        ("enable_ipv6", "true" | "1") => Ok("--enable-ipv6".into()),
        ("outbound_addr", value) if value.parse::<IpAddr>().is_ok() => Ok(format!("--outbound-addr={value}")),
        _ => Err(Error::Cannot {
            helper: Helper::Slirp,
            what: format!(
                "take the option `{option}`: there are mtu=N, enable_ipv6=true, outbound_addr=ADDRESS and \
                 allow_host_loopback=true"
            ),
        }),
    }
}

/// Ask it to listen; what it answers when it does not.
pub(super) fn publish(socket: &Path, ports: &[Published]) -> Result<(), String> {
    for port in ports {
        let request = serde_json::json!({
            "execute": "add_hostfwd",
            "arguments": {
                "proto": port.protocol.name(), "host_addr": port.host_ip.to_string(), "host_port": port.host_port,
                "guest_port": port.container_port,
            },
        });
        let answer = ask(socket, &request.to_string())
            .map_err(|error| format!("it does not answer about port {}: {error}", port.host()))?;
        if let Some(error) = answer.get("error") {
            let words =
                error.pointer("/desc").and_then(serde_json::Value::as_str).unwrap_or("it says no more");
            return Err(format!("cannot publish {}: {words}", port.host()));
        }
    }
    Ok(())
}

fn ask(socket: &Path, request: &str) -> std::io::Result<serde_json::Value> {
    // A path of any length, as that of the socket itself is limited.
    if let Some(dir) = socket.parent() {
        rustix::process::chdir(dir)?;
    }
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(1 << 16).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(options: &'a [String], ports: &'a [Published]) -> Wanted<'a> {
        Wanted {
            helper: Helper::Slirp,
            program: Path::new("/usr/bin/slirp4netns"),
            options,
            ports,
            address: None,
            address6: None,
            mac: None,
            scratch: Path::new("/x"),
            uid: 0,
        }
    }

    #[test]
    fn the_host_is_out_of_reach_unless_asked_for() {
        let args = arguments(&wanted(&[], &[])).unwrap();
        assert!(args.contains(&"--disable-host-loopback".to_owned()));
        assert!(!args.iter().any(|arg| arg.starts_with("--api-socket")));
        let options = ["allow_host_loopback=true".to_owned(), "mtu=1500".to_owned()];
        let args = arguments(&wanted(&options, &[])).unwrap();
        assert!(
            !args.contains(&"--disable-host-loopback".to_owned()) && args.contains(&"--mtu=1500".to_owned())
        );
        for bad in ["mtu=x", "--help", "port_handler=slirp4netns"] {
            assert!(arguments(&wanted(&[bad.to_owned()], &[])).is_err(), "{bad}");
        }
    }
}
