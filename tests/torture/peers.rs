//! Those at the other end: a web service and a mail server that keep count of what happened there by
//! key, and answer as people's servers do: late, with an error, or not at all.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use steward::store::audit::Received;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What became of one request.
enum Fate {
    /// Done, and said so.
    Good,
    /// Done, and said so late: whoever asked may be gone by then.
    Late(Duration),
    /// Refused for now, and nothing done.
    Refused,
    /// Done, and the line cut before the answer.
    CutAfter,
    /// The line cut before anything was done.
    CutBefore,
}

#[derive(Clone)]
pub struct Peers {
    pub web: SocketAddr,
    pub mail: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    dice: StdRng,
    /// How often something happened, by action and key.
    happened: BTreeMap<(&'static str, String), u32>,
    /// Idempotency keys that were honoured.
    honoured: HashSet<String>,
    /// Whether they are: a receiver that lies about it shows that the harness notices. It always breaks
    /// the line after the first of two requests, and does the second like the first.
    honest: bool,
    /// How often something was done again under a key that was said to be honoured.
    lies: u32,
    /// Out of a hundred requests so many go wrong.
    trouble: u32,
}

impl Peers {
    pub async fn start(dice: StdRng, honest: bool) -> Result<Self> {
        let shared = Arc::new(Mutex::new(Shared {
            dice,
            happened: BTreeMap::new(),
            honoured: HashSet::new(),
            honest,
            lies: 0,
            trouble: 25,
        }));
        let web = TcpListener::bind("127.0.0.1:0").await?;
        let mail = TcpListener::bind("127.0.0.1:0").await?;
        let peers = Self { web: web.local_addr()?, mail: mail.local_addr()?, shared };
        let router = Router::new().route("/call", post(call)).with_state(peers.clone());
        tokio::spawn(async move { axum::serve(web, router).await });
        let server = peers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = mail.accept().await {
                let server = server.clone();
                tokio::spawn(async move { serve_mail(stream, &server).await });
            }
        });
        Ok(peers)
    }

    /// How often something happened under a key.
    pub fn happened(&self, action: &'static str, key: &str) -> u32 {
        self.with(|shared| shared.happened.get(&(action, key.to_owned())).copied().unwrap_or(0))
    }

    pub fn received(&self) -> Vec<Received> {
        self.with(|shared| {
            let received = |((action, key), count): (&(&'static str, String), &u32)| Received {
                action: (*action).to_owned(),
                key: key.clone(),
                count: *count,
            };
            shared.happened.iter().map(received).collect()
        })
    }

    /// From now on everything goes well here.
    pub fn calm(&self) {
        self.with(|shared| shared.trouble = 0);
    }

    /// Whether a receiver that lies did something twice.
    pub fn lied(&self) -> bool {
        self.with(|shared| shared.lies > 0)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap())
    }

    fn fate(&self, token: Option<&str>) -> Fate {
        self.with(|shared| {
            if !shared.honest && token.is_some_and(|token| !shared.honoured.contains(token)) {
                return Fate::CutAfter;
            }
            if shared.dice.random_range(0..100) >= shared.trouble {
                return Fate::Good;
            }
            match shared.dice.random_range(0..5) {
                0 => Fate::Late(Duration::from_millis(shared.dice.random_range(50..2500))),
                1 | 2 => Fate::Refused,
                3 => Fate::CutAfter,
                _ => Fate::CutBefore,
            }
        })
    }

    fn note(&self, action: &'static str, key: &str, token: Option<&str>) {
        self.with(|shared| {
            let new = token.is_none_or(|token| shared.honoured.insert(token.to_owned()));
            if !new && !shared.honest {
                shared.lies += 1;
            }
            if new || !shared.honest {
                *shared.happened.entry((action, key.to_owned())).or_default() += 1;
            }
        });
    }
}

async fn call(State(peers): State<Peers>, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key = body["key"].as_str().unwrap_or("a request without a key").to_owned();
    let token = headers.get("idempotency-key").and_then(|token| token.to_str().ok());
    let done = json!({"done": key}).to_string();
    match peers.fate(token) {
        Fate::Good => peers.note("http.request", &key, token),
        Fate::Late(wait) => {
            peers.note("http.request", &key, token);
            tokio::time::sleep(wait).await;
        }
        Fate::Refused => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fate::CutAfter => {
            peers.note("http.request", &key, token);
            return cut();
        }
        Fate::CutBefore => return cut(),
    }
    ([("content-type", "application/json")], done).into_response()
}

/// An answer that breaks off: the body ends in an error before its promised length.
fn cut() -> axum::response::Response {
    let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    ([("content-length", "64")], axum::body::Body::from_stream(broken)).into_response()
}

async fn serve_mail(stream: TcpStream, peers: &Peers) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    write.write_all(b"220 mail.test ESMTP\r\n").await.ok()?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-mail.test\r\n250 8BITMIME\r\n",
            "MAIL" | "RCPT" | "RSET" | "NOOP" => "250 ok\r\n",
            "DATA" => {
                let fate = peers.fate(None);
                if matches!(fate, Fate::Refused) {
                    write.write_all(b"451 later\r\n").await.ok()?;
                    continue;
                }
                write.write_all(b"354 go ahead\r\n").await.ok()?;
                let subject = subject(&mut lines).await?;
                match fate {
                    Fate::CutBefore => return None,
                    Fate::CutAfter => {
                        peers.note("email.send", &subject, None);
                        return None;
                    }
                    Fate::Late(wait) => {
                        peers.note("email.send", &subject, None);
                        tokio::time::sleep(wait).await;
                    }
                    Fate::Good | Fate::Refused => peers.note("email.send", &subject, None),
                }
                "250 queued\r\n"
            }
            "QUIT" => {
                write.write_all(b"221 bye\r\n").await.ok()?;
                return Some(());
            }
            _ => "502 not here\r\n",
        };
        write.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// Reads a whole message; its subject is its key.
async fn subject(lines: &mut BufReader<tokio::net::tcp::OwnedReadHalf>) -> Option<String> {
    let mut subject = String::from("a mail without a subject");
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == ".\r\n" {
            return Some(subject);
        }
        if let Some(text) = line.strip_prefix("Subject: ") {
            subject = text.trim().to_owned();
        }
    }
}
