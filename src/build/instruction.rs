//! One logical line → one typed instruction, with BuildKit's checks and texts.

use super::ast::{
    ArgPair, Command, Copy, From, HealthcheckInstruction, Heredoc, Instruction, ParseError, Run, Span,
};
use super::flags::{Flags, Kind, Known};
use super::go;
use super::heredoc;
use super::lines::Logical;
use super::mount;
use super::suggest;
use super::words::{self, Json, Parts, plain_words};

/// Every keyword, in the order suggestions are tried.
pub(super) const KEYWORDS: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const COPY_FLAGS: &Known = &[
    ("chmod", Kind::Text),
    ("chown", Kind::Text),
    ("exclude", Kind::Many),
    ("from", Kind::Text),
    ("link", Kind::Bool),
    ("parents", Kind::Bool),
];
const ADD_FLAGS: &Known = &[
    ("checksum", Kind::Text),
    ("chmod", Kind::Text),
    ("chown", Kind::Text),
    ("exclude", Kind::Many),
    ("keep-git-dir", Kind::Bool),
    ("link", Kind::Bool),
    ("unpack", Kind::Bool),
];
const RUN_FLAGS: &Known =
    &[("device", Kind::Many), ("mount", Kind::Many), ("network", Kind::Text), ("security", Kind::Text)];
const HEALTHCHECK_FLAGS: &Known = &[
    ("interval", Kind::Text),
    ("retries", Kind::Text),
    ("start-interval", Kind::Text),
    ("start-period", Kind::Text),
    ("timeout", Kind::Text),
];

/// Whether `keyword`, in upper case, exists.
pub(super) fn is_known(keyword: &str) -> bool {
    KEYWORDS.contains(&keyword)
}

/// What a line turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parsed {
    /// FROM
    From(From),
    /// Anything else.
    Instruction(Instruction),
}

/// A mistake, not yet tied to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    message: String,
    names_line: bool,
}

impl Fault {
    /// A mistake of the first pass, which does not name its line.
    fn syntax(message: impl Into<String>) -> Self {
        Self { message: message.into(), names_line: false }
    }

    pub(super) fn at(self, span: Span) -> ParseError {
        ParseError { message: self.message, span, names_line: self.names_line }
    }
}

impl std::convert::From<String> for Fault {
    fn from(message: String) -> Self {
        Self { message, names_line: true }
    }
}

/// Arguments that may be a JSON array.
enum Arguments {
    Exec(Vec<String>),
    Text(String),
}

struct Line<'a> {
    /// Upper case.
    keyword: &'a str,
    parts: &'a Parts,
    logical: &'a Logical,
    escape: char,
}

/// Make the instruction of a line.
pub(super) fn parse(logical: &Logical, escape: char) -> Result<Parsed, Fault> {
    let parts = words::split(&logical.text, escape);
    let keyword = parts.keyword.to_ascii_uppercase();
    let line = Line { keyword: &keyword, parts: &parts, logical, escape };
    Ok(Parsed::Instruction(match keyword.as_str() {
        "FROM" => return line.from().map(Parsed::From),
        "RUN" => Instruction::Run(line.run()?),
        "COPY" => Instruction::Copy(line.copy(COPY_FLAGS)?),
        "ADD" => Instruction::Add(line.copy(ADD_FLAGS)?),
        "ENV" => Instruction::Env(line.pairs()?),
        "LABEL" => Instruction::Label(line.pairs()?),
        "ARG" => Instruction::Arg(line.args()?),
        "WORKDIR" => Instruction::Workdir(line.single()?),
        "USER" => Instruction::User(line.single()?),
        "STOPSIGNAL" => Instruction::StopSignal(line.one_argument()?),
        "MAINTAINER" => Instruction::Maintainer(line.single()?),
        "EXPOSE" => Instruction::Expose(line.expose()?),
        "VOLUME" => Instruction::Volume(line.volume()?),
        "CMD" => Instruction::Cmd(line.command()?),
        "ENTRYPOINT" => Instruction::Entrypoint(line.command()?),
        "SHELL" => Instruction::Shell(line.shell()?),
        "HEALTHCHECK" => Instruction::Healthcheck(line.healthcheck()?),
        "ONBUILD" => Instruction::OnBuild(line.onbuild()?),
        _ => return Err(unknown(&parts.keyword)),
    }))
}

