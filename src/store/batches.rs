//! Calls of models that go to their provider in batches, and those batches.
//!
//! ```text
//! keep a call ─► its run waits for it ─► form ─► claim ─► uploaded ─► submitting ─► submitted ─► end
//!                └ nobody does: unsent
//! ```
//!
//! Everything that is done for a batch is fenced by its claim: who has lost it changes nothing. The end of a
//! call is an event of the call's own ([`Topic::CALL_ANSWERED`]), written in the statement that ends it, so that a run that
//! waits is always told.

mod statements;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::event::Topic;
use crate::domain::ids::{CallId, ReservationId, RunId, StepId};
use crate::store::calls::Body;
use crate::store::{Store, StoreError};

/// Calls ended in one statement because nobody took them.
const SWEPT: i64 = 500;

/// What kept a call from an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It was surely never sent.
    Unsent,
    /// The provider refused the account.
    Refused,
    /// The provider refused the batch, or failed with this call.
    Failed,
    /// Somebody cancelled the batch.
    Cancelled,
    /// The provider did not come to it in time; it is not charged for.
    Expired,
    /// Nobody can tell what became of it.
    Lost,
    /// It was sent, and its run waits no longer.
    Late,
}

impl Fault {
    const ALL: [Self; 7] =
        [Self::Unsent, Self::Refused, Self::Failed, Self::Cancelled, Self::Expired, Self::Lost, Self::Late];

    /// As the table spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::Late => "late",
        }
    }
}

/// A call that may wait.
#[derive(Clone, Debug)]
pub struct NewBatchCall {
    /// Its id, with which it goes to the provider and comes back.
    pub id: CallId,
    /// For which run.
    pub run: RunId,
    /// For which of its steps.
    pub step: StepId,
    /// Whose model it is.
    pub provider: String,
    /// The model's name there.
    pub remote: String,
    /// The model's name in `config/models.yaml`.
    pub model: String,
    /// What pays for it, and the most that it can cost, micro-units.
    pub reservation: Option<(ReservationId, i64)>,
    /// What is asked.
    pub request: Body,
    /// The draft that is gone over.
    pub draft: Option<Value>,
}

/// How a call of a batch ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which call.
    pub id: CallId,
    /// The status and body of its answer, or what kept it from one and why.
    pub how: Result<(u16, Body), (Fault, String)>,
}

/// A call that has ended.
#[derive(Clone, Debug)]
pub struct BatchCall {
    /// The model's name in `config/models.yaml`.
    pub model: String,
    /// What pays for it, and the most that it can cost.
    pub reservation: Option<(ReservationId, i64)>,
    /// What was asked, as long as that is kept.
    pub request: Option<Body>,
    /// The draft that was gone over.
    pub draft: Option<Value>,
    /// How it ended.
    pub ended: Ended,
    /// From the gathering to the end.
    pub took: Duration,
}

impl BatchCall {
    /// Whether the provider may have got it.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        !matches!(self.ended.how, Err((Fault::Unsent | Fault::Refused, _)))
    }
}

/// A call that nobody waited for any more when it ended.
#[derive(Clone, Debug)]
pub struct Unheard {
    /// Which call.
    pub id: CallId,
    /// What pays for it.
    pub reservation: ReservationId,
    /// The model's name in `config/models.yaml`.
    pub model: String,
    /// Whether it was surely never sent.
    pub unsent: bool,
}

/// How far a batch has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchStatus {
    /// It has surely not begun.
    Formed,
    /// It may have begun.
    Submitting,
    /// It has begun.
    Submitted,
}

/// A batch that somebody looks after.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its id here, and its metadata there.
    pub id: Uuid,
    /// Whose it is.
    pub provider: String,
    /// How far it has come.
    pub status: BatchStatus,
    /// The provider's id of the questions.
    pub file: Option<String>,
    /// The provider's id of the batch.
    pub batch: Option<String>,
    /// How often it failed in a row.
    pub failures: u32,
    /// How long ago it was formed.
    pub age: Duration,
    /// How long ago it was perhaps begun.
    pub perhaps: Option<Duration>,
    /// When that was.
    pub submitting_at: Option<Timestamp>,
}

/// How calls gather.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gathering {
    /// As many as this are enough, and no more go into one batch.
    pub size: u32,
    /// So many bytes are enough, and no more go into one batch.
    pub bytes: i64,
    /// The longest that the first one waits for others.
    pub within: Duration,
}

/// Who looks after a batch, and for how long unless he says so again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Claim {
    /// Who.
    pub by: Uuid,
    /// How long.
    pub span: Duration,
}

