//! The one checker of the invariants: reads the whole database and says what does not hold.
//!
//! Runs are read in pages, each page in one snapshot, so that rows and journal of a run are of the
//! same moment while everything goes on, and a million of them need no more memory than a few hundred.
//!
//! - [`page`] reads a page; [`waits`] holds that a run has ended, is owned or will be woken;
//! - [`story`] replays what a journal tells of effects and reviews, apart from [`Run::fold`];
//! - [`tables`] holds the rows of effects and reviews against it;
//! - [`ledger`] holds what calls cost against what was set aside for them;
//! - [`outside`] looks from outside: what others received, what was acknowledged, where secrets went.
//!
//! It shares no rule with the planner: a fault there is found here, not repeated.

mod ledger;
mod outside;
mod page;
mod story;
mod tables;
mod waits;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::domain::action::{Action, Repeat};
use crate::domain::digest::Digest;
use crate::domain::event::Event;
use crate::domain::ids::{NodeId, RunId};
use crate::domain::run::Run;
use crate::domain::workflow::Version;
use crate::store::journal::read::check_chain;
use crate::store::{Store, StoreError};
pub use outside::{Canary, Observed, Received};
use page::Facts;
use story::Told;

/// Violations that are listed; all of them are counted.
const LISTED: usize = 100;

/// Runs that are kept for a second look, because a moment may explain them; the rest is looked at once.
const SUSPECTS: usize = 10_000;

/// How long the owner of a run may be without a lease before that is a fault: nodes are swept every
/// second, and one that is being taken over is nobody's for a moment.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What this checker does not hold yet, for reports: silence must not pass for a promise.
pub const NOT_CLAIMED: &[&str] =
    &["I13: export (there is none yet)", "I14: progress after a fault (the crash harness holds it)"];

/// What is held; the design names each by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Invariant {
    /// An acknowledged trigger is never lost.
    I1,
    /// Every run ends or visibly waits with something that wakes it.
    I2,
    /// Per key at most one effect, but for what the owner chose to repeat; exactly one if it succeeded.
    I3,
    /// No effect without a valid approval of that exact digest where policy asked for one.
    I4,
    /// One decision per review.
    I5,
    /// A node writes to no run it does not own.
    I6,
    /// Numbers have no gap; attempts follow each other.
    I7,
    /// Hash chains verify.
    I8,
    /// Money adds up.
    I9,
    /// Compensation finishes or asks.
    I10,
    /// What is complete is not done again unless told to.
    I11,
    /// No secret in journal, tables or logs.
    I12,
}

/// Something that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Violation {
    /// What was to hold.
    pub invariant: Invariant,
    /// The run in which it does not, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What does not, one sentence.
    pub what: String,
}

/// How much was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Checked {
    /// Runs.
    pub runs: u64,
    /// Of these, runs that have not ended.
    pub unfinished: u64,
    /// Journal entries.
    pub entries: u64,
    /// Attempts of steps.
    pub attempts: u64,
    /// Effects.
    pub effects: u64,
    /// Reviews.
    pub reviews: u64,
    /// Calls of models.
    pub model_calls: u64,
    /// Calls that money was set aside for.
    pub paid_calls: u64,
    /// Runs of which content was erased: their chain alone can be held.
    pub erased: u64,
    /// Acknowledgements looked up.
    pub acknowledged: u64,
    /// Keys looked up that others received something under.
    pub received: u64,
    /// Secrets looked for.
    pub secrets: u64,
    /// Bytes of logs read.
    pub log_bytes: u64,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// How much was looked at.
    pub checked: Checked,
    /// How many violations there are.
    pub violated: u64,
    /// How many runs have one.
    pub runs_violated: u64,
    /// The first hundred of them.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether everything holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violated == 0
    }

    fn add(&mut self, violation: Violation) {
        self.violated += 1;
        if self.violations.len() < LISTED {
            self.violations.push(violation);
        }
    }
}

/// What a check rests on besides the database.
pub struct Audit<'a> {
    /// What happens when an action is carried out twice, as its connector declares.
    pub repeat: &'a (dyn Fn(&Action) -> Repeat + Send + Sync),
    /// Secrets that must not be found.
    pub secrets: &'a [Canary],
    /// Log files in which they must not be found either.
    pub logs: &'a [PathBuf],
    /// What others saw of Steward.
    pub observed: &'a Observed,
    /// How long a run may belong to a node without a lease before that counts; see [`PATIENCE`].
    pub patience: Duration,
    /// Told after each page.
    pub progress: &'a (dyn Fn(&Checked) + Send + Sync),
}

/// The versions met so far: few, for many runs.
type Versions = HashMap<Digest, Option<Arc<Version>>>;

/// A run whose owner has no lease: a fault only if it stays so.
struct Suspect {
    run: RunId,
    entries: usize,
    node: Option<NodeId>,
}

impl Store {
    /// Checks every invariant that the database, and what was observed of it, can tell of.
    ///
    /// # Errors
    /// When the database cannot be read. What does not hold is no error but a finding.
    pub async fn audit(&self, audit: &Audit<'_>) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut suspects = Vec::new();
        let mut versions = Versions::new();
        let mut after = RunId(uuid::Uuid::nil());
        loop {
            let page = self.audit_page(after).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for facts in &page {
                self.learn_version(facts, &mut versions).await?;
                check_run(facts, audit, &versions, &mut report, &mut suspects);
                tokio::task::yield_now().await; // hashing a page must not hold up who does real work
            }
            (audit.progress)(&report.checked);
        }
        self.look_again(suspects, audit, &mut report).await?;
        self.audit_across(&mut report).await?;
        self.audit_ledger(&mut report).await?;
        self.audit_outside(audit, &mut report).await?;
        Ok(report)
    }

