//! `pipeline graph --dot` and `--mermaid`: arrows lead from a task to those that depend on it, as the
//! work goes; what is part of a cycle is red, what is unknown dashed.

use std::fmt;
use std::io::{self, Write};

use crate::machine::graph::{Graph, Report};

/// A name between the quotes of a language, in which some characters are written another way.
struct Quoted<'a> {
    name: &'a str,
    escape: fn(char) -> Option<&'static str>,
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What ids are made of is no special character anywhere.
        if self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return f.write_str(self.name);
        }
        let mut rest = self.name;
        let find = |text: &str| {
            text.char_indices().find_map(|(at, c)| (self.escape)(c).map(|other| (at, c, other)))
        };
        while let Some((at, c, other)) = find(rest) {
            write!(f, "{}{other}", &rest[..at])?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

fn dot(name: &str) -> Quoted<'_> {
    let escape = |c: char| match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        c if c.is_control() => Some("\u{fffd}"),
        _ => None,
    };
    Quoted { name, escape }
}

fn mermaid(name: &str) -> Quoted<'_> {
    let escape = |c: char| match c {
        '"' => Some("#quot;"),
        '#' => Some("#35;"),
        '&' => Some("#amp;"),
        '<' => Some("#lt;"),
        '>' => Some("#gt;"),
        c if c.is_control() => Some("\u{fffd}"),
        _ => None,
    };
    Quoted { name, escape }
}

/// Writes the graph in the language of Graphviz.
///
/// # Errors
/// What `out` reports.
pub fn write_dot(graph: &Graph<'_>, report: &Report, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"digraph pipeline {\n  rankdir=LR;\n  node [shape=box];\n")?;
    for task in graph.tasks() {
        let color = if report.is_tied(task, task) { " [color=red]" } else { "" };
        writeln!(out, "  \"{}\"{color};", dot(graph.name(task)))?;
    }
    for task in graph.tasks() {
        for dep in graph.dependencies(task) {
            let color = if report.is_tied(task, *dep) { " [color=red]" } else { "" };
            let (from, to) = (dot(graph.name(*dep)), dot(graph.name(task)));
            writeln!(out, "  \"{from}\" -> \"{to}\"{color};")?;
        }
    }
    for (task, unknown) in graph.unknown() {
        // No task can be called so.
        let (from, to) = (dot(unknown), dot(graph.name(task)));
        writeln!(out, "  \"unknown: {from}\" -> \"{to}\" [style=dashed];")?;
    }
    out.write_all(b"}\n")
}

/// Writes the graph in the language of Mermaid.
///
/// # Errors
/// What `out` reports.
pub fn write_mermaid(graph: &Graph<'_>, report: &Report, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"flowchart LR\n")?;
    for task in graph.tasks() {
        let class = if report.is_tied(task, task) { ":::cycle" } else { "" };
        writeln!(out, "  t{task}[\"{}\"]{class}", mermaid(graph.name(task)))?;
    }
    let mut strangers: Vec<&str> = graph.unknown().map(|(_, name)| name).collect();
    strangers.sort_unstable();
    strangers.dedup();
    for (place, name) in strangers.iter().enumerate() {
        writeln!(out, "  u{place}[\"unknown: {}\"]", mermaid(name))?;
    }
    let (mut tied, mut arrow) = (Vec::new(), 0);
    for task in graph.tasks() {
        for dep in graph.dependencies(task) {
            writeln!(out, "  t{dep} --> t{task}")?;
            if report.is_tied(task, *dep) {
                tied.push(arrow.to_string());
            }
            arrow += 1;
        }
    }
    for (task, unknown) in graph.unknown() {
        let place = strangers.partition_point(|name| *name < unknown);
        writeln!(out, "  u{place} -.-> t{task}")?;
    }
    if !tied.is_empty() {
        writeln!(out, "  classDef cycle stroke:red\n  linkStyle {} stroke:red", tied.join(","))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use crate::machine::graph::Sketch;

    fn sketch() -> Sketch<'static> {
        let mut sketch = Sketch::default();
        for (name, deps) in [("a\"\\<", &["b", "x"][..]), ("b", &["a\"\\<"]), ("c", &["b", "x"])] {
            deps.iter().for_each(|dep| sketch.dependency(Cow::Borrowed(dep)));
            sketch.task(Cow::Borrowed(name));
        }
        sketch
    }

    #[test]
    fn dot_names_are_quoted_and_cycles_red() {
        let (graph, mut out) = (sketch().graph(), Vec::new());
        super::write_dot(&graph, &graph.report(), &mut out).expect("a vector takes all");
        let expected = r#"digraph pipeline {
  rankdir=LR;
  node [shape=box];
  "a\"\\<" [color=red];
  "b" [color=red];
  "c";
  "b" -> "a\"\\<" [color=red];
  "a\"\\<" -> "b" [color=red];
  "b" -> "c";
  "unknown: x" -> "a\"\\<" [style=dashed];
  "unknown: x" -> "c" [style=dashed];
}
"#;
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn mermaid_names_are_quoted_and_cycles_red() {
        let (graph, mut out) = (sketch().graph(), Vec::new());
        super::write_mermaid(&graph, &graph.report(), &mut out).expect("a vector takes all");
        let expected = r#"flowchart LR
  t0["a#quot;\#lt;"]:::cycle
  t1["b"]:::cycle
  t2["c"]
  u0["unknown: x"]
  t1 --> t0
  t0 --> t1
  t1 --> t2
  u0 -.-> t0
  u0 -.-> t2
  classDef cycle stroke:red
  linkStyle 0,1 stroke:red
"#;
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
