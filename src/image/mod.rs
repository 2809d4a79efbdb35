//! Floor 1: a view of an image and pure edits of it, without knowing where it lives.
//!
//! Pull, push, save, load and copy are one [`copy()`] from a [`Source`] to a [`Sink`].

mod convert;
mod convert_layers;
mod copy;
mod copy_layers;
mod draft;
mod location;
mod mutate;
mod report;
mod select;
mod sink;
mod source;

pub use convert::{Conversion, ConvertError, Converted, Format, Recompression, Which, Workshop, convert};
pub use copy::{
    Copied, CopyError, INDEX_DIGEST_ANNOTATION, Platforms, Selection, What, copy, is_container_image,
};
pub use draft::{
    ATTESTS_ANNOTATION, Change, DraftError, IndexDraft, MAX_MEMBERS, Member, MemberPlatform, annotate,
};
pub use location::{Location, LocationError};
pub use mutate::{Edit, NewLayer, append};
pub use report::{Event, Reporter, Silent};
pub use select::{SelectError, select_platform};
pub use sink::{Claim, LayerPlace, LayerPlan, LayerState, Sink};
pub use source::{Patience, Source, StreamFailure};

/// The error of a place: boxed, because `copy` works between any two. `cmd::error` downcasts it again.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
