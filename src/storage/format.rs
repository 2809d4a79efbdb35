//! `oci-layout` and `strate.json`: the format version and feature flags of a store.
