//! `stats` and `update`

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::limit_flags::LimitFlags;
use super::{each, readable, writable};
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops;
use crate::ops::container::{RestartPolicy, values};
use crate::ops::stats::Sample;
use crate::ui::format::{Column, Listing};
use crate::ui::{Ui, words};

/// Between the two looks of `--no-stream`, and before the first line of a stream.
const FIRST: Duration = Duration::from_millis(500);

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct StatsArgs {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Print once
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Print with a template, as `table TEMPLATE` or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1)]
    interval: u64,
    /// Accepted for podman's sake: the screen is cleared on a terminal alone
    #[arg(long, hide = true)]
    no_reset: bool,
    /// Names or ids; else all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: [Column; 9] = [
    Column::new("ID", "CONTAINER ID"),
    Column::new("Name", "NAME"),
    Column::new("CPUPerc", "CPU %"),
    Column::new("MemUsage", "MEM USAGE / LIMIT"),
    Column::new("MemPerc", "MEM %"),
    Column::new("NetIO", "NET I/O"),
    Column::new("BlockIO", "BLOCK I/O"),
    Column::new("PIDs", "PIDS"),
    Column::new("Container", "CONTAINER"),
];

const SHOWN: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

/// `strate stats`
pub(in crate::cmd) fn stats(cx: &mut Context, ui: &mut Ui, args: StatsArgs) -> CmdResult {
    let listing = Listing::parse(args.format.as_deref(), &COLUMNS, &SHOWN)?;
    if args.interval == 0 {
        return Err(values::bad("--interval", "0", "it is a number of seconds, at least 1").into());
    }
    let store = readable(cx)?;
    let mut before: HashMap<String, Sample> = HashMap::new();
    let mut told = false;
    for round in 0_u32.. {
        let samples = ops::stats::sample(&store, &args.containers, args.all)?;
        if !told && samples.iter().any(|sample| sample.summed) {
            let name = samples.iter().find(|sample| sample.summed).map_or("", |sample| &sample.name);
            ui.note(format_args!(
                "no cgroup counts what container {name} uses: shown are sums over its processes"
            ));
            told = true;
        }
        // The first look is only to compare with.
        if round > 0 {
            let row = |sample: &Sample| value(sample, before.get(&sample.id), args.no_trunc);
            let text = listing.render(&samples.iter().map(row).collect::<Vec<_>>())?;
            if !args.no_stream && !args.no_reset && cx.terminals[1] {
                ui.text("\x1b[H\x1b[J");
            }
            ui.text(&text);
            if args.no_stream || ui.stdout_gone() {
                break;
            }
        }
        before = samples.into_iter().map(|sample| (sample.id.clone(), sample)).collect();
        std::thread::sleep(if round == 0 { FIRST } else { Duration::from_secs(args.interval) });
    }
    Ok(0)
}

/// One row in docker's fields, all of them texts.
fn value(sample: &Sample, before: Option<&Sample>, whole: bool) -> Value {
    let usage = &sample.usage;
    let (read, written) = usage.io.unwrap_or_default();
    let (received, sent) = sample.network;
    let memory = [usage.memory.unwrap_or(0), sample.memory_limit()].map(words::memory);
    json!({
        "Container": sample.asked,
        "ID": if whole { &sample.id } else { sample.id.get(..12).unwrap_or(&sample.id) },
        "Name": sample.name,
        "CPUPerc": format!("{:.2}%", sample.cpu_percent(before)),
        "MemUsage": memory.join(" / "),
        "MemPerc": format!("{:.2}%", sample.memory_percent()),
        "NetIO": format!("{} / {}", words::size(received), words::size(sent)),
        "BlockIO": format!("{} / {}", words::size(read), words::size(written)),
        "PIDs": usage.pids.unwrap_or(0).to_string(),
    })
}

/// Arguments of `update`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct UpdateArgs {
    #[command(flatten)]
    limits: LimitFlags,
    /// When to start the program again: no, on-failure[:COUNT], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `strate update`
pub(in crate::cmd) fn update(cx: &mut Context, ui: &mut Ui, args: UpdateArgs) -> CmdResult {
    let restart = args.restart.as_deref().map(RestartPolicy::parse).transpose()?;
    let request = ops::update::Request { limits: args.limits.limits()?, restart };
    if request.limits.is_empty() && request.restart.is_none() {
        return Err(CmdError::usage(
            "update changes nothing without a flag: `strate update --help` lists them",
        ));
    }
    let store = writable(cx)?;
    Ok(each(ui, &args.containers, |ui, name| {
        if let Some(remark) = ops::update::update(&store, name, &request)? {
            ui.note(remark);
        }
        ui.line(name);
        Ok(())
    }))
}
