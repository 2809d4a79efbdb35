//! Images that mean harm: one layer with busybox and whatever is planted beside it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::image::docker_archive;
use super::{Env, must, program};

const APPLETS: &str = "sh cat ls id stat grep ln mv rm touch mkdir mount umount sleep pwd echo env readlink kill ps test \
                       chmod head true false hostname cp setsid wc tr dd unshare mknod";

/// An image to be.
pub struct Hostile {
    layer: tar::Builder<Vec<u8>>,
    config: Value,
}

impl Hostile {
    /// A root with nothing but `/bin`.
    pub fn new() -> Self {
        let mut made = Self {
            layer: tar::Builder::new(Vec::new()),
            config: json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}),
        };
        let busybox = std::fs::read(program("busybox").expect("busybox is installed")).unwrap();
        made = made.dir("bin/").file("bin/busybox", 0o755, &busybox);
        APPLETS.split_whitespace().fold(made, |made, name| made.link(&format!("bin/{name}"), "busybox"))
    }

    /// A directory; the path ends with `/`.
    pub fn dir(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Directory, 0o755, b"", None)
    }

    /// A file of root's.
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, content.as_ref(), None)
    }

    /// A symbolic link.
    pub fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        let target = target.as_ref().display().to_string();
        self.entry(path, tar::EntryType::Symlink, 0o777, b"", Some(&target))
    }

    /// A named pipe.
    pub fn pipe(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Fifo, 0o644, b"", None)
    }

    /// A field of the config.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        content: &[u8],
        link: Option<&str>,
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        match link {
            Some(link) => self.layer.append_link(&mut header, path, link).unwrap(),
            None => self.layer.append_data(&mut header, path, content).unwrap(),
        }
        self
    }

    /// Load it under a name.
    #[track_caller]
    pub fn load(self, env: &Env, name: &str) {
        let archive = env.work().join("hostile.tar");
        docker_archive(&archive, &self.layer.into_inner().unwrap(), &self.config);
        env.run(["load", "-q", "-i", "hostile.tar"]).success();
        env.run(["tag", "test:latest", name]).success();
        env.run(["rmi", "test:latest"]).success();
        std::fs::remove_file(archive).unwrap();
    }
}

/// A C program for the inside: the answers of system calls that no shell can make. `None` without a compiler.
pub fn compiled(env: &Env, name: &str, source: &str) -> Option<std::path::PathBuf> {
    program("cc")?;
    let (input, output) = (env.write(&format!("{name}.c"), source), env.work().join(name));
    let mut cc = Command::new("cc");
    cc.args(["-static", "-O1", "-w", "-o"]).arg(&output).arg(&input);
    must(&mut cc);
    Some(output)
}
