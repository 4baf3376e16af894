//! A review as a Slack message: why the owner is asked, what would happen, what there is to know, and one
//! button per answer. Pure, and within Slack's limits whatever is in the review; what is left out is said,
//! and stands on the web page.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use url::Url;

use crate::config::channels;
use crate::domain::digest::Digest;
use crate::domain::event::Verdict;
use crate::domain::ids::{ReviewId, RunId};
use crate::domain::label::Label;
use crate::domain::risk::RiskClass;
use crate::domain::text::visible;
use crate::reviews::decide::fitting;
use crate::reviews::slack::form::Form;
use crate::reviews::slack::kit::{
    actions, bold, bounded, bullets, button, confirmed, context, header, link, link_button, menu,
    preformatted, rich, section, weight, words,
};
use crate::reviews::slack::limits;
use crate::reviews::slack::text::{cost, cut, escape, line, plain, short};
use crate::reviews::words::origin;
use crate::store::reviews::ReviewRow;

/// Reasons that are shown.
const REASONS: usize = 8;
/// Parameters that are shown.
const PARAMS: usize = 12;
/// Artifacts that are shown.
const ARTIFACTS: usize = 6;
/// One reason, bytes.
const REASON: usize = 300;
/// Tags of the risk that are named; all of them stand on the page.
const TAGS: usize = 6;
/// One of them, bytes.
const TAG: usize = 40;
/// A name, bytes.
const NAME: usize = 100;
/// What a value's block takes besides the value and its name, bytes.
const AROUND: usize = 300;
/// What is asked back before something of high risk.
const HIGH: &str = "This is of high risk. Have you read it, and do you know whom and what it reaches?";

/// What every message needs to know.
#[derive(Clone, Debug)]
pub struct Look {
    /// Where the owner's browser reaches Steward.
    pub web: Url,
    /// His time zone.
    pub zone: TimeZone,
}

impl Look {
    /// The page of a review.
    #[must_use]
    pub fn review(&self, review: ReviewId) -> String {
        self.page(&format!("/reviews/{review}"))
    }

    /// The page of a run.
    #[must_use]
    pub fn run(&self, run: RunId) -> String {
        self.page(&format!("/runs/{run}"))
    }

    /// A page of Steward's; `path` begins with a slash.
    #[must_use]
    pub fn page(&self, path: &str) -> String {
        channels::page(&self.web, path)
    }

    /// A moment on the owner's clock.
    #[must_use]
    pub fn moment(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%a %-d %b %H:%M %Z").to_string()
    }
}

/// A message: its blocks, and one line for notifications.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// For notifications and screen readers; escaped, for Slack reads it.
    pub text: String,
    /// What is shown.
    pub blocks: Vec<Value>,
}

/// What a button carries: which review, and what it asked when the button was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    /// Which review.
    pub review: ReviewId,
    /// What was shown.
    pub digest: Digest,
}

impl Handle {
    /// That of a review.
    #[must_use]
    pub fn of(review: &ReviewRow) -> Self {
        Self { review: review.id, digest: review.digest }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.review, self.digest)
    }
}

/// It is no handle of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is no handle of a review")]
pub struct NotAHandle;

impl FromStr for Handle {
    type Err = NotAHandle;

    fn from_str(text: &str) -> Result<Self, NotAHandle> {
        let (review, digest) = text.split_once(' ').ok_or(NotAHandle)?;
        let review = review.parse().map_err(|_| NotAHandle)?;
        Ok(Self { review, digest: digest.parse().map_err(|_| NotAHandle)? })
    }
}

/// How much of a review is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// As much as fits.
    Whole,
    /// So little that it fits whatever Slack counts; to decide takes the web page, but for a no.
    Short,
}

/// Asks.
#[must_use]
pub fn ask(review: &ReviewRow, look: &Look, fit: Fit) -> Message {
    let question = &review.question;
    let mut top = vec![header(&headline(review))];
    if !question.reasons.is_empty() {
        let shown = question.reasons.iter().take(REASONS).map(String::as_str);
        top.push(rich(vec![section(vec![bold("Why you are asked")]), bullets(shown, REASON)]));
    }
    let tail = |whole: bool| {
        let more = "Not everything fits here: the whole of it is on the ";
        let page = || section(vec![words(more), link(&look.review(review.id), "web page")]);
        let more = (!whole).then(|| rich(vec![page()]));
        let row = actions(buttons(review, look, fit, whole));
        more.into_iter().chain([small_print(review, look), row]).collect::<Vec<_>>()
    };
    let (shown, whole) = match fit {
        Fit::Whole => {
            let room = limits::WHOLE.saturating_sub(weight(&top) + weight(&tail(false)));
            Values::of(review).within(room)
        }
        Fit::Short => (Vec::new(), false),
    };
    let blocks = top.into_iter().chain(shown).chain(tail(whole)).collect();
    Message { text: notification(review), blocks }
}

