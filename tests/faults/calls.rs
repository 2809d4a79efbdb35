//! Which system calls can change a file system or a lock, and what each of them works on.
//!
//! Between two such calls the disk does not change: a kill anywhere in between leaves what a kill just before the
//! second one leaves. So a sweep over these calls is a sweep over all system calls.

use std::path::Path;

use libc::c_long;

/// What kind of change a call makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Bytes of a file.
    Write,
    /// A file, made or emptied by opening it.
    Create,
    /// A name: made, moved or linked.
    Name,
    /// A name that goes.
    Remove,
    /// Mode, owner, times, extended attributes.
    Meta,
    /// The size or the space of a file.
    Size,
    /// Putting on the disk what was written.
    Sync,
    /// A hint to start writing early; its failure means nothing.
    Hint,
    /// A lock.
    Lock,
    /// A mount.
    Mount,
    /// A file opened only to read it: changes nothing, but fails when descriptors run out.
    Open,
    /// Waiting for somebody: a child, a pipe, a connection. Changes nothing on disk, but a signal may interrupt it.
    Wait,
    /// A new thread or process: changes nothing on disk, but fails when there are too many.
    Spawn,
    /// The end of a process.
    Exit,
}

impl Kind {
    /// Whether the call can change what is on disk, or a lock.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Spawn | Self::Wait)
    }
}

/// Where a call's subject is found in its arguments.
#[derive(Debug, Clone, Copy)]
enum Subject {
    /// A descriptor.
    Fd(usize),
    /// A path.
    Path(usize),
    /// A descriptor that is no file: those of files neither wait nor change anything.
    Stream(usize),
    /// Nothing that has a name.
    None,
}