fn unknown(keyword: &str) -> Fault {
    let message = format!("unknown instruction: {keyword}");
    Fault::from(match suggest::nearest_any_case(keyword, KEYWORDS) {
        Some(near) => format!("{message} (did you mean {near}?)"),
        None => message,
    })
}

impl Line<'_> {
    fn flags(&self, known: &Known) -> Result<Flags, Fault> {
        Ok(Flags::parse(&self.parts.flags, known)?)
    }

    fn at_least_one(&self) -> Fault {
        Fault::from(format!("{} requires at least one argument", self.keyword))
    }

    /// The rest as a JSON array or else as text.
    fn arguments(&self, rest: &str) -> Result<Arguments, Fault> {
        match words::json(rest) {
            Json::Strings(strings) => Ok(Arguments::Exec(strings)),
            Json::No => Ok(Arguments::Text(rest.to_owned())),
            Json::Mixed => {
                Err(Fault::syntax("when using JSON array syntax, arrays must be comprised of strings only"))
            }
        }
    }

    /// The rest as a JSON array or else as words.
    fn list(&self) -> Result<Vec<String>, Fault> {
        Ok(match self.arguments(&self.parts.rest)? {
            Arguments::Exec(strings) => strings,
            Arguments::Text(text) => plain_words(&text),
        })
    }

    fn from(&self) -> Result<From, Fault> {
        let args = plain_words(&self.parts.rest);
        let (base, name) = match args.as_slice() {
            [base] => (base, None),
            [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
            _ => return Err(Fault::from("FROM requires either one or three arguments".to_owned())),
        };
        let platform = self.flags(&[("platform", Kind::Text)])?.text("platform");
        Ok(From { platform: platform.filter(|p| !p.is_empty()), base: base.clone(), name })
    }

    fn run(&self) -> Result<Run, Fault> {
        let command = self.arguments(&self.parts.rest)?;
        let flags = self.flags(RUN_FLAGS)?;
        if !flags.many("device").is_empty() {
            let message = "device feature is only supported in Dockerfile frontend 1.14.0-labs or later";
            return Err(Fault::from(message.to_owned()));
        }
        let mounts = flags.many("mount");
        mounts.iter().try_for_each(|value| mount::check_unexpanded(value))?;
        let network = flags.text("network").map(|value| value.to_lowercase());
        if let Some(mode) = network.as_deref().filter(|mode| !["default", "none", "host"].contains(mode)) {
            return Err(Fault::from(format!("invalid network mode {}", go::quote(mode))));
        }
        let security = flags.text("security").map(|value| value.to_lowercase());
        if let Some(mode) = security.as_deref().filter(|mode| !["sandbox", "insecure"].contains(mode)) {
            return Err(Fault::from(format!("security {} is not valid", go::quote(mode))));
        }
        Ok(Run {
            command: command.into(),
            heredocs: self.logical.heredocs.clone(),
            mounts,
            network,
            security,
        })
    }

    fn copy(&self, known: &Known) -> Result<Copy, Fault> {
        let mut args = self.list()?;
        let Some(dest) = args.pop().filter(|_| !args.is_empty()) else {
            return Err(Fault::from(format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.keyword
            )));
        };
        let flags = self.flags(known)?;
        if heredoc::opener(&dest).is_some() {
            return Err(Fault::from(format!("{} cannot accept a heredoc as a destination", self.keyword)));
        }
        let (sources, heredocs) = self.sources(args);
        Ok(Copy {
            sources,
            heredocs,
            dest,
            from: flags.text("from").filter(|from| !from.is_empty()),
            chown: flags.text("chown").filter(|owner| !owner.is_empty()),
            chmod: flags.text("chmod").filter(|mode| !mode.is_empty()),
            link: flags.bool("link").unwrap_or(false),
            parents: flags.bool("parents").unwrap_or(false),
            exclude: flags.many("exclude"),
            checksum: flags.text("checksum").filter(|digest| !digest.is_empty()),
            keep_git_dir: flags.bool("keep-git-dir"),
            unpack: flags.bool("unpack"),
        })
    }

    /// Divide sources into paths and heredocs; of heredocs with one name the last body counts.
    fn sources(&self, args: Vec<String>) -> (Vec<String>, Vec<Heredoc>) {
        let (mut paths, mut heredocs) = (Vec::new(), Vec::new());
        for arg in args {
            let body = heredoc::opener(&arg)
                .and_then(|opener| self.logical.heredocs.iter().rfind(|heredoc| heredoc.name == opener.name));
            match body {
                Some(heredoc) => heredocs.push(heredoc.clone()),
                None => paths.push(arg),
            }
        }
        (paths, heredocs)
    }

    /// `k=v k=v` or the old `k rest`.
    fn pairs(&self) -> Result<Vec<(String, String)>, Fault> {
        let pairs = self.split_pairs()?;
        self.flags(&[])?;
        if pairs.is_empty() {
            return Err(self.at_least_one());
        }
        if pairs.iter().any(|(key, _)| key.is_empty()) {
            return Err(Fault::from(format!("{} names can not be blank", self.keyword)));
        }
        Ok(pairs)
    }

    fn split_pairs(&self) -> Result<Vec<(String, String)>, Fault> {
        let rest = &self.parts.rest;
        let words = words::quoted_words(rest, self.escape);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        if !first.contains('=') {
            let Some((key, value)) = rest.split_once(words::is_blank) else {
                return Err(Fault::syntax(format!("{} must have two arguments", self.keyword)));
            };
            return Ok(vec![(key.to_owned(), value.trim_start_matches(words::is_blank).to_owned())]);
        }
        let pair = |word: &String| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Fault::syntax(format!(
                "Syntax error - can't find = in {}. Must be of the form: name=value",
                go::quote(word)
            ))),
        };
        words.iter().map(pair).collect()
    }

    /// ARG; its flags are not looked at.
    fn args(&self) -> Result<Vec<ArgPair>, Fault> {
        let words = words::quoted_words(&self.parts.rest, self.escape);
        if words.is_empty() {
            return Err(self.at_least_one());
        }
        let pair = |word: String| match word.split_once('=') {
            Some(("", _)) => Err(Fault::from("ARG names can not be blank".to_owned())),
            Some((name, default)) => Ok(ArgPair { name: name.to_owned(), default: Some(default.to_owned()) }),
            None => Ok(ArgPair { name: word, default: None }),
        };
        words.into_iter().map(pair).collect()
    }

    /// The whole rest as the only argument.
    fn one_argument(&self) -> Result<String, Fault> {
        if self.parts.rest.is_empty() {
            return Err(Fault::from(format!("{} requires exactly one argument", self.keyword)));
        }
        Ok(self.parts.rest.clone())
    }

    fn single(&self) -> Result<String, Fault> {
        let argument = self.one_argument()?;
        self.flags(&[])?;
        Ok(argument)
    }

    fn expose(&self) -> Result<Vec<String>, Fault> {
        let mut ports = plain_words(&self.parts.rest);
        if ports.is_empty() {
            return Err(self.at_least_one());
        }
        self.flags(&[])?;
        ports.sort_unstable();
        Ok(ports)
    }

    fn volume(&self) -> Result<Vec<String>, Fault> {
        let paths: Vec<String> = self.list()?.iter().map(|path| path.trim().to_owned()).collect();
        self.flags(&[])?;
        if paths.is_empty() {
            return Err(self.at_least_one());
        }
        if paths.iter().any(String::is_empty) {
            return Err(Fault::from("VOLUME specified can not be an empty string".to_owned()));
        }
        Ok(paths)
    }

    fn command(&self) -> Result<Command, Fault> {
        let command = self.arguments(&self.parts.rest)?;
        self.flags(&[])?;
        Ok(command.into())
    }

    fn shell(&self) -> Result<Vec<String>, Fault> {
        let arguments = self.arguments(&self.parts.rest)?;
        self.flags(&[])?;
        match arguments {
            Arguments::Exec(argv) if !argv.is_empty() => Ok(argv),
            Arguments::Text(text) if !text.is_empty() => {
                Err(Fault::from("SHELL requires the arguments to be in JSON form".to_owned()))
            }
            _ => Err(self.at_least_one()),
        }
    }

    fn healthcheck(&self) -> Result<HealthcheckInstruction, Fault> {
        let rest = self.parts.rest.as_str();
        let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let command = self.arguments(rest.trim_start())?;
        if kind.is_empty() {
            return Err(self.at_least_one());
        }
        let upper = kind.to_uppercase();
        if upper == "NONE" {
            if matches!(&command, Arguments::Text(text) if text.is_empty()) {
                return Ok(HealthcheckInstruction::None);
            }
            return Err(Fault::from("HEALTHCHECK NONE takes no arguments".to_owned()));
        }
        let flags = self.flags(HEALTHCHECK_FLAGS)?;
        if upper != "CMD" {
            return Err(Fault::from(format!("Unknown type {} in HEALTHCHECK (try CMD)", go::quote(&upper))));
        }
        if matches!(&command, Arguments::Text(text) if text.is_empty())
            || matches!(&command, Arguments::Exec(argv) if argv.is_empty())
        {
            return Err(Fault::from("Missing command after HEALTHCHECK CMD".to_owned()));
        }
        Ok(HealthcheckInstruction::Cmd {
            command: command.into(),
            interval: interval(&flags, "interval")?,
            timeout: interval(&flags, "timeout")?,
            start_period: interval(&flags, "start-period")?,
            start_interval: interval(&flags, "start-interval")?,
            retries: retries(&flags)?,
        })
    }

    /// The trigger's text. Its syntax is checked now; what it says is checked when it fires.
    fn onbuild(&self) -> Result<String, Fault> {
        let inner = words::split(&self.parts.rest, self.escape);
        let keyword = inner.keyword.to_ascii_uppercase();
        // A chain of triggers is refused below, and must not be followed to any depth.
        if is_known(&keyword) && keyword != "ONBUILD" {
            let text = self.parts.rest.clone();
            let logical = Logical { text, ..self.logical.clone() };
            if let Err(fault) = parse(&logical, self.escape)
                && !fault.names_line
            {
                return Err(fault);
            }
        }
        match keyword.as_str() {
            "" => return Err(self.at_least_one()),
            "ONBUILD" => {
                return Err(Fault::from("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()));
            }
            "FROM" | "MAINTAINER" => {
                return Err(Fault::from(format!("{keyword} isn't allowed as an ONBUILD trigger")));
            }
            _ => {}
        }
        self.flags(&[])?;
        let written = self.logical.text.get(self.parts.keyword.len()..).unwrap_or_default().trim();
        let bodies = self.logical.heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.raw, heredoc.name));
        Ok(std::iter::once(written.to_owned()).chain(bodies).collect())
    }
}

