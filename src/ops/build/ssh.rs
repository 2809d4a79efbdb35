//! `--ssh`: the agents that steps may ask, the user's own or one that holds some keys while the build lasts.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::SshSource;
use crate::context::Context;

/// How long an agent may take to listen.
const START: Duration = Duration::from_secs(5);
/// What the shell does that `ssh-agent` runs: wait until the build closes its input, or is gone, then end the agent.
const UNTIL_THE_END: &str = "trap '' HUP INT TERM; read -r _; kill \"$SSH_AGENT_PID\"";

/// Why an agent cannot be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Neither a path nor `SSH_AUTH_SOCK` says where it listens.
    #[error(
        "invalid empty ssh agent socket for `--ssh {id}`: SSH_AUTH_SOCK is not set, and no socket or key is named"
    )]
    NoSocket {
        /// The id.
        id: String,
    },
    /// What is named is not there.
    #[error("cannot read the ssh socket or key `{path}`")]
    Missing {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket beside other things.
    #[error("`--ssh {id}` takes one socket or several keys, not both")]
    Mixed {
        /// The id.
        id: String,
    },
    /// Two of one id.
    #[error("`--ssh {id}` was given twice")]
    Twice {
        /// The id.
        id: String,
    },
    /// OpenSSH's programs are needed for keys.
    #[error(
        "`{program}` is needed for a key of `--ssh` and cannot be run: install openssh-client, or name an agent's socket"
    )]
    NoProgram {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent did not come up.
    #[error("ssh-agent did not start for `--ssh {id}`")]
    NoStart {
        /// The id.
        id: String,
    },
    /// The key is not one, is open to others, or has a passphrase.
    #[error(
        "ssh-add refuses the key `{path}` (it takes keys without a passphrase that only you can read): {said}"
    )]
    Refused {
        /// The key.
        path: PathBuf,
        /// What `ssh-add` said.
        said: String,
    },
    /// No private directory.
    #[error("cannot make a private directory for the ssh agent")]
    Directory(#[source] io::Error),
}

/// Agents by id. Those that were started end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Where they listen.
    pub sockets: BTreeMap<String, PathBuf>,
    _started: Vec<Agent>,
}

/// A running `ssh-agent`; it ends with its input.
#[derive(Debug)]
struct Agent {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // The shell sees the end of its input, ends the agent, and goes.
        let _ = self.child.wait();
    }
}

impl Agents {
    /// Find or start what was asked for.
    ///
    /// # Errors
    /// See [`SshError`].
    pub fn new(cx: &Context, given: &[SshSource]) -> Result<Self, SshError> {
        let mut agents = Self::default();
        for SshSource { id, paths } in given {
            let socket = match paths.as_slice() {
                [] => {
                    let socket =
                        cx.var("SSH_AUTH_SOCK").ok_or_else(|| SshError::NoSocket { id: id.clone() })?;
                    if !is_socket(Path::new(socket))? {
                        return Err(SshError::NoSocket { id: id.clone() });
                    }
                    PathBuf::from(socket)
                }
                paths => agents.named(cx, id, paths)?,
            };
            if agents.sockets.insert(id.clone(), socket).is_some() {
                return Err(SshError::Twice { id: id.clone() });
            }
        }
        Ok(agents)
    }

    /// The one that git asks for keys.
    pub fn default_socket(&self) -> Option<&Path> {
        self.sockets.get("default").map(PathBuf::as_path)
    }

    /// The socket that is named, or that of an agent with the keys that are.
    fn named(&mut self, cx: &Context, id: &str, paths: &[PathBuf]) -> Result<PathBuf, SshError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| cx.cwd.join(path)).collect();
        let sockets = paths.iter().map(|path| is_socket(path)).collect::<Result<Vec<_>, _>>()?;
        if !sockets.contains(&true) {
            let (agent, socket) = start(cx, id)?;
            for path in &paths {
                add(cx, &socket, path)?;
            }
            self._started.push(agent);
            return Ok(socket);
        }
        match paths.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(SshError::Mixed { id: id.to_owned() }),
        }
    }
}

fn is_socket(path: &Path) -> Result<bool, SshError> {
    let found =
        std::fs::metadata(path).map_err(|source| SshError::Missing { path: path.to_owned(), source })?;
    Ok(found.file_type().is_socket())
}

/// An agent without keys in a directory that nobody else can enter. It is not in our process group, as Ctrl-C must leave
/// it to the end of the build, and ends even when we are killed.
fn start(cx: &Context, id: &str) -> Result<(Agent, PathBuf), SshError> {
    let top = cx.var("XDG_RUNTIME_DIR").or_else(|| cx.var("TMPDIR")).unwrap_or("/tmp");
    // Whatever the mask of new files says.
    let private = std::fs::Permissions::from_mode(0o700);
    let builder = |top: &str| {
        tempfile::Builder::new().prefix("strate-ssh-").permissions(private.clone()).tempdir_in(top)
    };
    let dir = builder(top).or_else(|_| builder("/tmp")).map_err(SshError::Directory)?;
    let socket = dir.path().join("agent");
    let child = command(cx, "ssh-agent")
        .arg("-a")
        .arg(&socket)
        .args(["sh", "-c", UNTIL_THE_END])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|source| SshError::NoProgram { program: "ssh-agent", source })?;
    let mut agent = Agent { child, _dir: dir };
    let late = Instant::now() + START;
    while !socket.exists() {
        let ended = !matches!(agent.child.try_wait(), Ok(None));
        if ended || Instant::now() > late {
            return Err(SshError::NoStart { id: id.to_owned() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((agent, socket))
}

fn add(cx: &Context, socket: &Path, path: &Path) -> Result<(), SshError> {
    let said = command(cx, "ssh-add")
        .env("SSH_AUTH_SOCK", socket)
        .env("SSH_ASKPASS", "false")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .args(["-q", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SshError::NoProgram { program: "ssh-add", source })?;
    if said.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said.stderr);
    let words: Vec<&str> = text.split_whitespace().filter(|word| !word.chars().all(|c| c == '@')).collect();
    Err(SshError::Refused { path: path.to_owned(), said: words.join(" ") })
}

fn command(cx: &Context, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    for name in ["PATH", "HOME"] {
        if let Some(value) = cx.var(name) {
            command.env(name, value);
        }
    }
    command
}
