//! Memory: what is added once is there once, what is superseded is never found, and every hit says
//! where it comes from.

use std::collections::HashSet;

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::json;
use steward::domain::event::ErrorKind;
use steward::domain::label::Label;
use steward::memory::ingest::{IngestError, LARGEST, MOST_CHUNKS, add, add_path, list, remove};
use steward::memory::search::{Hit, Query, search, search_action};
use steward::memory::{Embedder, Vectors};
use steward::store::Store;

use crate::support::{database, encoder};

const PRICES: &str = "# Price list\n\n## Hosting\n\n### Monthly price\n\nKeeping your website online costs 12 EUR a month.\n\n\
    ## Bookkeeping\n\nWe sort receipts and file the tax return once a year.\n";

const HOLIDAYS: &str = "# Holidays\n\nThe office is closed from 24 December to 2 January.\n";

async fn added(store: &Store, path: &str, text: &str) -> steward::memory::ingest::Added {
    add(store, &encoder(), path, text.as_bytes(), Label::Owner).await.unwrap()
}

async fn found(store: &Store, text: &str) -> Vec<Hit> {
    let found = search(store, &encoder(), &Query::new(text)).await.unwrap();
    found.hits
}

#[tokio::test]
async fn adding_the_same_bytes_twice_changes_nothing() {
    let store = database().await;
    let first = added(&store, "prices.md", PRICES).await;
    assert_eq!((first.version, first.chunks, first.unchanged), (1, 2, false));
    let second = added(&store, "prices.md", PRICES).await;
    assert!(second.unchanged);
    assert_eq!((second.document, second.version, second.chunks), (first.document, 1, 2));
    assert_eq!(list(&store).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_changed_document_supersedes_and_its_old_version_is_never_found() {
    let store = database().await;
    added(&store, "prices.md", PRICES).await;
    let second = added(&store, "prices.md", &PRICES.replace("12 EUR", "15 EUR")).await;
    assert_eq!((second.version, second.unchanged), (2, false));
    for question in ["12 EUR", "Keeping your website online costs 12 EUR a month.", "tax return"] {
        let hits = found(&store, question).await;
        assert!(!hits.is_empty(), "{question}");
        assert!(hits.iter().all(|hit| hit.version == 2 && !hit.text.contains("12 EUR")), "{hits:?}");
    }
    let back = added(&store, "prices.md", PRICES).await;
    assert_eq!((back.version, back.unchanged), (3, false), "going back is a new version too");
}

#[tokio::test]
async fn a_new_label_is_a_new_version_so_trust_is_never_inherited() {
    let store = database().await;
    added(&store, "prices.md", PRICES).await;
    let again = add(&store, &encoder(), "prices.md", PRICES.as_bytes(), Label::Untrusted).await.unwrap();
    assert_eq!((again.version, again.unchanged), (2, false));
    assert!(found(&store, "hosting").await.iter().all(|hit| hit.label == Label::Untrusted));
}

#[tokio::test]
async fn a_removed_document_is_not_found_and_can_come_back() {
    let store = database().await;
    added(&store, "holidays.md", HOLIDAYS).await;
    assert!(remove(&store, "holidays.md").await.unwrap());
    assert!(!remove(&store, "holidays.md").await.unwrap(), "there is nothing left to remove");
    assert!(found(&store, "When is the office closed?").await.is_empty());
    assert!(list(&store).await.unwrap().is_empty());
    assert_eq!(added(&store, "holidays.md", HOLIDAYS).await.version, 2);
    assert_eq!(found(&store, "When is the office closed?").await.len(), 1);
}

#[tokio::test]
async fn a_search_finds_by_meaning_what_shares_no_word() {
    let store = database().await;
    added(&store, "prices.md", PRICES).await;
    added(&store, "holidays.md", HOLIDAYS).await;
    let hits = found(&store, "Is anybody at work over Christmas?").await;
    assert_eq!(hits[0].path, "holidays.md", "{hits:?}");
    assert_eq!((hits[0].word_rank, hits[0].meaning_rank), (None, Some(1)));
}

#[tokio::test]
async fn a_search_finds_by_word_what_the_encoder_does_not_know() {
    let store = database().await;
    for nth in 40..60 {
        let text = format!("# Invoice\n\nInvoice INV-2024-00{nth} over 300 EUR was paid in time.\n");
        added(&store, &format!("invoices/{nth}.md"), &text).await;
    }
    for question in [
        "INV-2024-0047",
        "inv 2024 0047",
        "Hello, has our invoice INV/2024/0047 been paid? Thanks!",
        "\"2024 0047\"",
    ] {
        let hits = found(&store, question).await;
        assert_eq!(hits[0].path, "invoices/47.md", "{question}: {hits:?}");
        assert_eq!(hits[0].word_rank, Some(1));
    }
}

#[tokio::test]
async fn every_hit_cites_document_version_and_place() {
    let store = database().await;
    added(&store, "shop/prices.md", "Old.").await;
    let now = added(&store, "shop/prices.md", PRICES).await;
    let hits = found(&store, "How much does hosting cost per month?").await;
    let best = &hits[0];
    assert_eq!((best.document, best.path.as_str(), best.version), (now.document, "shop/prices.md", 2));
    assert_eq!((best.title.as_str(), best.place), ("Price list", 0));
    assert_eq!(best.heading, "Price list › Hosting › Monthly price");
    assert_eq!(best.text, "Keeping your website online costs 12 EUR a month.");
    let places: HashSet<i32> = hits.iter().map(|hit| hit.place).collect();
    assert_eq!(places.len(), hits.len(), "no place is cited twice");
}

#[tokio::test]
async fn the_same_question_always_gets_the_same_hits_in_the_same_order() {
    let store = database().await;
    for name in ["c.txt", "a.txt", "b.txt"] {
        added(&store, name, "The warranty lasts two years.").await;
    }
    let paths: Vec<String> = found(&store, "warranty").await.into_iter().map(|hit| hit.path).collect();
    assert_eq!(paths, ["a.txt", "b.txt", "c.txt"]);
}

#[tokio::test]
async fn a_search_keeps_to_its_labels_its_folder_and_its_limit() {
    let store = database().await;
    added(&store, "own/terms.md", "We pay within 14 days.").await;
    let outside = "We pay within 90 days.".as_bytes();
    add(&store, &encoder(), "mail/terms.md", outside, Label::Untrusted).await.unwrap();
    let ask = |ceiling, prefix: Option<&str>, limit| {
        let query =
            Query { limit, ceiling, prefix: prefix.map(str::to_owned), ..Query::new("When do we pay?") };
        let store = store.clone();
        async move {
            let found = search(&store, &encoder(), &query).await.unwrap();
            found.hits.into_iter().map(|hit| hit.path).collect::<Vec<_>>()
        }
    };
    assert_eq!(ask(None, None, 5).await.len(), 2);
    assert_eq!(ask(Some(Label::Model), None, 5).await, ["own/terms.md"]);
    assert_eq!(ask(None, Some("mail/"), 5).await, ["mail/terms.md"]);
    assert_eq!(ask(None, None, 1).await.len(), 1);
}

#[tokio::test]
async fn two_adds_at_once_of_one_document_give_one_version_each() {
    let store = database().await;
    let embedder = encoder();
    let same = join_all((0..6).map(|_| add(&store, &embedder, "a.md", b"Same.", Label::Owner))).await;
    let same: Vec<_> = same.into_iter().map(Result::unwrap).collect();
    assert!(same.iter().all(|added| added.version == 1), "{same:?}");
    assert_eq!(same.iter().filter(|added| !added.unchanged).count(), 1, "{same:?}");

    let texts: Vec<String> = (0..6).map(|nth| format!("Text {nth}.")).collect();
    let other =
        join_all(texts.iter().map(|text| add(&store, &embedder, "a.md", text.as_bytes(), Label::Owner)))
            .await;
    let mut versions: Vec<i32> = other.into_iter().map(|added| added.unwrap().version).collect();
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5, 6, 7]);
    assert_eq!(list(&store).await.unwrap().len(), 1);
}

