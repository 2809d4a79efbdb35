//! Git repositories as sources of a build, by the `git` of the host.
//!
//! What a repository says is not trusted. git runs with an environment of its own: no configuration of the user or the
//! system, no hooks (no template, so none are made), no prompts, and only protocols that go over a network
//! (CVE-2022-39253). Names that could be options never get this far (`build::git_ref`), and come behind `--`
//! (CVE-2019-13139). A directory of the repository is opened without following any link (CVE-2026-33748).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps};

use crate::build::git_ref::{GitRef, redacted};
use crate::build::{Checkout, Commit};
use crate::context::Context;
use crate::storage::{self, Store};
use crate::sys::RootDir;

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("git is needed to fetch `{remote}`, and is not installed")]
    Missing {
        /// The repository.
        remote: String,
    },
    /// git could not be started.
    #[error("cannot run git")]
    Start(#[source] io::Error),
    /// git failed.
    #[error("git {what} failed: {said}")]
    Failed {
        /// The command.
        what: String,
        /// The end of what it said.
        said: String,
    },
    /// No such branch or tag.
    #[error("repository does not contain ref {0}")]
    NoRef(String),
    /// Another commit than was asked for.
    #[error("expected checksum to match {expected}, got {found}")]
    Checksum {
        /// What it should begin with.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The directory is not there, or is reached through a link.
    #[error("the repository has no directory `{subdir}`")]
    Subdir {
        /// The directory.
        subdir: String,
        /// Why it cannot be opened.
        #[source]
        source: io::Error,
    },
    /// A file of the checkout cannot be used.
    #[error("cannot use `{path}` of the repository")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Runs git.
pub(super) struct Git<'a> {
    pub cx: &'a Context,
    pub store: &'a Store,
    pub secrets: &'a BTreeMap<String, Vec<u8>>,
    /// The agent to ask for keys in the place of `SSH_AUTH_SOCK`'s.
    pub agent: Option<&'a Path>,
}

impl Git<'_> {
    /// What a source stands for at present.
    pub(super) fn commit(&self, git: &GitRef) -> Result<Commit, GitError> {
        let commit = match git.reference.as_deref() {
            Some(id) if is_commit(id) => Commit { id: id.to_ascii_lowercase(), refname: None },
            reference => self.look_up(git, reference.unwrap_or("HEAD"))?,
        };
        match &git.checksum {
            Some(sum) if !commit.id.starts_with(sum.as_str()) => {
                Err(GitError::Checksum { expected: sum.clone(), found: commit.id })
            }
            _ => Ok(commit),
        }
    }

    fn look_up(&self, git: &GitRef, reference: &str) -> Result<Commit, GitError> {
        let scratch = self.store.scratch_dir()?;
        let peeled = format!("{reference}^{{}}");
        let args = ["ls-remote", "--", git.remote.as_str(), reference, &peeled];
        let listed = self.run(git, scratch.path(), &args)?;
        let found: BTreeMap<&str, &str> =
            listed.lines().filter_map(|line| line.split_once('\t')).map(|(id, name)| (name, id)).collect();
        let names = match reference {
            "HEAD" => vec!["HEAD".to_owned()],
            full if full.starts_with("refs/") => vec![full.to_owned()],
            // As in git, a branch comes before a tag of the same name.
            short => ["refs/heads/", "refs/tags/", "refs/"].map(|prefix| format!("{prefix}{short}")).to_vec(),
        };
        for name in names {
            // An annotated tag stands for the commit that it names.
            let id = found.get(format!("{name}^{{}}").as_str()).or_else(|| found.get(name.as_str()));
            if let Some(id) = id.filter(|id| is_commit(id)) {
                return Ok(Commit { id: (*id).to_owned(), refname: Some(name) });
            }
        }
        Err(GitError::NoRef(reference.to_owned()))
    }

    /// The files of a commit.
    pub(super) fn checkout(&self, git: &GitRef, commit: &Commit) -> Result<Checkout, GitError> {
        let held = self.store.scratch_dir()?;
        let top = held.path().join("checkout");
        fs::create_dir(&top).map_err(|source| GitError::File { path: top.clone(), source })?;
        self.run(git, &top, &["init", "--quiet", "--template="])?;
        // Passwords stay out of what may be kept.
        self.run(git, &top, &["remote", "add", "--", "origin", &without_user(&git.remote)])?;
        self.fetch(git, commit, &top)?;
        self.run(git, &top, &["checkout", "--quiet", "--force", "--detach", &commit.id])?;
        let time = self.run(git, &top, &["show", "--no-patch", "--format=%ct", &commit.id])?;
        let time = time.trim().parse().unwrap_or(0);
        if !git.no_submodules && top.join(".gitmodules").symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
            let shallow: Vec<&str> = update.iter().copied().chain(["--depth=1"]).collect();
            // Servers of plain files cannot give a part of the history.
            if self.run(git, &top, &shallow).is_err() {
                self.run(git, &top, &update)?;
            }
        }
        let keep = git.keep_git_dir == Some(true) && git.subdir.is_empty();
        settle(&top, keep, git.commit_times.then_some(time))?;
        let path = subdir(&top, &git.subdir)?;
        Ok(Checkout { path, time, held: Arc::new(held) })
    }

    /// One commit alone where the server gives it, else everything.
    fn fetch(&self, git: &GitRef, commit: &Commit, top: &Path) -> Result<(), GitError> {
        let wanted = commit.refname.as_deref().unwrap_or(&commit.id);
        let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", git.remote.as_str(), wanted];
        let first = self.run(git, top, &shallow);
        let is_here =
            || self.run(git, top, &["cat-file", "-e", &format!("{}^{{commit}}", commit.id)]).is_ok();
        if first.is_ok() && is_here() {
            return Ok(());
        }
        // The ref has moved since it was looked up, or the server does not give commits by their id.
        let by_id =
            ["fetch", "--quiet", "--depth=1", "--no-tags", "--", git.remote.as_str(), commit.id.as_str()];
        if commit.refname.is_some() && self.run(git, top, &by_id).is_ok() && is_here() {
            return Ok(());
        }
        let all = ["fetch", "--quiet", "--", git.remote.as_str(), "+refs/heads/*:refs/remotes/origin/*"];
        self.run(git, top, &all)?;
        if is_here() {
            return Ok(());
        }
        first.map(drop)?;
        Err(GitError::NoRef(commit.id.clone()))
    }

    fn run(&self, git: &GitRef, dir: &Path, args: &[&str]) -> Result<String, GitError> {
        let mut command = Command::new("git");
        command.env_clear().envs(self.environment(git, dir)).current_dir(dir);
        for option in OPTIONS {
            command.args(["-c", option]);
        }
        command.args(args).stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::Missing { remote: redacted(&git.remote) },
            _ => GitError::Start(error),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(GitError::Failed { what: args[0].to_owned(), said: last_words(&output.stderr, git) })
    }

    fn environment(&self, git: &GitRef, dir: &Path) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let lower = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
        let upper = lower.map(str::to_ascii_uppercase);
        let passed = lower.iter().copied().chain(upper.iter().map(String::as_str));
        for name in passed.chain(["PATH", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR"]) {
            if let Some(value) = self.cx.var(name) {
                env.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(agent) = self.agent {
            env.insert("SSH_AUTH_SOCK".into(), agent.display().to_string());
        }
        if let Some(file) = self.cx.var("SSL_CERT_FILE") {
            env.insert("GIT_SSL_CAINFO".into(), file.into());
        }
        let home = dir.display().to_string();
        let fixed = [
            ("HOME", home.as_str()),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "false"),
            ("SSH_ASKPASS", "false"),
            ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
            ("GIT_PROTOCOL_FROM_USER", "0"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
        ];
        env.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env.insert("GIT_SSH_COMMAND".into(), self.ssh());
        if let Some((key, header)) = self.authorization(git) {
            // In the environment and not among the arguments, which everybody on the machine can read.
            env.insert("GIT_CONFIG_COUNT".into(), "1".into());
            env.insert("GIT_CONFIG_KEY_0".into(), key);
            env.insert("GIT_CONFIG_VALUE_0".into(), header);
        }
        env
    }

    /// In a user namespace ssh takes us for root: say where the user's files are.
    fn ssh(&self) -> String {
        let mut command = "ssh -F /dev/null -o BatchMode=yes -o ProxyCommand=none".to_owned();
        let Some(home) = &self.cx.home else { return command };
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
        let known = home.join(".ssh/known_hosts");
        command.push_str(&format!(" -o UserKnownHostsFile={}", quoted(&known)));
        for key in ["id_ed25519", "id_ecdsa", "id_rsa"] {
            let path = home.join(".ssh").join(key);
            if path.is_file() {
                command.push_str(&format!(" -i {}", quoted(&path)));
            }
        }
        command
    }

    /// `GIT_AUTH_TOKEN[.host]` with the scheme of `GIT_AUTH_HEADER[.host]`, bound to the repository's host.
    fn authorization(&self, git: &GitRef) -> Option<(String, String)> {
        let (scheme, rest) = git.remote.split_once("://")?;
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let secret = |kind: &str| {
            let value = self.secrets.get(&format!("{kind}.{host}")).or_else(|| self.secrets.get(kind))?;
            Some(String::from_utf8_lossy(value).trim().to_owned())
        };
        let header = secret("GIT_AUTH_HEADER");
        let token = secret("GIT_AUTH_TOKEN");
        let value = match (header.as_deref().map(str::to_ascii_lowercase).as_deref(), token) {
            (Some("basic"), Some(token)) if token.contains(':') => {
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(token))
            }
            (Some("basic"), Some(token)) => format!("Basic {token}"),
            (None | Some("bearer"), Some(token)) => format!("Bearer {token}"),
            (Some(_), _) => header?,
            (None, None) => return None,
        };
        Some((format!("http.{scheme}://{host}/.extraHeader"), format!("Authorization: {value}")))
    }
}

