//! The code that carries effects out.
//!
//! A [`Connector`] serves one or more actions of [`crate::domain::action::ACTIONS`]. It is given a
//! [`Call`] whose effect is already durable as `started`, and says exactly one of: it happened, it did
//! not happen, or nobody can tell. It never retries: that is the run's decision.
//!
//! - [`email`]: `email.send`, over SMTP or into an outbox folder;
//! - [`http`]: `http.request`, to allowed hosts alone;
//! - [`records`]: `records.put`, into Steward's own memory;
//! - [`stages`]: `workflow.stage`, how far a version is trusted;
//! - [`registry`]: which connector serves which action.

pub mod email;
mod heard;
pub mod http;
mod params;
pub mod records;
pub mod registry;
pub mod stages;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::domain::action::{Action, Repeat};
use crate::domain::ids::EffectId;
use crate::domain::plan::EffectResult;

/// One effect to carry out.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which effect.
    pub effect: EffectId,
    /// The key under which it happens at most once.
    pub key: String,
    /// Exactly what to do.
    pub action: Action,
    /// Where its least trusted parameter came from.
    pub label: crate::domain::label::Label,
    /// When it was first started: the same for every repetition, so that repetitions are the same bytes.
    pub at: Timestamp,
}

/// Carries effects out.
pub trait Connector: Send + Sync + 'static {
    /// The actions it serves.
    fn actions(&self) -> &'static [&'static str];

    /// What happens when this action is carried out twice.
    fn repeat(&self, action: &Action) -> Repeat;

    /// Carries the effect out. Bounded in time by the connector itself.
    fn perform<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult>;

    /// Looks up whether the effect happened: [`EffectResult::Succeeded`], [`EffectResult::Absent`],
    /// or [`EffectResult::Unknown`] with what is known.
    fn probe<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, EffectResult>;
}