/// Reminds, where the first word about it can be seen above.
#[must_use]
pub fn remind(review: &ReviewRow, look: &Look) -> Message {
    let since = format!("Still waiting since {}: ", look.moment(review.opened_at));
    let asked = section(vec![words(&since), bold(&bounded(&line(&review.title), REASON))]);
    let blocks =
        vec![rich(vec![asked]), small_print(review, look), actions(buttons(review, look, Fit::Whole, false))];
    Message { text: format!("Still waiting: {}", notification(review)), blocks }
}

/// Says how it ended: nothing can be clicked any more.
#[must_use]
pub fn closed(review: &ReviewRow, look: &Look) -> Message {
    let outcome = outcome(review);
    let mut said = vec![bold(&bounded(&outcome, 2 * REASON))];
    if let Some(at) = review.decided_at {
        said.push(words(&format!(", {}", look.moment(at))));
    }
    let see = section(vec![link(&look.review(review.id), "What it was about")]);
    let blocks =
        vec![header(&line(&review.title)), rich(vec![section(said), see]), context(&[about(review)])];
    Message { text: escape(&short(&line(&format!("{outcome}: {}", review.title)), 300)), blocks }
}

/// How a review ended, in one sentence.
#[must_use]
pub fn outcome(review: &ReviewRow) -> String {
    let by = review.decided_by.as_deref().unwrap_or("nobody");
    match (review.status.as_str(), &review.verdict) {
        (_, Some(Verdict::Responded { words })) => {
            format!("Given back for another draft by {by}: {}", bounded(&line(words), REASON))
        }
        ("approved", _) => format!("Approved by {by}"),
        ("edited", _) => format!("Approved with changes by {by}"),
        ("rejected", Some(Verdict::Rejected { reason })) if !reason.trim().is_empty() => {
            format!("Rejected by {by}: {}", line(reason))
        }
        ("rejected", _) => format!("Rejected by {by}"),
        ("answered", Some(Verdict::Answered { answer })) => {
            format!("Answered by {by}: {}", bounded(&line(&plain(answer)), REASON))
        }
        ("expired", _) => "Nobody decided in time: it was not done".to_owned(),
        ("superseded", _) => "No longer needed".to_owned(),
        ("open", _) => "It still waits".to_owned(),
        (other, _) => format!("It is {other}, by {by}"),
    }
}

fn headline(review: &ReviewRow) -> String {
    let title = Some(line(&review.title)).filter(|title| !title.is_empty());
    let title = title.unwrap_or_else(|| "A question".to_owned()); // Slack takes no empty text
    match review.question.class() {
        RiskClass::High => format!("High risk · {title}"),
        RiskClass::Medium | RiskClass::Low => title,
    }
}

fn notification(review: &ReviewRow) -> String {
    escape(&short(&headline(review), 300))
}

fn small_print(review: &ReviewRow, look: &Look) -> Value {
    let mut lines = vec![about(review), format!("Asked {}", look.moment(review.opened_at))];
    if let Some(due) = review.due_at {
        lines.push(format!("Expires {}, which is a no", look.moment(due)));
    }
    context(&lines)
}

fn about(review: &ReviewRow) -> String {
    let digest: String = review.digest.to_string().chars().take(12).collect();
    let step = bounded(&line(&review.step.0), NAME);
    let tags = review.question.risk.iter().flat_map(|risk| &risk.tags).take(TAGS);
    let tags: String = tags.map(|tag| format!(", {}", bounded(&line(tag).replace('_', " "), TAG))).collect();
    format!("{} risk{tags} · {step} · {digest}", review.question.class().as_str())
}

/// One button per verdict that the question takes. Without having seen the whole of it, approving asks back,
/// and in a short message is not offered.
fn buttons(review: &ReviewRow, look: &Look, fit: Fit, whole: bool) -> Vec<Value> {
    let (question, handle) = (&review.question, Handle::of(review).to_string());
    let high = question.class() == RiskClass::High;
    let careful = |button: Value| match (high, whole) {
        (true, _) => confirmed(button, "High risk", HIGH, "Yes, do it"),
        (false, false) => {
            confirmed(button, "Not all is shown", "The whole of it is on the web page.", "Do it all the same")
        }
        (false, true) => button,
    };
    let mut row = Vec::new();
    let takes = fitting(question.ask, question.form.is_some());
    let said = |verdict: &str| takes.contains(&verdict) && (fit == Fit::Whole || verdict == "rejected");
    if said("approved") {
        row.push(careful(button("approve", "Approve", &handle, Some("primary"))));
    }
    if said("edited") && editable(review).next().is_some() {
        row.push(button("edit", "Edit", &handle, None));
    }
    if let (true, Some(form)) = (said("answered"), &question.form) {
        match Form::of(form) {
            Form::Buttons(values) => row.extend(values.iter().enumerate().map(|(n, value)| {
                let button = button(&format!("answer.{n}"), &choice(value), &handle, None);
                if high { careful(button) } else { button }
            })),
            Form::Modal(_) => row.push(button("answer", "Answer", &handle, Some("primary"))),
            Form::Web => {}
        }
    }
    if said("rejected") {
        row.push(button("reject", "Reject", &handle, Some("danger")));
    }
    row.push(link_button(&look.review(review.id), "Open in Steward"));
    let said = more(review).filter(|(word, _)| fit == Fit::Whole || *word != "respond");
    row.push(menu("more", said.map(|(word, says)| (format!("{word} {handle}"), says))));
    row
}

