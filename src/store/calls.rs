//! Calls of models, to the letter, and the answers among them that may serve again.
//!
//! Bodies are compressed here and bounded here. Whoever gives them has taken the secrets out before.

use std::fmt;

use jiff::Timestamp;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::event::ModelCall;
use crate::domain::ids::{AgentName, CallId, ReservationId, RunId, StepId};
use crate::store::journal::read::digest;
use crate::store::{Store, StoreError};

/// The most of a body that is kept, bytes after compression: text shrinks to a third or less, and a model
/// reads and writes a megabyte or two at most.
const MAX_BODY: usize = 1024 * 1024;

/// The most that a kept body may grow to when it is read, bytes: zlib shrinks by a factor of 1032 at most.
const MAX_GROWN: usize = 64 * 1024 * 1024;

/// The level of the usual trade of time against size (zlib's own default).
const LEVEL: u8 = 6;

/// Calls removed in one transaction: some hundreds of kilobytes each at worst, a few kilobytes usually.
const BATCH: i64 = 200;

/// The most answers that wait to serve again: at a kilobyte or two each their calls fill some tens of
/// megabytes, and a business of one asks the same things far fewer times.
pub const CACHE_SIZE: i64 = 10_000;

/// A body as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    pub(super) packed: Vec<u8>,
    /// Its whole size, bytes.
    pub bytes: i64,
    /// Whether only its beginning is kept.
    pub clipped: bool,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes)
    }
}

impl Body {
    /// Packs a body; of one that is too large even then, as long a beginning as fits. Takes some tens of
    /// milliseconds for each megabyte.
    #[must_use]
    pub fn pack(raw: &[u8]) -> Self {
        Self::pack_within(raw, MAX_BODY)
    }

    fn pack_within(raw: &[u8], most: usize) -> Self {
        let (mut kept, mut packed) = (raw.len(), compress_to_vec_zlib(raw, LEVEL));
        while packed.len() > most {
            // Text is much alike throughout: the first guess is nearly always the last.
            kept = (kept.saturating_mul(most) / packed.len()).saturating_mul(9) / 10;
            packed = compress_to_vec_zlib(&raw[..kept], LEVEL);
        }
        let bytes = i64::try_from(raw.len()).unwrap_or(i64::MAX);
        Self { packed, bytes, clipped: kept < raw.len() }
    }

    /// The body, as far as it was kept.
    ///
    /// # Errors
    /// When what is stored is no compressed body.
    pub fn unpack(&self) -> Result<Vec<u8>, StoreError> {
        decompress_to_vec_zlib_with_limit(&self.packed, MAX_GROWN)
            .map_err(|error| StoreError::corrupt("the body of a model call", error))
    }
}

/// A call to keep.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// Its id.
    pub id: CallId,
    /// For which run.
    pub run: RunId,
    /// For which of its steps.
    pub step: StepId,
    /// In which attempt of it.
    pub attempt: u32,
    /// Who asked.
    pub agent: AgentName,
    /// The digest of that agent's definition.
    pub agent_digest: Digest,
    /// The digest of the messages.
    pub prompt_digest: Digest,
    /// Whose model it is.
    pub provider: String,
    /// What the journal will tell of it.
    pub told: ModelCall,
    /// What was sent.
    pub request: Option<Body>,
    /// What came back.
    pub response: Option<Body>,
    /// The call whose answer it is, when it comes from the cache.
    pub origin: Option<CallId>,
    /// Under which key its answer may serve again, and for how long.
    pub serves: Option<(Digest, Span)>,
}

/// A call as its row shows it, without the bodies.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "as in `NewCall` and `ModelCall`")]
pub struct CallRow {
    pub id: CallId,
    pub run: RunId,
    pub step: StepId,
    pub attempt: i32,
    pub turn: i32,
    pub part: Option<String>,
    pub agent: AgentName,
    pub agent_digest: Digest,
    pub prompt_digest: Digest,
    pub model: String,
    pub provider: String,
    pub answered_by: Option<String>,
    pub input_tokens: i64,
    pub cached_tokens: i64,
    pub output_tokens: i64,
    pub cost_micros: i64,
    /// What paid for it.
    pub reservation: Option<ReservationId>,
    pub millis: i64,
    pub outcome: String,
    pub cached: bool,
    /// Whether it went with others in a batch.
    pub batch: bool,
    pub origin: Option<CallId>,
    pub request_bytes: Option<i64>,
    pub response_bytes: Option<i64>,
    /// Whether only the beginning of one of the bodies was kept.
    pub clipped: bool,
    pub created_at: Timestamp,
}

