//! Answers at TAB time: the completion scripts call the binary back.

use std::ffi::OsString;

/// Answer when a completion script asks. False when this is an ordinary command line.
pub(super) fn answer(_args: &[OsString]) -> bool {
    false
}
