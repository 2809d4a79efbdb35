//! The store as a [`crate::image::Source`] and [`crate::image::Sink`].
