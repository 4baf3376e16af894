//! The command line, one file per command. All but `up`, `demo` and `check` are clients of the HTTP API.
//!
//! - [`client`] finds the service of a workspace and speaks to it; [`ids`] completes shortened ids;
//! - [`out`] writes to the terminal, and makes other people's text harmless on the way;
//! - [`render`] draws a run; [`form`] asks for an answer field by field.

pub mod audit;
pub mod calls;
pub mod check;
pub mod client;
pub mod demo;
pub mod events;
pub mod form;
pub mod ids;
pub mod memory;
pub mod models;
pub mod out;
pub mod pause;
pub mod policy;
pub mod render;
pub mod reviews;
pub mod run;
pub mod runs;
pub mod schedules;
pub mod spend;
pub mod up;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry;

/// Steward: the workflow operating system for a business of one.
#[derive(Parser, Debug)]
#[command(name = "steward", version, about, after_help = EXIT_CODES, propagate_version = true)]
struct Steward {
    #[command(subcommand)]
    command: Command,
}

/// The table of commands.
#[derive(Subcommand, Debug)]
enum Command {
    /// Start the service of a workspace
    Up(up::UpArgs),
    /// See it work: example mail through the example workspace
    Demo(demo::DemoArgs),
    /// Check a workspace's files without running anything
    Check(check::CheckArgs),
    /// Open a run
    Run(run::RunArgs),
    /// List, show, cancel, hold, retry and rerun runs
    Runs(runs::RunsArgs),
    /// Hold everything, or a workflow: nothing begins any more
    Pause(pause::PauseArgs),
    /// Let what is held go on
    Resume(pause::PauseArgs),
    /// Tell an event that runs wait for
    Event(events::EventArgs),
    /// List what opens runs by itself, and when
    Schedules(schedules::SchedulesArgs),
    /// See what model calls cost, and what is left of each budget
    Spend(spend::SpendArgs),
    /// Decide what waits for you
    Reviews(reviews::ReviewsArgs),
    /// See what your rules make of an action, and try a change of them
    Policy(policy::PolicyArgs),
    /// Add documents and search them
    Memory(memory::MemoryArgs),
    /// List models and what they cost, test them, and let paused providers be asked again
    Models(models::ModelsArgs),
    /// What was said to models, word for word
    Calls(calls::CallsArgs),
    /// Verify the audit trail
    Audit(audit::AuditArgs),
}

/// Shown below the help.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, failed, or a check found something
  2  wrong usage
  3  the service is not reachable
  4  there is no such run, review, workflow, model or provider
  5  somebody or something was faster: decided, ended or changed already
  6  too much is waiting already: nothing was taken, try again later";

/// How a command ends when it does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Fail {
    /// Said no, or failed.
    #[error("{0}")]
    Refused(String),
    /// Everything about it has been printed already.
    #[error("")]
    Said,
    /// The command was not given what it needs.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is over, or has changed.
    #[error("{0}")]
    Conflict(String),
    /// Too much is waiting already; the same may be taken later.
    #[error("{0}")]
    Full(String),
}

impl Fail {
    /// The exit code, as the help documents it.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Said => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NotFound(_) => 4,
            Self::Conflict(_) => 5,
            Self::Full(_) => 6,
        }
    }
}

impl From<std::io::Error> for Fail {
    fn from(error: std::io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<anyhow::Error> for Fail {
    fn from(error: anyhow::Error) -> Self {
        Self::Refused(format!("{error:#}"))
    }
}

/// What every client of the service takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The workspace folder; the nearest parent folder with config/settings.yaml when not given
    #[arg(long, value_name = "DIR", global = true)]
    pub workspace: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// Runs the command that `args` names, the program's own name first.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let steward = match Steward::try_parse_from(args) {
        Ok(steward) => steward,
        Err(help) => {
            let _ = help.print();
            return ExitCode::from(u8::try_from(help.exit_code()).unwrap_or(2));
        }
    };
    telemetry::start(match steward.command {
        Command::Up(_) => telemetry::SERVICE,
        _ => telemetry::COMMAND,
    });
    match Box::pin(dispatch(steward.command)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            if !matches!(fail, Fail::Said) {
                out::note(&format!("error: {fail}"));
            }
            ExitCode::from(fail.code())
        }
    }
}

async fn dispatch(command: Command) -> Result<(), Fail> {
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Run(args) => run::run(args).await,
        Command::Runs(args) => runs::run(args).await,
        Command::Pause(args) => pause::run(args, true).await,
        Command::Resume(args) => pause::run(args, false).await,
        Command::Event(args) => events::run(args).await,
        Command::Schedules(args) => schedules::run(args).await,
        Command::Spend(args) => spend::run(args).await,
        Command::Reviews(args) => reviews::run(args).await,
        Command::Policy(args) => policy::run(args).await,
        Command::Memory(args) => memory::run(args).await,
        Command::Models(args) => models::run(args).await,
        Command::Calls(args) => calls::run(args).await,
        Command::Audit(args) => audit::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_table_holds_together() {
        Steward::command().debug_assert();
    }

    #[test]
    fn every_command_takes_json_and_a_workspace() {
        for command in [
            "run w",
            "runs list",
            "runs show x",
            "reviews approve x",
            "memory list",
            "models",
            "models test",
            "policy explain x.json",
            "policy try --last 5",
            "audit verify",
            "calls show x",
            "calls trace x",
            "schedules",
            "spend",
        ] {
            let args = format!("steward {command} --json --workspace w");
            assert!(Steward::try_parse_from(args.split(' ')).is_ok(), "{args}");
        }
    }
}
