//! Helper programs: found, fed, limited in time and output.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a helper program printed, and how it ended.
#[derive(Debug)]
pub(super) struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Run a program with `input` on its standard input. It is killed after `timeout`, and at most `limit` bytes of each
/// output stream are kept.
pub(super) fn run(mut command: Command, input: &[u8], timeout: Duration, limit: u64) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Read before anything is written: a helper may wait for that with half of its input taken.
    let stdout = collect(child.stdout.take(), limit);
    let stderr = collect(child.stderr.take(), limit);
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input has its reasons; its exit status tells.
        let _ = stdin.write_all(input);
    }
    let status = wait(&mut child, timeout)?;
    // A grandchild may hold the pipes open for longer than the helper lives.
    let grace = Duration::from_secs(1);
    let stdout = stdout.recv_timeout(grace).unwrap_or_default();
    let stderr = stderr.recv_timeout(grace).unwrap_or_default();
    Ok(Output { status, stdout, stderr })
}

fn collect(stream: Option<impl Read + Send + 'static>, limit: u64) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stream) = stream {
        let thread = std::thread::Builder::new().name("helper-output".into());
        let _ = thread.spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.take(limit).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    receiver
}

fn wait(child: &mut Child, timeout: Duration) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not end in time and was killed"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_are_fed_limited_and_killed() {
        let output = run(Command::new("cat"), b"hello", Duration::from_secs(10), 3).unwrap();
        assert_eq!(output.stdout, b"hel");
        let long = vec![b'x'; 1 << 20];
        let output = run(Command::new("cat"), &long, Duration::from_secs(10), 2 << 20).unwrap();
        assert_eq!(output.stdout.len(), long.len(), "more than a pipe holds goes both ways");
        let mut sleep = Command::new("sleep");
        sleep.arg("30");
        let error = run(sleep, b"", Duration::from_millis(50), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
