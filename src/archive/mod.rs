//! Floor 2: images in files: archives and OCI layouts.
