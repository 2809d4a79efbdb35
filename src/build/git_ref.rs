//! Git repositories as sources: `https://host/repo.git?ref=main&subdir=x`, `git@host:repo.git#main:x`.

use super::pattern::clean;

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitRef {
    /// The address, without fragment and query.
    pub remote: String,
    /// A branch, a tag, a full commit or any other name of a ref; `None` for what the repository's HEAD stands for.
    pub reference: Option<String>,
    /// The directory that is meant; empty for the whole repository. No `..` in it, no slash before it.
    pub subdir: String,
    /// The first digits of the commit that it must be.
    pub checksum: Option<String>,
    /// Whether `.git` stays; `None` when nothing is said.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are left out.
    pub no_submodules: bool,
    /// Files get the time of the commit and not of the checkout.
    pub commit_times: bool,
}

/// Text that looks like a git source and is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitRefError {
    /// A scheme that is not followed.
    #[error("invalid protocol in git source {0}: it is http, https, git or ssh")]
    Protocol(String),
    /// A query key that means nothing here.
    #[error("unexpected query {0} in git source")]
    Query(String),
    /// A query key with a value that it does not have, or several times.
    #[error("invalid value of query {0} in git source")]
    Value(String),
    /// Two ways to name the ref that do not agree.
    #[error("git source names two refs: {0} and {1}")]
    TwoRefs(String, String),
    /// A ref that git would not take, or would take for an option.
    #[error("invalid git ref {0}")]
    Ref(String),
    /// An address that git would take for an option or a program.
    #[error("invalid git repository {0}")]
    Remote(String),
    /// A checksum that is no beginning of a commit.
    #[error("invalid git checksum {0}: it is 7 to 64 hexadecimal digits")]
    Checksum(String),
}

/// Read a git source. `None` for what is none. `host/org/repo` without a scheme is one only as a context
/// (`github.com/…`).
///
/// # Errors
/// See [`GitRefError`].
pub fn parse(text: &str, as_context: bool) -> Result<Option<GitRef>, GitRefError> {
    if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
        return Ok(None);
    }
    let (address, fragment) = match text.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (text, None),
    };
    let (base, query) = match address.split_once('?') {
        Some((base, query)) => (base, query),
        None => (address, ""),
    };
    let scheme = base.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let remote = match scheme.as_deref() {
        Some("git" | "ssh") => base.to_owned(),
        Some("http" | "https") if base.ends_with(".git") => base.to_owned(),
        Some("http" | "https") | None if scheme.is_some() => return Ok(None),
        Some(_) if base.ends_with(".git") => return Err(GitRefError::Protocol(redacted(base))),
        Some(_) => return Ok(None),
        None if is_scp(base) => base.to_owned(),
        None if as_context && base.starts_with("github.com/") => format!("https://{base}"),
        None => return Ok(None),
    };
    let mut git = GitRef { remote, ..GitRef::default() };
    if git.remote.starts_with('-')
        || git.remote.chars().any(|c| c.is_control() || c == ' ')
        || host_is_option(&git.remote)
    {
        return Err(GitRefError::Remote(redacted(&git.remote)));
    }
    if let Some(fragment) = fragment {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        git.reference = Some(reference.to_owned()).filter(|reference| !reference.is_empty());
        git.subdir = rooted(subdir);
    }
    read_query(&mut git, query)?;
    if let Some(reference) = &git.reference
        && !is_ref(reference)
    {
        return Err(GitRefError::Ref(reference.clone()));
    }
    if let Some(sum) = &git.checksum {
        check_sum(sum)?;
    }
    Ok(Some(git))
}

/// A checksum of a git source is the beginning of a commit.
///
/// # Errors
/// [`GitRefError::Checksum`].
pub fn check_sum(sum: &str) -> Result<(), GitRefError> {
    let good = (7..=64).contains(&sum.len()) && sum.bytes().all(|b| b.is_ascii_hexdigit());
    if good { Ok(()) } else { Err(GitRefError::Checksum(sum.to_owned())) }
}

/// Whether a source of ADD is fetched as a plain file.
#[must_use]
pub fn is_http(text: &str) -> bool {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// An address without the password in it.
#[must_use]
pub fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((user, host)) = rest[..end].rsplit_once('@') else { return address.to_owned() };
    let user = match user.split_once(':') {
        Some((user, _)) => format!("{user}:xxxxx"),
        None => user.to_owned(),
    };
    format!("{scheme}://{user}@{host}{}", &rest[end..])
}

/// `user@host:path`
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    word(user, "-_.") && word(host, "-.")
}

