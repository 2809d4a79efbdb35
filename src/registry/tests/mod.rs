//! The client against scripted servers (faults, attacks) and against a real registry.

mod faults;
mod real;
mod server;
mod uploads;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::image::{
    BoxError, Copied, CopyError, Event, LayerPlan, LayerState, Platforms, Reporter, Selection, Sink, Source,
    What, copy,
};
use crate::oci::{Descriptor, DiffId, Digest, RawManifest, Reference, descriptor, digest_of, media_type};

/// Settings that read nothing of this machine and do not wait.
fn settings() -> Settings {
    Settings {
        env: BTreeMap::from([("CONTAINERS_REGISTRIES_CONF".to_owned(), "/dev/null".to_owned())]),
        retry_delay: Some(Duration::from_millis(1)),
        ..Settings::default()
    }
}

/// An image in memory: a source of what is pushed, and what a scripted server serves.
#[derive(Clone)]
struct TestImage {
    manifest: RawManifest,
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl TestImage {
    /// Layers of the given sizes in bytes, whose content depends on `seed`.
    fn new(seed: u8, sizes: &[usize]) -> Self {
        let layers: Vec<Vec<u8>> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| (0..*size).map(|i| (i * 7 + n + usize::from(seed) + i / 251) as u8).collect())
            .collect();
        let diff_ids: Vec<DiffId> = layers.iter().map(|l| DiffId(Digest::sha256(l))).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}
        });
        let config = serde_json::to_vec(&config).unwrap();
        let part = |kind: &str, bytes: &[u8]| descriptor(kind, &Digest::sha256(bytes), bytes.len() as u64);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": part(media_type::OCI_CONFIG, &config),
            "layers": layers.iter().map(|l| part(media_type::OCI_LAYER, l)).collect::<Vec<_>>(),
        });
        let manifest = RawManifest::new(serde_json::to_vec(&manifest).unwrap(), None).unwrap();
        Self { manifest, config, layers }
    }

    fn blob(&self, digest: &str) -> Option<&[u8]> {
        let all = self.layers.iter().map(Vec::as_slice).chain([self.config.as_slice()]);
        all.into_iter().find(|bytes| Digest::sha256(bytes).as_str() == digest)
    }
}

impl Source for TestImage {
    fn resolve(&self, _: &Reference) -> Result<Descriptor, BoxError> {
        Ok(self.manifest.descriptor())
    }

    fn manifest(&self, _: &Descriptor) -> Result<RawManifest, BoxError> {
        Ok(self.manifest.clone())
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(())
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        let bytes = self.blob(descriptor.digest().as_ref()).ok_or("no such blob")?.to_vec();
        Ok((offset, Box::new(std::io::Cursor::new(bytes[usize::try_from(offset)?..].to_vec()))))
    }
}

/// A sink in memory that verifies what it takes and keeps the beginning of what breaks off.
#[derive(Default)]
struct Bucket {
    layers: Mutex<BTreeMap<String, Vec<u8>>>,
    config: Mutex<Vec<u8>>,
    manifests: Mutex<Vec<RawManifest>>,
    named: Mutex<Option<Descriptor>>,
}

impl Sink for Bucket {
    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError> {
        let layers = self.layers.lock().unwrap();
        let have = layers.get(digest_of(&layer.descriptor)?.as_str()).map(|bytes| bytes.len() as u64);
        Ok(if have == Some(layer.descriptor.size()) {
            LayerState::Complete
        } else {
            LayerState::Missing { partial: have.unwrap_or(0) }
        })
    }

    fn put_layer(
        &self,
        layer: &LayerPlan,
        offset: u64,
        data: &mut dyn Read,
        _: &dyn Reporter,
    ) -> Result<(), BoxError> {
        let digest = digest_of(&layer.descriptor)?;
        let mut bytes = self.layers.lock().unwrap().remove(digest.as_str()).unwrap_or_default();
        bytes.truncate(usize::try_from(offset)?);
        let result = data.read_to_end(&mut bytes);
        let complete = bytes.len() as u64 == layer.descriptor.size();
        if complete && Digest::sha256(&bytes) != digest {
            let found = Digest::sha256(&bytes);
            return Err(crate::layer::Error::Digest { expected: digest, found }.into());
        }
        self.layers.lock().unwrap().insert(digest.to_string(), bytes);
        result?;
        Ok(())
    }

    fn has_blob(&self, _: &Descriptor) -> Result<bool, BoxError> {
        Ok(false)
    }

    fn put_blob(&self, _: &Descriptor, data: &[u8]) -> Result<(), BoxError> {
        *self.config.lock().unwrap() = data.to_vec();
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError> {
        self.manifests.lock().unwrap().push(manifest.clone());
        Ok(())
    }

    fn set_name(&self, _: &Reference, target: &Descriptor) -> Result<(), BoxError> {
        *self.named.lock().unwrap() = Some(target.clone());
        Ok(())
    }
}

impl Bucket {
    fn holds(&self, image: &TestImage) -> bool {
        let layers = self.layers.lock().unwrap();
        image.layers.iter().all(|l| layers.get(Digest::sha256(l).as_str()) == Some(l))
            && *self.config.lock().unwrap() == image.config
            && self.manifests.lock().unwrap().last() == Some(&image.manifest)
            && self.named.lock().unwrap().is_some()
    }
}

/// Keeps events for a look at them.
#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Reporter for Events {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Events {
    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

fn pull(settings: &Settings, name: &str, to: &Bucket, events: &Events) -> Result<Copied, CopyError> {
    let reference = Reference::parse(name).unwrap();
    let client = Client::new(settings, &reference, Action::Pull, events)
        .map_err(|error| CopyError::Source { reference: name.into(), source: error.into() })?;
    let what = Selection {
        from: What::Name(reference.clone()),
        to: Some(reference),
        platforms: Platforms::All,
        jobs: 3,
    };
    copy(&client, to, &what, events)
}

fn push(settings: &Settings, name: &str, from: &TestImage, events: &Events) -> Result<Copied, CopyError> {
    push_with(settings, name, from, events, std::collections::HashMap::new())
}

fn push_with(
    settings: &Settings,
    name: &str,
    from: &TestImage,
    events: &Events,
    mounts: std::collections::HashMap<Digest, String>,
) -> Result<Copied, CopyError> {
    let reference = Reference::parse(name).unwrap();
    let client = Client::new(settings, &reference, Action::Push, events)
        .unwrap()
        .with_mounts(move |digest| mounts.get(digest).cloned().into_iter().collect());
    let what = Selection {
        from: What::Name(reference.clone()),
        to: Some(reference),
        platforms: Platforms::All,
        jobs: 3,
    };
    copy(from, &client, &what, events)
}

/// The registry's own error at the bottom of a copy's error.
fn registry_error(error: CopyError) -> Error {
    let source = match error {
        CopyError::Source { source, .. }
        | CopyError::Sink { source, .. }
        | CopyError::Layer { source, .. }
        | CopyError::Config { source, .. } => source,
        other => panic!("{other:?}"),
    };
    *source.downcast::<Error>().unwrap()
}
