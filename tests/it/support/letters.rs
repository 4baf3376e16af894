//! A service that writes to the owner over a real mail server, and what the owner finds in his mailbox.

use mail_parser::{Message, MessageParser};
use serde_json::{Value, json};
use steward::store::reviews::ReviewRow;
use steward::triggers::email::authentic::Authenticator;
use tokio_postgres::NoTls;

use super::dkim::Signer;
use super::smtp::MailServer;
use super::{App, app_knowing, eventually, example_email};

/// The owner of the template workspace.
pub const OWNER: &str = "mara@harbourandpine.example";
/// Where replies come back to.
const REPLY_TO: &str = "steward@harbourandpine.example";

/// The service, its mail server, and the key of the owner's own one.
pub struct Post {
    pub app: App,
    pub server: MailServer,
    pub key: Signer,
}

/// A mail to the owner, read as a mail program reads it.
#[derive(Clone, Debug)]
pub struct Found {
    pub raw: Vec<u8>,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub message_id: String,
    pub in_reply_to: Option<String>,
    pub reply_to: Option<String>,
}

impl Found {
    fn read(raw: &[u8]) -> Self {
        let message: Message<'_> = MessageParser::default().parse(raw).unwrap();
        Self {
            raw: raw.to_vec(),
            subject: message.subject().unwrap_or_default().to_owned(),
            text: message.body_text(0).unwrap_or_default().into_owned(),
            html: message.body_html(0).unwrap_or_default().into_owned(),
            message_id: message.message_id().unwrap_or_default().to_owned(),
            in_reply_to: message.in_reply_to().as_text().map(str::to_owned),
            reply_to: message
                .reply_to()
                .and_then(|all| all.first())
                .and_then(|one| one.address())
                .map(str::to_owned),
        }
    }

    /// The value of a header, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        let message = MessageParser::default().parse(&self.raw)?;
        message.header_raw(name).map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The link to the page.
    pub fn link(&self) -> String {
        let link = self.text.lines().find(|line| line.contains("/r/") && line.starts_with("http"));
        link.unwrap_or_else(|| panic!("no link in:\n{}", self.text)).trim().to_owned()
    }
}

/// A service whose only way to the owner is mail; `more` is added to its `channels.yaml`.
pub async fn post_with(more: &str) -> Post {
    let (server, key) = (MailServer::start().await, Signer::new());
    let record = key.record();
    let names = ["s._domainkey.harbourandpine.example", "s._domainkey.evil.example"];
    let known = Authenticator::fixed(names.map(|name| (name, record.as_str()))).unwrap();
    let (host, port) = (server.address.ip(), server.address.port());
    let app = app_knowing(known, |workspace| {
        let connectors = format!(
            "email:\n  from: Mara's Steward <{REPLY_TO}>\n  \
             smtp: {{ host: \"{host}\", port: {port}, security: none }}\n"
        );
        std::fs::write(workspace.join("config/connectors.yaml"), connectors).unwrap();
        let channels = format!("email: {{ reply_to: {REPLY_TO} }}\n{more}");
        std::fs::write(workspace.join("config/channels.yaml"), channels).unwrap();
    })
    .await;
    Post { app, server, key }
}

pub async fn post() -> Post {
    post_with("").await
}

impl Post {
    /// Everything that was sent to the owner.
    pub fn found(&self) -> Vec<Found> {
        let all = self.server.accepted();
        all.iter().filter(|mail| mail.to == [OWNER]).map(|mail| Found::read(&mail.bytes)).collect()
    }

    /// The `n`-th mail to the owner, from 1 on.
    pub async fn nth(&self, n: usize) -> Found {
        eventually(&format!("mail {n} to the owner"), || async { self.found().get(n - 1).cloned() }).await
    }

    /// A lead whose answer waits for the owner, and the mail that says so.
    pub async fn lead(&self, name: &str) -> (String, ReviewRow, Found) {
        let before = self.found().len();
        let run = self.app.deliver(example_email(name)).await;
        let review = self.app.open_review(&run).await;
        let id = review["id"].as_str().unwrap().parse().unwrap();
        (run, self.app.store.review(id).await.unwrap().unwrap(), self.nth(before + 1).await)
    }

    /// A mail in the owner's name to `to`, signed as his own server signs.
    pub fn of_owner(&self, to: &str, words: &str) -> String {
        self.signed("harbourandpine.example", OWNER, to, words, "")
    }

    pub fn signed(&self, domain: &str, from: &str, to: &str, words: &str, more: &str) -> String {
        let id = uuid::Uuid::new_v4();
        let mail = format!(
            "From: Mara <{from}>\r\nTo: {to}\r\nSubject: Re: x\r\nMessage-ID: <{id}@harbourandpine.example>\r\n{more}\r\n{words}\r\n"
        );
        self.key.sign(domain, &["From", "To", "Subject", "Message-ID"], &mail)
    }

    /// Hands a mail in at the door; what is answered.
    pub async fn hand_in(&self, raw: impl Into<reqwest::Body>) -> Value {
        let request =
            self.app.client.post(format!("{}/hooks/email", self.app.url)).bearer_auth(&self.app.token);
        let response = request.body(raw).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{status} {body}");
        body
    }

    /// Hands in a reply, which opens no run; what came of it, as the review's replies tell.
    pub async fn reply(&self, review: &ReviewRow, raw: impl Into<reqwest::Body>) -> String {
        assert_eq!(self.hand_in(raw).await, json!({"run": null, "created": false}));
        self.replies(review).await.pop().unwrap_or_default()
    }

    /// What came of the replies to a review, the earliest first.
    pub async fn replies(&self, review: &ReviewRow) -> Vec<String> {
        let (client, connection) = self.app.store.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let statement = "select coalesce(did, '') from mail_replies where review_id = $1 order by came_at";
        let rows = client.query(statement, &[&review.id.0]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub async fn status(&self, review: &ReviewRow) -> String {
        self.app.store.review(review.id).await.unwrap().unwrap().status
    }

    pub async fn runs(&self) -> usize {
        self.app.get("/api/v1/runs").await["runs"].as_array().unwrap().len()
    }
}
