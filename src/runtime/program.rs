//! Finding and executing the program.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::channel::Teller;
use super::rootfs::failure;
use super::{Error, Plan, StepFailure};
use crate::sys::exec;

/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As many as the kernel allows an interpreter to need another.
const MOST_INTERPRETERS: usize = 5;

/// What to try, in order.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    path: Option<String>,
    candidates: Vec<String>,
    /// One was left out: it, or the interpreters it needs, lead to our own binary or to themselves.
    left_out: bool,
}

impl Program {
    /// Look the program up as `execvp(3)` does. Call it in the root and the working directory of the program, but while
    /// still privileged: what it finds is also checked (see [`leads_to_us`]), and a file may be executable but not
    /// readable for the user.
    pub(super) fn find(plan: &Plan) -> Result<Self, Error> {
        let name = plan.args.first().filter(|name| !name.is_empty()).cloned().unwrap_or_default();
        if name.contains('/') {
            return Ok(Self { candidates: vec![name.clone()], name, path: None, left_out: false }.checked());
        }
        let path =
            plan.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        if name.is_empty() {
            return Err(Error::NotFound { program: name, path: None });
        }
        let candidates = path
            .split(':')
            .map(|dir| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") })
            .collect();
        Ok(Self { candidates, name, path: Some(path.to_owned()), left_out: false }.checked())
    }

    fn checked(mut self) -> Self {
        let all = self.candidates.len();
        self.candidates.retain(|candidate| {
            // What cannot be looked at is left to the exec, for its error.
            !leads_to_us(candidate, MOST_INTERPRETERS)
        });
        self.left_out = self.candidates.len() < all;
        self
    }

    /// Become the program.
    pub(super) fn run(&self, plan: &Plan, teller: Teller<'_>) -> Result<Infallible, Error> {
        let args = strings(&plan.args).ok_or_else(|| self.not_executable(libc::EINVAL))?;
        let env = strings(&plan.env).ok_or_else(|| self.not_executable(libc::EINVAL))?;
        teller.executing();
        let mut denied = false;
        for candidate in &self.candidates {
            let Ok(program) = CString::new(candidate.as_str()) else { continue };
            let error = exec::execve(&program, &args, &env);
            match error.raw_os_error() {
                Some(libc::ENOENT) if exists(candidate) => {
                    return Err(Error::NotExecutable {
                        program: self.name.clone(),
                        source: failure("find the interpreter of", format!("`{candidate}`"), libc::ENOENT),
                    });
                }
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => denied = true,
                errno => return Err(self.not_executable(errno.unwrap_or(libc::EIO))),
            }
        }
        if denied {
            return Err(self.not_executable(libc::EACCES));
        }
        if self.left_out {
            return Err(self.not_executable(libc::ELOOP));
        }
        Err(Error::NotFound { program: self.name.clone(), path: self.path.clone() })
    }

    fn not_executable(&self, errno: i32) -> Error {
        let source: StepFailure = failure("execute", format!("`{}`", self.name), errno);
        Error::NotExecutable { program: self.name.clone(), source }
    }
}

fn strings(list: &[String]) -> Option<Vec<CString>> {
    list.iter().map(|item| CString::new(item.as_str()).ok()).collect()
}

fn exists(path: &str) -> bool {
    rustix::fs::stat(path).is_ok()
}

/// Whether executing `path` would go through a magic link such as `/proc/self/exe`, directly or as the interpreter of a
/// script or a dynamic program. At that moment it names our own binary, which the container could then get hold of and
/// overwrite (CVE-2019-5736).
fn leads_to_us(path: &str, depth: usize) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file: OwnedFd = match openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(handle) if is_regular(&handle) => {
            match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
                Ok(file) => file,
                Err(Errno::LOOP) => return true,
                Err(_) => return false,
            }
        }
        Err(Errno::LOOP) => return true,
        _ => return false,
    };
    match interpreter(&File::from(file)) {
        Some(interpreter) => depth == 0 || leads_to_us(&interpreter, depth - 1),
        None => false,
    }
}

fn is_regular(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    })
}

/// The interpreter that the kernel would start: after `#!`, or the program header `PT_INTERP` of an ELF file.
fn interpreter(mut file: &File) -> Option<String> {
    let mut head = [0u8; 256];
    let mut length = 0;
    while let Ok(got @ 1..) = file.read(head.get_mut(length..)?) {
        length += got;
    }
    let head = head.get(..length)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let text = String::from_utf8_lossy(line).trim_matches([' ', '\t']).to_owned();
        return text.split([' ', '\t', '\0']).next().map(str::to_owned).filter(|text| !text.is_empty());
    }
    elf_interpreter(file, head)
}

/// The offsets are those of the ELF specification, for both word sizes, little endian.
fn elf_interpreter(file: &File, head: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    const LONGEST: usize = 4096;
    let number = |bytes: &[u8], at: usize, size: usize| -> Option<u64> {
        Some(
            bytes
                .get(at..at.checked_add(size)?)?
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let wide = number(head, 4, 1)? == 2;
    let (table_at, table_size, count_at) = if wide { (32, 8, 56) } else { (28, 4, 44) };
    let (table, count) = (number(head, table_at, table_size)?, number(head, count_at, 2)?);
    let entry_size: u64 = if wide { 56 } else { 32 };
    for index in 0..count {
        let mut entry = [0u8; 56];
        let entry = entry.get_mut(..usize::try_from(entry_size).ok()?)?;
        file.read_exact_at(entry, table.checked_add(index * entry_size)?).ok()?;
        if number(entry, 0, 4)? == PT_INTERP {
            let (at, size) = if wide {
                (number(entry, 8, 8)?, number(entry, 32, 8)?)
            } else {
                (number(entry, 4, 4)?, number(entry, 16, 4)?)
            };
            let mut path = vec![0u8; usize::try_from(size).ok()?.min(LONGEST)];
            file.read_exact_at(&mut path, at).ok()?;
            let path = path.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_links_are_seen_through() {
        let dir = std::env::temp_dir().join(format!("strate-program-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, content: &str| {
            let path = dir.join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        std::os::unix::fs::symlink("/proc/self/exe", dir.join("link")).unwrap();
        let link = dir.join("link").to_str().unwrap().to_owned();
        assert!(leads_to_us("/proc/self/exe", 5));
        assert!(leads_to_us(&link, 5));
        let script = file("script", "#! /proc/self/exe -x\n");
        assert!(leads_to_us(&script, 5));
        assert!(leads_to_us(&file("second", &format!("#!{script}\n")), 5));
        assert!(!leads_to_us(&file("shell", "#!/bin/sh\n"), 5));
        assert!(!leads_to_us("/bin/sh", 5));
        assert!(!leads_to_us("/nowhere", 5));
        let sh = std::fs::File::open("/bin/sh").unwrap();
        assert_eq!(interpreter(&sh).as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
