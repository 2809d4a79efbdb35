//! The layers of a conversion: decompressed, verified by their diff ids, and compressed again, several at once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::convert::{ConvertError, Recompression, Which, Workshop, compression_of};
use super::{BoxError, Event, Source};
use crate::layer::{Compression, HashingReader, HashingWriter, LayerWriter, VerifiedReader, decompressor};
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, digest_of, media_type};

/// How often a layer is read when its stream breaks.
const TRIES: u32 = 3;
/// The largest config that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Bytes that move at once.
const BUFFER: usize = 128 << 10;

/// What became of a layer.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub digest: Digest,
    pub size: u64,
    pub kind: Compression,
    /// Where it is compressed anew: its bytes.
    pub file: Option<Arc<File>>,
}

/// A layer to look at.
struct Task<'a> {
    digest: Digest,
    layer: &'a Descriptor,
    diff_id: DiffId,
}

/// Convert those layers of an image that the wish is for and that were not converted before. Layers whose media type
/// does not say how they are compressed are looked at.
pub(super) fn convert_layers(
    from: &dyn Source,
    manifest: &Manifest,
    wanted: Option<Recompression>,
    workshop: &Workshop<'_>,
    known: &HashMap<Digest, Made>,
) -> Result<HashMap<Digest, Made>, ConvertError> {
    let mut made = HashMap::new();
    let mut tasks: Vec<(Task<'_>, Recompression)> = Vec::new();
    let mut config = None;
    for (n, layer) in manifest.layers().iter().enumerate() {
        let (digest, kind) = (digest_of(layer)?, layer.media_type().to_string());
        if known.contains_key(&digest)
            || made.contains_key(&digest)
            || tasks.iter().any(|(task, _)| task.digest == digest)
            || media_type::is_foreign_layer(&kind)
        {
            continue;
        }
        let current = match compression_of(&kind) {
            Some(current) => current,
            None => {
                let current = look_at(from, layer)
                    .map_err(|source| ConvertError::Layer { digest: digest.clone(), source })?;
                let size = layer.size();
                made.insert(digest.clone(), Made { digest: digest.clone(), size, kind: current, file: None });
                current
            }
        };
        let Some(wanted) = wanted.filter(|wanted| is_meant(wanted, current)) else { continue };
        if config.is_none() {
            config = Some(read_config(from, manifest.config())?);
        }
        let diff_id = config.as_ref().and_then(|config| config.rootfs.diff_ids.get(n)).cloned();
        let diff_id = diff_id.ok_or_else(|| ConvertError::Layer {
            digest: digest.clone(),
            source: "the config does not know it".into(),
        })?;
        tasks.push((Task { digest, layer, diff_id }, wanted));
    }
    if !tasks.is_empty() {
        let kind = if tasks[0].1.to == Compression::Zstd { "zstd" } else { "gzip" };
        workshop.report.event(Event::Note(format!("compressing {} layers with {kind}", tasks.len())));
        made.extend(run(from, &tasks, workshop)?);
    }
    Ok(made)
}

fn is_meant(wanted: &Recompression, current: Compression) -> bool {
    match wanted.which {
        Which::Plain => current == Compression::None && wanted.to != current,
        Which::Other => current != wanted.to,
        Which::All => true,
    }
}

/// How a layer is compressed, by its first bytes.
fn look_at(from: &dyn Source, layer: &Descriptor) -> Result<Compression, BoxError> {
    let (_, stream) = from.raw_blob(layer, 0)?;
    Ok(decompressor(Box::new(stream.take(16)))?.0)
}

fn read_config(from: &dyn Source, descriptor: &Descriptor) -> Result<ImageConfig, ConvertError> {
    let digest = digest_of(descriptor)?;
    let failed = |source: BoxError| ConvertError::Read { digest: digest.to_string(), source };
    if descriptor.size() > MAX_CONFIG_BYTES {
        return Err(failed("it is larger than 4 MiB".into()));
    }
    let (_, stream) = from.raw_blob(descriptor, 0).map_err(failed)?;
    let mut bytes = Vec::new();
    VerifiedReader::new(stream, digest.clone(), descriptor.size())
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.into()))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
}

/// Work on several layers at once. The first failure ends all.
fn run(
    from: &dyn Source,
    tasks: &[(Task<'_>, Recompression)],
    workshop: &Workshop<'_>,
) -> Result<HashMap<Digest, Made>, ConvertError> {
    let jobs = workshop.jobs.clamp(1, 16).min(tasks.len());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(jobs));
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<(HashMap<Digest, Made>, Option<ConvertError>)> = Mutex::default();
    let work = || {
        while !stop.load(Ordering::Relaxed)
            && let Some((task, wanted)) = tasks.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let result = convert_layer(from, task, *wanted, workshop, threads);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(made) => {
                    done.0.insert(task.digest.clone(), made);
                }
                Err(source) => {
                    stop.store(true, Ordering::Relaxed);
                    done.1.get_or_insert(ConvertError::Layer { digest: task.digest.clone(), source });
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for n in 1..jobs {
            // This thread works too: with no further thread to be had the work is slower, not broken.
            let _ = std::thread::Builder::new().name(format!("convert-{n}")).spawn_scoped(scope, work);
        }
        work();
    });
    let (made, failure) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(made), Err)
}

fn convert_layer(
    from: &dyn Source,
    task: &Task<'_>,
    wanted: Recompression,
    workshop: &Workshop<'_>,
    threads: usize,
) -> Result<Made, BoxError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match recompress(from, task, wanted, workshop, threads) {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let broke = error.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind::{InvalidData, StorageFull, Unsupported};
            !matches!(error.kind(), InvalidData | StorageFull | Unsupported) && error.raw_os_error().is_none()
        });
        if !broke || tries >= TRIES {
            return Err(error);
        }
        workshop.report.event(Event::Retry { digest: task.digest.clone(), why: error.to_string() });
    }
}

/// The layer's blob → its tar, both verified → the new blob.
fn recompress(
    from: &dyn Source,
    task: &Task<'_>,
    wanted: Recompression,
    workshop: &Workshop<'_>,
    threads: usize,
) -> Result<Made, BoxError> {
    let (_, stream) = from.raw_blob(task.layer, 0)?;
    let blob = VerifiedReader::new(stream, task.digest.clone(), task.layer.size());
    let (_, tar) = decompressor(Box::new(blob))?;
    let mut tar = HashingReader::with(tar, task.diff_id.digest().hasher());
    let file = (workshop.scratch)()?;
    let hashed = HashingWriter::new(io::BufWriter::with_capacity(BUFFER, file));
    let mut out = LayerWriter::new(hashed, wanted.to, wanted.level, threads)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => out.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (found, _) = tar.finish();
    if found != *task.diff_id.digest() {
        return Err(format!("its tar is {found}, while the config says {}", task.diff_id).into());
    }
    let (file, digest, size) = out.finish()?.finish();
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Made { digest, size, kind: wanted.to, file: Some(Arc::new(file)) })
}