struct Row(c_long, &'static str, Kind, Subject);

/// Every call that changes something, but `openat`, whose flags say what it does.
const TABLE: &[Row] = &[
    Row(libc::SYS_write, "write", Kind::Write, Subject::Fd(0)),
    Row(libc::SYS_pwrite64, "pwrite64", Kind::Write, Subject::Fd(0)),
    Row(libc::SYS_writev, "writev", Kind::Write, Subject::Fd(0)),
    Row(libc::SYS_pwritev, "pwritev", Kind::Write, Subject::Fd(0)),
    Row(libc::SYS_pwritev2, "pwritev2", Kind::Write, Subject::Fd(0)),
    Row(libc::SYS_sendfile, "sendfile", Kind::Write, Subject::Fd(0)),
    Row(libc::SYS_splice, "splice", Kind::Write, Subject::Fd(2)),
    Row(libc::SYS_copy_file_range, "copy_file_range", Kind::Write, Subject::Fd(2)),
    Row(libc::SYS_ftruncate, "ftruncate", Kind::Size, Subject::Fd(0)),
    Row(libc::SYS_truncate, "truncate", Kind::Size, Subject::Path(0)),
    Row(libc::SYS_fallocate, "fallocate", Kind::Size, Subject::Fd(0)),
    Row(libc::SYS_creat, "creat", Kind::Create, Subject::Path(0)),
    Row(libc::SYS_rename, "rename", Kind::Name, Subject::Path(1)),
    Row(libc::SYS_renameat, "renameat", Kind::Name, Subject::Path(3)),
    Row(libc::SYS_renameat2, "renameat2", Kind::Name, Subject::Path(3)),
    Row(libc::SYS_link, "link", Kind::Name, Subject::Path(1)),
    Row(libc::SYS_linkat, "linkat", Kind::Name, Subject::Path(3)),
    Row(libc::SYS_symlink, "symlink", Kind::Name, Subject::Path(1)),
    Row(libc::SYS_symlinkat, "symlinkat", Kind::Name, Subject::Path(2)),
    Row(libc::SYS_mkdir, "mkdir", Kind::Name, Subject::Path(0)),
    Row(libc::SYS_mkdirat, "mkdirat", Kind::Name, Subject::Path(1)),
    Row(libc::SYS_mknod, "mknod", Kind::Name, Subject::Path(0)),
    Row(libc::SYS_mknodat, "mknodat", Kind::Name, Subject::Path(1)),
    Row(libc::SYS_unlink, "unlink", Kind::Remove, Subject::Path(0)),
    Row(libc::SYS_unlinkat, "unlinkat", Kind::Remove, Subject::Path(1)),
    Row(libc::SYS_rmdir, "rmdir", Kind::Remove, Subject::Path(0)),
    Row(libc::SYS_chmod, "chmod", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_fchmod, "fchmod", Kind::Meta, Subject::Fd(0)),
    Row(libc::SYS_fchmodat, "fchmodat", Kind::Meta, Subject::Path(1)),
    Row(FCHMODAT2, "fchmodat2", Kind::Meta, Subject::Path(1)),
    Row(libc::SYS_chown, "chown", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_lchown, "lchown", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_fchown, "fchown", Kind::Meta, Subject::Fd(0)),
    Row(libc::SYS_fchownat, "fchownat", Kind::Meta, Subject::Path(1)),
    Row(libc::SYS_utimensat, "utimensat", Kind::Meta, Subject::Path(1)),
    Row(libc::SYS_setxattr, "setxattr", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_lsetxattr, "lsetxattr", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_fsetxattr, "fsetxattr", Kind::Meta, Subject::Fd(0)),
    Row(libc::SYS_removexattr, "removexattr", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_lremovexattr, "lremovexattr", Kind::Meta, Subject::Path(0)),
    Row(libc::SYS_fremovexattr, "fremovexattr", Kind::Meta, Subject::Fd(0)),
    Row(libc::SYS_fsync, "fsync", Kind::Sync, Subject::Fd(0)),
    Row(libc::SYS_fdatasync, "fdatasync", Kind::Sync, Subject::Fd(0)),
    Row(libc::SYS_syncfs, "syncfs", Kind::Sync, Subject::Fd(0)),
    Row(libc::SYS_sync_file_range, "sync_file_range", Kind::Hint, Subject::Fd(0)),
    Row(libc::SYS_flock, "flock", Kind::Lock, Subject::Fd(0)),
    Row(libc::SYS_mount, "mount", Kind::Mount, Subject::Path(1)),
    Row(libc::SYS_umount2, "umount2", Kind::Mount, Subject::Path(0)),
    Row(libc::SYS_move_mount, "move_mount", Kind::Mount, Subject::Path(3)),
    Row(libc::SYS_fsmount, "fsmount", Kind::Mount, Subject::None),
    Row(libc::SYS_fsconfig, "fsconfig", Kind::Mount, Subject::None),
    Row(libc::SYS_open_tree, "open_tree", Kind::Mount, Subject::Path(1)),
    Row(libc::SYS_mount_setattr, "mount_setattr", Kind::Mount, Subject::Path(1)),
    Row(libc::SYS_pivot_root, "pivot_root", Kind::Mount, Subject::Path(0)),
    Row(libc::SYS_wait4, "wait4", Kind::Wait, Subject::None),
    Row(libc::SYS_waitid, "waitid", Kind::Wait, Subject::None),
    Row(libc::SYS_poll, "poll", Kind::Wait, Subject::None),
    Row(libc::SYS_ppoll, "ppoll", Kind::Wait, Subject::None),
    Row(libc::SYS_connect, "connect", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_accept4, "accept4", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_recvfrom, "recvfrom", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_recvmsg, "recvmsg", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_sendto, "sendto", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_sendmsg, "sendmsg", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_read, "read", Kind::Wait, Subject::Stream(0)),
    Row(libc::SYS_fork, "fork", Kind::Spawn, Subject::None),
    Row(libc::SYS_vfork, "vfork", Kind::Spawn, Subject::None),
    Row(libc::SYS_clone, "clone", Kind::Spawn, Subject::None),
    Row(libc::SYS_clone3, "clone3", Kind::Spawn, Subject::None),
    Row(libc::SYS_exit_group, "exit_group", Kind::Exit, Subject::None),
];

/// `fchmodat2(2)`, which the C library's headers may not know yet.
const FCHMODAT2: c_long = 452;

/// A system call of a traced process.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// What it changes.
    pub kind: Kind,
    /// What it works on, as far as it can be told.
    pub path: String,
    /// Whether the process has become another program than the one under test.
    pub foreign: bool,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let foreign = if self.foreign { " of another program" } else { "" };
        write!(f, "{} of {}{foreign}", self.name, if self.path.is_empty() { "-" } else { &self.path })
    }
}

