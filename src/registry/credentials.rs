//! Who we are at a registry: `--creds`, `DOCKER_AUTH_CONFIG`, then the auth files of podman and docker in
//! containers-auth.json(5) order, with credential helpers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::settings::{Settings, read_file};
use super::{Error, Secret, limits, process};
use crate::oci::DEFAULT_REGISTRY;

/// The name that helpers and docker give an identity token instead of a user.
const TOKEN_USER: &str = "<token>";
/// The key under which docker keeps the login to Docker Hub.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A way to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// User name and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, to be exchanged at the token server.
    Identity(Secret),
    /// A bearer token, used as it is.
    Bearer(Secret),
}

impl Login {
    /// User and password.
    #[must_use]
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        let user = user.into();
        if user == TOKEN_USER {
            return Self::Identity(Secret::new(password));
        }
        Self::Password { user, password: Secret::new(password) }
    }

    /// The user's name, where there is one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::Identity(_) | Self::Bearer(_) => None,
        }
    }
}

/// A login and where it came from.
#[derive(Debug, Clone)]
pub struct Found {
    /// The login.
    pub login: Login,
    /// For people: `/home/a/.docker/config.json`, `--creds`.
    pub origin: String,
}

/// What looking for a login gave.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub found: Option<Found>,
    /// The places that were looked at.
    pub searched: Vec<String>,
    /// What the user should know: a helper that is missing.
    pub notes: Vec<String>,
}

impl Search {
    /// What was tried, for an error message.
    pub fn tried(&self) -> String {
        match &self.found {
            Some(Found { login, origin }) => match login.user() {
                Some(user) => format!("tried as `{}` with the login from {origin}", user.escape_debug()),
                None => format!("tried with the token from {origin}"),
            },
            None if self.searched.is_empty() => "tried without a login".into(),
            None => format!("tried without a login, as none was found in {}", self.searched.join(", ")),
        }
    }
}

/// An auth file: docker's config.json, podman's auth.json.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuthFile {
    #[serde(default)]
    pub auths: BTreeMap<String, Entry>,
    #[serde(default)]
    pub creds_store: Option<String>,
    #[serde(default)]
    pub cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
pub(super) struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Look for a login.
///
/// # Errors
/// When a file or a helper that is named for this very registry cannot be used.
pub(super) fn find(settings: &Settings, registry: &str, repository: &str) -> Result<Search, Error> {
    let mut search = Search::default();
    if let Some(login) = &settings.creds {
        let origin = if matches!(login, Login::Bearer(_)) { "--registry-token" } else { "--creds" };
        search.found = Some(Found { login: login.clone(), origin: origin.into() });
        return Ok(search);
    }
    if settings.anonymous {
        return Ok(search);
    }
    if settings.authfile.is_none()
        && let Some(text) = settings.var("DOCKER_AUTH_CONFIG")
    {
        let path = Path::new("DOCKER_AUTH_CONFIG");
        search.searched.push(path.display().to_string());
        let file = parse(text, path)?;
        if look_in(settings, &file, path, registry, repository, &mut search)? {
            return Ok(search);
        }
    }
    for path in auth_files(settings) {
        let Some(text) = read_file(&path)? else { continue };
        search.searched.push(format!("`{}`", path.display()));
        let file = parse(&text, &path)?;
        if look_in(settings, &file, &path, registry, repository, &mut search)? {
            break;
        }
    }
    Ok(search)
}

