//! ARG and ENV: the global scope before the first FROM, and the scope of a stage as its instructions go by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ast::{ArgPair, Dockerfile, Span};
use super::expand::{ExpandError, Lex, Lookup};
use super::suggest;
use crate::oci::{ContainerConfig, Platform};

/// The search path of images that set none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that reach RUN without ARG, in any case of letters.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Arguments that steer the build and never become environment variables.
const NOT_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What the platform arguments are made of.
#[derive(Debug, Clone, Copy)]
pub struct Platforms<'a> {
    /// Where the build runs.
    pub build: &'a Platform,
    /// What the result is for.
    pub target: &'a Platform,
    /// `--target`, when given.
    pub target_stage: Option<&'a str>,
}

/// The global scope: platform arguments, ARGs before the first FROM and `--build-arg`.
#[derive(Debug, Clone, Default)]
pub struct Globals {
    values: BTreeMap<String, String>,
    declared: BTreeSet<String>,
    build_args: BTreeMap<String, String>,
}

/// A global ARG whose default cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct GlobalError {
    /// Why.
    pub reason: ExpandError,
    /// Where.
    pub span: Span,
}

impl Globals {
    /// Evaluate the global ARGs of `file`.
    ///
    /// # Errors
    /// When a default cannot be expanded. Defaults that `build_args` override are not looked at.
    pub fn new(
        file: &Dockerfile,
        build_args: &BTreeMap<String, String>,
        platforms: Platforms<'_>,
    ) -> Result<Self, GlobalError> {
        let mut values = platform_args(file, platforms);
        let overridden = build_args.iter().filter(|(name, _)| values.contains_key(*name));
        let overridden: Vec<_> = overridden.map(|(name, value)| (name.clone(), value.clone())).collect();
        values.extend(overridden);
        let lex = Lex::new(file.escape);
        let mut declared: BTreeSet<String> = values.keys().cloned().collect();
        for line in &file.global_args {
            for pair in &line.value {
                let value = match (build_args.get(&pair.name), &pair.default) {
                    (Some(value), _) => Some(value.clone()),
                    (None, Some(default)) => Some(
                        lex.process_word(default, &values)
                            .map_err(|reason| GlobalError { reason, span: line.span })?,
                    ),
                    (None, None) => None,
                };
                declared.insert(pair.name.clone());
                if let Some(value) = value {
                    values.insert(pair.name.clone(), value);
                }
            }
        }
        Ok(Self { values, declared, build_args: build_args.clone() })
    }

    /// The names that FROM lines may use, set or not.
    pub fn declared(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(String::as_str)
    }

    /// The value of a `--build-arg`.
    #[must_use]
    pub fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.get(name).map(String::as_str)
    }

    /// The proxy variables for RUN, each in upper and lower case. They belong in no cache key and no history.
    #[must_use]
    pub fn proxy_env(&self) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for name in PROXIES {
            let given = self.build_args.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
                env.push((name.to_owned(), value.clone()));
                env.push((name.to_lowercase(), value.clone()));
            }
        }
        env
    }
}

impl Lookup for Globals {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

fn platform_args(file: &Dockerfile, platforms: Platforms<'_>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (prefix, platform) in [("BUILD", platforms.build), ("TARGET", platforms.target)] {
        let variant = platform.variant.clone().unwrap_or_default();
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}OSVERSION"), String::new());
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), variant);
    }
    let last = file.stages.last().and_then(|stage| stage.from.value.name.as_deref());
    let stage = platforms.target_stage.or(last).unwrap_or("default");
    values.insert("TARGETSTAGE".into(), stage.to_owned());
    values
}

/// The scope of a stage. The build drives it instruction by instruction; whichever of ENV and ARG came last counts.
#[derive(Debug, Clone)]
pub struct Scope {
    lex: Lex,
    globals: Arc<Globals>,
    /// In program order; every name once.
    env: Vec<(String, String)>,
    /// Every declaration, in program order.
    args: Vec<(String, Option<String>)>,
    /// Whether this stage had a CMD, so that ENTRYPOINT keeps it.
    pub(super) cmd_set: bool,
    /// What to say of unset names that were used since [`Scope::take_undefined`].
    undefined: BTreeSet<String>,
}

