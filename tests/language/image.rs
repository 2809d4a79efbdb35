//! An image as it lies in the store: its config, and its layers put on top of each other.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// An image.
#[derive(Debug)]
pub struct Image {
    /// The whole config document.
    pub config: Value,
    /// The digests of its layers.
    pub layers: Vec<String>,
    blobs: std::path::PathBuf,
}

impl Image {
    /// The image of that name.
    pub fn named(store: &Path, name: &str) -> Self {
        let index: Value = serde_json::from_slice(&std::fs::read(store.join("index.json")).unwrap()).unwrap();
        let named =
            |descriptor: &&Value| descriptor["annotations"]["org.opencontainers.image.ref.name"] == name;
        let descriptor = index["manifests"].as_array().unwrap().iter().find(named);
        let descriptor = descriptor.unwrap_or_else(|| panic!("no image {name}: {index:#}"));
        let blobs = store.join("blobs/sha256");
        let document = |digest: &Value| -> Value {
            let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
            serde_json::from_slice(&std::fs::read(blobs.join(hex)).unwrap()).unwrap()
        };
        let manifest = document(&descriptor["digest"]);
        let config = document(&manifest["config"]["digest"]);
        let layers = manifest["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
        Self { config, layers, blobs }
    }

    /// One that was written to a directory, as skopeo's `dir:` does.
    pub fn of_dir(dir: &Path) -> Self {
        let document = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
        };
        let manifest = document("manifest.json");
        let mut config =
            document(manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:"));
        // buildah leaves its name in every image.
        if let Some(labels) = config["config"]["Labels"].as_object_mut() {
            labels.remove("io.buildah.version");
            if labels.is_empty() {
                config["config"]["Labels"] = Value::Null;
            }
        }
        let layers = manifest["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
        Self { config, layers, blobs: dir.to_owned() }
    }

    /// Its files by path, each described in one line.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for digest in &self.layers {
            let bytes = std::fs::read(self.blobs.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
            let mut archive = tar::Archive::new(decompress(&bytes));
            apply(&mut archive, &mut files);
        }
        files
    }
}

fn decompress(bytes: &[u8]) -> Box<dyn Read + '_> {
    if !bytes.starts_with(b"\x1f\x8b") && !bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        return Box::new(bytes);
    }
    if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        return Box::new(zstd::Decoder::new(bytes).unwrap());
    }
    Box::new(flate2::read::MultiGzDecoder::new(bytes))
}

fn apply(archive: &mut tar::Archive<Box<dyn Read + '_>>, files: &mut BTreeMap<String, String>) {
    let lower: Vec<String> = files.keys().cloned().collect();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        let (parent, name) =
            path.rsplit_once('/').map_or(("", path.as_str()), |(parent, name)| (parent, name));
        if name == ".wh..wh..opq" {
            let below = if parent.is_empty() { String::new() } else { format!("{parent}/") };
            lower.iter().filter(|known| known.starts_with(&below)).for_each(|known| {
                files.remove(known);
            });
        } else if let Some(gone) = name.strip_prefix(".wh.") {
            let gone = if parent.is_empty() { gone.to_owned() } else { format!("{parent}/{gone}") };
            files.retain(|known, _| *known != gone && !known.starts_with(&format!("{gone}/")));
        } else if !path.is_empty() {
            let line = describe(&path, &mut entry);
            if !entry.header().entry_type().is_dir() {
                files.retain(|known, _| !known.starts_with(&format!("{path}/")));
            }
            files.insert(path, line);
        }
    }
}

/// A file in one line: path, mode, owner, what it is; as [`crate::tree::canonical`] writes expectations.
fn describe(path: &str, entry: &mut tar::Entry<'_, impl Read>) -> String {
    let path = path.replace(' ', "\\s");
    let header = entry.header();
    let (kind, mode) = (header.entry_type(), header.mode().unwrap() & 0o7777);
    let owner = format!("{}:{}", header.uid().unwrap(), header.gid().unwrap());
    let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
    let target = target.unwrap_or_default();
    match kind {
        tar::EntryType::Directory => format!("{path}/ {mode:o} {owner}"),
        tar::EntryType::Symlink => format!("{path} {owner} -> {target}"),
        tar::EntryType::Link => format!("{path} => {}", target.trim_start_matches("./")),
        tar::EntryType::Fifo => format!("{path} {mode:o} {owner} fifo"),
        tar::EntryType::Char => format!("{path} {mode:o} {owner} device"),
        _ => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let shown = if content.len() > 4096 {
                format!("<{} bytes>", content.len())
            } else {
                super::tree::escape(&String::from_utf8_lossy(&content))
            };
            format!("{path} {mode:o} {owner} = {shown}").trim_end().to_owned()
        }
    }
}
