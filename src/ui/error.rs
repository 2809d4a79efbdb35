//! How an error reads.

use std::fmt;

/// An error as a user reads it: what failed, why, and commands that help.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorReport {
    /// What failed, on what.
    pub message: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// Commands that help.
    pub hints: Vec<String>,
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_designed() {
        let report = ErrorReport {
            message: "cannot pull `a`".into(),
            causes: vec!["b".into(), "c".into()],
            hints: vec!["try again".into()],
        };
        assert_eq!(
            report.to_string(),
            "error: cannot pull `a`\n  caused by: b\n  caused by: c\nhint: try again"
        );
    }
}
