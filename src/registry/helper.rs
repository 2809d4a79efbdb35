//! Credential helpers: programs that keep logins (the protocol of docker-credential-helpers).
//!
//! A helper is found on `PATH` by a checked name, fed by standard input, and limited in time and output. What it says
//! when it fails is shown, made safe for a terminal.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::settings::Settings;
use super::{Error, Login, limits, process};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Ask a helper for a login (docker-credential-helpers protocol). `None` when it knows none.
pub(super) fn ask(
    settings: &Settings,
    helper: &str,
    path: &Path,
    server: &str,
) -> Result<Option<Login>, Error> {
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
