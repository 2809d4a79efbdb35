//! Runs a chapter: each row in a directory of its own, all of a chapter in one store.

use std::fmt::Write as _;

use serde_json::Value;

use super::case::{self, Case};
use super::image::Image;
use super::support::{Env, Output, program, skip};
use super::tree;

/// Run every case of a chapter and list all that differ, with what came instead.
///
/// `STRATE_CASES=text` runs only those with that text in their titles.
pub fn run(chapter: &str, text: &str) {
    let mut cases = case::parse(text);
    if let Ok(only) = std::env::var("STRATE_CASES") {
        cases.retain(|case| case.title.contains(&only));
    }
    let env = Env::new();
    let runs_programs = cases.iter().any(|case| case.uses("localhost/base"));
    if runs_programs && program("busybox").is_none() {
        skip("busybox is not installed");
        cases.retain(|case| !case.uses("localhost/base"));
    } else if runs_programs {
        make_base(&env);
    }
    make_users(&env, &cases);
    let mut failures = String::new();
    let total = cases.len();
    let mut failed = 0;
    for (index, case) in cases.iter().enumerate() {
        let differences = differences(&env, case, &format!("case-{index}"));
        if !differences.is_empty() {
            failed += 1;
            let _ =
                writeln!(failures, "\n=== {}\n{}\n{}", case.title, case.dockerfile.trim_end(), differences);
        }
    }
    assert!(failures.is_empty(), "{chapter}: {failed} of {total} cases differ{failures}");
}

/// `localhost/base`: a busybox with its programs, and the usual directories.
fn make_base(env: &Env) {
    busybox_dir(env, BASE_DOCKERFILE);
    env.run(["build", "-q", "-t", "localhost/base", "base"]).success();
}

/// The context of `localhost/base`.
pub fn busybox_dir(env: &Env, dockerfile: &str) {
    let busybox = program("busybox").unwrap();
    std::fs::create_dir_all(env.work().join("base")).unwrap();
    std::fs::copy(busybox, env.work().join("base/busybox")).unwrap();
    env.write("base/Dockerfile", dockerfile);
}

/// What `localhost/base` is made from.
pub const BASE_DOCKERFILE: &str = "FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         RUN mkdir -p /etc /tmp /root && chmod 1777 /tmp && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd && \
         echo app:x:1000:1001:app:/home/app:/bin/sh >> /etc/passwd && printf 'root:x:0:\\nmore:x:1002:app\\n' > /etc/group\n\
         ENV FROM_BASE=yes\nLABEL from=base\nCMD [\"/bin/sh\"]\n";

/// `localhost/users`: nothing but the files that names of users are looked up in.
fn make_users(env: &Env, cases: &[Case]) {
    if !cases.iter().any(|case| case.uses("localhost/users")) {
        return;
    }
    users_dir(env);
    env.run(["build", "-q", "-t", "localhost/users", "users"]).success();
}

/// The context of `localhost/users`.
pub fn users_dir(env: &Env) {
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/x\nweb:x:33:33::/:/x\n";
    env.write("users/etc/passwd", passwd);
    env.write("users/etc/group", "root:x:0:\nstaff:x:50:app\nweb:x:33:\n");
    env.write("users/Dockerfile", "FROM scratch\nCOPY etc /etc/\n");
}

/// What differs from what the case expects; empty when nothing does.
fn differences(env: &Env, case: &Case, name: &str) -> String {
    for (base, dockerfile) in &case.bases {
        let mut words = base.split_whitespace();
        let base = words.next().unwrap_or_default();
        let directory = format!("{name}-{base}");
        tree::make(&env.work().join(&directory), &case.context);
        env.write(&format!("{directory}/Dockerfile"), dockerfile);
        let tag = format!("localhost/{base}");
        let mut arguments = vec!["build", "-q", "-t", &tag];
        arguments.extend(words);
        arguments.push(&directory);
        let built = env.run(&arguments);
        if built.code != 0 {
            return format!("base {base}: {built}");
        }
    }
    let context = env.work().join(name);
    tree::make(&context, &case.context);
    std::fs::write(context.join("Dockerfile"), &case.dockerfile).unwrap();
    let tag = format!("localhost/{name}:latest");
    let mut arguments = vec!["build", "--progress", "plain", "-t", &tag];
    let own: Vec<String> = case.arguments.iter().map(|word| word.replace("CONTEXT", name)).collect();
    arguments.extend(own.iter().map(String::as_str));
    arguments.push(name);
    let output = env.run(&arguments);
    let mut found = said(case, &output);
    let refused =
        case.expects("fails").is_some() || case.expects("prints").is_some() || case.expects("code").is_some();
    if !refused && output.code == 0 {
        made(env, case, &tag, &mut found);
    }
    found
}

