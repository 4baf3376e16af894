//! `config/workflows/*.yaml`: processes as the owner writes them, before names are resolved.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::secret::SecretRef;
use crate::domain::admission::Priority;
use crate::domain::budget::Exhausted;
use crate::domain::duration::Span;
use crate::domain::money::Money;
use crate::domain::retention::Keep;
use crate::domain::retry::Backoff;
use crate::domain::schedule::{Missed, Overlap};
use crate::domain::workflow::OnFailure;

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
    /// JSON Schema of a run's input; an email's, when absent and email alone opens the workflow.
    #[serde(default)]
    pub input: Option<Value>,
    /// How many runs may be under way at once, those that wait included; any number when absent.
    #[serde(default)]
    pub concurrency: Option<RawConcurrency>,
    /// Who goes first when there is not room for all runs; `normal` when absent. A run of a lower class
    /// overtakes newer ones of a higher once it has waited for the settings' `limits.ageing`.
    #[serde(default)]
    #[schemars(with = "Option<PriorityName>")]
    pub priority: Option<Priority>,
    /// What its model calls may cost; without it only the workspace's budget counts.
    #[serde(default)]
    pub budget: Option<RawBudget>,
    /// How long its finished runs are kept, such as `90d`, at least `7d`, or `forever`; without it, as
    /// `config/settings.yaml` says.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "retention"))]
    pub retention: Option<Keep>,
    /// How long a run may take in all, reviews included; then it fails, and is undone.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub deadline: Option<Span>,
    /// The share, such as `0.05`, of the effects of paid models that you are shown although policy allows
    /// them: effects that leave the house and are made from what a model wrote that cost something.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub sample: Option<f64>,
    /// What counts for more than where it came from: the only way up, and in every ruling's reasons.
    #[serde(default)]
    pub trust: Option<crate::config::trust::RawTrust>,
    /// What a run gives to the workflow that opened it: templates over `input`, `steps` and `workspace`.
    #[serde(default)]
    pub output: Option<Value>,
    /// What happens: one step after the other, unless `needs` says otherwise.
    #[schemars(length(min = 1))]
    pub steps: Vec<RawStep>,
}

/// How many runs may be under way at once.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawConcurrency {
    /// A template over `input` and `workspace`: the limit holds for each of its values, such as
    /// `{{ input.from }}` for one run per sender. Without it, it holds for the whole workflow.
    #[serde(default)]
    pub key: Option<String>,
    /// How many, 1 to 1000; the others wait for their turn.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u32,
}

/// [`Priority`] as editors know it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum PriorityName {
    /// Before the others.
    High,
    /// The usual one.
    Normal,
    /// When nothing else is to be done, or after it has waited long enough.
    Low,
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
    /// The clock.
    #[serde(default)]
    pub schedule: Option<RawSchedule>,
}

/// Mail to a mailbox.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEmail {
    /// The mailbox's name in `config/settings.yaml`.
    pub mailbox: String,
    /// Open a run for the last of several mails, once it is quiet.
    #[serde(default)]
    pub debounce: Option<RawDebounce>,
    /// Open one run for several mails.
    #[serde(default)]
    pub batch: Option<RawBatch>,
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
    /// Open a run for the last of several requests, once it is quiet.
    #[serde(default)]
    pub debounce: Option<RawDebounce>,
    /// Open one run for several requests.
    #[serde(default)]
    pub batch: Option<RawBatch>,
}

/// The last input wins; its run opens once nothing more has come for a while.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawDebounce {
    /// A template over `input` and `workspace`: inputs with the same key take each other's place.
    /// Without it, all of them do.
    #[serde(default)]
    pub key: Option<String>,
    /// How long nothing may have come.
    #[schemars(with = "String", extend("format" = "span"))]
    pub quiet: Span,
    /// The longest the first input waits; twelve times `quiet` when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub at_most: Option<Span>,
}

/// Inputs are collected; one run gets them all, as `input.items`, in the order they came.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBatch {
    /// A template over `input` and `workspace`: inputs with the same key are collected together.
    /// Without it, all of them are.
    #[serde(default)]
    pub key: Option<String>,
    /// This many are enough.
    #[schemars(range(min = 1, max = 1000))]
    pub size: u32,
    /// The longest the first input waits.
    #[schemars(with = "String", extend("format" = "span"))]
    pub within: Span,
}

/// The clock: exactly one of `cron`, `every` and `at`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSchedule {
    /// Its name, unique in the workflow; its pattern, interval or moment when absent.
    #[serde(default)]
    #[schemars(extend("format" = "name"))]
    pub name: Option<String>,
    /// A cron pattern: minute, hour, day of the month, month, weekday; seconds may come first.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub cron: Option<String>,
    /// Again and again after the same time.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub every: Option<Span>,
    /// With `every`: the first time, such as `2026-01-05T09:00`. Without it, quarters of an hour fall on
    /// the quarters (UTC).
    #[serde(default)]
    pub from: Option<String>,
    /// Once, such as `2026-12-24T09:00`.
    #[serde(default)]
    pub at: Option<String>,
    /// The time zone, such as `Europe/Oslo`; the workspace's when absent.
    #[serde(default)]
    pub zone: Option<String>,
    /// What becomes of times at which Steward was not running; `once` when absent.
    #[serde(default)]
    #[schemars(with = "Option<MissedName>")]
    pub missed: Option<Missed>,
    /// What becomes of a time at which the run before is not over yet; `allow` when absent.
    #[serde(default)]
    #[schemars(with = "Option<OverlapName>")]
    pub overlap: Option<Overlap>,
    /// The run's input: a mapping of templates over `workspace` and `schedule`.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub input: Option<Value>,
}

