//! `import-store`: the images of podman's and buildah's store come into ours, so that a user can switch.
//!
//! Their store is listed from its own `images.json`; the images are exported by one of their own tools, one at a time,
//! as an OCI layout in our staging directory, and taken in from there as `load` would. What is here already is skipped,
//! so that an import that was cut short is simply begun again.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{host, image_stores, load, store};
use crate::context::Context;
use crate::image::Silent;
use crate::oci::Reference;
use crate::storage::{self, Store};

/// The drivers of containers/storage whose images we look for.
pub(super) const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
/// What can export from such a store, the most direct first.
const TOOLS: [&str; 3] = ["skopeo", "podman", "buildah"];
/// A list of images is not longer.
const LONGEST_LIST: u64 = 256 << 20;

/// What to import.
#[derive(Debug, Default)]
pub struct Request {
    /// The store; `None`: where podman keeps it for this user.
    pub from: Option<PathBuf>,
    /// Names or ids; none means every image that has a name.
    pub images: Vec<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of one image.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is here now.
    Imported,
    /// It was here; these names are new.
    Named,
    /// It was here under all of its names.
    Present,
    /// It would be imported.
    Would,
    /// It could not be brought over.
    Failed(String),
}

/// One image of theirs.
#[derive(Debug)]
pub struct Row {
    /// Its names, as docker shows them; else its id.
    pub label: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Its names that stand for another image here, and were left alone.
    pub taken: Vec<String>,
    /// Its manifest has another digest here than there: its layers were compressed anew.
    pub digest_changed: bool,
}

/// Why nothing could be imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such store.
    #[error("`{}` is no store of podman or buildah", .0.display())]
    NoStore(PathBuf),
    /// Its list of images cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its list of images makes no sense.
    #[error("`{}` is no list of images", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An image that was asked for is not in it.
    #[error("`{image}` is not in `{}`", store.display())]
    NoSuchImage {
        /// As it was asked for.
        image: String,
        /// Their store.
        store: PathBuf,
    },
    /// Nothing is installed that can export from it.
    #[error("none of skopeo, podman and buildah is installed, and only they can read their layers")]
    NoTool,
    /// Our store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// One entry of `images.json`.
#[derive(Debug, Clone, Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(skip)]
    driver: &'static str,
}

/// Their store.
struct Theirs {
    root: PathBuf,
    /// Whether the user named it; else the tools find it themselves.
    named: bool,
    images: Vec<Listed>,
}

/// Import images one by one; each is told to `done`.
///
/// # Errors
/// See [`Error`]; what goes wrong with one image does not stop the others.
pub fn import_store(cx: &Context, request: &Request, done: &mut dyn FnMut(Row)) -> Result<(), Error> {
    let theirs = find(cx, request)?;
    let tool = TOOLS.iter().find_map(|name| Some((*name, host::find_program(name, &cx.path())?)));
    if request.dry_run {
        let store = store::read(cx)?;
        for image in &theirs.images {
            let (here, missing, taken) = compare(&store, image)?;
            let outcome = if here && missing.is_empty() { Outcome::Present } else { Outcome::Would };
            done(Row { label: image.label(), outcome, taken, digest_changed: false });
        }
        return Ok(());
    }
    let store = store::write_plainly(cx)?;
    for image in &theirs.images {
        let (here, missing, taken) = compare(&store, image)?;
        let mut digest_changed = false;
        let outcome = if here {
            name_it(&store, image, &missing)?
        } else {
            let (tool, program) = tool.as_ref().ok_or(Error::NoTool)?;
            match bring(cx, &store, &theirs, (tool, program), image, missing) {
                Ok(changed) => {
                    digest_changed = changed;
                    Outcome::Imported
                }
                Err(why) => Outcome::Failed(why),
            }
        };
        done(Row { label: image.label(), outcome, taken, digest_changed });
    }
    store.settle()?;
    Ok(())
}

impl Listed {
    fn names(&self) -> impl Iterator<Item = Reference> {
        self.names.iter().flatten().filter_map(|name| Reference::parse(name).ok())
    }

