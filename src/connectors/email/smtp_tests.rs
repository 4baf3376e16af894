use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::config::connectors as config;
use crate::connectors::Connector;
use crate::connectors::email::tests::call;
use crate::connectors::email::{Email, message};
use crate::domain::action::Repeat;
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::plan::EffectResult;

/// What a scripted server does when it has the message.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Reply(&'static str),
    Drop,
    Silence,
}

/// A mail server that says what it is told to, on a port of its own.
struct Server {
    greeting: &'static str,
    offers: &'static [&'static str],
    starttls: &'static str,
    auth: &'static str,
    sender: &'static str,
    recipient: fn(&str) -> &'static str,
    data: &'static str,
    then: Then,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            greeting: "220 test",
            offers: &["AUTH PLAIN"],
            starttls: "220 go on",
            auth: "235 welcome",
            sender: "250 ok",
            recipient: |_| "250 ok",
            data: "354 go on",
            then: Then::Reply("250 2.0.0 queued as 4711"),
        }
    }
}

/// What the server saw: its client's commands, and the message without the dots of its transport.
#[derive(Default, Debug)]
struct Seen {
    commands: Vec<String>,
    message: Vec<u8>,
}

impl Server {
    async fn start(self) -> (u16, JoinHandle<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut seen = Seen::default();
            let _ = self.serve(BufReader::new(stream), &mut seen).await; // a client may hang up any time
            seen
        });
        (port, served)
    }

    async fn serve(&self, mut stream: BufReader<TcpStream>, seen: &mut Seen) -> std::io::Result<()> {
        say(&mut stream, self.greeting).await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let command = line.trim_end().to_owned();
            seen.commands.push(command.clone());
            let verb = command.split([' ', ':']).next().unwrap_or_default();
            match verb {
                "EHLO" => {
                    for offer in self.offers {
                        say(&mut stream, &format!("250-{offer}")).await?;
                    }
                    say(&mut stream, "250 SIZE 1000000").await?;
                }
                "STARTTLS" => say(&mut stream, self.starttls).await?,
                "AUTH" => say(&mut stream, self.auth).await?,
                "MAIL" => say(&mut stream, self.sender).await?,
                "RCPT" => say(&mut stream, (self.recipient)(&command)).await?,
                "DATA" => {
                    say(&mut stream, self.data).await?;
                    if self.data.starts_with('3') {
                        seen.message = receive(&mut stream).await?;
                        match self.then {
                            Then::Reply(reply) => say(&mut stream, reply).await?,
                            Then::Drop => return Ok(()),
                            Then::Silence => drop(stream.read_to_end(&mut Vec::new()).await?),
                        }
                    }
                }
                "QUIT" => return say(&mut stream, "221 bye").await,
                _ => say(&mut stream, "500 what").await?,
            }
        }
    }
}

async fn say(stream: &mut BufReader<TcpStream>, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await
}

