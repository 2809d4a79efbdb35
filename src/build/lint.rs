//! Remarks on a file that do not stop the build: the build checks that the text alone decides. Those that need the
//! base image or the context are made by whoever has them.

use std::collections::{BTreeMap, BTreeSet};

use super::ast::{Dockerfile, Span, Warning};
use super::lines::Logical;
use super::words::{self, Json, Parts, plain_words};

/// All remarks, in the order of their lines. `file` has its stages; `logical` are its lines.
pub(super) fn warnings(file: &Dockerfile, logical: &[Logical]) -> Vec<Warning> {
    let lines: Vec<(Parts, &Logical)> =
        logical.iter().map(|line| (words::split(&line.text, file.escape), line)).collect();
    let upper = majority_is_upper(&lines);
    let mut lint = Lint { escape: file.escape, ..Lint::default() };
    for (parts, line) in &lines {
        let casing = if upper { parts.keyword.to_uppercase() } else { parts.keyword.to_lowercase() };
        if casing != parts.keyword {
            let message = format!("`{}` should be written `{casing}` like most keywords here", parts.keyword);
            lint.warn("ConsistentInstructionCasing", message, line.span);
        }
        if line.empty_continuation {
            lint.warn("NoEmptyContinuation", "blank line inside a continued instruction".into(), line.span);
        }
        lint.line(parts, line);
    }
    lint.warnings.sort_by_key(|warning| warning.span.first);
    lint.warnings
}

/// A tie counts as upper case.
fn majority_is_upper(lines: &[(Parts, &Logical)]) -> bool {
    let lower = lines.iter().filter(|(parts, _)| parts.keyword == parts.keyword.to_lowercase()).count();
    let upper = lines.iter().filter(|(parts, _)| parts.keyword == parts.keyword.to_uppercase()).count();
    upper >= lower
}

/// What is known while the lines go by.
#[derive(Default)]
struct Lint {
    escape: char,
    warnings: Vec<Warning>,
    /// By stage name: what its children inherit.
    stages: BTreeMap<String, Inherited>,
    names: BTreeSet<String>,
    current: Inherited,
    name: Option<String>,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK of the stage.
    only_once: BTreeMap<String, Span>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Inherited {
    shell: bool,
    workdir: bool,
}

impl Lint {
    fn warn(&mut self, rule: &'static str, message: String, span: Span) {
        self.warnings.push(Warning { rule, message, span });
    }

    fn line(&mut self, parts: &Parts, line: &Logical) {
        let keyword = parts.keyword.to_uppercase();
        let span = line.span;
        match keyword.as_str() {
            "FROM" => self.from(parts, span),
            "ENV" | "LABEL" => self.pairs(&keyword, parts, span),
            "ARG" => {
                for word in words::quoted_words(&parts.rest, self.escape) {
                    self.secret(&keyword, word.split('=').next().unwrap_or_default(), span);
                }
            }
            "CMD" | "ENTRYPOINT" => {
                if words::json(&parts.rest) == Json::No && !self.current.shell {
                    let message = format!("{keyword} as a JSON array passes signals on; a shell does not");
                    self.warn("JSONArgsRecommended", message, span);
                }
                self.once(&keyword, span);
            }
            "HEALTHCHECK" => self.once(&keyword, span),
            "SHELL" => self.current.shell = true,
            "WORKDIR" => {
                if !self.current.workdir && !parts.rest.starts_with(['/', '$']) {
                    let message = format!("relative path `{}` depends on the base image", parts.rest);
                    self.warn("WorkdirRelativePath", message, span);
                }
                self.current.workdir = true;
            }
            "MAINTAINER" => {
                let message = "MAINTAINER is deprecated, use a label instead".into();
                self.warn("MaintainerDeprecated", message, span);
            }
            "EXPOSE" => plain_words(&parts.rest).iter().for_each(|spec| self.port(spec, span)),
            _ => {}
        }
        if let Some(name) = &self.name {
            self.stages.insert(name.clone(), self.current);
        }
    }

    fn from(&mut self, parts: &Parts, span: Span) {
        let args = plain_words(&parts.rest);
        let base = args.first().map(String::as_str).unwrap_or_default();
        self.current = self.stages.get(base).copied().unwrap_or_default();
        self.only_once.clear();
        self.name = None;
        if let [_, word, name] = args.as_slice() {
            self.stage_name(&parts.keyword, word, name, span);
        }
        let platform = parts.flags.iter().find_map(|flag| flag.strip_prefix("--platform="));
        if let Some(platform) = platform {
            self.platform(platform, span);
        }
    }

    fn stage_name(&mut self, from: &str, word: &str, name: &str, span: Span) {
        let lower = name.to_lowercase();
        if lower != name {
            self.warn("StageNameCasing", format!("stage name `{name}` should be lower case"), span);
        }
        let consistent = from == from.to_uppercase() || from == from.to_lowercase();
        let wanted = if from == from.to_uppercase() { "AS" } else { "as" };
        if consistent && word != wanted {
            self.warn("FromAsCasing", format!("`{word}` should be written `{wanted}` behind `{from}`"), span);
        }
        if ["scratch", "context"].contains(&lower.as_str()) {
            self.warn("ReservedStageName", format!("`{lower}` is reserved and names no stage"), span);
        }
        if !self.names.insert(lower.clone()) {
            self.warn("DuplicateStageName", format!("stage name `{lower}` is used more than once"), span);
        }
        self.name = Some(lower);
    }

