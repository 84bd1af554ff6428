//! The command line's entry point: parse, call, exit code.

fn main() {}
