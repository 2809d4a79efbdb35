//! Verbs of the container group.
