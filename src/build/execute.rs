//! From a Dockerfile to an image: stages in the order they need each other, steps from the cache or by doing them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ast::{Instruction, Located, Span, Warning};
use super::check::Checks;
use super::error::{Error, Failure};
use super::expand::Lookup as _;
use super::graph::{Base, Graph, GraphError, Input, Options};
use super::interrupt::Interrupt;
use super::metadata;
use super::outline::{self, Outline};
use super::record::Record;
use super::rehearsal::{self, other_platform};
use super::remarks;
use super::remote::{ContextDir, NamedContext, Remote};
use super::request::{Bases, Request};
use super::scope::{Globals, Platforms};
use super::sources::{Layers, Origin, Sources};
use super::state::StageState;
use super::vertex::{Board, Work};
use crate::image::{Edit, Reporter};
use crate::oci::{ContainerConfig, Platform, Reference};
use crate::storage::{Image, Store};

/// What a build works with.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    /// Where layers and build records are kept.
    pub store: &'a Store,
    /// Where base images come from.
    pub bases: &'a dyn Bases,
    /// Where files from elsewhere come from.
    pub remote: &'a dyn Remote,
    /// Who is told what happens.
    pub board: &'a Board<'a>,
    /// Who is told about layers that are unpacked.
    pub report: &'a dyn Reporter,
    /// Whether the user gave up.
    pub interrupt: &'a Interrupt,
}

impl std::fmt::Debug for Workshop<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A build under way.
pub(super) struct Build<'a> {
    pub(super) shop: Workshop<'a>,
    pub(super) request: &'a Request,
    pub(super) globals: Arc<Globals>,
    pub(super) graph: Graph<'a>,
    pub(super) sources: Sources<'a>,
    pub(super) board: &'a Board<'a>,
    /// Stages that are done.
    pub(super) stages: BTreeMap<usize, StageState>,
    /// Images by the name in the Dockerfile and platform.
    pub(super) images: BTreeMap<(String, String), Image>,
    /// Named contexts that were fetched.
    pub(super) fetched: BTreeMap<String, ContextDir>,
    pub(super) epoch: Option<i64>,
    /// Whether the steps of the stage at hand are done anew.
    pub(super) anew: bool,
    /// Caches that were emptied for `--no-cache`: once a build.
    pub(super) reset_caches: BTreeSet<std::path::PathBuf>,
    checks: Checks,
}

impl std::fmt::Debug for Build<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Build").field("shop", &self.shop).finish_non_exhaustive()
    }
}

/// Where a step stands: for its name in progress.
#[derive(Debug)]
pub(super) struct Position {
    stage: String,
    total: usize,
    pub(super) done: usize,
}

impl Position {
    /// `[build 2/3] `
    pub(super) fn next(&mut self) -> String {
        self.done += 1;
        let width = self.total.to_string().len();
        format!("[{}{:>width$}/{}] ", self.stage, self.done, self.total)
    }
}

/// What a build gave: layers that are in the store, and an image that is not yet.
#[derive(Debug, Clone)]
pub struct Made {
    /// The image.
    pub edit: Edit,
    /// Its platform.
    pub platform: Platform,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: Option<i64>,
}

impl Made {
    /// All layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> Layers {
        let Edit { config, base_layers, new_layers, .. } = &self.edit;
        let base = base_layers.iter().cloned().zip(config.rootfs.diff_ids.iter().cloned());
        let new = new_layers.iter().map(|layer| (layer.descriptor.clone(), layer.diff_id.clone()));
        base.chain(new).collect()
    }
}

