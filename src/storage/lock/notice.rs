//! Where waits and repairs are announced.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a wait for a lock is announced, once it lasted a second.
#[derive(Clone, Default)]
pub struct Notice(Option<Arc<Announcer>>);

struct Announcer {
    tell: Box<Tell>,
    /// What was said already: nobody wants to read it again.
    said: Mutex<Vec<String>>,
}

/// Takes a line for the user.
type Tell = dyn Fn(&str) + Send + Sync;

impl Notice {
    /// Announce by calling `tell`.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Announcer { tell: Box::new(tell), said: Mutex::default() })))
    }

    /// Say something, once.
    pub fn say(&self, text: &str) {
        let Some(announcer) = &self.0 else { return };
        let mut said = announcer.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.iter().any(|line| line == text) {
            said.push(text.to_owned());
            (announcer.tell)(text);
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notice({})", self.0.is_some())
    }
}
