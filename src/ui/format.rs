//! `--format`: Go templates over JSON values, with docker's functions, and the listings built on them.
//!
//! A field is named as in the JSON (`{{.Config.Env}}`). A name that is not there is an error, as docker has it, but for
//! names that a user chooses (labels, ports, networks: `<no value>`) and the few that docker leaves out when empty.

mod functions;
mod listing;
#[cfg(test)]
mod tests;

pub use listing::{Column, Listing};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use gotmpl::{MissingKey, TemplateError};
use serde_json::Value;

/// Maps whose keys a user chooses.
const FREE_MAPS: [&str; 13] = [
    "Labels",
    "Annotations",
    "Ports",
    "PortBindings",
    "Networks",
    "Volumes",
    "ExposedPorts",
    "Sysctls",
    "Options",
    "Tmpfs",
    "Runtimes",
    "Attributes",
    "DriverOpts",
];
/// Fields that docker's JSON leaves out when they are empty.
const OPTIONAL_FIELDS: [&str; 14] = [
    "Health",
    "Healthcheck",
    "Shell",
    "OnBuild",
    "ArgsEscaped",
    "StopSignal",
    "StopTimeout",
    "Variant",
    "Author",
    "Comment",
    "MacAddress",
    "NetworkDisabled",
    "Warnings",
    "Annotations",
];

/// What is wrong with a template, or with using it on a value.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The text is no template.
    #[error("template `{template}` cannot be parsed")]
    Parse {
        /// The template.
        template: String,
        /// Where and why.
        #[source]
        source: Box<TemplateError>,
    },
    /// A field that the value does not have.
    #[error("template `{template}` asks for `{field}`, which is not there{}", there(fields))]
    UnknownField {
        /// The template.
        template: String,
        /// The field.
        field: String,
        /// Fields that are there, at the top.
        fields: Vec<String>,
    },
    /// The template does not fit the value.
    #[error("template `{template}` cannot be applied")]
    Apply {
        /// The template.
        template: String,
        /// Why.
        #[source]
        source: Box<TemplateError>,
    },
}

fn there(fields: &[String]) -> String {
    if fields.is_empty() { String::new() } else { format!("; there are: {}", fields.join(", ")) }
}

/// Lists that docker's JSON has as `null` when they are empty, and that its templates print as `[]`.
const NULL_LISTS: [&str; 27] = [
    "Aliases",
    "Args",
    "Binds",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "Devices",
    "DeviceRequests",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "Mounts",
    "OnBuild",
    "RepoDigests",
    "RepoTags",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
    "Warnings",
];

/// What JSON knows of lists and maps and the template engine does not, by the address of what stands for each.
#[derive(Debug, Default)]
struct Origins {
    /// The keys of each object as they came: gotmpl's maps sort theirs, and `json` prints them as they came.
    keys: HashMap<usize, Vec<Arc<str>>>,
    /// What was `null`: empty to a template, `null` again to `json`.
    nulls: HashSet<usize>,
}

type KeyOrder = Arc<Mutex<Origins>>;

/// A parsed `--format`.
pub struct Template {
    text: String,
    inner: gotmpl::Template,
    order: KeyOrder,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Template").field(&self.text).finish()
    }
}

