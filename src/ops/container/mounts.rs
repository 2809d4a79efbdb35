//! What is mounted into a container beyond the usual: binds, volumes, tmpfs; and how `-v`, `--mount` and `--tmpfs`
//! say it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, values::bad};
use crate::storage::is_volume_name;
use crate::sys::SysError;

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute.
        source: PathBuf,
    },
    /// A volume of the store.
    Volume {
        /// Its name; empty until the container is created when it is an anonymous one.
        name: String,
        /// Made for this container, goes with it.
        anonymous: bool,
        /// Leave a new volume empty instead of filling it from the image.
        no_copy: bool,
        /// Only what lies there in the volume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<String>,
        /// Labels of the volume, should it have to be made.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Options of the volume, should it have to be made.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        options: BTreeMap<String, String>,
    },
    /// Memory.
    Tmpfs {
        /// As `mount -o` takes them.
        options: String,
    },
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    #[serde(flatten)]
    pub kind: MountKind,
    /// Where in the container: absolute, without `.`, `..` and empty parts.
    pub target: String,
    /// Whether it cannot be written.
    #[serde(default)]
    pub read_only: bool,
    /// `rprivate` and its kin; empty is `rprivate`.
    #[serde(default)]
    pub propagation: String,
    /// Without the mounts below the source.
    #[serde(default)]
    pub non_recursive: bool,
    /// No programs are started from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_exec: bool,
    /// Set-id bits mean nothing in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_suid: bool,
    /// A source of `-v` that is not there is made, a directory; one of `--mount` must be there. As in docker.
    #[serde(default)]
    pub make_source: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Mount {
    /// An anonymous volume at `target`.
    #[must_use]
    pub fn anonymous(target: String) -> Self {
        Self::volume("", target)
    }

    fn volume(name: &str, target: String) -> Self {
        let kind = MountKind::Volume {
            name: name.into(),
            anonymous: name.is_empty(),
            no_copy: false,
            subpath: None,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        Self {
            kind,
            target,
            read_only: false,
            propagation: String::new(),
            non_recursive: false,
            no_exec: false,
            no_suid: false,
            make_source: false,
        }
    }

    fn bind(source: PathBuf, target: String) -> Self {
        Self { kind: MountKind::Bind { source }, ..Self::volume("", target) }
    }

    /// Make sure that the source of a bind is there.
    ///
    /// # Errors
    /// [`Error::BindSource`]
    pub fn ensure_source(&self) -> Result<(), Error> {
        let MountKind::Bind { source } = &self.kind else { return Ok(()) };
        let failed = |error| Error::BindSource {
            source_path: source.clone(),
            target: self.target.clone(),
            source: error,
        };
        match rustix::fs::stat(source) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::NOENT) if self.make_source => {
                std::fs::create_dir_all(source).map_err(|error| failed(SysError::path("make", source, error)))
            }
            Err(error) => Err(failed(SysError::path("find", source, error))),
        }
    }
}

/// An absolute path of a container without `.`, `..` and empty parts; `None` when it is relative, or nothing but `/`.
#[must_use]
pub fn clean_target(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(format!("/{}", parts.join("/"))) }
}

fn target(flag: &str, spec: &str, path: &str) -> Result<String, Error> {
    clean_target(path)
        .ok_or_else(|| bad(flag, spec, "the path in the container must be absolute and cannot be `/`"))
}

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rslave", "slave", "rshared", "shared"];

