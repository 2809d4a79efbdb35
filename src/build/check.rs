//! The options of build checks: `# check=` at the top of a file, above one instruction, or as a build argument.

use std::collections::BTreeSet;

use super::ast::{Dockerfile, Warning};

/// Rules that are made only when they are asked for.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

/// Options of build checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    skip: Rules,
    /// Whether a remark fails the build.
    pub error: bool,
    experimental: Rules,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Rules {
    #[default]
    None,
    All,
    Named(BTreeSet<String>),
}

/// Options that are wrong, or remarks that were declared errors; in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// An option that does not exist or has no value.
    #[error("failed to parse check options: invalid check option {}", super::go::quote(.0))]
    Option(String),
    /// A value of `error` that is not a bool.
    #[error("failed to parse check options: failed to parse check option {}", super::go::quote(.0))]
    Value(String),
    /// Remarks in a file that says `error=true`.
    #[error("lint violation found for rules: {0}")]
    Violation(String),
}

impl Checks {
    /// Parse `skip=…;error=…;experimental=…`.
    ///
    /// # Errors
    /// For unknown options and bad values.
    pub fn parse(text: &str) -> Result<Self, CheckError> {
        let mut checks = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| CheckError::Option(part.to_owned()))?;
            match key.trim() {
                "skip" => checks.skip = Rules::parse(value),
                "experimental" => checks.experimental = Rules::parse(value),
                "error" => {
                    checks.error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(CheckError::Value(part.to_owned())),
                    }
                }
                other => return Err(CheckError::Option(other.to_owned())),
            }
        }
        Ok(checks)
    }

    /// The remarks that these options and the comments above instructions leave.
    #[must_use]
    pub fn filter(&self, file: &Dockerfile, warnings: Vec<Warning>) -> Vec<Warning> {
        let skipped = |warning: &Warning| {
            if EXPERIMENTAL.contains(&warning.rule) && !self.experimental.holds(warning.rule) {
                return true;
            }
            let here = file.skips.iter().filter(|(span, _)| *span == warning.span);
            self.skip.holds(warning.rule)
                || here.into_iter().any(|(_, checks)| checks.skip.holds(warning.rule))
        };
        warnings.into_iter().filter(|warning| !skipped(warning)).collect()
    }

    /// Fail when there are remarks and the options say so.
    ///
    /// # Errors
    /// Names the rules.
    pub fn verdict(&self, warnings: &[Warning]) -> Result<(), CheckError> {
        if !self.error || warnings.is_empty() {
            return Ok(());
        }
        let rules: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule).collect();
        Err(CheckError::Violation(rules.into_iter().collect::<Vec<_>>().join(", ")))
    }
}

impl Rules {
    fn parse(value: &str) -> Self {
        if value.trim() == "all" {
            return Self::All;
        }
        Self::Named(value.split(',').map(|rule| rule.trim().to_lowercase()).collect())
    }

    fn holds(&self, rule: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Named(rules) => rules.contains(&rule.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_decide_which_remarks_count() {
        for (text, left, fails) in [
            ("", 1, false),
            ("error=true", 1, true),
            ("skip=JSONArgsRecommended;error=true", 0, false),
            ("skip=a,jsonargsrecommended ; error=true", 0, false),
            ("skip=all", 0, false),
            ("skip=Other;error=false", 1, false),
        ] {
            let file = crate::build::parse(b"FROM scratch\nCMD x\n", "Dockerfile").unwrap();
            let checks = Checks::parse(text).unwrap();
            let warnings = checks.filter(&file, file.warnings.clone());
            assert_eq!((warnings.len(), checks.verdict(&warnings).is_err()), (left, fails), "{text}");
        }
        let error = Checks::parse("colour=blue").unwrap_err();
        assert_eq!(error.to_string(), "failed to parse check options: invalid check option \"colour\"");
        assert!(Checks::parse("skip").is_err() && Checks::parse("error=maybe").is_err());
    }

    #[test]
    fn comments_count_for_the_instruction_below() {
        let source = b"FROM scratch\n# check=skip=JSONArgsRecommended\nCMD x\n\nENTRYPOINT y\n";
        let file = crate::build::parse(source, "Dockerfile").unwrap();
        let checks = Checks::parse("error=true").unwrap();
        let warnings = checks.filter(&file, file.warnings.clone());
        assert_eq!(warnings.iter().map(|w| w.span.first).collect::<Vec<_>>(), [5]);
        let error = checks.verdict(&warnings).unwrap_err();
        assert_eq!(error.to_string(), "lint violation found for rules: JSONArgsRecommended");
    }
}
