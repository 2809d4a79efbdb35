//! From format 1 to 2: each volume is a directory with `volume.json` and `_data`.
//!
//! A directory that has no record holds the volume's files itself. It becomes the `_data` of a new directory, which is
//! made under a name that no volume can have (`.upgrade-<name>`) and, once it is whole, renamed to the volume's:
//!
//! ```text
//! volumes/v            → volumes/v, volumes/.upgrade-v/volume.json
//!                      → volumes/.upgrade-v/{volume.json,_data}
//!                      → volumes/v/{volume.json,_data}
//! ```
//!
//! Nothing of it is in `tmp/`, which an older binary that comes in between would sweep.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::failed;
use crate::storage::lock::Notice;
use crate::storage::{Error, layout::Layout};
use crate::sys::atomic::{Durability, replace_file, sync_dir};
use crate::sys::tree;

const RECORD: &str = "volume.json";
const DATA: &str = "_data";
/// What lies beside the data while a volume is filled.
const FILLING: &[&str] = &["fill", "fill.new", "filling"];
/// Before the name of a volume that is on its way.
const PREFIX: &str = ".upgrade-";

/// Give every volume its record.
pub(super) fn get_records(layout: &Layout, notice: &Notice) -> Result<(), Error> {
    let names = names(layout)?;
    let (begun, volumes): (Vec<&String>, Vec<&String>) = names.iter().partition(|n| n.starts_with(PREFIX));
    for name in begun {
        finish(layout, name.trim_start_matches(PREFIX), notice)?;
    }
    for name in volumes {
        give_record(layout, name)?;
    }
    Ok(())
}

fn names(layout: &Layout) -> Result<Vec<String>, Error> {
    let dir = layout.volumes();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("read", &dir))?;
        // A link or a file is no volume; one whose name is no text was never made by us.
        if entry.file_type().map_err(failed("read", &dir))?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A volume that was on its way when an upgrade ended.
fn finish(layout: &Layout, name: &str, notice: &Notice) -> Result<(), Error> {
    let (target, aside) = (layout.volume(name), layout.volume(&format!("{PREFIX}{name}")));
    if !aside.join(DATA).exists() {
        // Its files are still where they were, and it is begun anew.
        return Ok(tree::remove_path(&aside)?);
    }
    if !target.exists() {
        return rename(layout, &aside, &target);
    }
    // An older binary has made one of that name meanwhile: both stay.
    let kept = (1_u32..).map(|n| format!("{name}.{n}")).find(|name| !layout.volume(name).exists());
    let kept = kept.unwrap_or_default();
    write_record(layout, &aside, &kept)?;
    notice.say(&format!("volume `{name}` was made twice: what it held before the upgrade is `{kept}` now"));
    rename(layout, &aside, &layout.volume(&kept))
}

fn give_record(layout: &Layout, name: &str) -> Result<(), Error> {
    let dir = layout.volume(name);
    let path = dir.join(RECORD);
    match fs::read(&path) {
        Ok(bytes) => return complete_record(layout, &dir, &path, &bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", &path)(error)),
    }
    let entries = fs::read_dir(&dir).map_err(failed("read", &dir))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<Result<_, _>>().map_err(failed("read", &dir))?;
    let ours = |name: &std::ffi::OsString| name == DATA || FILLING.iter().any(|part| name == part);
    if names.iter().any(|name| name == DATA) && names.iter().all(ours) {
        // Its record was never written, or is lost.
        return write_record(layout, &dir, name);
    }
    let aside = layout.volume(&format!("{PREFIX}{name}"));
    DirBuilder::new().mode(0o700).create(&aside).map_err(failed("create", &aside))?;
    let made = fs::metadata(&dir).map_err(failed("stat", &dir))?.mtime();
    write(layout, &aside, &fresh_record(name, made))?;
    fs::rename(&dir, aside.join(DATA)).map_err(failed("move", &dir))?;
    sync_dir(&aside)?;
    rename(layout, &aside, &dir)
}

fn rename(layout: &Layout, from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(failed("move", from))?;
    Ok(sync_dir(&layout.volumes())?)
}

/// A record of format 1 lacks what was not thought of then. One that makes no sense is left for `system check`.
fn complete_record(layout: &Layout, dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let Ok(mut record) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return Ok(()) };
    let before = record.len();
    for (key, value) in [("driver", json!("local")), ("labels", json!({})), ("options", json!({}))] {
        record.entry(key).or_insert(value);
    }
    if record.len() == before && path.exists() {
        return Ok(());
    }
    write(layout, dir, &Value::Object(record))
}

fn write_record(layout: &Layout, dir: &Path, name: &str) -> Result<(), Error> {
    let made = fs::metadata(dir).map_err(failed("stat", dir))?.mtime();
    write(layout, dir, &fresh_record(name, made))
}

/// `made` in Unix seconds.
fn fresh_record(name: &str, made: i64) -> Value {
    let created = jiff::Timestamp::from_second(made).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
    json!({"name": name, "driver": "local", "created": created, "anonymous": is_anonymous(name),
           "labels": {}, "options": {}})
}

/// The names that are made up are 64 hex digits.
fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn write(layout: &Layout, dir: &Path, record: &Value) -> Result<(), Error> {
    let path = dir.join(RECORD);
    let bytes = serde_json::to_vec(record).map_err(|source| Error::Json { path: path.clone(), source })?;
    Ok(replace_file(&path, &layout.tmp().join("volume"), &bytes, Durability::Durable)?)
}
