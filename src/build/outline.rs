//! What a Dockerfile offers to its callers: its targets, and what one of them takes.

use std::collections::BTreeSet;

use super::ast::{ArgPair, Dockerfile, Instruction, Located, Span};
use super::graph::Graph;
use super::mount::{self, MountType};
use super::scope::Globals;

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, unless it has none.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: String,
    /// What it starts from, as written.
    pub base: String,
    /// Whether it is built when no target is named.
    pub default: bool,
    /// The line of its FROM.
    pub span: Span,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value in this build, unless it has none.
    pub value: Option<String>,
    /// What the comment above it says.
    pub description: String,
    /// Where it is declared.
    pub span: Span,
}

/// A secret or an agent's socket that a RUN mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its id.
    pub id: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The RUN.
    pub span: Span,
}

/// What a target takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The target.
    pub target: Target,
    /// Arguments of the stages that it needs.
    pub arguments: Vec<Argument>,
    /// Secrets of the stages that it needs.
    pub secrets: Vec<Need>,
    /// Agents' sockets of the stages that it needs.
    pub sockets: Vec<Need>,
}

/// Every stage of a file.
#[must_use]
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    (0..file.stages.len()).map(|index| target(file, index)).collect()
}

fn target(file: &Dockerfile, index: usize) -> Target {
    let from = &file.stages[index].from;
    let name = from.value.name.clone();
    Target {
        description: name.as_deref().map(|name| description(file, from.span, name)).unwrap_or_default(),
        name,
        base: from.value.base.clone(),
        default: index + 1 == file.stages.len(),
        span: from.span,
    }
}

/// What the target of `graph` takes, the stages `order` being those that it needs.
pub(super) fn outline(file: &Dockerfile, graph: &Graph<'_>, globals: &Globals, order: &[usize]) -> Outline {
    let mut found = Outline {
        target: target(file, graph.target()),
        arguments: Vec::new(),
        secrets: Vec::new(),
        sockets: Vec::new(),
    };
    let used = used_in_from(file, order);
    for line in &file.global_args {
        for pair in line.value.iter().filter(|pair| used.contains(pair.name.as_str())) {
            found.argument(file, globals, line, pair);
        }
    }
    let lines =
        order.iter().filter_map(|index| file.stages.get(*index)).flat_map(|stage| &stage.instructions);
    for line in lines {
        match &line.value {
            Instruction::Arg(pairs) => {
                let line = Located { value: pairs.clone(), span: line.span, text: String::new() };
                pairs.iter().for_each(|pair| found.argument(file, globals, &line, pair));
            }
            Instruction::Run(run) => run.mounts.iter().for_each(|text| found.mount(text, line.span)),
            _ => {}
        }
    }
    found
}

impl Outline {
    fn argument(
        &mut self,
        file: &Dockerfile,
        globals: &Globals,
        line: &Located<Vec<ArgPair>>,
        pair: &ArgPair,
    ) {
        use super::expand::Lookup as _;
        if self.arguments.iter().any(|known| known.name == pair.name) {
            return;
        }
        let own = description(file, line.span, &pair.name);
        let outer = file.global_args.iter().filter(|line| line.value.iter().any(|arg| arg.name == pair.name));
        let outer = outer.map(|line| description(file, line.span, &pair.name)).find(|text| !text.is_empty());
        let given = globals.build_arg(&pair.name).map(str::to_owned);
        let value =
            given.or_else(|| pair.default.clone()).or_else(|| globals.get(&pair.name).map(str::to_owned));
        self.arguments.push(Argument {
            name: pair.name.clone(),
            value,
            description: if own.is_empty() { outer.unwrap_or_default() } else { own },
            span: line.span,
        });
    }

    fn mount(&mut self, text: &str, span: Span) {
        // A mount that is wrong fails the build with words of its own.
        let Ok(mount) = mount::parse(text, |word| Ok(word.to_owned())) else { return };
        let list = match mount.kind {
            MountType::Secret => &mut self.secrets,
            MountType::Ssh => &mut self.sockets,
            _ => return,
        };
        let named = [mount.id.unwrap_or_default(), mount.source, last(&mount.target), "default".into()];
        let id = named.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        match list.iter_mut().find(|known| known.id == id) {
            Some(known) => known.required |= mount.required,
            None => list.push(Need { id, required: mount.required, span }),
        }
    }
}

fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The names of variables in the FROM lines of these stages.
fn used_in_from<'f>(file: &'f Dockerfile, order: &[usize]) -> BTreeSet<&'f str> {
    let stages = order.iter().filter_map(|index| file.stages.get(*index));
    let words = stages.flat_map(|stage| {
        let from = &stage.from.value;
        std::iter::once(from.base.as_str()).chain(from.platform.as_deref())
    });
    let name = |rest: &'f str| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    };
    words.flat_map(|word| word.split('$').skip(1)).map(name).collect()
}

/// `# NAME text` above a line: the text.
fn description(file: &Dockerfile, span: Span, name: &str) -> String {
    let comments = file.comments.iter().filter(|(at, _)| *at == span).flat_map(|(_, lines)| lines);
    let mut described = comments.filter_map(|comment| {
        let (word, rest) = comment.split_once(char::is_whitespace)?;
        word.eq_ignore_ascii_case(name).then(|| rest.trim().to_owned())
    });
    described.next_back().unwrap_or_default()
}