/// The auth files in the order of their precedence; `--authfile` or `REGISTRY_AUTH_FILE` alone when given.
pub(super) fn auth_files(settings: &Settings) -> Vec<PathBuf> {
    let named = settings.authfile.clone().or_else(|| settings.var("REGISTRY_AUTH_FILE").map(PathBuf::from));
    if let Some(path) = named {
        return vec![path];
    }
    let runtime = settings.var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|d| d.is_absolute());
    [
        runtime.map(|d| d.join("containers/auth.json")),
        settings.config_home().map(|d| d.join("containers/auth.json")),
        settings.docker_config(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn parse(text: &str, path: &Path) -> Result<AuthFile, Error> {
    if text.trim().is_empty() {
        return Ok(AuthFile::default());
    }
    serde_json::from_str(text).map_err(|error| Error::Config {
        path: path.to_owned(),
        what: "it is not a valid auth file",
        // serde's message may quote the text around the fault, which may be a secret: only the place is kept.
        source: Some(format!("line {}, column {}", error.line(), error.column()).into()),
    })
}

/// Look in one file: the helper of the most specific key, the default helper, then the file's own entries.
fn look_in(
    settings: &Settings,
    file: &AuthFile,
    path: &Path,
    registry: &str,
    repository: &str,
    search: &mut Search,
) -> Result<bool, Error> {
    let keys = keys(registry, repository);
    if let Some((key, helper)) = helper_for(file, &keys) {
        let login = ask(settings, helper, path, &server_name(key))?;
        search.found = login.map(|login| found(login, format!("docker-credential-{helper}")));
        return Ok(search.found.is_some());
    }
    if let Some(helper) = file.creds_store.as_deref().filter(|h| !h.is_empty()) {
        match ask(settings, helper, path, &server_name(registry)) {
            Ok(Some(login)) => {
                search.found = Some(found(login, format!("docker-credential-{helper}")));
                return Ok(true);
            }
            Ok(None) => {}
            // The file may come from a desktop that has the helper; anonymous pulls must work without it.
            Err(error) => search.notes.push(error.to_string()),
        }
    }
    let Some(login) = keys.iter().find_map(|key| entry_for(&file.auths, key)) else { return Ok(false) };
    let login = login.login(path)?;
    search.found = login.map(|login| found(login, format!("`{}`", path.display())));
    Ok(search.found.is_some())
}

fn found(login: Login, origin: String) -> Found {
    Found { login, origin }
}

/// The keys a login may stand under, most specific first: `host/ns/repo`, `host/ns`, `host`.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    keys.push(registry.to_owned());
    keys
}

fn entry_for<'a>(auths: &'a BTreeMap<String, Entry>, key: &str) -> Option<&'a Entry> {
    if let Some(entry) = auths.get(key) {
        return Some(entry);
    }
    // docker writes host names, and wrote addresses once: `https://host/v1/`.
    let is_same = |other: &str| !key.contains('/') && host_of(other).is_some_and(|host| host == key);
    auths.iter().find(|(other, _)| is_same(other)).map(|(_, entry)| entry)
}

/// The registry that a key means when it names a whole registry.
fn host_of(key: &str) -> Option<&str> {
    let host = match key.split_once("://") {
        Some((_, rest)) => rest.split('/').next()?,
        None if key.contains('/') => return None,
        None => key,
    };
    Some(match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    })
}

fn helper_for<'a>(file: &'a AuthFile, keys: &'a [String]) -> Option<(&'a str, &'a str)> {
    let chosen = |key: &str| {
        file.cred_helpers.iter().find(|(other, _)| {
            other.as_str() == key
                || (!key.contains('/') && host_of(other) == Some(key))
                || (!key.contains('/')
                    && other
                        .strip_prefix('*')
                        .is_some_and(|domain| domain.starts_with('.') && key.ends_with(domain)))
        })
    };
    keys.iter().find_map(|key| chosen(key).map(|(_, helper)| (key.as_str(), helper.as_str())))
}

/// What a helper knows a registry by.
pub(super) fn server_name(key: &str) -> String {
    if key == DEFAULT_REGISTRY { HUB_KEY.into() } else { key.into() }
}

/// The helper that keeps the logins of a registry, when the file names one.
pub(super) fn keeper<'a>(file: &'a AuthFile, registry: &str) -> Option<&'a str> {
    let keys = [registry.to_owned()];
    let own = file.cred_helpers.iter().find(|(k, _)| k.as_str() == keys[0] || host_of(k) == Some(registry));
    own.map(|(_, helper)| helper.as_str()).or(file.creds_store.as_deref()).filter(|helper| !helper.is_empty())
}

