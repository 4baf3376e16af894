//! I1, I3 and I12 from outside, and what holds between runs: keys, acknowledgements, what others
//! received, and where a secret may have gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::action::{Action, Repeat};
use crate::domain::ids::RunId;
use crate::store::audit::page::Facts;
use crate::store::audit::{Audit, Findings, Invariant, Report, Violation};
use crate::store::{Store, StoreError};

/// Secrets shorter than this are not looked for: they would be found everywhere.
const SHORTEST_SECRET: usize = 8;

/// Keys and acknowledgements looked up with one statement.
const LOOKED_UP: usize = 1000;

/// A secret to look for. It is never shown, not even where it is found.
#[derive(Clone)]
pub struct Canary {
    /// What it is called, such as the variable that holds it.
    pub name: String,
    /// The secret.
    pub value: String,
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Canary({})", self.name)
    }
}

/// What was seen of Steward by those it deals with.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Runs that were acknowledged to whoever asked for them.
    pub acknowledged: Vec<RunId>,
    /// What happened at receivers.
    pub received: Vec<Received>,
    /// Actions of which `received` holds everything: what succeeded must be in it.
    pub complete: Vec<String>,
}

/// How often something happened at a receiver. One that knows our key, and does nothing the second
/// time, counts once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// The action.
    pub action: String,
    /// Its key.
    pub key: String,
    /// How often.
    pub count: u32,
}

/// An effect under a key that was received.
struct Sent {
    run: RunId,
    action: Action,
    status: String,
    started: bool,
    /// The owner says that it happened; Steward does not know.
    confirmed: bool,
    /// How often the owner had it done again.
    owner_repeats: i64,
}

pub(super) fn secrets_in_run(facts: &Facts, secrets: &[Canary], findings: &mut Findings<'_>) {
    for secret in secrets.iter().filter(|secret| is_searchable(secret)) {
        let mut leak = |place: String| {
            findings.add(Invariant::I12, format!("the secret {} stands in {place}", secret.name));
        };
        if facts.title.contains(&secret.value) || facts.key.contains(&secret.value) {
            leak("its row".to_owned());
        }
        for entry in &facts.entries {
            if entry.data.as_ref().is_some_and(|data| holds(data, &secret.value)) {
                leak(format!("entry {}", entry.seq));
            }
        }
        for effect in &facts.effects {
            let parts = std::iter::once(&effect.request).chain(&effect.response);
            if effect.key.contains(&secret.value) || parts.into_iter().any(|part| holds(part, &secret.value))
            {
                leak(format!("effect {}", effect.id));
            }
        }
        for review in &facts.reviews {
            let mut parts = std::iter::once(&review.question).chain(&review.verdict);
            if parts.any(|part| holds(part, &secret.value)) {
                leak(format!("review {}", review.id));
            }
        }
        for (topic, data) in &facts.inbox {
            if holds(data, &secret.value) {
                leak(format!("the message `{topic}`"));
            }
        }
    }
}

fn is_searchable(secret: &Canary) -> bool {
    secret.value.len() >= SHORTEST_SECRET
}

