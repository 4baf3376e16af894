//! The observer: counts what the owner decided, and acts on what it shows. Where a version has earned trust
//! or lost it, it opens a run of Steward's own workflow ([`crate::domain::autonomy::own`]), which asks or
//! does; where approvals of high risk come too fast to have been read, it says so.
//!
//! It stands behind the decisions and holds none of them up. All it knows is in the database, and every
//! proposal has a key: however many nodes observe, one occasion is asked about once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::workspace::Definitions;
use crate::domain::autonomy::own::{self, StageProposal};
use crate::domain::autonomy::{Due, Evidence, Hasty, Rules, judge, reaches_out, too_fast};
use crate::domain::digest::Digest;
use crate::domain::ids::RunId;
use crate::domain::label::Label;
use crate::domain::notice::{NoticeKind, Severity};
use crate::orchestrator::control::{Control, ControlError, control};
use crate::orchestrator::door::{Door, OpenError, Request};
use crate::store::StoreError;
use crate::store::decisions::{AT_ONCE, Looked, Merits, Unweighed};
use crate::store::journal::Opened;
use crate::store::notices::News;
use crate::store::stages::StageRow;
use crate::store::workflows::VersionRow;

/// How often it looks for decisions.
const POLL: Duration = Duration::from_secs(1);

/// How often it looks at every workflow although nothing was decided: its own last words may have been lost.
const ANYWAY: Duration = Duration::from_secs(60);

/// Counted decisions that one round takes on, in thousands: the first round of an old installation has years.
const BATCHES: usize = 100;

/// Who withdraws a question that no longer stands.
const WHO: &str = "steward";

/// Observes, for one node.
pub struct Observer {
    work: JoinHandle<()>,
}

