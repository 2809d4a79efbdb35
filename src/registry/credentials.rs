//! Who we are at a registry: `--creds`, `DOCKER_AUTH_CONFIG`, then the auth files of podman and docker in
//! containers-auth.json(5) order, with credential helpers.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::conf::Registries;
use super::helper::ask;
use super::places::lower_host;
use super::settings::{Settings, read_file};
use super::{Error, Secret};
use crate::oci::DEFAULT_REGISTRY;

/// The name that helpers and docker give an identity token instead of a user.
const TOKEN_USER: &str = "<token>";
/// What stands for the auth files among the `credential-helpers` of registries.conf.
const AUTH_FILES: &str = "containers-auth.json";
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
    /// The places that were looked at in vain, and what was wrong with each.
    pub searched: Vec<String>,
    /// What the user should know: a helper that is missing.
    pub notes: Vec<String>,
    /// `--no-creds`
    forbidden: bool,
}

impl Search {
    /// What was tried, for an error message: which login from where, or where there was none.
    pub fn tried(&self) -> String {
        match &self.found {
            Some(Found { login, origin }) => match login.user() {
                Some(user) => format!("tried as `{}` with the login from {origin}", user.escape_debug()),
                None => format!("tried with the token from {origin}"),
            },
            None if self.forbidden => "tried without a login, as --no-creds says".into(),
            None if self.searched.is_empty() => "tried without a login".into(),
            None => format!("tried without a login, as there is none in {}", self.searched.join(", ")),
        }
    }

    fn nothing_in(&mut self, place: impl std::fmt::Display, why: &str) {
        self.searched.push(format!("{place} ({why})"));
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

/// Look for a login: `--creds`, `DOCKER_AUTH_CONFIG`, the helpers that registries.conf names for every registry, and
/// auth files in the order of containers-auth.json(5).
///
/// # Errors
/// When a file or a helper that is named for this very registry cannot be used.
pub(super) fn find(settings: &Settings, registry: &str, repository: &str) -> Result<Search, Error> {
    let mut search = Search { forbidden: settings.anonymous, ..Search::default() };
    if let Some(login) = &settings.creds {
        let origin = if matches!(login, Login::Bearer(_)) { "--registry-token" } else { "--creds" };
        search.found = Some(Found { login: login.clone(), origin: origin.into() });
        return Ok(search);
    }
    if settings.anonymous {
        return Ok(search);
    }
    let wanted = Wanted { settings, registry, keys: keys(registry, repository) };
    if settings.authfile.is_some() {
        wanted.in_files(&mut search)?;
        return Ok(search);
    }
    if let Some(text) = settings.var("DOCKER_AUTH_CONFIG") {
        let path = Path::new("DOCKER_AUTH_CONFIG");
        if wanted.look_in(&parse(text, path)?, path, &mut search)? {
            return Ok(search);
        }
    }
    let Some((helpers, conf)) = Registries::load(settings)?.helpers else {
        wanted.in_files(&mut search)?;
        return Ok(search);
    };
    for helper in &helpers {
        let found = if helper == AUTH_FILES {
            wanted.in_files(&mut search)?
        } else {
            wanted.ask_for_all(helper, &conf, &mut search)
        };
        if found {
            break;
        }
    }
    Ok(search)
}

/// Whose login is looked for.
struct Wanted<'a> {
    settings: &'a Settings,
    registry: &'a str,
    keys: Vec<String>,
}

/// The auth file that `--authfile` or `REGISTRY_AUTH_FILE` names.
fn named_auth_file(settings: &Settings) -> Option<PathBuf> {
    settings.authfile.clone().or_else(|| settings.var("REGISTRY_AUTH_FILE").map(PathBuf::from))
}

/// The text of an auth file. A usual place that we may not look into holds no login of ours, and `note` is told of it;
/// a file that was named must be readable.
pub(super) fn read_auth_file(
    settings: &Settings,
    path: &Path,
    note: impl FnOnce(String),
) -> Result<Option<String>, Error> {
    match read_file(path) {
        Err(Error::Config { source: Some(source), .. })
            if named_auth_file(settings).is_none() && is_forbidden(&source) =>
        {
            note(format!("`{}` may not be read, and no login is looked for in it", path.display()));
            Ok(None)
        }
        read => read,
    }
}

fn is_forbidden(error: &crate::image::BoxError) -> bool {
    let error: Option<&std::io::Error> = error.downcast_ref();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// The auth files in the order of their precedence; `--authfile` or `REGISTRY_AUTH_FILE` alone when given.
pub(super) fn auth_files(settings: &Settings) -> Vec<PathBuf> {
    if let Some(path) = named_auth_file(settings) {
        return vec![path];
    }
    let runtime = settings.var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|d| d.is_absolute());
    // Who has no such directory has another at podman.
    let runtime = match (runtime, settings.uid) {
        (Some(directory), _) => Some(directory.join("containers/auth.json")),
        (None, uid) => uid.map(|uid| PathBuf::from(format!("/run/containers/{uid}/auth.json"))),
    };
    [runtime, settings.config_home().map(|d| d.join("containers/auth.json")), settings.docker_config()]
        .into_iter()
        .flatten()
        .collect()
}

pub(super) fn parse(text: &str, path: &Path) -> Result<AuthFile, Error> {
    parse_as(text, path)
}

fn parse_as<T: Default + serde::de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, Error> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|error| Error::Config {
        path: path.to_owned(),
        what: "it is not a valid auth file",
        // serde's message may quote the text around the fault, which may be a secret: only the place is kept.
        source: Some(format!("line {}, column {}", error.line(), error.column()).into()),
    })
}

