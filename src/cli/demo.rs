//! `steward demo`: the main job on real input. Sets a workspace up, puts the example documents into
//! memory, lets the example mail in through the same door as any other, and shows what waits for you.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;

use crate::app::{Options, Service, asked_to_stop};
use crate::cli::{Fail, out};
use crate::config::template;
use crate::domain::ids::RunId;
use crate::domain::label::Label;
use crate::memory::ingest;
use crate::store::reviews::ReviewRow;
use crate::store::runs::RunRow;
use crate::triggers::mail;

/// The workspace of a demo that is not given one.
const WORKSPACE: &str = "steward-demo";

/// How long the demo waits for its runs: a slow model has a minute per call, three calls per run.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a run is looked at when nothing was heard of it.
const LOOK: Duration = Duration::from_millis(200);

/// The most open reviews that are listed.
const LISTED: i64 = 50;

macro_rules! examples {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/", $folder, "/", $name)))),*]
    };
}

/// Raw emails as they really look.
const INBOX: &[(&str, &[u8])] = examples!["inbox":
    "01-lead-bakery.eml",
    "02-lead-ceramics-shop.eml",
    "03-lead-physio-brief.eml",
    "04-lead-guesthouse-latin1.eml",
    "05-lead-tea-iso-2022-jp.eml",
    "06-support-invoice-reply.eml",
    "07-support-forwarded-dns.eml",
    "08-spam-seo.eml",
    "09-lead-injection.eml",
    "10-auto-reply-out-of-office.eml",
    "11-newsletter.eml",
    "12-support-opening-hours.eml",
    "13-supplier-invoice.eml",
];

/// Documents that support answers from.
const KNOWLEDGE: &[(&str, &[u8])] = examples!["knowledge":
    "editing-your-site.md",
    "hosting-and-dns.md",
    "invoices-and-payment.md",
    "pricing.md",
    "project-process.md",
    "support-hours.md",
];

/// `steward demo`.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// The workspace folder, made if it is not there; ./steward-demo when not given
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Where to listen; a free port on loopback when not given
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Stop once every example has been dealt with
    #[arg(long)]
    pub exit: bool,
    /// Make the last line one JSON object: runs, runs by status, open reviews, seconds
    #[arg(long)]
    pub json: bool,
}

/// Runs the demo; serves on afterwards unless told to exit.
///
/// # Errors
/// When the workspace or the service cannot be set up, or a run does not come to rest.
pub async fn run(args: DemoArgs) -> Result<(), Fail> {
    let since = Instant::now();
    let folder = args.workspace.clone().unwrap_or_else(|| PathBuf::from(WORKSPACE));
    set_up(&folder)?;
    out::note(&format!("workspace  {}", folder.display()));
    let options = Options {
        workspace: folder.clone(),
        listen: Some(args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))),
        database: None,
        authenticator: None,
        progress: Box::new(out::note),
    };
    let service = Service::start(options).await?;
    let shown = show(&service, &folder).await;
    let figures = match shown {
        Ok(figures) => figures,
        Err(error) => {
            service.stop().await?;
            return Err(error.into());
        }
    };
    if args.exit {
        service.stop().await?;
        print_figures(&args, &figures, since)?;
        return Ok(());
    }
    print_figures(&args, &figures, since)?;
    out::note("Serving until Ctrl-C.");
    Ok(service.run_until(asked_to_stop()).await?)
}

fn set_up(folder: &Path) -> Result<()> {
    let set_up = || format!("cannot set the workspace {} up", folder.display());
    std::fs::create_dir_all(folder).with_context(set_up)?;
    template::write(folder).with_context(set_up)
}

/// What the demo came to.
struct Figures {
    runs: usize,
    by_status: BTreeMap<String, usize>,
    open_reviews: usize,
}

