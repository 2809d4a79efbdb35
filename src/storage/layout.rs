//! Every path of the store.

use std::path::{Path, PathBuf};

/// Knows every path of the store; nothing else joins path strings.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The store at `root` (absolute).
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The top.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
