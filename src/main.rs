//! The `strate` binary: hand over to the library, turn its answer into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A limit on the size of files (`ulimit -f`) is to be an error with a path, not the end of the process.
    strate::sys::signals::ignore_file_size();
    strate::cmd::main(std::env::args_os().collect())
}
