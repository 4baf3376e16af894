//! The way along an agent's tiers: each model in turn until one gives an output that is valid under
//! the agent's schema, and once more along the tier that goes over the draft, if the agent has one.
//! Built-in models are asked here, the others in [`crate::models::ask`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use crate::config::models::BUILT_IN;
use crate::domain::budget::{Exhausted, Shortage};
use crate::domain::event::{ErrorKind, ModelCall, StepError};
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::domain::tier::{Known, Link};
use crate::domain::workflow::Agent;
use crate::models::canned::{self, Context};
use crate::models::classify::Verdict;
use crate::models::encoder::EncoderError;
use crate::models::error::{Kind, ModelError};
use crate::models::estimate;
use crate::models::ledger::Reservation;
use crate::models::schema::{OutputError, without_nul};
use crate::models::witness::Tale;
use crate::models::{Asked, Inner};
use crate::store::batches::BatchCall;
use crate::time::wall;

/// One agent on its way along its tiers.
pub(crate) struct Walk<'a> {
    pub(crate) models: &'a Inner,
    pub(crate) asked: Asked<'a>,
    pub(crate) agent: &'a Agent,
    /// When the step's time is up: no provider is waited for after that, the rest of the chain still counts.
    deadline: Instant,
    pub(crate) tale: Tale<'a>,
    /// What was set aside for calls under way: more than one while votes are taken.
    pub(crate) at_stake: Mutex<Vec<Reservation>>,
    /// What the encoder said, once it was asked.
    verdict: OnceCell<Option<Verdict>>,
    /// A call that came back from its batch, until its model's turn.
    batched: Mutex<Option<BatchCall>>,
}