/// What a call changes, if it changes anything that lasts: bytes sent to terminals, pipes, sockets and the kernel's own
/// file systems do not.
pub fn classify(tid: i32, number: u64, args: &[u64; 6], foreign: bool) -> Option<Call> {
    let number = c_long::try_from(number).ok()?;
    let (name, kind, subject) = match number {
        libc::SYS_openat => ("openat", opens(args[2]), Subject::Path(1)),
        libc::SYS_open => ("open", opens(args[1]), Subject::Path(0)),
        libc::SYS_openat2 => ("openat2", opens(word_of(tid, args[2])?), Subject::Path(1)),
        _ => TABLE.iter().find(|row| row.0 == number).map(|row| (row.1, row.2, row.3))?,
    };
    let path = match subject {
        Subject::Fd(at) => descriptor(tid, args[at])?,
        Subject::Stream(at) => stream(tid, args[at])?,
        Subject::Path(at) => text_of(tid, args[at]),
        Subject::None => String::new(),
    };
    Some(Call { name, kind, path, foreign })
}

fn opens(flags: u64) -> Kind {
    let making = libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY;
    if flags & u64::try_from(making).unwrap() == 0 { Kind::Open } else { Kind::Create }
}

/// The file that a descriptor is open on; nothing when it is none that lasts.
fn descriptor(tid: i32, fd: u64) -> Option<String> {
    let fd = i32::try_from(fd & 0xffff_ffff).ok()?;
    let path = std::fs::read_link(format!("/proc/{tid}/fd/{fd}")).ok()?;
    let lasts = path.is_absolute() && !["/dev", "/proc", "/sys"].iter().any(|top| path.starts_with(top));
    (lasts || path.starts_with("/dev/shm")).then(|| path.display().to_string())
}

/// The pipe or connection that a descriptor is open on.
fn stream(tid: i32, fd: u64) -> Option<String> {
    let fd = i32::try_from(fd & 0xffff_ffff).ok()?;
    let path = std::fs::read_link(format!("/proc/{tid}/fd/{fd}")).ok()?.display().to_string();
    (path.starts_with("pipe:") || path.starts_with("socket:")).then_some(path)
}

fn text_of(tid: i32, address: u64) -> String {
    let bytes = memory(tid, address, 512);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn word_of(tid: i32, address: u64) -> Option<u64> {
    memory(tid, address, 8).try_into().ok().map(u64::from_ne_bytes)
}

/// Bytes of a traced process, as many as there are.
fn memory(tid: i32, address: u64, length: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let Ok(file) = std::fs::File::open(format!("/proc/{tid}/mem")) else { return Vec::new() };
    let mut bytes = vec![0; length];
    // The page may be the last one.
    let to_page_end = 4096 - usize::try_from(address % 4096).unwrap();
    for length in [length, length.min(to_page_end)] {
        if let Ok(n) = file.read_at(&mut bytes[..length], address) {
            bytes.truncate(n);
            return bytes;
        }
    }
    Vec::new()
}

/// Whether an `execve` is of a program that loses its privileges when it is traced.
pub fn runs_privileged(tid: i32, number: u64, args: &[u64; 6]) -> bool {
    let path = match c_long::try_from(number) {
        Ok(libc::SYS_execve) => text_of(tid, args[0]),
        Ok(libc::SYS_execveat) => text_of(tid, args[1]),
        _ => return false,
    };
    let name = Path::new(&path).file_name().unwrap_or_default();
    name == "newuidmap" || name == "newgidmap"
}
