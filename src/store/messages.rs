//! Messages to the owner: written before they are sent, taken by one node at a time, and made to say how
//! their review ended. A crash between sending and noting it sends a message again, under the same id.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::domain::ids::{MessageId, NoticeId, ReviewId};
use crate::domain::ladder::{ChannelName, Climb, Ladder, Quiet};
use crate::store::reviews::{ReviewRow, review_row};
use crate::store::{Store, StoreError};

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// The first word about a review over this channel.
    Ask(ReviewId),
    /// A reminder of one.
    Remind(ReviewId),
    /// Something to know.
    Notice(NoticeId),
    /// The day in one message.
    Digest(Date),
}

/// An open review of which the owner is to be told, and where its ladder stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// The review.
    pub review: ReviewRow,
    /// How many rungs are climbed.
    pub rung: usize,
    /// How many of them before the ladder began anew, when a snooze ended.
    pub before: usize,
}

impl Standing {
    /// When the ladder began.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.review.snoozed_until.unwrap_or(self.review.opened_at)
    }

    /// What is to be done now.
    #[must_use]
    pub fn climb(&self, ladder: &Ladder, now: Timestamp, quiet: Option<&Quiet>, zone: &TimeZone) -> Climb {
        let climbed = self.rung.saturating_sub(self.before);
        let climb = ladder.climb(self.since(), climbed, now, quiet, zone);
        Climb { rung: self.before + climb.rung, ..climb }
    }
}

/// A message that a node has taken to send, or to bring up to date.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageRow {
    /// Its id: whoever gets it twice may know it by this.
    pub id: MessageId,
    /// Over which channel.
    pub channel: String,
    /// What it is.
    pub about: About,
    /// How often it was tried, this time included.
    pub attempts: i32,
    /// Where it stands, once sent; of a reminder that is not sent yet, where the first word stands.
    pub place: Option<Value>,
}

/// Rows that somebody else holds are passed over: whoever waited for several of them could wait in a circle, and
/// they are due again in the next round.
const CLIMB: &str = "
    with wanted as (
        select * from unnest($1::uuid[], $2::int4[], $3::int4[], $4::timestamptz[]) as w (id, was, rung, next)
    ),
    locked as (
        select r.id from reviews r join wanted w on w.id = r.id
        where r.rung = w.was and r.status = 'open' and r.tell_at <= now()
        order by r.id for update of r skip locked
    ),
    climbed as (
        update reviews r set rung = w.rung, tell_at = w.next
        from wanted w where w.id = r.id and r.id in (select id from locked)
        returning r.id, r.rung
    )
    insert into messages_out (id, review_id, channel, kind, rung)
    select m.id, c.id, m.channel,
        case when exists (select from messages_out o where o.review_id = c.id and o.channel = m.channel)
             then 'remind' else 'ask' end, c.rung
    from climbed c join unnest($5::uuid[], $6::uuid[], $7::text[]) as m (id, review, channel) on m.review = c.id
    on conflict on constraint messages_out_review_once do nothing";