async fn receive(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await?;
        if line == b".\r\n" || line.is_empty() {
            return Ok(message);
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn client(port: u16, security: Security, timeout: Duration) -> Smtp {
    let config = config::Smtp {
        host: "127.0.0.1".into(),
        port: Some(port),
        security,
        username: None,
        password: None,
        timeout: Span(timeout),
    };
    Smtp::new(&config, Some(("ada".into(), Secret::new("s3cret".into()))))
}

fn mail() -> Mail {
    let sender = message::sender("ada@studio.example").unwrap();
    message::build(&call(".\r\n.hidden\n..\nend \n.\nä"), &sender).unwrap()
}

const PATIENT: Duration = Duration::from_secs(20);

async fn deliver(server: Server) -> (Result<String, Undelivered>, Seen) {
    let timeout = if server.then == Then::Silence { Duration::from_millis(300) } else { PATIENT };
    let (port, served) = server.start().await;
    let outcome = client(port, Security::None, timeout).deliver(&mail()).await;
    (outcome, served.await.unwrap())
}

fn failure(outcome: Result<String, Undelivered>) -> StepError {
    match outcome {
        Err(Undelivered::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_the_server_receives_is_exactly_the_mail_and_its_reply_is_kept() {
    let (outcome, seen) = deliver(Server::default()).await;
    assert_eq!(outcome.unwrap(), "250 2.0.0 queued as 4711");
    assert_eq!(String::from_utf8(seen.message).unwrap(), String::from_utf8(mail().bytes).unwrap());
    let tail: Vec<_> = seen.commands.iter().skip(2).map(String::as_str).collect();
    assert_eq!(
        tail,
        ["MAIL FROM:<ada@studio.example>", "RCPT TO:<b@x.example>", "RCPT TO:<c@x.example>", "DATA", "QUIT",]
    );
}

#[tokio::test]
async fn the_response_names_the_exact_bytes_that_were_sent_and_a_repetition_sends_the_same() {
    let mut sent = Vec::new();
    for _ in 0..2 {
        let (port, served) = Server::default().start().await;
        let smtp = config::Smtp {
            host: "127.0.0.1".into(),
            port: Some(port),
            security: Security::None,
            username: None,
            password: None,
            timeout: Span(PATIENT),
        };
        let config = config::Email { from: "Ada <ada@studio.example>".into(), smtp: Some(smtp) };
        let email = Email::new(&config, "outbox").unwrap();
        let call = call("hello");
        assert_eq!(email.repeat(&call.action), Repeat::None);
        assert!(matches!(email.probe(&call).await, EffectResult::Unknown(_)));
        let EffectResult::Succeeded(response) = email.perform(&call).await else { panic!() };
        let message = served.await.unwrap().message;
        assert_eq!(response["transport"], "smtp");
        assert_eq!(response["accepted"], "250 2.0.0 queued as 4711");
        assert_eq!(response["sha256"], Digest::of_bytes(&message).to_string());
        let id = response["message_id"].as_str().unwrap();
        assert!(String::from_utf8(message.clone()).unwrap().contains(&format!("\r\nMessage-ID: {id}\r\n")));
        sent.push(message);
    }
    assert_eq!(sent[0], sent[1]);
}

#[tokio::test]
async fn until_the_message_is_handed_over_every_failure_is_a_failure_and_says_whether_it_may_pass() {
    use ErrorKind::{Refused, Unavailable};
    let one = |reply: &'static str| Server { recipient: |_| "250 ok", greeting: reply, ..Server::default() };
    let cases: Vec<(Server, ErrorKind, &str)> = vec![
        (one("421 too busy"), Unavailable, "421 too busy"),
        (one("554 go away"), Refused, "554 go away"),
        (one("HTTP/1.1 400 Bad Request"), Unavailable, "when connecting"),
        (Server { offers: &[], ..Server::default() }, Refused, "when signing in"),
        (Server { auth: "535 wrong", ..Server::default() }, ErrorKind::KeyRefused, "check `smtp.username`"),
        (Server { auth: "454 later", ..Server::default() }, Unavailable, "454 later"),
        (Server { sender: "550 not you", ..Server::default() }, Refused, "550 not you"),
        (Server { sender: "354 what", ..Server::default() }, Unavailable, "makes no sense"),
        (
            Server {
                recipient: |to| if to.contains("c@") { "550 no such user" } else { "250 ok" },
                ..Server::default()
            },
            Refused,
            "refuses c@x.example: 550 no such user; nobody got the mail",
        ),
        (
            Server { recipient: |_| "450 grey-listed", ..Server::default() },
            Unavailable,
            "refuses b@x.example",
        ),
        (Server { data: "451 not now", ..Server::default() }, Unavailable, "451 not now"),
        (Server { data: "250 surprise", ..Server::default() }, Unavailable, "makes no sense"),
        (Server { then: Then::Reply("552 too big"), ..Server::default() }, Refused, "552 too big"),
        (Server { then: Then::Reply("451 disk full"), ..Server::default() }, Unavailable, "451 disk full"),
    ];
    for (server, kind, says) in cases {
        let (outcome, seen) = deliver(server).await;
        let error = failure(outcome);
        assert_eq!((error.kind, error.message.contains(says)), (kind, true), "{error:?} should say {says}");
        let settled = error.message.contains("when it had the message");
        assert_eq!(seen.message.is_empty(), !settled, "{error:?}");
        assert!(!error.message.contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_message_without_a_reply_may_have_arrived() {
    for then in [Then::Drop, Then::Silence, Then::Reply("354 again"), Then::Reply("nonsense")] {
        let (outcome, seen) = deliver(Server { then, ..Server::default() }).await;
        let Err(Undelivered::Unknown(evidence)) = outcome else { panic!("{outcome:?}") };
        assert!(evidence.contains("127.0.0.1") && evidence.contains("was given the message"), "{evidence}");
        assert_eq!(seen.message, mail().bytes);
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_connection_or_never_greets_is_tried_again_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = client(port, Security::None, Duration::from_millis(200)).deliver(&mail()).await;
    assert_eq!(failure(silent).kind, ErrorKind::Timeout);
    drop(listener);
    let refused = client(port, Security::None, PATIENT).deliver(&mail()).await;
    assert_eq!(failure(refused).kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_connection_is_never_less_secure_than_the_settings_say() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (port, served) = Server::default().start().await;
    let error = failure(client(port, Security::Starttls, PATIENT).deliver(&mail()).await);
    assert_eq!((error.kind, error.message.contains("does not offer STARTTLS")), (ErrorKind::Refused, true));
    assert!(served.await.unwrap().commands.iter().all(|line| !line.starts_with("AUTH")));

    let offers =
        Server { offers: &["STARTTLS", "AUTH PLAIN"], starttls: "454 no certificate", ..Server::default() };
    let (port, served) = offers.start().await;
    let error = failure(client(port, Security::Starttls, PATIENT).deliver(&mail()).await);
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    assert!(served.await.unwrap().commands.iter().all(|line| !line.starts_with("AUTH")));

    // A server that speaks plainly where TLS was asked for.
    let (port, _) = Server::default().start().await;
    let error = failure(client(port, Security::Tls, PATIENT).deliver(&mail()).await);
    assert!(error.message.contains("when connecting"), "{error:?}");
}
