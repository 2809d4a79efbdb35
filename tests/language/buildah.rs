//! The same cases built by buildah, as a check of the cases themselves: where buildah makes something else of one,
//! `cases/buildah.differences` says why. Cases that need what buildah does not have are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::case::{self, Case};
use super::image::Image;
use super::suite::{BASE_DOCKERFILE, busybox_dir, compare, users_dir};
use super::support::{Env, program, skip};
use super::tree;

/// What buildah 1.28 does not have, by what a case says when it uses it.
const BUILDKIT_ONLY: [&str; 22] = [
    "<<",
    "--link",
    "--parents",
    "--exclude",
    "--checksum",
    "--keep-git-dir",
    "--unpack",
    "--security",
    "--device",
    "--start-interval",
    "env=",
    "# check=",
    "#check=",
    "--check",
    "--call",
    "--progress",
    "--no-cache-filter",
    "BUILDKIT_",
    "TARGETSTAGE",
    "docker-image://",
    "://",
    "--print-context",
];

/// So many cases lie between one that is looked at and the next, when time is short.
const SPREAD: usize = 67;

/// `title -> reason` of the differences that are known.
fn known() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut reason = String::new();
    for line in include_str!("cases/buildah.differences").lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("## ") {
            Some(text) => reason = text.to_owned(),
            None => {
                all.insert(line.to_owned(), reason.clone());
            }
        }
    }
    all
}

/// Whether buildah should be able to do it, and there is something to compare.
fn is_common(case: &Case) -> bool {
    let texts = case.bases.iter().map(|(_, file)| file).chain([&case.dockerfile]).chain(&case.arguments);
    let compared = ["config", "tree", "fails"].iter().any(|kind| case.expects(kind).is_some());
    compared
        && case.expects("code").is_none()
        && case.expects("prints").is_none()
        && !texts.into_iter().any(|text| BUILDKIT_ONLY.iter().any(|word| text.contains(word)))
}

/// A storage of buildah's own.
struct Buildah<'a> {
    env: &'a Env,
    root: PathBuf,
}

impl<'a> Buildah<'a> {
    fn new(env: &'a Env) -> Self {
        env.write("policy.json", "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}");
        env.write("registries.conf", "unqualified-search-registries = []\n");
        Self { env, root: env.work().join("buildah") }
    }

    fn run(&self, args: &[&str]) -> (bool, String) {
        let mut command: Command = self.env.program("buildah");
        command.env("CONTAINERS_REGISTRIES_CONF", self.env.work().join("registries.conf"));
        command.arg("--root").arg(self.root.join("root")).arg("--runroot").arg(self.root.join("run"));
        command.args(["--storage-driver", "vfs"]).args(args);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn build(&self, tag: &str, args: &[String], context: &Path) -> (bool, String) {
        let policy = self.env.work().join("policy.json").display().to_string();
        let context = context.display().to_string();
        let fixed =
            ["bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--signature-policy"];
        let mut all: Vec<&str> = fixed.to_vec();
        all.extend([policy.as_str(), "-t", tag]);
        all.extend(args.iter().map(String::as_str));
        all.push(&context);
        self.run(&all)
    }

    fn image(&self, tag: &str, dir: &Path) -> Image {
        let policy = self.env.work().join("policy.json").display().to_string();
        let dest = format!("dir:{}", dir.display());
        let (ok, said) = self.run(&["push", "-q", "--signature-policy", &policy, tag, &dest]);
        assert!(ok, "{said}");
        Image::of_dir(dir)
    }
}

impl Drop for Buildah<'_> {
    fn drop(&mut self) {
        let _ = self.run(&["rmi", "--all", "--force"]);
    }
}

