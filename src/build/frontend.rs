//! `# syntax=`: no frontend is ever fetched; what is asked for beyond what is understood here gets a word.

/// The newest release of BuildKit's Dockerfile frontend whose language this is: 1.this. 1.27 (September 2026, with
/// BuildKit 0.33) brought contexts in zstd, which are here, and `RUN --device`, which is refused by name.
const MINOR: u32 = 27;
/// The names of BuildKit's own frontend.
const OWN: [&str; 4] =
    ["docker/dockerfile", "docker/dockerfile-upstream", "moby/dockerfile", "docker.io/docker/dockerfile"];

/// What the user should know about a `# syntax=` line, if anything.
#[must_use]
pub fn remark(syntax: &str) -> Option<String> {
    // Some frontends take words after their name.
    let name = syntax.split_whitespace().next()?;
    let without_digest = name.split_once('@').map_or(name, |(name, _)| name);
    let (repository, tag) = match without_digest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (without_digest, "latest"),
    };
    if !OWN.contains(&repository) {
        return Some(format!(
            "notice: `# syntax={name}` is another frontend: it is not fetched, the file is read as a Dockerfile"
        ));
    }
    let labs = tag == "labs" || tag.ends_with("-labs");
    let mut numbers = tag.split('-').next().unwrap_or(tag).split('.').map(str::parse::<u32>);
    let newer = match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor > MINOR,
        (Some(Ok(major)), _) => major > 1,
        _ => false,
    };
    (labs || newer).then(|| {
        format!("notice: `# syntax={name}` may mean more than is understood here (docker/dockerfile:1.{MINOR}): the file is read without it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_more_gets_a_word() {
        for known in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7",
            "docker/dockerfile:1.20.1",
            "docker/dockerfile:1.27",
            "docker.io/docker/dockerfile:1.4",
            "docker/dockerfile:latest",
            "docker/dockerfile:1@sha256:00",
            "docker/dockerfile:experimental",
        ] {
            assert_eq!(remark(known), None, "{known}");
        }
        for (more, word) in [
            ("docker/dockerfile:1-labs", "may mean more"),
            ("docker/dockerfile:labs", "may mean more"),
            ("docker/dockerfile:1.28.0", "may mean more"),
            ("docker/dockerfile:2", "may mean more"),
            ("localhost:5000/x", "another frontend"),
            ("evil.example/docker/dockerfile:1", "another frontend"),
        ] {
            assert!(remark(more).is_some_and(|text| text.contains(word)), "{more}");
        }
    }
}
