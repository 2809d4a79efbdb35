//! What a source argument of COPY and ADD stands for: a path, what its wildcards match, or (`--parents`) a pattern.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, openat};

use super::beneath::kind;
use super::copy::{CopyError, failed};
use super::error::Error;
use super::ignore::Matcher;
use super::pattern::{clean, go_match, has_wildcard};
use super::tree::{Filter, Tree};

/// `--exclude` patterns, or an ignore file.
#[derive(Debug)]
pub(super) struct Excluding(pub Matcher);

impl Filter for Excluding {
    fn hides(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.0.excluded(&path.to_string_lossy())
    }

    fn may_show_below(&self, path: &Path) -> bool {
        !self.0.may_prune(&path.to_string_lossy())
    }
}

/// The pattern of `--parents`: only what matches it, or lies below what matches it, is seen.
#[derive(Debug)]
pub(super) struct Including(Matcher);

impl Filter for Including {
    fn hides(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && !self.0.excluded(&path.to_string_lossy())
    }

    fn may_show_below(&self, _path: &Path) -> bool {
        true
    }
}

/// One thing to copy.
#[derive(Debug)]
pub(super) struct Pick {
    /// The path in the tree, its last link not followed yet.
    pub path: PathBuf,
    /// With `--parents`: what below it counts.
    pub include: Option<Including>,
}

/// What a source argument stands for in `tree`, without the files among the matches of a wildcard that are excluded.
pub(super) fn picks_but(
    tree: &Tree,
    source: &str,
    parents: bool,
    exclude: Option<&Excluding>,
) -> Result<Vec<Pick>, Error> {
    let mut picks = picks(tree, source, parents)?;
    let rooted = clean(&format!("/{source}"));
    if let Some(exclude) = exclude.filter(|_| !parents && has_wildcard(&rooted)) {
        let literal: PathBuf = Path::new(&rooted)
            .components()
            .take_while(|part| !has_wildcard(&part.as_os_str().to_string_lossy()))
            .collect();
        let literal = literal.strip_prefix("/").map(Path::to_owned).unwrap_or(literal);
        picks.retain(|pick| {
            let path = pick.path.strip_prefix("/").unwrap_or(&pick.path);
            !exclude.hides(path.strip_prefix(&literal).unwrap_or(path))
        });
    }
    Ok(picks)
}

/// What a source argument stands for in `tree`.
fn picks(tree: &Tree, source: &str, parents: bool) -> Result<Vec<Pick>, Error> {
    if parents {
        return with_parents(tree, source);
    }
    let rooted = clean(&format!("/{source}"));
    let paths = if has_wildcard(&rooted) { wildcard(tree, &rooted)? } else { vec![PathBuf::from(&rooted)] };
    Ok(paths.into_iter().map(|path| Pick { path, include: None }).collect())
}

/// `A/./B`: A is the root, B is kept below the destination. Without a pivot everything is kept.
fn with_parents(tree: &Tree, source: &str) -> Result<Vec<Pick>, Error> {
    let (root, pattern) = match format!("/{source}").split_once("/./") {
        Some((root, rest)) => (clean(&format!("/{root}")), rest.to_owned()),
        None => ("/".to_owned(), source.to_owned()),
    };
    let pattern = clean(&format!("/{pattern}")).trim_start_matches('/').to_owned();
    let several = has_wildcard(&root);
    let roots = if several { wildcard(tree, &root)? } else { vec![PathBuf::from(&root)] };
    let mut picks = Vec::new();
    for root in roots {
        if several && !is_directory(tree, &root)? {
            continue;
        }
        if !has_wildcard(&pattern) {
            let path = root.join(&pattern);
            let found = tree.resolve(&path, false).map_err(failed("look at", &path)).map_err(Error::Copy)?;
            if found.stat.is_none() && several {
                continue;
            }
            if found.stat.is_none() {
                let shown = path.strip_prefix("/").unwrap_or(&path).to_owned();
                return Err(input(CopyError::NotFound(shown)));
            }
        }
        let include = match pattern.as_str() {
            "" => None,
            pattern => Some(Including(Matcher::new([pattern]).map_err(|e| Error::Rule(e.to_string()))?)),
        };
        picks.push(Pick { path: root, include });
    }
    Ok(picks)
}

