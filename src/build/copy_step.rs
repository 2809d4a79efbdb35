//! COPY, ADD and WORKDIR as steps.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use super::add::{self, Sniffed};
use super::ast::{Copy, Heredoc};
use super::chmod::Chmod;
use super::chown;
use super::copy::{Copier, Rules};
use super::error::Error;
use super::execute::Build;
use super::go;
use super::graph::Input;
use super::history;
use super::metadata::join_workdir;
use super::put::{Meta, Placer};
use super::record::Key;
use super::select::{Pick, picks_but};
use super::sources::{Origin, excluding};
use super::state::StageState;
use super::tree::{Filter, Tree};
use super::vertex::Work;
use crate::image::NewLayer;
use crate::layer::OwnerTable;
use crate::storage::{CommitOptions, Stack};

/// COPY or ADD with its words expanded.
struct Prepared {
    copy: Copy,
    /// Absolute, a slash at the end kept.
    dest: String,
    chmod: Option<Chmod>,
    origin: Option<Origin>,
    is_add: bool,
}

impl<'a> Build<'a> {
    /// COPY or ADD.
    pub(super) fn copy_step(
        &mut self,
        stage: usize,
        state: &mut StageState,
        copy: &Copy,
        is_add: bool,
        name: String,
    ) -> Result<(), Error> {
        let prepared = self.prepare_copy(stage, state, copy, is_add)?;
        let created_by = history::copy(if is_add { "ADD" } else { "COPY" }, &prepared.copy);
        let key = match self.copy_key(state, &prepared) {
            Ok(key) => key,
            Err(error) => {
                let failed: Result<(), Error> = Err(error);
                self.board.begin(name, true).end(&failed);
                return failed;
            }
        };
        self.step(state, &key, created_by, name, |build, state, work| build.do_copy(state, &prepared, work))
    }

    fn prepare_copy(
        &mut self,
        stage: usize,
        state: &mut StageState,
        copy: &Copy,
        is_add: bool,
    ) -> Result<Prepared, Error> {
        let scope = &mut state.scope;
        let rule = |error: super::expand::ExpandError| Error::Rule(error.to_string());
        let mut copy = copy.clone();
        for source in &mut copy.sources {
            *source = scope.expand(source).map_err(rule)?;
        }
        copy.dest = scope.expand(&copy.dest).map_err(rule)?;
        for flag in [&mut copy.chown, &mut copy.chmod, &mut copy.checksum].into_iter().flatten() {
            *flag = scope.expand(flag).map_err(rule)?;
        }
        for heredoc in copy.heredocs.iter_mut().filter(|heredoc| heredoc.expand) {
            heredoc.content = scope.expand_heredoc(&heredoc.content).map_err(rule)?;
        }
        check_remote(&copy, is_add)?;
        let chmod = copy.chmod.as_deref().filter(|mode| !mode.is_empty());
        let chmod = chmod.map(Chmod::parse).transpose().map_err(Error::Rule)?;
        // As in the reference, a mode cannot be had on an independent layer.
        copy.link &= chmod.is_none();
        let input = match &copy.from {
            Some(from) => {
                let span = self.graph.stage(stage).from.span;
                let input = self.graph.copy_input(stage, from, span);
                Some(input.map_err(|error| Error::Rule(error.to_string()))?)
            }
            None => None,
        };
        let needs_origin = !copy.sources.is_empty();
        let origin = if needs_origin { Some(self.copy_origin(input, state)?) } else { None };
        let dest = absolute(state.workdir(), &copy.dest);
        Ok(Prepared { copy, dest, chmod, origin, is_add })
    }

    fn copy_origin(&mut self, input: Option<Input>, state: &StageState) -> Result<Origin, Error> {
        self.origin(input, &state.platform)
    }

    fn copy_key(&mut self, state: &StageState, prepared: &Prepared) -> Result<String, Error> {
        let Prepared { copy, dest, origin, is_add, .. } = prepared;
        let mut key = Key::new(if *is_add { "ADD" } else { "COPY" });
        let below = if copy.link { "link".to_owned() } else { state.chain() };
        key.text(&below).text(&state.platform.to_string()).text(dest);
        key.option(copy.chown.as_deref()).option(copy.chmod.as_deref()).list(&copy.exclude);
        key.text(if copy.parents { "parents" } else { "" });
        key.text(if copy.unpack == Some(false) { "packed" } else { "" });
        if let Some(origin) = origin {
            for source in &copy.sources {
                key.bytes(&self.sources.digest(origin, source, copy.parents, &copy.exclude)?);
            }
        }
        for heredoc in &copy.heredocs {
            key.text(&heredoc.name).text(&heredoc.content);
        }
        Ok(key.finish("step"))
    }

