//! Falsifies a database by hand, as no code of Steward's can: the checker must notice.

use jiff::Timestamp;
use serde_json::json;
use steward::domain::event::Event;
use steward::domain::ids::RunId;
use steward::domain::label::Label;
use steward::domain::plan::Entry;
use steward::store::Store;
use steward::store::journal::seal::{genesis, seal};
use tokio_postgres::NoTls;

/// An entry of a journal, to be changed.
#[derive(Clone)]
pub struct Page {
    pub event: Event,
    pub actor: String,
    pub label: Label,
    pub at: Timestamp,
}

/// Runs statements with every trigger switched off.
pub async fn by_hand(store: &Store, statements: &str) {
    let (client, connection) = store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("set session_replication_role = replica; {statements}")).await.unwrap();
}

/// Rewrites a run's journal and seals it anew: the chain holds, the story has changed.
pub async fn rewrite(store: &Store, run: RunId, change: impl FnOnce(&mut Vec<Page>)) {
    let mut pages: Vec<Page> = store
        .journal(run, 0, i64::MAX)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| Page {
            event: serde_json::from_value(json!({"kind": entry.kind, "data": entry.data})).unwrap(),
            actor: entry.actor,
            label: serde_json::from_value(json!(entry.label)).unwrap(),
            at: entry.at,
        })
        .collect();
    change(&mut pages);
    let (mut head, mut statements) = (genesis(run), format!("delete from journal where run_id = '{run}';"));
    for (seq, page) in (0..).zip(&pages) {
        let entry = Entry { event: page.event.clone(), actor: page.actor.clone(), label: page.label };
        let sealed = seal(head, seq, page.at, vec![entry]).pop().unwrap();
        head = sealed.hash;
        statements.push_str(&format!(
            "insert into journal (run_id, seq, kind, at, actor, label, data, data_digest, hash)
             values ('{run}', {}, '{}', '{}', '{}', '{}', '{}', '\\x{}', '\\x{}');",
            sealed.seq,
            sealed.kind,
            sealed.at,
            sealed.actor,
            sealed.label.as_str(),
            sealed.data.replace('\'', "''"),
            sealed.data_digest,
            sealed.hash,
        ));
    }
    statements.push_str(&format!("update runs set seq = {} where id = '{run}';", pages.len()));
    by_hand(store, &statements).await;
}

/// The first entry of that kind.
pub fn place(pages: &[Page], kind: &str) -> usize {
    let is = |page: &Page| serde_json::to_value(&page.event).unwrap()["kind"] == kind;
    pages.iter().position(is).unwrap_or_else(|| panic!("no {kind}"))
}
