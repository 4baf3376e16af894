//! Socket Mode, for owners whose Steward nobody can reach: Slack speaks over a connection that Steward
//! opened, <https://docs.slack.dev/apis/events-api/using-socket-mode>. Several nodes may listen at once: Slack
//! gives each envelope to one of them, and to another one when it is not acknowledged.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::reviews::slack::Slack;
use crate::reviews::slack::api::Fault;
use crate::reviews::slack::interact::{Reply, handle};
use crate::reviews::slack::payload::Payload;

/// The first pause after a failure, and the longest; each is drawn between nothing and twice the one before.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long the handshake may take.
const CONNECT: Duration = Duration::from_secs(20);

/// How often we ask whether the other end is there, and how long it may be silent.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(70);

/// A connection that lived so long was a good one: the next failure pauses as the first.
const GOOD: Duration = Duration::from_secs(30);

/// The largest message that is taken; a modal with twenty inputs is under 100 kB.
const LARGEST: usize = 1024 * 1024;

/// Envelopes at work at once: more wait in the connection.
const AT_ONCE: usize = 16;

/// How long what is at work may still answer when Slack closes the connection.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Listens until it is aborted.
pub(super) async fn listen(slack: Arc<Slack>) {
    let mut pause = PAUSE.0;
    loop {
        let since = Instant::now();
        match connection(&slack).await {
            // Slack renews its connections every few hours.
            Ok(()) => {
                pause = PAUSE.0;
                continue;
            }
            Err(fault) => {
                if since.elapsed() >= GOOD {
                    pause = PAUSE.0;
                }
                match &fault {
                    Fault::Passing(error) => {
                        tracing::warn!(error, "the connection to Slack broke; it is made again")
                    }
                    fault => {
                        pause = PAUSE.1;
                        slack
                            .key_fails("slack/socket", "Slack does not take Steward's app token", fault)
                            .await;
                    }
                }
            }
        }
        let jitter = rand::rng().random_range(0.5..1.0); // many nodes must not come back at once
        sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One connection, until Slack asks for the next one.
async fn connection(slack: &Arc<Slack>) -> Result<(), Fault> {
    let broken = |why: &str| Fault::Passing(why.to_owned());
    let url = slack.api.socket().await?;
    let sizes = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST));
    let connecting = connect_async_with_config(url.as_str(), Some(sizes), true);
    let connected = timeout(CONNECT, connecting).await.map_err(|_| broken("nobody answers"))?;
    // The address has a ticket in it: the error may not.
    let (socket, _) = connected.map_err(|_| broken("the handshake failed"))?;
    let (mut out, mut incoming) = socket.split();
    let (answers, mut answered) = mpsc::channel::<String>(AT_ONCE);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut pings = interval(PING);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            message = timeout_at(heard + SILENCE, incoming.next()), if room.available_permits() > 0 => {
                let message = message.map_err(|_| broken("nothing is heard any more"))?;
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) => match heed(slack, &text, &room, &answers) {
                        Heard::GoOn => {}
                        Heard::Hello => slack.key_works("slack/socket").await,
                        Heard::Bye => break,
                    },
                    Some(Ok(Message::Close(_))) | None => return Err(broken("Slack closed it")),
                    Some(Ok(_)) => {} // pings are answered below us
                    Some(Err(_)) => return Err(broken("it broke off")),
                }
            }
            Some(answer) = answered.recv() => say(&mut out, Message::text(answer)).await?,
            _ = pings.tick() => say(&mut out, Message::Ping(Vec::new().into())).await?,
        }
    }
    // What is at work is answered here; what is not, Slack delivers again.
    drop(answers);
    let last = async {
        while let Some(answer) = answered.recv().await {
            say(&mut out, Message::text(answer)).await?;
        }
        Ok::<(), Fault>(())
    };
    let _ = timeout(LAST_WORDS, last).await; // delivered again otherwise
    let _ = timeout(LAST_WORDS, out.close()).await; // it is going anyway
    Ok(())
}

async fn say<S>(out: &mut S, message: Message) -> Result<(), Fault>
where
    S: SinkExt<Message> + Unpin,
{
    let sent = timeout(LAST_WORDS, out.send(message)).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        _ => Err(Fault::Passing("nothing can be said any more".into())),
    }
}

enum Heard {
    GoOn,
    Hello,
    Bye,
}

/// Takes one message. Work goes into a task, so that pings are answered meanwhile.
fn heed(slack: &Arc<Slack>, text: &str, room: &Arc<Semaphore>, answers: &mpsc::Sender<String>) -> Heard {
    let Ok(envelope) = serde_json::from_str::<Value>(text) else { return Heard::GoOn };
    match envelope.get("type").and_then(Value::as_str) {
        Some("hello") => return Heard::Hello,
        Some("disconnect") => return Heard::Bye,
        _ => {}
    }
    let Some(id) = envelope.get("envelope_id").and_then(Value::as_str).map(str::to_owned) else {
        return Heard::GoOn;
    };
    let payload = envelope.get("payload").map(Payload::of_value);
    let Ok(place) = room.clone().try_acquire_owned() else { return Heard::GoOn }; // it is delivered again
    let (slack, answers) = (slack.clone(), answers.clone());
    tokio::spawn(async move {
        let reply = match payload {
            Some(Ok(payload)) => handle(&slack, payload).await,
            // What nobody asked for is acknowledged: it would come again and again.
            Some(Err(_)) | None => Reply::Done,
        };
        let answer = match reply {
            Reply::Done => json!({"envelope_id": id}),
            Reply::View(view) => json!({"envelope_id": id, "payload": view}),
            Reply::Late => return,
        };
        drop(place); // first: whoever waits for the answer looks for a free place next
        let _ = answers.send(answer.to_string()).await; // the connection is gone: it is delivered again
    });
    Heard::GoOn
}
