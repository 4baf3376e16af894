//! The agent's side of a batch: a call is put off, and taken up again as the answer of its model.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::domain::budget::Payer;
use crate::domain::event::ModelCall;
use crate::domain::ids::CallId;
use crate::domain::label::Label;
use crate::domain::workflow::BATCH_WAIT;
use crate::models::ask::{Paid, Target};
use crate::models::batch::outcome;
use crate::models::chain::{Given, Walk, millis};
use crate::models::error::ModelError;
use crate::models::estimate;
use crate::models::gateway::Outcome;
use crate::models::ledger::{Reservation, charge};
use crate::models::price::Tariff;
use crate::models::record::Making;
use crate::models::wire::Request;
use crate::store::batches::{BatchCall, NewBatchCall};
use crate::store::calls::Body;

/// How much longer than its step waits the money of a call is set aside: until the step has gone on.
const SETTLING: Duration = Duration::from_secs(3600);

impl Walk<'_> {
    /// Puts the first call of a conversation off, if it may wait, the model's provider takes batches, and nothing
    /// is to be said over several turns; nothing otherwise: it is made at once, and falls back as ever.
    pub(crate) async fn put_off(
        &self,
        name: &str,
        draft: Option<&Given>,
    ) -> Result<Option<CallId>, ModelError> {
        let alone = self.agent.tools.is_empty() && (self.agent.votes.is_none() || draft.is_some());
        let Some(keeping) = self.asked.keeping.filter(|keeping| keeping.may_wait && alone) else {
            return Ok(None);
        };
        let Some(remote) = self.models.remotes.get(name).filter(|remote| remote.batch) else {
            return Ok(None);
        };
        let Ok(gateway) = &remote.gateway else { return Ok(None) };
        if gateway.trouble().borrow().is_some() {
            return Ok(None);
        }
        let target = Target { name, remote, gateway, part: draft.map(|_| "finalize".to_owned()) };
        let mut request = self.opening(&target, draft)?;
        if let Some(making) = self.making(&target, &mut request, 0)
            && making.look().await.is_some()
        {
            return Ok(None); // a call that costs nothing
        }
        let body = Body::pack(request.body(remote.dialect).to_string().as_bytes());
        if body.clipped {
            return Ok(None);
        }
        let payer = Payer { patience: BATCH_WAIT.0 + SETTLING, ..self.asked.payer.clone() };
        let ledger = &self.models.ledger;
        let reserved = ledger.set_aside(&payer, name, remote, &request, Tariff::Batch).await;
        let reservation = reserved.map_err(|error| self.unpaid(&target, error))?;
        let call = NewBatchCall {
            id: CallId(Uuid::now_v7()),
            run: keeping.run,
            step: keeping.step.clone(),
            provider: remote.provider.clone(),
            remote: remote.id.clone(),
            model: name.to_owned(),
            reservation: reservation.as_ref().map(|paid| (paid.id, paid.worst_micros)),
            request: body,
            draft: draft.map(|draft| json!(draft)),
        };
        if let Err(error) = keeping.calls.put_off(&call).await {
            tracing::warn!(%error, run = %call.run, step = %call.step, "a call that may wait is made at once");
            reservation.iter().for_each(|paid| ledger.release(paid.id));
            return Ok(None);
        }
        Ok(Some(call.id))
    }

    /// The request of the first turn, as far as it may be sent.
    pub(crate) fn opening(&self, target: &Target<'_>, draft: Option<&Given>) -> Result<Request, ModelError> {
        let mut request = self.question(target, draft)?;
        request.label = draft.map_or(self.asked.label, |draft| draft.label).join(Label::Model);
        self.within_tokens(target, &mut request)?;
        self.fits(target, &request)?;
        Ok(request)
    }

    /// What came back, when it is this model's turn.
    pub(crate) fn take_batched(&self, model: &str) -> Option<BatchCall> {
        let mut batched = self.batched();
        batched.take_if(|batched| batched.model == model)
    }

    /// What came back as the call that it is: kept under its own id, paid at the price of a batch.
    pub(crate) fn came(
        &self,
        target: &Target<'_>,
        request: &Request,
        batched: &BatchCall,
        making: Option<&mut Making>,
    ) -> (Outcome, Option<Paid>) {
        if let Some(making) = making {
            making.came(batched);
        }
        let mut call = Outcome { result: outcome(&batched.ended), took: batched.took };
        if let Ok(reply) = &mut call.result
            && reply.error.is_none()
        {
            estimate::complete(reply, request, target.remote);
        }
        let paid = batched.reservation.map(|(id, worst_micros)| {
            let reservation = Reservation { id, worst_micros };
            let price = target.remote.price.as_ref();
            let cost = price.map(|price| charge(&call, price, &reservation, Tariff::Batch).unwrap_or(0));
            Paid { reservation: id, cost_micros: cost.unwrap_or(worst_micros) }
        });
        (call, paid)
    }

    /// What came back for a model that is not asked any more is told all the same: it was paid for.
    pub(crate) fn tell_unused(&self) {
        let Some(batched) = self.batched().take() else { return };
        self.tale.called(ModelCall {
            outcome: "it came back from its batch when the model was not in the tier any more".to_owned(),
            cost_micros: batched.reservation.filter(|_| batched.was_sent()).map_or(0, |(_, worst)| worst),
            reservation: batched.reservation.map(|(id, _)| id),
            millis: millis(batched.took),
            model: batched.model,
            batch: true,
            ..ModelCall::default()
        });
    }
}
