//! The `created_by` texts of history entries, as BuildKit writes them.

use super::ast::Copy;
use super::go;
use super::scope::Scope;
use crate::oci::Healthcheck;

/// The `comment` of every entry.
pub const COMMENT: &str = "buildkit.dockerfile.v0";

/// RUN with its complete argument vector, shell included.
#[must_use]
pub fn run(argv: &[String], scope: &Scope) -> String {
    format!("RUN {}{} # buildkit", scope.run_history_prefix(), argv.join(" "))
}

/// COPY or ADD. `copy` has its words expanded; `--from`, `--link` and `--exclude` are not shown.
#[must_use]
pub fn copy(keyword: &str, copy: &Copy) -> String {
    let mut words = vec![keyword.to_owned()];
    words.extend(copy.parents.then(|| "--parents".to_owned()));
    words.extend(copy.chown.as_ref().map(|owner| format!("--chown={owner}")));
    words.extend(copy.chmod.as_ref().map(|mode| format!("--chmod={mode}")));
    words.extend(copy.sources.iter().map(|source| super::git_ref::redacted(source)));
    words.extend(copy.heredocs.iter().map(|heredoc| format!("<<{}", heredoc.name)));
    words.push(copy.dest.clone());
    words.push("# buildkit".into());
    words.join(" ")
}

/// `ENV k=v k=v`
pub(super) fn pairs(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!(" {key}={value}")).collect();
    format!("{keyword}{}", pairs.concat())
}

/// `CMD ["a" "b"]`
pub(super) fn quoted(keyword: &str, argv: &[String]) -> String {
    format!("{keyword} {}", go::quote_list(argv))
}

/// `VOLUME [a b]`
pub(super) fn listed(keyword: &str, items: &[String]) -> String {
    format!("{keyword} {}", go::list(items))
}

/// `HEALTHCHECK {Test:[…] Interval:30s …}`
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        go::list(&check.test),
        go::duration(check.interval),
        go::duration(check.timeout),
        go::duration(check.start_period),
        go::duration(check.start_interval),
        check.retries
    )
}
