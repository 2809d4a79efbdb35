//! The stage graph: what each stage starts from and copies from, which stages the target needs, and the mistakes that
//! only show when stages are put together.

use std::collections::BTreeSet;

use super::ast::{Dockerfile, Instruction, Located, ParseError, Span, Stage, Warning};
use super::expand::{ExpandError, Lex};
use super::mount;
use super::parse::parse_triggers;
use super::scope::Globals;
use super::suggest;
use crate::oci::{Platform, PlatformError, Reference};

/// Why stages do not fit together, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A base name that expands to nothing.
    #[error("base name ({base}) should not be blank")]
    BlankBase {
        /// As written.
        base: String,
        /// The FROM line.
        span: Span,
    },
    /// A base that is neither a stage nor a valid reference.
    #[error("failed to parse stage name {}: {why}", super::go::quote(base))]
    InvalidBase {
        /// Expanded.
        base: String,
        /// Docker's words for it.
        why: String,
        /// The FROM line.
        span: Span,
    },
    /// A word of a FROM line cannot be expanded.
    #[error("{reason}")]
    Expand {
        /// Why.
        reason: ExpandError,
        /// The FROM line.
        span: Span,
    },
    /// `--platform` expands to nothing.
    #[error("empty platform value from expression {expression}{hint}")]
    EmptyPlatform {
        /// As written.
        expression: String,
        /// A suggestion, or nothing.
        hint: String,
        /// The FROM line.
        span: Span,
    },
    /// `--platform` is not one.
    #[error("failed to parse platform {platform}")]
    InvalidPlatform {
        /// As written.
        platform: String,
        /// What is wrong.
        #[source]
        source: PlatformError,
        /// The FROM line.
        span: Span,
    },
    /// `--target` names no stage.
    #[error("target stage {} could not be found{hint}", super::go::quote(target))]
    UnknownTarget {
        /// As given.
        target: String,
        /// A suggestion, or nothing.
        hint: String,
    },
    /// `COPY --from=N` beyond the stages.
    #[error("invalid stage index {index}")]
    InvalidIndex {
        /// As written.
        index: String,
        /// The COPY.
        span: Span,
    },
    /// `COPY --from=$X`.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    VariableFrom {
        /// The COPY.
        span: Span,
    },
    /// COPY from a stage further down.
    #[error(
        "cannot copy from stage {}, it needs to be defined before current stage {}",
        super::go::quote(from),
        super::go::quote(stage)
    )]
    CopyForward {
        /// The stage copied from.
        from: String,
        /// The stage that copies.
        stage: String,
        /// The COPY.
        span: Span,
    },
    /// A mount from a stage further down.
    #[error(
        "cannot mount from stage {}, stage needs to be defined before current command",
        super::go::quote(from)
    )]
    MountForward {
        /// The stage mounted.
        from: String,
        /// The RUN.
        span: Span,
    },
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {stage}")]
    Circular {
        /// The first stage from which the circle is reached.
        stage: String,
        /// The instruction that closes the circle.
        span: Span,
    },
    /// A trigger that is no instruction.
    #[error(transparent)]
    Trigger(ParseError),
}

impl GraphError {
    /// The lines to show; none for a mistake of the command line.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::UnknownTarget { .. } => None,
            Self::Trigger(error) => Some(error.span),
            Self::BlankBase { span, .. }
            | Self::InvalidBase { span, .. }
            | Self::Expand { span, .. }
            | Self::EmptyPlatform { span, .. }
            | Self::InvalidPlatform { span, .. }
            | Self::InvalidIndex { span, .. }
            | Self::VariableFrom { span }
            | Self::CopyForward { span, .. }
            | Self::MountForward { span, .. }
            | Self::Circular { span, .. } => Some(*span),
        }
    }
}

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// `scratch`: nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// A named context or an image, by its expanded name.
    External(String),
    /// The stage bears the name of a named context, which takes its place: its instructions do not run.
    Replaced(String),
}

/// Where COPY or a mount takes files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An earlier stage.
    Stage(usize),
    /// A named context or an image.
    External(String),
}

/// A stage as a node of the graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it starts from.
    pub base: Base,
    /// `--platform`, expanded.
    pub platform: Option<Platform>,
    /// Triggers of the parent stage or the base image, to run before the stage's own instructions.
    pub triggers: Vec<Located<Instruction>>,
    /// Where its instructions take files from.
    inputs: Vec<Use>,
}

#[derive(Debug, Clone)]
struct Use {
    input: Input,
    mount: bool,
    span: Span,
}

