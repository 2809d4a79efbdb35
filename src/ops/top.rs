//! `top`: the processes of a container.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use jiff::{Timestamp, ToSpan};

use super::container::processes::{self, Process};
use super::container::{Error, target::Target};
use crate::context::Context;
use crate::storage::Store;

/// A table: titles and rows.
#[derive(Debug, Default)]
pub struct Table {
    /// What stands above each column.
    pub titles: Vec<String>,
    /// As many values each.
    pub rows: Vec<Vec<String>>,
}

/// Columns as podman names them: name, title.
const COLUMNS: [(&str, &str); 17] = [
    ("args", "COMMAND"),
    ("comm", "COMMAND"),
    ("etime", "ELAPSED"),
    ("group", "GROUP"),
    ("hgroup", "HGROUP"),
    ("hpid", "HPID"),
    ("huser", "HUSER"),
    ("nice", "NI"),
    ("pcpu", "%CPU"),
    ("pid", "PID"),
    ("ppid", "PPID"),
    ("rss", "RSS"),
    ("state", "STATE"),
    ("time", "TIME"),
    ("tty", "TTY"),
    ("user", "USER"),
    ("vsz", "VSZ"),
];

/// The processes of a running container: in docker's columns, in those that `words` name, or, where they are options of
/// ps(1), as the host's ps shows them.
///
/// # Errors
/// When it does not run, or the host's ps fails.
pub fn top(cx: &Context, store: &Store, text: &str, words: &[String]) -> Result<Table, Error> {
    let dir = store.find_container(text)?;
    let target = Target::of(&dir)?;
    let ids = processes::ids(target.pid())?;
    dir.tell("top", &[]);
    let names: Vec<&str> =
        words.iter().flat_map(|word| word.split(',')).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(usual(&ids));
    }
    if names.iter().all(|name| title(name).is_some()) {
        return Ok(chosen(&ids, &names));
    }
    from_host(cx, &ids, words)
}

fn title(name: &str) -> Option<&'static str> {
    COLUMNS.iter().find(|(have, _)| *have == name).map(|(_, title)| *title)
}

/// As `ps -ef` shows it.
fn usual(ids: &[i32]) -> Table {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).to_vec();
    let users = users();
    let now = Timestamp::now();
    let row = |process: Process| {
        vec![
            users.get(&process.uid).cloned().unwrap_or_else(|| process.uid.to_string()),
            process.pid.to_string(),
            process.parent.to_string(),
            process.share().min(99).to_string(),
            started(&process, now),
            process.terminal_name(),
            clock(process.time),
            process.command,
        ]
    };
    Table { titles, rows: ids.iter().filter_map(|pid| processes::look(*pid)).map(row).collect() }
}

fn chosen(ids: &[i32], names: &[&str]) -> Table {
    let all: Vec<Process> = ids.iter().filter_map(|pid| processes::look(*pid)).collect();
    let inner = |pid: i32| all.iter().find(|process| process.pid == pid).map_or(0, |process| process.inner);
    let maps = ids.first().map(|pid| ["uid_map", "gid_map"].map(|map| id_map(*pid, map))).unwrap_or_default();
    let value = |process: &Process, name: &str| match name {
        "args" => process.command.clone(),
        "comm" => process.name.clone(),
        "etime" => clock(process.age),
        "group" => within(&maps[1], process.gid).to_string(),
        "hgroup" => process.gid.to_string(),
        "hpid" => process.pid.to_string(),
        "huser" => process.uid.to_string(),
        "nice" => process.nice.to_string(),
        "pcpu" => format!("{}.000", process.share()),
        "pid" => process.inner.to_string(),
        "ppid" => inner(process.parent).to_string(),
        "rss" => process.resident.to_string(),
        "state" => process.state.to_string(),
        "time" => clock(process.time),
        "tty" => process.terminal_name(),
        "user" => within(&maps[0], process.uid).to_string(),
        _ => process.virtual_size.to_string(),
    };
    Table {
        titles: names.iter().filter_map(|name| title(name)).map(str::to_owned).collect(),
        rows: all.iter().map(|process| names.iter().map(|name| value(process, name)).collect()).collect(),
    }
}

/// Let the host's ps speak, and keep what it says of the container's processes.
fn from_host(cx: &Context, ids: &[i32], words: &[String]) -> Result<Table, Error> {
    let refuse = |why: String| Error::BadValue { flag: "top".into(), value: words.join(" "), why };
    let program: Option<PathBuf> =
        cx.path().into_iter().map(|dir| dir.join("ps")).find(|path| path.is_file());
    let program =
        program.ok_or_else(|| refuse("these are options of ps, which is not installed here".into()))?;
    let output = Command::new(program).args(words).output().map_err(|error| refuse(error.to_string()))?;
    if !output.status.success() {
        return Err(refuse(format!("ps says: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let at = titles.iter().position(|title| title == "PID");
    let at = at.ok_or_else(|| refuse("with these options ps shows no column PID".into()))?;
    let row = |line: &str| {
        let mut rest = line.trim_start();
        let mut row = Vec::new();
        // The last column may have blanks in it.
        while row.len() + 1 < titles.len() {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            row.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
        row.push(rest.trim_end().to_owned());
        row
    };
    let ours = |row: &Vec<String>| {
        row.get(at).and_then(|pid| pid.parse().ok()).is_some_and(|pid| ids.contains(&pid))
    };
    let rows = lines.map(row).filter(ours).collect();
    Ok(Table { titles, rows })
}

/// The host's users by number, from its file alone.
fn users() -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(user).collect()
}

/// The id map of a process: inner id, outer id, count.
fn id_map(pid: i32, map: &str) -> Vec<[u32; 3]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{map}")).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split_whitespace().filter_map(|field| field.parse::<u32>().ok());
        Some([fields.next()?, fields.next()?, fields.next()?])
    };
    text.lines().filter_map(line).collect()
}

/// What an id of the host is in the container.
fn within(map: &[[u32; 3]], id: u32) -> u32 {
    let fits = |range: &&[u32; 3]| id >= range[1] && id - range[1] < range[2];
    map.iter().find(fits).map_or(id, |range| range[0] + (id - range[1]))
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The time of day it started, or the day when that was not today.
fn started(process: &Process, now: Timestamp) -> String {
    let age = i64::try_from(process.age).unwrap_or(0);
    let zone = jiff::tz::TimeZone::system();
    let time = now.checked_sub(age.seconds()).unwrap_or(now).to_zoned(zone.clone());
    let format = if time.date() == now.to_zoned(zone).date() { "%H:%M" } else { "%b%d" };
    time.strftime(format).to_string()
}
