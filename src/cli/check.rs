//! `steward check [DIR]`: every problem of a workspace's files, without running anything.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::client::workspace;
use crate::cli::{Fail, out};
use crate::config::problem::{Problem, Problems, Severity};
use crate::config::workspace::Definitions;

/// `steward check`.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// The workspace folder; the nearest parent folder with config/settings.yaml when not given
    pub dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks; fails when something would not run.
///
/// # Errors
/// [`Fail::Said`] when an error was found.
pub fn run(args: &CheckArgs) -> Result<(), Fail> {
    let dir = workspace(args.dir.as_deref());
    let (problems, workflows) = match Definitions::load(&dir) {
        Ok((definitions, warnings)) => (Problems(warnings), definitions.workflows.len()),
        Err(problems) => (problems, 0),
    };
    let sound = !problems.any_error();
    if args.json {
        let rows: Vec<Value> = problems.0.iter().map(row).collect();
        out::json(&json!({"ok": sound, "workflows": workflows, "problems": rows}))?;
    } else {
        if !problems.0.is_empty() {
            out::line(&problems.render(out::color()))?;
        }
        out::line(&summary(&problems, workflows))?;
    }
    if sound { Ok(()) } else { Err(Fail::Said) }
}

fn row(problem: &Problem) -> Value {
    json!({
        "file": problem.file, "line": problem.line, "column": problem.column,
        "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "message": problem.message, "mend": problem.mend,
    })
}

fn summary(problems: &Problems, workflows: usize) -> String {
    let errors = problems.0.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.0.len() - errors;
    let warned = if warnings == 0 { String::new() } else { format!(", {}", counted(warnings, "warning")) };
    match errors {
        0 => format!("{} sound{warned}", counted(workflows, "workflow")),
        _ => format!("{}{warned}; nothing runs until they are mended", counted(errors, "error")),
    }
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