/// Build the target.
///
/// # Errors
/// The first step that fails, with its place in the Dockerfile.
pub fn build(shop: Workshop<'_>, request: &Request) -> Result<Made, Failure> {
    let board = shop.board;
    let host = Platform::host();
    let target_stage = request.target.as_deref();
    let platforms = Platforms { build: &host, target: &request.platform, target_stage };
    let globals = global_scope(request, platforms)?;
    let contexts: BTreeSet<String> = request.named_contexts.keys().cloned().collect();
    let options = Options { target: target_stage, named_contexts: Some(&contexts) };
    let graph = Graph::new(&request.dockerfile, &globals, options).map_err(graph_failure)?;
    let needed = graph.order().map_err(graph_failure)?;
    let (checks, warnings) = remarks(request, &globals, platforms, &graph, &needed)?;
    for warning in &warnings {
        board.lint(lint_line(warning));
    }
    checks.verdict(&warnings).map_err(|error| Error::Rule(error.to_string()))?;
    let sources = Sources::new(shop.store, shop.report);
    let globals = Arc::new(globals);
    let epoch = epoch(&globals, request.context_time)?;
    let (stages, images) = (BTreeMap::new(), BTreeMap::new());
    let mut build = Build {
        shop,
        request,
        globals,
        graph,
        sources,
        board,
        stages,
        images,
        fetched: BTreeMap::new(),
        epoch,
        anew: false,
        reset_caches: BTreeSet::new(),
        checks,
    };
    let result = build.all();
    build.sources.save();
    let mut state = result?;
    last_words(&mut state.config.config, request);
    let platform = state.platform.clone();
    Ok(Made { edit: state.into_edit(epoch), platform, epoch })
}

/// What the command line says of the image, which counts more than the Dockerfile.
fn last_words(config: &mut ContainerConfig, request: &Request) {
    config.labels.retain(|key, _| !request.unset_labels.contains(key));
    for (key, value) in &request.labels {
        config.labels.insert(key.clone(), value.clone());
    }
    for (name, value) in &request.env {
        config.set_env(name, value);
    }
    config.env.retain(|pair| {
        let name = pair.split_once('=').map_or(pair.as_str(), |(name, _)| name);
        !request.unset_env.iter().any(|unset| unset == name)
    });
}

/// `SOURCE_DATE_EPOCH` in seconds, from a build argument or a global ARG. An empty one, or `context` for a context that
/// knows no time of its own, is none.
fn epoch(globals: &Globals, context_time: Option<i64>) -> Result<Option<i64>, Failure> {
    match globals.build_arg("SOURCE_DATE_EPOCH").or_else(|| globals.get("SOURCE_DATE_EPOCH")) {
        None | Some("") => Ok(None),
        Some("context") => Ok(context_time),
        Some(text) => match text.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(Error::Rule(format!("invalid SOURCE_DATE_EPOCH: {text}")).into()),
        },
    }
}

fn graph_failure(error: GraphError) -> Failure {
    Failure { spans: error.span().into_iter().collect(), error: Box::new(Error::Rule(error.to_string())) }
}

impl<'a> Build<'a> {
    fn all(&mut self) -> Result<StageState, Failure> {
        let order = self.resolve_bases()?;
        for index in order {
            let state = self.stage(index)?;
            self.stages.insert(index, state);
        }
        let target = self.graph.target();
        self.stages.remove(&target).ok_or_else(|| Error::Rule("no stage was built".into()).into())
    }

    /// Have every base image, and let its triggers add what they need. The stages to build come back, in order.
    fn resolve_bases(&mut self) -> Result<Vec<usize>, Failure> {
        let mut resolved = BTreeSet::new();
        loop {
            let order = self.graph.order().map_err(graph_failure)?;
            let open: Vec<usize> = order.iter().copied().filter(|index| !resolved.contains(index)).collect();
            if open.is_empty() {
                return Ok(order);
            }
            for index in open {
                resolved.insert(index);
                let Base::External(name) = self.graph.get(index).base.clone() else { continue };
                let span = self.graph.stage(index).from.span;
                let platform = self.platform_of(index);
                let image = match self.named_context(&name) {
                    Some(context) => self.context_image(context, &platform),
                    None => self.image(&name, &platform).map(Some),
                };
                let Some(image) = image.map_err(Failure::at(span))? else { continue };
                let triggers = image.config.config.on_build.clone();
                self.graph.add_triggers(index, &triggers).map_err(graph_failure)?;
            }
        }
    }

    fn platform_of(&self, index: usize) -> Platform {
        self.graph.get(index).platform.clone().unwrap_or_else(|| self.request.platform.clone())
    }

