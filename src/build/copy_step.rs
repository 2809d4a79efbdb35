//! COPY, ADD and WORKDIR as steps.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::Timespec;

use super::add;
use super::ast::{Copy, Heredoc};
use super::chmod::Chmod;
use super::chown;
use super::copy::{Copier, Rules};
use super::error::Error;
use super::execute::Build;
use super::git_ref::{self, GitRef};
use super::go;
use super::graph::Input;
use super::history;
use super::metadata::join_workdir;
use super::put::{Meta, Placer};
use super::record::Key;
use super::rehearsal::expand_copy;
use super::remote::{Commit, Download};
use super::select::{Pick, picks_but};
use super::sources::{Origin, excluding};
use super::state::StageState;
use super::tree::{Filter, Owners, Tree};
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
    /// What was fetched, by the number of its source.
    fetched: BTreeMap<usize, Fetched>,
    is_add: bool,
}

/// A source of ADD that comes from elsewhere.
enum Fetched {
    /// A file by its address.
    File { name: String, file: Download },
    /// A commit; its files are fetched when they are needed.
    Git { git: GitRef, commit: Commit },
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
        let mut copy = copy.clone();
        expand_copy(scope, &mut copy).map_err(|error| Error::Rule(error.to_string()))?;
        check_remote(&copy, is_add)?;
        let fetched = if is_add { self.fetch(&copy)? } else { BTreeMap::new() };
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
        let needs_origin = copy.sources.len() > fetched.len();
        let origin = if needs_origin { Some(self.copy_origin(input, state)?) } else { None };
        let dest = absolute(state.workdir(), &copy.dest);
        Ok(Prepared { copy, dest, chmod, origin, fetched, is_add })
    }

    /// Have the files that are fetched, and learn which commits are meant.
    fn fetch(&self, copy: &Copy) -> Result<BTreeMap<usize, Fetched>, Error> {
        let mut all = BTreeMap::new();
        for (at, source) in copy.sources.iter().enumerate() {
            let shown = git_ref::redacted(source);
            if let Some(git) = git_source(source, copy)? {
                let work = self.board.begin(format!("[internal] load git source {shown}"), false);
                let commit = self.shop.remote.commit(&git);
                let commit = commit.map_err(|source| Error::Remote { place: shown, source });
                work.end(&commit);
                all.insert(at, Fetched::Git { git, commit: commit? });
            } else if git_ref::is_http(source) {
                let work = self.board.begin(format!("[internal] load {shown}"), false);
                let file = self.shop.remote.download(source, &|bytes, all| work.moved(&shown, bytes, all));
                let file = file.map_err(|source| Error::Remote { place: shown, source });
                let file = file.and_then(|file| verified(file, copy.checksum.as_deref()));
                work.end(&file);
                all.insert(at, Fetched::File { name: file_name(source), file: file? });
            }
        }
        Ok(all)
    }

    fn copy_origin(&mut self, input: Option<Input>, state: &StageState) -> Result<Origin, Error> {
        self.origin(input, &state.platform)
    }

    fn copy_key(&mut self, state: &StageState, prepared: &Prepared) -> Result<String, Error> {
        let Prepared { copy, dest, origin, fetched, is_add, .. } = prepared;
        let mut key = Key::new(if *is_add { "ADD" } else { "COPY" });
        let below = if copy.link { "link".to_owned() } else { state.chain() };
        key.text(&below).text(&state.platform.to_string()).text(dest);
        key.option(copy.chown.as_deref()).option(copy.chmod.as_deref()).list(&copy.exclude);
        key.text(if copy.parents { "parents" } else { "" });
        key.text(match copy.unpack {
            Some(false) => "packed",
            Some(true) if !fetched.is_empty() => "unpacked",
            _ => "",
        });
        for (at, source) in copy.sources.iter().enumerate() {
            match (fetched.get(&at), origin) {
                (Some(fetched), _) => fetched.add_to(&mut key),
                (None, Some(origin)) => {
                    key.bytes(&self.sources.digest(origin, source, copy.parents, &copy.exclude)?);
                }
                (None, None) => {}
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
        let Prepared { copy, dest, chmod, origin, fetched, is_add } = prepared;
        let exclude = excluding(&copy.exclude)?;
        let unpacks = *is_add && copy.unpack != Some(false);
        let tree = origin.as_ref().map(|origin| self.sources.tree(origin)).transpose()?;
        // What is missing is found before anything is written.
        let all = every_pick(tree, copy, fetched)?;
        let mut filters: Vec<&dyn Filter> = Vec::new();
        filters.extend(exclude.as_ref().map(|filter| filter as &dyn Filter));
        for (at, pick) in &all {
            let Some(pick) = pick else {
                let rules = Rules { owner, mode: chmod.as_ref(), filters: &filters, export: None };
                placer = self.place_fetched(&fetched[at], placer, rules, prepared)?;
                continue;
            };
            let Some(tree) = tree else { continue };
            if unpacks && add::sniff(tree, &pick.path).map_err(Error::Copy)? {
                add::unpack(tree, &pick.path, &mut placer, Path::new(dest), owner).map_err(Error::Copy)?;
                continue;
            }
            let mut filters = filters.clone();
            filters.extend(pick.include.as_ref().map(|filter| filter as &dyn Filter));
            let rules = Rules { owner, mode: chmod.as_ref(), filters: &filters, export: None };
            let mut copier = Copier::new(placer, rules);
            copier.copy(tree, &pick.path, dest).map_err(Error::Copy)?;
            placer = copier.into_placer();
        }
        for Heredoc { name, content, .. } in &copy.heredocs {
            let rules = Rules { owner, mode: chmod.as_ref(), filters: &[], export: None };
            let mut copier = Copier::new(placer, rules);
            let meta = Meta::file(0o644, None);
            let mut content = content.as_bytes();
            copier.write_file(OsStr::new(name), &mut content, meta, dest).map_err(Error::Copy)?;
            placer = copier.into_placer();
        }
        Ok(placer.owners)
    }

    /// Put what was fetched in its place.
    fn place_fetched<'p>(
        &self,
        fetched: &Fetched,
        mut placer: Placer<'p>,
        rules: Rules<'_>,
        prepared: &Prepared,
    ) -> Result<Placer<'p>, Error> {
        let dest = prepared.dest.as_str();
        match fetched {
            Fetched::File { name, file } => {
                let open = || Ok::<_, Error>(Box::new(self.shop.store.open_blob(&file.digest)?));
                let read = |source| Error::Read { place: name.clone(), source };
                if prepared.copy.unpack == Some(true) && add::is_archive(open()?).map_err(read)? {
                    let name = Path::new(name);
                    add::unpack_data(open()?, name, &mut placer, Path::new(dest), rules.owner)
                        .map_err(Error::Copy)?;
                    return Ok(placer);
                }
                let mtime = Timespec { tv_sec: file.modified.unwrap_or(0), tv_nsec: 0 };
                let mut copier = Copier::new(placer, rules);
                let meta = Meta::file(0o600, Some(mtime));
                copier.write_file(OsStr::new(name), &mut open()?, meta, dest).map_err(Error::Copy)?;
                Ok(copier.into_placer())
            }
            Fetched::Git { git, commit } => {
                let place = || git_ref::redacted(&git.remote);
                let checkout = self.shop.remote.checkout(git, commit);
                let checkout = checkout.map_err(|source| Error::Remote { place: place(), source })?;
                let root = std::fs::File::open(&checkout.path)
                    .map_err(|source| Error::Read { place: place(), source })?;
                let tree = Tree::new(root.into(), Owners::Root, None);
                let mut copier = Copier::new(placer, rules);
                // The repository goes into the destination, whatever that is called.
                let dest = if dest.ends_with('/') { dest.to_owned() } else { format!("{dest}/") };
                copier.copy(&tree, Path::new("/"), &dest).map_err(Error::Copy)?;
                Ok(copier.into_placer())
            }
        }
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
        let origin = self.context_origin(context, platform)?;
        let copy = Copy { sources: vec![".".into()], dest: "/".into(), ..Copy::default() };
        let prepared = Prepared {
            copy,
            dest: "/".into(),
            chmod: None,
            origin: Some(origin),
            fetched: BTreeMap::new(),
            is_add: false,
        };
        let key = self.copy_key(&state, &prepared)?;
        let name = format!("{}FROM {context}", position.next());
        let created_by = format!("FROM {context}");
        self.step(&mut state, &key, created_by, name, |build, state, work| {
            build.do_copy(state, &prepared, work)
        })?;
        Ok(state)
    }
}