/// What may be done beside deciding, each with its word: never less than to say something.
pub fn more(review: &ReviewRow) -> impl Iterator<Item = (&'static str, &'static str)> {
    let takes = fitting(review.question.ask, review.question.form.is_some());
    let all = [("snooze", "Not now…"), ("comment", "Comment…"), ("respond", "Ask for another draft…")];
    all.into_iter().filter(|(word, _)| *word != "respond" || takes.contains(&"responded"))
}

/// A choice as a button says it: `give_up` is `give up`.
#[must_use]
pub fn choice(value: &Value) -> String {
    match value {
        Value::Bool(true) => "Yes".into(),
        Value::Bool(false) => "No".into(),
        Value::String(text) => line(text).replace('_', " "),
        other => plain(other),
    }
}

/// The parameters that can be edited in Slack: texts that fit into an input, and that show all they have.
pub fn editable(review: &ReviewRow) -> impl Iterator<Item = (&str, &str)> {
    let params = review.question.action.iter().filter_map(|action| action.params.as_object()).flatten();
    params
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .filter(|(_, text)| text.encode_utf16().count() <= limits::INPUT && visible(text) == *text)
        .take(PARAMS)
}

/// Whose words a value is, where they are neither the owner's nor Steward's.
fn aside(label: Label) -> String {
    match label {
        Label::Untrusted | Label::Model => format!(" ({})", origin(label)),
        Label::Owner | Label::System => String::new(),
    }
}

/// The values of a review that are shown, in order.
struct Values {
    rows: Vec<(String, String)>,
    /// How many there are besides.
    left: usize,
}

impl Values {
    fn of(review: &ReviewRow) -> Self {
        let question = &review.question;
        let params = question.action.iter().flat_map(|action| {
            action.params.as_object().into_iter().flatten().map(|(name, value)| {
                let origin = question.labels.get(name).map_or_else(String::new, |label| aside(*label));
                let name = bounded(&format!("{} · {}", line(&action.action), line(name)), NAME);
                (format!("{name}{origin}"), plain(value))
            })
        });
        let artifacts = question.artifacts.iter().map(|artifact| {
            let origin = aside(artifact.label);
            (format!("{}{origin}", bounded(&line(&artifact.title), NAME)), plain(&artifact.value))
        });
        let all = (params.clone().count(), artifacts.clone().count());
        let rows: Vec<_> = params.take(PARAMS).chain(artifacts.take(ARTIFACTS)).collect();
        Self { left: all.0 + all.1 - rows.len(), rows }
    }

    /// The blocks that take at most `room` bytes, short values whole and long ones cut to the same length,
    /// and whether they say everything.
    fn within(mut self, room: usize) -> (Vec<Value>, bool) {
        // Half of it is for the values themselves.
        let around =
            |rows: &[(String, String)]| rows.iter().map(|(name, _)| AROUND + cost(name)).sum::<usize>();
        while around(&self.rows) > room / 2 && self.rows.pop().is_some() {
            self.left += 1;
        }
        let room = room.saturating_sub(around(&self.rows));
        let costs: Vec<usize> = self.rows.iter().map(|(_, value)| cost(value)).collect();
        let takes = |most: usize| costs.iter().map(|cost| cost.min(&most)).sum::<usize>();
        // Never longer than what a person reads in a message.
        let (mut fits, mut too_much) = (0, limits::SHOWN + 1);
        while too_much - fits > 1 {
            let middle = usize::midpoint(fits, too_much);
            match takes(middle) <= room {
                true => fits = middle,
                false => too_much = middle,
            }
        }
        let mut whole = self.left == 0;
        let blocks = self.rows.iter().map(|(name, value)| {
            let (shown, left) = cut(value, fits);
            let mut head = vec![bold(name)];
            if left > 0 {
                whole = false;
                head.push(words(&format!(" ({left} more characters on the web page)")));
            }
            rich(vec![section(head), preformatted(shown)])
        });
        let blocks = blocks.collect();
        (blocks, whole)
    }
}
