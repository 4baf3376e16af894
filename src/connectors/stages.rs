//! `workflow.stage`: changes how far a version of a workflow is trusted, and tells the owner.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::time::timeout;

use crate::connectors::params::{Params, invalid};
use crate::connectors::{Call, Connector};
use crate::domain::action::{Action, Repeat, STAGE_ACTION};
use crate::domain::autonomy::own;
use crate::domain::digest::Digest;
use crate::domain::event::{ErrorKind, StepError};
use crate::domain::notice::{NoticeKind, Severity};
use crate::domain::plan::EffectResult;
use crate::domain::workflow::Stage;
use crate::store::notices::News;
use crate::store::stages::{Restage, Restaged};
use crate::store::{Store, StoreError};

/// How long the statements may take: far more than they need.
const WAIT: Duration = Duration::from_secs(20);

/// Changes stages.
#[derive(Clone)]
pub struct Stages {
    store: Store,
}

impl Stages {
    /// In `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn change(&self, call: &Call) -> EffectResult {
        let wanted = match Wanted::of(call) {
            Ok(wanted) => wanted,
            Err(error) => return EffectResult::Failed(error),
        };
        let change = Restage {
            version: wanted.version,
            was: Some(wanted.was),
            stage: wanted.stage,
            by: own::WORKFLOW,
            reason: wanted.reason,
            effect: Some(call.effect),
        };
        // In doubt it is done again: the same effect does it once.
        let restaged = match timeout(WAIT, self.store.restage(&change)).await {
            Ok(Ok(Some(restaged))) => restaged,
            Ok(Ok(None)) => return EffectResult::Failed(invalid("there is no such version")),
            Ok(Err(error)) if error.retryable() => return EffectResult::Unknown(error.to_string()),
            Ok(Err(error)) => {
                return EffectResult::Failed(StepError::new(ErrorKind::Internal, error.to_string()));
            }
            Err(_) => return EffectResult::Unknown("the database did not answer in time".into()),
        };
        let Restaged { workflow, number, was, changed, again } = &restaged;
        if *workflow != wanted.workflow.into() {
            tracing::warn!(%workflow, asked = wanted.workflow, "a stage was changed under another name");
        }
        if !changed && !again && *was != wanted.stage {
            let message =
                format!("version {number} of `{workflow}` is {}, not {}", was.as_str(), wanted.was.as_str());
            return EffectResult::Failed(StepError::new(ErrorKind::Conflict, message));
        }
        if let Err(error) = self.tell(&restaged, &wanted).await {
            return EffectResult::Unknown(error.to_string());
        }
        let stage = wanted.stage.as_str();
        tracing::info!(%workflow, version = number, stage, changed, "the stage of a version was changed");
        EffectResult::Succeeded(json!({"workflow": workflow, "number": number, "stage": stage}))
    }

    /// The owner hears of it, whoever wanted it. A notice that stands is not told twice.
    async fn tell(&self, restaged: &Restaged, wanted: &Wanted<'_>) -> Result<(), StoreError> {
        let Restaged { workflow, number, .. } = restaged;
        let stage = wanted.stage.as_str();
        let (severity, title) = match wanted.stage {
            Stage::Live => {
                (Severity::Info, format!("{workflow}, version {number}, acts by policy alone now"))
            }
            _ => (Severity::Warning, format!("{workflow}, version {number}, is {stage} again")),
        };
        let news = News {
            kind: NoticeKind::Autonomy,
            subject: &format!("{workflow}/{number}/{stage}"),
            severity,
            title: &title,
            detail: wanted.reason,
            run: None,
        };
        self.store.notice(&news).await.map(|_| ())
    }
}

struct Wanted<'a> {
    workflow: &'a str,
    version: Digest,
    was: Stage,
    stage: Stage,
    reason: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(call: &'a Call) -> Result<Self, StepError> {
        let params = Params::of(&call.action)?;
        let stage = |name| {
            let text = params.need(name)?;
            Stage::parse(text).ok_or_else(|| invalid(format!("`{name}` is no stage: {text}")))
        };
        let version = params.need("version")?;
        Ok(Self {
            workflow: params.need("workflow")?,
            version: version.parse().map_err(|_| invalid(format!("`version` is no digest: {version}")))?,
            was: stage("was")?,
            stage: stage("stage")?,
            reason: params.text("reason")?.unwrap_or_default(),
        })
    }
}

impl Connector for Stages {
    fn actions(&self) -> &'static [&'static str] {
        &[STAGE_ACTION]
    }

    fn repeat(&self, _: &Action) -> Repeat {
        Repeat::Natural
    }

    fn perform<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        Box::pin(self.change(call))
    }

    /// Doing it again is looking it up.
    fn probe<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult> {
        self.perform(call)
    }
}
