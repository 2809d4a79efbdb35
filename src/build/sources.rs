//! Where steps take files from: the context, named contexts, stages and images; opened when first needed, kept for the
//! whole build.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};

use super::checksum::Checksums;
use super::copy::{CopyError, failed};
use super::error::Error;
use super::ignore::{IgnoreFile, Matcher};
use super::record::Key;
use super::remote::ContextDir;
use super::select::{Excluding, picks_but};
use super::stat_cache::{StatCache, record_name};
use super::state::chain;
use super::tree::{Filter, OwnerLookup, Owners, Tree};
use crate::image::Reporter;
use crate::oci::{Descriptor, DiffId};
use crate::storage::{Stack, Store};

/// The layers of a stage or an image.
pub type Layers = Vec<(Descriptor, DiffId)>;

/// A place that files come from.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A directory of the host.
    Local(Rc<Local>),
    /// A stage or an image.
    Layered(Rc<Layered>),
}

/// A context.
#[derive(Debug)]
pub(super) struct Local {
    /// Whether an ignore file hides something.
    pub filtered: bool,
    /// Holds a directory that was made for this build; what is learned about its files is not kept.
    held: Option<Arc<tempfile::TempDir>>,
    tree: Tree,
    cache: Mutex<StatCache>,
}

/// A stage or an image.
#[derive(Debug)]
pub(super) struct Layered {
    /// Its layers.
    pub layers: Layers,
    /// What it is called in errors.
    name: String,
    opened: std::cell::OnceCell<Opened>,
}

#[derive(Debug)]
struct Opened {
    tree: Tree,
    /// Keeps the directory of an empty tree.
    _empty: Option<tempfile::TempDir>,
}

/// Opens places and remembers them.
pub(super) struct Sources<'a> {
    store: &'a Store,
    report: &'a dyn Reporter,
    local: BTreeMap<PathBuf, Rc<Local>>,
    layered: BTreeMap<String, Rc<Layered>>,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("local", &self.local).finish_non_exhaustive()
    }
}

impl<'a> Sources<'a> {
    /// None yet.
    pub(super) fn new(store: &'a Store, report: &'a dyn Reporter) -> Self {
        Self { store, report, local: BTreeMap::new(), layered: BTreeMap::new() }
    }

