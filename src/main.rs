//! The command line's entry point: parse, call, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pipeline::sys::panic::end_the_process();
    pipeline::cli::run(std::env::args_os())
}
