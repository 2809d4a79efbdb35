//! Remarks on a file that do not stop the build (BuildKit's build checks), as far as the text alone shows them.

use super::ast::{Dockerfile, Warning};
use super::lines::Logical;

/// All remarks, in the order of their lines.
pub(super) fn warnings(_file: &Dockerfile, logical: &[Logical]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for line in logical {
        if line.empty_continuation {
            let message = "Empty continuation line found in: ".to_owned() + &line.text;
            warnings.push(Warning { rule: "NoEmptyContinuation", message, span: line.span });
        }
    }
    warnings
}
