//! Records: one version after another, each written once, whoever writes at the same time.

use futures_util::future::join_all;
use serde_json::{Value, json};
use steward::connectors::records::{Records, records_get};
use steward::connectors::{Call, Connector};
use steward::domain::action::Action;
use steward::domain::event::ErrorKind;
use steward::domain::ids::EffectId;
use steward::domain::label::Label;
use steward::domain::plan::EffectResult;
use steward::store::Store;
use steward::store::records::{NewVersion, Put, PutError};
use uuid::Uuid;

fn effect() -> Option<EffectId> {
    Some(EffectId(Uuid::new_v4()))
}

fn lead<'a>(key: &'a str, data: &'a Value, if_version: Option<i64>) -> NewVersion<'a> {
    NewVersion { effect: effect(), kind: "lead", key, data, label: Label::Untrusted, if_version }
}

fn conflict(result: Result<Put, PutError>) -> i64 {
    match result {
        Err(PutError::Conflict { found }) => found,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_keeps_its_latest_version_with_its_label() {
    let store = crate::support::database().await;
    assert_eq!(store.records_get("lead", "a").await.unwrap(), None);
    for (version, data) in [(1, json!({"fit": 0.5})), (2, json!(["any", "value"])), (3, json!(null))] {
        let put = store.records_put(lead("a", &data, None)).await.unwrap();
        assert_eq!(put, Put { version, again: false });
        let record = store.records_get("lead", "a").await.unwrap().unwrap();
        assert_eq!((record.version, record.data, record.label), (version, data, Label::Untrusted));
    }
    let one = json!(1);
    store.records_put(NewVersion { label: Label::Owner, ..lead("a", &one, None) }).await.unwrap();
    assert_eq!(store.records_get("lead", "a").await.unwrap().unwrap().label, Label::Owner);
    assert_eq!(store.records_get("other", "a").await.unwrap(), None);
}

#[tokio::test]
async fn a_version_is_written_only_over_the_one_that_was_expected() {
    let (store, data) = (crate::support::database().await, json!({}));
    assert_eq!(conflict(store.records_put(lead("a", &data, Some(1))).await), 0);
    assert_eq!(store.records_put(lead("a", &data, Some(0))).await.unwrap().version, 1);
    assert_eq!(conflict(store.records_put(lead("a", &data, Some(0))).await), 1);
    assert_eq!(store.records_put(lead("a", &data, Some(1))).await.unwrap().version, 2);
    assert_eq!(conflict(store.records_put(lead("a", &data, Some(1))).await), 2);
    assert_eq!(conflict(store.records_put(lead("a", &data, Some(3))).await), 2);
    assert_eq!(store.records_get("lead", "a").await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn the_same_effect_again_finds_its_own_version_even_after_later_ones() {
    let (store, data) = (crate::support::database().await, json!({"n": 1}));
    let first = lead("a", &data, Some(0));
    assert_eq!(store.records_put(first).await.unwrap(), Put { version: 1, again: false });
    store.records_put(lead("a", &json!({"n": 2}), None)).await.unwrap();
    assert_eq!(store.records_put(first).await.unwrap(), Put { version: 1, again: true });
    let now = store.records_get("lead", "a").await.unwrap().unwrap();
    assert_eq!((now.version, now.data), (2, json!({"n": 2})));
}

#[tokio::test]
async fn of_many_writers_with_the_same_expectation_one_wins_and_without_one_all_do() {
    let (store, data) = (crate::support::database().await, json!({}));
    let race = |if_version| {
        join_all((0..8).map(|_| store.records_put(lead("a", &data, if_version))).collect::<Vec<_>>())
    };
    for expected in [0, 1] {
        let results = race(Some(expected)).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        for lost in results.into_iter().filter(Result::is_err) {
            assert_eq!(conflict(lost), expected + 1);
        }
    }
    let mut versions: Vec<_> = race(None).await.into_iter().map(|put| put.unwrap().version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (3..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_same_effect_many_times_at_once_is_written_once() {
    let (store, data) = (crate::support::database().await, json!({}));
    for key in ["a", "b", "c"] {
        let new = lead(key, &data, None);
        let results = join_all((0..8).map(|_| store.records_put(new))).await;
        let puts: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert!(puts.iter().all(|put| put.version == 1), "{puts:?}");
        assert_eq!(puts.iter().filter(|put| !put.again).count(), 1, "{puts:?}");
        assert_eq!(store.records_get("lead", key).await.unwrap().unwrap().version, 1);
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_in_words() {
    let store = crate::support::database().await;
    let (small, large) = (json!({}), json!("x".repeat(256 * 1024)));
    let (nul, long) = (json!({"a": ["\0"]}), "x".repeat(501));
    let refused = [
        (lead("", &small, None), "needs a key"),
        (lead(&long, &small, None), "at most 500 bytes"),
        (lead("a\0", &small, None), "NUL"),
        (lead("a", &large, None), "at most 262144 bytes"),
        (lead("a", &nul, None), "NUL"),
        (lead("a", &small, Some(-1)), "counts from 1"),
        (NewVersion { kind: "", ..lead("a", &small, None) }, "needs a kind"),
    ];
    for (new, says) in refused {
        let Err(PutError::Invalid(why)) = store.records_put(new).await else { panic!("{new:?}") };
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn a_list_goes_on_from_the_last_key() {
    let store = crate::support::database().await;
    for key in ["b", "a", "d", "c"] {
        store.records_put(lead(key, &json!(key), None)).await.unwrap();
    }
    let keys = async |limit, after| -> Vec<String> {
        let records = store.records_list("lead", limit, after).await.unwrap();
        records.into_iter().map(|record| record.key).collect()
    };
    assert_eq!(keys(2, None).await, ["a", "b"]);
    assert_eq!(keys(10, Some("b")).await, ["c", "d"]);
    assert!(keys(10, Some("d")).await.is_empty() && keys(0, None).await.is_empty());
}

fn call(params: Value) -> Call {
    Call {
        effect: EffectId(Uuid::new_v4()),
        key: "run/save/1".into(),
        action: Action { action: "records.put".into(), params },
        label: Label::Model,
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

async fn read(store: &Store, key: &str) -> (Value, Label) {
    let params = json!({"kind": "lead", "key": key});
    records_get(store, &Action { action: "records.get".into(), params }).await.unwrap()
}

#[tokio::test]
async fn the_connector_writes_with_the_calls_label_and_a_conflict_may_be_tried_again() {
    let store = crate::support::database().await;
    let records = Records::new(store.clone());
    let none = json!({"found": false, "kind": "lead", "key": "a", "version": 0, "data": null});
    assert_eq!(read(&store, "a").await, (none, Label::Owner));

    let first = call(json!({"kind": "lead", "key": "a", "data": {"fit": 1}, "if_version": 0}));
    let done = EffectResult::Succeeded(json!({"kind": "lead", "key": "a", "version": 1}));
    for _ in 0..2 {
        assert_eq!(records.perform(&first).await, done);
        assert_eq!(records.probe(&first).await, done);
    }
    let found = json!({"found": true, "kind": "lead", "key": "a", "version": 1, "data": {"fit": 1}});
    assert_eq!(read(&store, "a").await, (found, Label::Model));

    let second = Call { effect: EffectId(Uuid::new_v4()), ..first };
    let EffectResult::Failed(error) = records.perform(&second).await else { panic!() };
    assert_eq!((error.kind, error.message.contains("at version 1")), (ErrorKind::Conflict, true), "{error}");

    let wrong = call(json!({"kind": "lead", "key": "a", "data": 1, "if_version": "1"}));
    let EffectResult::Failed(error) = records.perform(&wrong).await else { panic!() };
    assert_eq!(error.kind, ErrorKind::Invalid);
}
