//! The command line that others see of this process (`man 5 proc`, `/proc/PID/cmdline`).
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Where the kernel finds our command line: the same in every process forked from this one.
static AREA: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// The longest command line that is believed, in bytes: the kernel's limit for all arguments (`man 2 execve`).
const LONGEST: usize = 6 << 20;

/// Find out where the command line lies, while `/proc` is the host's.
pub fn remember() {
    AREA.get_or_init(|| area(&std::fs::read_to_string("/proc/self/stat").ok()?));
}

/// `arg_start` and `arg_end`, fields 48 and 49. The second field may hold anything, but ends with the last parenthesis.
fn area(stat: &str) -> Option<(usize, usize)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(45);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (start != 0 && start < end && end - start <= LONGEST).then_some((start, end))
}

/// Show `text` instead of the command line. For a forked process of one thread that never looks at its arguments again;
/// does nothing when [`remember`] was not called or found nothing.
pub fn replace(text: &str) {
    let Some(Some((start, end))) = AREA.get().copied() else { return };
    // SAFETY: the kernel says that the argument strings lie there: on the stack, writable, mapped as long as we live.
    // Nothing else refers to them: the library keeps copies.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) };
    bytes.fill(0);
    let length = text.len().min(bytes.len() - 1);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let rest: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        assert_eq!(area(&format!("7 (a) b) {}", rest.join(" "))), Some((48, 49)));
        assert_eq!(area("7 (a) 1 2"), None);
        assert_eq!(area("nothing"), None);
    }
}
