//! Docker's template functions beside those of Go: `json`, `split`, `join`, `title`, `lower`, `upper`, `pad`, `truncate`.

use std::sync::Arc;

use gotmpl::{FuncMap, TemplateError, Value};

use super::KeyOrder;

type Answer = Result<Value, TemplateError>;

pub(super) fn all(order: &KeyOrder) -> FuncMap {
    let mut map = FuncMap::new();
    let order = Arc::clone(order);
    map.insert(
        "json".into(),
        Arc::new(move |args: &[Value]| {
            let mut text = String::new();
            write_json(&mut text, arg("json", args, 0)?, &order);
            Ok(string(text))
        }),
    );
    for (name, function) in [
        ("join", join as fn(&[Value]) -> Answer),
        ("split", split),
        ("title", title),
        ("lower", |args| Ok(string(text("lower", args, 0)?.to_lowercase()))),
        ("upper", |args| Ok(string(text("upper", args, 0)?.to_uppercase()))),
        ("pad", pad),
        ("truncate", truncate),
        ("label", label),
    ] {
        map.insert(name.into(), Arc::new(function));
    }
    map
}

fn string(text: impl Into<Arc<str>>) -> Value {
    Value::String(text.into())
}

fn arg<'a>(name: &str, args: &'a [Value], index: usize) -> Result<&'a Value, TemplateError> {
    args.get(index)
        .ok_or_else(|| TemplateError::Exec(format!("wrong number of args for {name}: got {}", args.len())))
}

fn text(name: &str, args: &[Value], index: usize) -> Result<String, TemplateError> {
    match arg(name, args, index)? {
        Value::String(text) => Ok(text.as_ref().to_owned()),
        other => Err(TemplateError::Exec(format!("{name} wants a string, got {}", other.type_name()))),
    }
}

fn count(name: &str, args: &[Value], index: usize) -> Result<usize, TemplateError> {
    let number = arg(name, args, index)?.as_int().and_then(|number| usize::try_from(number).ok());
    // A width beyond this is a mistake, and memory.
    number
        .filter(|&number| number <= 65_536)
        .ok_or_else(|| TemplateError::Exec(format!("{name} wants a small positive number")))
}

/// `join LIST SEPARATOR`; docker also takes a map, and joins its values.
fn join(args: &[Value]) -> Answer {
    let separator = text("join", args, 1)?;
    let parts: Vec<String> = match arg("join", args, 0)? {
        Value::List(items) => items.iter().map(ToString::to_string).collect(),
        Value::Map(map) => map.values().map(ToString::to_string).collect(),
        Value::Nil => Vec::new(),
        other => return Err(TemplateError::Exec(format!("join wants a list, got {}", other.type_name()))),
    };
    Ok(string(parts.join(&separator)))
}

fn split(args: &[Value]) -> Answer {
    let (subject, separator) = (text("split", args, 0)?, text("split", args, 1)?);
    let parts: Vec<Value> = if separator.is_empty() {
        subject.chars().map(|c| string(c.to_string())).collect()
    } else {
        subject.split(separator.as_str()).map(string).collect()
    };
    Ok(Value::List(parts.into()))
}

fn title(args: &[Value]) -> Answer {
    let mut at_start = true;
    let mut result = String::new();
    for c in text("title", args, 0)?.chars() {
        if at_start {
            result.extend(c.to_uppercase());
        } else {
            result.push(c);
        }
        at_start = c.is_whitespace();
    }
    Ok(string(result))
}

/// `pad TEXT BEFORE AFTER`: spaces around a text; an empty one stays empty.
fn pad(args: &[Value]) -> Answer {
    let subject = text("pad", args, 0)?;
    if subject.is_empty() {
        return Ok(string(""));
    }
    let (before, after) = (count("pad", args, 1)?, count("pad", args, 2)?);
    Ok(string(format!("{}{subject}{}", " ".repeat(before), " ".repeat(after))))
}

/// `truncate TEXT LENGTH`: at most that many characters.
fn truncate(args: &[Value]) -> Answer {
    let subject = text("truncate", args, 0)?;
    let length = count("truncate", args, 1)?;
    Ok(string(subject.chars().take(length).collect::<String>()))
}

/// `.Label "key"` of a row: `Labels` is docker's `k=v,k=v` there, or an object.
fn label(args: &[Value]) -> Answer {
    let key = text("label", args, 1)?;
    let found = match arg("label", args, 0)?.field("Labels") {
        Some(Value::Map(map)) => map.get(key.as_str()).map(ToString::to_string),
        Some(Value::String(list)) => list
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned()),
        _ => None,
    };
    Ok(string(found.unwrap_or_default()))
}

/// Compact JSON, keys in the order they came in.
fn write_json(text: &mut String, value: &Value, order: &KeyOrder) {
    match value {
        Value::Nil | Value::Function(_) => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => text.push_str(&value.to_string()),
        Value::Uint(value) => text.push_str(&value.to_string()),
        Value::Float(value) => text.push_str(&serde_json::Value::from(*value).to_string()),
        Value::String(value) => text.push_str(&quoted(value)),
        Value::List(items) if was_null(order, items.as_ptr().addr()) => text.push_str("null"),
        Value::Map(map) if was_null(order, Arc::as_ptr(map).addr()) => text.push_str("null"),
        Value::List(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                write_json(text, item, order);
            }
            text.push(']');
        }
        Value::Map(map) => {
            let origins = order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let keys = origins.keys.get(&Arc::as_ptr(map).addr()).cloned();
            drop(origins);
            let keys = keys.unwrap_or_else(|| map.keys().cloned().collect());
            text.push('{');
            for (index, key) in keys.iter().enumerate() {
                text.push_str(if index > 0 { "," } else { "" });
                text.push_str(&quoted(key));
                text.push(':');
                write_json(text, map.get(key).unwrap_or(&Value::Nil), order);
            }
            text.push('}');
        }
    }
}

fn was_null(order: &KeyOrder, address: usize) -> bool {
    order.lock().unwrap_or_else(std::sync::PoisonError::into_inner).nulls.contains(&address)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
