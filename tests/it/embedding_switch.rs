//! Another model takes over while questions are being answered: in the background, by one node, across crashes,
//! and without a moment in which meaning is not searched.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use steward::failpoint;
use steward::memory::filling::{Looked, Standing, settle, standings};
use steward::memory::ingest::remove;
use steward::memory::{Embedder, Embedders, Vectors};
use steward::store::Store;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::support::embedding::{
    FLOWERS, active, added, asked, book, config, embedder, means, models_yaml, server,
};
use crate::support::process::Process;
use crate::support::{PATIENCE, database, encoder, eventually};

/// Lets a batch through for each permit.
struct Paced<'a> {
    inner: &'a Embedders,
    permits: Semaphore,
}

impl Embedder for Paced<'_> {
    fn space(&self) -> String {
        self.inner.space()
    }

    fn dimensions(&self) -> Option<usize> {
        self.inner.dimensions()
    }

    fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Vectors<'_> {
        Box::pin(async move {
            self.permits.acquire().await.unwrap().forget();
            self.inner.embed(texts, size).await
        })
    }
}

#[tokio::test]
async fn while_another_model_takes_over_every_question_is_answered_by_meaning() {
    let (server, store) = (server().await, database().await);
    let before = embedder(&store, &config(&server, "large")).await;
    added(&store, &before, "garden.md", FLOWERS).await;
    for n in 0..3 {
        added(&store, &before, &format!("{n}.md"), &book(&n.to_string(), 50)).await;
    }
    assert_eq!(settle(&store, &before).await.unwrap(), Looked::Settled);
    let old = active(&store).await;

    let config = config(&server, "small");
    let (now, filler) = (embedder(&store, &config).await, embedder(&store, &config).await);
    let paced = Paced { inner: &filler, permits: Semaphore::new(0) };
    let mut filling = Box::pin(settle(&store, &paced));
    let mut spaces = Vec::new();
    let looked = loop {
        // A new question each time: nothing is answered from what is kept.
        let question = format!("Which flower is thirsty? {}", "z".repeat(spaces.len() + 1));
        means(&store, &now, &question, "garden.md").await;
        spaces.push(active(&store).await.space);
        if spaces.len() == 2 {
            let late = added(&store, &now, "late.md", "Send the invoice on Friday.").await;
            assert_eq!(late.words_only, None, "the old model still embeds");
        }
        paced.permits.add_permits(1);
        tokio::select! {
            looked = &mut filling => break looked.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    assert_eq!(looked, Looked::Settled);
    let new = active(&store).await;
    assert!(spaces.iter().filter(|space| **space == old.space).count() > 4, "{spaces:?}");
    assert_ne!(new.space, old.space);
    for (question, path) in [("Which flower is thirsty?", "garden.md"), ("Whose bill?", "late.md")] {
        means(&store, &now, question, path).await;
    }
    // Nothing is left of the old space.
    assert_eq!(standings(&store).await.unwrap(), [Standing { missing: 0, ..new }]);
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let left =
        "select (select count(*) from embedding_spaces), (select count(distinct space_id) from embeddings),
        (select count(*) from pg_indexes where indexname like 'embeddings_space_%')";
    let left = client.query_one(left, &[]).await.unwrap();
    assert_eq!((left.get::<_, i64>(0), left.get::<_, i64>(1), left.get::<_, i64>(2)), (1, 1, 1));
}

#[tokio::test]
async fn a_question_under_way_when_the_space_changes_is_asked_again_in_the_new_one() {
    let (server, store) = (server().await, database().await);
    let before = embedder(&store, &config(&server, "large")).await;
    added(&store, &before, "garden.md", FLOWERS).await;
    let now = embedder(&store, &config(&server, "small")).await;
    /// Another model takes over while the first question is embedded.
    struct Meanwhile<'a> {
        store: &'a Store,
        now: &'a Embedders,
        done: AtomicUsize,
    }
    impl Embedder for Meanwhile<'_> {
        fn space(&self) -> String {
            self.now.space()
        }
        fn dimensions(&self) -> Option<usize> {
            None
        }
        fn embed(&self, texts: Vec<String>, size: Option<usize>) -> Vectors<'_> {
            self.now.embed(texts, size)
        }
        fn embed_in(&self, space: &str, texts: Vec<String>, size: Option<usize>) -> Option<Vectors<'_>> {
            let work = self.now.embed_in(space, texts, size)?;
            Some(Box::pin(async move {
                let vectors = work.await;
                if self.done.fetch_add(1, Ordering::SeqCst) == 0 {
                    assert_eq!(settle(self.store, self.now).await.unwrap(), Looked::Settled);
                }
                vectors
            }))
        }
    }
    let asking = Meanwhile { store: &store, now: &now, done: AtomicUsize::new(0) };
    means(&store, &asking, "Which flower is thirsty?", "garden.md").await;
    assert_eq!(asking.done.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn documents_that_come_and_go_during_the_switch_all_have_their_vectors_in_the_end() {
    let (server, store) = (server().await, database().await);
    let before = embedder(&store, &config(&server, "large")).await;
    added(&store, &before, "0.md", &book("0", 60)).await;
    let now = embedder(&store, &config(&server, "small")).await;
    let busy = async {
        for n in 0..12 {
            added(&store, &now, &format!("{}.md", n % 3), &book(&n.to_string(), 5)).await;
            if n % 4 == 3 {
                remove(&store, &format!("{}.md", n % 3)).await.unwrap();
            }
        }
    };
    let filling = async {
        for _ in 0..5 {
            settle(&store, &now).await.unwrap();
        }
    };
    tokio::join!(busy, filling);
    assert_eq!(settle(&store, &now).await.unwrap(), Looked::Settled);
    let standings = standings(&store).await.unwrap();
    assert_eq!((standings.len(), standings[0].missing), (1, 0), "{standings:?}");
    // Nor is anything left of what was superseded.
    let (client, connection) = store.config().connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let stale = "select count(*) from embeddings e join documents d on d.id = e.document
        where d.superseded_at is not null";
    assert_eq!(client.query_one(stale, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn two_nodes_at_once_fill_a_space_once() {
    let (server, store) = (server().await, database().await);
    for n in 0..3 {
        added(&store, &encoder(), &format!("{n}.md"), &book(&n.to_string(), 50)).await;
    }
    let config = config(&server, "small");
    let nodes = [embedder(&store, &config).await, embedder(&store, &config).await];
    let both = futures_util::future::join_all(nodes.iter().map(|node| settle(&store, node))).await;
    let both: Vec<Looked> = both.into_iter().map(Result::unwrap).collect();
    assert!(both.contains(&Looked::Settled), "{both:?}");
    let mut asked = asked(&server);
    asked.remove("memory"); // the word by which each learns the size
    assert_eq!((asked.len(), asked.values().max()), (150, Some(&1)));
    assert_eq!(settle(&store, &nodes[1]).await.unwrap(), Looked::Settled);
}

#[tokio::test]
async fn a_model_that_is_given_up_half_way_leaves_nothing_behind() {
    let (server, store) = (server().await, database().await);
    added(&store, &encoder(), "0.md", &book("0", 80)).await;
    let config = config(&server, "small");
    let remote = embedder(&store, &config).await;
    let paced = Paced { inner: &remote, permits: Semaphore::new(2) };
    let half = async {
        eventually("half of it being filled", || async {
            let standings = standings(&store).await.unwrap();
            standings.iter().any(|standing| !standing.active && standing.missing == 48).then_some(())
        })
        .await
    };
    tokio::select! {
        looked = settle(&store, &paced) => panic!("{looked:?}"),
        () = half => {}
    }
    eventually("the turn being free", || async {
        (settle(&store, &encoder()).await.unwrap() == Looked::Settled).then_some(())
    })
    .await;
    let standings = standings(&store).await.unwrap();
    assert_eq!((standings.len(), standings[0].dimensions, standings[0].missing), (1, 384, 0));
    // Whoever wants it again after all has paid for half of it already.
    assert_eq!(settle(&store, &remote).await.unwrap(), Looked::Settled);
    let asked = asked(&server);
    assert_eq!(asked.iter().filter(|(text, _)| *text != "memory").map(|(_, times)| *times).max(), Some(1));
}

#[tokio::test]
async fn of_two_nodes_with_different_settings_the_later_one_prevails_and_they_do_not_take_turns() {
    let (server, store) = (server().await, database().await);
    added(&store, &encoder(), "garden.md", FLOWERS).await;
    let early = embedder(&store, &config(&server, "large")).await;
    assert_eq!(settle(&store, &early).await.unwrap(), Looked::Settled);
    let service = steward::memory::filling::look_after(store.clone(), encoder());
    eventually("the later one answering", || async {
        (active(&store).await.dimensions == 384).then_some(())
    })
    .await;
    // The early one still can, by the model it knows beside its own.
    means(&store, &early, "Which flower is thirsty?", "garden.md").await;
    service.abort();
}

#[tokio::test]
async fn killed_while_documents_are_embedded_anew_it_goes_on_and_pays_for_none_twice() {
    let server = server().await;
    let (_folder, workspace) = database::folder();
    steward::config::template::write(&workspace).unwrap();
    let process = Process::start(&workspace, None).await;
    for n in 0..4 {
        let body = json!({"path": format!("{n}.md"), "text": book(&n.to_string(), 25)});
        process.post("/api/v1/memory", body).await.unwrap();
    }
    process.stop().await;

    std::fs::write(workspace.join("config/models.yaml"), models_yaml(&server)).unwrap();
    // It may die before it says where it listens.
    let mut doomed = Command::new(env!("CARGO_BIN_EXE_steward"))
        .args(["up", "--listen", "127.0.0.1:0", "--workspace"])
        .arg(&workspace)
        .env_remove("STEWARD_DATABASE_URL")
        .env("STEWARD_FAILPOINT", failpoint::SPACE_FILLED)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let status = tokio::time::timeout(PATIENCE, doomed.wait()).await.expect("it dies").unwrap();
    assert!(!status.success(), "{status}");
    assert_eq!(asked(&server).len(), 32, "it died after the first batch");

    let process = Process::start(&workspace, None).await;
    eventually("the new space answering", || async {
        let spaces = process.get("/api/v1/memory").await?["spaces"].clone();
        (spaces.as_array()?.len() == 1 && spaces[0]["dimensions"] == 4).then_some(())
    })
    .await;
    let counts = asked(&server);
    assert_eq!((counts.len(), counts.values().max()), (100, Some(&1)), "each text once");
    let found = process.get("/api/v1/memory/search?q=Where%20is%20my%20bike").await.unwrap();
    assert!(found["hits"][0]["meaning_rank"].is_number(), "{found}");
    let audit = process.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!(audit["broken"], 0, "{audit}");
    process.stop().await;
}