/// A step in the life of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress<'a> {
    /// The provider has the questions, under this id.
    Uploaded(&'a str),
    /// It is about to begin.
    Submitting,
    /// It has begun, under this id.
    Submitted(&'a str),
    /// Nothing new: the claim goes on.
    Held,
}

impl Store {
    /// Keeps a call that may wait.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_batch_call(&self, call: &NewBatchCall) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(statements::KEEP).await?;
        let (reservation, worst) = call.reservation.map_or((None, 0), |(id, worst)| (Some(id.0), worst));
        let params: [&(dyn ToSql + Sync); 11] = [
            &call.id.0,
            &call.run.0,
            &call.step.as_str(),
            &call.provider,
            &call.remote,
            &call.model,
            &reservation,
            &worst,
            &call.request.packed,
            &call.request.bytes,
            &call.draft,
        ];
        client.execute(&statement, &params).await?;
        Ok(())
    }

    /// The call, ended: one that has not come back is given up with this. `None` when there is none.
    ///
    /// # Errors
    /// When the database does not answer or the row cannot be read.
    pub async fn take_batch_call(&self, id: CallId) -> Result<Option<BatchCall>, StoreError> {
        let client = self.client().await?;
        client.execute(statements::GIVE_UP, &[&id.0]).await?;
        let row = client.query_opt(statements::TAKE, &[&id.0]).await?;
        row.as_ref().map(batch_call).transpose()
    }

    /// The providers, and their names of the models, for which calls wait.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn batches_wanted(&self) -> Result<Vec<(String, String)>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(statements::WANTED, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Puts calls that wait into a batch, once there are enough of them or the first has waited long enough;
    /// gives how many. Those of runs that the owner holds stay where they are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn form_batch(
        &self,
        provider: &str,
        model: &str,
        gathering: Gathering,
    ) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(statements::FORM).await?;
        let params: [&(dyn ToSql + Sync); 7] = [
            &provider,
            &model,
            &i64::from(gathering.size.max(1)),
            &gathering.bytes,
            &gathering.within.as_secs_f64(),
            &Uuid::now_v7(),
            &Topic::CALL_ANSWERED,
        ];
        Ok(client.execute(&statement, &params).await?)
    }

    /// Claims a batch of one of these providers that is to be looked after.
    ///
    /// # Errors
    /// When the database does not answer or the row cannot be read.
    pub async fn claim_batch(&self, providers: &[&str], claim: Claim) -> Result<Option<Batch>, StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(statements::CLAIM).await?;
        let row = client.query_opt(&statement, &[&claim.by, &claim.span.as_secs_f64(), &providers]).await?;
        row.as_ref().map(batch).transpose()
    }

    /// Notes how far a batch has come, and goes on claiming it. False when the claim is lost: nothing is noted.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn advance_batch(
        &self,
        id: Uuid,
        claim: Claim,
        progress: Progress<'_>,
    ) -> Result<bool, StoreError> {
        let (status, file, batch) = match progress {
            Progress::Uploaded(file) => (None, Some(file), None),
            Progress::Submitting => (Some("submitting"), None, None),
            Progress::Submitted(batch) => (Some("submitted"), None, Some(batch)),
            Progress::Held => (None, None, None),
        };
        let client = self.client().await?;
        let statement = client.prepare_cached(statements::ADVANCE).await?;
        let params: [&(dyn ToSql + Sync); 6] =
            [&id, &claim.by, &claim.span.as_secs_f64(), &status, &file, &batch];
        Ok(client.execute(&statement, &params).await? == 1)
    }

    /// Looks after a batch again after this pause; `why` says what failed, if something did.
    ///
    /// # Errors
    /// When the database does not answer: it is then looked after once the claim is over.
    pub async fn leave_batch(
        &self,
        id: Uuid,
        claim: Claim,
        pause: Duration,
        why: Option<&str>,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(statements::LEAVE).await?;
        client.execute(&statement, &[&id, &claim.by, &pause.as_secs_f64(), &why]).await?;
        Ok(())
    }

    /// The questions of a batch that are still wanted.
    ///
    /// # Errors
    /// When the database does not answer or a row cannot be read.
    pub async fn batch_questions(&self, id: Uuid) -> Result<Vec<(CallId, Option<Body>)>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(statements::QUESTIONS, &[&id]).await?;
        Ok(rows.iter().map(|row| (CallId(row.get(0)), body(row, "request"))).collect())
    }

    /// Ends a batch and its calls and tells their runs, in one statement. Gives the calls that nobody waited
    /// for any more; `None` when the claim is lost: nothing has ended then.
    ///
    /// # Errors
    /// When the database does not answer: then nothing has ended, or all of it.
    pub async fn end_batch(
        &self,
        id: Uuid,
        claim: Claim,
        why: &str,
        ended: &[Ended],
    ) -> Result<Option<Vec<Unheard>>, StoreError> {
        let ids: Vec<Uuid> = ended.iter().map(|ended| ended.id.0).collect();
        let status: Vec<Option<i32>> =
            ended.iter().map(|e| e.how.as_ref().ok().map(|(status, _)| i32::from(*status))).collect();
        let bodies: Vec<Option<&[u8]>> =
            ended.iter().map(|e| e.how.as_ref().ok().map(|(_, body)| &body.packed[..])).collect();
        let bytes: Vec<Option<i64>> =
            ended.iter().map(|e| e.how.as_ref().ok().map(|(_, body)| body.bytes)).collect();
        let faults: Vec<Option<&str>> =
            ended.iter().map(|e| e.how.as_ref().err().map(|(fault, _)| fault.as_str())).collect();
        let whys: Vec<Option<&str>> =
            ended.iter().map(|e| e.how.as_ref().err().map(|(_, why)| why.as_str())).collect();
        let client = self.client().await?;
        let statement = client.prepare_cached(statements::END).await?;
        let params: [&(dyn ToSql + Sync); 10] =
            [&id, &claim.by, &why, &ids, &status, &bodies, &bytes, &faults, &whys, &Topic::CALL_ANSWERED];
        let rows = client.query(&statement, &params).await?;
        Ok((!rows.is_empty()).then(|| rows.iter().filter_map(unheard).collect()))
    }

    /// Ends calls that no batch has taken within `within`, and those that nobody waits for; tells their runs.
    /// What the owner holds may wait. Gives the calls that nobody waited for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_unsent(&self, within: Duration, unwanted: Duration) -> Result<Vec<Unheard>, StoreError> {
        let client = self.client().await?;
        let params: [&(dyn ToSql + Sync); 4] =
            [&within.as_secs_f64(), &unwanted.as_secs_f64(), &SWEPT, &Topic::CALL_ANSWERED];
        let rows = client.query(statements::END_UNSENT, &params).await?;
        Ok(rows.iter().filter_map(unheard).collect())
    }

    /// Forgets what was said in calls whose runs are over: it is kept with the calls themselves.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_batch_bodies(&self) -> Result<u64, StoreError> {
        Ok(self.client().await?.execute(statements::FORGET, &[&SWEPT]).await?)
    }
}

