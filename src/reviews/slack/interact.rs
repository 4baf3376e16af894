//! Interactions: the one handler behind HTTP and Socket Mode. Whoever calls it has proven that Slack speaks;
//! here is decided whether the person may, and everything goes through [`mod@crate::reviews::decide`], bound
//! to what the button's message showed. The answer comes when the decision is durable, not before.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::domain::event::Verdict;
use crate::domain::text::visible;
use crate::reviews::decide::{DecideRefusal, decide};
use crate::reviews::slack::api::{Fault, Place};
use crate::reviews::slack::blocks::{Fit, Handle, ask, closed, editable, outcome};
use crate::reviews::slack::form::{self, Form};
use crate::reviews::slack::payload::{Payload, Press, View};
use crate::reviews::slack::{Slack, day, modal};
use crate::store::reviews::ReviewRow;

/// Slack waits three seconds; the answer's way takes some of them.
const IN_TIME: Duration = Duration::from_millis(2500);

/// What Slack is answered.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// It is done, or refused and said so.
    Done,
    /// What the modal does now.
    View(Value),
    /// It is not known to be durable yet: to be answered by silence, so that Slack says that it failed, or
    /// delivers it again.
    Late,
}

/// Takes an interaction. The same one twice does nothing the second time.
pub async fn handle(slack: &Arc<Slack>, payload: Payload) -> Reply {
    // A task of its own: a decision under way is not broken off because Slack stopped waiting.
    let mine = slack.clone();
    let work = tokio::spawn(async move { mine.take(payload).await });
    match timeout(IN_TIME, work).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(crash)) => {
            tracing::error!(%crash, "an interaction of Slack's crashed");
            Reply::Late
        }
        Err(_) => Reply::Late,
    }
}

/// What became of what somebody did.
pub(super) enum Told {
    /// It was taken, now or by the same click before.
    Done,
    /// It was not: the sentence says why, and the message is brought up to date.
    Over(String),
    /// It was not, and another one may be.
    Wrong(String),
}

impl Told {
    /// The same to whoever submitted a modal.
    pub(super) fn into_reply(self) -> Reply {
        match self {
            Self::Done => Reply::Done,
            Self::Over(why) => update(&why),
            Self::Wrong(why) => wrong(0, &why),
        }
    }
}

impl Slack {
    async fn take(self: Arc<Self>, payload: Payload) -> Reply {
        match payload {
            Payload::BlockActions { user, trigger_id, container, actions } => {
                let place = match (container.channel_id, container.message_ts) {
                    (Some(channel), Some(ts)) => Some(Place { channel, ts }),
                    _ => None,
                };
                // Steward's buttons come one at a time.
                if let Some(press) = actions.first() {
                    self.pressed(&user.id, &trigger_id, place, press).await;
                }
                Reply::Done
            }
            Payload::ViewSubmission { user, view } => self.submitted(&user.id, &view).await,
            Payload::Other => Reply::Done,
        }
    }

    async fn pressed(self: &Arc<Self>, user: &str, trigger: &str, place: Option<Place>, press: &Press) {
        if press.action_id == "open" {
            return; // a link, which Slack follows by itself
        }
        if !self.may_decide(user) {
            return self.refuse(user, place);
        }
        let value = press.value.as_deref().unwrap_or_default();
        let (word, value) = match &press.selected_option {
            Some(option) => option.value.split_once(' ').unwrap_or_default(),
            None => ("", value),
        };
        if press.action_id == "seen" {
            return self.seen(user, place, value).await;
        }
        let review = match self.asked(value).await {
            Ok(review) => review,
            Err((told, review)) => return self.tell(user, place, review, told),
        };
        let told = match (press.action_id.as_str(), press.action_id.strip_prefix("answer.")) {
            ("approve", _) => self.decide(&review, Verdict::Approved, user).await,
            (_, Some(number)) => match chosen(&review, number) {
                Some(answer) => self.decide(&review, Verdict::Answered { answer }, user).await,
                None => Told::Wrong("That is none of the choices.".into()),
            },
            ("edit" | "reject" | "answer" | "more", _) if review.status != "open" => {
                Told::Over(unchanged(&review))
            }
            ("edit", _) => self.open(trigger, &modal::edit(&review, &self.look)).await,
            ("more", _) => self.more(trigger, &review, word).await,
            ("reject", _) => self.open(trigger, &modal::reject(&review)).await,
            ("answer", _) => match review.question.form.as_ref().map(Form::of) {
                Some(Form::Modal(fields)) => {
                    self.open(trigger, &modal::answer(&review, &fields, &self.look)).await
                }
                _ => Told::Wrong("That is answered on the web page.".into()),
            },
            _ => Told::Wrong("That button is not one of Steward's.".into()),
        };
        self.tell(user, place, Some(review), told);
    }

