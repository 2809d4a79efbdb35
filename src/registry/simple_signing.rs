//! `signedBy`: signatures in the form of container-signature(5), kept beside a registry in a lookaside store
//! (containers-registries.d(5)), made with OpenPGP keys and verified by the host's `gpgv`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Method;

use super::client::Client;
use super::http::{Call, Http, Payload};
use super::places::lower_host;
use super::policy::scopes;
use super::settings::{Settings, read_file};
use super::signature::{Claim, read_payload};
use super::{Error, helper, limits, process};
use crate::oci::{Digest, Reference};

/// How many signatures of one image are looked at.
const MOST: usize = 128;

/// Trusted keys, in a directory of their own for `gpgv`.
pub(super) struct Keyring {
    directory: tempfile::TempDir,
}

impl Keyring {
    /// Gather the keys of files, or of a policy's `keyData`.
    ///
    /// # Errors
    /// [`Error::Config`] when a key cannot be read.
    pub fn make(policy: &Path, paths: &[&Path], data: Option<&str>) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for path in paths {
            let bad =
                |source| Error::Config { path: path.to_path_buf(), what: "it holds no OpenPGP keys", source };
            let bytes = std::fs::read(path).map_err(|error| bad(Some(error.into())))?;
            keys.extend(unarmoured(&bytes).ok_or_else(|| bad(None))?);
        }
        if let Some(data) = data {
            let bad = || Error::Config {
                path: policy.to_owned(),
                what: "a `keyData` is not base64 of OpenPGP keys",
                source: None,
            };
            let bytes = STANDARD.decode(data.trim()).map_err(|_| bad())?;
            keys.extend(unarmoured(&bytes).ok_or_else(bad)?);
        }
        let made = tempfile::Builder::new().prefix("strate-keys-").tempdir().and_then(|directory| {
            std::fs::File::create_new(directory.path().join("keys"))?.write_all(&keys)?;
            Ok(directory)
        });
        let directory = made.map_err(|error| Error::Config {
            path: std::env::temp_dir(),
            what: "no directory for keys can be made in it",
            source: Some(error.into()),
        })?;
        Ok(Self { directory })
    }

    /// What a signed message says, when one of the keys signed it.
    fn verify(&self, settings: &Settings, message: &[u8]) -> Result<Result<Claim, String>, Error> {
        let Some(program) = ["gpgv", "gpgv2"].iter().find_map(|name| helper::on_path(settings, name)) else {
            return Err(Error::NoVerifier);
        };
        let mut command = Command::new(&program);
        command.env_clear().arg("--homedir").arg(self.directory.path());
        command.arg("--keyring").arg(self.directory.path().join("keys"));
        // What was signed comes through the pipe, whose length is limited: a small message may unpack to gigabytes, and
        // gpgv writes all of it before it knows whether the signature is good.
        command.args(["--quiet", "--status-fd", "2", "--output", "-", "-"]);
        let output = process::run(command, message, limits::HELPER_TIMEOUT, limits::HELPER_BYTES).map_err(
            |error| Error::Config { path: program, what: "it cannot be run", source: Some(error.into()) },
        )?;
        if output.stdout.len() as u64 >= limits::HELPER_BYTES {
            return Ok(Err("a signature's payload is longer than 1 MiB".into()));
        }
        let status = String::from_utf8_lossy(&output.stderr);
        if let Err(fault) = judge(&status, output.status.success()) {
            return Ok(Err(fault));
        }
        Ok(read_payload(&output.stdout, "atomic container signature"))
    }
}

/// What gpgv's status lines mean: one good signature, and nothing else.
fn judge(status: &str, succeeded: bool) -> Result<(), String> {
    let words: Vec<&str> =
        status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] ")?.split_whitespace().next()).collect();
    let count = |wanted: &str| words.iter().filter(|word| **word == wanted).count();
    let fault = [
        ("BADSIG", "a signature is damaged"),
        ("EXPKEYSIG", "a signature is by a key that has expired"),
        ("REVKEYSIG", "a signature is by a key that was revoked"),
        ("EXPSIG", "a signature has expired"),
        ("NO_PUBKEY", "a signature is not by these keys"),
        ("ERRSIG", "a signature cannot be checked"),
    ]
    .into_iter()
    .find_map(|(word, fault)| (count(word) > 0).then_some(fault));
    match fault {
        Some(fault) => Err(fault.into()),
        None if succeeded && count("GOODSIG") == 1 && count("VALIDSIG") == 1 => Ok(()),
        None => Err("a signature is none in OpenPGP's form".into()),
    }
}

