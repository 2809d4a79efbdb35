//! `load`: the images of an archive come into the store, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::Store;
use crate::archive::{self, Format, ImageEntry, Reader};
use crate::context::Context;
use crate::image::{BoxError, CopyError, Location, Platforms, Reporter, Selection, Source, What, copy};
use crate::oci::{Descriptor, ImageConfig, Parsed, Platform, Reference};
use crate::storage;

/// So many images get their names together at most, and so long the first of them waits.
const TOGETHER: usize = 64;
const PATIENCE: Duration = Duration::from_secs(1);

/// What to load.
#[derive(Debug)]
pub struct Request {
    /// An archive or directory; `-` is standard input.
    pub input: PathBuf,
    /// Which images of an index; none means all that are there.
    pub platforms: Vec<Platform>,
}

/// One image that is here now.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its names, as docker shows them.
    pub names: Vec<String>,
    /// The digest of its config; of an index, the digest of that.
    pub id: String,
    /// Names that stood for another image before, with that image's id.
    pub moved: Vec<(String, String)>,
    /// What the archive calls it beyond that, which is no name of an image.
    pub unused: Vec<String>,
}

/// Why a load ended early. Images that were reported before are here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is unusable.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// An image of it could not be brought over.
    #[error("cannot load `{image}`")]
    Copy {
        /// What the archive calls it.
        image: String,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// The image is for another platform than those asked for.
    #[error("`{image}` is for {found}, not for what was asked for")]
    Platform {
        /// What the archive calls it.
        image: String,
        /// What it is for.
        found: Platform,
    },
    /// A name could not be given.
    #[error("cannot name an image `{name}`")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The archive holds no images.
    #[error("`{}` holds no images", .0.display())]
    Empty(PathBuf),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Load every image of an archive. Each is told to `done` as soon as it is here under its names.
///
/// # Errors
/// See [`Error`].
pub fn load(
    cx: &Context,
    request: &Request,
    report: &dyn Reporter,
    done: &mut dyn FnMut(Loaded),
) -> Result<(), Error> {
    let store = super::store::write_plainly(cx)?;
    let scratch = store.scratch_dir()?;
    let reader = Reader::open(&request.input, None, scratch.path())?;
    let gate = super::remote::gate(cx, &location(&reader, &request.input));
    let reader = reader.with_gate(gate);
    let images = images(&reader)?;
    if images.is_empty() {
        return Err(Error::Empty(reader.path().to_owned()));
    }
    let mut arrived = Arrived::new(&store);
    for image in images {
        let one = bring(&store, &reader, image, &request.platforms, report);
        // Those that came before it are here, whatever has become of this one.
        if one.is_err() || arrived.are_due() {
            arrived.name_all(done)?;
        }
        arrived.add(one?);
    }
    arrived.name_all(done)?;
    // Whoever writes into our pipe has ended too, or has said that it broke.
    reader.finish()?;
    store.settle()?;
    Ok(())
}

/// Take in the one image of an OCI layout under the names given.
///
/// # Errors
/// See [`Error`].
pub(super) fn load_as(
    cx: &Context,
    store: &Store,
    dir: &Path,
    names: Vec<Reference>,
    report: &dyn Reporter,
) -> Result<Loaded, Error> {
    let reader = Reader::open(dir, None, dir)?;
    let gate = super::remote::gate(cx, &location(&reader, dir));
    let reader = reader.with_gate(gate);
    let entry = reader.images().first().ok_or_else(|| Error::Empty(dir.to_owned()))?;
    let target = reader.target(entry)?;
    let one = bring(store, &reader, Image { target, names, unused: Vec::new() }, &[], report)?;
    let mut arrived = Arrived::new(store);
    arrived.add(one);
    let mut loaded = None;
    arrived.name_all(&mut |one| loaded = Some(one))?;
    loaded.ok_or_else(|| Error::Empty(dir.to_owned()))
}

/// The place that the user's policy is asked about.
fn location(reader: &Reader, path: &Path) -> Location {
    let path = path.to_owned();
    match reader.format() {
        Format::DockerArchive => Location::DockerArchive { path, name: None },
        Format::OciArchive => Location::OciArchive { path, name: None },
        Format::OciDir => Location::OciDir { path, name: None },
        Format::Dir => Location::Dir(path),
    }
}

/// One image of an archive with all of its names.
struct Image {
    target: Descriptor,
    names: Vec<Reference>,
    unused: Vec<String>,
}

impl Image {
    fn label(&self) -> String {
        let name = self.names.first().map(Reference::familiar);
        name.or_else(|| self.unused.first().cloned()).unwrap_or_else(|| self.target.digest().to_string())
    }
}

/// Each image once: an archive lists one once for each name.
fn images(reader: &Reader) -> Result<Vec<Image>, Error> {
    let mut images: Vec<Image> = Vec::new();
    for entry in reader.images() {
        let target = reader.target(entry)?;
        let at = match images.iter().position(|image| image.target.digest() == target.digest()) {
            Some(at) => at,
            None => {
                images.push(Image { target, names: Vec::new(), unused: Vec::new() });
                images.len() - 1
            }
        };
        let image = &mut images[at];
        for name in &entry.names {
            if !image.names.contains(name) {
                image.names.push(name.clone());
            }
        }
        image.unused.extend(unused(entry));
    }
    Ok(images)
}

/// Labels that name nothing: a bare tag beside a full name is part of that.
fn unused(entry: &ImageEntry) -> Vec<String> {
    let used = |label: &str| {
        Reference::parse(label).is_ok_and(|name| entry.names.contains(&name))
            || entry.names.iter().any(|name| name.tag() == Some(label))
    };
    entry.labels.iter().filter(|label| !used(label)).cloned().collect()
}

/// An image whose content is here and whose names are not.
struct Brought {
    image: Image,
    target: Descriptor,
    id: String,
}

/// Images that wait for their names. A list of names is written and synced as a whole: many small images get theirs
/// together, and nobody waits long to hear of one.
struct Arrived<'a> {
    store: &'a Store,
    waiting: Vec<Brought>,
    since: Instant,
}