/// What besides the file decides the graph.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// `--target`
    pub target: Option<&'a str>,
    /// The names given with `--build-context`, normalised.
    pub named_contexts: Option<&'a BTreeSet<String>>,
}

impl Options<'_> {
    fn is_context(&self, name: &str) -> bool {
        !["scratch", "context"].contains(&name)
            && self.named_contexts.is_some_and(|names| names.contains(context_name(name)))
    }
}

/// The name under which a reference is looked up among named contexts.
#[must_use]
pub fn context_name(reference: &str) -> &str {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name)
}

/// The stages of a file and what they need.
#[derive(Debug)]
pub struct Graph<'a> {
    file: &'a Dockerfile,
    nodes: Vec<Node>,
    target: usize,
    /// Lint-like remarks on FROM lines.
    pub warnings: Vec<Warning>,
}

impl<'a> Graph<'a> {
    /// Resolve every stage of `file`, reachable or not: mistakes in stages that are not needed fail as well.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn new(file: &'a Dockerfile, globals: &Globals, options: Options<'_>) -> Result<Self, GraphError> {
        let mut graph = Self { file, nodes: Vec::new(), target: 0, warnings: Vec::new() };
        for stage in &file.stages {
            let node = graph.node(stage, globals, options)?;
            graph.nodes.push(node);
        }
        graph.target = graph.find_target(options.target)?;
        for index in 0..graph.nodes.len() {
            let own = file.stages[index].instructions.iter();
            graph.nodes[index].inputs = match graph.nodes[index].base {
                Base::Replaced(_) => Vec::new(),
                _ => graph.uses(index, graph.nodes[index].triggers.iter().chain(own))?,
            };
        }
        graph.check_cycles()?;
        Ok(graph)
    }

    fn node(&mut self, stage: &Stage, globals: &Globals, options: Options<'_>) -> Result<Node, GraphError> {
        let (from, span) = (&stage.from.value, stage.from.span);
        let lex = Lex::new(self.file.escape);
        let expanded =
            lex.expand(&from.base, globals).map_err(|reason| GraphError::Expand { reason, span })?;
        self.undefined_in_from(&expanded.unset, globals, span);
        if expanded.text.is_empty() {
            return Err(GraphError::BlankBase { base: from.base.clone(), span });
        }
        let platform = match &from.platform {
            Some(text) => Some(self.platform(text, globals, span)?),
            None => None,
        };
        let mut node = Node { base: Base::Scratch, platform, triggers: Vec::new(), inputs: Vec::new() };
        let base = expanded.text;
        if let Some(name) = from.name.as_deref().filter(|name| options.is_context(name)) {
            node.base = Base::Replaced(name.to_owned());
        } else if let Some(parent) = self.stage_named(&base, stage.index) {
            node.triggers = self.triggers_of(parent, span)?;
            node.base = Base::Stage(parent);
        } else if base != "scratch" {
            if !options.is_context(&base) {
                check_reference(&base, span)?;
            }
            node.base = Base::External(base);
        }
        Ok(node)
    }

    fn undefined_in_from(&mut self, unset: &BTreeSet<String>, globals: &Globals, span: Span) {
        let undeclared = |name: &&String| !globals.declared().any(|known| known == name.as_str());
        for name in unset.iter().filter(undeclared) {
            let mut message = format!("argument `{name}` of FROM is not declared before it");
            if let Some(near) = suggest::nearest(name, globals.declared()) {
                message = format!("{message} (did you mean {near}?)");
            }
            self.warnings.push(Warning { rule: "UndefinedArgInFrom", message, span });
        }
    }

    fn platform(&self, text: &str, globals: &Globals, span: Span) -> Result<Platform, GraphError> {
        let expanded = Lex::new(self.file.escape)
            .expand(text, globals)
            .map_err(|reason| GraphError::Expand { reason, span })?;
        if expanded.text.is_empty() {
            let near = expanded.unset.iter().find_map(|name| suggest::nearest(name, globals.declared()));
            let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            return Err(GraphError::EmptyPlatform { expression: text.to_owned(), hint, span });
        }
        expanded.text.parse().map_err(|source| GraphError::InvalidPlatform {
            platform: text.to_owned(),
            source,
            span,
        })
    }

    /// The last stage before `before` with exactly this (lower-case) name.
    fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let named = |stage: &Stage| stage.from.value.name.as_deref() == Some(name);
        self.file.stages[..before].iter().rposition(named)
    }

    /// The triggers in the text of stage `parent`. They fire in its children and not again in theirs.
    fn triggers_of(&self, parent: usize, span: Span) -> Result<Vec<Located<Instruction>>, GraphError> {
        let triggers: Vec<String> = self.file.stages[parent]
            .instructions
            .iter()
            .filter_map(|instruction| match &instruction.value {
                Instruction::OnBuild(trigger) => Some(trigger.clone()),
                _ => None,
            })
            .collect();
        parse_triggers(&triggers, self.file.escape, span).map_err(first_trigger_error)
    }

    fn find_target(&self, target: Option<&str>) -> Result<usize, GraphError> {
        let last = self.nodes.len().saturating_sub(1);
        let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(last) };
        self.stage_named(&target.to_lowercase(), self.nodes.len()).ok_or_else(|| {
            let names = self.file.stages.iter().filter_map(|stage| stage.from.value.name.as_deref());
            let hint = suggest::nearest(target, names).map(|near| format!(" (did you mean {near}?)"));
            GraphError::UnknownTarget { target: target.to_owned(), hint: hint.unwrap_or_default() }
        })
    }

    fn uses<'i>(
        &self,
        stage: usize,
        instructions: impl Iterator<Item = &'i Located<Instruction>>,
    ) -> Result<Vec<Use>, GraphError> {
        let mut uses = Vec::new();
        for Located { value, span, .. } in instructions {
            let span = *span;
            match value {
                Instruction::Copy(copy) => {
                    if let Some(from) = &copy.from {
                        let input = self.copy_input(stage, from, span)?;
                        uses.push(Use { input, mount: false, span });
                    }
                }
                Instruction::Run(run) => {
                    for from in run.mounts.iter().filter_map(|value| mount::from(value)) {
                        uses.push(Use { input: self.named_input(stage, &from), mount: true, span });
                    }
                }
                _ => {}
            }
        }
        Ok(uses)
    }

    /// What `COPY --from` of an instruction of `stage` means: an index, a stage's name, or something outside.
    ///
    /// # Errors
    /// For an index beyond the stages and for variables.
    pub fn copy_input(&self, stage: usize, from: &str, span: Span) -> Result<Input, GraphError> {
        if from.find('$').is_some_and(|at| at + 1 < from.len()) {
            return Err(GraphError::VariableFrom { span });
        }
        let digits = from.strip_prefix(['-', '+']).unwrap_or(from);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let index = from.parse::<usize>().ok().filter(|index| *index < self.nodes.len());
            return index
                .map(Input::Stage)
                .ok_or_else(|| GraphError::InvalidIndex { index: from.to_owned(), span });
        }
        Ok(self.named_input(stage, from))
    }

    /// What `from=` of a mount of `stage` means; there are no indexes here.
    #[must_use]
    pub fn named_input(&self, stage: usize, name: &str) -> Input {
        let lower = name.to_lowercase();
        // A stage further down is an error to be reported, and not an image of that name.
        let found = self.stage_named(&lower, stage).or_else(|| self.stage_named(&lower, self.nodes.len()));
        found.map_or_else(|| Input::External(name.to_owned()), Input::Stage)
    }

    /// Add the triggers of an image that `stage` turned out to be based on; they may need further stages.
    ///
    /// # Errors
    /// When a trigger is no instruction, or needs a stage it cannot have.
    pub fn add_triggers(&mut self, stage: usize, triggers: &[String]) -> Result<(), GraphError> {
        let span = self.file.stages[stage].from.span;
        let parsed = parse_triggers(triggers, self.file.escape, span).map_err(first_trigger_error)?;
        let uses = self.uses(stage, parsed.iter())?;
        self.nodes[stage].inputs.extend(uses);
        self.nodes[stage].triggers.extend(parsed);
        self.check_cycles()
    }

    /// The index of the stage to build.
    #[must_use]
    pub fn target(&self) -> usize {
        self.target
    }

    /// A stage.
    #[must_use]
    pub fn stage(&self, index: usize) -> &'a Stage {
        &self.file.stages[index]
    }

    /// A stage's place in the graph.
    #[must_use]
    pub fn get(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The instructions a stage runs: triggers first; none when a named context takes its place. True with triggers.
    pub fn instructions(&self, index: usize) -> impl Iterator<Item = (bool, &Located<Instruction>)> {
        let node = &self.nodes[index];
        let replaced = matches!(node.base, Base::Replaced(_));
        let triggers = node.triggers.iter().map(|instruction| (true, instruction));
        let own = self.file.stages[index].instructions.iter().map(|instruction| (false, instruction));
        triggers.chain(own).filter(move |_| !replaced)
    }

    /// The stages that `index` needs directly, its base included.
    #[must_use]
    pub fn dependencies(&self, index: usize) -> BTreeSet<usize> {
        let node = &self.nodes[index];
        let base = match node.base {
            Base::Stage(stage) => Some(stage),
            _ => None,
        };
        let inputs = node.inputs.iter().filter_map(|used| match used.input {
            Input::Stage(stage) => Some(stage),
            Input::External(_) => None,
        });
        base.into_iter().chain(inputs).collect()
    }

    /// The images and named contexts that `index` takes files from, its base not included.
    #[must_use]
    pub fn external_inputs(&self, index: usize) -> BTreeSet<&str> {
        let inputs = self.nodes[index].inputs.iter();
        inputs
            .filter_map(|used| match &used.input {
                Input::External(name) => Some(name.as_str()),
                Input::Stage(_) => None,
            })
            .collect()
    }

    /// The stages that the target needs, each after those it needs, the target last.
    ///
    /// # Errors
    /// When one of them takes files from a stage further down.
    pub fn order(&self) -> Result<Vec<usize>, GraphError> {
        let mut needed = BTreeSet::from([self.target]);
        let mut open = vec![self.target];
        while let Some(index) = open.pop() {
            for dependency in self.dependencies(index) {
                if needed.insert(dependency) {
                    open.push(dependency);
                }
            }
        }
        needed.iter().try_for_each(|index| self.check_forward(*index))?;
        // Stages only need earlier ones, so the order of the file will do.
        Ok(needed.into_iter().collect())
    }

    fn check_forward(&self, index: usize) -> Result<(), GraphError> {
        for used in &self.nodes[index].inputs {
            let Input::Stage(from) = used.input else { continue };
            if from < index {
                continue;
            }
            let (from, span) = (self.stage_name(from), used.span);
            return Err(if used.mount {
                GraphError::MountForward { from, span }
            } else {
                GraphError::CopyForward { from, stage: self.stage_name(index), span }
            });
        }
        Ok(())
    }

    /// The stage's name, or `stage-N`.
    #[must_use]
    pub fn stage_name(&self, index: usize) -> String {
        self.file.stages[index].from.value.name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    fn check_cycles(&self) -> Result<(), GraphError> {
        // Depth first without recursion: a file may have any number of stages.
        let mut done = vec![false; self.nodes.len()];
        for root in 0..self.nodes.len() {
            let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
            let mut next = Some(root).filter(|root| !done[*root]);
            loop {
                if let Some(index) = next.take() {
                    if path.iter().any(|(open, _)| *open == index) {
                        let closing = path.last().map_or(index, |(last, _)| *last);
                        let span = self.span_of_use(closing, index);
                        return Err(GraphError::Circular { stage: self.stage_name(root), span });
                    }
                    if !done[index] {
                        path.push((index, self.dependencies(index).into_iter().collect()));
                    }
                }
                match path.last_mut() {
                    None => break,
                    Some((index, rest)) => match rest.pop() {
                        Some(dependency) => next = Some(dependency),
                        None => {
                            done[*index] = true;
                            path.pop();
                        }
                    },
                }
            }
        }
        Ok(())
    }
}

impl Graph<'_> {
    /// Where stage `index` says that it needs stage `needed`.
    fn span_of_use(&self, index: usize, needed: usize) -> Span {
        let found = self.nodes[index].inputs.iter().find(|used| used.input == Input::Stage(needed));
        found.map_or(self.file.stages[index].from.span, |used| used.span)
    }
}

fn first_trigger_error(mut errors: Vec<ParseError>) -> GraphError {
    GraphError::Trigger(errors.swap_remove(0))
}

fn check_reference(base: &str, span: Span) -> Result<(), GraphError> {
    if Reference::parse(base).is_ok() {
        return Ok(());
    }
    let lower = base.to_lowercase();
    let mut why = String::from("invalid reference format");
    if lower != base && Reference::parse(&lower).is_ok() {
        let name = base.split(['@', ':']).next().unwrap_or(base);
        let path = if name.contains('/') { name.to_owned() } else { format!("library/{name}") };
        why = format!("{why}: repository name ({path}) must be lowercase");
    }
    Err(GraphError::InvalidBase { base: base.to_owned(), why, span })
}

#[cfg(test)]
mod tests;
