//! What the steps of a transfer are called, by its direction: docker's words where docker has some.

/// Which way the layers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the store.
    Pull,
    /// To a registry.
    Push,
    /// Into an archive.
    Save,
    /// Out of an archive.
    Load,
    /// Between two places, the store aside.
    Copy,
}

impl Direction {
    /// The verb, as `--progress json` names it.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Save => "save",
            Self::Load => "load",
            Self::Copy => "copy",
        }
    }

    /// Whether layers show as soon as they are known; otherwise with the first thing that happens to one of them.
    pub(super) fn shows_at_once(self) -> bool {
        self == Self::Push
    }

    /// A layer that nothing has happened to.
    pub(super) fn first(self) -> &'static str {
        if self == Self::Pull { "Pulling fs layer" } else { "Preparing" }
    }

    pub(super) fn exists(self) -> &'static str {
        if self == Self::Push { "Layer already exists" } else { "Already exists" }
    }

    pub(super) fn moving(self) -> &'static str {
        match self {
            Self::Pull => "Downloading",
            Self::Push => "Pushing",
            Self::Save => "Saving",
            Self::Load => "Loading",
            Self::Copy => "Copying",
        }
    }

    /// All bytes moved and unpacking goes on; nothing where that is the end.
    pub(super) fn moved(self) -> Option<&'static str> {
        match self {
            Self::Pull => Some("Download complete"),
            Self::Load => Some("Load complete"),
            Self::Push | Self::Save | Self::Copy => None,
        }
    }

    pub(super) fn finished(self) -> &'static str {
        match self {
            Self::Pull => "Pull complete",
            Self::Push => "Pushed",
            Self::Save => "Saved",
            Self::Load => "Loaded",
            Self::Copy => "Copied",
        }
    }
}
