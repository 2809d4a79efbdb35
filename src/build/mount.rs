//! `RUN --mount`: the comma-separated fields, typed. Values are expanded when the step is prepared; the name of the
//! source (`from`) is fixed, since the stage graph depends on it.

use std::fmt;

use super::expand::ExpandError;
use super::suggest;

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountType {
    /// A directory or file of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that never enters a layer.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

/// How a cache is shared between steps that run at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All write to one directory.
    #[default]
    Shared,
    /// A second one gets a directory of its own.
    Private,
    /// A second one waits.
    Locked,
}

/// A mount, with expanded values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountType,
    /// Where; empty means the working directory, or the default place of secrets and sockets.
    pub target: String,
    /// The path in the source, or a secret's id.
    pub source: String,
    /// A stage, image or named context.
    pub from: Option<String>,
    /// Whether writing is refused; the type's default unless given.
    pub read_only: bool,
    /// The id of a cache, secret or socket.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Sharing,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size limit of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// Whether a missing secret or socket fails the step.
    pub required: bool,
    /// The environment variable that gets the secret.
    pub env: Option<String>,
}

/// A `--mount` value that is wrong, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The text breaks a rule.
    #[error("{0}")]
    Rule(String),
    /// A value cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
    ("tmpfs", MountType::Tmpfs),
];
const SHARINGS: [(&str, Sharing); 3] =
    [("locked", Sharing::Locked), ("private", Sharing::Private), ("shared", Sharing::Shared)];
const KEYS: [&str; 18] = [
    "destination",
    "dst",
    "env",
    "from",
    "gid",
    "id",
    "mode",
    "readonly",
    "readwrite",
    "required",
    "ro",
    "rw",
    "sharing",
    "size",
    "source",
    "src",
    "target",
    "type",
];

impl fmt::Display for MountType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TYPES.iter().find(|(_, kind)| kind == self).map_or("bind", |(name, _)| name))
    }
}

/// The value of `from` in a `--mount` value, for the stage graph.
#[must_use]
pub fn from(value: &str) -> Option<String> {
    let fields = fields(value).ok()?;
    let mut from = fields.iter().filter_map(|field| field.split_once('='));
    from.rfind(|(key, _)| key.eq_ignore_ascii_case("from")).map(|(_, name)| name.to_owned())
}

/// What is checked before anything can be expanded.
pub(super) fn check_unexpanded(value: &str) -> Result<(), String> {
    let fields = fields(value)?;
    for (key, value) in fields.iter().filter_map(|field| field.split_once('=')) {
        let variable = value.find('$').is_some_and(|at| at + 1 < value.len());
        if key.eq_ignore_ascii_case("from") && variable {
            return Err(format!(
                "'{}' doesn't support variable expansion, define alias stage instead",
                key.to_lowercase()
            ));
        }
    }
    Ok(())
}

/// Parse a `--mount` value; `expand` expands one value in the stage's environment.
///
/// # Errors
/// For unknown types and keys, keys of another type, bad numbers, and values that cannot be expanded.
pub fn parse(
    value: &str,
    mut expand: impl FnMut(&str) -> Result<String, ExpandError>,
) -> Result<Mount, MountError> {
    let mut mount = Mount {
        kind: MountType::Bind,
        target: String::new(),
        source: String::new(),
        from: None,
        read_only: true,
        id: None,
        sharing: Sharing::Shared,
        mode: None,
        uid: None,
        gid: None,
        size: None,
        required: false,
        env: None,
    };
    let mut given = Given::default();
    for field in fields(value).map_err(MountError::Rule)? {
        match field.split_once('=') {
            Some((key, value)) => {
                let value = expand(value)?;
                mount.set(&key.to_lowercase(), &value, &field, &mut given)
            }
            None => mount.set_bare(&field, &mut given),
        }
        .map_err(MountError::Rule)?;
    }
    mount.finish(given).map_err(MountError::Rule)?;
    Ok(mount)
}

/// What was said at all, for rules that depend on it.
#[derive(Debug, Default)]
struct Given {
    read_only: bool,
    sharing: bool,
}