async fn show(service: &Service, folder: &Path) -> Result<Figures> {
    let engine = service.door.engine();
    let (mut documents, mut chunks) = (0, 0);
    for (name, bytes) in KNOWLEDGE {
        let added = ingest::add(&engine.store, engine.embedder.as_ref(), name, bytes, Label::Owner).await?;
        documents += 1;
        chunks += added.chunks;
    }
    out::note(&format!("memory     {documents} documents in {chunks} passages"));
    out::note(&format!("inbox      {} emails\n", INBOX.len()));
    let mut runs = Vec::with_capacity(INBOX.len());
    for (name, raw) in INBOX {
        let taken = mail::open(&service.mail, Bytes::from_static(raw), None)
            .await
            .with_context(|| format!("{name} was refused"))?;
        runs.extend(taken.run().map(|run| (*name, run))); // none of the example's mailboxes waits for more
    }
    let rows = watch(service, &runs).await?;
    let mut by_status: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        *by_status.entry(row.status.clone()).or_default() += 1;
    }
    let reviews = engine.store.reviews("open", None, None, LISTED).await?;
    explain(service, folder, &reviews)?;
    Ok(Figures { runs: rows.len(), by_status, open_reviews: reviews.len() })
}

/// Prints each run as it comes to rest.
async fn watch(service: &Service, runs: &[(&str, RunId)]) -> Result<Vec<RunRow>> {
    let engine = service.door.engine();
    let mut moved = engine.moved.subscribe();
    let mut open: Vec<_> = runs.to_vec();
    let mut rows = Vec::with_capacity(runs.len());
    let since = Instant::now();
    while !open.is_empty() {
        let mut still = Vec::new();
        for (name, run) in open {
            let row = engine.store.run_row(run).await?.context("a run that was just opened is not there")?;
            match row.status.as_str() {
                "queued" | "running" => still.push((name, run)),
                "waiting" if row.wake_at.is_some() => still.push((name, run)), // for another attempt, not for you
                _ => {
                    out::line(&describe(name, &row))?;
                    rows.push(row);
                }
            }
        }
        open = still;
        anyhow::ensure!(since.elapsed() < PATIENCE, "{} runs did not come to rest", open.len());
        if !open.is_empty() {
            // A hint, or a short while: hints may be missed, the table is the truth.
            let _ = tokio::time::timeout(LOOK, moved.recv()).await;
        }
    }
    Ok(rows)
}

fn describe(name: &str, row: &RunRow) -> String {
    let status = match row.status.as_str() {
        "waiting" => "waits for you",
        other => other,
    };
    let rest = format!("{name:<34} {:<12} {status:<14} ", row.workflow.as_str());
    format!("{rest}{}", out::cut(&row.title, out::width().saturating_sub(rest.len()).max(20)))
}

fn explain(service: &Service, folder: &Path, reviews: &[ReviewRow]) -> Result<(), Fail> {
    out::line(&format!("\n{} reviews wait for you:\n", reviews.len()))?;
    for review in reviews {
        out::line(&format!(
            "  {}  {}",
            short(review),
            out::cut(&review.title, out::width().saturating_sub(12))
        ))?;
    }
    let at = format!("--workspace {}", folder.display());
    let example = reviews.first().map_or_else(|| "ID".to_owned(), short);
    out::line(&format!(
        "\nDecide them from another terminal:\n\n  \
         steward reviews show {example} {at}\n  \
         steward reviews approve {example} {at}\n  \
         steward reviews edit {example} {at}\n  \
         steward reviews reject {example} --reason \"not now\" {at}\n\n\
         or over HTTP at {} with the token in {}.\n\
         What you approve is written to {}: no mail server is configured.",
        service.url(),
        folder.join(".steward/token").display(),
        folder.join(".steward/outbox").display(),
    ))
}

/// The end of an id, as lists show it and commands take it.
fn short(review: &ReviewRow) -> String {
    let id = review.id.to_string();
    id[id.len() - 8..].to_owned()
}

fn print_figures(args: &DemoArgs, figures: &Figures, since: Instant) -> Result<(), Fail> {
    let seconds = (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    if args.json {
        let figures = json!({
            "runs": figures.runs,
            "runs_by_status": figures.by_status,
            "open_reviews": figures.open_reviews,
            "seconds": seconds,
        });
        return out::line(&figures.to_string());
    }
    out::line(&format!("\n{} runs in {seconds:.1} s.", figures.runs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_example_is_part_of_the_demo() {
        for (folder, listed) in [("inbox", INBOX), ("knowledge", KNOWLEDGE)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
            let names = std::fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let listed: BTreeSet<String> = listed.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(listed, names.collect());
        }
    }
}