impl Entry {
    fn login(&self, path: &Path) -> Result<Option<Login>, Error> {
        let set = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
        if let Some(token) = set(&self.registrytoken) {
            return Ok(Some(Login::Bearer(Secret::new(token))));
        }
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Login::Identity(Secret::new(token))));
        }
        if let Some(auth) = set(&self.auth) {
            let broken = || Error::Config {
                path: path.to_owned(),
                what: "an `auth` value is not base64 of user:password",
                source: None,
            };
            let decoded = STANDARD.decode(auth.trim()).map_err(|_| broken())?;
            let decoded = String::from_utf8(decoded).map_err(|_| broken())?;
            let (user, password) = decoded.split_once(':').ok_or_else(broken)?;
            return Ok(Some(Login::password(user, password.trim_end_matches('\0'))));
        }
        Ok(match (set(&self.username), set(&self.password)) {
            (Some(user), Some(password)) => Some(Login::password(user, password)),
            _ => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Ask a helper for a login (docker-credential-helpers protocol). `None` when it knows none.
fn ask(settings: &Settings, helper: &str, path: &Path, server: &str) -> Result<Option<Login>, Error> {
    let output = match call_helper(settings, helper, path, "get", server.as_bytes())? {
        Ok(output) => output,
        Err(said) if said.contains("credentials not found") => return Ok(None),
        Err(said) => return Err(helper_error(helper, path, "get", said)),
    };
    let answer: HelperAnswer = serde_json::from_slice(&output)
        .map_err(|_| helper_error(helper, path, "get", "its answer is not the expected JSON".into()))?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Login::password(answer.username, answer.secret)))
}

/// Run `docker-credential-HELPER OPERATION`. The inner error is what the helper said.
pub(super) fn call_helper(
    settings: &Settings,
    helper: &str,
    path: &Path,
    operation: &'static str,
    input: &[u8],
) -> Result<Result<Vec<u8>, String>, Error> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if helper.is_empty() || !helper.bytes().all(good) {
        let shown = super::error::sanitise(helper, 60);
        return Err(helper_error(&shown, path, operation, "its name is not allowed".into()));
    }
    let program = format!("docker-credential-{helper}");
    let Some(program) = on_path(settings, &program) else {
        return Err(helper_error(helper, path, operation, "it is not installed".into()));
    };
    let mut command = Command::new(program);
    command.arg(operation).env_clear().envs(&settings.env);
    let output = process::run(command, input, limits::HELPER_TIMEOUT, limits::HELPER_BYTES)
        .map_err(|error| helper_error(helper, path, operation, error.to_string()))?;
    if output.status.success() {
        return Ok(Ok(output.stdout));
    }
    // Helpers speak of failures on stdout; an answer with a secret comes with success only.
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok(Err(super::error::sanitise(&String::from_utf8_lossy(&said), 300)))
}

pub(super) fn helper_error(helper: &str, path: &Path, operation: &'static str, what: String) -> Error {
    Error::Helper { helper: helper.into(), path: path.to_owned(), operation, what }
}

