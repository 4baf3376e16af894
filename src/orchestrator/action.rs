//! The work of an action step: reads from memory, and effects through their connector.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::connectors::{Call, Connector, records};
use crate::domain::action::Action;
use crate::domain::duration::Span;
use crate::domain::event::{ErrorKind, Proposal, StepError};
use crate::domain::ids::{NodeId, StepId};
use crate::domain::label::Label;
use crate::domain::plan::{EffectResult, Stimulus};
use crate::memory::search;
use crate::orchestrator::engine::Engine;
use crate::orchestrator::{failpoint, keys};

/// What a connector gets beyond the step's time: it keeps its own, and knows more when it runs out.
const GRACE: Duration = Duration::from_secs(5);

/// Reads from memory or records.
pub(super) async fn read(
    engine: Arc<Engine>,
    step: StepId,
    action: Action,
    label: Label,
    timeout: Span,
) -> Stimulus {
    let reading = async {
        match action.action.as_str() {
            "memory.search" => {
                search::search_action(&engine.store, engine.embedder.as_ref(), &action.params).await
            }
            "records.get" => records::records_get(&engine.store, &action).await,
            other => Err(StepError::new(ErrorKind::Invalid, format!("`{other}` reads nothing"))),
        }
    };
    let result: Result<(Value, Label), StepError> = match tokio::time::timeout(timeout.0, reading).await {
        Ok(result) => result.map(|(value, found)| (value, found.join(label))),
        Err(_) => Err(StepError::new(ErrorKind::Timeout, format!("no answer within {timeout}"))),
    };
    Stimulus::Read(step, result)
}

/// Carries an effect out. It is durable as started, by `node`, before this is called.
pub(super) async fn perform(
    engine: Arc<Engine>,
    node: NodeId,
    proposal: Proposal,
    timeout: Span,
) -> Stimulus {
    failpoint::hit_at(failpoint::EFFECT_STARTED, &proposal.action.action);
    let result = match prepare(&engine, &proposal).await {
        Ok((connector, call)) => {
            // A process may have stood still between the commit and this line. Whether the effect still is
            // this node's to begin, only a lease that holds for sure tells: while it may be over, wait; once
            // it is lost, whoever owns the run decides what becomes of it, and this run's actor is ended.
            if !engine.lease.holds(node).await {
                return std::future::pending().await;
            }
            match tokio::time::timeout(timeout.0 + GRACE, connector.perform(&call)).await {
                Ok(result) => result,
                Err(_) => EffectResult::Unknown(format!("the connector gave no answer within {timeout}")),
            }
        }
        Err(error) => EffectResult::Failed(error),
    };
    failpoint::hit_at(failpoint::EFFECT_DONE, &proposal.action.action);
    keys::learn(&engine, &proposal.action, &result).await;
    Stimulus::Effect(proposal.step, result)
}

/// Looks up whether an effect happened.
pub(super) async fn probe(engine: Arc<Engine>, proposal: Proposal, timeout: Span) -> Stimulus {
    let result = match prepare(&engine, &proposal).await {
        Ok((connector, call)) => match tokio::time::timeout(timeout.0, connector.probe(&call)).await {
            Ok(result) => result,
            Err(_) => EffectResult::Unknown(format!("looking it up took longer than {timeout}")),
        },
        Err(error) => EffectResult::Unknown(error.message),
    };
    Stimulus::Probed(proposal.step, result)
}

async fn prepare(engine: &Engine, proposal: &Proposal) -> Result<(Arc<dyn Connector>, Call), StepError> {
    let name = &proposal.action.action;
    let connector = engine
        .connectors
        .get(name)
        .ok_or_else(|| StepError::new(ErrorKind::Invalid, format!("no connector serves `{name}`")))?;
    let started_at = engine.store.effect_started_at(proposal.effect).await;
    let started_at = started_at.map_err(|error| StepError::new(ErrorKind::Unavailable, error.to_string()))?;
    let call = Call {
        effect: proposal.effect,
        key: proposal.key.clone(),
        action: proposal.action.clone(),
        label: Label::join_all(proposal.labels.values().copied()),
        at: started_at.unwrap_or_else(|| engine.now()),
    };
    Ok((connector, call))
}
