//! An environment of its own for each test: home, store and variables.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Pty, scratch, strate};

/// A home, a store and a cleared environment.
#[derive(Debug)]
pub struct Env {
    dir: PathBuf,
    vars: BTreeMap<String, String>,
}

impl Env {
    /// A new one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("strate-test-").tempdir_in(scratch()).unwrap().keep();
        for name in ["home", "work"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut vars = BTreeMap::new();
        vars.insert("PATH".to_owned(), path.to_owned());
        vars.insert("HOME".to_owned(), dir.join("home").display().to_string());
        vars.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        vars.insert("TERM".to_owned(), "xterm".to_owned());
        Self { dir, vars }
    }

    /// With a variable.
    pub fn with(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.vars.insert(name.to_owned(), value.as_ref().display().to_string());
        self
    }

    /// The home directory.
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The working directory of commands.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.vars.get("STRATE_ROOT").map_or_else(|| self.home().join(".local/share/strate"), PathBuf::from)
    }

    /// Write a file below the working directory; its directories are made.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A program in this environment.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.vars).current_dir(self.work()).stdin(Stdio::null());
        command
    }

    /// A `strate` command line.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(strate());
        command.args(args);
        command
    }

    /// Run `strate` and keep what it said.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        Output::of(&mut self.command(args))
    }

    /// Run `strate` with a text on its standard input.
    pub fn run_with_input<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, input: &str) -> Output {
        let mut running = self.spawn_with(self.command(args).stdin(Stdio::piped()));
        let mut stdin = running.child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = running.finish();
        // A program may end without reading everything.
        let _ = writer.join().unwrap();
        output
    }

    /// Start `strate` and go on.
    pub fn spawn<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running {
        self.spawn_with(&mut self.command(args))
    }

    fn spawn_with(&self, command: &mut Command) -> Running {
        let line = format!("{command:?}");
        Running { child: command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), line }
    }

    /// Start `strate` on a terminal of its own.
    pub fn pty<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Pty {
        let mut words: Vec<std::ffi::OsString> = vec!["--ctty".into(), strate().into()];
        words.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        let mut command = self.program("setsid");
        command.args(words);
        Pty::start(command)
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("STRATE_TEST_KEEP").is_some() {
            return;
        }
        if std::fs::remove_dir_all(&self.dir).is_err() {
            // Files of subordinate ids can only be removed by one who owns them.
            let _ = Command::new("unshare")
                .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf", "--"])
                .arg(&self.dir)
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    line: String,
}

impl Running {
    /// Send a signal by its name.
    pub fn signal(&self, name: &str) {
        super::must(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
    }

    /// Wait for the end and keep what it said.
    pub fn finish(self) -> Output {
        let output = self.child.wait_with_output().unwrap();
        Output::from_parts(self.line, &output)
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Output {
    line: String,
    /// Exit code, as a shell shows it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Run a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self::from_parts(format!("{command:?}"), &output)
    }

    fn from_parts(line: String, output: &std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            line,
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It must have ended well.
    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// It must have ended with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}, got {self}");
        self
    }

    /// Standard output must be this, line end at the end aside.
    #[track_caller]
    pub fn prints(self, expected: &str) -> Self {
        assert!(self.stdout.trim_end_matches('\n') == expected, "expected stdout {expected:?}, got {self}");
        self
    }

    /// Standard output must hold this.
    #[track_caller]
    pub fn stdout_has(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "expected {part:?} in stdout, got {self}");
        self
    }

    /// Standard error must hold this.
    #[track_caller]
    pub fn stderr_has(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "expected {part:?} in stderr, got {self}");
        self
    }

    /// Standard output must not hold this.
    #[track_caller]
    pub fn stdout_lacks(self, part: &str) -> Self {
        assert!(!self.stdout.contains(part), "stdout has {part:?}: {self}");
        self
    }

    /// Standard error must not hold this.
    #[track_caller]
    pub fn stderr_lacks(self, part: &str) -> Self {
        assert!(!self.stderr.contains(part), "did not expect {part:?} in stderr, got {self}");
        self
    }

    /// How many steps of a build's plain progress were cached; a FROM is no step.
    pub fn cached_steps(&self) -> usize {
        let is_base = |number: &str| {
            let start = format!("{number} [");
            self.stderr.lines().any(|line| line.starts_with(&start) && line.contains("] FROM "))
        };
        let cached = self.stderr.lines().filter_map(|line| line.strip_suffix(" CACHED"));
        cached.filter(|number| !is_base(number)).count()
    }

    /// Standard output without its last line end.
    pub fn text(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {} of {}\nstdout:\n{}\nstderr:\n{}", self.code, self.line, self.stdout, self.stderr)
    }
}

/// Try until it works or the time is over.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
