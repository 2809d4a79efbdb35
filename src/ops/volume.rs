//! `volume`: directories that outlive containers, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::container::pattern::Pattern;
use super::container::volumes::ANONYMOUS_LABEL;
use super::{create, when};
use crate::archive::{self, OutFile, decompressed};
use crate::layer;
use crate::storage::{self, Backing, BadOption, LOCAL, Store, Volume, VolumeRecord, is_volume_name};

/// Names of volumes and what they take: what a prune removed or would remove.
pub use crate::storage::{Import, VolumeUsage};

/// What can go wrong with volumes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no volume can have.
    #[error("invalid volume name `{0}`: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed")]
    BadName(String),
    /// A driver that is not built in.
    #[error("there is no volume driver `{0}`: there is local")]
    Driver(String),
    /// An option that the driver has not, or that cannot work here.
    #[error("cannot make volume {name}")]
    Option {
        /// The volume.
        name: String,
        /// Which option, and why.
        #[source]
        source: BadOption,
    },
    /// What is there is not what was asked for.
    #[error("volume {0} is there already, with other options")]
    Differs(String),
    /// A filter that is not known.
    #[error("invalid filter `{0}`: {1}")]
    Filter(String, String),
    /// The archive cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not even the end of a tar: a pipe whose other end failed.
    #[error("cannot import `{}`: it is empty", .0.display())]
    Empty(PathBuf),
    /// The files could not be written as an archive.
    #[error("cannot export volume {name}")]
    Export {
        /// The volume.
        name: String,
        /// Why.
        #[source]
        source: layer::Error,
    },
    /// The archive could not be begun or ended.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

impl Error {
    /// Podman's code for a volume that cannot be removed as it is in use: 2; else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        use storage::Error::{VolumeInUse, VolumeMaybeInUse};
        if matches!(self, Self::Store(VolumeInUse { .. } | VolumeMaybeInUse { .. })) { 2 } else { 1 }
    }
}

/// A volume to be made.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its name; else it is an anonymous one.
    pub name: Option<String>,
    /// Its driver.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Leave one that is there as it is, whatever it is.
    pub ignore: bool,
}

/// Make a volume; its name comes back. As in docker, one of that name that is there is no error.
///
/// # Errors
/// When the name or an option is no good, or what is there has other options.
pub fn create(store: &Store, request: Request) -> Result<String, Error> {
    let Request { name, driver, mut labels, options, ignore } = request;
    if !["", LOCAL].contains(&driver.as_str()) {
        return Err(Error::Driver(driver));
    }
    let anonymous = name.is_none();
    let name = match name {
        Some(name) if is_volume_name(&name) => name,
        Some(name) => return Err(Error::BadName(name)),
        None => create::random_id().map_err(|error| match error {
            super::container::Error::Sys(error) => storage::Error::Sys(error),
            other => storage::Error::Inconsistent(other.to_string()),
        })?,
    };
    Backing::parse(&options).map_err(|source| Error::Option { name: name.clone(), source })?;
    if anonymous {
        labels.insert(ANONYMOUS_LABEL.into(), String::new());
    }
    let (given, wanted) = (labels.clone(), options.clone());
    let record = VolumeRecord {
        name: name.clone(),
        driver: LOCAL.into(),
        created: when::now(),
        anonymous,
        labels,
        options,
    };
    let (volume, made) = store.create_volume(record, true)?;
    if !made && !ignore {
        if !wanted.is_empty() && volume.record.options != wanted {
            return Err(Error::Differs(name));
        }
        if !given.is_empty() && volume.record.labels != given {
            store.remark(&format!("volume {name} is there already: its labels stay as they are"));
        }
    }
    Ok(name)
}

/// The values of one key are alternatives; different keys must all fit, and so must all labels.
#[derive(Debug, Default)]
pub struct Filters {
    dangling: Option<bool>,
    drivers: Vec<String>,
    labels: Vec<String>,
    names: Vec<Pattern>,
    until: Option<Timestamp>,
}