impl Wanted<'_> {
    fn in_files(&self, search: &mut Search) -> Result<bool, Error> {
        for path in auth_files(self.settings) {
            let mut why = "not there";
            let note = |note| {
                why = "it may not be read";
                search.notes.push(note);
            };
            let Some(text) = read_auth_file(self.settings, &path, note)? else {
                search.nothing_in(format_args!("`{}`", path.display()), why);
                continue;
            };
            if self.look_in(&parse(&text, &path)?, &path, search)? {
                return Ok(true);
            }
        }
        let named = self.settings.authfile.is_some() || self.settings.var("REGISTRY_AUTH_FILE").is_some();
        let old = self.settings.home.as_ref().map(|home| home.join(".dockercfg")).filter(|_| !named);
        match old.as_deref().map(read_file).transpose()?.flatten().zip(old) {
            Some((text, path)) => {
                let file = AuthFile { auths: parse_as(&text, &path)?, ..AuthFile::default() };
                self.look_in(&file, &path, search)
            }
            None => Ok(false),
        }
    }

    /// Look in one file: the helper of the most specific key, the default helper, then the file's own entries.
    fn look_in(&self, file: &AuthFile, path: &Path, search: &mut Search) -> Result<bool, Error> {
        let own = helper_for(file, &self.keys);
        // An empty name takes a registry out of the default helper's hands.
        if let Some((key, helper)) = own.filter(|(_, helper)| !helper.is_empty()) {
            let origin = format!("docker-credential-{helper}, which `{}` names for `{key}`", path.display());
            match ask(self.settings, helper, path, &server_name(key))? {
                Some(login) => search.found = Some(Found { login, origin }),
                None => search.nothing_in(origin, "it knows none"),
            }
            return Ok(search.found.is_some());
        }
        if let Some(helper) = file.creds_store.as_deref().filter(|h| !h.is_empty() && own.is_none())
            && self.ask_for_all(helper, path, search)
        {
            return Ok(true);
        }
        for key in &self.keys {
            let Some(entry) = entry_for(&file.auths, key) else { continue };
            if let Some(login) = entry.login(path)? {
                search.notes.extend(readable_by_others(path));
                search.found = Some(Found { login, origin: format!("`{}`, key `{key}`", path.display()) });
                return Ok(true);
            }
        }
        search.nothing_in(format_args!("`{}`", path.display()), "no entry");
        Ok(false)
    }

    /// Ask a helper that is named for every registry. The file may come from a machine that has it: pulls that need no
    /// login must work without it, so what is wrong with it is noted, and told again when a login turns out to be needed.
    fn ask_for_all(&self, helper: &str, path: &Path, search: &mut Search) -> bool {
        let origin = format!("docker-credential-{helper}, which `{}` names", path.display());
        match ask(self.settings, helper, path, &server_name(self.registry)) {
            Ok(Some(login)) => search.found = Some(Found { login, origin }),
            Ok(None) => search.nothing_in(origin, "it knows none"),
            Err(error) => {
                search.notes.push(error.to_string());
                search.nothing_in(origin, "it failed");
            }
        }
        search.found.is_some()
    }
}

/// A word about a file with a login that others can read.
fn readable_by_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o044 != 0)
        .then(|| format!("`{0}` holds a login and can be read by others: chmod 600 {0}", path.display()))
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
    let is_same = |other: &str| match key.contains('/') {
        true => lower_host(other) == key,
        false => host_of(other).is_some_and(|host| host.eq_ignore_ascii_case(key)),
    };
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

fn helper_for<'f, 'k>(file: &'f AuthFile, keys: &'k [String]) -> Option<(&'k str, &'f str)> {
    let chosen = |key: &str| {
        file.cred_helpers.iter().find(|(other, _)| {
            other.as_str() == key
                || (!key.contains('/') && host_of(other).is_some_and(|host| host.eq_ignore_ascii_case(key)))
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
    let own = helper_for(file, &keys).map(|(_, helper)| helper);
    // An empty name takes a registry out of the default helper's hands.
    own.or(file.creds_store.as_deref()).filter(|helper| !helper.is_empty())
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