impl<'a> Arrived<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, waiting: Vec::new(), since: Instant::now() }
    }

    fn add(&mut self, one: Brought) {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.push(one);
    }

    fn are_due(&self) -> bool {
        self.waiting.len() >= TOGETHER || self.since.elapsed() >= PATIENCE
    }

    /// Give all of them their names, and tell it.
    fn name_all(&mut self, done: &mut dyn FnMut(Loaded)) -> Result<(), Error> {
        let Some(first) = self.waiting.first() else { return Ok(()) };
        let label = first.image.label();
        let record = |record: crate::storage::ImageRecord| {
            let name = record.name.as_ref()?.to_string();
            Some((name, (record.target.digest().to_string(), record.id.to_string())))
        };
        let mut before: BTreeMap<String, (String, String)> =
            self.store.images()?.into_iter().filter_map(record).collect();
        let all: Vec<_> =
            self.waiting.iter().map(|one| (one.target.clone(), one.image.names.clone())).collect();
        self.store.set_names(&all).map_err(|source| Error::Name { name: label, source: source.into() })?;
        for one in std::mem::take(&mut self.waiting) {
            let target = one.target.digest().to_string();
            let mut moved = Vec::new();
            for name in &one.image.names {
                let now = (target.clone(), one.id.clone());
                if let Some((old, id)) =
                    before.insert(name.to_string(), now).filter(|(old, _)| *old != target)
                {
                    drop(old);
                    moved.push((name.familiar(), id));
                }
            }
            let names = one.image.names.iter().map(Reference::familiar).collect();
            done(Loaded { names, id: one.id, moved, unused: one.image.unused });
        }
        Ok(())
    }
}

/// Bring over what an image needs.
fn bring(
    store: &Store,
    reader: &Reader,
    image: Image,
    platforms: &[Platform],
    report: &dyn Reporter,
) -> Result<Brought, Error> {
    let label = image.label();
    let failed = |source| Error::Copy { image: label.clone(), source };
    if !platforms.is_empty() {
        check_platform(reader, &image.target, platforms, &label)?;
    }
    let selection = Selection {
        from: What::Found { label: label.clone(), target: image.target.clone() },
        to: None,
        platforms: match platforms {
            [] => Platforms::Present,
            wanted => Platforms::Only(wanted.to_vec()),
        },
        jobs: super::pull::JOBS,
    };
    let copied = copy(reader, store, &selection, report).map_err(failed)?;
    let id = copied.id.as_ref().map_or_else(|| copied.target.digest().to_string(), ToString::to_string);
    Ok(Brought { image, target: copied.target, id })
}

/// A single image is only taken when it is for one of the platforms; an index is looked at by the copy.
pub(super) fn check_platform(
    source: &dyn Source,
    target: &Descriptor,
    wanted: &[Platform],
    label: &str,
) -> Result<(), Error> {
    let failed = |source| Error::Copy {
        image: label.to_owned(),
        source: CopyError::Source { reference: label.to_owned(), source },
    };
    let raw = source.manifest(target).map_err(failed)?;
    let Ok(Parsed::Manifest(manifest)) = raw.parse() else { return Ok(()) };
    let (_, stream) = source.raw_blob(manifest.config(), 0).map_err(failed)?;
    // The copy reads it again, verified, and says what is wrong with it.
    let Ok(config) = serde_json::from_reader::<_, ImageConfig>(std::io::Read::take(stream, 4 << 20)) else {
        return Ok(());
    };
    let found = config.platform();
    if config.os.is_empty() || wanted.iter().any(|wanted| found.fit(wanted).is_some()) {
        return Ok(());
    }
    Err(Error::Platform { image: label.to_owned(), found })
}
