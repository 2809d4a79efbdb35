//! `ps`: which containers there are.

use super::container::pattern::Pattern;
use super::container::{ContainerSpec, Error, network};
use super::create::spec_of;
use crate::oci::DiffId;
use crate::storage::{ContainerDir, ContainerState, Status, Store};

/// One container of a listing.
#[derive(Debug)]
pub struct Row {
    /// Its directory and record.
    pub dir: ContainerDir,
    /// Its description.
    pub spec: ContainerSpec,
    /// Where it stands.
    pub state: ContainerState,
    /// How it is, when it runs and is checked.
    pub health: Option<String>,
}

/// What to list.
#[derive(Debug, Default)]
pub struct Request {
    /// Also those that do not run.
    pub all: bool,
    /// Only so many, newest first, running or not.
    pub last: Option<usize>,
    /// Filters.
    pub filters: Filters,
}

/// The values of one filter key are alternatives; different keys must all fit, and so must all labels.
#[derive(Debug, Default)]
pub struct Filters {
    ids: Vec<String>,
    names: Vec<Pattern>,
    labels: Vec<String>,
    exited: Vec<i32>,
    states: Vec<String>,
    ancestors: Vec<String>,
    before: Option<String>,
    since: Option<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    exposed: Vec<String>,
    published: Vec<String>,
    healths: Vec<String>,
}

/// Docker's words for states.
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// Docker's words for how containers are.
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

impl Filters {
    /// Take one `--filter`.
    ///
    /// # Errors
    /// [`Error::Filter`]
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Filter(text.into(), why.into()));
        let Some((key, value)) = text.split_once('=') else { return refuse("expected KEY=VALUE") };
        match key.trim() {
            "id" => self.ids.push(value.into()),
            // Docker matches names with their `/` and without.
            "name" => match Pattern::parse(&value.replacen("^/", "^", 1)) {
                Some(pattern) => self.names.push(pattern),
                None => return refuse("the pattern is not understood"),
            },
            "label" => self.labels.push(value.into()),
            "exited" => match value.parse() {
                Ok(code) => self.exited.push(code),
                Err(_) => return refuse("expected an exit code"),
            },
            "status" if STATES.contains(&value) => self.states.push(value.into()),
            "status" => return refuse(&format!("there are {}", STATES.join(", "))),
            "ancestor" => self.ancestors.push(value.into()),
            "before" => self.before = Some(value.into()),
            "since" => self.since = Some(value.into()),
            "volume" => self.volumes.push(value.into()),
            "network" => self.networks.push(value.into()),
            "publish" => self.published.push(value.into()),
            "expose" => self.exposed.push(value.into()),
            "health" if HEALTHS.contains(&value) => self.healths.push(value.into()),
            "health" => return refuse(&format!("there are {}", HEALTHS.join(", "))),
            _ => {
                return refuse(
                    "there are id, name, label, exited, status, ancestor, before, since, volume, network, publish, \
                     expose and health",
                );
            }
        }
        Ok(())
    }
}

/// The word for where a container stands. One that nobody saw end counts as exited, as in docker.
#[must_use]
pub fn state_word(state: &ContainerState) -> &'static str {
    match state.status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Exited | Status::Dead => "exited",
    }
}

