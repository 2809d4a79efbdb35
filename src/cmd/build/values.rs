//! The values of the flags of `build`.

use std::path::PathBuf;

use crate::cmd::CmdError;
use crate::oci::Platform;
use crate::ops::build::{self as op, ContextSource, Network, SecretSource, SshSource};

pub(super) fn context(text: &str) -> Result<ContextSource, CmdError> {
    ContextSource::parse(text)
        .map_err(|error| CmdError::new(error).while_doing(format!("invalid context `{text}`")))
}

pub(super) fn build_arg(text: &str) -> Result<(String, Option<String>), CmdError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(CmdError::usage(format!("invalid build argument `{text}`: it has no name")));
    }
    Ok((name.to_owned(), value))
}

pub(super) fn named_context(text: &str) -> Result<(String, op::NamedContext), CmdError> {
    let wrong = |what: String| CmdError::usage(format!("invalid context `{text}`: {what}"));
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("it is name=context".into()))?;
    if name.is_empty() {
        return Err(wrong("it has no name".into()));
    }
    let context = op::named_context(value).map_err(|error| wrong(error.to_string()))?;
    Ok((name.to_owned(), context))
}

pub(super) fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

pub(super) fn network(text: Option<&str>) -> Result<Network, CmdError> {
    match text {
        None | Some("default" | "host" | "") => Ok(Network::Host),
        Some("none") => Ok(Network::None),
        Some(other) => Err(CmdError::usage(format!(
            "network mode `{other}` is not supported: it is default, host or none"
        ))),
    }
}

pub(super) fn platforms(texts: &[String]) -> Result<Vec<Platform>, CmdError> {
    let mut all: Vec<Platform> = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let platform = match text {
            "local" => Platform::host(),
            text => text.parse().map_err(CmdError::new)?,
        };
        if !all.contains(&platform) {
            all.push(platform);
        }
    }
    Ok(all)
}

pub(super) fn docker_types(format: Option<&str>) -> Result<bool, CmdError> {
    match format {
        None | Some("oci") => Ok(false),
        Some("docker") => Ok(true),
        Some(other) => Err(CmdError::usage(format!("unknown format `{other}`: it is oci or docker"))),
    }
}

pub(super) fn secret(text: &str) -> Result<SecretSource, CmdError> {
    let wrong = |what: &str| CmdError::usage(format!("invalid secret `{text}`: {what}"));
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong("its fields are key=value"))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(wrong("its type is file or env")),
            _ => return Err(wrong("it has an unknown field")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no id"))?;
    match kind.as_deref() {
        Some("env") => env = env.or(file.take()).or(Some(id.clone())),
        Some(_) => file = file.or(Some(id.clone())),
        None => {}
    }
    Ok(SecretSource { id, file: file.map(PathBuf::from), env })
}

pub(super) fn ssh(text: &str) -> Result<SshSource, CmdError> {
    let wrong = |what: &str| CmdError::usage(format!("invalid ssh agent `{text}`: {what}"));
    let (id, paths) = text.split_once('=').map_or((text, None), |(id, paths)| (id, Some(paths)));
    if id.is_empty() {
        return Err(wrong("it is id[=socket|key[,key]]"));
    }
    let paths: Vec<PathBuf> =
        paths.into_iter().flat_map(|paths| paths.split(',')).map(PathBuf::from).collect();
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(wrong("a path is empty"));
    }
    Ok(SshSource { id: id.to_owned(), paths })
}

pub(super) fn add_host(text: &str) -> Result<(String, String), CmdError> {
    let at = text.find(['=', ':']);
    let (name, address) = at
        .map(|at| (&text[..at], &text[at + 1..]))
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .ok_or_else(|| CmdError::usage(format!("invalid host `{text}`: it is name:address")))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = if address == "host-gateway" { "127.0.0.1" } else { address };
    if address.parse::<std::net::IpAddr>().is_err() {
        return Err(CmdError::usage(format!("invalid host `{text}`: `{address}` is no address")));
    }
    Ok((name.to_owned(), address.to_owned()))
}

/// A size with a binary suffix.
pub(super) fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.strip_suffix(['k', 'm', 'g', 't']) {
        Some(digits) => (digits, 10 * (1 + "kmgt".find(&lower[digits.len()..]).unwrap_or(0))),
        None => (lower, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(super) fn ulimit(text: &str) -> Result<(String, u64, u64), CmdError> {
    let wrong = || CmdError::usage(format!("invalid limit `{text}`: it is name=soft[:hard]"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let number = |text: &str| if text == "-1" { Some(u64::MAX) } else { text.parse().ok() };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft).ok_or_else(wrong)?, number(hard).ok_or_else(wrong)?);
    if soft > hard {
        return Err(CmdError::usage(format!("invalid limit `{text}`: soft is above hard")));
    }
    Ok((format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let source = |file: Option<&str>, env: Option<&str>| SecretSource {
            id: "a".into(),
            file: file.map(PathBuf::from),
            env: env.map(str::to_owned),
        };
        for (text, expected) in [
            ("id=a,src=/f", source(Some("/f"), None)),
            ("id=a,env=E", source(None, Some("E"))),
            ("id=a", source(None, None)),
            ("type=file,id=a,source=x", source(Some("x"), None)),
            ("type=env,id=a", source(None, Some("a"))),
        ] {
            assert_eq!(secret(text).unwrap(), expected, "{text}");
        }
        for bad in ["a", "src=x", "id=", "id=a,x=y", "id=a,type=z"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn agents() {
        let source = |id: &str, paths: &[&str]| SshSource {
            id: id.into(),
            paths: paths.iter().map(PathBuf::from).collect(),
        };
        assert_eq!(ssh("default").unwrap(), source("default", &[]));
        assert_eq!(ssh("a=/k,l").unwrap(), source("a", &["/k", "l"]));
        for bad in ["", "=/s", "a=", "a=/s,"] {
            assert!(ssh(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_values() {
        assert_eq!(
            (size("64m"), size("1g"), size("7"), size("x")),
            (Some(64 << 20), Some(1 << 30), Some(7), None)
        );
        assert_eq!(ulimit("nofile=1:2").unwrap(), ("RLIMIT_NOFILE".into(), 1, 2));
        assert!(ulimit("nofile=2:1").is_err() && ulimit("nofile").is_err());
        assert_eq!(add_host("h:10.0.0.1").unwrap(), ("h".into(), "10.0.0.1".into()));
        assert_eq!(add_host("h=[::1]").unwrap(), ("h".into(), "::1".into()));
        assert!(add_host("h").is_err() && add_host("h:x").is_err());
        assert!(build_arg("=x").is_err());
        assert!(context("https://x/y.git#-x").is_err() && named_context("a=target:b").is_err());
    }
}
