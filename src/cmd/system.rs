//! Verbs of the system group.

use clap::Args;
use serde_json::json;

use super::CmdResult;
use crate::context::Context;
use crate::ui::Ui;
use crate::ui::format::Template;

/// Arguments of `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate version`
pub(super) fn version(_cx: &mut Context, ui: &mut Ui, args: VersionArgs) -> CmdResult {
    let version = env!("CARGO_PKG_VERSION");
    let one = json!({"Version": version, "Os": "linux"});
    let value = json!({"Client": one, "Server": one});
    let template = args.format.as_deref().unwrap_or("Client:\n Version: {{.Client.Version}}");
    ui.line(Template::parse(template)?.render(&value)?);
    Ok(0)
}
