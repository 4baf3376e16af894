//! A ledger for tests of models without a database: counts in a [`Book`].

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use crate::domain::budget::Limits;
use crate::domain::budget::book::{Book, Paying};
use crate::models::ledger::{Inner, Ledger, Msg, NoMoney, Terms};

impl Ledger {
    /// Counts in memory, under these limits of the workspace; what it counts is in the book.
    pub(crate) fn in_memory(limits: Limits) -> (Self, Arc<Mutex<Book>>) {
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let book = Arc::new(Mutex::new(Book::default()));
        let counted = book.clone();
        tokio::spawn(async move {
            while let Some(message) = inbox.recv().await {
                let mut book = counted.lock().unwrap();
                match message {
                    Msg::Reserve(wanted, answer) => {
                        let paying = wanted.accounts.iter().map(|(account, limit)| Paying {
                            account: account.to_string(),
                            scope: account.scope().into(),
                            limit: limit.map(|limit| limit + wanted.payer.extra),
                        });
                        let paying: Vec<Paying> = paying.collect();
                        let reserved = book.reserve(wanted.id, wanted.worst, &paying);
                        let short = |short| NoMoney::Short { short, currency: "USD".into() };
                        let _ = answer.send(reserved.map_err(short));
                    }
                    Msg::End(id, end) => book.end(id, end),
                    Msg::Stop(done) => drop(done.send(())),
                }
            }
        });
        let clock = Arc::new(|| "2026-11-25T12:00:00Z".parse::<Timestamp>().unwrap());
        let terms = Terms { limits, zone: TimeZone::UTC, currency: "USD".into(), clock };
        (Self(Arc::new(Inner { desk: sender, terms, store: None })), book)
    }
}