    async fn learn_version(&self, facts: &Facts, versions: &mut Versions) -> Result<(), StoreError> {
        let Some(digest) = facts.version.filter(|digest| !versions.contains_key(digest)) else {
            return Ok(());
        };
        let version = match self.version(digest).await {
            Ok(row) => row.map(|row| row.version),
            Err(StoreError::Corrupt { .. }) => None, // as good as missing, and found as such
            Err(error) => return Err(error),
        };
        versions.insert(digest, version);
        Ok(())
    }

    async fn look_again(
        &self,
        suspects: Vec<Suspect>,
        audit: &Audit<'_>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        if suspects.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(audit.patience).await;
        for suspect in suspects {
            let Some(facts) = self.audit_run(suspect.run).await? else { continue };
            let still = facts.entries.len() == suspect.entries && facts.node == suspect.node;
            if let Some(what) = waits::abandoned(&facts).filter(|_| still) {
                report.runs_violated += 1;
                report.add(Violation { invariant: Invariant::I2, run: Some(facts.id), what });
            }
        }
        Ok(())
    }
}

/// Where the findings about one run go.
struct Findings<'r> {
    run: RunId,
    count: u64,
    report: &'r mut Report,
}

impl Findings<'_> {
    fn add(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.count += 1;
        self.report.add(Violation { invariant, run: Some(self.run), what: what.into() });
    }
}

fn check_run(
    facts: &Facts,
    audit: &Audit<'_>,
    versions: &Versions,
    report: &mut Report,
    suspects: &mut Vec<Suspect>,
) {
    count(facts, &mut report.checked);
    let mut findings = Findings { run: facts.id, count: 0, report };
    waits::check(facts, &mut findings);
    if waits::abandoned(facts).is_some() && suspects.len() < SUSPECTS {
        suspects.push(Suspect { run: facts.id, entries: facts.entries.len(), node: facts.node });
    }
    if is_whole(facts, &mut findings) {
        check_content(facts, audit, versions, &mut findings);
    }
    outside::secrets_in_run(facts, audit.secrets, &mut findings);
    if findings.count > 0 {
        report.runs_violated += 1;
    }
}

fn count(facts: &Facts, checked: &mut Checked) {
    checked.runs += 1;
    checked.unfinished += u64::from(!facts.finished);
    checked.entries += facts.entries.len() as u64;
    checked.effects += facts.effects.len() as u64;
    checked.reviews += facts.reviews.len() as u64;
}

/// Whether the journal is whole: only then is it worth asking what it tells.
fn is_whole(facts: &Facts, findings: &mut Findings<'_>) -> bool {
    if let Some(why) = &facts.unreadable {
        findings.add(Invariant::I8, why.clone());
        return false;
    }
    let Some(last) = facts.entries.last() else {
        findings.add(Invariant::I1, "its journal is empty");
        return false;
    };
    if let Err(broken) = check_chain(facts.id, &facts.entries) {
        let invariant = if broken.is_gap { Invariant::I7 } else { Invariant::I8 };
        findings.add(invariant, format!("entry {}: {}", broken.seq, broken.why));
        return false;
    }
    // While a run is running its row keeps the number it began to run with.
    let behind = facts.status == "running" && facts.seq < last.seq;
    if last.seq != facts.seq && !behind {
        // A writer that was fenced off has moved one of the two without the other.
        let what = format!("its row stands at entry {}, its journal at entry {}", facts.seq, last.seq);
        findings.add(Invariant::I6, what);
        return false;
    }
    true
}

fn check_content(facts: &Facts, audit: &Audit<'_>, versions: &Versions, findings: &mut Findings<'_>) {
    if facts.entries.iter().any(|entry| entry.data.is_none()) {
        findings.report.checked.erased += 1;
        return;
    }
    let mut events = Vec::with_capacity(facts.entries.len());
    for entry in &facts.entries {
        match serde_json::from_value::<Event>(json!({"kind": entry.kind, "data": entry.data})) {
            Ok(event) => events.push((event, entry.at)),
            Err(error) => {
                return findings.add(Invariant::I7, format!("entry {} cannot be read: {error}", entry.seq));
            }
        }
    }
    let before = findings.count;
    let told = story::tell(&events, audit.repeat, findings);
    findings.report.checked.attempts += told.attempts;
    findings.report.checked.model_calls += told.model_calls;
    match Run::fold(facts.id, events) {
        Ok(run) => check_fold(facts, &run, &told, versions, findings),
        // One cause, one finding: the story has named it better already.
        Err(illegal) if findings.count == before => findings.add(Invariant::I7, illegal.to_string()),
        Err(_) => {}
    }
    if findings.count == before {
        tables::check(facts, &told, findings);
    }
}

fn check_fold(facts: &Facts, run: &Run, told: &Told, versions: &Versions, findings: &mut Findings<'_>) {
    waits::check_fold(facts, run, findings);
    match facts.version.and_then(|digest| versions.get(&digest)) {
        Some(Some(version)) => waits::check_undone(facts, run, version, findings),
        _ => findings.add(Invariant::I7, "the version it is pinned to is missing"),
    }
    if facts.version != Some(run.opened.version) {
        findings.add(Invariant::I7, "its row is pinned to another version than its journal");
    }
    let shown: i64 = run.steps.values().map(|record| record.cost_micros).sum();
    if shown != told.cost_micros {
        let what =
            format!("it shows a cost of {shown} micros, its model calls add up to {}", told.cost_micros);
        findings.add(Invariant::I9, what);
    }
}
