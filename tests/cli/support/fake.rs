//! A registry of made-up content, for what real registries would not take: odd media types, contradictions, giants.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use sha2::Digest;

use super::{Fault, Proxy, Seen};

/// What it serves, under any repository.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By tag or digest: media type and bytes.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
}

/// A layer: its media type, what is sent, and the tar inside.
pub struct FakeLayer {
    /// The media type.
    pub kind: String,
    /// The blob.
    pub blob: Vec<u8>,
    /// The tar.
    pub tar: Vec<u8>,
}

/// The OCI media type of a manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The OCI media type of an index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The OCI media type of a layer in gzip.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// `sha256:…`
pub fn digest(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A tar of files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

/// gzip of stored blocks, so that a test image is as large as its content and quickly made.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .args(["-1", "-n"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

impl FakeLayer {
    /// In gzip, with its right media type.
    pub fn gzip(files: &[(&str, &[u8])]) -> Self {
        let tar = tar(files);
        Self { kind: OCI_LAYER.into(), blob: gzip(&tar), tar }
    }
}

impl Fake {
    /// With one image of one small layer, under `latest`.
    pub fn small() -> Self {
        let mut fake = Self::default();
        fake.image("latest", &[FakeLayer::gzip(&[("hello", b"hello\n")])]);
        fake
    }

    /// Add a blob; its descriptor.
    pub fn blob(&mut self, kind: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let found = json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()});
        self.blobs.insert(digest(&bytes), bytes);
        found
    }

    /// Add a manifest or index under a tag; its descriptor.
    pub fn manifest(&mut self, tag: &str, kind: &str, document: &Value) -> Value {
        self.raw_manifest(tag, kind, document.to_string().into_bytes())
    }

    /// The same, byte for byte.
    pub fn raw_manifest(&mut self, tag: &str, kind: &str, bytes: Vec<u8>) -> Value {
        let found = json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()});
        self.manifests.insert(digest(&bytes), (kind.into(), bytes.clone()));
        self.manifests.insert(tag.into(), (kind.into(), bytes));
        found
    }

    /// Add an image for this machine; the descriptor of its manifest.
    pub fn image(&mut self, tag: &str, layers: &[FakeLayer]) -> Value {
        self.image_with(tag, layers, |_, _| ())
    }

    /// Add an image whose manifest and config are changed first.
    pub fn image_with(
        &mut self,
        tag: &str,
        layers: &[FakeLayer],
        edit: impl FnOnce(&mut Value, &mut Value),
    ) -> Value {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(&layer.tar)).collect();
        let mut config = json!({
            "architecture": arch, "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let layers: Vec<Value> = layers.iter().map(|l| self.blob(&l.kind, l.blob.clone())).collect();
        let mut manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers});
        edit(&mut manifest, &mut config);
        if manifest.get("config").is_none() {
            let kind = "application/vnd.oci.image.config.v1+json";
            manifest["config"] = self.blob(kind, config.to_string());
        }
        let kind = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
        self.manifest(tag, &kind, &manifest)
    }

    /// Serve it. The thread lives until the test process ends.
    pub fn serve(self) -> Proxy {
        Proxy::start("", move |seen| self.answer(seen))
    }

    /// Serve it behind a proxy with faults.
    pub fn serve_with(self, rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Proxy {
        Proxy::start(&self.serve().host(), rule)
    }

    fn answer(&self, seen: &Seen) -> Fault {
        let path = seen.target.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        if path.ends_with("/tags/list") {
            let tags: Vec<&String> = self.manifests.keys().filter(|name| !name.contains(':')).collect();
            return Fault::reply(200, &[], json!({"name": "x", "tags": tags}).to_string());
        }
        if path.contains("/manifests/")
            && let Some((kind, bytes)) = self.manifests.get(last)
        {
            let length = bytes.len().to_string();
            let headers = [
                ("Content-Type", kind.as_str()),
                ("Docker-Content-Digest", &digest(bytes)),
                ("Content-Length", &length),
            ];
            return Fault::reply(200, &headers, bytes.clone());
        }
        let Some(blob) = self.blobs.get(last).filter(|_| path.contains("/blobs/")) else {
            return Fault::reply(404, &[], r#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#);
        };
        let range = seen.header("range").and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
        let Some((start, last)) = range else { return Fault::reply(200, &[], blob.clone()) };
        let start: usize = start.parse().unwrap();
        let end = last.parse().map_or(blob.len(), |last: usize| (last + 1).min(blob.len()));
        let range = format!("bytes {start}-{}/{}", end - 1, blob.len());
        Fault::reply(206, &[("Content-Range", &range)], &blob[start..end])
    }
}