fn unheard(row: &Row) -> Option<Unheard> {
    let (awaited, reservation): (Option<bool>, Option<Uuid>) = (row.get("awaited"), row.get("reservation"));
    let reservation = ReservationId(reservation.filter(|_| awaited == Some(false))?);
    let fault: Option<&str> = row.get("fault");
    let unsent = fault == Some(Fault::Unsent.as_str());
    Some(Unheard { id: CallId(row.get("id")), reservation, model: row.get("model"), unsent })
}

fn batch(row: &Row) -> Result<Batch, StoreError> {
    let span = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let status: &str = row.get("status");
    Ok(Batch {
        id: row.get("id"),
        provider: row.get("provider"),
        status: match status {
            "formed" => BatchStatus::Formed,
            "submitting" => BatchStatus::Submitting,
            "submitted" => BatchStatus::Submitted,
            other => return Err(StoreError::corrupt("the status of a batch", other)),
        },
        file: row.get("file"),
        batch: row.get("batch"),
        failures: row.get::<_, i32>("failures").unsigned_abs(),
        age: span(row.get("age")),
        perhaps: row.get::<_, Option<f64>>("perhaps").map(span),
        submitting_at: row.get("submitting_at"),
    })
}

fn batch_call(row: &Row) -> Result<BatchCall, StoreError> {
    let (status, fault): (Option<i32>, Option<&str>) = (row.get("status"), row.get("fault"));
    let fault = Fault::ALL.into_iter().find(|known| Some(known.as_str()) == fault);
    let why: Option<String> = row.get("why");
    let how = match (status.and_then(|status| u16::try_from(status).ok()), body(row, "response"), fault) {
        (Some(status), Some(body), _) => Ok((status, body)),
        (Some(_), None, _) => Err((Fault::Lost, "its answer was erased".to_owned())),
        (None, _, Some(fault)) => Err((fault, why.unwrap_or_default())),
        (None, _, None) => return Err(StoreError::corrupt("a call of a batch", "it has no end")),
    };
    let reservation: Option<Uuid> = row.get("reservation");
    Ok(BatchCall {
        model: row.get("model"),
        reservation: reservation.map(|id| (ReservationId(id), row.get("worst_micros"))),
        request: body(row, "request"),
        draft: row.get("draft"),
        ended: Ended { id: CallId(row.get("id")), how },
        took: Duration::try_from_secs_f64(row.get("took")).unwrap_or_default(),
    })
}

fn body(row: &Row, name: &str) -> Option<Body> {
    let packed: Option<Vec<u8>> = row.get(name);
    let bytes: Option<i64> = row.get(format!("{name}_bytes").as_str());
    packed.map(|packed| Body { packed, bytes: bytes.unwrap_or_default(), clipped: false })
}
