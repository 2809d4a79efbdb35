//! Verbs of the image group.
