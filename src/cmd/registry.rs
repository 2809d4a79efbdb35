//! Verbs of the registry group.
