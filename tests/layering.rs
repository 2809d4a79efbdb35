//! The rules of the code itself: who may import whom, where unsafe code may stand, and how long things may grow.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each module and what it may import from the rest of the crate.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("sys", &[]),
    ("oci", &[]),
    ("layer", &["oci", "sys"]),
    ("image", &["oci", "layer"]),
    ("userns", &["sys"]),
    ("registry", &["oci", "image", "layer"]),
    ("archive", &["oci", "image", "layer", "sys"]),
    ("storage", &["oci", "image", "layer", "sys"]),
    ("runtime", &["oci", "sys", "userns"]),
    ("build", &["oci", "image", "layer", "storage", "runtime", "sys", "archive"]),
    ("context", &["storage", "userns", "sys"]),
    (
        "ops",
        &[
            "oci", "sys", "layer", "image", "userns", "registry", "archive", "storage", "runtime", "build",
            "context",
        ],
    ),
    ("ui", &["oci", "image", "build", "ops", "context"]),
    ("cmd", &["oci", "image", "ops", "ui", "context"]),
];

/// Files that may import more, and why.
const EXCEPTIONS: [(&str, &[&str]); 1] = [
    // The one translation of domain errors to hints looks at all of them.
    ("src/cmd/error.rs", &["archive", "storage", "userns", "registry", "runtime", "build", "layer"]),
];

/// Lines of a file; a table of declarations may be longer.
const FILE_LIMIT: usize = 700;
/// Lines of a function.
const FUNCTION_LIMIT: usize = 100;
/// Pure tables.
const TABLES: [&str; 3] =
    ["src/cmd/verbs.rs", "src/runtime/seccomp/table.rs", "src/runtime/seccomp/profile.rs"];

fn sources() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&top.join("src"), &mut files);
    let mut files: Vec<(String, String)> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(top).unwrap().display().to_string();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() > 20, "the sources are not where they should be");
    files
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module of a file: `src/oci/digest.rs` and `src/context.rs` are of `oci` and `context`.
fn module_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    let module = rest.split('/').next()?;
    Some(module.trim_end_matches(".rs")).filter(|module| *module != "lib" && *module != "main")
}

/// A file without its tests, its comments and the content of its strings.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("");
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// Files that hold nothing but tests.
fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs")
        || file.ends_with("_tests.rs")
        || file.ends_with("/testing.rs")
        || file.contains("/tests/")
}

/// Names after `crate::`, those in braces included.
fn imports(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("crate::") {
        rest = &rest[at + "crate::".len()..];
        let group = rest.strip_prefix('{');
        let end = if group.is_some() { rest.find('}').unwrap_or(rest.len()) } else { 1 };
        let list = group.map_or(rest, |group| &group[..end.saturating_sub(1)]);
        let parts: Vec<&str> = if group.is_some() { list.split(',').collect() } else { vec![list] };
        for part in parts {
            let name: String =
                part.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            // A name in a nested group (`a::{B, C}`) starts with a capital or is no module of ours.
            names.insert(name);
        }
    }
    names
}

#[test]
fn imports_go_down_only() {
    let modules: BTreeSet<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(module) = module_of(&file) else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{file}: module `{module}` has no row in the table of floors"));
            continue;
        };
        let extra =
            EXCEPTIONS.iter().find(|(name, _)| *name == file).map_or(&[] as &[&str], |(_, extra)| *extra);
        for name in imports(&code_of(&text)) {
            let name = name.as_str();
            if modules.contains(name) && name != module && !allowed.contains(&name) && !extra.contains(&name)
            {
                wrong.push(format!("{file}: `{module}` may not import `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_lives_in_sys() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let code = code_of(&text);
        let has_unsafe =
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        if !file.starts_with("src/sys/") && (has_unsafe || code.contains("allow(unsafe_code)")) {
            wrong.push(format!("{file}: unsafe code outside src/sys"));
        }
        if has_unsafe && !text.contains("#![allow(unsafe_code") {
            wrong.push(format!("{file}: unsafe code without `#![allow(unsafe_code)]` at its head"));
        }
        if code.matches("unsafe {").count() > text.matches("SAFETY:").count() {
            wrong.push(format!("{file}: an unsafe block without its SAFETY comment"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_environment_and_the_terminal_have_one_room_each() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let code = code_of(&text);
        for name in ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("] {
            if code.contains(name) && file != "src/context.rs" {
                wrong.push(format!("{file}: `{name}` outside src/context.rs"));
            }
        }
        for name in ["println!(", "eprintln!(", "print!(", "dbg!("] {
            if code.contains(name) && !file.starts_with("src/ui/") && !is_test(&file) {
                wrong.push(format!("{file}: `{name}` outside src/ui"));
            }
        }
        for name in [".unwrap()", ".expect(\"", "todo!(", "unimplemented!("] {
            if code.contains(name) && !is_test(&file) {
                wrong.push(format!("{file}: `{name}` outside tests"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_readable() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if TABLES.contains(&file.as_str()) {
            continue;
        }
        let lines = text.lines().count();
        if lines > FILE_LIMIT {
            wrong.push(format!("{file}: {lines} lines, of at most {FILE_LIMIT}"));
        }
        for (name, length) in functions(&text) {
            if length > FUNCTION_LIMIT {
                wrong
                    .push(format!("{file}: function {name} has {length} lines, of at most {FUNCTION_LIMIT}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Functions of a formatted file with their lengths: from the line that has `fn` to the brace of the same depth.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let Some(at) = code.find("fn ").filter(|&at| at == 0 || code[..at].ends_with(' ')) else { continue };
        if code.starts_with("//") || code.ends_with(';') || code.contains('"') && at > 40 {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|line| *line == closing) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn the_rules_see_what_they_should() {
    let names =
        imports("use crate::oci::{Digest, Descriptor};\nuse crate::{sys, layer::Error};\n crate::ui::x();");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["layer", "oci", "sys", "ui"]);
    let text = "impl A {\n    pub fn b(&self) {\n        c();\n    }\n}\n";
    assert_eq!(functions(text), [("b".to_owned(), 3)]);
}
