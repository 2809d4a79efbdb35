//! `--progress rawjson`: BuildKit's `SolveStatus`, one document a line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{State, stderr};
use crate::oci::Digest;
use crate::ops::build::{BuildEvent, Stream};

/// Print an event as a document; called before the state takes it in.
pub(super) fn print(state: &mut State, event: &BuildEvent) {
    let now = jiff::Timestamp::now();
    let time = |ago: std::time::Duration| {
        now.checked_sub(ago).map_or_else(|_| now.to_string(), |time| time.to_string())
    };
    let mut vertex = |index: usize, more: Value| {
        let work = state.work(index);
        let mut document = json!({ "digest": digest(index), "name": work.name });
        if let Some(began) = work.began {
            document["started"] = time(began.elapsed()).into();
        }
        if let (Some(document), Some(more)) = (document.as_object_mut(), more.as_object()) {
            document.extend(more.clone());
        }
        json!({ "vertexes": [document] })
    };
    let now = now.to_string();
    let document = match event {
        BuildEvent::Started { vertex: index, name, .. } => {
            vertex(*index, json!({ "name": name, "started": now }))
        }
        BuildEvent::Cached { vertex: index } => vertex(*index, json!({ "completed": now, "cached": true })),
        BuildEvent::Done { vertex: index, .. } => vertex(*index, json!({ "completed": now })),
        BuildEvent::Failed { vertex: index, why } => {
            vertex(*index, json!({ "completed": now, "error": why }))
        }
        BuildEvent::Cancelled { vertex: index } => {
            vertex(*index, json!({ "completed": now, "error": "context canceled" }))
        }
        BuildEvent::Part { vertex: index, part, current, total, done } => {
            let mut status = json!({
                "id": part, "vertex": digest(*index), "current": current, "total": total, "timestamp": now,
            });
            if *done {
                status["completed"] = now.into();
            }
            json!({ "statuses": [status] })
        }
        BuildEvent::Output { vertex: index, stream, data, .. } => {
            let number = if *stream == Stream::Stdout { 1 } else { 2 };
            json!({ "logs": [{
                "vertex": digest(*index), "stream": number, "data": STANDARD.encode(data), "timestamp": now,
            }] })
        }
        BuildEvent::Note { vertex: index, text } => {
            json!({ "warnings": [{ "vertex": digest(*index), "level": 1, "short": STANDARD.encode(text) }] })
        }
        BuildEvent::Lint { text } => json!({ "warnings": [{ "level": 1, "short": STANDARD.encode(text) }] }),
    };
    stderr(&format!("{document}\n"));
}

/// A name for the work of that number in this stream of documents.
fn digest(index: usize) -> String {
    Digest::sha256(format!("work {index}")).to_string()
}