/// An output, valid under the agent's schema.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) output: Value,
    pub(crate) label: Label,
    pub(crate) confidence: Option<f64>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(models: &'a Inner, asked: Asked<'a>) -> Self {
        let (agent, witness) = (asked.agent, asked.witness);
        let deadline = Instant::now() + asked.limit;
        let (tale, at_stake, verdict) = (Tale::new(witness), Mutex::default(), OnceCell::new());
        let batched = Mutex::new(asked.keeping.and_then(|keeping| keeping.batched.cloned()));
        Self { models, asked, agent, deadline, tale, at_stake, verdict, batched }
    }

    /// Walks from the first model to the last.
    pub(crate) async fn run(self) -> (Option<ModelCall>, Answer) {
        // What went over a draft in a batch came back with it.
        let draft = self.batched().as_ref().and_then(|batched| batched.draft.clone());
        let found = match draft.and_then(|draft| serde_json::from_value(draft).ok()) {
            Some(draft) => Ok(draft),
            None => self.along(&self.agent.tier, None).await,
        };
        let found = match (found, &self.agent.finalize) {
            (Ok(draft), Some(tier)) => self.along(tier, Some(&draft)).await,
            (found, _) => found,
        };
        self.tell_unused();
        let answer = match found {
            Ok(Given { output, label, confidence }) => Answer::Output { output, label, confidence },
            Err(answer) => answer,
        };
        (self.tale.last(), answer)
    }

    /// One tier, for an output or, given a draft, for a better one. What needs no model has nothing to add
    /// to a draft: the encoder is passed over, and where the chain comes to `canned` the draft stands.
    async fn along(&self, tier: &'a str, draft: Option<&Given>) -> Result<Given, Answer> {
        let Some(chain) = self.models.tiers.get(tier) else {
            let message = format!("There is no tier `{tier}` in config/models.yaml.");
            return Err(Answer::Failed(StepError::new(ErrorKind::Invalid, message)));
        };
        let mut failures = Failures { tier, of: Vec::new() };
        // A tier waits for a batch once: it goes on where it stood, and what follows is asked at once.
        let came = self.batched().as_ref().map(|batched| batched.model.clone());
        let stood = chain.iter().position(|link| Some(&link.model) == came.as_ref());
        for (place, link) in chain.iter().enumerate() {
            let model = &link.model;
            if stood.is_some_and(|stood| place < stood) {
                failures.of.push((model, passed_before()));
                continue;
            }
            if stood != Some(place)
                && let Err(error) = self.applies(link).await
            {
                failures.of.push((model, error));
                continue;
            }
            if came.is_none() && !BUILT_IN.contains(&model.as_str()) {
                match self.put_off(model, draft).await {
                    Ok(Some(call)) => return Err(Answer::Batched(call)),
                    Ok(None) => {}
                    Err(error) => {
                        let short = error.shortage.clone();
                        failures.of.push((model, error));
                        if let Some(answer) = short.and_then(|short| self.exhausted(*short)) {
                            return Err(answer);
                        }
                        continue;
                    }
                }
            }
            let answer = match (model.as_str(), draft) {
                ("owner", draft) => return Err(self.owner(&failures, draft)),
                // What needs no model says the same again, whatever the owner answers to it.
                ("encoder" | "canned", None) if !self.asked.rounds.is_empty() => {
                    let why = "it cannot heed what you said to its draft";
                    Err(self.untried(model, Kind::Inapplicable, why))
                }
                ("encoder", Some(_)) => continue,
                ("canned", Some(draft)) => return Ok(draft.clone()),
                ("encoder", None) => self.ask_encoder().await,
                ("canned", None) => self.ask_canned().await,
                (name, draft) => self.ask_in_time(name, draft).await,
            };
            match answer {
                Ok(given) => return Ok(given),
                Err(error) => {
                    let short = error.shortage.clone();
                    failures.of.push((model, error));
                    if let Some(answer) = short.and_then(|short| self.exhausted(*short)) {
                        return Err(answer);
                    }
                }
            }
        }
        let failure = failures.failure();
        match self.asked.rounds.is_empty() || failure.kind.retryable() {
            true => Err(Answer::Failed(failure)),
            // Who asked for another draft is there to write it himself, whatever the tier says.
            false => Err(self.owner(&failures, draft)),
        }
    }

    /// The owner is asked; he sees the draft there is, or the last one he gave back.
    fn owner(&self, failures: &Failures<'_>, draft: Option<&Given>) -> Answer {
        let given = draft.map(|draft| (draft.output.clone(), draft.label));
        let last = || self.asked.rounds.last().map(|round| (round.draft.clone(), round.label));
        Answer::Owner { reasons: failures.reasons(), draft: given.or_else(last).map(Box::new) }
    }

    /// Whether the condition of a link holds; one that does not is told like a try.
    async fn applies(&self, link: &Link) -> Result<(), ModelError> {
        let Some(when) = &link.when else { return Ok(()) };
        let zone = self.models.workspace["time_zone"].as_str().and_then(|name| TimeZone::get(name).ok());
        let left = match when.contains("budget") {
            true => self.models.ledger.left(self.asked.payer).await,
            false => Ok(None),
        };
        let budget_left = match left {
            Ok(left) => left,
            Err(error) => {
                return Err(self.untried(
                    &link.model,
                    Kind::Busy,
                    &format!("the ledger does not answer: {error}"),
                ));
            }
        };
        let known = Known {
            budget_left,
            at: wall().to_zoned(zone.unwrap_or(TimeZone::UTC)).datetime(),
            input_tokens: estimate::input(self.agent, self.asked.with),
        };
        let why = match link.applies(&known) {
            Ok(true) => return Ok(()),
            Ok(false) => format!("its condition `{when}` does not hold"),
            Err(error) => format!("its condition: {error}"),
        };
        Err(self.untried(&link.model, Kind::Inapplicable, &why))
    }

    /// What follows when a model cannot be paid; nothing: the next one is asked.
    fn exhausted(&self, short: Shortage) -> Option<Answer> {
        match self.asked.payer.budget.exhausted {
            Exhausted::Fallback => None,
            Exhausted::Review => Some(Answer::Short(short)),
            Exhausted::Fail => {
                let message = format!("It cannot be paid: {}.", short.told(self.models.ledger.currency()));
                Some(Answer::Failed(StepError::new(ErrorKind::Budget, message)))
            }
        }
    }

    async fn ask_in_time(&self, name: &str, draft: Option<&Given>) -> Result<Given, ModelError> {
        let left = self.left();
        if !left.is_zero()
            && let Ok(answer) = tokio::time::timeout(left, self.ask_remote(name, draft)).await
        {
            return answer;
        }
        Err(self.too_late(name))
    }

    pub(crate) fn batched(&self) -> MutexGuard<'_, Option<BatchCall>> {
        self.batched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of the step's time.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    async fn ask_encoder(&self) -> Result<Given, ModelError> {
        self.tale.goes_on();
        let started = Instant::now();
        let result = self.encoded().await;
        self.tell_local("encoder", started.elapsed(), &result);
        let (output, confidence) = result?;
        Ok(Given { output, label: self.asked.label, confidence: Some(confidence) })
    }

    async fn encoded(&self) -> Result<(Value, f64), ModelError> {
        let verdict = self.verdict().await?.ok_or_else(|| {
            ModelError::new(Kind::Inapplicable, "the agent has no classes for it to choose from")
        })?;
        let full =
            json!({"class": verdict.class, "confidence": verdict.confidence, "scores": verdict.scores});
        let output = self.checked(as_far_as_taken(full, &self.agent.output))?;
        Ok((output, verdict.confidence))
    }

    async fn ask_canned(&self) -> Result<Given, ModelError> {
        self.tale.goes_on();
        let started = Instant::now();
        let result = self.canned().await;
        self.tell_local("canned", started.elapsed(), &result);
        let (output, declared) = result?;
        let confidence = own_confidence(&output).unwrap_or(declared);
        Ok(Given { output, label: self.asked.label, confidence: Some(confidence) })
    }

    async fn canned(&self) -> Result<(Value, f64), ModelError> {
        let Some(canned) = &self.agent.canned else {
            return Err(ModelError::new(Kind::Inapplicable, "the agent has no canned output"));
        };
        let verdict = self.verdict().await?;
        let class = verdict.map_or(Value::Null, |verdict| {
            json!({"class": verdict.class, "confidence": verdict.confidence, "scores": verdict.scores})
        });
        let context = Context { with: self.asked.with, class, workspace: &self.models.workspace };
        let (output, confidence) = canned::evaluate(canned, &context)?;
        Ok((self.checked(output)?, confidence))
    }

    /// The encoder's verdict on the input, asked for once; `None` for an agent without classes.
    async fn verdict(&self) -> Result<Option<&Verdict>, ModelError> {
        let ask = || async {
            match self.agent.classes.is_empty() {
                true => Ok(None),
                false => self.models.classifier.classify(&self.agent.classes, self.asked.with).await,
            }
        };
        let verdict = self.verdict.get_or_try_init(ask).await;
        let failed = |error: EncoderError| ModelError::new(Kind::Unavailable, error.to_string());
        Ok(verdict.map_err(failed)?.as_ref())
    }

    /// An output fit to be kept: without U+0000 and valid under the agent's schema.
    pub(crate) fn checked(&self, output: Value) -> Result<Value, ModelError> {
        let output = without_nul(output);
        match self.models.schemas.check(&self.agent.output, &output) {
            Ok(()) => Ok(output),
            Err(OutputError::Schema(error)) => Err(ModelError::new(Kind::Rejected, error.to_string())),
            Err(OutputError::Value(problems)) => {
                Err(ModelError::new(Kind::Invalid, format!("its output does not fit the schema: {problems}")))
            }
        }
    }

    fn tell_local<T>(&self, model: &str, took: Duration, result: &Result<T, ModelError>) {
        self.tale.called(ModelCall {
            model: model.to_owned(),
            outcome: outcome(result),
            millis: millis(took),
            ..ModelCall::default()
        });
    }
}