fn holds(value: &Value, secret: &str) -> bool {
    match value {
        Value::String(text) => text.contains(secret),
        Value::Array(items) => items.iter().any(|item| holds(item, secret)),
        Value::Object(map) => map.iter().any(|(name, item)| name.contains(secret) || holds(item, secret)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl Store {
    /// What must hold between runs.
    pub(super) async fn audit_across(&self, report: &mut Report) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = "select action, dedupe_key, count(*) from effects
             where holds group by action, dedupe_key having count(*) > 1";
        for row in client.query(statement, &[]).await? {
            let (action, key, count): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
            let what = format!("the key `{key}` of `{action}` is held by {count} effects");
            report.add(Violation { invariant: Invariant::I3, run: None, what });
        }
        let statement = "select run_id from journal j
             where seq = 1 and not exists (select from runs r where r.id = j.run_id)";
        for row in client.query(statement, &[]).await? {
            let what = "its journal is there and its row is not".to_owned();
            report.add(Violation { invariant: Invariant::I1, run: Some(RunId(row.get(0))), what });
        }
        let statement = "select workflow, item_key from gathered_items i
             where run_id is null and not exists (select from gathered g where g.id = i.group_id)";
        for row in client.query(statement, &[]).await? {
            let (workflow, key): (&str, &str) = (row.get(0), row.get(1));
            let what = format!("the input `{key}` of `{workflow}` was taken and belongs to no run to come");
            report.add(Violation { invariant: Invariant::I1, run: None, what });
        }
        Ok(())
    }

    /// What others saw, and what logs say.
    pub(super) async fn audit_outside(
        &self,
        audit: &Audit<'_>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        for runs in audit.observed.acknowledged.chunks(LOOKED_UP) {
            self.are_kept(runs, report).await?;
        }
        for received in audit.observed.received.chunks(LOOKED_UP) {
            self.were_sent(received, audit, report).await?;
        }
        self.have_arrived(audit, report).await?;
        report.checked.secrets = audit.secrets.iter().filter(|secret| is_searchable(secret)).count() as u64;
        for log in audit.logs {
            read_log(log, audit.secrets, report).await;
        }
        Ok(())
    }

    async fn are_kept(&self, runs: &[RunId], report: &mut Report) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
        let client = self.client().await?;
        // What retention removed has left a tombstone.
        let statement = "select run_id from journal where run_id = any($1) and seq = 1
             union select run_id from removed_runs where run_id = any($1)";
        let kept: HashSet<Uuid> =
            client.query(statement, &[&ids]).await?.iter().map(|row| row.get(0)).collect();
        report.checked.acknowledged += ids.len() as u64;
        for lost in ids.into_iter().filter(|id| !kept.contains(id)) {
            let what = "it was acknowledged and is lost".to_owned();
            report.add(Violation { invariant: Invariant::I1, run: Some(RunId(lost)), what });
        }
        Ok(())
    }

    async fn were_sent(
        &self,
        received: &[Received],
        audit: &Audit<'_>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let actions: Vec<&str> = received.iter().map(|item| item.action.as_str()).collect();
        let keys: Vec<&str> = received.iter().map(|item| item.key.as_str()).collect();
        let client = self.client().await?;
        let statement = "
            select f.action, f.dedupe_key, f.run_id, f.request, f.status, f.started_at is not null,
                coalesce(f.response ->> 'confirmed_by' = 'owner', false),
                (select count(*) from journal j where j.run_id = f.run_id and j.kind = 'effect.started'
                    and j.actor = 'owner' and j.data ->> 'effect' = f.id::text)
            from effects f join unnest($1::text[], $2::text[]) as k (action, key)
                on f.action = k.action and f.dedupe_key = k.key";
        let mut sent: HashMap<(String, String), Vec<Sent>> = HashMap::new();
        for row in client.query(statement, &[&actions, &keys]).await? {
            sent.entry((row.get(0), row.get(1))).or_default().push(sent_row(&row));
        }
        report.checked.received += received.len() as u64;
        for item in received {
            let effects = sent.get(&(item.action.clone(), item.key.clone()));
            check_received(item, effects.map_or(&[], Vec::as_slice), audit, report);
        }
        Ok(())
    }

    async fn have_arrived(&self, audit: &Audit<'_>, report: &mut Report) -> Result<(), StoreError> {
        if audit.observed.complete.is_empty() {
            return Ok(());
        }
        let arrived = audit.observed.received.iter().filter(|item| item.count > 0);
        let arrived: HashSet<(&str, &str)> =
            arrived.map(|item| (item.action.as_str(), item.key.as_str())).collect();
        let client = self.client().await?;
        let statement = "select action, dedupe_key, run_id from effects
             where action = any($1) and status in ('succeeded', 'compensated')
               and coalesce(response ->> 'confirmed_by' <> 'owner', true)";
        for row in client.query(statement, &[&audit.observed.complete]).await? {
            let (action, key): (&str, &str) = (row.get(0), row.get(1));
            if !arrived.contains(&(action, key)) {
                let what = format!("`{action}` under `{key}` succeeded, and nobody received it");
                report.add(Violation { invariant: Invariant::I3, run: Some(RunId(row.get(2))), what });
            }
        }
        Ok(())
    }
}

fn sent_row(row: &Row) -> Sent {
    Sent {
        action: Action { action: row.get(0), params: row.get(3) },
        run: RunId(row.get(2)),
        status: row.get(4),
        started: row.get(5),
        confirmed: row.get(6),
        owner_repeats: row.get(7),
    }
}

fn check_received(item: &Received, effects: &[Sent], audit: &Audit<'_>, report: &mut Report) {
    let run = effects.first().map(|effect| effect.run);
    let mut breach = |invariant, why: &str| {
        let what = format!("`{}` under `{}` was received {} times, {why}", item.action, item.key, item.count);
        report.add(Violation { invariant, run, what });
    };
    if item.count > 0 && !effects.iter().any(|effect| effect.started) {
        return breach(Invariant::I4, "and was never started");
    }
    let repeats: i64 = effects.iter().map(|effect| effect.owner_repeats).sum();
    if i64::from(item.count) > 1 + repeats {
        return breach(Invariant::I3, &format!("and the owner had it repeated {repeats} times"));
    }
    let succeeded = |effect: &Sent| matches!(effect.status.as_str(), "succeeded" | "compensated");
    if item.count == 0 && effects.iter().any(|effect| succeeded(effect) && !effect.confirmed) {
        breach(Invariant::I3, "and has succeeded");
    }
    let denied = |effect: &Sent| effect.status == "failed" && (audit.repeat)(&effect.action) == Repeat::None;
    if item.count > 0 && effects.iter().filter(|effect| effect.started).all(denied) {
        breach(Invariant::I3, "and is said not to have happened");
    }
}

/// A log that cannot be read, gone since it was named, is nothing to find a secret in.
async fn read_log(path: &Path, secrets: &[Canary], report: &mut Report) {
    let Ok(file) = tokio::fs::File::open(path).await else { return };
    let (mut lines, mut line, mut number) = (BufReader::new(file), Vec::new(), 0u64);
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        number += 1;
        report.checked.log_bytes += line.len() as u64;
        let text = String::from_utf8_lossy(&line);
        for secret in secrets.iter().filter(|s| is_searchable(s) && text.contains(&s.value)) {
            found.entry(&secret.name).or_insert(number);
        }
        line.clear();
    }
    for (name, number) in found {
        let what = format!("the secret {name} stands in {}, line {number}", path.display());
        report.add(Violation { invariant: Invariant::I12, run: None, what });
    }
}