    fn do_copy(
        &mut self,
        state: &StageState,
        prepared: &Prepared,
        _work: &Work<'a>,
    ) -> Result<NewLayer, Error> {
        let below = if prepared.copy.link { Vec::new() } else { state.layers() };
        self.in_tree(&below, |build, placer| {
            let accounts = (!prepared.copy.link).then_some(placer.root);
            let owner = prepared.copy.chown.as_deref().filter(|owner| !owner.is_empty());
            let owner = owner.map(|owner| chown::resolve(owner, accounts)).transpose();
            let owner = owner.map_err(|error| Error::Rule(error.to_string()))?;
            build.copy_into(placer, prepared, owner)
        })
    }

    /// Mount the layers with a place for changes, make them, and commit them as a layer.
    pub(super) fn in_tree(
        &mut self,
        below: &super::sources::Layers,
        change: impl FnOnce(&mut Self, Placer<'_>) -> Result<OwnerTable, Error>,
    ) -> Result<NewLayer, Error> {
        let store = self.shop.store;
        let mut stack =
            if below.is_empty() { Stack::default() } else { store.stack_of(below, self.shop.report)? };
        let scratch = store.scratch_dir()?;
        let mounted = store.mount_writable(&stack, scratch.path(), true)?;
        let mut placer = Placer::new(mounted.root.as_fd());
        placer.remember_all = stack.layers.iter().any(|layer| !layer.owners.is_empty());
        stack.changes = change(self, placer)?;
        let options = CommitOptions { take: true, skip: &|_| false };
        Ok(store.commit_layer(&stack, mounted, &options)?)
    }

    fn copy_into(
        &mut self,
        mut placer: Placer<'_>,
        prepared: &Prepared,
        owner: Option<(u32, u32)>,
    ) -> Result<OwnerTable, Error> {
        let Prepared { copy, dest, chmod, origin, is_add } = prepared;
        let exclude = excluding(&copy.exclude)?;
        if let Some(origin) = origin {
            let tree = self.sources.tree(origin)?;
            let unpacks = *is_add && copy.unpack != Some(false);
            for (source, pick) in every_pick(tree, copy)? {
                if unpacks {
                    match add::sniff(tree, &pick.path).map_err(Error::Copy)? {
                        Sniffed::Plain => {}
                        Sniffed::Archive => {
                            add::unpack(tree, &pick.path, &mut placer, Path::new(dest), owner)
                                .map_err(Error::Copy)?;
                            continue;
                        }
                        Sniffed::Unsupported(format) => return Err(unpackable(source, format)),
                    }
                }
                let mut filters: Vec<&dyn Filter> = Vec::new();
                filters.extend(exclude.as_ref().map(|filter| filter as &dyn Filter));
                filters.extend(pick.include.as_ref().map(|filter| filter as &dyn Filter));
                let rules = Rules { owner, mode: chmod.as_ref(), filters: &filters, export: None };
                let mut copier = Copier::new(placer, rules);
                copier.copy(tree, &pick.path, dest).map_err(Error::Copy)?;
                placer = copier.into_placer();
            }
        }
        for Heredoc { name, content, .. } in &copy.heredocs {
            let rules = Rules { owner, mode: chmod.as_ref(), filters: &[], export: None };
            let mut copier = Copier::new(placer, rules);
            let meta = Meta::file(0o644, None);
            copier.write_file(OsStr::new(name), content.as_bytes(), meta, dest).map_err(Error::Copy)?;
            placer = copier.into_placer();
        }
        Ok(placer.owners)
    }

    /// WORKDIR: make the directory, owned by the user of the stage.
    pub(super) fn workdir_step(
        &mut self,
        state: &mut StageState,
        created_by: String,
        name: String,
    ) -> Result<(), Error> {
        let (path, user) = (state.workdir().to_owned(), state.config.config.user.clone());
        let mut key = Key::new("WORKDIR");
        key.text(&state.chain()).text(&state.platform.to_string()).text(&path).text(&user);
        key.option(self.epoch.map(|epoch| epoch.to_string()).as_deref());
        let (key, epoch) = (key.finish("step"), self.epoch);
        self.step(state, &key, created_by, name, |build, state, _| {
            build.in_tree(&state.layers(), |_, mut placer| {
                let (uid, gid) = super::run::owner_of_workdir(placer.root, &user)?;
                placer.epoch = epoch;
                placer.make_dirs(Path::new(&path), uid, gid, 0o755).map_err(Error::Copy)?;
                Ok(placer.owners)
            })
        })
    }

    /// A stage on a named context: its files on nothing, as one layer.
    pub(super) fn context_base(
        &mut self,
        context: &str,
        platform: &crate::oci::Platform,
        position: &mut super::execute::Position,
    ) -> Result<StageState, Error> {
        let escape = self.request.dockerfile.escape;
        let mut state = StageState::scratch(platform, &self.globals, escape);
        let origin = self.context_origin(context)?;
        let copy = Copy { sources: vec![".".into()], dest: "/".into(), ..Copy::default() };
        let prepared = Prepared { copy, dest: "/".into(), chmod: None, origin: Some(origin), is_add: false };
        let key = self.copy_key(&state, &prepared)?;
        let name = format!("{}FROM {context}", position.next());
        let created_by = format!("FROM {context}");
        self.step(&mut state, &key, created_by, name, |build, state, work| {
            build.do_copy(state, &prepared, work)
        })?;
        Ok(state)
    }
}

/// What all source arguments stand for, in order, each with the argument it comes from.
fn every_pick<'c>(tree: &Tree, copy: &'c Copy) -> Result<Vec<(&'c str, Pick)>, Error> {
    let mut all = Vec::new();
    let exclude = excluding(&copy.exclude)?;
    for source in &copy.sources {
        let picks = picks_but(tree, source, copy.parents, exclude.as_ref())?;
        all.extend(picks.into_iter().map(|pick| (source.as_str(), pick)));
    }
    Ok(all)
}