/// `-v [SOURCE:]TARGET[:OPTIONS]`. A relative source that starts with `.` is resolved against `cwd`.
///
/// # Errors
/// [`Error::BadValue`]
pub fn volume_flag(spec: &str, cwd: &Path) -> Result<Mount, Error> {
    let refuse = |why: &str| bad("--volume", spec, why);
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, path, options) = match parts[..] {
        [path] => ("", path, ""),
        [source, path] => (source, path, ""),
        [source, path, options] => (source, path, options),
        _ => return Err(refuse("expected [SOURCE:]TARGET[:OPTIONS]")),
    };
    let target = target("--volume", spec, path)?;
    let mut mount = if source.starts_with('/') {
        Mount::bind(PathBuf::from(source), target)
    } else if source == "." || source == ".." || source.starts_with("./") || source.starts_with("../") {
        Mount::bind(cwd.join(source), target)
    } else if parts.len() == 1 || is_volume_name(source) {
        Mount::volume(source, target)
    } else {
        return Err(refuse(
            "a volume's name is [a-zA-Z0-9][a-zA-Z0-9_.-]+; a directory of the host starts with `/`, `./` or `../`",
        ));
    };
    mount.make_source = matches!(mount.kind, MountKind::Bind { .. });
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" | "copy" | "cached" | "delegated" | "consistent" | "exec" | "suid" | "nodev" => {}
            // SELinux labels: nothing to do on hosts without it, and relabelling is not offered yet.
            "z" | "Z" => {}
            "ro" => mount.read_only = true,
            "nocopy" => set_no_copy(&mut mount),
            "noexec" => mount.no_exec = true,
            "nosuid" => mount.no_suid = true,
            "dev" => return Err(refuse("device files in a mount do nothing; --device gives one")),
            "U" => {
                return Err(refuse(
                    "owners are not changed: `strate volume create -o o=uid=ID,gid=ID` makes a volume for a user",
                ));
            }
            "bind" => mount.non_recursive = true,
            "rbind" => mount.non_recursive = false,
            _ if PROPAGATIONS.contains(&option) => mount.propagation = option.into(),
            _ => return Err(refuse(&format!("option `{option}` is not known or not available yet"))),
        }
    }
    Ok(mount)
}

fn set_no_copy(mount: &mut Mount) {
    if let MountKind::Volume { no_copy, .. } = &mut mount.kind {
        *no_copy = true;
    }
}

/// `--tmpfs TARGET[:OPTIONS]`
///
/// # Errors
/// [`Error::BadValue`]
pub fn tmpfs_flag(spec: &str) -> Result<Mount, Error> {
    let (path, options) = spec.split_once(':').unwrap_or((spec, ""));
    Ok(tmpfs(target("--tmpfs", spec, path)?, options))
}

/// `--device PATH[:TARGET[:rwm]]`: the node is shown as it is; what may be done with it, its own permissions say.
///
/// # Errors
/// [`Error::BadValue`]
pub fn device_flag(spec: &str) -> Result<Mount, Error> {
    let refuse = |why: &str| bad("--device", spec, why);
    let parts: Vec<&str> = spec.split(':').collect();
    let rights = |text: &str| !text.is_empty() && text.bytes().all(|b| b"rwm".contains(&b));
    let (source, path) = match parts[..] {
        [path] => (path, path),
        [path, given] if rights(given) => (path, path),
        [source, path] => (source, path),
        [source, path, given] if rights(given) => (source, path),
        _ => return Err(refuse("expected PATH[:TARGET[:rwm]]")),
    };
    if !source.starts_with('/') {
        return Err(refuse("a device is an absolute path of the host"));
    }
    Ok(Mount::bind(PathBuf::from(source), target("--device", spec, path)?))
}

/// Docker's defaults, and the user's options where they say otherwise.
fn tmpfs(target: String, options: &str) -> Mount {
    let given: Vec<&str> = options.split(',').filter(|o| !o.is_empty()).collect();
    let mut all: Vec<&str> = Vec::new();
    for (default, opposite) in [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")] {
        if !given.contains(&opposite) && !given.contains(&default) {
            all.push(default);
        }
    }
    all.extend(given.iter().filter(|o| !["exec", "suid", "dev", "rw", "ro"].contains(o)));
    let kind = MountKind::Tmpfs { options: all.join(",") };
    Mount { kind, read_only: given.contains(&"ro"), ..Mount::anonymous(target) }
}

/// What `--mount` said, key by key.
#[derive(Default)]
struct Fields<'a> {
    kind: &'a str,
    source: &'a str,
    target: &'a str,
    read_only: bool,
    propagation: &'a str,
    non_recursive: bool,
    no_copy: bool,
    no_exec: bool,
    no_suid: bool,
    subpath: &'a str,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    tmpfs: Vec<String>,
}

/// `--mount type=…,source=…,target=…[,…]`, comma-separated with `"` quoting.
///
/// # Errors
/// [`Error::BadValue`]
pub fn mount_flag(spec: &str, cwd: &Path) -> Result<Mount, Error> {
    let refuse = |why: &str| bad("--mount", spec, why);
    let parts = comma_separated(spec);
    let fields = mount_fields(spec, &parts)?;
    let target = target("--mount", spec, fields.target)?;
    let mut mount = match (fields.kind, fields.source) {
        ("bind", "") => return Err(refuse("a bind needs source=")),
        ("bind", source) => Mount::bind(cwd.join(source), target),
        ("volume" | "", "") => Mount::anonymous(target),
        ("volume" | "", source) if is_volume_name(source) => Mount::volume(source, target),
        ("volume" | "", _) => return Err(refuse("a volume's name is [a-zA-Z0-9][a-zA-Z0-9_.-]+")),
        ("tmpfs", "") => tmpfs(target, &fields.tmpfs.join(",")),
        ("tmpfs", _) => return Err(refuse("a tmpfs has no source")),
        (other, _) => {
            return Err(refuse(&format!(
                "type `{other}` is not available; there are bind, volume and tmpfs"
            )));
        }
    };
    mount.read_only |= fields.read_only;
    mount.propagation = fields.propagation.into();
    mount.non_recursive = fields.non_recursive;
    (mount.no_exec, mount.no_suid) = (fields.no_exec, fields.no_suid);
    volume_fields(spec, &mut mount, fields)?;
    Ok(mount)
}

