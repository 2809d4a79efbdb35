//! Keeping and forgetting logins. The file is docker's `config.json` (or what `--authfile`, `REGISTRY_AUTH_FILE` or
//! `DOCKER_CONFIG` name): persistent, and read by every other tool. Everything else in it stays as it is.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::credentials::{self, HUB_KEY, server_name};
use super::endpoint::Endpoint;
use super::helper::{call_helper, helper_error};
use super::settings::{Settings, read_file};
use super::{Error, Found, Login};
use crate::oci::DEFAULT_REGISTRY;

/// A login that was checked and kept.
#[derive(Debug)]
pub struct LoggedIn {
    /// Where it is kept: a file, or a helper.
    pub kept_in: String,
    /// Whether it lies unencrypted in a file.
    pub plain: bool,
    /// Another place that comes first when a login is looked for, and has another login for the same registry.
    pub shadowed_by: Option<String>,
}

/// What a logout did.
#[derive(Debug)]
pub struct LoggedOut {
    /// Where a login was removed from; empty when there was none.
    pub removed_from: Vec<String>,
}

/// Check a login with the registry, then keep it for `key`: the registry, or `registry/path` for the repositories below
/// that path alone.
///
/// # Errors
/// [`Error::WrongPassword`] when the registry does not accept it, and everything that asking it or writing the file
/// can give.
pub fn log_in(settings: &Settings, key: &str, login: &Login) -> Result<LoggedIn, Error> {
    let (registry, below) = key.split_once('/').unwrap_or((key, ""));
    check(settings, registry, login)?;
    let path = file_to_write(settings)?;
    let text = read_file(&path)?.unwrap_or_default();
    let file = credentials::parse(&text, &path)?;
    let kept = match credentials::keeper(&file, registry) {
        Some(helper) if !below.is_empty() => {
            let what = format!("it keeps logins of whole registries only, not of `{key}`");
            return Err(helper_error(helper, &path, "store", what));
        }
        Some(helper) => {
            store(settings, helper, &path, registry, login)?;
            set_entry(&path, &text, registry, Some(json!({})))?;
            LoggedIn { kept_in: format!("docker-credential-{helper}"), plain: false, shadowed_by: None }
        }
        None => {
            set_entry(&path, &text, key, Some(entry(login)))?;
            LoggedIn { kept_in: path.display().to_string(), plain: true, shadowed_by: None }
        }
    };
    // The login is kept by now, whatever is wrong with other files.
    let first = credentials::find(settings, registry, below).ok().and_then(|search| search.found);
    let shadowed_by = first.filter(|found| found.login != *login).map(|found| found.origin);
    Ok(LoggedIn { shadowed_by, ..kept })
}

/// Whether a registry accepts a login.
///
/// # Errors
/// [`Error::WrongPassword`] when it does not, and everything that asking it can give.
pub fn check(settings: &Settings, registry: &str, login: &Login) -> Result<(), Error> {
    let asking = Settings { creds: Some(login.clone()), ..settings.clone() };
    Endpoint::for_login(&asking, registry)?.check_login()
}

/// The login that would be used for a registry.
///
/// # Errors
/// [`Error::NotLoggedIn`] when there is none.
pub fn logged_in(settings: &Settings, key: &str) -> Result<Found, Error> {
    let (registry, below) = key.split_once('/').unwrap_or((key, ""));
    let found = credentials::find(settings, registry, below)?.found;
    found.ok_or_else(|| Error::NotLoggedIn { registry: key.to_owned() })
}

