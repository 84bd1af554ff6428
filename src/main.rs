//! The command line's entry point: parse, call, exit code.

use std::process::ExitCode;

use fs2::FileExt;
use pipeline::agent::keeper::{KeeperOptions, run};
use pipeline::agent::rendezvous::lock_path;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [word, agent, dir, socket] = args.as_slice() else { return ExitCode::from(2) };
    if word != "__keeper" {
        return ExitCode::from(2);
    }
    let served = (|| {
        let lock = std::fs::File::create(lock_path(dir.as_ref()))?;
        FileExt::try_lock_exclusive(&lock)?;
        let marker_seen = |path: &std::path::Path, nonce: &str| {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains(nonce))
        };
        run(
            KeeperOptions {
                agent: agent.clone(),
                dir: dir.into(),
                socket: socket.into(),
                marker_seen,
            },
            lock,
        )
    })();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