fn unpackable(source: &str, format: &str) -> Error {
    Error::Unsupported(format!(
        "cannot unpack {}: strate does not unpack {format} archives yet; use gzip or zstd, or --unpack=false",
        go::quote(source)
    ))
}

/// The destination as an absolute path that keeps what says "a directory": a slash or `/.` at the end.
fn absolute(workdir: &str, dest: &str) -> String {
    let is_dir = dest.ends_with('/') || dest.ends_with("/.") || matches!(dest, "" | "." | "..");
    let joined = super::pattern::clean(&join_workdir(workdir, dest));
    let joined = if joined.starts_with('/') { joined } else { format!("/{joined}") };
    if is_dir && !joined.ends_with('/') { format!("{joined}/") } else { joined }
}

/// Sources that are fetched.
fn check_remote(copy: &Copy, is_add: bool) -> Result<(), Error> {
    let is_url = |source: &str| source.starts_with("http://") || source.starts_with("https://");
    let is_git = |source: &str| {
        let scp = source.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
        source.starts_with("git://")
            || source.starts_with("ssh://")
            || scp
            || (is_url(source) && source.split(['#', '?']).next().is_some_and(|url| url.ends_with(".git")))
    };
    if copy.checksum.is_some() {
        if copy.sources.len() + copy.heredocs.len() != 1 {
            return Err(Error::Rule("checksum can't be specified for multiple sources".into()));
        }
        if !copy.sources.iter().any(|source| is_url(source) || is_git(source)) {
            return Err(Error::Rule("checksum requires HTTP(S) or Git sources".into()));
        }
    }
    for source in &copy.sources {
        match (is_git(source), is_url(source), is_add) {
            (true, _, false) => return Err(Error::Rule("source can't be a git ref for COPY".into())),
            (_, true, false) => return Err(Error::Rule("source can't be a URL for COPY".into())),
            (true, _, true) => {
                let source = go::quote(source);
                return Err(Error::Unsupported(format!(
                    "ADD of a git repository ({source}) is not supported yet"
                )));
            }
            (_, true, true) => {
                let source = go::quote(source);
                return Err(Error::Unsupported(format!("ADD of a URL ({source}) is not supported yet")));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_become_absolute_and_stay_directories() {
        for (workdir, dest, absolute_dest) in [
            ("/", "x", "/x"),
            ("/w", "x/", "/w/x/"),
            ("/w", ".", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "/a/../b", "/b"),
            ("/w", "/g/.", "/g/"),
            ("/w", "/", "/"),
            ("/w", "", "/w/"),
            ("/w/", "../x", "/x"),
        ] {
            assert_eq!(absolute(workdir, dest), absolute_dest, "{workdir} {dest}");
        }
    }
}
