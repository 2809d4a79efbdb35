//! An archive that is read.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::blob::VerifiedSmall;
use super::decompress::is_compressed;
use super::files::{DirFiles, Files, read_small};
use super::old::Old;
use super::tarfile::{Tar, TarFiles};
use super::{Error, Format, MAX_DOCUMENT, MAX_TABLE, NO_TABLES, layout};
use crate::image::{BoxError, Source};
use crate::oci::{Descriptor, Digest, Platform, RawManifest, Reference, digest_of};

/// An image of an archive.
#[derive(Debug, Clone)]
pub struct ImageEntry {
    /// Its full names. Names that are only a tag, or no references, are among the labels alone.
    pub names: Vec<Reference>,
    /// What the archive calls it, word by word.
    pub labels: Vec<String>,
    /// What it runs on, where the table says so.
    pub platform: Option<Platform>,
    pub(super) at: At,
}

/// Where its manifest is.
#[derive(Debug, Clone)]
pub(super) enum At {
    Target(Box<Descriptor>),
    /// The nth of an old archive's table, whose manifest is made on demand.
    Made(usize),
}

/// An open archive. It is a [`Source`]: digests are verified by whoever takes the bytes in.
pub struct Reader {
    path: PathBuf,
    files: Box<dyn Files>,
    form: Form,
    images: Vec<ImageEntry>,
    gate: Option<Gate>,
    is_dir: bool,
}

/// Asks the user's policy about an image, as [`Source::admit`] does.
pub type Gate = Box<dyn Fn(Option<&Reference>, &[&RawManifest]) -> Result<(), BoxError> + Send + Sync>;

enum Form {
    /// An OCI layout, with or without docker's table.
    Layout,
    Dir,
    Old(Box<Old>),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.files.abandon();
    }
}

impl Reader {
    /// Open an archive: a tar, compressed (gzip, zstd, xz, bzip2) or not, or a directory. `-` is standard input.
    /// Without a form the content tells it. What cannot be read in place is kept in `scratch`, in files without names.
    ///
    /// # Errors
    /// When it cannot be read, or is no image archive.
    pub fn open(path: &Path, form: Option<Format>, scratch: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        if path.as_os_str() == "-" {
            let label = Path::new("standard input");
            let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
            return Self::open_file(File::from(stdin), label, form, scratch);
        }
        let meta = std::fs::metadata(path).map_err(failed)?;
        if meta.is_dir() {
            return Self::open_dir(path, form);
        }
        if form.is_some_and(Format::is_dir) {
            let what = "it is a file, not a directory".to_owned();
            return Err(Error::NotAnArchive { path: path.to_owned(), what });
        }
        Self::open_file(File::open(path).map_err(failed)?, path, form, scratch)
    }

    /// Open an archive that comes as a stream. `label` is what messages call it.
    ///
    /// # Errors
    /// When it cannot be read, or is no image archive.
    pub fn open_stream(input: Box<dyn Read + Send>, label: &Path, scratch: &Path) -> Result<Self, Error> {
        let tar = Tar::spool(label, input, scratch)?;
        Self::of_tar(label, TarFiles(tar), None, scratch)
    }

    fn open_file(mut file: File, path: &Path, form: Option<Format>, scratch: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        // Standard input may be a file in whose middle we are: then it is a stream.
        let at_start = file.metadata().is_ok_and(|meta| meta.is_file())
            && file.stream_position().is_ok_and(|at| at == 0);
        let mut head = [0_u8; 8];
        let known = if at_start { file.read_at(&mut head, 0).map_err(failed)? } else { 0 };
        let tar = if at_start && !is_compressed(&head[..known]) {
            Tar::index(path, file)?
        } else {
            Tar::spool(path, Box::new(file), scratch)?
        };
        Self::of_tar(path, TarFiles(tar), form, scratch)
    }

    fn new(path: &Path, files: Box<dyn Files>, is_dir: bool) -> Self {
        Self { path: path.to_owned(), files, form: Form::Layout, images: Vec::new(), gate: None, is_dir }
    }