    fn platform(&mut self, platform: &str, span: Span) {
        if ["$TARGETPLATFORM", "${TARGETPLATFORM}"].contains(&platform) {
            let message = format!("--platform={platform} is the default");
            self.warn("RedundantTargetPlatform", message, span);
        } else if !platform.contains('$') {
            let name = self.name.clone().unwrap_or_default();
            let told =
                platform.split('/').any(|part| !part.is_empty() && name.contains(&part.to_lowercase()));
            if !told {
                let message = format!("--platform={platform} is a constant; the stage's name should say so");
                self.warn("FromPlatformFlagConstDisallowed", message, span);
            }
        }
    }

    fn pairs(&mut self, keyword: &str, parts: &Parts, span: Span) {
        let words = words::quoted_words(&parts.rest, self.escape);
        let Some(first) = words.first() else { return };
        if !first.contains('=') {
            let message = format!("`{keyword} key=value` should replace the old `{keyword} key value`");
            self.warn("LegacyKeyValueFormat", message, span);
            self.secret(keyword, first, span);
            return;
        }
        for word in &words {
            self.secret(keyword, word.split('=').next().unwrap_or_default(), span);
        }
    }

    /// ARG and ENV end up in the image's history.
    fn secret(&mut self, keyword: &str, name: &str, span: Span) {
        const SECRET: [&str; 10] = [
            "apikey",
            "auth",
            "credential",
            "credentials",
            "key",
            "password",
            "pword",
            "passwd",
            "secret",
            "token",
        ];
        const HARMLESS: [&str; 3] = ["public", "file", "version"];
        let lower = name.to_lowercase();
        let has = |list: &[&str]| lower.split('_').any(|part| list.contains(&part));
        if keyword != "LABEL" && has(&SECRET) && !has(&HARMLESS) {
            let message = format!("{keyword} `{name}` looks like a secret, and would be kept in the image");
            self.warn("SecretsUsedInArgOrEnv", message, span);
        }
    }

    /// Of several CMDs only the last counts; the remark points at the ignored one.
    fn once(&mut self, keyword: &str, span: Span) {
        if let Some(ignored) = self.only_once.insert(keyword.to_owned(), span) {
            let message = format!("this {keyword} is ignored: a later one in the stage replaces it");
            self.warn("MultipleInstructionsDisallowed", message, ignored);
        }
    }

    fn port(&mut self, spec: &str, span: Span) {
        if spec.contains('$') {
            return;
        }
        if let Some((_, protocol)) = spec.split_once('/')
            && protocol != protocol.to_lowercase()
        {
            self.warn("ExposeProtoCasing", format!("protocol `{protocol}` should be lower case"), span);
        }
        if spec.contains(':') {
            let message = format!("`{spec}`: the address and port of the host have no effect in EXPOSE");
            self.warn("ExposeInvalidFormat", message, span);
        }
    }
}

#[cfg(test)]
mod tests {
    fn rules(source: &str) -> Vec<(&'static str, usize)> {
        let file = crate::build::parse(source.as_bytes(), "Dockerfile").unwrap();
        file.warnings.iter().map(|warning| (warning.rule, warning.span.first)).collect()
    }

    #[test]
    fn each_rule_fires_where_it_should() {
        for (source, expected) in [
            ("FROM scratch\nRUN a\n", &[][..]),
            ("FROM scratch AS One\n", &[("StageNameCasing", 1)]),
            ("FROM scratch as one\n", &[("FromAsCasing", 1)]),
            ("FROM a\nRUN x \\\n\n y\n", &[("NoEmptyContinuation", 2)]),
            ("FROM a\nrun x\nRUN y\n", &[("ConsistentInstructionCasing", 2)]),
            ("from a\nRUN x\n", &[("ConsistentInstructionCasing", 1)]),
            ("from a\nrun x\n", &[]),
            ("FROM a\nRun x\n", &[("ConsistentInstructionCasing", 2)]),
            ("FROM a AS s\nFROM b AS s\n", &[("DuplicateStageName", 2)]),
            ("FROM a AS scratch\n", &[("ReservedStageName", 1)]),
            ("FROM a\nCMD x\n", &[("JSONArgsRecommended", 2)]),
            ("FROM a AS p\nSHELL [\"s\"]\nFROM p\nCMD x\n", &[]),
            ("FROM a\nMAINTAINER x\n", &[("MaintainerDeprecated", 2)]),
            ("FROM a\nWORKDIR x\nWORKDIR y\n", &[("WorkdirRelativePath", 2)]),
            ("FROM a AS p\nWORKDIR /x\nFROM p\nWORKDIR y\n", &[]),
            ("FROM a\nCMD [\"a\"]\nCMD [\"b\"]\n", &[("MultipleInstructionsDisallowed", 2)]),
            ("FROM a\nENV K v\n", &[("LegacyKeyValueFormat", 2)]),
            ("FROM --platform=$TARGETPLATFORM a\n", &[("RedundantTargetPlatform", 1)]),
            ("FROM --platform=linux/arm64 a\n", &[("FromPlatformFlagConstDisallowed", 1)]),
            ("FROM --platform=linux/arm64 a AS x-arm64\n", &[]),
            ("FROM a\nARG GITHUB_TOKEN\nENV PUBLIC_KEY=1 MONKEY=2\n", &[("SecretsUsedInArgOrEnv", 2)]),
            ("FROM a\nEXPOSE 80/TCP 1:80\n", &[("ExposeInvalidFormat", 2), ("ExposeProtoCasing", 2)]),
        ] {
            let mut got = rules(source);
            got.sort_unstable();
            assert_eq!(got, expected, "{source}");
        }
    }
}
