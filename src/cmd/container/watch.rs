//! `top`, `events`, `healthcheck run`.

use std::ops::ControlFlow;

use clap::{ArgAction, Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{failed, readable};
use crate::cmd::CmdResult;
use crate::context::Context;
use crate::ops;
use crate::ops::events::Event;
use crate::ui::format::Template;
use crate::ui::table::Table;
use crate::ui::{Ui, sanitise};

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct TopArgs {
    /// The container's name or id
    container: String,
    /// Options of ps(1), or columns: args, comm, etime, group, hgroup, hpid, huser, nice, pcpu, pid, ppid, rss, state,
    /// time, tty, user, vsz
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS_OPTIONS")]
    words: Vec<String>,
}

/// `strate top`
pub(in crate::cmd) fn top(cx: &mut Context, ui: &mut Ui, args: TopArgs) -> CmdResult {
    let found = ops::top::top(cx, &readable(cx)?, &args.container, &args.words)?;
    let titles: Vec<&str> = found.titles.iter().map(String::as_str).collect();
    let mut table = Table::new(&titles);
    for row in &found.rows {
        table.row(row.iter().map(|value| sanitise::line(value)));
    }
    ui.text(&table.render());
    Ok(0)
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct EventsArgs {
    /// Only some: container, event, image, label, name, type, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show what happened since then too (2026-01-02T15:04:05Z, or 10m for ten minutes ago)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Go on with what happens
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_possible_values = true)]
    stream: bool,
    /// Accepted for podman's sake: nothing is shortened
    #[arg(long, hide = true)]
    no_trunc: bool,
}

/// `strate events`
pub(in crate::cmd) fn events(cx: &mut Context, ui: &mut Ui, args: EventsArgs) -> CmdResult {
    let now = Timestamp::now();
    let time =
        |flag: &str, text: Option<&str>| text.map(|text| ops::events::time(flag, text, now)).transpose();
    let mut request = ops::events::Request {
        since: time("--since", args.since.as_deref())?,
        until: time("--until", args.until.as_deref())?,
        no_stream: !args.stream,
        ..Default::default()
    };
    for filter in &args.filter {
        request.filters.add(filter)?;
    }
    let json = args.format.as_deref() == Some("json");
    let template = args.format.as_deref().filter(|_| !json).map(Template::parse).transpose()?;
    let mut wrong = None;
    ops::events::events(&readable(cx)?, &request, &mut |event| {
        match &template {
            Some(template) => match template.render(&value(event, true)) {
                Ok(text) => ui.line(text),
                Err(error) => {
                    wrong = Some(error);
                    return ControlFlow::Break(());
                }
            },
            None if json => ui.line(value(event, false)),
            None => ui.line(line(event)),
        }
        if ui.stdout_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    wrong.map_or(Ok(0), |error| Err(error.into()))
}

/// `TIME container start ID (image=…, name=…)`
fn line(event: &Event) -> String {
    let time = Timestamp::from_nanosecond(i128::from(event.time)).unwrap_or_default();
    let time = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    let facts: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let text = format!("{time} {} {} {} ({})", event.kind, event.action, event.id, facts.join(", "));
    sanitise::line(&text).into()
}

/// Docker's document; `more` adds the names that templates of docker and podman use.
fn value(event: &Event, more: bool) -> Value {
    let seconds = event.time / 1_000_000_000;
    let image = event.attributes.get("image").cloned();
    let mut all = json!({
        "status": event.action,
        "id": event.id,
        "from": image.clone().unwrap_or_default(),
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "scope": "local",
        "time": seconds,
        "timeNano": event.time,
    });
    if more {
        all["Scope"] = "local".into();
        all["Time"] = seconds.into();
        all["TimeNano"] = event.time.into();
        all["Status"] = event.action.clone().into();
        all["ID"] = event.id.clone().into();
        all["From"] = image.clone().unwrap_or_default().into();
        all["Image"] = image.unwrap_or_default().into();
        all["Name"] = event.attributes.get("name").cloned().unwrap_or_default().into();
    }
    all
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct HealthcheckArgs {
    #[command(subcommand)]
    verb: HealthcheckVerb,
}

/// Verbs of `healthcheck`.
#[derive(Debug, Subcommand)]
enum HealthcheckVerb {
    /// Run the health check of a container once, and say by the exit code how it is
    Run {
        /// The container's name or id
        container: String,
    },
}

/// `strate healthcheck`
pub(in crate::cmd) fn healthcheck(cx: &mut Context, ui: &mut Ui, args: HealthcheckArgs) -> CmdResult {
    let HealthcheckVerb::Run { container } = args.verb;
    let store = readable(cx).map_err(failed)?;
    let (well, output) = ops::healthcheck::run(&store, &container).map_err(failed)?;
    if !well {
        ui.line("unhealthy");
        if !output.is_empty() {
            ui.note(sanitise::line(output.trim_end()));
        }
    }
    Ok(u8::from(!well))
}
