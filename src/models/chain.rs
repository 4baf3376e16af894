//! The way along an agent's tier: each model in turn until one gives an output that is valid under
//! the agent's schema. Built-in models are asked here, the others in [`crate::models::ask`].

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::domain::event::{ErrorKind, ModelCall, StepError};
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::domain::tier::{Known, Link};
use crate::domain::workflow::Agent;
use crate::models::Inner;
use crate::models::canned::{self, Context};
use crate::models::classify::Verdict;
use crate::models::encoder::EncoderError;
use crate::models::error::{Kind, ModelError};
use crate::models::estimate;
use crate::models::schema::{OutputError, without_nul};
use crate::time::wall;

/// One agent on its way along its chain.
pub(crate) struct Walk<'a> {
    pub(crate) models: &'a Inner,
    pub(crate) agent: &'a Agent,
    pub(crate) with: &'a Value,
    label: Label,
    /// When the step's time is up: no provider is waited for after that, the rest of the chain still counts.
    deadline: Instant,
    tried: &'a (dyn Fn(ModelCall) + Send + Sync),
    /// The latest try; told once another one begins, returned when none does.
    latest: Option<ModelCall>,
    failures: Vec<(&'a str, ModelError)>,
    /// What the encoder said, once it was asked.
    verdict: Option<Verdict>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        models: &'a Inner,
        agent: &'a Agent,
        with: &'a Value,
        label: Label,
        limit: Duration,
        tried: &'a (dyn Fn(ModelCall) + Send + Sync),
    ) -> Self {
        let deadline = Instant::now() + limit;
        Self {
            models,
            agent,
            with,
            label,
            deadline,
            tried,
            latest: None,
            failures: Vec::new(),
            verdict: None,
        }
    }

    /// Walks from the first model to the last.
    pub(crate) async fn run(mut self) -> (Option<ModelCall>, Answer) {
        let models = self.models;
        let Some(chain) = models.tiers.get(&self.agent.tier) else {
            let message = format!("There is no tier `{}` in config/models.yaml.", self.agent.tier);
            return (None, Answer::Failed(StepError::new(ErrorKind::Invalid, message)));
        };
        for link in chain {
            let model = &link.model;
            if let Err(error) = self.applies(link) {
                self.failures.push((model, error));
                continue;
            }
            let answer = match model.as_str() {
                "owner" => return (self.latest.take(), Answer::Owner { reasons: self.reasons() }),
                "encoder" => self.ask_encoder().await,
                "canned" => self.ask_canned().await,
                name => self.ask_in_time(name).await,
            };
            match answer {
                Ok(answer) => return (self.latest, answer),
                Err(error) => self.failures.push((model, error)),
            }
        }
        (self.latest.take(), Answer::Failed(self.failure()))
    }

    /// Whether the condition of a link holds; one that does not is told like a try.
    fn applies(&mut self, link: &Link) -> Result<(), ModelError> {
        let Some(when) = &link.when else { return Ok(()) };
        let zone = self.models.workspace["time_zone"].as_str().and_then(|name| TimeZone::get(name).ok());
        let known = Known {
            // The ledger tells what is left, once there is one.
            budget_left: None,
            at: wall().to_zoned(zone.unwrap_or(TimeZone::UTC)).datetime(),
            input_tokens: estimate::input(self.agent, self.with),
        };
        let error = match link.applies(&known) {
            Ok(true) => return Ok(()),
            Ok(false) => ModelError::new(Kind::Inapplicable, format!("its condition `{when}` does not hold")),
            Err(error) => ModelError::new(Kind::Inapplicable, format!("its condition: {error}")),
        };
        self.next_try();
        self.tell_local::<()>(&link.model, Duration::ZERO, &Err(error.clone()));
        Err(error)
    }

    async fn ask_in_time(&mut self, name: &str) -> Result<Answer, ModelError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if !left.is_zero()
            && let Ok(answer) = tokio::time::timeout(left, self.ask_remote(name)).await
        {
            return answer;
        }
        Err(self.too_late(name))
    }

    async fn ask_encoder(&mut self) -> Result<Answer, ModelError> {
        self.next_try();
        let started = Instant::now();
        let result = self.encoded().await;
        self.tell_local("encoder", started.elapsed(), &result);
        let (output, confidence) = result?;
        Ok(Answer::Output { output, label: self.label, confidence: Some(confidence) })
    }

    async fn encoded(&mut self) -> Result<(Value, f64), ModelError> {
        let verdict = self.verdict().await?.ok_or_else(|| {
            ModelError::new(Kind::Inapplicable, "the agent has no classes for it to choose from")
        })?;
        let full =
            json!({"class": verdict.class, "confidence": verdict.confidence, "scores": verdict.scores});
        let output = self.checked(as_far_as_taken(full, &self.agent.output))?;
        Ok((output, verdict.confidence))
    }

    async fn ask_canned(&mut self) -> Result<Answer, ModelError> {
        self.next_try();
        let started = Instant::now();
        let result = self.canned().await;
        self.tell_local("canned", started.elapsed(), &result);
        let (output, declared) = result?;
        let confidence = own_confidence(&output).unwrap_or(declared);
        Ok(Answer::Output { output, label: self.label, confidence: Some(confidence) })
    }

    async fn canned(&mut self) -> Result<(Value, f64), ModelError> {
        let Some(canned) = &self.agent.canned else {
            return Err(ModelError::new(Kind::Inapplicable, "the agent has no canned output"));
        };
        let verdict = self.verdict().await?;
        let class = verdict.map_or(Value::Null, |verdict| {
            json!({"class": verdict.class, "confidence": verdict.confidence, "scores": verdict.scores})
        });
        let context = Context { with: self.with, class, workspace: &self.models.workspace };
        let (output, confidence) = canned::evaluate(canned, &context)?;
        Ok((self.checked(output)?, confidence))
    }

    /// The encoder's verdict on the input, asked for once; `None` for an agent without classes.
    async fn verdict(&mut self) -> Result<Option<Verdict>, ModelError> {
        if self.verdict.is_none() && !self.agent.classes.is_empty() {
            let asked = self.models.classifier.classify(&self.agent.classes, self.with).await;
            self.verdict =
                asked.map_err(|error: EncoderError| ModelError::new(Kind::Unavailable, error.to_string()))?;
        }
        Ok(self.verdict.clone())
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

    /// An answer of a language model: never more trusted than that.
    pub(crate) fn model_output(&self, output: Value) -> Answer {
        let confidence = own_confidence(&output);
        Answer::Output { output, label: self.label.join(Label::Model), confidence }
    }

    /// Another try begins: the one before was not the last.
    pub(crate) fn next_try(&mut self) {
        if let Some(call) = self.latest.take() {
            (self.tried)(call);
        }
    }

    /// A try has ended.
    pub(crate) fn ended(&mut self, call: ModelCall) {
        self.next_try();
        self.latest = Some(call);
    }

    fn tell_local<T>(&mut self, model: &str, took: Duration, result: &Result<T, ModelError>) {
        let outcome = outcome(result);
        self.ended(ModelCall {
            model: model.to_owned(),
            outcome,
            answered_by: None,
            input_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            estimated: false,
            cost_micros: 0,
            millis: millis(took),
        });
    }

    /// Why nobody answered, one sentence each, for the owner who is asked instead.
    fn reasons(&self) -> Vec<String> {
        if self.failures.is_empty() {
            return vec![format!("The tier `{}` asks you first.", self.agent.tier)];
        }
        let sentence = |(model, error): &(&str, ModelError)| {
            format!("`{model}` gave no answer: {}.", error.message.trim_end_matches('.'))
        };
        self.failures.iter().map(sentence).collect()
    }

    /// The error of a chain that ended without an answer: the last one that another attempt may
    /// mend, or else the last.
    fn failure(&self) -> StepError {
        let worth = self.failures.iter().rev().find(|(_, error)| error.kind.of_step().retryable());
        match worth.or(self.failures.last()) {
            Some((_, error)) => error.clone().into_step_error(self.reasons().join(" ")),
            None => {
                let message = format!("The tier `{}` has no models.", self.agent.tier);
                StepError::new(ErrorKind::Invalid, message)
            }
        }
    }
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
fn own_confidence(output: &Value) -> Option<f64> {
    output.get("confidence")?.as_f64().filter(|confidence| (0.0..=1.0).contains(confidence))
}