/// A program on the `PATH` of the settings.
pub(super) fn on_path(settings: &Settings, program: &str) -> Option<PathBuf> {
    let path = settings.var("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
    path.split(':').filter(|d| d.starts_with('/')).map(|d| Path::new(d).join(program)).find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path) -> Settings {
        Settings {
            home: Some(dir.to_owned()),
            env: BTreeMap::from([("PATH".into(), dir.to_str().unwrap().to_owned() + ":/usr/bin:/bin")]),
            ..Settings::default()
        }
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn auth(user: &str) -> String {
        STANDARD.encode(format!("{user}:hunter2"))
    }

    fn user(settings: &Settings, registry: &str, repository: &str) -> Option<String> {
        find(settings, registry, repository).unwrap().found.and_then(|f| f.login.user().map(str::to_owned))
    }

    #[test]
    fn the_most_specific_key_wins_and_hub_has_several_names() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            r#"{{"auths": {{"r.example": {{"auth": "{}"}}, "r.example/team": {{"auth": "{}"}},
                "{HUB_KEY}": {{"auth": "{}"}}, "https://old.example/v1/": {{"auth": "{}"}}}}}}"#,
            auth("all"),
            auth("team"),
            auth("hub"),
            auth("old")
        );
        write(&dir.path().join(".docker/config.json"), &text);
        let settings = settings(dir.path());
        for (registry, repository, expected) in [
            ("r.example", "team/app", Some("team")),
            ("r.example", "teams/app", Some("all")),
            ("docker.io", "library/alpine", Some("hub")),
            ("old.example", "x", Some("old")),
            ("other.example", "x", None),
            ("example", "x", None),
        ] {
            assert_eq!(user(&settings, registry, repository).as_deref(), expected, "{registry}");
        }
    }

    #[test]
    fn files_are_searched_in_order_and_a_named_one_alone() {
        let dir = tempfile::tempdir().unwrap();
        let one = |user: &str| format!(r#"{{"auths": {{"r.example": {{"auth": "{}"}}}}}}"#, auth(user));
        let mut settings = settings(dir.path());
        write(&dir.path().join(".docker/config.json"), &one("docker"));
        assert_eq!(user(&settings, "r.example", "x").as_deref(), Some("docker"));
        write(&dir.path().join(".config/containers/auth.json"), &one("containers"));
        assert_eq!(user(&settings, "r.example", "x").as_deref(), Some("containers"));
        settings.env.insert("XDG_RUNTIME_DIR".into(), dir.path().join("missing").to_str().unwrap().into());
        assert_eq!(user(&settings, "r.example", "x").as_deref(), Some("containers"));
        settings.env.insert("DOCKER_AUTH_CONFIG".into(), one("env"));
        assert_eq!(user(&settings, "r.example", "x").as_deref(), Some("env"));
        settings.authfile = Some(dir.path().join("none.json"));
        assert_eq!(user(&settings, "r.example", "x"), None);
        settings.creds = Some(Login::password("me", "x"));
        assert_eq!(user(&settings, "r.example", "x").as_deref(), Some("me"));
    }

    #[test]
    fn helpers_speak_over_stdin_and_bad_names_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("docker-credential-test");
        write(
            &helper,
            "#!/bin/sh\nread server\n[ \"$server\" = r.example ] || { echo credentials not found in native keychain; exit 1; }\n\
             echo '{\"ServerURL\":\"r.example\",\"Username\":\"<token>\",\"Secret\":\"hunter2\"}'\n",
        );
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = settings(dir.path());
        let file = dir.path().join(".docker/config.json");
        write(
            &file,
            r#"{"credsStore": "test", "credHelpers": {"bad.example": "../../evil", "*.gone.example": "gone"}}"#,
        );
        let found = find(&settings, "r.example", "x").unwrap().found.unwrap();
        assert_eq!(found.login, Login::Identity(Secret::new("hunter2")));
        assert_eq!(user(&settings, "other.example", "x"), None);
        for registry in ["bad.example", "a.gone.example"] {
            let error = find(&settings, registry, "x").unwrap_err();
            assert!(matches!(error, Error::Helper { .. }), "{error}");
        }
        write(&file, r#"{"credsStore": "desktop"}"#);
        let search = find(&settings, "r.example", "x").unwrap();
        assert!(search.found.is_none() && search.notes[0].contains("docker-credential-desktop"));
    }

    #[test]
    fn secrets_do_not_show_in_errors_or_debug_output() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".docker/config.json");
        let settings = settings(dir.path());
        write(&file, &format!(r#"{{"auths": {{"r.example": {{"auth": "{}"}}}}}}"#, auth("a")));
        let shown = format!("{:?}", find(&settings, "r.example", "x").unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains(&auth("a")), "{shown}");
        write(&file, r#"{"auths": {"r.example": {"auth": "hunter2"}}}"#);
        let error = find(&settings, "r.example", "x").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        write(&file, r#"{"auths": {"r.example": "hunter2"}}"#);
        let error = find(&settings, "r.example", "x").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