impl Scope {
    /// The scope of a stage whose base has `config`. `escape` is the file's escape character.
    #[must_use]
    pub fn new(globals: Arc<Globals>, escape: char, config: &ContainerConfig) -> Self {
        let mut scope = Self {
            lex: Lex::new(escape),
            globals,
            env: Vec::new(),
            args: Vec::new(),
            cmd_set: false,
            undefined: BTreeSet::new(),
        };
        for pair in &config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            scope.set_env(name, value);
        }
        scope
    }

    /// The scope of a stage that starts from the stage of this one: its ENV and ARG values are inherited.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { cmd_set: false, undefined: BTreeSet::new(), ..self.clone() }
    }

    /// The environment of RUN: ENV and ARG values in program order. Proxies are not among them.
    #[must_use]
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The global scope.
    #[must_use]
    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// Expand a word.
    ///
    /// # Errors
    /// When the word is malformed or a required variable is missing.
    pub fn expand(&mut self, word: &str) -> Result<String, ExpandError> {
        self.expand_with(self.lex, word).map(|expanded| expanded.text)
    }

    /// Expand a word and split it: values of unquoted variables become several words.
    ///
    /// # Errors
    /// As [`Scope::expand`].
    pub fn expand_words(&mut self, word: &str) -> Result<Vec<String>, ExpandError> {
        self.expand_with(self.lex, word).map(|expanded| expanded.words)
    }

    /// Expand the body of an unquoted heredoc of COPY or ADD.
    ///
    /// # Errors
    /// As [`Scope::expand`].
    pub fn expand_heredoc(&mut self, body: &str) -> Result<String, ExpandError> {
        self.expand_with(Lex::heredoc_body(), body).map(|expanded| expanded.text)
    }

    /// A word as progress shows it: set variables replaced, unset ones and quotes kept; as written when malformed.
    #[must_use]
    pub fn expand_for_display(&self, word: &str) -> String {
        let lex = Lex { raw_quotes: true, raw_escapes: true, keep_unset: true, ..self.lex };
        lex.process_word(word, &self.env).unwrap_or_else(|_| word.to_owned())
    }

    fn expand_with(&mut self, lex: Lex, word: &str) -> Result<super::expand::Expanded, ExpandError> {
        let expanded = lex.expand(word, &self.env)?;
        let declared = |name: &String| self.args.iter().any(|(arg, _)| arg == name);
        let undefined = expanded.unset.iter().filter(|name| !declared(name));
        // Named now: a variable that this very instruction sets is none that could have been meant.
        let known = || self.env.iter().map(|(name, _)| name.as_str());
        let messages: Vec<String> = undefined.map(|name| never_set(name, known())).collect();
        self.undefined.extend(messages);
        Ok(expanded)
    }

    /// Set a variable (ENV).
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(key, _)| key != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Declare an ARG and give its value: the build argument, else the default, else the global value, else none.
    ///
    /// # Errors
    /// When the default cannot be expanded; it is not looked at when a build argument is given.
    pub fn declare_arg(&mut self, pair: &ArgPair) -> Result<Option<String>, ExpandError> {
        let value = match (self.globals.build_arg(&pair.name), &pair.default) {
            (Some(value), _) => Some(value.to_owned()),
            (None, Some(default)) => Some(self.expand(default)?),
            (None, None) => Lookup::get(&*self.globals, &pair.name).map(str::to_owned),
        };
        if let Some(value) = value.as_ref().filter(|_| !NOT_ENVIRONMENT.contains(&pair.name.as_str())) {
            self.set_env(&pair.name, value);
        }
        self.args.push((pair.name.clone(), value.clone()));
        Ok(value)
    }

    /// What stands before the command in the history of RUN: `|N k=v … `, empty without ARGs.
    #[must_use]
    pub fn run_history_prefix(&self) -> String {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &self.args {
            let value = self.env.get_value(name).or(value.as_deref()).unwrap_or_default();
            match pairs.iter_mut().find(|(known, _)| known == name) {
                Some(pair) => pair.1 = value,
                None => pairs.push((name, value)),
            }
        }
        if pairs.is_empty() {
            return String::new();
        }
        let words: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        format!("|{} {}", pairs.len(), words.concat())
    }

    /// The messages for variables that were used without ever being set or declared, since the last call.
    pub fn take_undefined(&mut self) -> Vec<String> {
        std::mem::take(&mut self.undefined).into_iter().collect()
    }
}

fn never_set<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match suggest::nearest(name, known) {
        Some(near) => format!("variable `${name}` is never set (did you mean ${near}?)"),
        None => format!("variable `${name}` is never set"),
    }
}

/// Both `Vec::get` and [`Lookup::get`] exist for the environment; this name has only one meaning.
trait GetValue {
    fn get_value(&self, name: &str) -> Option<&str>;
}

