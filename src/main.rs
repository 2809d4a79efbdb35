//! The `strate` binary: hand over to the library, turn its answer into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    strate::cmd::main(std::env::args_os().collect())
}
