//! `doctor`: look at everything that strate needs from the host, and say the exact fix for what is missing.

mod fixes;
mod helpers;
mod namespaces;
mod network;
mod store;

use serde::Serialize;

use crate::context::Context;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Ok,
    /// It works, with a limit.
    Warn,
    /// Something that is needed does not work.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What that means for the user; empty when all is well.
    pub meaning: String,
    /// Commands that change it, for this host.
    pub fixes: Vec<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), meaning: String::new(), fixes: Vec::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, meaning: meaning.into(), ..Self::ok(name, found) }
    }

    fn fail(name: &'static str, found: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, meaning: meaning.into(), ..Self::ok(name, found) }
    }

    fn fix(mut self, command: impl Into<String>) -> Self {
        self.fixes.push(command.into());
        self
    }

    fn fixes(mut self, commands: Vec<String>) -> Self {
        self.fixes.extend(commands);
        self
    }
}

/// Look at everything.
#[must_use]
pub fn doctor(cx: &Context) -> Vec<Check> {
    let mut checks = vec![namespaces::kernel(), namespaces::rung(cx)];
    checks.extend(namespaces::ids(cx));
    checks.push(network::helper(cx));
    checks.extend(store::checks(cx));
    checks.push(helpers::registries_conf(cx));
    checks.extend(helpers::credentials(cx));
    checks
}
