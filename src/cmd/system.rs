//! Verbs of the system group.

use std::fmt::Write;

use clap::Args;
use serde_json::Value;

use super::CmdResult;
use crate::context::Context;
use crate::ops::doctor::{Check, Verdict};
use crate::ops::{doctor, info, version};
use crate::ui::format::Template;
use crate::ui::{Ui, words};

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Shells with a completion script.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    /// GNU Bash 4.4 or newer
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// `strate completion`
#[allow(clippy::needless_pass_by_value, reason = "the shape of every verb")]
pub(super) fn completion(_cx: &mut Context, ui: &mut Ui, args: CompletionArgs) -> CmdResult {
    let script = match args.shell {
        Shell::Bash => include_str!("scripts/strate.bash"),
        Shell::Zsh => include_str!("scripts/_strate"),
        Shell::Fish => include_str!("scripts/strate.fish"),
    };
    ui.bytes(script.as_bytes());
    Ok(0)
}

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate version`
pub(super) fn version(_cx: &mut Context, ui: &mut Ui, args: VersionArgs) -> CmdResult {
    let value = serde_json::to_value(version::version())?;
    if let Some(format) = &args.format {
        ui.line(Template::parse(format)?.render(&value)?);
        return Ok(0);
    }
    let client = &value["Client"];
    let field = |name: &str| client[name].as_str().unwrap_or_default().to_owned();
    let mut text = format!("Client:\n Version:    {}\n", field("Version"));
    if !field("GitCommit").is_empty() {
        let _ = writeln!(text, " Git commit: {}", field("GitCommit"));
    }
    let _ = writeln!(text, " OS/Arch:    {}/{}", field("Os"), field("Arch"));
    let _ = writeln!(text, " Kernel:     {}\n\nServer: none; strate has no daemon", field("KernelVersion"));
    ui.text(&text);
    Ok(0)
}

/// Arguments of `info`.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate info`
pub(super) fn info(cx: &mut Context, ui: &mut Ui, args: InfoArgs) -> CmdResult {
    let value = info::info(cx)?;
    match &args.format {
        Some(format) => ui.line(Template::parse(format)?.render(&value)?),
        None => ui.text(&info_text(&value)),
    }
    for warning in value["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if args.format.is_none() {
            ui.warn(warning);
        }
    }
    Ok(0)
}

/// Docker's tree of facts.
fn info_text(value: &Value) -> String {
    const LINES: [(&str, &str); 22] = [
        ("Containers", "/Containers"),
        (" Running", "/ContainersRunning"),
        (" Paused", "/ContainersPaused"),
        (" Stopped", "/ContainersStopped"),
        ("Images", "/Images"),
        ("Server Version", "/ServerVersion"),
        ("Storage Driver", "/Driver"),
        ("User Namespaces", "/Strate/Rung"),
        (" Mapped Ids", "/Strate/MappedIds"),
        ("Logging Driver", "/LoggingDriver"),
        ("Cgroup Version", "/CgroupVersion"),
        ("Default Runtime", "/DefaultRuntime"),
        ("Security Options", "/SecurityOptions"),
        ("Kernel Version", "/KernelVersion"),
        ("Operating System", "/OperatingSystem"),
        ("OSType", "/OSType"),
        ("Architecture", "/Architecture"),
        ("CPUs", "/NCPU"),
        ("Total Memory", "/MemTotal"),
        ("Name", "/Name"),
        ("Root Dir", "/DockerRootDir"),
        (" File System", "/Strate/FileSystem"),
    ];
    let mut text = String::new();
    for (label, pointer) in LINES {
        let shown = match value.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(bytes)) if pointer == "/MemTotal" => {
                words::memory(bytes.as_u64().unwrap_or(0))
            }
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label}: {shown}");
    }
    for refused in value["Strate"]["Refused"].as_array().into_iter().flatten() {
        let part = |name: &str| refused[name].as_str().unwrap_or_default().to_owned();
        let _ = writeln!(text, "Rung {} refused: {}", part("Rung"), part("Why"));
    }
    text
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate doctor`
pub(super) fn doctor(cx: &mut Context, ui: &mut Ui, args: DoctorArgs) -> CmdResult {
    let checks = doctor::doctor(cx);
    match &args.format {
        Some(format) => ui.line(Template::parse(format)?.render(&serde_json::to_value(&checks)?)?),
        None => ui.text(&doctor_text(&checks)),
    }
    Ok(u8::from(checks.iter().any(|check| check.verdict == Verdict::Fail)))
}

fn doctor_text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<7}{:<19} {}", format!("[{mark}]"), check.name, check.found);
        if !check.meaning.is_empty() {
            let _ = writeln!(text, "{:27}{}", "", check.meaning);
        }
        for fix in &check.fixes {
            let _ = writeln!(text, "{:27}fix: {fix}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_reads_as_designed() {
        let check = Check {
            name: "user namespaces",
            verdict: Verdict::Warn,
            found: "single".into(),
            meaning: "one owner".into(),
            fixes: vec!["sudo x".into()],
        };
        assert_eq!(
            doctor_text(&[check]),
            "[warn] user namespaces     single\n                           one owner\n                           fix: sudo x\n"
        );
    }

    #[test]
    fn info_reads_as_designed() {
        let value = serde_json::json!({
            "Containers": 2, "MemTotal": 1_073_741_824_u64, "SecurityOptions": ["a", "b"],
            "Strate": {"Rung": "single", "Refused": [{"Rung": "full", "Why": "no ids"}]},
        });
        let text = info_text(&value);
        for line in [
            "Containers: 2\n",
            "Total Memory: 1GiB\n",
            "Security Options: a b\n",
            "User Namespaces: single\n",
            "Rung full refused: no ids\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }
}
