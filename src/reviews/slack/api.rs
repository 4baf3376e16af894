//! The few methods of Slack's that are used, <https://docs.slack.dev/reference/methods>. A client of our own
//! over the HTTP client that is here anyway, where a library for all of Slack would bring a second HTTP stack. It never retries; whoever calls it does.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::config::secret::{Secret, SecretRef};
use crate::reviews::channel::Trouble;
use crate::reviews::slack::blocks::Message;

/// How long one call may take. Slack answers in a second, and what opens a modal has three.
const CALL: Duration = Duration::from_secs(10);

/// The longest pause that an answer can impose: what asks for more is taken for a mistake.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The most that an answer may be: a page of a channel's history is some hundred kilobytes.
const ANSWER: usize = 8 * 1024 * 1024;

/// Refusals that pass by themselves.
const PASSING: [&str; 8] = [
    "ratelimited",
    "rate_limited",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "accesslimited",
    "team_added_to_org",
];

/// The kind of the metadata by which a message is found again.
const METADATA: &str = "steward_message";

/// How much of a channel is looked through for a message that may have got through.
const HISTORY: usize = 200;

/// Why a call did not do what it should.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It may work later.
    #[error("{0}")]
    Passing(String),
    /// Slack said no, with its own word for why.
    #[error("Slack refuses {method}: {code}")]
    Refused {
        /// What was asked.
        method: &'static str,
        /// Slack's word.
        code: String,
    },
    /// There is no key to ask with.
    #[error("{0}: it is named in config/channels.yaml")]
    NoKey(String),
}

impl Fault {
    /// Whether Slack refused with this word.
    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == word)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Passing(why) => Self::Passing(why),
            Fault::Refused { .. } | Fault::NoKey(_) => Self::Lasting(fault.to_string()),
        }
    }
}

/// Where a message stands.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// The channel's id.
    pub channel: String,
    /// The message's own time, which is its name.
    pub ts: String,
}

/// The methods.
pub struct Api {
    http: reqwest::Client,
    base: Url,
    token: SecretRef,
    app_token: Option<SecretRef>,
    not_before: Mutex<Option<Instant>>,
}