impl std::convert::From<Arguments> for Command {
    fn from(arguments: Arguments) -> Self {
        match arguments {
            Arguments::Exec(argv) => Self::Exec(argv),
            Arguments::Text(text) => Self::Shell(text),
        }
    }
}

fn stage_name(name: &str) -> Result<String, Fault> {
    let lower = name.to_lowercase();
    let good = lower.starts_with(|c: char| c.is_ascii_lowercase())
        && lower.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if good {
        return Ok(lower);
    }
    Err(Fault::from(format!(
        "invalid name for build stage: {}, name can't start with a number or contain symbols",
        go::quote(name)
    )))
}

/// A duration in nanoseconds, 0 when not given.
fn interval(flags: &Flags, name: &str) -> Result<i64, Fault> {
    let Some(text) = flags.text(name).filter(|text| !text.is_empty()) else { return Ok(0) };
    match go::parse_duration(&text) {
        None => Err(Fault::from(format!("time: invalid duration {}", go::quote(&text)))),
        Some(0) => Ok(0),
        Some(short) if short < 1_000_000 => {
            Err(Fault::from(format!("Interval {} cannot be less than 1ms", go::quote(name))))
        }
        Some(nanoseconds) => Ok(nanoseconds),
    }
}

fn retries(flags: &Flags) -> Result<i64, Fault> {
    let Some(text) = flags.text("retries").filter(|text| !text.is_empty()) else { return Ok(0) };
    match text.parse::<i32>() {
        Err(_) => Err(Fault::from(format!("strconv.ParseInt: parsing {}: invalid syntax", go::quote(&text)))),
        Ok(number) if number < 0 => Err(Fault::from(format!("--retries cannot be less than 0 ({number})"))),
        Ok(number) => Ok(i64::from(number)),
    }
}
