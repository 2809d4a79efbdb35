//! Which containers a verb is about: those that are named, or all that fit.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::ops;
use crate::ops::container::Error;
use crate::ops::enter::Entry;
use crate::ops::ps::Filters;
use crate::ops::store::Store;

/// Names, or what stands for them.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// All containers that this can be done to
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    chosen: Chosen,
}

/// The same without `-a`.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// The container that was made last
    #[arg(short, long, conflicts_with = "containers")]
    latest: bool,
    /// All that fit, as in `ps`
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "containers")]
    filter: Vec<String>,
    /// Read the container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required_unless_present_any = ["all", "latest", "filter", "cidfile"])]
    containers: Vec<String>,
}

impl Which {
    /// The names; of all containers those that `fits` takes.
    pub(super) fn names(
        &self,
        cx: &Context,
        store: &Store,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, Error> {
        self.chosen.names(cx, store, self.all, fits)
    }
}

impl Which {
    /// As [`Chosen::entry`].
    pub(super) fn entry(&self, cx: &Context) -> Entry {
        self.chosen.entry(cx)
    }
}

impl Chosen {
    /// The user namespace that those need that are named: only who enters it can start them.
    pub(super) fn entry(&self, cx: &Context) -> Entry {
        let Ok(store) = ops::store::read(cx) else { return Entry::Usual };
        let names = self.names(cx, &store, false, |_| false).unwrap_or_default();
        let needed = names.iter().map(|name| Entry::of_container(&store, name));
        needed.into_iter().find(|entry| *entry != Entry::Usual).unwrap_or_default()
    }

    /// The names; with `all` or a filter those of the containers whose state `fits` takes.
    pub(super) fn names(
        &self,
        cx: &Context,
        store: &Store,
        all: bool,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, Error> {
        let mut names = self.containers.clone();
        for file in &self.cidfile {
            let path = cx.cwd.join(file);
            let text = std::fs::read_to_string(&path).map_err(|source| Error::File {
                flag: "--cidfile",
                path,
                source,
            })?;
            names.push(text.trim().to_owned());
        }
        if !all && !self.latest && self.filter.is_empty() {
            return Ok(names);
        }
        let mut request = ops::ps::Request { all: true, filters: Filters::default(), ..Default::default() };
        for filter in &self.filter {
            request.filters.add(filter)?;
        }
        request.last = self.latest.then_some(1);
        for row in ops::ps::ps(store, &request)? {
            if self.latest || fits(ops::ps::state_word(&row.state)) {
                names.push(row.dir.record.name);
            }
        }
        Ok(names)
    }
}

/// Whether a state is one of a container that runs.
pub(super) fn is_up(state: &str) -> bool {
    ["running", "paused", "restarting"].contains(&state)
}