/// Forget the login for a key as [`log_in`] takes it, wherever a login for it would be found.
///
/// # Errors
/// When a file cannot be written or a helper fails.
pub fn log_out(settings: &Settings, key: &str) -> Result<LoggedOut, Error> {
    let mut removed_from = Vec::new();
    for path in credentials::auth_files(settings) {
        let Some(text) = credentials::read_auth_file(settings, &path, |_| ())? else { continue };
        let file = credentials::parse(&text, &path)?;
        if !key.contains('/')
            && let Some(helper) = credentials::keeper(&file, key)
        {
            let server = server_name(key);
            match call_helper(settings, helper, &path, "erase", server.as_bytes()) {
                Ok(Ok(_)) => removed_from.push(format!("docker-credential-{helper}")),
                Ok(Err(said)) if said.contains("not found") => {}
                Ok(Err(said)) => return Err(helper_error(helper, &path, "erase", said)),
                Err(error) if file.auths.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        if set_entry(&path, &text, key, None)? {
            removed_from.push(path.display().to_string());
        }
    }
    Ok(LoggedOut { removed_from })
}

/// Forget all logins that lie in auth files.
///
/// # Errors
/// When a file cannot be written.
pub fn log_out_all(settings: &Settings) -> Result<LoggedOut, Error> {
    let mut removed_from = Vec::new();
    for path in credentials::auth_files(settings) {
        let Some(text) = credentials::read_auth_file(settings, &path, |_| ())? else { continue };
        let mut document = parse_document(&path, &text)?;
        if document.remove("auths").is_some_and(|auths| auths.as_object().is_some_and(|a| !a.is_empty())) {
            write_atomically(&path, &document)?;
            removed_from.push(path.display().to_string());
        }
    }
    Ok(LoggedOut { removed_from })
}

fn file_to_write(settings: &Settings) -> Result<PathBuf, Error> {
    settings
        .authfile
        .clone()
        .or_else(|| settings.var("REGISTRY_AUTH_FILE").map(PathBuf::from))
        .or_else(|| settings.docker_config())
        .ok_or(Error::NoAuthFile)
}

fn entry(login: &Login) -> Value {
    match login {
        Login::Password { user, password } => {
            json!({"auth": STANDARD.encode(format!("{user}:{}", password.expose()))})
        }
        Login::Identity(token) => json!({"identitytoken": token.expose()}),
        Login::Bearer(token) => json!({"registrytoken": token.expose()}),
    }
}

fn store(settings: &Settings, helper: &str, path: &Path, registry: &str, login: &Login) -> Result<(), Error> {
    let (user, secret) = match login {
        Login::Password { user, password } => (user.as_str(), password),
        Login::Identity(token) | Login::Bearer(token) => ("<token>", token),
    };
    let input = json!({"ServerURL": server_name(registry), "Username": user, "Secret": secret.expose()});
    match call_helper(settings, helper, path, "store", input.to_string().as_bytes())? {
        Ok(_) => Ok(()),
        Err(said) => Err(helper_error(helper, path, "store", said)),
    }
}

/// Set or remove the entry of a registry in an auth file. Whether anything changed comes back.
fn set_entry(path: &Path, text: &str, registry: &str, entry: Option<Value>) -> Result<bool, Error> {
    let mut document = parse_document(path, text)?;
    let auths = document.entry("auths").or_insert_with(|| json!({}));
    let Some(auths) = auths.as_object_mut() else {
        return Err(Error::Config { path: path.to_owned(), what: "`auths` is not an object", source: None });
    };
    let own = if registry == DEFAULT_REGISTRY { HUB_KEY } else { registry };
    let before = auths.len();
    let is_ours = |key: &str| {
        key == registry
            || key == own
            || (registry == DEFAULT_REGISTRY && matches!(key, "index.docker.io" | "registry-1.docker.io"))
            || ["https://", "http://"]
                .iter()
                .any(|s| key.strip_prefix(s).is_some_and(|k| k.split('/').next() == Some(registry)))
    };
    if let Some(entry) = entry {
        auths.retain(|key, _| key == own || !is_ours(key));
        auths.insert(own.to_owned(), entry);
    } else {
        auths.retain(|key, _| !is_ours(key));
        if auths.len() == before {
            return Ok(false);
        }
    }
    write_atomically(path, &document)?;
    Ok(true)
}

fn parse_document(path: &Path, text: &str) -> Result<Map<String, Value>, Error> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|error| Error::Config {
        path: path.to_owned(),
        what: "it is not a JSON object, and is left as it is",
        source: Some(format!("line {}, column {}", error.line(), error.column()).into()),
    })
}

/// Replace the file in one step, readable for its owner alone. A link is followed, so that files kept elsewhere and
/// linked into place stay linked.
fn write_atomically(path: &Path, document: &Map<String, Value>) -> Result<(), Error> {
    let fail = |source: std::io::Error| Error::Config {
        path: path.to_owned(),
        what: "it cannot be written",
        source: Some(Box::new(source)),
    };
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
    let mut bytes = serde_json::to_vec_pretty(document).map_err(|error| fail(error.into()))?;
    bytes.push(b'\n');
    let mut file = tempfile::Builder::new().prefix(".config.json.").tempfile_in(directory).map_err(fail)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    file.write_all(&bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(&target).map_err(|error| fail(error.error))?;
    match std::fs::File::open(directory).and_then(|directory| directory.sync_all()) {
        // Some file systems (FUSE, network) have nothing to sync in a directory and say so.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result.map_err(fail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_keeps_everything_else_and_the_file_to_oneself() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.json");
        let path = dir.path().join("sub/config.json");
        let text =
            r#"{"zeta": [1], "auths": {"https://r.example/v1/": {"auth": "x"}, "other": {}}, "alpha": 2}"#;
        std::fs::write(&real, text).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        assert!(set_entry(&path, text, "r.example", Some(entry(&Login::password("a", "b")))).unwrap());
        let written = std::fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["zeta"], json!([1]));
        assert_eq!(value["auths"], json!({"other": {}, "r.example": {"auth": "YTpi"}}));
        assert!(written.find("zeta") < written.find("alpha"), "the order of keys stays");
        assert!(path.is_symlink());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(set_entry(&path, &written, "r.example", None).unwrap());
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(!set_entry(&path, &written, "r.example", None).unwrap());
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for text in ["[1, 2]", "{\"auths\": 5}", "{broken"] {
            std::fs::write(&path, text).unwrap();
            assert!(set_entry(&path, text, "r.example", Some(json!({}))).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
