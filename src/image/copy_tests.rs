use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::image::{LayerState, Silent};
use crate::oci::{DiffId, RawManifest, descriptor};

/// A source in memory whose layer streams break after so many bytes, so many times.
#[derive(Default)]
struct Memory {
    root: Option<RawManifest>,
    manifests: HashMap<String, RawManifest>,
    blobs: HashMap<String, Vec<u8>>,
    breaks: Mutex<Vec<usize>>,
    asked: Mutex<Vec<(String, u64)>>,
    resumes: bool,
}

impl Source for Memory {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, BoxError> {
        Ok(self.root.as_ref().ok_or("nothing")?.descriptor())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        Ok(self.manifests.get(&descriptor.digest().to_string()).ok_or("no manifest")?.clone())
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(())
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        let digest = descriptor.digest().to_string();
        self.asked.lock().unwrap().push((digest.clone(), offset));
        let offset = if self.resumes { offset } else { 0 };
        let bytes = self.blobs.get(&digest).ok_or("no blob")?[usize::try_from(offset)?..].to_vec();
        let cut = if descriptor.media_type().to_string().contains("layer") {
            self.breaks.lock().unwrap().pop()
        } else {
            None
        };
        Ok((offset, Box::new(Breaking { bytes, at: 0, cut })))
    }
}

struct Breaking {
    bytes: Vec<u8>,
    at: usize,
    cut: Option<usize>,
}

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = self.cut.map_or(self.bytes.len(), |cut| cut.min(self.bytes.len()));
        let n = buffer.len().min(7).min(end - self.at);
        if n == 0 && self.cut.is_some() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// A sink in memory that keeps partial layers and writes down the order of what it is given.
#[derive(Default)]
struct Kept {
    layers: Mutex<HashMap<String, Vec<u8>>>,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    manifests: Mutex<Vec<String>>,
    name: Mutex<Option<Descriptor>>,
    order: Mutex<Vec<&'static str>>,
}

impl Sink for Kept {
    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError> {
        let layers = self.layers.lock().unwrap();
        let have = layers.get(&layer.descriptor.digest().to_string()).map_or(0, |b| b.len() as u64);
        Ok(if have == layer.descriptor.size() {
            LayerState::Complete
        } else {
            LayerState::Missing { partial: have }
        })
    }

    fn put_layer(
        &self,
        layer: &LayerPlan,
        offset: u64,
        data: &mut dyn Read,
        _: &dyn Reporter,
    ) -> Result<(), BoxError> {
        let digest = layer.descriptor.digest().to_string();
        let mut bytes = self.layers.lock().unwrap().get(&digest).cloned().unwrap_or_default();
        bytes.truncate(usize::try_from(offset)?);
        let mut chunk = [0; 16];
        loop {
            let n = data.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..n]);
            self.layers.lock().unwrap().insert(digest.clone(), bytes.clone());
        }
        if Digest::sha256(&bytes).as_str() != digest {
            self.layers.lock().unwrap().remove(&digest);
            return Err("wrong bytes".into());
        }
        self.order.lock().unwrap().push("layer");
        Ok(())
    }

    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        Ok(self.blobs.lock().unwrap().contains_key(&descriptor.digest().to_string()))
    }

    fn put_blob(&self, descriptor: &Descriptor, data: &[u8]) -> Result<(), BoxError> {
        self.order.lock().unwrap().push("config");
        self.blobs.lock().unwrap().insert(descriptor.digest().to_string(), data.to_vec());
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError> {
        self.order.lock().unwrap().push("manifest");
        self.manifests.lock().unwrap().push(manifest.digest.to_string());
        self.blobs.lock().unwrap().insert(manifest.digest.to_string(), manifest.bytes.clone());
        Ok(())
    }

    fn set_name(&self, _: &Reference, target: &Descriptor) -> Result<(), BoxError> {
        self.order.lock().unwrap().push("name");
        *self.name.lock().unwrap() = Some(target.clone());
        Ok(())
    }

    fn small_blob(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.blobs.lock().unwrap().get(&descriptor.digest().to_string()).cloned())
    }
}

/// An image of `layers` in a source that can resume.
fn image(layers: &[&[u8]], diff_ids: usize) -> Memory {
    let mut memory = Memory { resumes: true, ..Memory::default() };
    let ids: Vec<DiffId> = (0..diff_ids).map(|i| DiffId(Digest::sha256(i.to_string()))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}
    });
    let config = serde_json::to_vec(&config).unwrap();
    let mut put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        memory.blobs.insert(digest.to_string(), bytes.to_vec());
        descriptor(media_type, &digest, bytes.len() as u64)
    };
    let config = put(media_type::OCI_CONFIG, &config);
    let layers: Vec<Descriptor> = layers.iter().map(|b| put(media_type::OCI_LAYER, b)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers
    });
    let raw = RawManifest::new(serde_json::to_vec(&manifest).unwrap(), None).unwrap();
    memory.manifests.insert(raw.digest.to_string(), raw.clone());
    memory.root = Some(raw);
    memory
}