/// Exit code and words.
fn said(case: &Case, output: &Output) -> String {
    let mut found = String::new();
    let code = match case.expects("code").and_then(|lines| lines.first()) {
        Some(code) => code.trim().parse().unwrap(),
        None => i32::from(case.expects("fails").is_some()),
    };
    if output.code != code {
        let _ = writeln!(
            found,
            "expected exit code {code}, got {}:\n{}{}",
            output.code, output.stdout, output.stderr
        );
        return found;
    }
    for line in case.expects("fails").into_iter().chain(case.expects("says")).flatten() {
        if !output.stderr.contains(line.as_str()) {
            let _ = writeln!(found, "expected on standard error: {line}\ngot: {}", output.stderr.trim_end());
        }
    }
    for line in case.expects("prints").into_iter().flatten() {
        if !output.stdout.contains(line.as_str()) {
            let _ = writeln!(found, "expected on standard output: {line}\ngot: {}", output.stdout.trim_end());
        }
    }
    if let Some(expected) = case.expects("warns") {
        let fired = warnings(&output.stderr);
        let mut expected = expected.to_vec();
        expected.sort();
        if fired != expected {
            let _ = writeln!(found, "expected checks {expected:?}, got {fired:?}");
        }
    }
    found
}

/// `Rule line` of every remark.
fn warnings(stderr: &str) -> Vec<String> {
    let mut found: Vec<String> = stderr
        .lines()
        .filter_map(|line| {
            let line = line.trim().strip_prefix("- ")?;
            let (rule, rest) = line.split_once(": ")?;
            let (_, number) = rest.strip_suffix(')')?.rsplit_once("(line ")?;
            Some(format!("{rule} {number}"))
        })
        .collect();
    found.sort();
    found
}

/// The image that came.
fn made(env: &Env, case: &Case, tag: &str, found: &mut String) {
    let image = Image::named(&env.store(), tag);
    compare(case, &image, found);
    if let Some(expected) = case.expects("history") {
        history(expected, &image.config, found);
    }
    let layered = |entry: &&Value| entry["empty_layer"] != true;
    let entries = image.config["history"].as_array().map_or(0, |all| all.iter().filter(layered).count());
    if entries != image.layers.len() {
        let _ = writeln!(
            found,
            "{entries} entries of the history have layers, {} layers there are",
            image.layers.len()
        );
    }
}

/// Config and files, which do not depend on who built them.
pub fn compare(case: &Case, image: &Image, found: &mut String) {
    if let Some(expected) = case.expects("config") {
        config(expected, &image.config, found);
    }
    if let Some(expected) = case.expects("tree") {
        files(expected, image, found);
    }
}

fn config(expected: &[String], document: &Value, found: &mut String) {
    for line in expected {
        let (key, value) = match line.split_once(" = ") {
            Some((key, value)) => {
                (key.trim(), serde_json::from_str(value).unwrap_or_else(|e| panic!("{line}: {e}")))
            }
            None => (line.strip_suffix(" absent").unwrap_or_else(|| panic!("{line}")).trim(), Value::Null),
        };
        let outer = key.starts_with(char::is_lowercase);
        let got = if outer { &document[key] } else { &document["config"][key] };
        if *got != value {
            let _ = writeln!(found, "config: expected {key} = {value}, got {got}");
        }
    }
}

fn history(expected: &[String], document: &Value, found: &mut String) {
    let entries = document["history"].as_array().cloned().unwrap_or_default();
    let shown: Vec<String> = entries
        .iter()
        .map(|entry| {
            let mark = if entry["empty_layer"] == true { '.' } else { '+' };
            format!("{mark} {}", entry["created_by"].as_str().unwrap_or_default())
        })
        .collect();
    let own = &shown[shown.len().saturating_sub(expected.len())..];
    let fits =
        own.len() == expected.len() && own.iter().zip(expected).all(|(got, wanted)| matches(got, wanted));
    if !fits {
        let _ = writeln!(found, "history: expected {expected:#?}, got {shown:#?}");
    }
}

fn matches(text: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

fn files(expected: &[String], image: &Image, found: &mut String) {
    let files = image.files();
    let and_more = expected.iter().any(|line| line.trim() == "...");
    let mut wanted: Vec<String> = Vec::new();
    for line in expected.iter().map(|line| line.trim()).filter(|line| *line != "...") {
        match line.strip_prefix('!') {
            Some(path) if files.contains_key(path.trim_end_matches('/')) => {
                let _ = writeln!(found, "tree: unexpected {path}");
            }
            Some(_) => {}
            None => wanted.push(tree::canonical(line)),
        }
    }
    let got: Vec<&String> = files.values().collect();
    for line in wanted.iter().filter(|line| !got.contains(line)) {
        let path = line.split(' ').next().unwrap_or_default().trim_end_matches('/');
        let _ = writeln!(found, "tree: expected `{line}`, got {:?}", files.get(path));
    }
    if !and_more {
        for line in got.iter().filter(|line| !wanted.contains(line)) {
            let _ = writeln!(found, "tree: more than expected: `{line}`");
        }
    }
}