impl Mount {
    fn set_bare(&mut self, field: &str, given: &mut Given) -> Result<(), String> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => (self.read_only, given.read_only) = (true, true),
            "readwrite" | "rw" => (self.read_only, given.read_only) = (false, true),
            "required" => {
                self.must_be("required", &[MountType::Secret, MountType::Ssh])?;
                self.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, field: &str, given: &mut Given) -> Result<(), String> {
        match key {
            "type" => self.kind = choice(&TYPES, value, "unsupported mount type")?,
            "from" => self.from = Some(value.to_owned()).filter(|from| !from.is_empty()),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => (self.read_only, given.read_only) = (boolean(key, value)?, true),
            "readwrite" | "rw" => (self.read_only, given.read_only) = (!boolean(key, value)?, true),
            "required" => {
                self.must_be(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = boolean(key, value)?;
            }
            "size" => {
                self.must_be(key, &[MountType::Tmpfs])?;
                self.size = Some(bytes(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?);
            }
            "id" => self.id = Some(value.to_owned()),
            "sharing" => {
                self.sharing = choice(&SHARINGS, value, "unsupported sharing value")?;
                given.sharing = true;
            }
            "mode" => self.mode = Some(number(key, value, 8)?),
            "uid" => self.uid = Some(number(key, value, 10)?),
            "gid" => self.gid = Some(number(key, value, 10)?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(suggest::with_suggestion(message, key, KEYS));
            }
        }
        Ok(())
    }

    fn must_be(&self, key: &str, kinds: &[MountType]) -> Result<(), String> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.kind))
    }

    fn finish(&mut self, given: Given) -> Result<(), String> {
        let kind = self.kind;
        if !matches!(kind, MountType::Cache | MountType::Secret | MountType::Ssh) {
            let not_allowed = |name: &str| format!("{name} not allowed for \"{kind}\" type mounts");
            match (self.mode, self.uid, self.gid) {
                (Some(_), _, _) => return Err(not_allowed("mode")),
                (_, Some(_), _) => return Err(not_allowed("uid")),
                (_, _, Some(_)) => return Err(not_allowed("gid")),
                _ => {}
            }
        }
        if !given.read_only {
            self.read_only = !matches!(kind, MountType::Cache | MountType::Tmpfs);
        }
        if kind == MountType::Ssh && !self.source.is_empty() {
            return Err("ssh mount should not define source".into());
        }
        if given.sharing && kind == MountType::Secret {
            return Err("secret mount should not define sharing".into());
        }
        if given.sharing && kind != MountType::Cache {
            return Err(format!("invalid cache sharing set for {kind} mount"));
        }
        if kind == MountType::Secret {
            if self.source.is_empty() && self.target.is_empty() && self.id.is_none() {
                return Err("invalid secret mount. one of source, target required".into());
            }
            if !self.source.is_empty() && self.id.is_some() {
                return Err("both source and id can't be set".into());
            }
        }
        Ok(())
    }
}

fn choice<T: Copy>(known: &[(&str, T)], value: &str, what: &str) -> Result<T, String> {
    let lower = value.to_lowercase();
    match known.iter().find(|(name, _)| *name == lower) {
        Some((_, choice)) => Ok(*choice),
        None => {
            let names = known.iter().map(|(name, _)| *name);
            Err(suggest::with_suggestion(format!("{what} {}", super::go::quote(value)), &lower, names))
        }
    }
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value}")),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    let digits = !value.starts_with('+');
    let parsed = u32::from_str_radix(value, radix).ok().filter(|_| digits);
    parsed.ok_or_else(|| format!("invalid value {value} for {key}"))
}

/// A size with an optional binary suffix: `64m`, `1GiB`, `1.5k`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (digits, suffix) = text.split_at(end);
    let suffix = suffix.trim_start().to_lowercase();
    let unit = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let value: f64 = digits.parse().ok()?;
    // Sizes are far below 2^52; a fraction of a byte does not matter.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let bytes = (value * (1_u64 << shift) as f64) as u64;
    Some(bytes)
}

/// Split one line of CSV: fields in double quotes may hold commas, and a quote inside is doubled.
fn fields(value: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = value;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err("failed to parse csv mounts: bare \" in non-quoted field".into());
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let broken = || "failed to parse csv mounts: extraneous or missing \" in quoted field".to_owned();
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or_else(broken)?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Ok((field, rest)),
            None => return Err(broken()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(value: &str) -> Result<Mount, MountError> {
        parse(value, |text| Ok(text.replace("$X", "x")))
    }

    #[test]
    fn fields_and_defaults() {
        let mount = plain("type=cache,target=/a/$X,id=i,sharing=locked,mode=0700,uid=1,gid=2").unwrap();
        assert_eq!((mount.kind, mount.target.as_str(), mount.read_only), (MountType::Cache, "/a/x", false));
        assert_eq!((mount.mode, mount.uid, mount.gid), (Some(0o700), Some(1), Some(2)));
        assert_eq!((mount.sharing, mount.id.as_deref()), (Sharing::Locked, Some("i")));
        let mount = plain("DST=/a,Src=b,rw").unwrap();
        assert_eq!((mount.kind, mount.source.as_str(), mount.read_only), (MountType::Bind, "b", false));
        assert!(plain("target=/a").unwrap().read_only);
        assert_eq!(plain("type=tmpfs,target=/t,size=64k").unwrap().size, Some(65536));
        assert!(plain("type=secret,id=s,required").unwrap().required);
        assert_eq!(plain("\"target=/a,b\"").unwrap().target, "/a,b");
        assert_eq!(from("type=bind,From=base,target=/x").as_deref(), Some("base"));
        assert_eq!(from("target=/x"), None);
    }

    #[test]
    fn mistakes() {
        for (value, text) in [
            ("typ=tmpfs,target=/m", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
            ("type=bnd", "unsupported mount type \"bnd\" (did you mean bind?)"),
            ("type=bind,target=/m,size=1m", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,target=/m,x", "invalid field 'x' must be a key=value pair"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
            ("type=tmpfs,mode=1", "mode not allowed for \"tmpfs\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("rw=maybe", "invalid value for rw: maybe"),
            ("type=cache,sharing=lockd", "unsupported sharing value \"lockd\" (did you mean locked?)"),
        ] {
            assert_eq!(plain(value).unwrap_err().to_string(), text, "{value}");
        }
        assert!(check_unexpanded("from=$X,target=/a").unwrap_err().starts_with("'from' doesn't support"));
        assert!(check_unexpanded("from=a$,target=$X").is_ok());
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("1", Some(1)),
            ("1k", Some(1024)),
            ("1.5M", Some(1_572_864)),
            ("2GiB", Some(2 << 30)),
            ("x", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
