//! A Dockerfile as typed instructions with spans. Words are kept as written: expansion needs a stage's environment and
//! happens when a step is prepared.

use std::fmt;

use super::check::Checks;

/// A range of physical lines, 1-based and inclusive, heredoc bodies included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First line.
    pub first: usize,
    /// Last line.
    pub last: usize,
}

/// A parsed file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The text, for excerpts.
    pub source: String,
    /// The file's name as shown in errors.
    pub name: String,
    /// The escape character: `\` or `` ` ``.
    pub escape: char,
    /// The value of `# syntax=`, when given.
    pub syntax: Option<String>,
    /// The value of `# check=`, when given.
    pub check: Option<String>,
    /// ARGs before the first FROM.
    pub global_args: Vec<Located<Vec<ArgPair>>>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// Remarks on the text (rule, message, span), before any of them is skipped.
    pub warnings: Vec<Warning>,
    /// The comments directly above instructions, without `#` and blanks.
    pub comments: Vec<(Span, Vec<String>)>,
    /// Check options in comments, each for the instruction below it.
    pub skips: Vec<(Span, Checks)>,
}

/// A remark that does not stop the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// BuildKit's rule name, such as `LegacyKeyValueFormat`.
    pub rule: &'static str,
    /// The message.
    pub message: String,
    /// Where.
    pub span: Span,
}

/// A thing and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The thing.
    pub value: T,
    /// Where.
    pub span: Span,
    /// The instruction as written, continuations joined, for progress (`RUN apt-get update`).
    pub text: String,
}

/// FROM and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The FROM line.
    pub from: Located<From>,
    /// Position, 0-based.
    pub index: usize,
    /// The instructions.
    pub instructions: Vec<Located<Instruction>>,
}

/// `FROM [--platform=P] base [AS name]`
#[derive(Debug, Clone, PartialEq)]
pub struct From {
    /// Not expanded.
    pub platform: Option<String>,
    /// Not expanded.
    pub base: String,
    /// Lower case.
    pub name: Option<String>,
}

/// `name` or `name=default` of ARG; the default keeps its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgPair {
    /// The name.
    pub name: String,
    /// The default, not expanded.
    pub default: Option<String>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// JSON array.
    Exec(Vec<String>),
    /// Text for the shell; heredocs, when there are, follow in `heredocs`.
    Shell(String),
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The body, each line with its newline; tabs stripped for `<<-`.
    pub content: String,
    /// The body as it stands in the file, for a shell that reads the heredoc itself.
    pub raw: String,
    /// Whether the delimiter was unquoted, so that COPY and ADD expand the body.
    pub expand: bool,
    /// Whether it was written `<<-`.
    pub chomp: bool,
    /// File descriptor number before `<<`, when given.
    pub fd: Option<u32>,
}

/// What COPY and ADD share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Copy {
    /// Sources, not expanded; heredocs stand in `heredocs`.
    pub sources: Vec<String>,
    /// Heredoc sources.
    pub heredocs: Vec<Heredoc>,
    /// Destination, not expanded.
    pub dest: String,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`, not expanded.
    pub chown: Option<String>,
    /// `--chmod`, not expanded.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, repeated.
    pub exclude: Vec<String>,
    /// ADD `--checksum`, not expanded.
    pub checksum: Option<String>,
    /// ADD `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// ADD `--unpack`.
    pub unpack: Option<bool>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The command; `Shell` holds the whole text including heredoc markers.
    pub command: Command,
    /// Heredocs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values as written.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: Option<String>,
    /// `--security`.
    pub security: Option<String>,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthcheckInstruction {
    /// `NONE`
    None,
    /// `CMD …`; durations in nanoseconds, 0 when not given.
    Cmd {
        /// The probe.
        command: Command,
        /// `--interval`
        interval: i64,
        /// `--timeout`
        timeout: i64,
        /// `--start-period`
        start_period: i64,
        /// `--start-interval`
        start_interval: i64,
        /// `--retries`
        retries: i64,
    },
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// RUN
    Run(Run),
    /// COPY
    Copy(Copy),
    /// ADD
    Add(Copy),
    /// ENV: pairs, keys and values not expanded.
    Env(Vec<(String, String)>),
    /// LABEL: pairs, keys and values not expanded.
    Label(Vec<(String, String)>),
    /// ARG
    Arg(Vec<ArgPair>),
    /// WORKDIR, not expanded.
    Workdir(String),
    /// USER, not expanded.
    User(String),
    /// EXPOSE, not expanded.
    Expose(Vec<String>),
    /// VOLUME, not expanded.
    Volume(Vec<String>),
    /// CMD
    Cmd(Command),
    /// ENTRYPOINT
    Entrypoint(Command),
    /// SHELL
    Shell(Vec<String>),
    /// STOPSIGNAL, not expanded.
    StopSignal(String),
    /// HEALTHCHECK
    Healthcheck(HealthcheckInstruction),
    /// ONBUILD: the trigger's text, heredoc bodies appended.
    OnBuild(String),
    /// MAINTAINER
    Maintainer(String),
}

impl Instruction {
    /// The keyword, upper case.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Run(_) => "RUN",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Arg(_) => "ARG",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::OnBuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)
    }
}

/// A mistake in a Dockerfile, with BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", self.prefix())]
pub struct ParseError {
    /// What is wrong, suggestion included.
    pub message: String,
    /// Where; line 0 stands for the file as a whole.
    pub span: Span,
    /// Whether the text names the line. BuildKit names it for mistakes in an instruction, and not for those found
    /// while the file is cut into lines.
    pub names_line: bool,
}

impl ParseError {
    fn prefix(&self) -> String {
        if self.names_line {
            format!("dockerfile parse error on line {}: ", self.span.first)
        } else {
            String::new()
        }
    }
}

/// How the command of a RUN reaches the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunForm {
    /// These arguments, without a shell.
    Exec(Vec<String>),
    /// This text, as one argument after the stage's SHELL.
    Shell(String),
    /// A script with an interpreter line: a read-only file of mode 0755, mounted as `/dev/pipes/<name>`. That path is
    /// what the stage's SHELL runs, and what history shows.
    Script {
        /// The heredoc's delimiter.
        name: String,
        /// The file.
        content: String,
    },
}

impl Run {
    /// The command with its heredocs resolved.
    #[must_use]
    pub fn form(&self) -> RunForm {
        let text = match &self.command {
            Command::Exec(argv) => return RunForm::Exec(argv.clone()),
            Command::Shell(text) => text,
        };
        let Some(first) = self.heredocs.first() else { return RunForm::Shell(text.clone()) };
        if super::heredoc::opener(text).is_none() {
            // The shell reads the heredocs itself, so it gets them as written.
            let bodies: String = self.heredocs.iter().map(|h| format!("\n{}{}", h.raw, h.name)).collect();
            return RunForm::Shell(format!("{text}{bodies}"));
        }
        if first.raw.starts_with("#!") {
            return RunForm::Script { name: first.name.clone(), content: first.content.clone() };
        }
        RunForm::Shell(first.content.clone())
    }
}