/// What all source arguments stand for, in order, each with its number; nothing for what was fetched.
fn every_pick(
    tree: Option<&Tree>,
    copy: &Copy,
    fetched: &BTreeMap<usize, Fetched>,
) -> Result<Vec<(usize, Option<Pick>)>, Error> {
    let mut all = Vec::new();
    let exclude = excluding(&copy.exclude)?;
    for (at, source) in copy.sources.iter().enumerate() {
        if fetched.contains_key(&at) {
            all.push((at, None));
        } else if let Some(tree) = tree {
            let picks = picks_but(tree, source, copy.parents, exclude.as_ref())?;
            all.extend(picks.into_iter().map(|pick| (at, Some(pick))));
        }
    }
    Ok(all)
}

impl Fetched {
    /// What of it decides the step's result. An address and the name of a branch do not.
    fn add_to(&self, key: &mut Key) {
        match self {
            Self::File { name, file } => {
                key.text("http").text(name).text(file.digest.as_str());
                key.option(file.modified.map(|time| time.to_string()).as_deref());
            }
            Self::Git { git, commit } => {
                key.text("git").text(&commit.id).text(&git.subdir);
                key.text(if git.keep_git_dir == Some(true) { "keep" } else { "" });
                key.text(if git.no_submodules { "alone" } else { "" });
                key.text(if git.commit_times { "commit-times" } else { "" });
            }
        }
    }
}