/// For every command: nothing of the repository is run, and a server that stops sending is left.
const OPTIONS: [&str; 9] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "init.defaultBranch=main",
    "protocol.allow=never",
    "credential.helper=",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
];

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The address without user and password, where it is one of HTTP.
fn without_user(remote: &str) -> String {
    let Some((scheme @ ("http" | "https"), rest)) = remote.split_once("://") else {
        return remote.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
    format!("{scheme}://{host}{}", &rest[end..])
}

/// The end of what git said, without passwords and control characters.
fn last_words(stderr: &[u8], git: &GitRef) -> String {
    let text = String::from_utf8_lossy(stderr).replace(&git.remote, &redacted(&git.remote));
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join("; ");
    last.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// The directory that is meant, reached without links.
fn subdir(top: &Path, subdir: &str) -> Result<PathBuf, GitError> {
    if subdir.is_empty() {
        return Ok(top.to_owned());
    }
    let failed = |source| GitError::Subdir { subdir: subdir.to_owned(), source };
    let root = File::open(top).map_err(failed)?;
    RootDir::new(root.as_fd())
        .open_plain(Path::new(subdir), OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|errno| failed(errno.into()))?;
    Ok(top.join(subdir))
}

/// Modes that do not depend on the umask, times, and no `.git` unless it is to stay.
fn settle(top: &Path, keep_git_dir: bool, time: Option<i64>) -> Result<(), GitError> {
    let mut open = vec![top.to_owned()];
    let mut directories = Vec::new();
    while let Some(dir) = open.pop() {
        let failed = |source| GitError::File { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            let failed = |source| GitError::File { path: path.clone(), source };
            if entry.file_name() == OsStr::new(".git") {
                if !keep_git_dir {
                    let removed =
                        if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                    removed.map_err(failed)?;
                }
                continue;
            }
            if kind.is_file() {
                let mode = entry.metadata().map_err(failed)?.permissions().mode();
                let mode = if mode & 0o100 != 0 { 0o755 } else { 0o644 };
                fs::set_permissions(&path, PermissionsExt::from_mode(mode)).map_err(failed)?;
            }
            if kind.is_dir() {
                open.push(path.clone());
            } else if let Some(time) = time {
                set_time(&path, time).map_err(failed)?;
            }
        }
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        directories.push(dir);
    }
    for dir in directories.iter().filter(|_| time.is_some()) {
        set_time(dir, time.unwrap_or(0)).map_err(|source| GitError::File { path: dir.clone(), source })?;
    }
    Ok(())
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
