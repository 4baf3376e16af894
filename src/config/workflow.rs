//! `config/workflows/*.yaml`: processes as the owner writes them, before names are resolved.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::secret::SecretRef;
use crate::domain::duration::Span;
use crate::domain::retry::Backoff;

/// The whole file.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWorkflow {
    /// Its name, unique in the workspace.
    #[schemars(extend("format" = "name"))]
    pub workflow: String,
    /// A template for the title of each run, over `input` and `workspace`.
    pub title: String,
    /// What opens a run by itself; without it, only `steward run` and the API do.
    #[serde(default)]
    pub on: Vec<RawTrigger>,
    /// JSON Schema of a run's input. A workflow that is opened by email alone may leave it out: its
    /// input is an email.
    #[serde(default)]
    pub input: Option<Value>,
    /// What happens, one step after the other.
    #[schemars(length(min = 1))]
    pub steps: Vec<RawStep>,
}

/// What opens a run: exactly one of the fields.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTrigger {
    /// Mail to a mailbox.
    #[serde(default)]
    pub email: Option<RawEmail>,
    /// JSON posted to `/hooks/PATH`.
    #[serde(default)]
    pub webhook: Option<RawWebhook>,
}

/// Mail to a mailbox.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEmail {
    /// The mailbox's name in `config/settings.yaml`.
    pub mailbox: String,
}

/// JSON posted to `/hooks/PATH`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWebhook {
    /// The last part of the address.
    #[schemars(extend("format" = "name"))]
    pub path: String,
    /// The key of the sender's signature, as `env:NAME`.
    pub secret: SecretRef,
}

/// One step: exactly one of `agent`, `action` and, without those, `review`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStep {
    /// Unique in the workflow; templates name its output as `steps.ID.output`.
    #[schemars(extend("format" = "step"))]
    pub id: String,
    /// What the owner calls it; the id when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The agent to ask.
    #[serde(default)]
    pub agent: Option<String>,
    /// The action to propose, such as `email.send`.
    #[serde(default)]
    pub action: Option<String>,
    /// With an action: always ask the owner first. By itself: a question to the owner.
    #[serde(default)]
    pub review: Option<RawReview>,
    /// What the agent or action is given: a mapping of templates.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub with: Option<Value>,
    /// A condition; the step is skipped when it is false.
    #[serde(default)]
    #[schemars(extend("type" = ["string", "boolean", "null"]))]
    pub when: Option<Value>,
    /// When failed attempts are repeated.
    #[serde(default)]
    pub retry: Option<RawRetry>,
    /// How long one attempt may take.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub timeout: Option<Span>,
    /// With an action: a template for the key under which it happens at most once.
    #[serde(default)]
    pub dedupe: Option<String>,
}

/// A question to the owner, or what to show with an action.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawReview {
    /// Without an action: the question, a template.
    #[serde(default)]
    pub ask: Option<String>,
    /// Without an action: JSON Schema of the answer; without it the owner approves or rejects.
    #[serde(default)]
    pub form: Option<Value>,
    /// Up to five paths of values to show, such as `input.body`.
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub artifacts: Vec<String>,
    /// How long the owner has; without it the review stays open. Silence never means yes.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub due: Option<Span>,
}

/// When failed attempts are repeated.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRetry {
    /// The most attempts that may fail, 1 to 100; 3 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: Option<u32>,
    /// How the delay grows; `exponential` when absent.
    #[serde(default)]
    #[schemars(with = "Option<BackoffName>")]
    pub backoff: Option<Backoff>,
    /// The first delay; `1s` when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub base: Option<Span>,
    /// The longest delay; `1m` when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub max: Option<Span>,
}

/// [`Backoff`] as editors know it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum BackoffName {
    /// Always the first delay.
    Fixed,
    /// Twice the delay before.
    Exponential,
}

/// The input of a run that an email opens, as `triggers::email` makes it.
#[must_use]
pub fn email_input() -> Value {
    let text = json!({"type": "string"});
    let perhaps = json!({"type": ["string", "null"]});
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let attachment = json!({"type": "object", "properties": {
        "name": text, "media_type": text, "bytes": {"type": "integer"}, "sha256": text,
    }});
    json!({
        "type": "object",
        "required": ["message_id", "thread", "from", "subject", "body"],
        "properties": {
            "message_id": text, "thread": text,
            "from": text, "from_name": perhaps, "reply_to": perhaps,
            "to": texts, "cc": texts,
            "subject": text, "date": perhaps,
            "body": text, "body_truncated": {"type": "boolean"},
            "attachments": {"type": "array", "items": attachment},
            "auto": {"type": "boolean"}, "list": {"type": "boolean"},
        },
    })
}