impl Template {
    /// Parse a template. `\t` and `\n` outside of `{{…}}` stand for a tab and a line end, as docker has it; the word
    /// `json` alone stands for `{{json .}}`.
    ///
    /// # Errors
    /// [`FormatError::Parse`].
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let source = if text.trim() == "json" { "{{json .}}".to_owned() } else { rewrite(text) };
        let order = KeyOrder::default();
        let inner = gotmpl::Template::new("")
            .missing_key(MissingKey::Error)
            .funcs(functions::all(&order))
            .parse(&source)
            .map_err(|source| FormatError::Parse { template: text.to_owned(), source: Box::new(source) })?;
        Ok(Self { text: text.to_owned(), inner, order })
    }

    /// Apply the template to a value.
    ///
    /// # Errors
    /// [`FormatError::UnknownField`] or [`FormatError::Apply`].
    pub fn render(&self, value: &Value) -> Result<String, FormatError> {
        *self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Origins::default();
        let mut allowed: Vec<String> = Vec::new();
        loop {
            let data = self.convert(value, None, &allowed);
            let error = match self.inner.execute_to_string(&data) {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            match error {
                // A second look at the same data with the name there, but empty, where a name may be missing.
                TemplateError::MissingKey { key } if !allowed.contains(&key) => allowed.push(key),
                TemplateError::MissingKey { key } => return Err(self.unknown_field(key, value)),
                source => {
                    return Err(FormatError::Apply { template: self.text.clone(), source: Box::new(source) });
                }
            }
        }
    }

    fn unknown_field(&self, field: String, value: &Value) -> FormatError {
        let fields = value.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
        FormatError::UnknownField { template: self.text.clone(), field, fields }
    }

    /// A JSON value as the template engine's. `name` is the field it stands in; the names in `allowed` are there,
    /// empty, where they may be missing.
    fn convert(&self, value: &Value, name: Option<&str>, allowed: &[String]) -> gotmpl::Value {
        match value {
            Value::Null => self.null(name),
            Value::Bool(value) => gotmpl::Value::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => gotmpl::Value::Int(value),
                (None, Some(value)) => gotmpl::Value::Uint(value),
                (None, None) => gotmpl::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => gotmpl::Value::String(text.as_str().into()),
            Value::Array(items) => {
                gotmpl::Value::List(items.iter().map(|item| self.convert(item, None, allowed)).collect())
            }
            Value::Object(fields) => {
                let free = name.is_some_and(|name| FREE_MAPS.contains(&name));
                let mut map: BTreeMap<Arc<str>, gotmpl::Value> = allowed
                    .iter()
                    .filter(|key| free || OPTIONAL_FIELDS.contains(&key.as_str()))
                    .map(|key| {
                        (key.as_str().into(), if free { gotmpl::Value::Nil } else { self.null(Some(key)) })
                    })
                    .collect();
                let mut order = Vec::with_capacity(fields.len());
                for (key, field) in fields {
                    let key: Arc<str> = key.as_str().into();
                    order.push(Arc::clone(&key));
                    map.insert(key, self.convert(field, Some(&order[order.len() - 1]), allowed));
                }
                let map = Arc::new(map);
                let mut origins = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                origins.keys.insert(Arc::as_ptr(&map).addr(), order);
                gotmpl::Value::Map(map)
            }
        }
    }

    /// A `null`: Go knows that a field is a list or a map also when it is nil, and prints `[]` or `map[]`.
    fn null(&self, name: Option<&str>) -> gotmpl::Value {
        let (address, value) = match name {
            Some(name) if NULL_LISTS.contains(&name) => {
                let list: Arc<[gotmpl::Value]> = Vec::new().into();
                (list.as_ptr().addr(), gotmpl::Value::List(list))
            }
            Some(name) if FREE_MAPS.contains(&name) => {
                let map = Arc::new(BTreeMap::new());
                (Arc::as_ptr(&map).addr(), gotmpl::Value::Map(map))
            }
            _ => return gotmpl::Value::Nil,
        };
        self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner).nulls.insert(address);
        value
    }
}

/// Docker's liberties in a template's text: `\t` and `\n` between actions, and the method `.Label "key"` of rows.
fn rewrite(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        result.push_str(&unescape(&rest[..start]));
        let end = rest[start..].find("}}").map_or(rest.len(), |end| start + end + 2);
        result.push_str(&label_calls(&rest[start..end]));
        rest = &rest[end..];
    }
    result.push_str(&unescape(rest));
    result
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// `.Label "key"` becomes the function call `label . "key"`.
fn label_calls(action: &str) -> String {
    let mut result = String::with_capacity(action.len());
    let mut rest = action;
    while let Some(at) = rest.find(".Label ") {
        let (before, after) = rest.split_at(at);
        result.push_str(before);
        let starts_a_command = before.ends_with(['{', ' ', '(', '|', '-']);
        result.push_str(if starts_a_command { "label . " } else { ".Label " });
        rest = &after[".Label ".len()..];
    }
    result.push_str(rest);
    result
}