    async fn submitted(self: &Arc<Self>, user: &str, view: &View) -> Reply {
        if !self.may_decide(user) {
            return update(&self.not_allowed());
        }
        let review = match self.asked(&view.private_metadata).await {
            Ok(review) => review,
            Err((Told::Over(why) | Told::Wrong(why), _)) => return update(&why),
            Err((Told::Done, _)) => return Reply::Done,
        };
        let (what, since) = view.callback_id.split_once('.').unwrap_or((&view.callback_id, ""));
        let verdict = match what {
            "snooze" => return self.snoozed(&review, since, &view.state).await,
            "comment" => return self.commented(user, &review, view).await,
            "respond" => {
                let words = modal::given(&view.state, 0).unwrap_or_default();
                Ok(Verdict::Responded { words: words.trim().to_owned() })
            }
            "reject" => Ok(Verdict::Rejected { reason: modal::given(&view.state, 0).unwrap_or_default() }),
            "edit" => edited(&review, &view.state),
            "answer" => answered(&review, &view.state),
            _ => return update("That is not one of Steward's."),
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err((number, why)) => return wrong(number, &why),
        };
        self.decide(&review, verdict, user).await.into_reply()
    }

    /// The review that a handle is about, if it still asks what was shown; otherwise what to say, and how the
    /// review stands. Whether it is over the decision itself finds out: it knows its own repetition.
    async fn asked(&self, handle: &str) -> Result<ReviewRow, (Told, Option<ReviewRow>)> {
        let wrong = |why: &str| (Told::Wrong(why.to_owned()), None);
        let handle: Handle = handle.parse().map_err(|_| wrong("That is not one of Steward's."))?;
        match self.door.engine().store.review(handle.review).await {
            Ok(Some(review)) if review.digest == handle.digest => Ok(review),
            Ok(Some(review)) => {
                let why = "That was about something else than what is asked now. Nothing has changed.";
                Err((Told::Over(why.into()), Some(review)))
            }
            Ok(None) => Err(wrong("There is no such review any more.")),
            Err(error) => Err((uncertain(&error), None)),
        }
    }

    async fn decide(&self, review: &ReviewRow, verdict: Verdict, user: &str) -> Told {
        let by = self.by(user);
        match decide(&self.door, review.id, Some(review.digest), verdict.clone(), &by).await {
            Ok(_) => {
                self.door.engine().news.notify_one(); // the messages are brought up to date at once
                Told::Done
            }
            Err(DecideRefusal::Over { .. } | DecideRefusal::NotFound(_)) => {
                match self.door.engine().store.review(review.id).await {
                    // The same click, delivered again.
                    Ok(Some(now)) if now.verdict == Some(verdict) && now.decided_by == Some(by) => Told::Done,
                    Ok(Some(now)) => Told::Over(unchanged(&now)),
                    Ok(None) => Told::Over("There is no such review any more.".into()),
                    Err(error) => uncertain(&error),
                }
            }
            Err(refusal) => refused(refusal),
        }
    }

    pub(super) async fn open(&self, trigger: &str, view: &Value) -> Told {
        match self.api.open_view(trigger, view).await {
            Ok(()) => Told::Done,
            // It came too late, or a second time.
            Err(fault) if fault.is("expired_trigger_id") || fault.is("exchanged_trigger_id") => {
                Told::Wrong("That took too long: click once more.".into())
            }
            Err(fault) => {
                tracing::warn!(error = %fault, "a modal of Slack's could not be opened");
                Told::Wrong("Slack did not open the window: click once more, or use the web page.".into())
            }
        }
    }

    async fn seen(self: &Arc<Self>, user: &str, place: Option<Place>, notice: &str) {
        let store = &self.door.engine().store;
        let by = self.by(user);
        let Ok(id) = notice.parse() else { return };
        let acknowledged = match store.acknowledge(id, &by).await {
            Ok(_) => store.one_notice(id).await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(Some(notice)) => {
                let by = notice.acknowledged_by.as_deref().unwrap_or(&by);
                let message = day::seen(&notice, &self.look, by);
                self.later(move |slack| async move {
                    let Some(place) = place else { return Ok(()) };
                    slack.api.update(&place, &message).await
                });
            }
            Ok(None) => {}
            Err(error) => self.tell(user, place, None, uncertain(&error)),
        }
    }