    fn of_tar(path: &Path, files: TarFiles, form: Option<Format>, scratch: &Path) -> Result<Self, Error> {
        let files: Box<dyn Files> = Box::new(files);
        let mut reader = Self::new(path, files, false);
        if let Some(index) = reader.table("index.json")? {
            reader.images = layout::images(path, &index)?;
            return Ok(reader);
        }
        let Some(table) = reader.table("manifest.json")? else {
            if reader.table("repositories")?.is_some() {
                return Err(Error::TooOld(path.to_owned()));
            }
            return Err(Error::NotAnArchive { path: path.to_owned(), what: NO_TABLES.into() });
        };
        if form == Some(Format::OciArchive) {
            let what = "it is a docker archive, not an OCI one".to_owned();
            return Err(Error::NotAnArchive { path: path.to_owned(), what });
        }
        let old = Old::new(path, &table, scratch)?;
        reader.images = old.images();
        reader.form = Form::Old(Box::new(old));
        Ok(reader)
    }

    fn open_dir(path: &Path, form: Option<Format>) -> Result<Self, Error> {
        if form.is_some_and(|form| !form.is_dir()) {
            let what = "it is a directory, not a file".to_owned();
            return Err(Error::NotAnArchive { path: path.to_owned(), what });
        }
        let files: Box<dyn Files> = Box::new(DirFiles { root: path.to_owned() });
        let mut reader = Self::new(path, files, true);
        if form != Some(Format::Dir)
            && let Some(index) = reader.table("index.json")?
        {
            reader.images = layout::images(path, &index)?;
            return Ok(reader);
        }
        let manifest = match form {
            Some(Format::OciDir) => None,
            _ => reader.small("manifest.json", MAX_DOCUMENT)?,
        };
        let Some(bytes) = manifest else {
            let what = match form {
                Some(Format::OciDir) => "it has no index.json",
                Some(_) => "it has no manifest.json",
                None => NO_TABLES,
            };
            return Err(Error::NotAnArchive { path: path.to_owned(), what: what.into() });
        };
        let target = RawManifest::new(bytes, None)?.descriptor();
        let at = At::Target(Box::new(target));
        reader.images.push(ImageEntry { names: Vec::new(), labels: Vec::new(), platform: None, at });
        reader.form = Form::Dir;
        Ok(reader)
    }