/// List containers, newest first.
///
/// # Errors
/// When the store cannot be read, or a filter names something unknown.
pub fn ps(store: &Store, request: &Request) -> Result<Vec<Row>, Error> {
    let filters = Resolved::new(store, &request.filters)?;
    let all = request.all || request.last.is_some() || !request.filters.states.is_empty();
    let mut rows = Vec::new();
    for dir in store.containers()? {
        let state = match dir.state() {
            Ok(state) => state,
            // Removed since the directory was read.
            Err(crate::storage::Error::NoSuchContainer(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        if !all && !state.is_running() {
            continue;
        }
        let spec = match spec_of(&dir) {
            Ok(spec) => spec,
            Err(error) => {
                let id = dir.short_id();
                store.remark(&format!(
                    "container {id} is left out, as {error}: `strate rm -f {id}` removes it"
                ));
                continue;
            }
        };
        let checked = state.is_running() && super::container::health::command(&spec).is_some();
        let health = checked.then(|| super::container::health::read(&dir)).flatten();
        let row = Row { dir, spec, state, health: health.map(|health| health.status) };
        if filters.take(&row) {
            rows.push(row);
        }
        if request.last.is_some_and(|last| rows.len() >= last) {
            break;
        }
    }
    Ok(rows)
}

/// Filters with the containers and images that they name looked up.
struct Resolved<'a> {
    filters: &'a Filters,
    before: Option<String>,
    since: Option<String>,
    /// Layers of each ancestor.
    ancestors: Vec<Vec<DiffId>>,
}

impl<'a> Resolved<'a> {
    fn new(store: &Store, filters: &'a Filters) -> Result<Self, Error> {
        let created = |name: &Option<String>| -> Result<Option<String>, Error> {
            Ok(name
                .as_deref()
                .map(|name| store.find_container(name))
                .transpose()?
                .map(|dir| dir.record.created))
        };
        let mut ancestors = Vec::new();
        for name in &filters.ancestors {
            use crate::storage::Error as E;
            match store.find_image(name).and_then(|found| store.image_for(&found, None)) {
                Ok(image) => ancestors.push(image.config.rootfs.diff_ids),
                Err(E::NoSuchImage(_) | E::NoPlatform { .. } | E::NotAnImage { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { filters, before: created(&filters.before)?, since: created(&filters.since)?, ancestors })
    }

    fn take(&self, row: &Row) -> bool {
        let Filters {
            ids,
            names,
            labels,
            exited,
            states,
            ancestors,
            volumes,
            networks,
            exposed,
            published,
            healths,
            ..
        } = self.filters;
        let record = &row.dir.record;
        let config = &row.spec.config;
        let label = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => config.labels.get(key).is_some_and(|have| have == value),
            None => config.labels.contains_key(wanted),
        };
        any(ids, |id| record.id.contains(id.as_str()))
            && any(names, |name| name.matches(&record.name))
            && labels.iter().all(label)
            && any(exited, |code| !row.state.is_running() && row.state.exit_code == Some(*code))
            && any(states, |state| state == state_word(&row.state))
            && self.before.as_ref().is_none_or(|time| record.created < *time)
            && self.since.as_ref().is_none_or(|time| record.created > *time)
            && any(volumes, |volume| row.spec.mounts.iter().any(|mount| mounts(mount, volume)))
            && any(healths, |health| health == row.health.as_deref().unwrap_or("none"))
            && any(networks, |network| row.spec.host.network.is_called(network))
            && any(exposed, |port| config.exposed_ports.keys().any(|have| is_port(have, port)))
            && any(published, |port| network::ports(&row.spec).iter().any(|have| is_port(&have.key(), port)))
            && (ancestors.is_empty() || self.descends(row))
    }

    fn descends(&self, row: &Row) -> bool {
        let layers: Vec<&DiffId> = row.dir.record.layers.iter().map(|(_, diff_id)| diff_id).collect();
        let starts = |ancestor: &Vec<DiffId>| {
            ancestor.len() <= layers.len() && ancestor.iter().zip(&layers).all(|(a, b)| a == *b)
        };
        self.ancestors.iter().any(starts) || self.filters.ancestors.contains(&row.dir.record.image_name)
    }
}

/// Whether `have` (`80/tcp`) is the port `wanted` (`80` or `80/tcp`).
fn is_port(have: &str, wanted: &str) -> bool {
    have == wanted || have.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'))
}

fn any<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

fn mounts(mount: &super::container::mounts::Mount, wanted: &str) -> bool {
    use super::container::mounts::MountKind;
    let source = match &mount.kind {
        MountKind::Volume { name, .. } => name == wanted,
        MountKind::Bind { source } => source.to_str() == Some(wanted),
        MountKind::Tmpfs { .. } => false,
    };
    source || mount.target == wanted
}

/// The network as docker names it.
#[must_use]
pub fn network_name(spec: &ContainerSpec) -> String {
    spec.host.network.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_mean_nothing_are_refused() {
        let mut filters = Filters::default();
        for good in
            ["id=a", "name=^/web$", "label=a=b", "exited=0", "status=running", "ancestor=x", "health=healthy"]
        {
            filters.add(good).unwrap();
        }
        for bad in ["id", "odd=1", "status=odd", "exited=x", "name=(", "health=odd"] {
            assert!(filters.add(bad).is_err(), "{bad}");
        }
        assert!(filters.names[0].matches("web") && !filters.names[0].matches("web2"));
    }
}