/// [`Missed`] as editors know it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum MissedName {
    /// They open nothing.
    Skip,
    /// The latest opens a run in the name of all.
    Once,
    /// Each opens a run of its own, the latest hundred at most.
    All,
}

/// [`Overlap`] as editors know it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum OverlapName {
    /// A run is opened beside it.
    Allow,
    /// No run is opened, and that is counted.
    Skip,
}

/// One step: exactly one of `agent`, `action`, `wait`, `workflow` and, without those, `review`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawStep {
    /// Unique in the workflow; templates name its output as `steps.ID.output`.
    #[schemars(extend("format" = "step"))]
    pub id: String,
    /// What the owner calls it; the id when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The steps that must be over before this one begins; the one before it in the file when absent.
    /// An empty list begins at once.
    #[serde(default)]
    pub needs: Option<Vec<String>>,
    /// Do the same for each item of a list; templates name it as `item` and its place as `index`.
    #[serde(default)]
    pub each: Option<RawEach>,
    /// The agent to ask.
    #[serde(default)]
    pub agent: Option<String>,
    /// What to wait for.
    #[serde(default)]
    pub wait: Option<RawWait>,
    /// The workflow to run; its `output` is this step's.
    #[serde(default)]
    #[schemars(extend("format" = "name"))]
    pub workflow: Option<String>,
    /// With a workflow: the most that its model calls may cost.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub budget: Option<Money>,
    /// With an action or a workflow: what takes it back when the run fails or is cancelled.
    #[serde(default)]
    pub undo: Option<RawUndo>,
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
    /// How long all attempts may take together, the pauses between them included; of a list, each item.
    /// The time in which the owner is asked ends with the review's own `due`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub deadline: Option<Span>,
    /// With an action: a template for the key under which it happens at most once.
    #[serde(default)]
    pub dedupe: Option<String>,
}

/// What a workflow's model calls may cost: each is set aside before it is made.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBudget {
    /// Each run, the runs it opens and waits for included, such as `0.10 USD`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "money"))]
    pub per_run: Option<Money>,
    /// All its runs in one day of yours.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "money"))]
    pub per_day: Option<Money>,
    /// All its runs in one month of yours.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "money"))]
    pub per_month: Option<Money>,
    /// When that, or the workspace's budget, is not enough for a model: `fallback` (when absent) asks the
    /// next one of the chain, `review` asks you whether it may cost more this once, `fail` ends the step.
    #[serde(default)]
    #[schemars(with = "Option<ExhaustedName>")]
    pub exhausted: Option<Exhausted>,
}

/// [`Exhausted`] as editors know it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum ExhaustedName {
    /// The next model is asked.
    Fallback,
    /// The owner is asked.
    Review,
    /// The step fails.
    Fail,
}

/// A list, and how its items are worked through.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEach {
    /// The list: a template such as `"{{ steps.find.output.hits }}"`.
    pub of: String,
    /// How many items may be under way at once, 1 to 100; 4 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub parallel: Option<u32>,
    /// `stop` (when absent): no further item begins and the step fails. `continue`: the others go on.
    #[serde(default)]
    #[schemars(with = "Option<OnFailureName>")]
    pub on_failure: Option<OnFailure>,
}

/// What a step waits for: an event with an optional `timeout`, a length of time, or a moment.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawWait {
    /// The event's name, such as `email.reply`.
    #[serde(default)]
    pub event: Option<String>,
    /// With an event: what it must be about, a template.
    #[serde(default, rename = "match")]
    pub matches: Option<String>,
    /// With an event: the longest time to wait; then the output says `timed_out`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub timeout: Option<Span>,
    /// How long to wait.
    #[serde(default, rename = "for")]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub span: Option<Span>,
    /// Until when: a template that gives `2026-12-24` or `2026-12-24T09:00`, in your time zone.
    #[serde(default)]
    pub until: Option<String>,
}

/// The action that takes a step back.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawUndo {
    /// The action, such as `records.revert`.
    pub action: String,
    /// Its parameters: a mapping of templates, which also name what the step gave as `output`. Without
    /// it they are that output itself.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub with: Option<Value>,
}

/// [`OnFailure`] as editors know it.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum OnFailureName {
    /// No further item begins.
    Stop,
    /// The others go on.
    Continue,
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

/// The input of a run that opens for several inputs, each of which fits `item`.
#[must_use]
pub fn batch_input(item: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": item}},
    })
}

/// What the input of a schedule may name as `schedule`.
#[must_use]
pub fn schedule_names() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["name", "at", "date", "time", "zone", "missed"],
        "properties": {
            "name": text, "at": text, "date": text, "time": text, "zone": text,
            "missed": {"type": "integer"},
        },
    })
}