fn is_directory(tree: &Tree, path: &Path) -> Result<bool, Error> {
    let found = tree.resolve(path, true).map_err(failed("look at", path)).map_err(input)?;
    Ok(found.stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory))
}

fn input(source: CopyError) -> Error {
    Error::Input { place: "context".into(), source }
}

/// Go's `filepath.Match` over everything below the components that have no wildcard. What matches is not descended
/// into for more; no match at all is fine, but the literal part must be there.
fn wildcard(tree: &Tree, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let components: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let literal = components.iter().take_while(|part| !has_wildcard(part)).count();
    let (literal, rest) = components.split_at(literal);
    let unescaped: PathBuf = literal.iter().map(|part| part.replace('\\', "")).collect();
    let found = tree.resolve(&unescaped, true).map_err(failed("look at", &unescaped)).map_err(input)?;
    if found.stat.is_none() {
        return Err(Error::Rule(format!("lstat /{}: no such file or directory", unescaped.display())));
    }
    let rest = rest.join("/");
    go_match(&rest, "").map_err(|error| Error::Rule(error.to_string()))?;
    let mut matches = Vec::new();
    if found.stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory) {
        let dir =
            tree.open(&found.path, OFlags::DIRECTORY).map_err(failed("open", &found.path)).map_err(input)?;
        let search = Search { tree, top: &found.path, pattern: &rest, depth: depth(&rest) };
        search.below(dir.as_fd(), &found.path, 1, &mut matches).map_err(input)?;
    }
    Ok(matches)
}

/// How deep a match can lie. A class may match a slash, so that only its absence gives a limit.
fn depth(pattern: &str) -> usize {
    if pattern.contains('[') { usize::MAX } else { pattern.split('/').count() }
}

struct Search<'a> {
    tree: &'a Tree,
    top: &'a Path,
    pattern: &'a str,
    depth: usize,
}

impl Search<'_> {
    fn below(
        &self,
        dir: std::os::fd::BorrowedFd<'_>,
        path: &Path,
        level: usize,
        matches: &mut Vec<PathBuf>,
    ) -> Result<(), CopyError> {
        for child in self.tree.children(dir, path).map_err(failed("read", path))? {
            let below = child.path.strip_prefix(self.top).unwrap_or(&child.path);
            let hit = !child.hidden
                && std::str::from_utf8(below.as_os_str().as_bytes())
                    .is_ok_and(|name| go_match(self.pattern, name).unwrap_or(false));
            if hit {
                matches.push(child.path);
            } else if kind(&child.stat) == FileType::Directory && level < self.depth {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner =
                    openat(dir, &child.name, flags, Mode::empty()).map_err(failed("open", &child.path))?;
                self.below(inner.as_fd(), &child.path, level + 1, matches)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::Owners;
    use super::*;

    #[test]
    fn wildcards_match_below_their_literal_part() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.txt", "b.txt", "c.md", "sub/d.txt", ".hid.txt", "x/y/f", "x/z/f", "[b]r"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let tree = Tree::new(std::fs::File::open(dir.path()).unwrap().into(), Owners::Root, None);
        let paths = |source: &str| {
            let picks = picks(&tree, source, false).map_err(|error| error.to_string())?;
            Ok(picks.iter().map(|pick| pick.path.display().to_string()).collect::<Vec<_>>().join(" "))
        };
        for (source, expected) in [
            ("*.txt", Ok(".hid.txt a.txt b.txt")),
            ("/sub/../?.md", Ok("c.md")),
            ("x/*/f", Ok("x/y/f x/z/f")),
            ("**/f", Ok("")),
            ("s*", Ok("sub")),
            ("none*", Ok("")),
            ("nope", Ok("/nope")),
            ("[[]b]*", Ok("[b]r")),
            ("missing/*.x", Err("lstat /missing: no such file or directory".to_owned())),
        ] {
            assert_eq!(paths(source), expected.map(str::to_owned), "{source}");
        }
    }
}