/// Keys in binary form, from either form (RFC 4880 section 6.2). `None` for something else.
fn unarmoured(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Some(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, block)) = rest.split_once("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        let (block, after) = block.split_once("-----END PGP PUBLIC KEY BLOCK-----")?;
        rest = after;
        let lines: Vec<&str> = block.lines().map(str::trim).collect();
        // Headers end at the first empty line; the checksum has a line of its own.
        let start = lines.iter().skip(1).position(|line| line.is_empty())? + 2;
        let body: String = lines[start..].iter().filter(|line| !line.starts_with('=')).copied().collect();
        keys.extend(STANDARD.decode(body).ok()?);
    }
    (!keys.is_empty()).then_some(keys)
}

/// The signatures of a document in the image's lookaside store, each a claim or what is wrong with it.
///
/// # Errors
/// When the store is not configured rightly or cannot be asked, or there is no `gpgv`.
pub(super) fn signatures(
    client: &Client<'_>,
    keyring: &Keyring,
    name: &Reference,
    digest: &Digest,
) -> Result<Vec<Result<Claim, String>>, Error> {
    let Some(base) = lookaside(&client.settings, name)? else { return Ok(Vec::new()) };
    let http = Http::new(&client.settings);
    let mut claims = Vec::new();
    for number in 1..=MOST {
        let path =
            format!("{}@{}={}/signature-{number}", name.repository(), digest.algorithm(), digest.hex());
        let Some(message) = fetch(&http, &base, &path)? else { break };
        claims.push(keyring.verify(&client.settings, &message)?);
    }
    Ok(claims)
}

fn fetch(http: &Http, base: &str, path: &str) -> Result<Option<Vec<u8>>, Error> {
    let url = format!("{}/{path}", base.trim_end_matches('/'));
    if let Some(file) = url.strip_prefix("file://") {
        return match std::fs::read(file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Config {
                path: file.into(),
                what: "it cannot be read",
                source: Some(error.into()),
            }),
        };
    }
    let response = http.send(Call {
        method: Method::GET,
        url: url.clone(),
        headers: Vec::new(),
        authorization: None,
        payload: Payload::Empty,
        confidential: false,
        response_timeout: limits::RESPONSE_TIMEOUT,
        streaming: false,
    })?;
    let unexpected =
        |what: String| Error::Protocol { registry: base.to_owned(), request: format!("GET {path}"), what };
    match response.status {
        200 => match response.document(limits::HELPER_BYTES)? {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(unexpected("a signature is longer than 1 MiB".into())),
        },
        404 => Ok(None),
        status => Err(unexpected(format!("it answered HTTP {status}"))),
    }
}

/// Where signatures for an image are kept: what registries.d says, else podman's own directory.
fn lookaside(settings: &Settings, name: &Reference) -> Result<Option<String>, Error> {
    let user = settings.config_home().map(|directory| directory.join("containers/registries.d"));
    let directory =
        user.filter(|path| path.is_dir()).unwrap_or_else(|| "/etc/containers/registries.d".into());
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    for path in yaml_files(&directory) {
        let Some(text) = read_file(&path)? else { continue };
        let found = parse(&text).map_err(|line| Error::Config {
            path: path.clone(),
            what: "it is not understood (containers-registries.d(5))",
            source: Some(format!("line {line}").into()),
        })?;
        for (scope, section) in found {
            if sections.insert(lower_host(&scope), section).is_some() {
                return Err(Error::Config {
                    path,
                    what: "it describes a registry that another file, or itself, describes too",
                    source: None,
                });
            }
        }
    }
    let section = scopes(name).iter().chain([&String::new()]).find_map(|scope| sections.get(scope));
    if let Some(url) =
        section.and_then(|section| section.get("lookaside").or_else(|| section.get("sigstore")))
    {
        return Ok(Some(url.clone()));
    }
    let own = match settings.uid {
        Some(0) => Some(PathBuf::from("/var/lib/containers/sigstore")),
        _ => settings.home.as_ref().map(|home| home.join(".local/share/containers/sigstore")),
    };
    Ok(own.map(|path| format!("file://{}", path.display())))
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = list
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    paths.sort();
    paths
}

