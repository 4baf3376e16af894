//! Models that are asked outside of runs, at the workspace's cost.

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use steward::config::models::Models as Config;
use steward::config::workspace::Definitions;
use steward::domain::budget::Payer;
use steward::domain::event::{ErrorKind, ModelCall, StepError, ToolCall};
use steward::domain::label::Label;
use steward::domain::plan::Answer;
use steward::domain::tool::Tool;
use steward::domain::workflow::Agent;
use steward::models::ledger::{Ledger, Terms};
use steward::models::tools::Tools;
use steward::models::witness::{Hear, Witness};
use steward::models::{Asked, Encoder, Models};
use steward::orchestrator::lease::{LEASE, Lease};
use steward::store::Store;

use super::PATIENCE;

/// Settles what calls cost, and finds nothing.
struct Outside<'a>(&'a Models);

impl Witness for Outside<'_> {
    fn called(&self, call: ModelCall) {
        if let Some(reservation) = call.reservation {
            self.0.ledger().settle(reservation, call.cost_micros);
        }
    }

    fn looked_up(&self, _: ToolCall) {}

    fn hear(&self, _: &str, _: Option<&str>) -> Option<Hear> {
        None
    }
}

impl Tools for Outside<'_> {
    fn look_up<'a>(&'a self, _: Tool, _: &'a Value) -> BoxFuture<'a, Result<(Value, Label), StepError>> {
        Box::pin(async { Err(StepError::new(ErrorKind::Refused, "there is nothing to look into")) })
    }
}

/// Models with a ledger in `store`, under the budgets of the template.
pub async fn models(store: &Store, config: &Config, workspace: Value) -> Models {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (template, _) = Definitions::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let lease = Lease::take(store, LEASE, false).await.unwrap();
    let ledger = Ledger::start(store.config(), Terms::of(&template.settings, lease.clock())).await.unwrap();
    Models::start(config, workspace, None, Encoder::lazy(), ledger).await.unwrap()
}

/// Asks one agent.
pub async fn ask(models: &Models, agent: &Agent, with: &Value, label: Label) -> (Option<ModelCall>, Answer) {
    let payer = Payer::workspace(Duration::from_secs(60));
    let outside = Outside(models);
    let (limit, tools, witness) = (PATIENCE, &outside, &outside);
    let (call, answer) = models
        .answer(Asked {
            rounds: &[],
            agent,
            with,
            label,
            limit,
            payer: &payer,
            tools,
            witness,
            keeping: None,
        })
        .await;
    call.iter().for_each(|call| outside.called(call.clone()));
    (call, answer)
}
