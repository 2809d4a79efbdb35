//! `#N` lines, for logs: nothing is ever taken back, clipped or redrawn.

use super::{State, Status, stderr};
use crate::ops::build::BuildEvent;
use crate::ui::words;

/// Print what an event means, with the lines of output it completed.
pub(super) fn print(state: &mut State, event: &BuildEvent, lines: &[String]) {
    let (vertex, own) = match event {
        BuildEvent::Started { vertex, .. } => (*vertex, String::new()),
        BuildEvent::Cached { vertex } => (*vertex, format!("#{} CACHED\n", vertex + 1)),
        BuildEvent::Done { vertex, took } => {
            (*vertex, format!("#{} DONE {:.1}s\n", vertex + 1, took.as_secs_f64()))
        }
        BuildEvent::Failed { vertex, why } => (*vertex, format!("#{} ERROR: {why}\n", vertex + 1)),
        BuildEvent::Cancelled { vertex } => (*vertex, format!("#{} CANCELED\n", vertex + 1)),
        BuildEvent::Part { vertex, part, current, total, done } => {
            // One line when a part is there, not one each time it grows.
            if !done {
                return;
            }
            let size = if *total > 0 { words::size(*total) } else { words::size(*current) };
            (*vertex, format!("#{} {part} {size} done\n", vertex + 1))
        }
        BuildEvent::Output { vertex, .. } if lines.is_empty() => {
            let _ = vertex;
            return;
        }
        BuildEvent::Output { vertex, .. } | BuildEvent::Note { vertex, .. } => (*vertex, String::new()),
        BuildEvent::Lint { .. } => return,
    };
    let mut text = String::new();
    if state.open != Some(vertex) {
        if let Some(other) = state.open {
            text.push_str(&format!("#{} ...\n\n", other + 1));
        }
        text.push_str(&format!("#{} {}\n", vertex + 1, state.works[vertex].name));
        state.open = Some(vertex);
    }
    for line in lines {
        text.push_str(&format!("#{} {line}\n", vertex + 1));
    }
    text.push_str(&own);
    if !matches!(state.works[vertex].status, Status::Running | Status::Waiting) {
        text.push('\n');
        state.open = None;
    }
    stderr(&text);
}

/// Nothing is open at the end.
pub(super) fn end(state: &mut State) {
    if state.open.take().is_some() {
        stderr("\n");
    }
}