impl Store {
    /// Open reviews of which the owner is to be told something now, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reviews_to_tell(&self, limit: i64) -> Result<Vec<Standing>, StoreError> {
        let client = self.client().await?;
        let columns = crate::store::reviews::COLUMNS;
        let statement = client
            .prepare_cached(&format!(
                "select {columns}, rung, rung_before from reviews
                 where status = 'open' and tell_at <= now() order by tell_at limit $1"
            ))
            .await?;
        let rows = client.query(&statement, &[&limit]).await?;
        let mut told = Vec::new();
        for row in &rows {
            match review_row(row) {
                Ok(review) => {
                    let count = |column: &str| usize::try_from(row.get::<_, i32>(column)).unwrap_or(0);
                    told.push(Standing { review, rung: count("rung"), before: count("rung_before") });
                }
                Err(error) => tracing::error!(%error, "the owner cannot be told of a review"),
            }
        }
        Ok(told)
    }

    /// Climbs the ladders of reviews, each from its rung on: their messages become due with it. Those that
    /// somebody else climbs at this moment, or that are decided, are left as they are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn climb(&self, climbs: &[(&Standing, Climb)]) -> Result<(), StoreError> {
        if climbs.is_empty() {
            return Ok(());
        }
        let client = self.client().await?;
        let statement = client.prepare_cached(CLIMB).await?;
        let reviews: Vec<Uuid> = climbs.iter().map(|(standing, _)| standing.review.id.0).collect();
        let was: Vec<i32> = climbs.iter().map(|(standing, _)| rung_column(standing.rung)).collect();
        let now: Vec<i32> = climbs.iter().map(|(_, climb)| rung_column(climb.rung)).collect();
        let next: Vec<Option<Timestamp>> = climbs.iter().map(|(_, climb)| climb.next).collect();
        let messages = || {
            climbs.iter().flat_map(|(standing, climb)| {
                climb.channels.iter().map(|channel| (standing.review.id.0, channel.as_str()))
            })
        };
        let about: Vec<Uuid> = messages().map(|(review, _)| review).collect();
        let channels: Vec<&str> = messages().map(|(_, channel)| channel).collect();
        let ids: Vec<Uuid> = channels.iter().map(|_| Uuid::now_v7()).collect();
        let params: [&(dyn ToSql + Sync); 7] = [&reviews, &was, &now, &next, &ids, &about, &channels];
        client.execute(&statement, &params).await?;
        Ok(())
    }

    /// Notices that nobody was told of become messages over the channels of their severity, in one statement.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell_notices(
        &self,
        by_severity: &[(&str, BTreeSet<ChannelName>)],
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "with told as (
                    update notices set told_at = now() where told_at is null returning id, severity)
                 insert into messages_out (id, notice_id, channel, kind)
                 select gen_random_uuid(), t.id, m.channel, 'notice'
                 from told t join unnest($1::text[], $2::text[]) as m (severity, channel) using (severity)
                 on conflict on constraint messages_out_notice_once do nothing",
            )
            .await?;
        let pairs = by_severity.iter().flat_map(|(severity, channels)| {
            channels.iter().map(move |channel| (*severity, channel.as_str()))
        });
        let (severities, channels): (Vec<&str>, Vec<&str>) = pairs.unzip();
        client.execute(&statement, &[&severities, &channels]).await?;
        Ok(())
    }

    /// The digest of a day is to be sent over these channels; once, however many nodes say so.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn send_digest(&self, day: Date, channels: &BTreeSet<ChannelName>) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "insert into messages_out (id, day, channel, kind)
                 select gen_random_uuid(), $1::text::date, channel, 'digest' from unnest($2::text[]) as m (channel)
                 on conflict on constraint messages_out_digest_once do nothing",
            )
            .await?;
        let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
        client.execute(&statement, &[&day.to_string(), &channels]).await?;
        Ok(())
    }

    /// Takes messages that are due over these channels, at most `limit`: for `hold` no other node does.
    /// What is about a review that is decided already is not sent any more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take_messages(
        &self,
        channels: &[ChannelName],
        hold: Duration,
        limit: i64,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "with due as (
                    select id, review_id from messages_out
                    where status = 'due' and due_at <= now() and channel = any ($1)
                    order by due_at limit $3 for update skip locked),
                 late as (
                    update messages_out m set status = 'failed', error = 'its review was decided before'
                    from due d join reviews r on r.id = d.review_id
                    where m.id = d.id and r.status <> 'open' returning m.id)
                 update messages_out m
                 set due_at = now() + make_interval(secs => $2), attempts = attempts + 1
                 from due d
                 where m.id = d.id and not exists (select from reviews r where r.id = m.review_id and r.status <> 'open')
                 returning m.id, m.channel, m.kind, m.review_id, m.notice_id, m.day::text, m.attempts,
                    coalesce(m.place, (select o.place from messages_out o
                        where o.review_id = m.review_id and o.channel = m.channel and o.kind = 'ask'
                          and o.status = 'sent'))",
            )
            .await?;
        let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
        let rows = client.query(&statement, &[&channels, &hold.as_secs_f64(), &limit]).await?;
        rows.iter().map(message_row).collect()
    }

    /// A message was sent and stands at `place`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn message_sent(&self, message: MessageId, place: &Value) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "update messages_out
                         set status = 'sent', sent_at = clock_timestamp(), due_at = now(), place = $2, error = null
                         where id = $1";
        let statement = client.prepare_cached(statement).await?;
        client.execute(&statement, &[&message.0, place]).await?;
        Ok(())
    }

    /// A message did not get through: it is tried again after `pause`, or given up without one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn message_failed(
        &self,
        message: MessageId,
        error: &str,
        pause: Option<Duration>,
    ) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "update messages_out
                 set status = case when $3::float8 is null then 'failed' else 'due' end, error = $2,
                     due_at = now() + make_interval(secs => coalesce($3, 0))
                 where id = $1 and status = 'due'",
            )
            .await?;
        client.execute(&statement, &[&message.0, &error, &pause.map(|pause| pause.as_secs_f64())]).await?;
        Ok(())
    }

    /// Takes messages whose review has ended and that do not say so yet, at most `limit`: for `hold` no
    /// other node does.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take_messages_to_close(
        &self,
        channels: &[ChannelName],
        hold: Duration,
        limit: i64,
    ) -> Result<Vec<MessageRow>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "with over as (
                    select m.id from messages_out m join reviews r on r.id = m.review_id
                    where m.status = 'sent' and m.closed_at is null and m.due_at <= now()
                      and m.channel = any ($1) and r.status <> 'open'
                    order by m.due_at limit $3 for update of m skip locked)
                 update messages_out m set due_at = now() + make_interval(secs => $2)
                 from over o where m.id = o.id
                 returning m.id, m.channel, m.kind, m.review_id, m.notice_id, m.day::text, m.attempts, m.place",
            )
            .await?;
        let channels: Vec<&str> = channels.iter().map(|channel| channel.as_str()).collect();
        let rows = client.query(&statement, &[&channels, &hold.as_secs_f64(), &limit]).await?;
        rows.iter().map(message_row).collect()
    }

    /// A message says how its review ended.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn message_closed(&self, message: MessageId) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement =
            client.prepare_cached("update messages_out set closed_at = now() where id = $1").await?;
        client.execute(&statement, &[&message.0]).await?;
        Ok(())
    }
}

fn rung_column(rung: usize) -> i32 {
    i32::try_from(rung).unwrap_or(i32::MAX)
}

fn message_row(row: &Row) -> Result<MessageRow, StoreError> {
    let id = MessageId(row.get(0));
    let kind: &str = row.get(2);
    let (review, notice): (Option<Uuid>, Option<Uuid>) = (row.get(3), row.get(4));
    let day: Option<String> = row.get(5);
    let about = match (kind, review, notice, day.as_deref().map(str::parse)) {
        ("ask", Some(review), ..) => About::Ask(ReviewId(review)),
        ("remind", Some(review), ..) => About::Remind(ReviewId(review)),
        ("notice", _, Some(notice), _) => About::Notice(NoticeId(notice)),
        ("digest", _, _, Some(Ok(day))) => About::Digest(day),
        _ => {
            return Err(StoreError::corrupt(format!("message {id}"), format!("it is about nothing: {kind}")));
        }
    };
    Ok(MessageRow { id, channel: row.get(1), about, attempts: row.get(6), place: row.get(7) })
}
