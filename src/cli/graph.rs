//! `pipeline graph`: of the project, or of a backlog file that need not be imported.

use std::io::{self, Write};
use std::path::Path;

use super::add::read_file;
use super::args::GraphArgs;
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::import::outline;
use super::project::Open;
use super::show;
use super::views::page;
use crate::machine::graph::Graph;

/// Largest file read: a million tasks have some 110 MB.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes gathered before they are written.
const CHUNK_BYTES: usize = 64 * 1024;

/// More dependencies than Mermaid draws unless told otherwise (`maxEdges`, Mermaid 10 and later).
const MERMAID_EDGES_MAX: usize = 500;

/// Shows the graph of the project.
///
/// # Errors
/// When it cannot be written.
pub fn of_project(open: &Open, console: &mut Console<'_>, args: &GraphArgs) -> Result<Exit, Error> {
    let state = open.now().0;
    let is_drawn = args.dot || args.mermaid;
    let sketch = if is_drawn { show::sketch_of(state) } else { show::work_of(state) };
    show(&sketch.graph(), console, args)
}

/// Shows the graph of a backlog file.
///
/// # Errors
/// When the file cannot be read or understood, or the graph not be written.
pub fn of_file(file: &Path, console: &mut Console<'_>, args: &GraphArgs) -> Result<Exit, Error> {
    let name = format!("`{}`", file.display());
    let bytes = read_file(file, &name, FILE_BYTES_MAX)?;
    let graph = outline::read(&bytes).map_err(|mut error| {
        error.message = format!("cannot read {name}: {}", error.message);
        error.at(file)
    })?;
    show(&graph, console, args)
}

/// A graph with unknown ids or cycles is a gate that does not pass: exit 1.
fn show(graph: &Graph<'_>, console: &mut Console<'_>, args: &GraphArgs) -> Result<Exit, Error> {
    let report = graph.report();
    if args.mermaid && graph.dependency_count() > MERMAID_EDGES_MAX {
        console.note(&format!(
            "Mermaid draws more than {MERMAID_EDGES_MAX} dependencies only where `maxEdges` allows it"
        ));
    }
    let page = page(console);
    let mut chunks = Chunks { console, gathered: Vec::with_capacity(CHUNK_BYTES), failed: None };
    let is_json = chunks.console.format == Format::Json;
    let written = if args.dot {
        show::write_dot(graph, &report, &mut chunks)
    } else if args.mermaid {
        show::write_mermaid(graph, &report, &mut chunks)
    } else if is_json {
        show::write_json(graph, &report, &mut chunks)
    } else {
        show::write_text(graph, &report, page, &mut chunks)
    };
    let written = written.and_then(|()| chunks.flush());
    if let Some(error) = chunks.failed {
        return Err(error);
    }
    written.map_err(|error| Error::failed("cannot write the graph").because(&error))?;
    let is_good = graph.unknown().len() == 0 && report.cycle_count == 0;
    Ok(if is_good { Exit::Done } else { Exit::Failed })
}

/// Writes to a console in pieces of [`CHUNK_BYTES`].
struct Chunks<'r, 'c> {
    console: &'r mut Console<'c>,
    gathered: Vec<u8>,
    /// What the console said, once it has failed.
    failed: Option<Error>,
}

impl Write for Chunks<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.console.write(&self.gathered);
        self.gathered.clear();
        done.map_err(|error| {
            self.failed = Some(error);
            io::ErrorKind::Other.into()
        })
    }
}