    /// A directory of the host, seen through the patterns of an ignore file.
    pub(super) fn directory(&mut self, dir: &ContextDir, ignore: Option<&[u8]>) -> Result<Origin, Error> {
        let path = dir.path.as_path();
        if let Some(known) = self.local.get(path) {
            return Ok(Origin::Local(Rc::clone(known)));
        }
        let read = |source: std::io::Error| Error::Read { place: path.display().to_string(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| read(errno.into()))?;
        let matcher = match ignore {
            Some(bytes) => IgnoreFile::parse(bytes).map_err(|error| Error::Rule(error.to_string()))?,
            None => Matcher::default(),
        };
        let filtered = !matcher.is_empty();
        let filter = filtered.then(|| Box::new(Excluding(matcher)) as Box<dyn Filter>);
        let known = match dir.held {
            Some(_) => None,
            None => self.store.cache_get(&record_name(path))?,
        };
        let owners = match dir.owners.clone() {
            None => Owners::Root,
            Some(table) => Owners::Kept(Box::new(move |path| table.get(path))),
        };
        let local = Rc::new(Local {
            filtered,
            held: dir.held.clone(),
            tree: Tree::new(root, owners, filter),
            cache: Mutex::new(known.map(|bytes| StatCache::from_bytes(&bytes)).unwrap_or_default()),
        });
        self.local.insert(path.to_owned(), Rc::clone(&local));
        Ok(Origin::Local(local))
    }

    /// The ignore file at the root of a named context; a link in its place does not lead out of it.
    pub(super) fn own_ignore(path: &Path) -> Result<Option<Vec<u8>>, Error> {
        let read = |source| Error::Read { place: path.join(".dockerignore").display().to_string(), source };
        super::read_inside(path, Path::new(".dockerignore")).map_err(read)
    }

    /// The files of a stage or an image.
    pub(super) fn layers(&mut self, name: &str, layers: Layers) -> Origin {
        let known = self.layered.entry(chain(&layers)).or_insert_with(|| {
            Rc::new(Layered { layers, name: name.to_owned(), opened: std::cell::OnceCell::new() })
        });
        Origin::Layered(Rc::clone(known))
    }

    /// The files themselves.
    pub(super) fn tree<'o>(&self, origin: &'o Origin) -> Result<&'o Tree, Error> {
        match origin {
            Origin::Local(local) => Ok(&local.tree),
            Origin::Layered(layered) => {
                if let Some(opened) = layered.opened.get() {
                    return Ok(&opened.tree);
                }
                let opened = self.mount(&layered.layers)?;
                Ok(&layered.opened.get_or_init(|| opened).tree)
            }
        }
    }

    fn mount(&self, layers: &Layers) -> Result<Opened, Error> {
        if layers.is_empty() {
            let dir = self.store.scratch_dir()?;
            let root = std::fs::File::open(dir.path())
                .map_err(|source| Error::Read { place: "scratch".into(), source })?;
            let tree = Tree::new(OwnedFd::from(root), Owners::Root, None);
            return Ok(Opened { tree, _empty: Some(dir) });
        }
        let stack = self.store.stack_of(layers, self.report)?;
        let mounted = self.store.mount_read_only(&stack)?;
        let tree = Tree::new(mounted.root, Owners::Kept(owner_lookup(stack)), None);
        Ok(Opened { tree, _empty: None })
    }

    /// The digest of what a source argument stands for. What was computed for a stage or an image is remembered under
    /// its chain id, so that nothing is mounted when it is asked for again.
    pub(super) fn digest(
        &self,
        origin: &Origin,
        source: &str,
        parents: bool,
        exclude: &[String],
    ) -> Result<[u8; 32], Error> {
        let memo = match origin {
            Origin::Local(_) => None,
            Origin::Layered(layered) => {
                let mut key = Key::new("checksum");
                key.text(&chain(&layered.layers)).text(source).text(if parents { "parents" } else { "" });
                Some(key.list(exclude).finish("sum"))
            }
        };
        if let Some(known) = memo.as_ref().map(|key| self.store.cache_get(key)).transpose()?.flatten()
            && let Ok(digest) = known.as_slice().try_into()
        {
            return Ok(digest);
        }
        let digest = self.compute(origin, source, parents, exclude)?;
        if let Some(key) = memo {
            self.store.cache_put(&key, &digest, &[], "content of a source of a copy")?;
        }
        Ok(digest)
    }

    fn compute(
        &self,
        origin: &Origin,
        source: &str,
        parents: bool,
        exclude: &[String],
    ) -> Result<[u8; 32], Error> {
        use sha2::Digest as _;
        let tree = self.tree(origin)?;
        let input = |source: CopyError| Error::Input { place: origin.name().to_owned(), source };
        let exclude = excluding(exclude)?;
        let cache = match origin {
            Origin::Local(local) => Some(&local.cache),
            Origin::Layered(_) => None,
        };
        let mut checksums = Checksums::new(tree, cache);
        let mut hash = sha2::Sha256::new();
        for pick in picks_but(tree, source, parents, exclude.as_ref())? {
            let found =
                tree.resolve(&pick.path, true).map_err(failed("look at", &pick.path)).map_err(input)?;
            let shown = || pick.path.strip_prefix("/").unwrap_or(&pick.path).to_owned();
            let stat = found.stat.ok_or_else(|| input(CopyError::NotFound(shown())))?;
            let mut filters: Vec<&dyn Filter> = Vec::new();
            filters.extend(exclude.as_ref().map(|filter| filter as &dyn Filter));
            filters.extend(pick.include.as_ref().map(|filter| filter as &dyn Filter));
            let digest = checksums
                .of(&found.path, &stat, &filters)
                .map_err(failed("read", &pick.path))
                .map_err(input)?;
            let base = pick.path.file_name().unwrap_or_default();
            super::checksum::put(&mut hash, std::os::unix::ffi::OsStrExt::as_bytes(base));
            hash.update(digest);
        }
        Ok(hash.finalize().into())
    }

    /// Keep what was learned about the files of contexts, for the next build. Losing it costs time only.
    pub(super) fn save(&self) {
        for (path, local) in self.local.iter().filter(|(_, local)| local.held.is_none()) {
            let cache = local.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(bytes) = cache.to_bytes() {
                let about = format!("files of the context {}", path.display());
                let _ = self.store.cache_put(&record_name(path), &bytes, &[], &about);
            }
        }
    }
}

impl Origin {
    /// What it is called in errors.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Local(_) => "context",
            Self::Layered(layered) => &layered.name,
        }
    }
}

/// The filter of `--exclude`, when there is any.
pub(super) fn excluding(patterns: &[String]) -> Result<Option<Excluding>, Error> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let matcher = Matcher::new(patterns.iter().map(String::as_str));
    Ok(Some(Excluding(matcher.map_err(|error| Error::Rule(error.to_string()))?)))
}

/// True owners, where the disk does not tell them. The stack is held so that a collector leaves the layers alone while
/// they are read.
fn owner_lookup(stack: Stack) -> OwnerLookup {
    Box::new(move |path| stack.owner(path))
}