impl Api {
    /// A client for the methods at `base`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(base: Url, token: SecretRef, app_token: Option<SecretRef>) -> Result<Self, reqwest::Error> {
        // Slack's methods are where they are: a redirect would carry the key elsewhere.
        let http =
            reqwest::Client::builder().timeout(CALL).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { http, base, token, app_token, not_before: Mutex::default() })
    }

    /// Whether the token is good; the bot's own id.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn whoami(&self) -> Result<String, Fault> {
        let answer = self.post("auth.test", &self.token, &json!({})).await?;
        text(&answer, "auth.test", "user_id")
    }

    /// The channel of direct messages with a person.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn direct(&self, user: &str) -> Result<String, Fault> {
        let method = "conversations.open";
        let answer = self.post(method, &self.token, &json!({"users": user})).await?;
        text(answer.get("channel").unwrap_or(&Value::Null), method, "id")
    }

    /// Posts a message that carries `id`, in the thread of `under` or by itself.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn post_message(
        &self,
        channel: &str,
        message: &Message,
        id: &str,
        under: Option<&Place>,
    ) -> Result<Place, Fault> {
        let mut body = json!({
            "channel": channel, "text": message.text, "blocks": message.blocks,
            "metadata": {"event_type": METADATA, "event_payload": {"id": id}},
            // Nothing in it is read for links, names or formats, and no address in it is visited.
            "unfurl_links": false, "unfurl_media": false, "link_names": false, "parse": "none", "mrkdwn": false,
        });
        if let Some(place) = under {
            body["thread_ts"] = json!(place.ts);
            body["reply_broadcast"] = json!(true);
        }
        let method = "chat.postMessage";
        let answer = self.post(method, &self.token, &body).await?;
        Ok(Place { channel: text(&answer, method, "channel")?, ts: text(&answer, method, "ts")? })
    }

    /// Puts another message in the place of one.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn update(&self, place: &Place, message: &Message) -> Result<(), Fault> {
        let body = json!({
            "channel": place.channel, "ts": place.ts, "text": message.text, "blocks": message.blocks,
            "link_names": false, "parse": "none",
        });
        self.post("chat.update", &self.token, &body).await.map(|_| ())
    }

    /// Says something that `user` alone sees. `words` are plain.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn whisper(&self, channel: &str, user: &str, message: &Message) -> Result<(), Fault> {
        let body = json!({
            "channel": channel, "user": user, "text": message.text, "blocks": message.blocks,
            "link_names": false, "parse": "none",
        });
        self.post("chat.postEphemeral", &self.token, &body).await.map(|_| ())
    }

    /// Opens a modal for whoever made that trigger, at most three seconds ago.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn open_view(&self, trigger: &str, view: &Value) -> Result<(), Fault> {
        let body = json!({"trigger_id": trigger, "view": view});
        self.post("views.open", &self.token, &body).await.map(|_| ())
    }

    /// The message that carries `id`, if it is among the latest of the channel.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn find(&self, channel: &str, id: &str) -> Result<Option<Place>, Fault> {
        let method = "conversations.history";
        let limit = HISTORY.to_string();
        let query = [("channel", channel), ("limit", &limit), ("include_all_metadata", "true")];
        let answer = self.call(method, &self.token, |url| self.http.get(url).query(&query)).await?;
        let messages = answer.get("messages").and_then(Value::as_array).into_iter().flatten();
        let is = |message: &&Value| {
            let metadata = message.get("metadata");
            metadata.and_then(|it| it.get("event_type")).and_then(Value::as_str) == Some(METADATA)
                && metadata.and_then(|it| it.pointer("/event_payload/id")).and_then(Value::as_str) == Some(id)
        };
        let ts = messages.filter(is).find_map(|message| message.get("ts")?.as_str());
        Ok(ts.map(|ts| Place { channel: channel.to_owned(), ts: ts.to_owned() }))
    }

    /// A fresh address for a connection of Socket Mode; it is good once.
    ///
    /// # Errors
    /// See [`Fault`]; also when the address is not one that a key may be sent to.
    pub async fn socket(&self) -> Result<Url, Fault> {
        let method = "apps.connections.open";
        let no_token = || Fault::NoKey("there is no app_token".into());
        let token = self.app_token.as_ref().ok_or_else(no_token)?;
        let answer = self.call(method, token, |url| self.http.post(url)).await?;
        let url: Option<Url> = text(&answer, method, "url")?.parse().ok();
        // Plain only where the methods are plain too: on a machine's own loopback, for tests.
        let fits =
            |url: &Url| url.scheme() == "wss" || (url.scheme() == "ws" && self.base.scheme() == "http");
        url.filter(fits).ok_or_else(|| Fault::Passing("Slack gave no address of a socket".into()))
    }

    async fn post(&self, method: &'static str, token: &SecretRef, body: &Value) -> Result<Value, Fault> {
        self.call(method, token, |url| self.http.post(url).json(body)).await
    }

    async fn call(
        &self,
        method: &'static str,
        token: &SecretRef,
        request: impl FnOnce(Url) -> RequestBuilder,
    ) -> Result<Value, Fault> {
        if let Some(pause) = self.pause() {
            return Err(Fault::Passing(format!("Slack asked for a pause of {} s more", pause.as_secs() + 1)));
        }
        let token: Secret = token.resolve().ok_or_else(|| Fault::NoKey(token.missing()))?;
        let url =
            self.base.join(method).map_err(|_| Fault::NoKey("the address of Slack's methods".into()))?;
        // Neither address nor body are in the error: they may be long, and the owner's.
        let passing = |error: reqwest::Error| Fault::Passing(format!("{method}: {}", error.without_url()));
        let response = request(url).bearer_auth(token.expose()).send().await.map_err(passing)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
            let pause = Duration::from_secs(seconds.unwrap_or(30)).min(LONGEST_PAUSE);
            *self.not_before.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
            return Err(Fault::Passing(format!("Slack asks for a pause of {} s", pause.as_secs())));
        }
        if !status.is_success() {
            return Err(Fault::Passing(format!("{method}: Slack answers {status}")));
        }
        let body = small(response).await.map_err(|why| Fault::Passing(format!("{method}: {why}")))?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| Fault::Passing(format!("{method}: the answer is no JSON")))?;
        match (answer.get("ok").and_then(Value::as_bool), answer.get("error").and_then(Value::as_str)) {
            (Some(true), _) => Ok(answer),
            (_, Some(code)) if PASSING.contains(&code) => Err(Fault::Passing(format!("{method}: {code}"))),
            // Slack's words for refusals are short and made of letters; nothing else goes into a log.
            (_, Some(code))
                if code.len() <= 60 && code.bytes().all(|it| it == b'_' || it.is_ascii_alphanumeric()) =>
            {
                Err(Fault::Refused { method, code: code.to_owned() })
            }
            _ => Err(Fault::Passing(format!("{method}: the answer is not one of Slack's"))),
        }
    }

    fn pause(&self) -> Option<Duration> {
        let until = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now())
    }
}

async fn small(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + chunk.len() > ANSWER {
            return Err("the answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn text(answer: &Value, method: &'static str, name: &str) -> Result<String, Fault> {
    let text = answer.get(name).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| Fault::Passing(format!("{method}: the answer has no {name}")))
}
