//! Configuration of others that we read, and programs of others that it names.

use std::path::{Path, PathBuf};

use super::Check;
use crate::context::Context;
use crate::ops::host;

/// registries.conf in the places where it is looked for.
pub(super) fn registries_conf(cx: &Context) -> Check {
    let name = "registries.conf";
    let Some(path) = find_registries_conf(cx) else {
        return Check::ok(name, "none: names without a registry are docker.io's");
    };
    let shown = path.display().to_string();
    match std::fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| text.parse::<toml::Table>().map_err(|error| error.message().to_owned()))
    {
        Ok(_) => Check::ok(name, shown),
        Err(why) => Check::fail(name, format!("{shown}: {why}"), "pull and push fail until it is readable")
            .fix(format!("$EDITOR {shown}")),
    }
}

fn find_registries_conf(cx: &Context) -> Option<PathBuf> {
    if let Some(path) = cx.var("CONTAINERS_REGISTRIES_CONF") {
        return Some(PathBuf::from(path));
    }
    let config = cx
        .var("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| cx.home.as_ref().map(|home| home.join(".config")));
    let own = config.map(|dir| dir.join("containers/registries.conf"));
    own.into_iter().chain([PathBuf::from("/etc/containers/registries.conf")]).find(|path| path.exists())
}

/// Credential helpers that docker's configuration names.
pub(super) fn credentials(cx: &Context) -> Vec<Check> {
    let name = "credential helpers";
    let dir = cx.var("DOCKER_CONFIG").map(PathBuf::from);
    let Some(path) = dir.or_else(|| cx.home.as_ref().map(|home| home.join(".docker"))) else {
        return Vec::new();
    };
    let path = path.join("config.json");
    let Ok(text) = std::fs::read(&path) else { return Vec::new() };
    let value: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            return vec![
                Check::fail(name, found, "no credentials can be read")
                    .fix(format!("$EDITOR {}", path.display())),
            ];
        }
    };
    let missing = missing_helpers(&value, &cx.path());
    if missing.is_empty() {
        return vec![Check::ok(name, "all found")];
    }
    let found = format!("`{}` names helpers that are not on PATH: {}", path.display(), missing.join(", "));
    vec![Check::warn(name, found, "registries that use them are met without credentials")]
}

fn missing_helpers(config: &serde_json::Value, path: &[PathBuf]) -> Vec<String> {
    let store = config["credsStore"].as_str().into_iter();
    let by_host = config["credHelpers"].as_object().into_iter().flat_map(|map| map.values());
    let mut programs: Vec<String> = store
        .chain(by_host.filter_map(serde_json::Value::as_str))
        .filter(|helper| !helper.is_empty())
        .map(|helper| format!("docker-credential-{helper}"))
        .filter(|program| !Path::new(program).is_absolute() && host::find_program(program, path).is_none())
        .collect();
    programs.sort();
    programs.dedup();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_that_are_not_there_are_named_once() {
        let config =
            serde_json::json!({"credsStore": "nosuch", "credHelpers": {"a": "nosuch", "b": "other"}});
        assert_eq!(
            missing_helpers(&config, &[PathBuf::from("/nonexistent")]),
            ["docker-credential-nosuch", "docker-credential-other"]
        );
        assert!(missing_helpers(&serde_json::json!({}), &[]).is_empty());
    }
}