/// What one scope says.
type Section = BTreeMap<String, String>;

/// The YAML that registries.d is written in: mappings by indentation, plain or quoted scalars, comments. The scope of
/// `default-docker` is the empty one. The number of a line that is anything else is the error.
fn parse(text: &str) -> Result<Vec<(String, Section)>, usize> {
    let mut sections: Vec<(String, Section)> = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split_once(" #").map_or(line, |(before, _)| before).trim_end();
        let content = line.trim_start_matches(' ');
        if content.is_empty() || content.starts_with('#') || line == "---" {
            continue;
        }
        let indent = line.len() - content.len();
        path.retain(|(other, _)| *other < indent);
        let (key, value) = entry(content).ok_or(number + 1)?;
        match (path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().as_slice(), value) {
            ([], None) if key == "default-docker" => sections.push((String::new(), Section::new())),
            ([], None) if key == "docker" => {}
            (["docker"], None) => sections.push((key.clone(), Section::new())),
            (["default-docker"] | ["docker", _], Some(value)) => {
                let section = sections.last_mut().ok_or(number + 1)?;
                section.1.insert(key.clone(), value);
            }
            _ => return Err(number + 1),
        }
        path.push((indent, key));
    }
    Ok(sections)
}

/// `key:` or `key: value`.
fn entry(content: &str) -> Option<(String, Option<String>)> {
    let (key, value) = match content.split_once(": ") {
        Some((key, value)) => (key, Some(value.trim()).filter(|value| !value.is_empty())),
        None => (content.strip_suffix(':')?, None),
    };
    let plain = |text: &str| {
        let quoted = |mark: char| text.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
        let inner = quoted('"').or_else(|| quoted('\'')).unwrap_or(text);
        let odd = inner.starts_with(['{', '[', '&', '*', '!', '|', '>', '-', '"', '\'', '%', '@', '`']);
        (!odd || inner.starts_with("*.")).then(|| inner.to_owned())
    };
    Some((plain(key)?, value.map(plain).map_or(Some(None), |value| value.map(Some))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yaml_of_registries_d_is_read() {
        let text = "# comment\n---\ndefault-docker:\n  sigstore-staging: file:///x # here\ndocker:\n  \"r.example:5000/a\":\n    lookaside: 'https://s.example/a'\n    use-sigstore-attachments: true\n\n  docker.io/b:\n      sigstore: http://localhost:4242/s\n";
        let sections: BTreeMap<String, Section> = parse(text).unwrap().into_iter().collect();
        assert_eq!(sections[""]["sigstore-staging"], "file:///x");
        assert_eq!(sections["r.example:5000/a"]["lookaside"], "https://s.example/a");
        assert_eq!(sections["docker.io/b"]["sigstore"], "http://localhost:4242/s");
        for (bad, line) in
            [("a: b", 1), ("docker:\n  - x", 2), ("docker: {}", 1), ("docker:\n  x:\n    y:\n      z: 1", 3)]
        {
            assert_eq!(parse(bad), Err(line), "{bad}");
        }
    }

    #[test]
    fn one_good_signature_is_wanted_and_nothing_else() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG AB name\n[GNUPG:] VALIDSIG AB\n";
        assert!(judge(good, true).is_ok());
        assert!(judge(good, false).is_err());
        for more in [
            "BADSIG AB x",
            "EXPKEYSIG AB x",
            "REVKEYSIG AB x",
            "EXPSIG AB x",
            "NO_PUBKEY AB",
            "ERRSIG x",
            "GOODSIG CD",
        ] {
            assert!(judge(&format!("{good}[GNUPG:] {more}\n"), true).is_err(), "{more}");
        }
        assert!(judge("GOODSIG\nVALIDSIG\n", true).is_err());
    }

    #[test]
    fn armour_is_taken_off() {
        let armoured = "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\nAAEC\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(unarmoured(armoured.as_bytes()), Some(vec![0, 1, 2]));
        assert_eq!(unarmoured(&[0x99, 1]), Some(vec![0x99, 1]));
        assert_eq!(unarmoured(b"no key"), None);
    }
}
