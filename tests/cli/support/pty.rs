//! A program on a real terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::eventually;

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal of 40 rows and 120 columns.
#[derive(Debug)]
pub struct Pty {
    master: File,
    child: Child,
    screen: Arc<Mutex<String>>,
    seen: usize,
}

impl Pty {
    /// Start a command with the terminal as its three streams. It is to make it its controlling one (`setsid --ctty`).
    pub fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let child = command
            .stdin(Stdio::from(slave()))
            .stdout(Stdio::from(slave()))
            .stderr(Stdio::from(slave()))
            .spawn()
            .unwrap();
        drop(command); // and with it our ends of the slave
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reader, shared) = (master.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The master fails with EIO once the last slave is closed.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { master, child, screen, seen: 0 }
    }

    /// Type something.
    pub fn send(&mut self, text: &str) -> &mut Self {
        self.master.write_all(text.as_bytes()).unwrap();
        self
    }

    /// Wait until the program prints something, after what was waited for last.
    #[track_caller]
    pub fn expect(&mut self, part: &str) -> &mut Self {
        let (screen, seen) = (Arc::clone(&self.screen), self.seen);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the expected output", PATIENCE, || {
                screen.lock().unwrap()[seen..].find(part).map(|at| seen + at + part.len())
            })
        }));
        let Ok(found) = found else { panic!("no {part:?} on the terminal:\n{}", self.text()) };
        self.seen = found;
        self
    }

    /// Change the size of the terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) -> &mut Self {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
        self
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Wait for the end; the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let child = &mut self.child;
        let status = eventually("the end of the program", PATIENCE, || child.try_wait().unwrap());
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
