//! `port`, and how `ps` shows ports.

use clap::Args;

use super::readable;
use crate::cmd::CmdResult;
use crate::context::Context;
use crate::oci::Published;
use crate::ops;
use crate::ops::ps::Row;
use crate::ui::Ui;

/// Arguments of `port`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct PortArgs {
    /// The container's name or id
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

/// `strate port`
pub(in crate::cmd) fn port(cx: &mut Context, ui: &mut Ui, args: PortArgs) -> CmdResult {
    let ports = ops::port::port(&readable(cx)?, &args.container, args.port.as_deref())?;
    for port in ports {
        match args.port {
            Some(_) => ui.line(port.host()),
            None => ui.line(format_args!("{} -> {}", port.key(), port.host())),
        }
    }
    Ok(0)
}

/// `0.0.0.0:8000-8001->80-81/tcp, 443/tcp`: published ports, neighbours together, then those that are only exposed.
pub(super) fn shown(row: &Row) -> String {
    if !row.state.is_running() {
        return String::new();
    }
    let mut ports = row.state.ports.clone();
    ports.sort_by_key(|port| (port.protocol, port.host_ip, port.container_port, port.host_port));
    let mut words: Vec<String> = Vec::new();
    let mut run: Option<(Published, u16)> = None;
    for port in ports {
        match &mut run {
            Some((first, count))
                if (first.protocol, first.host_ip) == (port.protocol, port.host_ip)
                    && first.container_port.checked_add(*count) == Some(port.container_port)
                    && first.host_port.checked_add(*count) == Some(port.host_port) =>
            {
                *count += 1;
            }
            _ => {
                words.extend(run.map(run_words));
                run = Some((port, 1));
            }
        }
    }
    words.extend(run.map(run_words));
    let published = |key: &&String| row.state.ports.iter().any(|port| port.key() == **key);
    words.extend(row.spec.config.exposed_ports.keys().filter(|key| !published(key)).cloned());
    words.join(", ")
}

fn run_words((first, count): (Published, u16)) -> String {
    if count == 1 {
        return format!("{}->{}", first.host(), first.key());
    }
    let (host, to) = (first.host_port + (count - 1), first.container_port + (count - 1));
    format!("{}-{host}->{}-{to}/{}", first.host(), first.container_port, first.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_shown_together() {
        let first = Published {
            host_ip: "0.0.0.0".parse().unwrap(),
            host_port: 8000,
            container_port: 80,
            protocol: crate::oci::Protocol::Tcp,
        };
        assert_eq!(run_words((first, 1)), "0.0.0.0:8000->80/tcp");
        assert_eq!(run_words((first, 3)), "0.0.0.0:8000-8002->80-82/tcp");
    }
}