/// The name that a file gets from its address.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.find('/').map_or("", |slash| &path[slash..]);
    let path = git_ref::percent_decoded(path);
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".to_owned(),
        Some(name) if name.contains('\0') => "__unnamed__".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// A source as a repository, with what the flags say about it.
fn git_source(source: &str, copy: &Copy) -> Result<Option<GitRef>, Error> {
    let rule = |error: git_ref::GitRefError| Error::Rule(error.to_string());
    let Some(mut git) = git_ref::parse(source, false).map_err(rule)? else { return Ok(None) };
    match (git.keep_git_dir, copy.keep_git_dir) {
        (Some(said), Some(flag)) if said != flag => {
            return Err(Error::Rule("inconsistent keep-git-dir option between the flag and the URL".into()));
        }
        (said, flag) => git.keep_git_dir = said.or(flag),
    }
    match (&git.checksum, &copy.checksum) {
        (Some(said), Some(flag)) if !said.starts_with(flag.as_str()) && !flag.starts_with(said.as_str()) => {
            return Err(Error::Rule("inconsistent checksum between the flag and the URL".into()));
        }
        (_, Some(flag)) => {
            git_ref::check_sum(flag).map_err(rule)?;
            git.checksum = Some(flag.to_ascii_lowercase());
        }
        _ => {}
    }
    Ok(Some(git))
}

/// Check a file against `--checksum`.
fn verified(file: Download, checksum: Option<&str>) -> Result<Download, Error> {
    let Some(text) = checksum else { return Ok(file) };
    let expected: crate::oci::Digest = text
        .parse()
        .map_err(|_| Error::Rule(format!("invalid checksum digest format: {}", go::quote(text))))?;
    if expected.algorithm() != file.digest.algorithm() {
        return Err(Error::Unsupported(format!("a checksum with {} is not supported", expected.algorithm())));
    }
    if expected == file.digest {
        return Ok(file);
    }
    Err(Error::Rule(format!("digest mismatch {}: {expected}", file.digest)))
}

/// The destination as an absolute path that keeps what says "a directory": a slash or `/.` at the end.
fn absolute(workdir: &str, dest: &str) -> String {
    let is_dir = dest.ends_with('/') || dest.ends_with("/.") || matches!(dest, "" | "." | "..");
    let joined = super::pattern::clean(&join_workdir(workdir, dest));
    let joined = if joined.starts_with('/') { joined } else { format!("/{joined}") };
    if is_dir && !joined.ends_with('/') { format!("{joined}/") } else { joined }
}

/// What may be fetched, and checked.
fn check_remote(copy: &Copy, is_add: bool) -> Result<(), Error> {
    let is_git = |source: &str| !matches!(git_ref::parse(source, false), Ok(None));
    if copy.checksum.is_some() {
        if copy.sources.len() + copy.heredocs.len() != 1 {
            return Err(Error::Rule("checksum can't be specified for multiple sources".into()));
        }
        if !copy.sources.iter().any(|source| git_ref::is_http(source) || is_git(source)) {
            return Err(Error::Rule("checksum requires HTTP(S) or Git sources".into()));
        }
    }
    for source in copy.sources.iter().filter(|_| !is_add) {
        if is_git(source) {
            return Err(Error::Rule("source can't be a git ref for COPY".into()));
        }
        if git_ref::is_http(source) {
            return Err(Error::Rule("source can't be a URL for COPY".into()));
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

    #[test]
    fn files_are_called_by_the_last_part_of_their_address() {
        for (url, name) in [
            ("http://h/a/b.txt", "b.txt"),
            ("http://h/a/b.txt?x=/y#z", "b.txt"),
            ("http://h/a%20b", "a b"),
            ("http://h/x%2F..", "__unnamed__"),
            ("http://h/a/", "a"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/a%2Fb", "b"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }
}