/// A call with its bodies.
#[derive(Clone, Debug)]
pub struct Call {
    /// All but the bodies.
    pub row: CallRow,
    /// What was sent; for an answer from the cache, what was sent then.
    pub request: Option<Body>,
    /// What came back.
    pub response: Option<Body>,
}

const COLUMNS: &str =
    "id, run_id, step, attempt, turn, part, agent, agent_digest, prompt_digest, model, provider,
    answered_by, input_tokens, output_tokens, cost_micros, millis, outcome, cached, origin, request_bytes,
    response_bytes, request_clipped or response_clipped as clipped, created_at, cached_tokens, reservation, batch";

/// The call and, when it may serve again, where it is looked for: both or neither.
const KEEP: &str = "
    with kept as (
        insert into model_calls (id, run_id, step, attempt, turn, part, agent, agent_digest, prompt_digest, model,
            provider, answered_by, input_tokens, output_tokens, cost_micros, millis, outcome, cached, origin,
            request, request_bytes, request_clipped, response, response_bytes, response_clipped, cached_tokens,
            reservation, batch)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
            $22, $23, $24, $25, $28, $29, $30)
        returning id
    )
    insert into model_cache (key, call_id, expires_at)
    select $26::bytea, id, now() + make_interval(secs => $27::float8) from kept where $26::bytea is not null
    on conflict on constraint model_cache_pk do update
        set call_id = excluded.call_id, made_at = excluded.made_at, expires_at = excluded.expires_at";

impl Store {
    /// Keeps a call.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keep_call(&self, call: &NewCall) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client.prepare_cached(KEEP).await?;
        let told = &call.told;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let (attempt, turn) = (small(call.attempt), small(told.turn));
        let (read, written) = (number(told.input_tokens), number(told.output_tokens));
        let millis = number(told.millis);
        let (request, request_bytes, request_clipped) = columns(call.request.as_ref());
        let (response, response_bytes, response_clipped) = columns(call.response.as_ref());
        let origin = call.origin.map(|origin| origin.0);
        let (key, secs) = match &call.serves {
            Some((key, span)) => (Some(&key.0[..]), span.0.as_secs_f64()),
            None => (None, 0.0),
        };
        let (cached_tokens, reservation) = (number(told.cached_tokens), told.reservation.map(|paid| paid.0));
        let params: [&(dyn ToSql + Sync); 30] = [
            &call.id.0,
            &call.run.0,
            &call.step.as_str(),
            &attempt,
            &turn,
            &told.part,
            &call.agent.as_str(),
            &&call.agent_digest.0[..],
            &&call.prompt_digest.0[..],
            &told.model,
            &call.provider,
            &told.answered_by,
            &read,
            &written,
            &told.cost_micros,
            &millis,
            &told.outcome,
            &told.cached,
            &origin,
            &request,
            &request_bytes,
            &request_clipped,
            &response,
            &response_bytes,
            &response_clipped,
            &key,
            &secs,
            &cached_tokens,
            &reservation,
            &told.batch,
        ];
        client.execute(&statement, &params).await?;
        Ok(())
    }

    /// A call with its bodies.
    ///
    /// # Errors
    /// When the database does not answer or the row cannot be read.
    pub async fn call(&self, id: CallId) -> Result<Option<Call>, StoreError> {
        let client = self.client().await?;
        let sql = format!(
            "select {COLUMNS}, request, request_clipped, response, response_clipped from model_calls where id = $1"
        );
        let statement = client.prepare_cached(&sql).await?;
        client.query_opt(&statement, &[&id.0]).await?.as_ref().map(call).transpose()
    }

    /// The calls of a run in their order, at most `limit` behind `after`, without bodies.
    ///
    /// # Errors
    /// As [`Store::call`].
    pub async fn calls(
        &self,
        run: RunId,
        after: Option<CallId>,
        limit: i64,
    ) -> Result<Vec<CallRow>, StoreError> {
        let client = self.client().await?;
        let sql = format!(
            "select {COLUMNS} from model_calls where run_id = $1 and ($2::uuid is null or id > $2)
             order by id limit $3"
        );
        let statement = client.prepare_cached(&sql).await?;
        let rows = client.query(&statement, &[&run.0, &after.map(|after| after.0), &limit]).await?;
        rows.iter().map(call_row).collect()
    }

    /// The call whose answer serves again under this key, if there is one that is no older than `age`.
    ///
    /// # Errors
    /// As [`Store::call`].
    pub async fn cached_call(&self, key: &Digest, age: Span) -> Result<Option<Call>, StoreError> {
        let client = self.client().await?;
        let sql = format!(
            "select {COLUMNS}, request, request_clipped, response, response_clipped
             from model_cache join model_calls on id = call_id
             where key = $1 and expires_at > now() and made_at > now() - make_interval(secs => $2::float8)"
        );
        let statement = client.prepare_cached(&sql).await?;
        let row = client.query_opt(&statement, &[&&key.0[..], &age.0.as_secs_f64()]).await?;
        row.as_ref().map(call).transpose()
    }

    /// Erases calls and all that was made of them, the answers that would serve again among it; gives how
    /// many there were.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_calls(&self, calls: &[CallId]) -> Result<i64, StoreError> {
        let ids: Vec<_> = calls.iter().map(|call| call.0).collect();
        Ok(self.client().await?.query_one("select erase_calls($1)", &[&ids]).await?.get(0))
    }

    /// Erases the oldest calls from before that moment, one batch; gives how many. None are left once it
    /// gives zero.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn erase_calls_before(&self, moment: Timestamp) -> Result<i64, StoreError> {
        let sql = "select erase_calls(array(
                       select id from model_calls where created_at < $1 order by created_at limit $2))";
        Ok(self.client().await?.query_one(sql, &[&moment, &BATCH]).await?.get(0))
    }

    /// Forgets the answers that are too old to serve again, and of the others the oldest beyond `most`; their
    /// calls stay. Gives how many were forgotten.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn trim_cache(&self, most: i64) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let old = client.execute("delete from model_cache where expires_at <= now()", &[]).await?;
        let sql = "delete from model_cache where key in (
                       select key from model_cache order by made_at desc, key offset $1)";
        Ok(old + client.execute(sql, &[&most]).await?)
    }
}