/// What only volumes have.
fn volume_fields(spec: &str, mount: &mut Mount, fields: Fields<'_>) -> Result<(), Error> {
    let given = fields.no_copy
        || !fields.subpath.is_empty()
        || !fields.labels.is_empty()
        || !fields.options.is_empty();
    match &mut mount.kind {
        MountKind::Volume { no_copy, subpath, labels, options, .. } => {
            *no_copy = fields.no_copy;
            if !fields.subpath.is_empty() {
                let clean = clean_target(&format!("/{}", fields.subpath));
                let out = fields.subpath.split('/').any(|part| part == "..");
                let clean = clean.filter(|_| !out && !fields.subpath.starts_with('/'));
                *subpath = Some(clean.ok_or_else(|| {
                    bad("--mount", spec, "volume-subpath is a relative path that stays in the volume")
                })?);
            }
            (*labels, *options) = (fields.labels, fields.options);
            crate::storage::Backing::parse(options)
                .map_err(|error| bad("--mount", spec, error.to_string()))?;
            Ok(())
        }
        _ if given => Err(bad("--mount", spec, "its volume-… options are for type=volume")),
        _ => Ok(()),
    }
}

fn mount_fields<'a>(spec: &str, parts: &'a [String]) -> Result<Fields<'a>, Error> {
    let refuse = |why: String| bad("--mount", spec, why);
    let mut fields = Fields::default();
    for part in parts {
        let (key, value) =
            part.split_once('=').map_or((part.as_str(), None), |(key, value)| (key, Some(value)));
        let truth = match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(refuse(format!("`{key}` is true or false"))),
        };
        let text = value.unwrap_or_default();
        match key {
            "type" => fields.kind = text,
            "src" | "source" => fields.source = text,
            "dst" | "destination" | "target" => fields.target = text,
            "ro" | "readonly" => fields.read_only = truth?,
            "rw" => fields.read_only = !truth?,
            "bind-nonrecursive" => fields.non_recursive = truth?,
            "bind-recursive" => fields.non_recursive = text == "disabled",
            "volume-nocopy" => fields.no_copy = truth?,
            "volume-subpath" | "subpath" => fields.subpath = text,
            "volume-label" => fields.labels.extend([pair(text)]),
            "volume-opt" if text.contains('=') => fields.options.extend([pair(text)]),
            "volume-driver" if ["", crate::storage::LOCAL].contains(&text) => {}
            "noexec" => fields.no_exec = truth?,
            "nosuid" => fields.no_suid = truth?,
            "nodev" if truth? => {}
            "consistency" | "relabel" | "z" | "Z" => {}
            "bind-propagation" if PROPAGATIONS.contains(&text) => fields.propagation = text,
            "tmpfs-size" => fields.tmpfs.push(format!("size={}", super::values::size("--mount", text)?)),
            "tmpfs-mode" if !text.is_empty() && text.bytes().all(|b| (b'0'..b'8').contains(&b)) => {
                fields.tmpfs.push(format!("mode={text}"));
            }
            _ => return Err(refuse(format!("`{part}` is not known or not available yet"))),
        }
    }
    Ok(fields)
}

/// `key=value`; without a value it is empty.
fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// Fields between commas; a field may be quoted with `"`, a doubled quote standing for one (RFC 4180).
fn comma_separated(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields[field].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields[field].push(c),
        }
    }
    fields
}

/// Every target at most once, and an outer one before what lies in it.
///
/// # Errors
/// [`Error::DuplicateMount`]
pub fn arrange(mounts: &mut [Mount]) -> Result<(), Error> {
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    let mut seen = std::collections::BTreeSet::new();
    match mounts.iter().find(|mount| !seen.insert(mount.target.as_str())) {
        Some(twice) => Err(Error::DuplicateMount(twice.target.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
