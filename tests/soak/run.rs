//! One command: run to its end, or killed on the way.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::model::Moment;
use crate::world::World;

/// Nothing here takes long; longer than this it hangs.
const HANGS: Duration = Duration::from_secs(150);

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub line: String,
    /// None: it was killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub from: Moment,
    pub to: Moment,
}

impl Ran {
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    pub fn killed(&self) -> bool {
        self.code.is_none()
    }

    /// Its standard output without the last line end.
    pub fn text(&self) -> &str {
        self.stdout.trim_end()
    }
}

/// Run a command, and kill it after `kill`.
pub fn run(world: &World, mut command: Command, kill: Option<Duration>) -> Ran {
    let line = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let from = world.model.now();
    // Files and not pipes: a container that goes on holds what it inherited.
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let [out, err] = files.each_ref().map(|file| file.try_clone().unwrap());
    let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if kill.is_some_and(|after| start.elapsed() > after) {
            let _ = child.kill();
            break child.wait().unwrap();
        }
        if start.elapsed() > HANGS {
            let pid = child.id();
            let stack = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let tree = Command::new("ps").args(["-ef", "--forest"]).output().unwrap().stdout;
            panic!("{line} (process {pid}) hangs in {stack}\n{}", String::from_utf8_lossy(&tree));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    let [stdout, stderr] = files.map(|mut file| {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let killed = status.signal() == Some(9);
    Ran { line, code: if killed { None } else { status.code() }, stdout, stderr, from, to: world.model.now() }
}
