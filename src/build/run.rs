//! RUN as a step: its words, environment and mounts become a plan for the runtime, its changes a layer.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::ast::{Command, Run};
use super::error::Error;
use super::execute::Build;
use super::history;
use super::metadata;
use super::mount::{self, Mount};
use super::progress::Stream;
use super::record::Key;
use super::run_mounts::Mounts;
use super::scope::DEFAULT_PATH;
use super::state::StageState;
use super::stubs::Stubs;
use super::vertex::Work;
use crate::image::NewLayer;
use crate::layer::OwnerTable;
use crate::runtime::{
    self, ExitStatus, MountOp, Namespaces, Network, Plan, Process, Stdio,
    user::{self, User},
};

/// The host name that programs of a build see; BuildKit's.
const HOSTNAME: &str = "buildkitsandbox";
/// How much output is read at once.
const OUTPUT: usize = 64 << 10;

/// RUN with everything expanded.
pub(super) struct Prepared {
    pub(super) argv: Vec<String>,
    /// A script to be put at a path before it is run.
    script: Option<(String, String)>,
    env: Vec<String>,
    proxies: Vec<String>,
    pub(super) cwd: String,
    user: String,
    network: Network,
    hostname: String,
    pub(super) mounts: Vec<Mount>,
}

impl Prepared {
    /// Whether the Dockerfile sets a variable.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.env.iter().any(|pair| pair.split_once('=').is_some_and(|(known, _)| known == name))
    }
}

impl<'a> Build<'a> {
    /// RUN.
    pub(super) fn run_step(
        &mut self,
        stage: usize,
        state: &mut StageState,
        run: &Run,
        name: String,
    ) -> Result<(), Error> {
        let prepared = self.prepare_run(state, run)?;
        let created_by = history::run(&prepared.argv, &state.scope);
        let key = match self.run_key(stage, state, &prepared) {
            Ok(key) => key,
            Err(error) => {
                let failed: Result<(), Error> = Err(error);
                self.board.begin(name, true).end(&failed);
                return failed;
            }
        };
        self.step(state, &key, created_by, name, |build, state, work| {
            build.do_run(stage, state, &prepared, work)
        })
    }