impl Filters {
    /// Take one `--filter`.
    ///
    /// # Errors
    /// [`Error::Filter`]
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let refuse = |why: &str| Error::Filter(text.into(), why.into());
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("expected KEY=VALUE"))?;
        match key.trim() {
            "dangling" => {
                let flag = super::images::flag(value);
                self.dangling = Some(flag.ok_or_else(|| refuse("dangling is true or false"))?);
            }
            "driver" => self.drivers.push(value.into()),
            "label" => self.labels.push(value.into()),
            "name" => {
                let pattern = Pattern::parse(value);
                self.names.push(pattern.ok_or_else(|| refuse("the pattern is not understood"))?);
            }
            "until" => {
                let time = when::parse(value, Timestamp::now());
                self.until = Some(time.ok_or_else(|| refuse("it is no time"))?);
            }
            _ => return Err(refuse("there are dangling, driver, label, name and until")),
        }
        Ok(())
    }

    fn takes(&self, volume: &Volume, links: usize) -> bool {
        let record = &volume.record;
        self.dangling.is_none_or(|dangling| dangling == (links == 0))
            && (self.drivers.is_empty() || self.drivers.contains(&record.driver))
            && self.labels.iter().all(|label| has_label(record, label))
            && (self.names.is_empty() || self.names.iter().any(|name| name.matches(&record.name)))
            && is_older(record, self.until)
    }
}

fn has_label(record: &VolumeRecord, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => record.labels.get(key).is_some_and(|have| have == value),
        None => record.labels.contains_key(wanted),
    }
}

fn is_older(record: &VolumeRecord, until: Option<Timestamp>) -> bool {
    until.is_none_or(|until| record.created.parse::<Timestamp>().is_ok_and(|created| created < until))
}

/// One volume of a listing.
#[derive(Debug)]
pub struct Row {
    /// Its record.
    pub record: VolumeRecord,
    /// Where its files lie.
    pub mountpoint: PathBuf,
    /// How many containers use it, running or not.
    pub links: usize,
}

/// List volumes by name. The containers are looked at only where `links`, or a filter, needs it.
///
/// # Errors
/// When the store cannot be read.
pub fn list(store: &Store, filters: &Filters, links: bool) -> Result<Vec<Row>, Error> {
    let users = match links || filters.dangling.is_some() {
        true => store.volume_users()?,
        false => BTreeMap::new(),
    };
    let row = |volume: Volume| {
        let links = users.get(&volume.record.name).map_or(0, Vec::len);
        filters.takes(&volume, links).then(|| Row { mountpoint: volume.data(), links, record: volume.record })
    };
    Ok(store.volumes()?.into_iter().filter_map(row).collect())
}

/// Docker's document of a volume, with a key more.
///
/// # Errors
/// When there is none of that name, or it is damaged.
pub fn inspect(store: &Store, name: &str) -> Result<Value, storage::Error> {
    let volume = store.find_volume(name)?;
    let record = &volume.record;
    let map = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    Ok(json!({
        "Anonymous": record.anonymous,
        "CreatedAt": record.created,
        "Driver": LOCAL,
        "Labels": map(&record.labels),
        "Mountpoint": volume.data(),
        "Name": record.name,
        "Options": map(&record.options),
        "Scope": "local",
    }))
}

/// Remove a volume that no container uses; with `force` one that is not there is no error, and a container with a damaged
/// record does not keep it.
///
/// # Errors
/// [`storage::Error::VolumeInUse`], [`storage::Error::VolumeMaybeInUse`], [`storage::Error::NoSuchVolume`], or when the store cannot be written.
pub fn remove(store: &Store, name: &str, force: bool) -> Result<(), Error> {
    match store.remove_volume(name, force) {
        Err(storage::Error::NoSuchVolume(_)) if force => Ok(()),
        other => Ok(other?),
    }
}

/// Which unused volumes `volume prune` takes.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    /// Named ones too, not only anonymous ones.
    pub all: bool,
    until: Option<Timestamp>,
    labels: Vec<String>,
    without: Vec<String>,
}

impl PruneFilter {
    /// Take one `--filter`.
    ///
    /// # Errors
    /// [`Error::Filter`]
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let refuse = |why: &str| Error::Filter(text.into(), why.into());
        let unknown = "there are until=, label=, label!= and all=";
        let (key, value) = text.split_once('=').ok_or_else(|| refuse(unknown))?;
        match key.trim() {
            "until" => {
                let time = when::parse(value, Timestamp::now()).ok_or_else(|| refuse("it is no time"))?;
                self.until = Some(self.until.map_or(time, |until| until.min(time)));
            }
            "label" => self.labels.push(value.into()),
            "label!" => self.without.push(value.into()),
            "all" => {
                self.all = super::images::flag(value).ok_or_else(|| refuse("all is true or false"))?;
            }
            _ => return Err(refuse(unknown)),
        }
        Ok(())
    }

    fn takes(&self, record: &VolumeRecord) -> bool {
        (self.all || record.anonymous)
            && is_older(record, self.until)
            && self.labels.iter().all(|label| has_label(record, label))
            && !self.without.iter().any(|label| has_label(record, label))
    }
}