    fn label(&self) -> String {
        let mut names: Vec<String> = self.names().map(|name| name.familiar()).collect();
        // The order of their list is not the same in all versions.
        names.sort();
        if names.is_empty() { self.id.chars().take(12).collect() } else { names.join(", ") }
    }

    /// Whether a user means it by a name or the beginning of its id.
    fn is_meant(&self, text: &str) -> bool {
        let id = text.strip_prefix("sha256:").unwrap_or(text);
        (id.len() >= 2 && self.id.starts_with(id))
            || Reference::parse(text).is_ok_and(|wanted| self.names().any(|name| name == wanted))
    }
}

/// Their store, with the images that are wanted of it.
fn find(cx: &Context, request: &Request) -> Result<Theirs, Error> {
    let root = request.from.as_ref().map_or_else(|| usual_place(cx), |from| cx.cwd.join(from));
    let mut images = Vec::new();
    let mut is_store = false;
    for driver in DRIVERS {
        let path = root.join(format!("{driver}-images/images.json"));
        let bytes = match read_limited(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(source) => return Err(Error::Read { path, source }),
        };
        is_store = true;
        let listed: Vec<Listed> =
            serde_json::from_slice(&bytes).map_err(|source| Error::List { path, source })?;
        // The id becomes part of a command line of their tool.
        let good = |image: &Listed| image.id.len() == 64 && image.id.bytes().all(|b| b.is_ascii_hexdigit());
        images.extend(listed.into_iter().filter(good).map(|image| Listed { driver, ..image }));
    }
    if !is_store && !storage::is_containers_storage(&root) {
        return Err(Error::NoStore(root));
    }
    let images = match request.images.is_empty() {
        true => images.into_iter().filter(|image| image.names().next().is_some()).collect(),
        false => chosen(&images, &request.images, &root)?,
    };
    Ok(Theirs { root, named: request.from.is_some(), images })
}

fn chosen(images: &[Listed], wanted: &[String], root: &Path) -> Result<Vec<Listed>, Error> {
    let (mut found, mut ids) = (Vec::new(), BTreeSet::new());
    for text in wanted {
        let image = images.iter().find(|image| image.is_meant(text));
        let image =
            image.ok_or_else(|| Error::NoSuchImage { image: text.clone(), store: root.to_owned() })?;
        if ids.insert(image.id.clone()) {
            found.push(image.clone());
        }
    }
    Ok(found)
}

fn read_limited(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST_LIST), &mut bytes)?;
    Ok(bytes)
}

