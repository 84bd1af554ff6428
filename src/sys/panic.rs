//! What a panic comes to: the end of the whole process.

use std::panic;

/// From now on a panic in any thread is printed as ever and ends the process by SIGABRT, in builds
/// that unwind as well: without one of its threads a monitor would wait for ever for what that owes.
pub fn end_the_process() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
}
