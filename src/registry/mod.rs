//! Floor 2: images in registries (OCI distribution-spec v1.1, docker registry v2).