    fn prepare_run(&self, state: &mut StageState, run: &Run) -> Result<Prepared, Error> {
        let (command, script) = command(run);
        let argv = metadata::argv(&command, &state.config);
        let network = match run.network.as_deref() {
            None | Some("default" | "") => self.request.network,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                return Err(Error::Rule(format!("invalid network mode {}", super::go::quote(other))));
            }
        };
        match run.security.as_deref() {
            None | Some("sandbox" | "") => {}
            Some("insecure") => {
                return Err(Error::Rule("entitlement security.insecure is not allowed".into()));
            }
            Some(other) => {
                return Err(Error::Rule(format!("security {} is not valid", super::go::quote(other))));
            }
        }
        let mut mounts = Vec::new();
        for value in &run.mounts {
            let parsed = mount::parse(value, |word| state.scope.expand(word));
            mounts.push(parsed.map_err(|error| Error::Rule(error.to_string()))?);
        }
        let scope = &state.scope;
        let pair = |(key, value): &(String, String)| format!("{key}={value}");
        let mut env: Vec<String> = scope.env().iter().map(pair).collect();
        if !scope.env().iter().any(|(key, _)| key == "PATH") {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let globals = scope.globals();
        Ok(Prepared {
            argv,
            script,
            env,
            proxies: globals.proxy_env().iter().map(pair).collect(),
            cwd: state.workdir().to_owned(),
            user: state.config.config.user.clone(),
            network,
            hostname: globals.build_arg("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or(HOSTNAME).to_owned(),
            mounts,
        })
    }

    fn run_key(&mut self, stage: usize, state: &StageState, run: &Prepared) -> Result<String, Error> {
        let mut key = Key::new("RUN");
        key.text(&state.chain()).text(&state.platform.to_string());
        key.list(&run.argv).option(run.script.as_ref().map(|(_, script)| script.as_str()));
        key.list(&run.env).text(&run.cwd).text(&run.user).text(&run.hostname);
        key.text(if run.network == Network::None { "none" } else { "host" });
        key.list(self.request.add_hosts.iter().map(|(name, _)| name));
        for mount in &run.mounts {
            self.mount_key(stage, state, mount, &mut key)?;
        }
        Ok(key.finish("step"))
    }

    fn do_run(
        &mut self,
        stage: usize,
        state: &StageState,
        run: &Prepared,
        work: &Work<'a>,
    ) -> Result<NewLayer, Error> {
        if !self.request.isolated {
            return Err(Error::NoIsolation);
        }
        let mounts = self.prepare_mounts(stage, state, run)?;
        self.in_tree(&state.layers(), |build, placer| {
            let root = placer.root;
            let plan = build.plan(root, run, &mounts)?;
            let mut stubs = Stubs::default();
            let targets =
                [("/etc/resolv.conf", false), ("/etc/hosts", false)].map(|(t, d)| (t.to_owned(), d));
            for (target, is_dir) in targets.iter().chain(&mounts.targets) {
                // A target that cannot be made shows its error when it is mounted, but one that only the disk
                // refused would be made then, and stay in the layer.
                if let Err(source) = stubs.make(root, target, *is_dir)
                    && is_of_disk(&source)
                {
                    return Err(Error::Read { place: format!("the place of {target}"), source });
                }
            }
            let result = build.execute(root, &plan, run, work);
            let cleared = stubs.clear(root);
            result?;
            cleared.map_err(|source| Error::Read { place: "the step's tree".into(), source })?;
            Ok(OwnerTable::default())
        })
    }

    fn plan(&self, root: BorrowedFd<'_>, run: &Prepared, mounts: &Mounts) -> Result<Plan, Error> {
        let account = resolve_user(root, &run.user)?;
        let mut env = run.env.clone();
        env.extend(run.proxies.iter().cloned());
        for pair in &mounts.env {
            let key = pair.split_once('=').map_or(pair.as_str(), |(key, _)| key);
            env.retain(|known| known.split_once('=').is_none_or(|(name, _)| name != key));
            env.push(pair.clone());
        }
        if !env.iter().any(|pair| pair.starts_with("HOME=")) {
            env.push(format!("HOME={}", account.home));
        }
        let mut all = runtime::default_mounts(self.request.shm_size);
        let file = |target: &str, content: Vec<u8>, mode: u32| MountOp::File {
            content,
            target: target.to_owned(),
            mode,
            read_only: true,
        };
        all.push(file("/etc/resolv.conf", self.request.resolv_conf.clone(), 0o644));
        all.push(file("/etc/hosts", self.hosts(&run.hostname), 0o644));
        if let Some((path, script)) = &run.script {
            all.push(file(path, script.clone().into_bytes(), 0o755));
        }
        all.extend(mounts.ops.iter().cloned());
        Ok(Plan {
            args: run.argv.clone(),
            env,
            cwd: run.cwd.clone(),
            uid: account.uid,
            gid: account.gid,
            groups: account.groups,
            hostname: run.hostname.clone(),
            mounts: all,
            masked_paths: runtime::default_masked_paths(),
            read_only_paths: runtime::default_read_only_paths(),
            capabilities: runtime::default_capabilities(),
            namespaces: Namespaces { network: run.network, ..Namespaces::default() },
            die_with_parent: true,
            rlimits: self.request.rlimits.clone(),
            ..Plan::default()
        })
    }

    fn hosts(&self, hostname: &str) -> Vec<u8> {
        let mut hosts =
            format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for (name, address) in &self.request.add_hosts {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        hosts.into_bytes()
    }

    fn execute(
        &self,
        root: BorrowedFd<'_>,
        plan: &Plan,
        run: &Prepared,
        work: &Work<'_>,
    ) -> Result<(), Error> {
        let command = || run.argv.join(" ");
        let start = |source: runtime::Error| match source {
            // As a shell would: what does not exist is 127, what cannot be executed 126.
            runtime::Error::NotFound { .. } => Error::Process { command: command(), code: 127 },
            source => Error::Start { command: command(), source },
        };
        let failed = |source: io::Error| Error::Read { place: "the output of the step".into(), source };
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let (err, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let process = runtime::spawn(root, plan, Stdio::Descriptors { stdin, stdout, stderr })
            .inspect_err(|error| {
                work.output(Stream::Stderr, format!("{error}\n").as_bytes());
            })
            .map_err(start)?;
        let watched = process.pidfd.try_clone().map_err(failed)?;
        self.shop.interrupt.watch(Some(watched));
        let relayed = relay(&process, out, err, work);
        let status = process.wait();
        self.shop.interrupt.watch(None);
        relayed.map_err(failed)?;
        if self.shop.interrupt.asked() {
            return Err(Error::Interrupted);
        }
        match status.map_err(start)? {
            ExitStatus::Code(0) => Ok(()),
            ended => Err(Error::Process { command: command(), code: ended.code() }),
        }
    }
}

/// Pass on output until the program has ended and everything it wrote was read.
fn relay(process: &Process, out: OwnedFd, err: OwnedFd, work: &Work<'_>) -> io::Result<()> {
    let mut streams = vec![(Stream::Stdout, out), (Stream::Stderr, err)];
    let mut buffer = vec![0; OUTPUT];
    while !streams.is_empty() {
        let mut ready: Vec<PollFd<'_>> =
            streams.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ended = Vec::new();
        for (index, (stream, fd)) in streams.iter().enumerate().filter(|(index, _)| ready[*index]) {
            match rustix::io::read(fd, &mut buffer[..]) {
                Ok(0) => ended.push(index),
                Ok(n) => work.output(*stream, &buffer[..n]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for index in ended.into_iter().rev() {
            streams.remove(index);
        }
    }
    // Pid 1's end closed the pipes: nothing of its namespace outlives it.
    let _ = process;
    Ok(())
}

/// What a RUN line comes down to when heredocs are in it.
fn command(run: &Run) -> (Command, Option<(String, String)>) {
    let Command::Shell(text) = &run.command else { return (run.command.clone(), None) };
    match run.heredocs.as_slice() {
        [] => (run.command.clone(), None),
        [only] if is_alone(text, &only.name) => {
            if only.content.starts_with("#!") {
                let path = format!("/dev/pipes/{}", only.name);
                return (Command::Shell(path.clone()), Some((path, only.content.clone())));
            }
            (Command::Shell(only.content.clone()), None)
        }
        several => {
            let mut whole = text.clone();
            for heredoc in several {
                whole.push('\n');
                whole.push_str(&heredoc.content);
                whole.push_str(&heredoc.name);
            }
            (Command::Shell(whole), None)
        }
    }
}

/// Trouble of the disk, which another try may not have, and not of what is asked for.
fn is_of_disk(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
        || matches!(error.raw_os_error(), Some(libc::EIO | libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Whether the line is nothing but the marker of one heredoc.
fn is_alone(text: &str, name: &str) -> bool {
    let rest = text.trim().trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else { return false };
    let word: String =
        rest.trim_start_matches('-').trim().chars().filter(|c| !"'\"\\".contains(*c)).collect();
    word == name
}

/// The account that a program runs as.
fn resolve_user(root: BorrowedFd<'_>, spec: &str) -> Result<User, Error> {
    user::resolve(root, spec, &[]).map_err(|source| Error::User { source })
}

/// Whom a directory that WORKDIR makes belongs to.
pub(super) fn owner_of_workdir(root: BorrowedFd<'_>, spec: &str) -> Result<(u32, u32), Error> {
    if spec.is_empty() {
        return Ok((0, 0));
    }
    let account = resolve_user(root, spec)?;
    Ok((account.uid, account.gid))
}

/// A mount's target as an absolute path.
pub(super) fn target(cwd: &str, written: &str) -> Result<String, Error> {
    let path =
        super::pattern::clean(&metadata::join_workdir(cwd, if written.is_empty() { cwd } else { written }));
    if path == "/" {
        return Err(Error::Rule("invalid mount target \"/\"".into()));
    }
    debug_assert!(Path::new(&path).is_absolute());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::ast::Heredoc;
    use super::*;

    fn heredoc(name: &str, content: &str) -> Heredoc {
        Heredoc {
            name: name.into(),
            content: content.into(),
            raw: content.into(),
            expand: true,
            chomp: false,
            fd: None,
        }
    }

    fn run(text: &str, heredocs: Vec<Heredoc>) -> Run {
        let command = Command::Shell(text.into());
        Run { command, heredocs, mounts: Vec::new(), network: None, security: None }
    }

    #[test]
    fn a_heredoc_alone_is_the_script_and_others_are_left_to_the_shell() {
        let (script, file) = command(&run("<<EOF", vec![heredoc("EOF", "echo a\n")]));
        assert_eq!((script, file), (Command::Shell("echo a\n".into()), None));
        let (script, file) = command(&run("<<-'E F'", vec![heredoc("E F", "#!/bin/x\n")]));
        assert_eq!(script, Command::Shell("/dev/pipes/E F".into()));
        assert_eq!(file, Some(("/dev/pipes/E F".into(), "#!/bin/x\n".into())));
        let (script, _) = command(&run("cat <<A >/o", vec![heredoc("A", "x\n")]));
        assert_eq!(script, Command::Shell("cat <<A >/o\nx\nA".into()));
        let (script, _) = command(&run("<<A cat", vec![heredoc("A", "x\n")]));
        assert_eq!(script, Command::Shell("<<A cat\nx\nA".into()));
    }

    #[test]
    fn targets_are_relative_to_the_working_directory() {
        assert_eq!(target("/w", "x").unwrap(), "/w/x");
        assert_eq!(target("/w", "").unwrap(), "/w");
        assert_eq!(target("/w", "/a/../b").unwrap(), "/b");
        assert!(target("/", "").is_err());
    }
}