fn run(from: &Memory, to: &Kept, platform: Option<&str>) -> Result<Copied, CopyError> {
    let name = Reference::parse("127.0.0.1:5000/a").unwrap();
    let what = Selection {
        from: What::Name(name.clone()),
        to: Some(name),
        platforms: platform.map_or(Platforms::All, |p| Platforms::Best(p.parse().unwrap())),
        jobs: 3,
    };
    copy(from, to, &what, &Silent)
}

#[test]
fn layers_come_first_and_the_name_last_and_a_second_copy_moves_nothing() {
    let from = image(&[b"one one one one one", b"two", b"two"], 3);
    let to = Kept::default();
    let copied = run(&from, &to, None).unwrap();
    assert_eq!((copied.moved.len(), copied.reused.len()), (2, 0));
    assert_eq!(*to.order.lock().unwrap(), ["layer", "layer", "config", "manifest", "name"]);
    let asked = from.asked.lock().unwrap().len();
    let again = run(&from, &to, None).unwrap();
    assert_eq!((again.moved.len(), again.reused.len()), (0, 2));
    assert_eq!(from.asked.lock().unwrap().len(), asked, "nothing may be fetched again");
}

#[test]
fn a_broken_stream_is_resumed_where_it_broke() {
    let layer: Vec<u8> = (0..200_u8).collect();
    let mut from = image(&[&layer], 1);
    from.breaks = Mutex::new(vec![30, 50]);
    let to = Kept::default();
    run(&from, &to, None).unwrap();
    let digest = Digest::sha256(&layer).to_string();
    let offsets: Vec<u64> =
        from.asked.lock().unwrap().iter().filter(|(d, _)| *d == digest).map(|(_, o)| *o).collect();
    assert_eq!(offsets, [0, 50, 80]);
}

#[test]
fn a_source_that_cannot_resume_is_read_from_the_start_again() {
    let layer: Vec<u8> = (0..200_u8).collect();
    let mut from = image(&[&layer], 1);
    from.breaks = Mutex::new(vec![50]);
    from.resumes = false;
    let to = Kept::default();
    run(&from, &to, None).unwrap();
    assert_eq!(to.layers.lock().unwrap()[&Digest::sha256(&layer).to_string()], layer);
}

#[test]
fn wrong_bytes_name_the_layer_and_leave_the_name_alone() {
    let layer = b"right".to_vec();
    let mut from = image(&[&layer], 1);
    from.blobs.insert(Digest::sha256(&layer).to_string(), b"wrong".to_vec());
    let to = Kept::default();
    let error = run(&from, &to, None).unwrap_err();
    assert!(matches!(error, CopyError::Layer { digest, .. } if digest == Digest::sha256(&layer).as_str()));
    assert!(to.name.lock().unwrap().is_none());
    assert!(to.manifests.lock().unwrap().is_empty());
}

#[test]
fn images_that_contradict_themselves_are_refused_before_anything_moves() {
    let from = image(&[b"a", b"b"], 1);
    let to = Kept::default();
    assert!(matches!(run(&from, &to, None), Err(CopyError::Inconsistent { .. })));
    assert!(to.layers.lock().unwrap().is_empty());
}

#[test]
fn one_platform_of_an_index_remembers_its_index_and_no_platform_copies_all() {
    let mut from = image(&[b"layer"], 1);
    let child = from.root.clone().unwrap();
    let entry = |os: &str, architecture: &str| {
        let mut entry = serde_json::to_value(child.descriptor()).unwrap();
        entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        entry
    };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [entry("unknown", "unknown"), entry("linux", "amd64")]
    });
    let index = RawManifest::new(serde_json::to_vec(&index).unwrap(), None).unwrap();
    from.manifests.insert(index.digest.to_string(), index.clone());
    from.root = Some(index.clone());

    let to = Kept::default();
    let copied = run(&from, &to, Some("linux/amd64")).unwrap();
    assert_eq!(copied.resolved.digest().to_string(), index.digest.to_string());
    assert_eq!(copied.target.digest().to_string(), child.digest.to_string());
    let annotations = to.name.lock().unwrap().clone().unwrap().annotations().clone().unwrap();
    assert_eq!(annotations[INDEX_DIGEST_ANNOTATION], index.digest.to_string());

    assert!(matches!(run(&from, &to, Some("linux/s390x")), Err(CopyError::Platform(_))));

    let to = Kept::default();
    run(&from, &to, None).unwrap();
    assert_eq!(to.manifests.lock().unwrap().last(), Some(&index.digest.to_string()));
    assert_eq!(to.name.lock().unwrap().clone().unwrap().digest().to_string(), index.digest.to_string());
}