/// What buildah makes of a case that differs from what it expects.
fn differences(buildah: &Buildah<'_>, case: &Case, name: &str) -> String {
    let work = buildah.env.work();
    for (base, dockerfile) in &case.bases {
        let mut words = base.split_whitespace();
        let base = words.next().unwrap_or_default();
        let directory = work.join(format!("{name}-{base}"));
        tree::make(&directory, &case.context);
        std::fs::write(directory.join("Dockerfile"), dockerfile).unwrap();
        let more: Vec<String> = words.map(str::to_owned).collect();
        let (ok, said) = buildah.build(&format!("localhost/{base}"), &more, &directory);
        if !ok {
            return format!("base {base}: {said}");
        }
    }
    let context = work.join(name);
    tree::make(&context, &case.context);
    std::fs::write(context.join("Dockerfile"), &case.dockerfile).unwrap();
    let path = context.display().to_string();
    let own: Vec<String> = case.arguments.iter().map(|word| word.replace("CONTEXT", &path)).collect();
    let tag = format!("localhost/{name}:latest");
    let (ok, said) = buildah.build(&tag, &own, &context);
    let fails = case.expects("fails").is_some();
    if ok == fails {
        let end: Vec<&str> = said.lines().rev().take(3).collect();
        return format!("{} with {end:?}", if ok { "succeeds" } else { "fails" });
    }
    if fails {
        return String::new();
    }
    let mut found = String::new();
    compare(case, &buildah.image(&tag, &work.join(format!("{name}-image"))), &mut found);
    found
}

/// Every common case, or as many as fit into `time`: differences are those that are known, and no others.
pub fn run(chapters: &[(&str, &str)], time: Option<Duration>) {
    if program("buildah").is_none() || program("busybox").is_none() {
        return skip("buildah or busybox is not installed");
    }
    let env = Env::new();
    let buildah = Buildah::new(&env);
    busybox_dir(&env, BASE_DOCKERFILE);
    users_dir(&env);
    for base in ["base", "users"] {
        let (ok, said) = buildah.build(&format!("localhost/{base}"), &[], &env.work().join(base));
        if !ok {
            return skip(&format!("buildah does not work here: {said}"));
        }
    }
    let known = known();
    let mut cases: Vec<(String, Case)> = Vec::new();
    for (chapter, text) in chapters {
        let all = case::parse(text).into_iter().filter(is_common);
        cases.extend(all.map(|case| (format!("{chapter}: {}", without_line(&case.title)), case)));
    }
    let total = cases.len();
    let began = Instant::now();
    // By title, which rows of a table may share.
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut done = 0;
    // When there is no time for all, those that are looked at are spread over the chapters.
    let mut order: Vec<usize> = (0..total).collect();
    order.sort_by_key(|index| (index % SPREAD, *index));
    for index in order {
        let (title, case) = &cases[index];
        if time.is_some_and(|time| began.elapsed() > time) {
            break;
        }
        let differs = differences(&buildah, case, &format!("case-{index}"));
        done += 1;
        let shown =
            if differs.is_empty() { differs } else { format!("{}\n{differs}", case.dockerfile.trim_end()) };
        found.entry(title.clone()).or_default().push_str(&shown);
    }
    let mut surprises = String::new();
    for (title, differs) in &found {
        match (differs.is_empty(), known.get(title)) {
            (false, None) => {
                let _ = writeln!(surprises, "\n=== {title}\n{differs}");
            }
            // Of a title that several rows share, one that does not differ says nothing while not all are looked at.
            (true, Some(reason)) if time.is_none() => {
                let _ = writeln!(surprises, "\n=== {title}\nno difference any more, it was: {reason}");
            }
            _ => {}
        }
    }
    if time.is_none() {
        for title in known.keys().filter(|title| !found.contains_key(*title)) {
            let _ = writeln!(surprises, "\n=== {title}\nthere is no such case");
        }
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("{done} of {total} cases, {} known differences\n", known.len()).as_bytes(),
        );
    }
    assert!(surprises.is_empty(), "{done} of {total} cases compared; what differs:{surprises}");
    assert!(done > 2, "only {done} cases were compared");
}

/// The title of a case without its line in the file.
fn without_line(title: &str) -> String {
    match title.split_once(" (line ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => title.to_owned(),
    }
}