/// ssh takes a host that begins with a dash for an option (CVE-2017-1000117).
fn host_is_option(remote: &str) -> bool {
    let rest = remote.split_once("://").map_or(remote, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
    host.starts_with('-') || rest.starts_with('-') || host.is_empty()
}

fn rooted(subdir: &str) -> String {
    clean(&format!("/{subdir}")).trim_start_matches('/').to_owned()
}

/// git-check-ref-format(1), a little stricter.
fn is_ref(text: &str) -> bool {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    !(text.is_empty()
        || text.starts_with(['-', '/', '.', '+'])
        || text.ends_with(['/', '.'])
        || text.contains("..")
        || text.contains("//")
        || text.contains("@{")
        || text.chars().any(bad))
}

fn read_query(git: &mut GitRef, query: &str) -> Result<(), GitRefError> {
    let mut seen = std::collections::BTreeSet::new();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let value = percent_decoded(value);
        let wrong = || GitRefError::Value(key.to_owned());
        if !seen.insert(key.to_owned()) {
            return Err(wrong());
        }
        let flag = || match value.to_ascii_lowercase().as_str() {
            "" | "1" | "t" | "true" => Ok(true),
            "0" | "f" | "false" => Ok(false),
            _ => Err(wrong()),
        };
        let text = || if value.is_empty() { Err(wrong()) } else { Ok(value.clone()) };
        match key {
            "ref" => set_ref(git, text()?)?,
            "tag" => set_ref(git, format!("refs/tags/{}", text()?))?,
            "branch" => set_ref(git, format!("refs/heads/{}", text()?))?,
            "subdir" => {
                let subdir = rooted(&text()?);
                if !git.subdir.is_empty() && git.subdir != subdir {
                    return Err(wrong());
                }
                git.subdir = subdir;
            }
            "checksum" | "commit" => git.checksum = Some(text()?.to_ascii_lowercase()),
            "keep-git-dir" => git.keep_git_dir = Some(flag()?),
            "submodules" => git.no_submodules = !flag()?,
            "fetch-by-commit" => {
                flag()?;
            }
            "mtime" => match value.as_str() {
                "commit" => git.commit_times = true,
                "checkout" => git.commit_times = false,
                _ => return Err(wrong()),
            },
            _ => return Err(GitRefError::Query(key.to_owned())),
        }
    }
    Ok(())
}

fn set_ref(git: &mut GitRef, reference: String) -> Result<(), GitRefError> {
    match &git.reference {
        Some(before) if *before != reference => Err(GitRefError::TwoRefs(before.clone(), reference)),
        _ => {
            git.reference = Some(reference);
            Ok(())
        }
    }
}

/// Text with `%xx` undone; what is no text then is left as it was.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> GitRef {
        parse(text, true).unwrap().unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn what_is_a_repository() {
        for (text, remote, reference, subdir) in [
            ("https://h/r.git", "https://h/r.git", None, ""),
            ("https://h/r.git#main", "https://h/r.git", Some("main"), ""),
            ("https://h/r.git#v1:a/b", "https://h/r.git", Some("v1"), "a/b"),
            ("http://h:1/r.git#:a/../../b/", "http://h:1/r.git", None, "b"),
            ("git://h/r", "git://h/r", None, ""),
            ("ssh://git@h:22/r", "ssh://git@h:22/r", None, ""),
            ("git@h:o/r.git#pull/42/head", "git@h:o/r.git", Some("pull/42/head"), ""),
            ("github.com/o/r#x", "https://github.com/o/r", Some("x"), ""),
            ("https://h/r.git?tag=v1&subdir=/x", "https://h/r.git", Some("refs/tags/v1"), "x"),
            ("https://h/r.git?ref=a#a:b", "https://h/r.git", Some("a"), "b"),
        ] {
            let found = git(text);
            let shown = (found.remote.as_str(), found.reference.as_deref(), found.subdir.as_str());
            assert_eq!(shown, (remote, reference, subdir), "{text}");
        }
        let found = git("https://h/r.git?keep-git-dir&submodules=false&mtime=commit&commit=ABCDEF0");
        assert_eq!(
            (found.keep_git_dir, found.no_submodules, found.commit_times, found.checksum.as_deref()),
            (Some(true), true, true, Some("abcdef0"))
        );
    }

    #[test]
    fn what_is_none() {
        for text in ["https://h/r.tar", "./r.git", "../x", "dir", "a:b", "/x.git", "http://h/r.git/x", "u@h"]
        {
            assert_eq!(parse(text, true), Ok(None), "{text}");
        }
        assert_eq!(parse("github.com/o/r", false), Ok(None));
    }

    #[test]
    fn nothing_reaches_git_as_an_option_or_a_program() {
        for text in [
            "https://h/r.git#--upload-pack=touch /tmp/x",
            "https://h/r.git#-x",
            "https://h/r.git#a..b",
            "https://h/r.git#a b",
            "https://h/r.git?ref=%2d%2dupload-pack%3dx",
            "https://h/r.git?branch=",
            "https://h/r.git?what=1",
            "https://h/r.git?ref=a&ref=a",
            "https://h/r.git?ref=a&tag=a",
            "https://h/r.git?checksum=xyz",
            "ext::sh -c x.git",
            "ftp://h/r.git",
            "file:///r.git",
            "ssh://-oProxyCommand=x/r",
            "ssh://u@-oProxyCommand=x/r",
            "git://h/r\nx",
        ] {
            assert!(!matches!(parse(text, true), Ok(Some(_))), "{text}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redacted("https://u:secret@h/r.git#x"), "https://u:xxxxx@h/r.git#x");
        assert_eq!(redacted("https://h/a@b:c"), "https://h/a@b:c");
        assert_eq!(redacted("u@h:x"), "u@h:x");
    }
}