/// Remove the volumes that no container uses; with `dry_run` only say which, as if the containers with the ids `without`
/// were gone.
///
/// # Errors
/// When the store cannot be read or written.
pub fn prune(
    store: &Store,
    filter: &PruneFilter,
    dry_run: bool,
    without: &BTreeSet<String>,
) -> Result<Vec<VolumeUsage>, Error> {
    // What should have removed itself uses nothing any more.
    if !dry_run {
        store.sweep_ended();
    }
    Ok(store.prune_volumes(&|volume| filter.takes(&volume.record), dry_run, without)?)
}

/// Write a volume's files as a tar to a file, or to standard output (`-`).
///
/// # Errors
/// When the volume is not there or memory, or the files cannot be read or the tar not be written.
pub fn export(store: &Store, name: &str, output: &std::path::Path) -> Result<(), Error> {
    let volume = store.find_volume(name)?;
    let data = match volume.backing()? {
        Backing::Data { path, .. } | Backing::Bind { path, .. } => path,
        Backing::Tmpfs { .. } => return Err(storage::Error::VolumeInMemory(name.into()).into()),
    };
    volume.prepare(store, None, true)?;
    let root = File::open(&data).map_err(|source| Error::Read { path: data, source })?;
    let mut out = BufWriter::with_capacity(1 << 20, OutFile::create(output)?);
    layer::write_tree(root.as_fd(), &mut out, &|_| None, &|_| ())
        .map_err(|source| Error::Export { name: name.into(), source })?;
    let out = out.into_inner().map_err(|error| {
        let source = layer::Error::Io { operation: "write", source: error.into_error() };
        Error::Export { name: name.into(), source }
    })?;
    Ok(out.finish()?)
}

/// Bring the files of a tar, however compressed, into a volume. `-` is standard input.
///
/// # Errors
/// When the volume is not there or memory, or the archive is none: nothing is changed then.
pub fn import(store: &Store, name: &str, source: &std::path::Path) -> Result<Import, Error> {
    let volume = store.find_volume(name)?;
    let failed = |error| Error::Read { path: source.to_owned(), source: error };
    let mut input: Box<dyn Read + Send> = match source.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(source).map_err(failed)?),
    };
    let mut first = Vec::with_capacity(1);
    if input.by_ref().take(1).read_to_end(&mut first).map_err(failed)? == 0 {
        return Err(Error::Empty(source.to_owned()));
    }
    let (_, mut tar) = decompressed(Box::new(std::io::Cursor::new(first).chain(input))).map_err(failed)?;
    Ok(store.import_volume(&volume, &mut tar)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_mean_nothing_are_refused() {
        let (mut filters, mut prune) = (Filters::default(), PruneFilter::default());
        for good in
            ["dangling=true", "dangling=0", "driver=local", "label=a", "label=a=b", "name=^x", "until=1h"]
        {
            filters.add(good).unwrap();
        }
        for bad in ["dangling", "dangling=maybe", "odd=1", "name=(", "until=never"] {
            assert!(filters.add(bad).is_err(), "{bad}");
        }
        for good in ["until=24h", "label=a", "label!=b=c", "all=true"] {
            prune.add(good).unwrap();
        }
        for bad in ["until", "until=never", "dangling=true", "all=perhaps"] {
            assert!(prune.add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prune_takes_anonymous_ones_only_unless_told() {
        let record = |anonymous, labels: &[(&str, &str)]| VolumeRecord {
            anonymous,
            created: "2026-01-01T00:00:00Z".into(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..VolumeRecord::default()
        };
        let filter = |texts: &[&str]| {
            let mut filter = PruneFilter::default();
            texts.iter().for_each(|text| filter.add(text).unwrap());
            filter
        };
        assert!(filter(&[]).takes(&record(true, &[])) && !filter(&[]).takes(&record(false, &[])));
        assert!(filter(&["all=1"]).takes(&record(false, &[])));
        assert!(filter(&["label=a=b"]).takes(&record(true, &[("a", "b")])));
        assert!(!filter(&["label=a=b"]).takes(&record(true, &[("a", "c")])));
        assert!(!filter(&["label!=a"]).takes(&record(true, &[("a", "c")])));
        assert!(!filter(&["until=2025-12-31T00:00:00Z"]).takes(&record(true, &[])));
        assert!(filter(&["until=2026-01-02T00:00:00Z"]).takes(&record(true, &[])));
    }
}