    fn refuse(self: &Arc<Self>, user: &str, place: Option<Place>) {
        tracing::warn!(user, "somebody who may not decide clicked in Slack");
        self.tell(user, place, None, Told::Wrong(self.not_allowed()));
    }

    fn not_allowed(&self) -> String {
        "You may not decide here: the owner has not named you in config/channels.yaml. Nothing has changed."
            .to_owned()
    }

    /// Tells the one who clicked why nothing came of it, and makes the message say how things stand. After
    /// the answer: Slack does not wait for it.
    fn tell(self: &Arc<Self>, user: &str, place: Option<Place>, review: Option<ReviewRow>, told: Told) {
        let (why, over) = match told {
            Told::Done => return,
            Told::Over(why) => (why, true),
            Told::Wrong(why) => (why, false),
        };
        let Some(place) = place else { return };
        let user = user.to_owned();
        self.later(move |slack| async move {
            if let (true, Some(shown)) = (over, review)
                && let Ok(Some(now)) = slack.door.engine().store.review(shown.id).await
            {
                let message = match now.status == "open" {
                    true => ask(&now, &slack.look, Fit::Whole),
                    false => closed(&now, &slack.look),
                };
                slack.api.update(&place, &message).await?;
            }
            slack.api.whisper(&place.channel, &user, &Slack::sentence(&why)).await
        });
    }

    fn later<W>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> W)
    where
        W: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let work = work(self.clone());
        tokio::spawn(async move {
            if let Err(error) = work.await {
                tracing::warn!(%error, "what came of a click could not be told in Slack");
            }
        });
    }
}

pub(super) fn unchanged(review: &ReviewRow) -> String {
    format!("{}. Nothing has changed.", outcome(review))
}

/// Why a decision was not taken.
pub(super) fn refused(refusal: DecideRefusal) -> Told {
    match refusal {
        DecideRefusal::Store(error) => uncertain(&error),
        over @ (DecideRefusal::OtherDigest { .. }
        | DecideRefusal::Over { .. }
        | DecideRefusal::NotFound(_)) => Told::Over(over.to_string()),
        wrong => Told::Wrong(wrong.to_string()),
    }
}

pub(super) fn uncertain(error: &crate::store::StoreError) -> Told {
    tracing::warn!(%error, "a decision in Slack could not be noted");
    Told::Wrong("It is not certain that this was noted: look again in a moment.".into())
}

/// The answer of that number.
fn chosen(review: &ReviewRow, number: &str) -> Option<Value> {
    match Form::of(review.question.form.as_ref()?) {
        Form::Buttons(values) => values.get(number.parse::<usize>().ok()?).cloned(),
        Form::Modal(_) | Form::Web => None,
    }
}

/// The action's parameters with the texts that were submitted.
fn edited(review: &ReviewRow, state: &Value) -> Result<Verdict, (usize, String)> {
    let nothing = || (0, "there is nothing to edit".to_owned());
    let mut params = review.question.action.as_ref().ok_or_else(nothing)?.params.clone();
    let mut changed = false;
    for (number, (name, before)) in editable(review).enumerate() {
        let after = modal::given(state, number).unwrap_or_default();
        if after != before && params.get(name).is_some() {
            params[name] = json!(after);
            changed = true;
        }
    }
    match changed {
        true => Ok(Verdict::Edited { params }),
        false => Err((0, "Nothing is changed: close this and approve it as it is.".into())),
    }
}

fn answered(review: &ReviewRow, state: &Value) -> Result<Verdict, (usize, String)> {
    let Some(Form::Modal(fields)) = review.question.form.as_ref().map(Form::of) else {
        return Err((0, "that is answered on the web page".into()));
    };
    let given: Vec<_> = (0..fields.len()).map(|number| modal::given(state, number)).collect();
    form::answer(&fields, &given).map(|answer| Verdict::Answered { answer })
}

/// The modal stays open and says what is wrong at an input.
pub(super) fn wrong(number: usize, why: &str) -> Reply {
    let why: String = visible(why).chars().take(500).collect();
    Reply::View(json!({"response_action": "errors", "errors": {modal::block(number): why}}))
}

/// The modal says something else from now on.
pub(super) fn update(why: &str) -> Reply {
    Reply::View(json!({"response_action": "update", "view": modal::says(why)}))
}