/// Who gave no answer along a tier, and why.
struct Failures<'a> {
    tier: &'a str,
    of: Vec<(&'a str, ModelError)>,
}

impl Failures<'_> {
    /// Why nobody answered, one sentence each, for the owner who is asked instead.
    fn reasons(&self) -> Vec<String> {
        if self.of.is_empty() {
            return vec![format!("The tier `{}` asks you first.", self.tier)];
        }
        let sentence = |(model, error): &(&str, ModelError)| {
            format!("`{model}` gave no answer: {}.", error.message.trim_end_matches('.'))
        };
        self.of.iter().map(sentence).collect()
    }

    /// The error of a chain that ended without an answer: the last one that another attempt may
    /// mend, or else the last.
    fn failure(&self) -> StepError {
        let worth = self.of.iter().rev().find(|(_, error)| error.kind.of_step().retryable());
        match worth.or(self.of.last()) {
            Some((_, error)) => error.clone().into_step_error(self.reasons().join(" ")),
            None => {
                let message = format!("The tier `{}` has no models.", self.tier);
                StepError::new(ErrorKind::Invalid, message)
            }
        }
    }
}

/// A model before the one whose call went into a batch.
fn passed_before() -> ModelError {
    ModelError::new(Kind::Inapplicable, "it gave none before a batch was waited for; the journal says why")
}

pub(crate) fn outcome<T>(result: &Result<T, ModelError>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned())
}

pub(crate) fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// The fields of the encoder's output that the schema names; a schema that names none gets the
/// class and the confidence.
fn as_far_as_taken(full: Value, schema: &Value) -> Value {
    let named = schema.get("properties").and_then(Value::as_object);
    let taken = |key: &str| named.map_or(key != "scores", |named| named.contains_key(key));
    match full {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(key, _)| taken(key)).collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// The confidence that an output itself declares.
pub(crate) fn own_confidence(output: &Value) -> Option<f64> {
    output.get("confidence")?.as_f64().filter(|confidence| (0.0..=1.0).contains(confidence))
}

/// The lower of two confidences; what is not known changes nothing.
pub(crate) fn lower(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (known, None) | (None, known) => known,
    }
}