/// What is stored of a body.
fn columns(body: Option<&Body>) -> (Option<&[u8]>, Option<i64>, bool) {
    match body {
        Some(body) => (Some(&body.packed), Some(body.bytes), body.clipped),
        None => (None, None, false),
    }
}

fn call(row: &Row) -> Result<Call, StoreError> {
    let body = |name: &str, bytes: Option<i64>| {
        let packed: Option<Vec<u8>> = row.get(name);
        let clipped: bool = row.get(format!("{name}_clipped").as_str());
        packed.map(|packed| Body { packed, bytes: bytes.unwrap_or_default(), clipped })
    };
    let shown = call_row(row)?;
    let (request, response) = (body("request", shown.request_bytes), body("response", shown.response_bytes));
    Ok(Call { row: shown, request, response })
}

fn call_row(row: &Row) -> Result<CallRow, StoreError> {
    Ok(CallRow {
        id: CallId(row.get("id")),
        run: RunId(row.get("run_id")),
        step: StepId(row.get("step")),
        attempt: row.get("attempt"),
        turn: row.get("turn"),
        part: row.get("part"),
        agent: AgentName(row.get("agent")),
        agent_digest: digest(row, 7)?,
        prompt_digest: digest(row, 8)?,
        model: row.get("model"),
        provider: row.get("provider"),
        answered_by: row.get("answered_by"),
        input_tokens: row.get("input_tokens"),
        cached_tokens: row.get("cached_tokens"),
        output_tokens: row.get("output_tokens"),
        cost_micros: row.get("cost_micros"),
        reservation: row.get::<_, Option<uuid::Uuid>>("reservation").map(ReservationId),
        millis: row.get("millis"),
        outcome: row.get("outcome"),
        cached: row.get("cached"),
        batch: row.get("batch"),
        origin: row.get::<_, Option<uuid::Uuid>>("origin").map(CallId),
        request_bytes: row.get("request_bytes"),
        response_bytes: row.get("response_bytes"),
        clipped: row.get("clipped"),
        created_at: row.get("created_at"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_body_comes_back_to_the_byte_or_says_that_it_is_clipped(
            raw in prop::collection::vec(any::<u8>(), 0..3000), most in 64usize..2000,
        ) {
            let body = Body::pack_within(&raw, most);
            let back = body.unpack().unwrap();
            prop_assert!(body.packed.len() <= most);
            prop_assert_eq!(body.bytes, raw.len() as i64);
            prop_assert!(raw.starts_with(&back));
            prop_assert_eq!(back.len() < raw.len(), body.clipped);
        }
    }

    #[test]
    fn text_is_kept_small() {
        let text = "What does a website for a bakery cost? ".repeat(1000);
        let body = Body::pack(text.as_bytes());
        assert!(body.packed.len() * 20 < text.len() && !body.clipped);
        let broken = Body { packed: vec![1, 2, 3], ..body };
        assert!(broken.unpack().is_err());
    }
}
