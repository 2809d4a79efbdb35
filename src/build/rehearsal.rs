//! The stages gone through without doing anything, for the build checks that need what variables are set.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Copy, Instruction, Warning};
use super::error::{Error, Failure};
use super::expand::ExpandError;
use super::graph::{Base, Graph};
use super::metadata;
use super::mount;
use super::request::Request;
use super::scope::{Globals, Scope};
use crate::oci::{ImageConfig, Platform};

/// What is known of base images: the config for a platform, when it can be had.
pub type Configs<'a> = dyn Fn(&str, &Platform) -> Option<ImageConfig> + 'a;

/// A stage as far as it was gone through.
#[derive(Clone)]
struct Stage {
    config: ImageConfig,
    scope: Scope,
}

/// Go through every stage whose base is known. Remarks come back: variables that are never set, bases for another
/// platform.
///
/// # Errors
/// For words that cannot be expanded, as a build would.
pub(super) fn rehearse(
    request: &Request,
    globals: &Arc<Globals>,
    graph: &Graph<'_>,
    configs: &Configs<'_>,
) -> Result<Vec<Warning>, Failure> {
    let mut stages: BTreeMap<usize, Stage> = BTreeMap::new();
    let mut found = Vec::new();
    for index in 0..request.dockerfile.stages.len() {
        let known = match &graph.get(index).base {
            Base::Stage(parent) => stages.get(parent).cloned().map(|mut stage| {
                stage.scope = stage.scope.child();
                stage
            }),
            base => first(request, globals, graph, index, base, configs, &mut found),
        };
        let Some(mut stage) = known else { continue };
        for (_, line) in graph.instructions(index) {
            stage.instruction(&line.value).map_err(Failure::at(line.span))?;
            let undefined = stage.scope.take_undefined().into_iter();
            found.extend(undefined.map(|message| Warning { rule: "UndefinedVar", message, span: line.span }));
        }
        stages.insert(index, stage);
    }
    Ok(found)
}

/// A stage that begins with what is no stage; nothing when it is not known what that is.
fn first(
    request: &Request,
    globals: &Arc<Globals>,
    graph: &Graph<'_>,
    index: usize,
    base: &Base,
    configs: &Configs<'_>,
    found: &mut Vec<Warning>,
) -> Option<Stage> {
    let platform = graph.get(index).platform.clone().unwrap_or_else(|| request.platform.clone());
    let config = match base {
        Base::External(name) if !request.named_contexts.contains_key(super::graph::context_name(name)) => {
            let config = configs(name, &platform)?;
            let span = graph.stage(index).from.span;
            found.extend(other_platform(&config, &platform).map(|message| Warning {
                rule: "InvalidBaseImagePlatform",
                message,
                span,
            }));
            metadata::inherit(config).0
        }
        Base::Scratch => metadata::scratch_config(&platform),
        _ => return None,
    };
    let scope = Scope::new(Arc::clone(globals), request.dockerfile.escape, &config.config);
    Some(Stage { config, scope })
}

/// What to say of a base that is for another machine than was asked for.
pub(super) fn other_platform(config: &ImageConfig, wanted: &Platform) -> Option<String> {
    let (os, architecture) = (&config.os, &config.architecture);
    let fits = *os == wanted.os && *architecture == wanted.architecture;
    (!fits).then(|| format!("the base is for {os}/{architecture}, and {wanted} was wanted"))
}

impl Stage {
    fn instruction(&mut self, instruction: &Instruction) -> Result<(), Error> {
        let rule = |error: ExpandError| Error::Rule(error.to_string());
        match instruction {
            Instruction::Run(run) => {
                for value in &run.mounts {
                    let parsed = mount::parse(value, |word| self.scope.expand(word));
                    parsed.map_err(|error| Error::Rule(error.to_string()))?;
                }
            }
            Instruction::Copy(copy) | Instruction::Add(copy) => {
                expand_copy(&mut self.scope, &mut copy.clone()).map_err(rule)?;
            }
            other => {
                let applied = metadata::apply(&mut self.config, other, &mut self.scope);
                applied.map_err(|error| Error::Rule(error.to_string()))?;
            }
        }
        Ok(())
    }
}

/// Put the values of variables into the words of COPY and ADD.
pub(super) fn expand_copy(scope: &mut Scope, copy: &mut Copy) -> Result<(), ExpandError> {
    for source in &mut copy.sources {
        *source = scope.expand(source)?;
    }
    copy.dest = scope.expand(&copy.dest)?;
    for flag in [&mut copy.chown, &mut copy.chmod, &mut copy.checksum].into_iter().flatten() {
        *flag = scope.expand(flag)?;
    }
    for heredoc in copy.heredocs.iter_mut().filter(|heredoc| heredoc.expand) {
        heredoc.content = scope.expand_heredoc(&heredoc.content)?;
    }
    Ok(())
}
