//! A sign of life in logs: where no line is redrawn, one is written every half minute while bytes move, and also
//! while they do not.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two signs of life.
pub(super) const BEAT: Duration = Duration::from_secs(30);

/// A thread that calls a function again and again until it is stopped.
#[derive(Debug)]
pub(super) struct Heart {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Begin. `None` when there is no further thread to be had: then nothing beats.
    pub(super) fn start(every: Duration, beat: impl Fn() + Send + 'static) -> Option<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = stop.clone();
        let run = move || {
            let (stopped, wake) = &*seen;
            let mut guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            while !*guard {
                let waited = wake.wait_timeout(guard, every).unwrap_or_else(PoisonError::into_inner);
                guard = waited.0;
                if waited.1.timed_out() && !*guard {
                    drop(guard);
                    beat();
                    guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(run).ok()?;
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Heart {
    /// The thread is gone afterwards: the process may want to fork.
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    #[test]
    fn it_beats_until_it_is_dropped() {
        let beats = Arc::new(AtomicUsize::new(0));
        let seen = beats.clone();
        let heart = Heart::start(Duration::from_millis(5), move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let start = Instant::now();
        while beats.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(heart);
        let after = beats.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        assert!(after >= 2 && beats.load(Ordering::SeqCst) == after);
    }
}