/// Vectors in which equal words fall together: quick enough for whole books, and a space of its own.
struct Words;

impl Embedder for Words {
    fn space(&self) -> String {
        "words".to_owned()
    }

    fn dimensions(&self) -> Option<usize> {
        Some(16)
    }

    fn embed(&self, texts: Vec<String>, _: Option<usize>) -> Vectors<'_> {
        let vector = |text: &String| {
            let mut vector = vec![0.1; 16];
            for byte in text.bytes() {
                vector[usize::from(byte % 16)] += 1.0;
            }
            vector
        };
        let vectors = texts.iter().map(vector).collect();
        async move { Ok(vectors) }.boxed()
    }
}

#[tokio::test]
async fn a_document_of_five_megabytes_is_taken_and_a_larger_one_refused() {
    let store = database().await;
    let mut book = String::new();
    while book.len() < LARGEST - 2_000 {
        book.push_str(&format!("## Chapter {}\n\n", book.len()));
        book.push_str(&"It was a dark and stormy night, once more.\n".repeat(30));
    }
    book.push_str("## The end\n\nThe gardener did it.\n");
    let taken = add(&store, &Words, "book.md", book.as_bytes(), Label::Owner).await.unwrap();
    assert!(taken.chunks > 7_000, "{taken:?}");
    let hits = search(&store, &Words, &Query::new("Was it the gardener?")).await.unwrap().hits;
    assert_eq!((hits[0].heading.as_str(), i64::from(hits[0].place)), ("The end", taken.chunks - 1));

    let crumbs = "# a\n".repeat(MOST_CHUNKS + 1);
    let refused = add(&store, &Words, "crumbs.md", crumbs.as_bytes(), Label::Owner).await;
    assert!(matches!(refused, Err(IngestError::TooManyChunks { .. })), "{refused:?}");
    let larger = vec![b'a'; LARGEST + 1];
    let refused = add(&store, &Words, "larger.txt", &larger, Label::Owner).await;
    assert!(matches!(refused, Err(IngestError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test]
async fn vectors_of_another_encoder_are_never_compared_but_words_still_are() {
    let store = database().await;
    added(&store, "holidays.md", HOLIDAYS).await;
    let words = search(&store, &Words, &Query::new("office")).await.unwrap();
    assert!(words.words_only.unwrap().contains("is not in config/models.yaml any more"));
    let hits = words.hits;
    assert_eq!((hits.len(), hits[0].meaning_rank, hits[0].word_rank), (1, None, Some(1)));
    let more = add(&store, &Words, "more.md", b"The office has a garden.", Label::Owner).await.unwrap();
    assert!(more.words_only.is_some(), "it says so: {more:?}");
    let hits = found(&store, "garden office").await;
    let more = hits.iter().find(|hit| hit.path == "more.md").unwrap();
    assert_eq!(more.meaning_rank, None);
}

#[tokio::test]
async fn an_emptied_document_is_no_longer_found() {
    let store = database().await;
    added(&store, "holidays.md", HOLIDAYS).await;
    let empty = added(&store, "holidays.md", "\u{feff}\r\n \n").await;
    assert_eq!((empty.version, empty.chunks), (2, 0));
    assert!(found(&store, "When is the office closed?").await.is_empty());
    assert_eq!(added(&store, "nothing.txt", "").await.chunks, 0);
}

#[tokio::test]
async fn what_is_not_text_is_refused_with_the_byte_that_shows_it() {
    let store = database().await;
    let cases: [(&[u8], usize); 4] =
        [(b"caf\xe9", 3), (b"\xff\xfeh\0i\0", 0), (b"zero\0byte", 4), (b"\xf0\x9f\x98", 0)];
    for (bytes, place) in cases {
        match add(&store, &encoder(), "a.txt", bytes, Label::Owner).await {
            Err(IngestError::NotText { at, .. }) => assert_eq!(at, place),
            other => panic!("{other:?}"),
        }
    }
    for path in ["", "/etc/notes.txt", "../a.txt", "a//b.txt", "a\nb.txt", "./a.txt"] {
        let refused = add(&store, &encoder(), path, b"text", Label::Owner).await;
        assert!(matches!(refused, Err(IngestError::Path(_))), "{path:?}: {refused:?}");
    }
    let refused = add(&store, &encoder(), "a.pdf", b"%PDF", Label::Owner).await;
    assert!(matches!(refused, Err(IngestError::Kind(_))), "{refused:?}");
    assert!(list(&store).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_byte_order_mark_and_foreign_line_ends_are_no_part_of_the_text() {
    let store = database().await;
    added(&store, "a.md", "\u{feff}# Titel\r\n\r\nZwei Zeilen\r\nhier.\r\n").await;
    let hits = found(&store, "Zeilen").await;
    assert_eq!((hits[0].title.as_str(), hits[0].text.as_str()), ("Titel", "Zwei Zeilen\nhier."));
}

#[tokio::test]
async fn a_folder_is_taken_in_order_and_a_bad_file_does_not_stop_the_others() {
    let store = database().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    };
    write("z.md", b"Last.");
    write("a/b/deep.txt", b"Deep.");
    write("a/bad.txt", b"\xff");
    write("a/picture.png", b"\x89PNG");
    write(".hidden.md", b"Hidden.");
    write(".git/notes.md", b"Hidden too.");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();

    let report = add_path(&store, &encoder(), folder.path(), Label::Owner).await.unwrap();
    let paths: Vec<&str> = report.added.iter().map(|added| added.path.as_str()).collect();
    assert_eq!(paths, ["a/b/deep.txt", "z.md"]);
    assert_eq!(report.refused.len(), 1);
    assert_eq!(report.refused[0].to_string(), "a/bad.txt: this is not UTF-8 text (byte 0)");

    let again = add_path(&store, &encoder(), folder.path(), Label::Owner).await.unwrap();
    assert!(again.added.iter().all(|added| added.unchanged));
    let alone =
        add_path(&store, &encoder(), &folder.path().join("a/b/deep.txt"), Label::Owner).await.unwrap();
    assert_eq!(alone.added[0].path, "deep.txt");
    let bad = add_path(&store, &encoder(), &folder.path().join("a/bad.txt"), Label::Owner).await;
    assert!(matches!(bad, Err(IngestError::NotText { .. })), "{bad:?}");
    let missing = add_path(&store, &encoder(), &folder.path().join("no.txt"), Label::Owner).await;
    assert!(matches!(missing, Err(IngestError::Read { .. })), "{missing:?}");
}

#[tokio::test]
async fn no_question_breaks_the_search() {
    let store = database().await;
    assert!(found(&store, "anything").await.is_empty(), "nothing was ever added");
    added(&store, "a.md", "It's 100% C:\\temp & 'quoted' | piped ! (really).").await;
    let long = "hosting ".repeat(100_000);
    for question in [
        "'",
        "\\",
        "it's \\ C:\\temp",
        "a & b | !c <-> (d",
        "-",
        "\"",
        "\0",
        "日本語のメール",
        "the of and",
        &long,
    ] {
        found(&store, question).await;
    }
    for blank in ["", " \n\t", "\u{a0}"] {
        assert!(found(&store, blank).await.is_empty());
    }
    assert_eq!(found(&store, "C:\\temp").await[0].word_rank, Some(1));
}

#[tokio::test]
async fn the_read_action_answers_with_citations_and_the_label_of_what_it_cites() {
    let store = database().await;
    let prices = added(&store, "prices.md", PRICES).await;
    let mail = "# Mail\n\nMy hosting costs too much.".as_bytes();
    add(&store, &encoder(), "mail.md", mail, Label::Untrusted).await.unwrap();

    let params = json!({ "query": "What does hosting cost per month?", "limit": 1 });
    let (output, label) = search_action(&store, &encoder(), &params).await.unwrap();
    let hit = &output["hits"][0];
    assert_eq!((&hit["path"], &hit["version"], &hit["place"]), (&json!("prices.md"), &json!(1), &json!(0)));
    assert_eq!((&hit["document"], &hit["title"]), (&json!(prices.document), &json!("Price list")));
    assert!(hit["score"].as_f64().unwrap() > 0.0 && hit["text"].as_str().unwrap().contains("12 EUR"));
    assert_eq!(label, Label::Owner);

    let (output, label) = search_action(&store, &encoder(), &json!({ "query": "hosting" })).await.unwrap();
    assert!(output["hits"].as_array().unwrap().len() > 1);
    assert_eq!(label, Label::Untrusted);

    for params in [
        json!({}),
        json!({ "query": 1 }),
        json!({ "query": "a", "limit": 0 }),
        json!({ "query": "a", "k": 1 }),
    ] {
        let error = search_action(&store, &encoder(), &params).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
}
