//! Which boot this is (`man 4 random`, `/proc/sys/kernel/random/boot_id`).

use std::sync::OnceLock;

/// The boot's id: 36 characters, the same until the next reboot. Where `/proc` does not tell it, a text that no marker
/// written in another process of this boot equals either, so that nothing unsynced is trusted.
#[must_use]
pub fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let text = text.trim();
        if text.len() >= 8 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            text.to_owned()
        } else {
            format!("unknown-{}", std::process::id())
        }
    })
}

/// Whether a file was last written before this boot.
#[must_use]
pub fn is_older(meta: &std::fs::Metadata) -> bool {
    let age = meta.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
    age.as_secs() > uptime()
}

/// Seconds since boot, time asleep included (`CLOCK_BOOTTIME`): never jumps.
#[must_use]
pub fn uptime() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0)
}