/// Why a round was not finished; the next one begins where it left off.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a change of stage cannot be proposed: {0}")]
    Open(#[from] OpenError),
    #[error("a question that no longer stands cannot be withdrawn: {0}")]
    Control(#[from] ControlError),
}

struct Desk {
    door: Door,
    definitions: Arc<Definitions>,
}

/// What the last round saw.
#[derive(Clone, Copy, Default)]
struct Seen {
    failed_undo: Option<Timestamp>,
    /// When every workflow was looked at; not at all, when the last round was not finished.
    looked: Option<Instant>,
}

impl Observer {
    /// Begins.
    #[must_use]
    pub fn start(door: Door, definitions: Arc<Definitions>) -> Self {
        let desk = Arc::new(Desk { door, definitions });
        Self { work: tokio::spawn(desk.work()) }
    }

    /// Ends. What was not counted is counted after the next start.
    pub async fn stop(self) {
        self.work.abort();
        let _ = self.work.await; // it was cancelled
    }
}

impl Desk {
    async fn work(self: Arc<Self>) {
        let mut seen = Seen::default();
        loop {
            // A task of its own: a crash must not end the observer.
            let round = self.clone();
            match tokio::spawn(async move { round.round(seen).await }).await {
                Ok(Ok(now)) => seen = now,
                // What was counted by then is counted: the next round looks whatever it counts itself.
                Ok(Err(error)) => {
                    seen.looked = None;
                    tracing::warn!(%error, "decisions could not be looked at; the next look comes in a second");
                }
                Err(crash) => {
                    seen.looked = None;
                    tracing::error!(%crash, "the observer crashed; the next look comes in a second");
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn round(&self, seen: Seen) -> Result<Seen, Trouble> {
        let engine = self.door.engine();
        if engine.lease.surely().is_none() {
            return Ok(seen); // the others do it meanwhile
        }
        let hasty = self.definitions.settings.autonomy.hasty();
        let mut counted = 0;
        for _ in 0..BATCHES {
            let batch = engine.store.count_decisions(hasty).await?;
            counted += batch;
            if batch < AT_ONCE {
                break;
            }
        }
        for unweighed in engine.store.unweighed().await? {
            self.weigh(&unweighed, hasty).await?;
        }
        let failed_undo = engine.store.latest_failed_undo().await?;
        let due = seen.looked.is_none_or(|at| at.elapsed() >= ANYWAY);
        if counted == 0 && failed_undo == seen.failed_undo && !due {
            return Ok(seen);
        }
        self.look(hasty).await?;
        Ok(Seen { failed_undo, looked: Some(Instant::now()) })
    }

    /// Every workflow: is a change of its stage due, and is what was asked about it earlier still a question? All
    /// of them are read together.
    async fn look(&self, hasty: Hasty) -> Result<(), Trouble> {
        let engine = self.door.engine();
        let store = &engine.store;
        let current: Vec<_> = engine.workflows().iter().filter_map(|name| engine.current(name)).collect();
        let versions: Vec<Digest> = current.iter().map(|row| row.digest).collect();
        let mut asked: BTreeMap<Digest, Vec<(RunId, String)>> = BTreeMap::new();
        for (version, run, stage) in store.open_proposals(&versions).await? {
            asked.entry(version).or_default().push((run, stage));
        }
        // The stages as they are, with since when: the engine's own may be a moment old.
        let staged = store.stages_of(&versions).await?;
        let latest = |row: &StageRow| {
            let rules = self.definitions.autonomy(&row.workflow);
            rules.demote.and_then(|rule| rule.below).map_or(0, |below| below.of)
        };
        let wanted: Vec<_> = staged
            .iter()
            .map(|row| Looked { version: row.digest, since: row.staged_at, latest: latest(row) })
            .collect();
        let mut merits = store.merits(&wanted, hasty).await?;
        for row in &staged {
            let (asked, merits) = (asked.remove(&row.digest), merits.remove(&row.digest));
            let Some(version) = current.iter().find(|version| version.digest == row.digest) else { continue };
            let looked = self.look_at(row, version, asked.unwrap_or_default(), merits.unwrap_or_default());
            // What goes wrong with one workflow is no reason to leave the others alone.
            if let Err(error) = looked.await {
                tracing::warn!(workflow = %row.workflow, %error,
                    "whether a version has earned trust could not be looked at");
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        staged: &StageRow,
        version: &VersionRow,
        asked: Vec<(RunId, String)>,
        merits: Merits,
    ) -> Result<(), Trouble> {
        let rules = self.definitions.autonomy(&staged.workflow);
        let here = staged.stage.as_str();
        for (run, _) in asked.iter().filter(|(_, stage)| stage == here) {
            self.withdraw(*run).await?;
        }
        if rules == Rules::default() || asked.iter().any(|(_, stage)| stage != here) {
            return Ok(());
        }
        let Merits { actions, rejected_samples, failed_undos, latest } = merits;
        let evidence = Evidence {
            stage: staged.stage,
            reaches_out: reaches_out(&version.version),
            actions,
            rejected_samples,
            failed_undos,
            latest,
        };
        match judge(&rules, &evidence) {
            Some(due) => self.propose(staged, due, &evidence).await,
            None => Ok(()),
        }
    }

    /// Opens the run that asks, or that does what the owner said is to be done by itself.
    async fn propose(&self, staged: &StageRow, due: Due, evidence: &Evidence) -> Result<(), Trouble> {
        let since = staged.staged_at.as_microsecond();
        let key = format!("{}/{}/{since}/{}", staged.digest, due.stage.as_str(), due.occasion);
        let proposal = StageProposal {
            workflow: staged.workflow.clone(),
            number: staged.number,
            version: staged.digest.to_string(),
            was: staged.stage,
            stage: due.stage,
            automatic: due.automatic,
            why: due.why,
            decided: json!(evidence.actions),
        };
        let request = Request {
            workflow: own::WORKFLOW.into(),
            input: proposal.input(),
            label: Label::System,
            verified: None,
            trigger: "autonomy",
            key: Some(key),
        };
        if let Opened::New(run) = self.door.open(request).await? {
            tracing::info!(%run, workflow = %staged.workflow, version = staged.number,
                stage = due.stage.as_str(), automatic = due.automatic, "a change of stage is due");
        }
        Ok(())
    }

    /// Somebody was faster: what is asked is no question any more.
    async fn withdraw(&self, run: RunId) -> Result<(), Trouble> {
        match control(self.door.engine(), run, &Control::Cancel, WHO).await {
            Ok(()) => {
                self.door.wake(run);
                Ok(())
            }
            // It was decided or ended in this moment.
            Err(ControlError::Store(error)) => Err(error.into()),
            Err(_) => Ok(()),
        }
    }

    /// Several in a row, or nothing is said: once may be a second look at what was read before. Each approval is
    /// weighed once, and what is told of it is told with that or not at all: a round that fails half-way leaves
    /// it to the next.
    async fn weigh(&self, unweighed: &Unweighed, hasty: Hasty) -> Result<(), Trouble> {
        let (engine, by) = (self.door.engine(), &unweighed.by);
        let latest = engine.store.latest_high(by, hasty.in_a_row.max(1)).await?;
        let seconds = hasty.within_ms as f64 / 1000.0;
        let news = News {
            kind: NoticeKind::Autonomy,
            subject: &format!("hasty/{by}"),
            severity: Severity::Warning,
            title: "Approvals of high risk come faster than they can be read",
            detail: &format!(
                "The last {} approvals of high risk ({by}) each came within {seconds} s of being shown or of the \
                 decision before. They do not count towards letting a workflow act by itself.",
                latest.len()
            ),
            run: None,
        };
        let news = too_fast(hasty, &latest).then_some(&news);
        if engine.store.weighed(&unweighed.reviews, news).await? {
            engine.news.notify_one();
        }
        Ok(())
    }
}
