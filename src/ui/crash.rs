//! A panic is a bug of ours: say so in two lines and leave a file that a bug report can use.

use std::io::Write;
use std::panic::PanicHookInfo;

/// From here on a panic writes a report file and names it. The report holds the version, the place, the message and
/// the stack; never the command line, which may hold secrets.
pub fn install(version: &'static str) {
    std::panic::set_hook(Box::new(move |info| report(version, info)));
}

fn report(version: &str, info: &PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let mut err = std::io::stderr().lock();
    // Nothing can be said about a stderr that is gone.
    let _ = writeln!(err, "error: strate has a bug and stopped at {place}: {message}");
    let stack = std::backtrace::Backtrace::force_capture();
    let text = format!("strate {version}\n{place}\n{message}\n\n{stack}\n");
    if let Some(path) = write(&text) {
        let _ = writeln!(
            err,
            "hint: nothing that was finished is lost; a report for the authors is in `{}`",
            path.display()
        );
    }
}

/// Write the report where only this user can read it.
fn write(text: &str) -> Option<std::path::PathBuf> {
    let mut file = tempfile::Builder::new().prefix("strate-crash-").suffix(".txt").tempfile().ok()?;
    file.write_all(text.as_bytes()).ok()?;
    file.keep().ok().map(|(_, path)| path)
}
