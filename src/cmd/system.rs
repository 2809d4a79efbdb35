//! Verbs of the system group.
