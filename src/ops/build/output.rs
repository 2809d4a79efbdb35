//! Where the result of a build goes: the store, a registry, a directory, a tar, an archive.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::{Arch, ImageIndexBuilder, Os, PlatformBuilder};

use super::{BuildRequest, Error};
use crate::archive::{self, Member, Writer};
use crate::build::{self, LocalExport, Made, Rewriting, Workshop};
use crate::context::Context;
use crate::image::{BoxError, Location, Platforms, Selection, Sink as _, What, copy};
use crate::oci::{Descriptor, Digest, ImageId, Platform, RawManifest, Reference, media_type};
use crate::ops::manifest;
use crate::ops::push::{self, PushRequest};
use crate::storage::{Image, Store};
use crate::sys::{SysError, atomic, fds};

pub use crate::archive::Format;
pub use crate::build::{NewCompression, Times};

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The store, under the names of the build and these, and from there to registries.
    Image {
        /// Further names.
        names: Vec<Reference>,
        /// Push every name.
        push: bool,
        /// How layers are made.
        layers: Layers,
    },
    /// The files, in a directory.
    Local {
        /// The directory, which is made when it is not there.
        dest: PathBuf,
        /// A directory for each platform; by default when there are several.
        split: Option<bool>,
        /// Remove from the directory what the result does not have.
        delete: bool,
    },
    /// The files, as a tar.
    Tar {
        /// A file; `-` is standard output.
        dest: PathBuf,
        /// A directory for each platform; by default when there are several.
        split: Option<bool>,
    },
    /// The image in a file, or for [`Format::OciDir`] in a directory.
    Archive {
        /// The form.
        format: Format,
        /// The file; `-` is standard output.
        dest: PathBuf,
        /// Further names.
        names: Vec<Reference>,
        /// How layers are made.
        layers: Layers,
    },
    /// Nowhere: what was built is in the build cache.
    Nothing,
}

impl Output {
    /// The store, under the names of the build.
    #[must_use]
    pub fn image() -> Self {
        Self::Image { names: Vec::new(), push: false, layers: Layers::default() }
    }

    /// Whether it takes standard output.
    #[must_use]
    pub fn takes_stdout(&self) -> bool {
        match self {
            Self::Tar { dest, .. } | Self::Archive { dest, .. } => dest.as_os_str() == "-",
            _ => false,
        }
    }
}

/// How the layers of an output are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layers {
    /// Their compression; `None` as the build makes them.
    pub compression: Option<NewCompression>,
    /// The base's layers too.
    pub force: bool,
    /// The times of their files.
    pub times: Times,
    /// docker's media types and not the OCI ones.
    pub docker_types: bool,
}

/// The image of a build, as it is told of.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The image's id; of several platforms the digest of their index.
    pub id: ImageId,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its size in bytes and its media type.
    pub descriptor: (u64, String),
    /// Its names.
    pub names: Vec<Reference>,
}

