//! Wake-ups between nodes: one connection per node that listens for hints and sends them. A hint is
//! never the truth: whoever misses it finds the same in the tables at the next poll.

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use crate::domain::ids::RunId;
use crate::store::{Store, StoreError};

/// The channel; PostgreSQL keeps each database's apart.
const CHANNEL: &str = "steward_wake";

/// Hints that may wait for this node to hear them; what is beyond is left to the poll.
const BACKLOG: usize = 1024;

/// The most runs named in one hint, far below the 8,000 bytes that a payload may have.
pub const NAMED: usize = 64;

/// The word for a hint that names no run: something is due that anybody may take.
const DUE: &str = "due";

/// A hint from another node: something may be due.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hint {
    /// These runs were told something.
    pub runs: Vec<RunId>,
    /// And others, too many to name.
    pub others: bool,
}

/// A connection that hears hints and sends them.
pub struct Line {
    client: Client,
    hints: mpsc::Receiver<Hint>,
}

impl Line {
    /// Connects and listens.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn connect(config: &Config) -> Result<Self, StoreError> {
        let (client, mut connection) = config.connect(NoTls).await?;
        let (send, hints) = mpsc::channel(BACKLOG);
        let (pid_is, mut own_pid) = tokio::sync::watch::channel(None);
        tokio::spawn(async move {
            let mut messages = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                let AsyncMessage::Notification(note) = message else { continue };
                if *own_pid.borrow_and_update() != Some(note.process_id()) {
                    let _ = send.try_send(parse(note.payload())); // full: the poll makes up for it
                }
            }
        });
        // A hint is worth nothing after a crash: waiting for the disk would only delay it.
        client.batch_execute(&format!("set synchronous_commit = off; listen {CHANNEL}")).await?;
        let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await?.get(0);
        let _ = pid_is.send(Some(pid));
        Ok(Self { client, hints })
    }

    /// The next hint of another node; nothing once the connection is lost.
    pub async fn hear(&mut self) -> Option<Hint> {
        self.hints.recv().await
    }

    /// Sends a hint to all other nodes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell(&self, hint: &Hint) -> Result<(), StoreError> {
        self.client.execute("select pg_notify($1, $2)", &[&CHANNEL, &payload(hint)]).await?;
        Ok(())
    }
}

impl Store {
    /// Tells all nodes that something is due, without a [`Line`]: the last word of a node that stops.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tell_due(&self) -> Result<(), StoreError> {
        self.client().await?.execute("select pg_notify($1, $2)", &[&CHANNEL, &DUE]).await?;
        Ok(())
    }
}

fn payload(hint: &Hint) -> String {
    match hint.runs.len() {
        0 if !hint.others => DUE.to_owned(),
        1..=NAMED if !hint.others => hint.runs.iter().map(RunId::to_string).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

/// What cannot be read, such as the words of a newer version, is a reason to look everywhere.
fn parse(payload: &str) -> Hint {
    let everything = Hint { runs: Vec::new(), others: true };
    match payload {
        DUE => Hint::default(),
        "" => everything,
        named => match named.split_whitespace().map(str::parse).collect() {
            Ok(runs) => Hint { runs, others: false },
            Err(_) => everything,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_hint_comes_across_as_it_was_told_and_many_runs_become_a_reason_to_look() {
        let runs: Vec<RunId> = (0..NAMED as u128 + 1).map(|n| RunId(Uuid::from_u128(n))).collect();
        let few = Hint { runs: runs[..NAMED].to_vec(), others: false };
        let everything = Hint { runs: Vec::new(), others: true };
        assert_eq!(parse(&payload(&few)), few);
        assert!(payload(&few).len() < 8000);
        assert_eq!(parse(&payload(&Hint { runs, others: false })), everything);
        assert_eq!(parse(&payload(&Hint::default())), Hint::default());
        assert_eq!(parse("words of a newer steward"), everything);
    }
}
