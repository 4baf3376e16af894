//! Where mail that comes in meets the reviews: a mail to an address for replies goes to its review.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::orchestrator::door::Door;
use crate::reviews::email::Desk;
use crate::reviews::email::reply::{Replies, Reply};
use crate::store::StoreError;
use crate::triggers::mail::{Arrived, Aside};

struct ToReviews(Replies);

/// Takes replies to the owner's mail.
pub(super) fn aside(desk: Arc<Desk>, door: Door) -> Arc<dyn Aside> {
    Arc::new(ToReviews(Replies::new(desk, door)))
}

impl Aside for ToReviews {
    fn wants(&self, recipients: &[String]) -> bool {
        self.0.are_for_us(recipients)
    }

    fn take<'a>(&'a self, arrived: Arrived<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let email = arrived.email;
            let reply = Reply {
                recipients: arrived.recipients.to_vec(),
                to: email.to.clone(),
                cc: email.cc.clone(),
                from: email.from.clone(),
                message_id: email.message_id.clone(),
                body: email.body.clone(),
                auto: email.auto || email.list,
                digest: arrived.digest,
                proof: arrived.proof,
            };
            self.0.hear(&reply).await.map(drop)
        })
    }
}