/// Why a result did not get where it should.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A place cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The place.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Emptying a directory would remove more than the last result.
    #[error("refusing to remove everything else from `{}`: {why}", path.display())]
    Delete {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// Files of two platforms would go to one place.
    #[error("cannot put the files of {0} platforms into one directory")]
    OnePlace(usize),
    /// An annotation for an index that is not made.
    #[error("index annotations not supported for single platform export")]
    NoIndex,
    /// docker's archives hold one platform.
    #[error("docker exporter does not currently support exporting manifest lists")]
    DockerIndex,
    /// A push without a name.
    #[error("a tag is needed when pushing to a registry")]
    NoName,
    /// The files cannot be handed out.
    #[error(transparent)]
    Export(#[from] build::ExportError),
    /// The layers cannot be made.
    #[error(transparent)]
    Rewrite(#[from] build::RewriteError),
    /// The archive cannot be written.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The image cannot be copied to its place.
    #[error(transparent)]
    Copy(#[from] crate::image::CopyError),
    /// The image cannot be pushed.
    #[error(transparent)]
    Push(#[from] push::Error),
    /// The image cannot be added to the index.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::storage::Error),
    /// An index cannot be made or named.
    #[error("cannot make an index of the images")]
    Index(#[source] BoxError),
}

/// Everything a delivery needs.
pub(super) struct Delivery<'a> {
    pub cx: &'a Context,
    pub store: &'a Store,
    pub shop: Workshop<'a>,
    pub request: &'a BuildRequest,
    /// An index is made even of one image.
    pub index: bool,
}

impl Delivery<'_> {
    /// Put the result of each platform where it was asked for.
    pub(super) fn deliver(&self, made: Vec<Made>) -> Result<Option<BuiltImage>, Error> {
        let default = [Output::image()];
        let outputs = if self.request.outputs.is_empty() { &default[..] } else { &self.request.outputs };
        let mut told = None;
        for output in outputs {
            let work = self.shop.board.begin(title(output).into(), false);
            let result = match output {
                Output::Image { names, push, layers } => {
                    self.image(&made, names, *push, *layers, &work).map(Some)
                }
                Output::Local { dest, split, delete } => {
                    self.local(&made, dest, *split, *delete).map(|()| None)
                }
                Output::Tar { dest, split } => self.tar(&made, dest, *split).map(|()| None),
                Output::Archive { format, dest, names, layers } => {
                    self.archive(&made, *format, dest, names, *layers, &work).map(Some)
                }
                Output::Nothing => Ok(None),
            };
            work.ended(&result);
            told = told.or(result?);
        }
        Ok(told)
    }

    fn names(&self, more: &[Reference]) -> Vec<Reference> {
        let mut names = self.request.names.clone();
        names.extend(more.iter().filter(|name| !self.request.names.contains(name)).cloned());
        names
    }

    fn image(
        &self,
        made: &[Made],
        more: &[Reference],
        push: bool,
        layers: Layers,
        work: &build::Work<'_>,
    ) -> Result<BuiltImage, OutputError> {
        let names = self.names(more);
        if push && names.is_empty() {
            return Err(OutputError::NoName);
        }
        let (built, images) = if self.is_single(made)? {
            let made = self.remade(&made[0], layers)?;
            // An index that holds the image keeps it, so it needs no entry of its own.
            let held = names.is_empty() && self.request.manifest.is_some();
            let image = match held {
                true => self.store.keep_image(made.edit)?,
                false => self.store.publish_image(made.edit, &names)?,
            };
            (described(&image, names), vec![image.raw])
        } else {
            let (built, images) = self.index_of(made, layers, names)?;
            if built.names.is_empty() && self.request.manifest.is_none() {
                // Each stays reachable by its id, as there is no name for all.
                for made in made {
                    let made = self.remade(made, layers)?;
                    self.store.publish_image(made.edit, &[])?;
                }
            }
            (built, images)
        };
        work.note(format!("writing image {}", built.id));
        for name in &built.names {
            work.note(format!("naming to {name}"));
        }
        if let Some(name) = &self.request.manifest {
            manifest::gather(self.store, name, &images, &work.parts())?;
            work.note(format!("adding to index {name}"));
        }
        if push {
            self.push(&built.names, work)?;
        }
        Ok(built)
    }

    /// Whether the result is an image and no index.
    fn is_single(&self, made: &[Made]) -> Result<bool, OutputError> {
        let single = made.len() == 1 && !self.index;
        if single && !self.request.index_annotations.is_empty() {
            return Err(OutputError::NoIndex);
        }
        Ok(single)
    }

    fn push(&self, names: &[Reference], work: &build::Work<'_>) -> Result<(), OutputError> {
        for name in names {
            work.note(format!("pushing {name}"));
            let request = PushRequest {
                image: name.to_string(),
                destinations: vec![Location::Registry(name.clone())],
                remote: self.request.remote.clone(),
                ..PushRequest::default()
            };
            push::push_all(self.cx, &request, &work.parts())?;
        }
        Ok(())
    }

    /// With layers as they are asked for, and the annotations.
    fn remade(&self, made: &Made, layers: Layers) -> Result<Made, OutputError> {
        let mut made = made.clone();
        let Layers { compression, force, times, docker_types } = layers;
        let how = Rewriting { compression, force, times };
        build::rewrite(self.store, &mut made, &how)?;
        made.edit.docker_types = docker_types || self.request.docker_types;
        made.edit.annotations.extend(self.request.annotations.clone());
        Ok(made)
    }

    /// The images of all platforms and an index of them, under the names.
    fn index_of(
        &self,
        made: &[Made],
        layers: Layers,
        names: Vec<Reference>,
    ) -> Result<(BuiltImage, Vec<RawManifest>), OutputError> {
        let mut images = Vec::new();
        for made in made {
            images.push(self.store.keep_image(self.remade(made, layers)?.edit)?);
        }
        let raw = index(&images, &self.request.index_annotations).map_err(OutputError::Index)?;
        self.store.put_bytes(media_type::OCI_INDEX, &raw.bytes)?;
        for name in &names {
            self.store.set_name(name, &raw.descriptor()).map_err(OutputError::Index)?;
        }
        let built = BuiltImage {
            id: ImageId(raw.digest.clone()),
            descriptor: (raw.bytes.len() as u64, raw.media_type),
            digest: raw.digest,
            names,
        };
        Ok((built, images.into_iter().map(|image| image.raw).collect()))
    }

    fn archive(
        &self,
        made: &[Made],
        format: Format,
        dest: &Path,
        more: &[Reference],
        layers: Layers,
        work: &build::Work<'_>,
    ) -> Result<BuiltImage, OutputError> {
        let names = self.names(more);
        let single = self.is_single(made)?;
        let (target, built) = if single {
            let image = self.store.keep_image(self.remade(&made[0], layers)?.edit)?;
            (image.raw.descriptor(), described(&image, names))
        } else if format == Format::DockerArchive {
            return Err(OutputError::DockerIndex);
        } else {
            let (built, _) = self.index_of(made, layers, Vec::new())?;
            let target = crate::oci::descriptor(&built.descriptor.1, &built.digest, built.descriptor.0);
            (target, BuiltImage { names, ..built })
        };
        self.pack(&target, &built.names, format, dest, work)?;
        Ok(built)
    }

    fn pack(
        &self,
        target: &Descriptor,
        names: &[Reference],
        format: Format,
        dest: &Path,
        work: &build::Work<'_>,
    ) -> Result<(), OutputError> {
        let stdout = dest.as_os_str() == "-";
        let dest = if stdout { dest.to_owned() } else { self.cx.cwd.join(dest) };
        let writer = Writer::create(&dest, format)?;
        let names = names.iter().map(ToString::to_string).collect();
        let member = Member { names, target: target.clone() };
        writer.announce(self.store, &[member], &Platforms::All)?;
        let selection = Selection {
            from: What::Found { label: "what was built".into(), target: target.clone() },
            to: None,
            platforms: Platforms::All,
            jobs: writer.jobs(),
        };
        copy(self.store, &writer, &selection, &work.parts())?;
        Ok(writer.finish()?)
    }

    fn local(
        &self,
        made: &[Made],
        dest: &Path,
        split: Option<bool>,
        delete: bool,
    ) -> Result<(), OutputError> {
        let dest = self.cx.cwd.join(dest);
        let split = split.unwrap_or(made.len() > 1);
        if made.len() > 1 && !split {
            return Err(OutputError::OnePlace(made.len()));
        }
        for made in made {
            let dest = if split { dest.join(directory(&made.platform)) } else { dest.clone() };
            let failed = |source| OutputError::Write { path: dest.clone(), source };
            fs::create_dir_all(&dest).map_err(failed)?;
            let dir = File::open(&dest).map_err(failed)?;
            if delete {
                self.may_empty(&dest)?;
            }
            build::export_local(&self.shop, made, &dir, LocalExport { delete })?;
        }
        Ok(())
    }

    /// Directories that nobody means when they say "make it like the result".
    fn may_empty(&self, dest: &Path) -> Result<(), OutputError> {
        let failed = |source| OutputError::Write { path: dest.to_owned(), source };
        let real = fs::canonicalize(dest).map_err(failed)?;
        let refused = |why| OutputError::Delete { path: dest.to_owned(), why };
        if self.cx.cwd.starts_with(&real) {
            return Err(refused("it holds the working directory"));
        }
        if self.cx.home.as_ref().is_some_and(|home| home.starts_with(&real)) {
            return Err(refused("it holds the home directory"));
        }
        if self.store.root().starts_with(&real) {
            return Err(refused("it holds the store"));
        }
        Ok(())
    }

    fn tar(&self, made: &[Made], dest: &Path, split: Option<bool>) -> Result<(), OutputError> {
        let split = split.unwrap_or(made.len() > 1);
        if made.len() > 1 && !split {
            return Err(OutputError::OnePlace(made.len()));
        }
        let prefix = |made: &Made| if split { directory(&made.platform) } else { String::new() };
        let results: Vec<(Made, String)> = made.iter().map(|made| (made.clone(), prefix(made))).collect();
        whole(self.cx, dest, |out| Ok(build::export_tar(&self.shop, &results, out)?))
    }
}

/// Write a file that appears only when it is whole; pipes, devices and standard output (`-`) take it as it comes.
fn whole(
    cx: &Context,
    dest: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    let stdout = dest.as_os_str() == "-";
    let path = if stdout { "standard output".into() } else { cx.cwd.join(dest) };
    let failed = |source| OutputError::Write { path: path.clone(), source };
    if stdout || fs::metadata(&path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        let out = if stdout { fds::own_stdout() } else { File::create(&path) }.map_err(failed)?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        write(&mut out)?;
        return out.flush().map_err(failed);
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    let temp = tempfile::Builder::new().prefix(".strate-").tempfile_in(dir).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, temp);
    write(&mut out)?;
    let temp = out.into_inner().map_err(|error| failed(error.into_error()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temp.as_file().set_permissions(mode).map_err(failed)?;
    let synced = |error: SysError| failed(error.source);
    atomic::sync_file(temp.as_file(), &path).map_err(synced)?;
    temp.persist(&path).map_err(|error| failed(error.error))?;
    atomic::sync_dir(dir).map_err(synced)
}

fn title(output: &Output) -> &'static str {
    match output {
        Output::Image { .. } => "exporting to image",
        Output::Local { .. } => "exporting to client directory",
        Output::Tar { .. } => "exporting to client tarball",
        Output::Archive { format: Format::DockerArchive, .. } => "exporting to docker image format",
        Output::Archive { .. } => "exporting to oci image format",
        Output::Nothing => "keeping the result in the build cache",
    }
}

fn described(image: &Image, names: Vec<Reference>) -> BuiltImage {
    BuiltImage {
        id: image.id.clone(),
        digest: image.raw.digest.clone(),
        descriptor: (image.raw.bytes.len() as u64, image.raw.media_type.clone()),
        names,
    }
}

/// `linux_amd64`, as BuildKit names the directory of a platform.
fn directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

fn index(images: &[Image], annotations: &BTreeMap<String, String>) -> Result<RawManifest, BoxError> {
    let mut manifests = Vec::new();
    for image in images {
        let config = &image.config;
        let mut platform = PlatformBuilder::default()
            .os(Os::from(config.os.as_str()))
            .architecture(Arch::from(config.architecture.as_str()));
        if let Some(variant) = config.variant.as_deref().filter(|variant| !variant.is_empty()) {
            platform = platform.variant(variant);
        }
        let mut descriptor = image.raw.descriptor();
        descriptor.set_platform(Some(platform.build()?));
        manifests.push(descriptor);
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(media_type::OCI_INDEX)
        .manifests(manifests)
        .build()?;
    if annotations.is_empty() {
        return Ok(RawManifest::from_index(&index)?);
    }
    let mut document = serde_json::to_value(&index)?;
    document["annotations"] = serde_json::to_value(annotations)?;
    Ok(RawManifest::new(serde_json::to_vec_pretty(&document)?, None)?)
}