    pub(super) fn named_context(&self, name: &str) -> Option<&'a NamedContext> {
        self.request.named_contexts.get(super::graph::context_name(name))
    }

    /// An image, asked for once a build.
    pub(super) fn image(&mut self, name: &str, platform: &Platform) -> Result<Image, Error> {
        let key = (name.to_owned(), platform.to_string());
        if let Some(image) = self.images.get(&key) {
            return Ok(image.clone());
        }
        let reference = self.reference(name)?;
        let work = self.board.begin(format!("[internal] load metadata for {reference}"), false);
        let image = self.shop.bases.image(&reference, platform, &work.parts()).map_err(|source| {
            let reference = reference.to_string();
            Error::Base { reference, source }
        });
        work.end(&image);
        let image = image?;
        self.images.insert(key, image.clone());
        Ok(image)
    }

    /// What the name of an image means.
    fn reference(&self, name: &str) -> Result<Reference, Error> {
        self.shop.bases.reference(name).map_err(|source| Error::Base {
            reference: format!("failed to parse stage name {}", super::go::quote(name)),
            source,
        })
    }

    fn stage(&mut self, index: usize) -> Result<StageState, Failure> {
        let span = self.graph.stage(index).from.span;
        self.anew = self.ignores_cache(index);
        let mut position = self.position(index);
        let mut state = self.base(index, &mut position).map_err(Failure::at(span))?;
        let instructions: Vec<(bool, Located<Instruction>)> =
            self.graph.instructions(index).map(|(trigger, line)| (trigger, line.clone())).collect();
        for (trigger, line) in instructions {
            if self.shop.interrupt.asked() {
                return Err(Error::Interrupted.into());
            }
            self.instruction(index, &mut state, &mut position, trigger, &line)
                .map_err(Failure::at(line.span))?;
            self.lint_undefined(&mut state, line.span);
        }
        Ok(state)
    }

    fn position(&self, index: usize) -> Position {
        let makes_step = |instruction: &Instruction| {
            use Instruction as I;
            matches!(instruction, I::Run(_) | I::Copy(_) | I::Add(_) | I::Workdir(_))
        };
        let steps = self.graph.instructions(index).filter(|(_, line)| makes_step(&line.value)).count();
        let based = matches!(self.graph.get(index).base, Base::External(_) | Base::Replaced(_));
        let several = self.request.dockerfile.stages.len() > 1;
        let platform = match self.request.several_platforms {
            true => format!("{} ", self.request.platform),
            false => String::new(),
        };
        let stage = if several { format!("{} ", self.graph.stage_name(index)) } else { String::new() };
        let stage = platform + &stage;
        Position { stage, total: steps + usize::from(based), done: 0 }
    }

    /// What the stage starts from.
    fn base(&mut self, index: usize, position: &mut Position) -> Result<StageState, Error> {
        let escape = self.request.dockerfile.escape;
        let platform = self.platform_of(index);
        match self.graph.get(index).base.clone() {
            Base::Scratch => Ok(StageState::scratch(&self.request.platform, &self.globals, escape)),
            Base::Stage(parent) => {
                let parent = self.stages.get(&parent);
                let parent = parent.ok_or_else(|| Error::Rule("a stage is built before its base".into()))?;
                Ok(StageState::on_stage(parent))
            }
            Base::Replaced(name) | Base::External(name) if self.named_context(&name).is_some() => {
                let context = self.named_context(&name);
                if context == Some(&NamedContext::Image("scratch".into())) {
                    return Ok(StageState::scratch(&platform, &self.globals, escape));
                }
                match context.map(|context| self.context_image(context, &platform)).transpose()?.flatten() {
                    Some(image) => Ok(self.on_image(index, name, image, &platform, position)),
                    None => self.context_base(&name, &platform, position),
                }
            }
            Base::Replaced(name) | Base::External(name) => {
                let image = self.image(&name, &platform)?;
                self.lint_platform(&image, &platform, self.graph.stage(index).from.span);
                Ok(self.on_image(index, name, image, &platform, position))
            }
        }
    }

    fn on_image(
        &self,
        index: usize,
        name: String,
        image: Image,
        platform: &Platform,
        position: &mut Position,
    ) -> StageState {
        let shown = Reference::parse(&name).map_or(name, |reference| reference.to_string());
        let digest = &image.raw.digest;
        let at = if shown.contains('@') { String::new() } else { format!("@{digest}") };
        let work = self.board.begin(format!("{}FROM {shown}{at}", position.next()), true);
        work.cached();
        let asked = self.graph.get(index).platform.is_some() || self.request.platform_given;
        let asked = asked.then_some(platform);
        StageState::on_image(image, asked, &self.globals, self.request.dockerfile.escape)
    }

    fn instruction(
        &mut self,
        stage: usize,
        state: &mut StageState,
        position: &mut Position,
        trigger: bool,
        line: &Located<Instruction>,
    ) -> Result<(), Error> {
        match &line.value {
            Instruction::Run(run) => {
                let name = step_name(position, trigger, &state.scope.expand_for_display(&line.text));
                self.run_step(stage, state, run, name)
            }
            Instruction::Copy(copy) | Instruction::Add(copy) => {
                let text = state.scope.expand_for_display(&line.text);
                let words: Vec<String> = text.split(' ').map(super::git_ref::redacted).collect();
                let name = step_name(position, trigger, &words.join(" "));
                let is_add = matches!(line.value, Instruction::Add(_));
                self.copy_step(stage, state, copy, is_add, name)
            }
            other => {
                let text = metadata::apply(&mut state.config, other, &mut state.scope)
                    .map_err(|error| Error::Rule(error.to_string()))?;
                let workdir = matches!(other, Instruction::Workdir(_));
                match text {
                    Some(text) if workdir => {
                        let name = step_name(position, trigger, &text.created_by);
                        if text.empty_layer {
                            self.board.begin(name, true).cached();
                            state.push_empty(text.created_by);
                            return Ok(());
                        }
                        self.workdir_step(state, text.created_by, name)
                    }
                    Some(text) => {
                        state.push_empty(text.created_by);
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn lint_undefined(&self, state: &mut StageState, span: Span) {
        let remark = |message| Warning { rule: "UndefinedVar", message, span };
        let found = state.scope.take_undefined().into_iter().map(remark).collect();
        for warning in self.checks.filter(&self.request.dockerfile, found) {
            self.board.lint(lint_line(&warning));
        }
    }

    /// A base that is for another machine than was asked for.
    fn lint_platform(&self, image: &Image, wanted: &Platform, span: Span) {
        let Some(message) = other_platform(&image.config, wanted) else { return };
        let remark = Warning { rule: "InvalidBaseImagePlatform", message, span };
        for warning in self.checks.filter(&self.request.dockerfile, vec![remark]) {
            self.board.lint(lint_line(&warning));
        }
    }

    /// Where `--from` or a mount's `from` leads; the context without one.
    pub(super) fn origin(&mut self, input: Option<Input>, platform: &Platform) -> Result<Origin, Error> {
        match input {
            None => match &self.request.context {
                Some(context) => self.sources.directory(context, self.request.ignore.as_deref()),
                None => Ok(self.sources.layers("context", Vec::new())),
            },
            Some(Input::Stage(index)) => {
                let layers = self.stages.get(&index).map(StageState::layers).unwrap_or_default();
                Ok(self.sources.layers(&self.graph.stage_name(index), layers))
            }
            Some(Input::External(name)) if self.named_context(&name).is_some() => {
                self.context_origin(&name, platform)
            }
            Some(Input::External(name)) if name == "scratch" => {
                Ok(self.sources.layers("scratch", Vec::new()))
            }
            Some(Input::External(name)) => {
                let image = self.image(&name, platform)?;
                Ok(self.sources.layers(&name, image.layers()))
            }
        }
    }

    /// Whether the steps of a stage are done anew.
    fn ignores_cache(&self, stage: usize) -> bool {
        let name = || self.graph.stage_name(stage);
        self.request.no_cache
            || self.request.no_cache_stages.iter().any(|given| given.eq_ignore_ascii_case(&name()))
    }

    /// A result of an earlier build, when its layer is still here.
    pub(super) fn cached(&self, key: &str) -> Result<Option<Record>, Error> {
        if self.anew {
            return Ok(None);
        }
        let Some(bytes) = self.shop.store.cache_get(key)? else { return Ok(None) };
        // A record that cannot be read is no record.
        let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
        let Ok(digest) = crate::oci::digest_of(&record.descriptor) else { return Ok(None) };
        Ok(self.shop.store.has_blob(&digest, record.descriptor.size())?.then_some(record))
    }

    /// Take the step from the cache, or do it.
    pub(super) fn step(
        &mut self,
        state: &mut StageState,
        key: &str,
        created_by: String,
        name: String,
        make: impl FnOnce(&mut Self, &StageState, &Work<'a>) -> Result<crate::image::NewLayer, Error>,
    ) -> Result<(), Error> {
        let work = self.board.begin(name, true);
        if let Some(record) = self.cached(key)? {
            work.cached();
            state.push_layer(record.layer(), created_by, &record.created);
            return Ok(());
        }
        let made = make(self, state, &work).and_then(|layer| {
            let created = jiff::Timestamp::now().to_string();
            self.remember(key, &layer, &created, &created_by)?;
            Ok((layer, created))
        });
        work.end(&made);
        let (layer, created) = made?;
        state.push_layer(layer, created_by, &created);
        Ok(())
    }

    fn remember(
        &self,
        key: &str,
        layer: &crate::image::NewLayer,
        created: &str,
        about: &str,
    ) -> Result<(), Error> {
        let record = Record {
            descriptor: layer.descriptor.clone(),
            diff_id: layer.diff_id.clone(),
            created: created.to_owned(),
        };
        let digest = crate::oci::digest_of(&record.descriptor)
            .map_err(|error| Error::Rule(format!("a layer has an unusable digest: {error}")))?;
        // A record is three strings and a number, which JSON always holds.
        let bytes = serde_json::to_vec(&record).map_err(|error| Error::Rule(error.to_string()))?;
        Ok(self.shop.store.cache_put(key, &bytes, &[digest], about)?)
    }
}

/// The check options in force, and the remarks they leave. Those on files of the context are about the stages `of`.
fn remarks(
    request: &Request,
    globals: &Globals,
    platforms: Platforms<'_>,
    graph: &Graph<'_>,
    of: &[usize],
) -> Result<(Checks, Vec<Warning>), Failure> {
    let file = &request.dockerfile;
    let options = globals.build_arg("BUILDKIT_DOCKERFILE_CHECK").or(file.check.as_deref());
    let checks =
        Checks::parse(options.unwrap_or_default()).map_err(|error| Error::Rule(error.to_string()))?;
    let mut all = file.warnings.clone();
    all.extend(graph.warnings.iter().cloned());
    all.extend(remarks::default_args(file, platforms));
    all.extend(remarks::descriptions(file));
    if let Some(ignore) = &request.ignore {
        all.extend(remarks::ignored_sources(file, ignore, of));
    }
    all.sort_by_key(|warning| warning.span.first);
    let left = checks.filter(file, all);
    Ok((checks, left))
}

/// Look for mistakes and questionable lines without building anything. `configs` says what is known of base images.
///
/// # Errors
/// For mistakes that would fail any build.
pub fn check(request: &Request, configs: &rehearsal::Configs<'_>) -> Result<Vec<Warning>, Failure> {
    let all: Vec<usize> = (0..request.dockerfile.stages.len()).collect();
    with_graph(request, |globals, platforms, graph| {
        let (checks, mut found) = remarks(request, globals, platforms, graph, &all)?;
        let more = rehearsal::rehearse(request, globals, graph, configs)?;
        found.extend(checks.filter(&request.dockerfile, more));
        found.sort_by_key(|warning| warning.span.first);
        Ok(found)
    })
}

/// What the target takes: its arguments, secrets and sockets.
///
/// # Errors
/// For mistakes that would fail any build.
pub fn outline(request: &Request) -> Result<Outline, Failure> {
    with_graph(request, |globals, _, graph| {
        let order = graph.order().map_err(graph_failure)?;
        Ok(outline::outline(&request.dockerfile, graph, globals, &order))
    })
}

fn with_graph<T>(
    request: &Request,
    look: impl FnOnce(&Arc<Globals>, Platforms<'_>, &Graph<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let host = Platform::host();
    let target_stage = request.target.as_deref();
    let platforms = Platforms { build: &host, target: &request.platform, target_stage };
    let globals = Arc::new(global_scope(request, platforms)?);
    let contexts: BTreeSet<String> = request.named_contexts.keys().cloned().collect();
    let options = Options { target: target_stage, named_contexts: Some(&contexts) };
    let graph = Graph::new(&request.dockerfile, &globals, options).map_err(graph_failure)?;
    look(&globals, platforms, &graph)
}

fn global_scope(request: &Request, platforms: Platforms<'_>) -> Result<Globals, Failure> {
    Globals::new(&request.dockerfile, &request.build_args, platforms)
        .map_err(|error| Failure::at(error.span)(Error::Rule(error.reason.to_string())))
}

/// A remark as BuildKit words it.
fn lint_line(warning: &Warning) -> String {
    format!("{}: {} (line {})", warning.rule, warning.message, warning.span.first)
}

fn step_name(position: &mut Position, trigger: bool, text: &str) -> String {
    let trigger = if trigger { "ONBUILD " } else { "" };
    format!("{}{trigger}{text}", position.next())
}