    /// Have `gate` asked before an image is copied. This floor knows no policies: the caller brings them.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// The form it was found to have.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.form {
            Form::Dir => Format::Dir,
            Form::Old(_) => Format::DockerArchive,
            Form::Layout if self.is_dir => Format::OciDir,
            Form::Layout if self.files.seen("manifest.json") => Format::DockerArchive,
            Form::Layout => Format::OciArchive,
        }
    }

    /// Every image, in the archive's order: one for each descriptor of an OCI layout's index, one for each line of
    /// docker's old table.
    #[must_use]
    pub fn images(&self) -> &[ImageEntry] {
        &self.images
    }

    /// What messages call the archive.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The manifest or index of an image. For an archive in docker's old form this reads, checks and compresses its
    /// layers on first use.
    ///
    /// # Errors
    /// When the archive cannot be read or contradicts itself.
    pub fn target(&self, image: &ImageEntry) -> Result<Descriptor, Error> {
        match (&image.at, &self.form) {
            (At::Made(n), Form::Old(old)) => old.make(*n, self.files.as_ref()),
            (At::Target(target), _) => Ok(target.as_ref().clone()),
            (At::Made(n), _) => Err(Error::NoSuchImage {
                path: self.path.clone(),
                wanted: format!("@{n}"),
                offered: self.offered(),
            }),
        }
    }

    /// Find an image: by `@N` its place counted from 0, by what the archive calls it, by a reference. Without a name
    /// there must be only one, or one for this machine's platform among images without names.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub fn find(&self, name: Option<&str>) -> Result<&ImageEntry, Error> {
        let Some(wanted) = name else { return self.only() };
        let found = match wanted.strip_prefix('@') {
            Some(n) => n.parse().ok().and_then(|n: usize| self.images.get(n)),
            None => {
                let label = |image: &&ImageEntry| image.labels.iter().any(|label| label == wanted);
                let reference = Reference::parse(wanted).ok();
                let named = |image: &&ImageEntry| {
                    reference.as_ref().is_some_and(|wanted| image.names.contains(wanted))
                };
                self.images.iter().find(label).or_else(|| self.images.iter().find(named))
            }
        };
        found.ok_or_else(|| Error::NoSuchImage {
            path: self.path.clone(),
            wanted: wanted.to_owned(),
            offered: self.offered(),
        })
    }

    fn only(&self) -> Result<&ImageEntry, Error> {
        let same = |a: &ImageEntry, b: &ImageEntry| match (&a.at, &b.at) {
            (At::Target(a), At::Target(b)) => a.digest() == b.digest(),
            (At::Made(a), At::Made(b)) => a == b,
            _ => false,
        };
        match self.images.as_slice() {
            [] => Err(Error::NoSuchImage {
                path: self.path.clone(),
                wanted: "at all".into(),
                offered: Vec::new(),
            }),
            [first, rest @ ..] if rest.iter().all(|other| same(first, other)) => Ok(first),
            all => {
                let host = Platform::host();
                let fits = all
                    .iter()
                    .filter(|image| image.labels.is_empty())
                    .filter_map(|image| Some((image.platform.as_ref()?.fit(&host)?, image)));
                fits.min_by_key(|(fit, _)| *fit)
                    .map(|(_, image)| image)
                    .ok_or_else(|| Error::SeveralImages { path: self.path.clone(), offered: self.offered() })
            }
        }
    }

    fn offered(&self) -> Vec<String> {
        let shown = |(n, image): (usize, &ImageEntry)| match (image.names.first(), image.labels.first()) {
            (Some(name), _) => format!("`{}`", name.familiar()),
            (None, Some(label)) => format!("`{label}`"),
            (None, None) => format!("`@{n}`"),
        };
        self.images.iter().enumerate().map(shown).collect()
    }

    /// Wait until an archive that comes as a stream has been read to its end.
    ///
    /// # Errors
    /// When it is cut off or damaged there.
    pub fn finish(&self) -> Result<(), Error> {
        self.files.finish()
    }

    fn table(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.small(name, MAX_TABLE)
    }

    fn small(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        read_small(self.files.as_ref(), &self.path, name, limit)
    }

    /// Where the bytes of a digest may be, the likelier place first.
    fn places(&self, digest: &Digest) -> Vec<String> {
        match &self.form {
            Form::Dir => vec![digest.hex().to_owned(), format!("{}.manifest.json", digest.hex())],
            _ => vec![format!("blobs/{}/{}", digest.algorithm(), digest.hex())],
        }
    }

    fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<(u64, Box<dyn Read + Send>), Error> {
        let digest = digest_of(descriptor)?;
        if let Form::Old(old) = &self.form {
            return old.blob(&digest, offset, self.files.as_ref());
        }
        for place in self.places(&digest) {
            let Some((size, stream)) = self.files.open(&place, offset)? else { continue };
            if size != descriptor.size() {
                let source = crate::layer::Error::Size { expected: descriptor.size(), found: size };
                return Err(Error::Corrupt { path: self.path.clone(), file: place, source });
            }
            return Ok((offset.min(size), stream));
        }
        let file = self.places(&digest).swap_remove(0);
        Err(Error::Missing { path: self.path.clone(), file })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<RawManifest, Error> {
        let digest = digest_of(descriptor)?;
        let media_type = descriptor.media_type().to_string();
        // The table of a `dir:` is the manifest itself.
        if let (Form::Dir, Some(bytes)) = (&self.form, self.small("manifest.json", MAX_DOCUMENT)?)
            && Digest::sha256(&bytes) == digest
        {
            return Ok(RawManifest::new(bytes, Some(&media_type))?);
        }
        let (_, stream) = self.blob(descriptor, 0)?;
        let file = || self.places(&digest).swap_remove(0);
        let bytes = VerifiedSmall { limit: MAX_DOCUMENT }
            .read(stream, &digest, descriptor.size())
            .map_err(|source| Error::Corrupt { path: self.path.clone(), file: file(), source })?;
        Ok(RawManifest::new(bytes, Some(&media_type))?)
    }
}

impl Source for Reader {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, BoxError> {
        let image = self.images.iter().find(|image| image.names.contains(reference));
        let image = image.ok_or_else(|| Error::NoSuchImage {
            path: self.path.clone(),
            wanted: reference.familiar(),
            offered: self.offered(),
        })?;
        Ok(self.target(image)?)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        Ok(self.document(descriptor)?)
    }

    fn admit(&self, name: Option<&Reference>, documents: &[&RawManifest]) -> Result<(), BoxError> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate(name, documents))
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        Ok(self.blob(descriptor, offset)?)
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        let digest = digest_of(descriptor)?;
        if let Form::Old(old) = &self.form {
            return Ok(old.has(&digest));
        }
        for place in self.places(&digest) {
            if self.files.open(&place, 0)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