impl GetValue for Vec<(String, String)> {
    fn get_value(&self, name: &str) -> Option<&str> {
        Lookup::get(self, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::ast::Instruction;

    fn globals(source: &str, build_args: &[(&str, &str)]) -> Arc<Globals> {
        let file = crate::build::parse(source.as_bytes(), "Dockerfile").unwrap();
        let args = build_args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (build, target) =
            (Platform::new("linux", "amd64", None), Platform::new("linux", "arm", Some("v7")));
        let platforms = Platforms { build: &build, target: &target, target_stage: None };
        Arc::new(Globals::new(&file, &args, platforms).unwrap())
    }

    /// Run the ENV and ARG lines of the first stage.
    fn scope(source: &str, build_args: &[(&str, &str)]) -> Scope {
        let file = crate::build::parse(source.as_bytes(), "Dockerfile").unwrap();
        let config = ContainerConfig { env: vec!["BASE=b".into()], ..Default::default() };
        let mut scope = Scope::new(globals(source, build_args), file.escape, &config);
        for line in &file.stages[0].instructions {
            match &line.value {
                Instruction::Arg(pairs) => {
                    for pair in pairs {
                        scope.declare_arg(pair).unwrap();
                    }
                }
                Instruction::Env(pairs) => pairs.iter().for_each(|(k, v)| scope.set_env(k, v)),
                _ => {}
            }
        }
        scope
    }

    #[test]
    fn platform_arguments_are_global() {
        let values = globals("ARG X=x-$TARGETARCH\nFROM scratch AS one\n", &[("BUILDOS", "other")]);
        for (name, value) in [
            ("TARGETPLATFORM", "linux/arm/v7"),
            ("TARGETVARIANT", "v7"),
            ("BUILDVARIANT", ""),
            ("BUILDOS", "other"),
            ("TARGETSTAGE", "one"),
            ("X", "x-arm"),
        ] {
            assert_eq!(Lookup::get(&*values, name), Some(value), "{name}");
        }
    }

    #[test]
    fn where_a_stage_argument_gets_its_value() {
        let source = "ARG G=global UNSET\nFROM scratch\n";
        for (body, args, word, expected) in [
            ("", &[][..], "$G|$TARGETARCH", "|"),
            ("ARG G", &[], "$G", "global"),
            ("ARG G=stage", &[], "$G", "stage"),
            ("ARG G=stage", &[("G", "given")], "$G", "given"),
            ("ARG TARGETARCH", &[], "$TARGETARCH", "arm"),
            ("ARG TARGETARCH=pinned", &[], "$TARGETARCH", "pinned"),
            ("ARG A=${M:?m}", &[("A", "ok")], "$A", "ok"),
            ("ARG A=1 B=$A-2", &[], "$B", "1-2"),
            ("ENV V=env\nARG V", &[], "$V", "env"),
            ("ENV V=env\nARG V=arg", &[], "$V", "arg"),
            ("ARG V=arg\nENV V=env", &[], "$V", "env"),
            ("ARG V=dflt", &[("V", "")], "[$V]", "[]"),
            ("ARG UNSET", &[], "${UNSET-u}", "u"),
            ("", &[], "$BASE", "b"),
        ] {
            assert_eq!(scope(&format!("{source}{body}\n"), args).expand(word).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn history_lists_arguments_once_in_first_order() {
        let source = "FROM scratch\nARG A=1 B\nARG C=3\nARG A=2\nENV C=env\n";
        assert_eq!(scope(source, &[]).run_history_prefix(), "|3 A=2 B= C=env ");
        assert_eq!(scope("FROM scratch\n", &[]).run_history_prefix(), "");
    }

    #[test]
    fn proxies_come_in_both_cases_and_are_no_variables() {
        let mut scope = scope("FROM scratch\n", &[("http_proxy", "http://p"), ("NO_PROXY", "")]);
        let pairs = scope.globals().proxy_env();
        assert_eq!(pairs.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["HTTP_PROXY", "http_proxy"]);
        assert_eq!(scope.expand("[$http_proxy]").unwrap(), "[]");
        assert_eq!(scope.run_history_prefix(), "");
    }

    #[test]
    fn undefined_names_are_reported_once() {
        let mut scope = scope("FROM scratch\nARG DECLARED\nENV VERSION=1\n", &[]);
        scope.expand("$DECLARED $VERSIN ${X:-y}").unwrap();
        assert_eq!(scope.take_undefined(), ["variable `$VERSIN` is never set (did you mean $VERSION?)"]);
        assert!(scope.take_undefined().is_empty());
        assert_eq!(scope.expand_for_display("a \"$VERSION\" $NOPE"), "a \"1\" $NOPE");
    }
}
