//! What a build takes from the invocation: arguments, variables, secrets, name servers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::{BuildRequest, Error, SecretSource};
use crate::context::Context;

/// The proxies that steps may know of without being told.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// What `/etc/resolv.conf` of RUN says in the place of the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Options.
    pub options: Vec<String>,
    /// Domains; a `.` alone is none.
    pub searches: Vec<String>,
}

/// Build arguments, those without a value taken from the environment. The client's proxies and `SOURCE_DATE_EPOCH` are
/// passed on unless they are given.
pub(super) fn build_args(cx: &Context, request: &BuildRequest) -> BTreeMap<String, String> {
    let mut args = proxies(cx, request.proxies);
    if let Some(epoch) = cx.var("SOURCE_DATE_EPOCH") {
        args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
    }
    for (name, value) in &request.build_args {
        match value.clone().or_else(|| cx.env.get(name).cloned()) {
            Some(value) => args.insert(name.clone(), value),
            None => args.remove(name),
        };
    }
    args
}

/// What the secrets are.
///
/// # Errors
/// When one cannot be read.
pub(super) fn secrets(cx: &Context, given: &[SecretSource]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut secrets = BTreeMap::new();
    for SecretSource { id, file, env } in given {
        let name = env.clone().or_else(|| file.is_none().then(|| id.clone()));
        let from_env = name.as_ref().and_then(|name| cx.env.get(name));
        let content = match (from_env, env) {
            (Some(value), _) => value.clone().into_bytes(),
            // A variable that is asked for by name and not set is a secret that was not given.
            (None, Some(_)) => continue,
            (None, None) => {
                let path = cx.cwd.join(file.as_deref().unwrap_or(Path::new(id)));
                let from = path.display().to_string();
                std::fs::read(&path).map_err(|source| Error::Secret { id: id.clone(), from, source })?
            }
        };
        secrets.insert(id.clone(), content);
    }
    Ok(secrets)
}

/// Names with their values, those without one taken from the environment or left out.
pub(super) fn values(cx: &Context, given: &[(String, Option<String>)]) -> Vec<(String, String)> {
    let value = |(name, value): &(String, Option<String>)| {
        Some((name.clone(), value.clone().or_else(|| cx.env.get(name).cloned())?))
    };
    given.iter().filter_map(value).collect()
}

/// The proxies of docker's client configuration, and those of the environment when they are asked for.
fn proxies(cx: &Context, of_environment: bool) -> BTreeMap<String, String> {
    let mut args = docker_config(cx).map(|bytes| configured_proxies(&bytes)).unwrap_or_default();
    if of_environment {
        for name in PROXIES {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                if let Some(value) = cx.var(&name) {
                    args.insert(name, value.to_owned());
                }
            }
        }
    }
    args
}

/// `config.json` of docker's client. One that cannot be read says nothing of proxies; who needs it for a login is told.
fn docker_config(cx: &Context) -> Option<Vec<u8>> {
    let dir = match cx.var("DOCKER_CONFIG") {
        Some(dir) => cx.cwd.join(dir),
        None => cx.home.as_ref()?.join(".docker"),
    };
    std::fs::read(dir.join("config.json")).ok()
}

/// `proxies.default` of it. Those of other daemons than the default one concern nobody here.
fn configured_proxies(bytes: &[u8]) -> BTreeMap<String, String> {
    let Ok(config) = serde_json::from_slice::<serde_json::Value>(bytes) else { return BTreeMap::new() };
    let mut args = BTreeMap::new();
    for name in PROXIES {
        let key = format!("{}Proxy", name.trim_end_matches("_proxy"));
        if let Some(value) = config["proxies"]["default"][&key].as_str().filter(|value| !value.is_empty()) {
            args.insert(name.to_owned(), value.to_owned());
            args.insert(name.to_ascii_uppercase(), value.to_owned());
        }
    }
    args
}

/// The host's `resolv.conf` with what was asked for in the place of its lines.
pub(super) fn resolv_conf(dns: &Dns) -> Vec<u8> {
    let host = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    if *dns == Dns::default() {
        return host;
    }
    changed_resolv_conf(&String::from_utf8_lossy(&host), dns).into_bytes()
}

fn changed_resolv_conf(host: &str, dns: &Dns) -> String {
    let replaced = |line: &str| match line.split_whitespace().next() {
        Some("nameserver") => !dns.servers.is_empty(),
        Some("options") => !dns.options.is_empty(),
        Some("search" | "domain") => !dns.searches.is_empty(),
        _ => false,
    };
    let mut text: String =
        host.lines().filter(|line| !replaced(line)).map(|line| format!("{line}\n")).collect();
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let searches: Vec<&str> =
        dns.searches.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_resolv_conf_are_replaced_kind_by_kind() {
        let host = "# mine\nnameserver 10.0.0.1\nsearch a b\noptions edns0\n";
        let dns = |servers: &[&str], searches: &[&str], options: &[&str]| Dns {
            servers: servers.iter().map(|text| text.parse().unwrap()).collect(),
            searches: searches.iter().map(|text| (*text).to_owned()).collect(),
            options: options.iter().map(|text| (*text).to_owned()).collect(),
        };
        for (asked, expected) in [
            (dns(&["1.1.1.1"], &[], &[]), "# mine\nsearch a b\noptions edns0\nnameserver 1.1.1.1\n"),
            (dns(&[], &["."], &[]), "# mine\nnameserver 10.0.0.1\noptions edns0\n"),
            (dns(&[], &["c", "d"], &["x"]), "# mine\nnameserver 10.0.0.1\nsearch c d\noptions x\n"),
        ] {
            assert_eq!(changed_resolv_conf(host, &asked), expected);
        }
    }

    #[test]
    fn proxies_of_dockers_client_are_arguments_in_both_cases() {
        let config = br#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x", "allProxy": ""},
            "tcp://other": {"ftpProxy": "no"}}}"#;
        let args = configured_proxies(config);
        let names: Vec<&str> = args.keys().map(String::as_str).collect();
        assert_eq!(names, ["HTTP_PROXY", "NO_PROXY", "http_proxy", "no_proxy"]);
        assert_eq!(args["http_proxy"], "http://p:1");
        assert!(configured_proxies(b"no json").is_empty() && configured_proxies(b"{}").is_empty());
    }
}