/// Where podman keeps images for this user (containers-storage.conf(5)).
fn usual_place(cx: &Context) -> PathBuf {
    let conf = image_stores::read(cx);
    if cx.uid == 0 {
        return conf.graphroot.unwrap_or_else(|| PathBuf::from("/var/lib/containers/storage"));
    }
    if let Some(path) = conf.rootless_storage_path {
        let home = cx.home.as_ref().map(|home| home.display().to_string()).unwrap_or_default();
        let user = host::user_name(cx.uid).unwrap_or_default();
        let path = path.replace("$HOME", &home).replace("$UID", &cx.uid.to_string()).replace("$USER", &user);
        return PathBuf::from(path);
    }
    let data = cx.var("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| cx.home.as_ref().map(|home| home.join(".local/share")));
    data.unwrap_or_default().join("containers/storage")
}

/// Whether the image is in our store, which of its names it lacks here, and which stand for another image.
fn compare(store: &Store, image: &Listed) -> Result<(bool, Vec<Reference>, Vec<String>), Error> {
    let ours = store.own_images()?;
    let same = |record: &storage::ImageRecord| record.id.digest().hex() == image.id;
    let (mut missing, mut taken) = (Vec::new(), Vec::new());
    for name in image.names() {
        match ours.iter().find(|record| record.name.as_ref() == Some(&name)) {
            Some(record) if same(record) => {}
            Some(_) => taken.push(name.familiar()),
            None => missing.push(name),
        }
    }
    Ok((ours.iter().any(same), missing, taken))
}

/// An image that is here gets the names that it lacks.
fn name_it(store: &Store, image: &Listed, missing: &[Reference]) -> Result<Outcome, Error> {
    if missing.is_empty() {
        return Ok(Outcome::Present);
    }
    let record = store.find_image(&format!("sha256:{}", image.id))?;
    for name in missing {
        store.tag(&record, name)?;
    }
    Ok(Outcome::Named)
}

/// Export one image and take it in. Whether its manifest came out with another digest is returned.
fn bring(
    cx: &Context,
    store: &Store,
    theirs: &Theirs,
    (tool, program): (&str, &Path),
    image: &Listed,
    names: Vec<Reference>,
) -> Result<bool, String> {
    let scratch = store.scratch_dir().map_err(|error| chain(&error))?;
    let dir = scratch.path().join("layout");
    let args = export_args(theirs, tool, image, &dir, &scratch.path().join("run"));
    let output = Command::new(program)
        .args(&args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {tool}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(format!("{tool} failed: {}", last.trim()));
    }
    let loaded = load::load_as(cx, store, &dir, names, &Silent).map_err(|error| chain(&error))?;
    let ours = store.find_image(&loaded.id).map_err(|error| chain(&error))?;
    Ok(image.digest.as_ref().is_some_and(|theirs| *theirs != ours.digest.to_string()))
}

/// The command line that writes an image as an OCI layout.
fn export_args(theirs: &Theirs, tool: &str, image: &Listed, dir: &Path, run: &Path) -> Vec<String> {
    let (root, run, dir) = (theirs.root.display(), run.display(), dir.display());
    let to = format!("oci:{dir}:image");
    if tool == "skopeo" {
        let place = match theirs.named {
            true => format!("[{}@{root}+{run}]", image.driver),
            false => String::new(),
        };
        let from = format!("containers-storage:{place}@{}", image.id);
        return ["--insecure-policy", "copy", "-q", &from, &to].map(str::to_owned).to_vec();
    }
    let mut args = Vec::new();
    if theirs.named {
        let (root, run) = (root.to_string(), run.to_string());
        args = ["--root", &root, "--runroot", &run, "--storage-driver", image.driver]
            .map(str::to_owned)
            .to_vec();
    }
    args.extend(["push", "-q", &image.id, &to].map(str::to_owned));
    args
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: char, names: &[&str]) -> Listed {
        let names = Some(names.iter().map(|name| (*name).to_owned()).collect());
        Listed { id: id.to_string().repeat(64), names, digest: None, driver: "overlay" }
    }

    #[test]
    fn images_are_meant_by_name_or_id() {
        let image = listed('a', &["docker.io/library/alpine:3.20", "not a name"]);
        for (text, meant) in
            [("alpine:3.20", true), ("alpine", false), ("aaaa", true), ("sha256:aa", true), ("a", false)]
        {
            assert_eq!(image.is_meant(text), meant, "{text}");
        }
        assert_eq!(
            (image.label().as_str(), listed('b', &[]).label().as_str()),
            ("alpine:3.20", "bbbbbbbbbbbb")
        );
        let all = [image.clone(), listed('b', &[])];
        let both = ["alpine:3.20".to_owned(), "aaaa".to_owned()];
        assert_eq!(chosen(&all, &both, Path::new("/x")).unwrap().len(), 1);
        assert!(chosen(&all, &["none".to_owned()], Path::new("/x")).is_err());
    }

    #[test]
    fn tools_are_told_where_only_when_the_user_says_where() {
        let theirs = |named| Theirs { root: "/s".into(), named, images: Vec::new() };
        let line = |named, tool| {
            export_args(&theirs(named), tool, &listed('a', &[]), Path::new("/t/l"), Path::new("/t/r"))
                .join(" ")
        };
        let id = "a".repeat(64);
        assert_eq!(
            line(true, "skopeo"),
            format!("--insecure-policy copy -q containers-storage:[overlay@/s+/t/r]@{id} oci:/t/l:image")
        );
        assert_eq!(line(false, "podman"), format!("push -q {id} oci:/t/l:image"));
        assert!(line(true, "buildah").starts_with("--root /s --runroot /t/r --storage-driver overlay push "));
    }
}
