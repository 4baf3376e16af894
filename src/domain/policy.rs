//! Policy: turns a proposed action into allow, review or deny.
//!
//! Every rule that matches is collected, with its reason; the strictest outcome wins. Some rules
//! are structure and stand in no file, so that no file can forget them: an effect of a supervised
//! version is reviewed, and so is one whose target comes from outside.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::action::{Action, ActionSpec, Labels, Reach};
use crate::domain::label::Label;
use crate::domain::risk::{self, Risk};
use crate::domain::template::{Scope, TemplateError};
use crate::domain::workflow::Stage;

/// What policy says, from the mildest to the strictest.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Ruling {
    /// Go ahead.
    Allow,
    /// Ask the owner.
    Review,
    /// Never.
    Deny,
}

/// A ruling with every reason that led to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The strictest of all that matched.
    pub ruling: Ruling,
    /// Why, one sentence each, the strictest first.
    pub reasons: Vec<String>,
    /// What is at stake.
    #[serde(default)]
    pub risk: Risk,
}

/// The owner's rules, in the order of the file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Addresses and hosts the owner knows: targets that may come from anywhere.
    pub known: BTreeSet<String>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, for the reasons.
    pub rule: String,
    /// The actions it is about: `email.send`, `email.*` or `*`.
    pub action: String,
    /// A condition over `action`, `labels`, `confidence`, `workflow`, `stage`; always when absent.
    pub when: Option<String>,
    /// What it says.
    pub then: Ruling,
    /// Why, for the owner.
    pub because: String,
}

/// What a ruling rests on.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// What is proposed.
    pub action: &'a Action,
    /// What is known of its kind.
    pub spec: &'a ActionSpec,
    /// Where each parameter came from.
    pub labels: &'a Labels,
    /// The lowest confidence among the outputs it was made from, if any declared one.
    pub confidence: Option<f64>,
    /// How far the version is trusted.
    pub stage: Stage,
    /// The workflow that proposes.
    pub workflow: &'a str,
    /// Whether the owner asked to see every effect of this step.
    pub review_asked: bool,
    /// Whether its step says what undoes it.
    pub undoable: bool,
}

impl Policy {
    /// Whether the owner knows this address or URL, or the URL's host.
    fn knows(&self, target: &str) -> bool {
        let host = url::Url::parse(target).ok().and_then(|url| url.host_str().map(str::to_lowercase));
        self.known.contains(&target.to_lowercase()) || host.is_some_and(|host| self.known.contains(&host))
    }

    /// Judges one action. A rule that cannot be evaluated counts as a review, with the fault as its reason:
    /// a broken rule must never let something through.
    #[must_use]
    pub fn judge(&self, case: &Case<'_>) -> Decision {
        let mut found: Vec<(Ruling, String)> = structural(self, case);
        let context = context(case);
        let scope = Scope::new(&context, |_| Label::Owner);
        for rule in self.rules.iter().filter(|rule| covers(&rule.action, &case.action.action)) {
            match applies(rule, &scope) {
                Ok(true) => found.push((rule.then, rule.because.clone())),
                Ok(false) => {}
                Err(error) => {
                    found.push((
                        Ruling::Review,
                        format!("the rule `{}` could not be evaluated: {error}", rule.rule),
                    ));
                }
            }
        }
        found.sort_by_key(|(ruling, _)| std::cmp::Reverse(*ruling));
        let ruling = found.first().map_or(Ruling::Allow, |(ruling, _)| *ruling);
        Decision {
            ruling,
            reasons: found.into_iter().map(|(_, reason)| reason).collect(),
            risk: stakes(self, case),
        }
    }
}

/// What is at stake, as far as the action itself tells.
fn stakes(policy: &Policy, case: &Case<'_>) -> Risk {
    let method = case.action.text("method").unwrap_or_default().to_ascii_uppercase();
    let changes_nothing = case.action.action == "http.request" && matches!(method.as_str(), "GET" | "HEAD");
    let external = case.spec.reach == Reach::External;
    let mut risk = Risk::of([], !external || changes_nothing || case.undoable);
    if !external {
        return risk;
    }
    let mut reached = 0;
    for target in case.spec.targets {
        let label = case.labels.get(*target).copied().unwrap_or_default();
        let values = texts(case.action.params.get(*target));
        reached += values.as_ref().map_or(risk::FEW + 1, Vec::len);
        if label >= Label::Model && !values.is_some_and(|all| all.iter().all(|value| policy.knows(value))) {
            risk.add(risk::UNKNOWN_TARGET);
        }
    }
    if reached > risk::FEW {
        risk.add(risk::BULK);
    }
    if method == "DELETE" {
        risk.add(risk::DELETION);
    }
    if case.confidence.is_some_and(|confidence| confidence < risk::SURE) {
        risk.add(risk::UNSURE);
    }
    risk
}

fn structural(policy: &Policy, case: &Case<'_>) -> Vec<(Ruling, String)> {
    let mut found = Vec::new();
    if case.review_asked {
        found.push((Ruling::Review, "the workflow asks for a review of this step".into()));
    }
    if case.spec.reach < Reach::External {
        return found;
    }
    if case.stage == Stage::Supervised {
        found.push((Ruling::Review, "this version is supervised: every external effect is reviewed".into()));
    }
    for target in case.spec.targets {
        let label = case.labels.get(*target).copied().unwrap_or_default();
        if label < Label::Model {
            continue;
        }
        let Some(values) = texts(case.action.params.get(*target)) else {
            found.push((Ruling::Review, format!("`{target}` is no plain text, so nobody can know it")));
            continue;
        };
        for value in values {
            if !policy.knows(value) {
                let from = if label == Label::Untrusted { "something from outside" } else { "a model" };
                found.push((
                    Ruling::Review,
                    format!("`{target}` is {value}, which {from} chose and you do not know yet"),
                ));
            }
        }
    }
    found
}

/// The texts of a target; `None` when there is anything else in it.
fn texts(value: Option<&Value>) -> Option<Vec<&str>> {
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text]),
        Some(Value::Array(items)) => items.iter().map(Value::as_str).collect(),
        Some(_) => None,
    }
}

fn covers(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => action.starts_with(prefix),
        None => pattern == action,
    }
}

fn applies(rule: &Rule, scope: &Scope<'_>) -> Result<bool, TemplateError> {
    rule.when.as_deref().map_or(Ok(true), |condition| scope.holds(condition))
}

/// The names a rule's condition may use.
pub const RULE_NAMES: [&str; 6] = ["action", "params", "labels", "confidence", "workflow", "stage"];

fn context(case: &Case<'_>) -> Value {
    json!({
        "action": case.action.action,
        "params": case.action.params,
        "labels": case.labels,
        "confidence": case.confidence.unwrap_or(1.0),
        "workflow": case.workflow,
        "stage": case.stage.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::spec;

    fn judge(policy: &Policy, to: &str, label: Label, stage: Stage, confidence: f64) -> Decision {
        let action =
            Action { action: "email.send".into(), params: json!({"to": to, "subject": "s", "body": "b"}) };
        let labels = Labels::from([("to".to_owned(), label)]);
        policy.judge(&Case {
            action: &action,
            spec: spec("email.send").unwrap(),
            labels: &labels,
            confidence: Some(confidence),
            stage,
            workflow: "lead-intake",
            review_asked: false,
            undoable: false,
        })
    }

    fn rule(when: Option<&str>, then: Ruling, because: &str) -> Rule {
        Rule {
            rule: because.into(),
            action: "email.*".into(),
            when: when.map(Into::into),
            then,
            because: because.into(),
        }
    }

    #[test]
    fn the_strictest_rule_wins_and_every_reason_is_kept() {
        let policy = Policy {
            rules: vec![
                rule(None, Ruling::Allow, "a"),
                rule(None, Ruling::Deny, "d"),
                rule(None, Ruling::Review, "r"),
            ],
            ..Policy::default()
        };
        let decision = judge(&policy, "x@y.example", Label::Owner, Stage::Live, 1.0);
        assert_eq!(decision.ruling, Ruling::Deny);
        assert_eq!(decision.reasons, ["d", "r", "a"]);
    }

    #[test]
    fn a_supervised_version_has_every_external_effect_reviewed() {
        let decision = judge(&Policy::default(), "x@y.example", Label::Owner, Stage::Supervised, 1.0);
        assert_eq!(decision.ruling, Ruling::Review);
    }

    #[test]
    fn a_recipient_from_outside_is_reviewed_unless_the_owner_knows_it() {
        let known = Policy { known: BTreeSet::from(["x@y.example".to_owned()]), ..Policy::default() };
        assert_eq!(judge(&known, "X@y.example", Label::Untrusted, Stage::Live, 1.0).ruling, Ruling::Allow);
        let decision = judge(&known, "z@y.example", Label::Untrusted, Stage::Live, 1.0);
        assert_eq!(decision.ruling, Ruling::Review);
        assert!(decision.reasons[0].contains("z@y.example"));
    }

    #[test]
    fn a_recipient_that_is_no_plain_text_cannot_slip_past_as_known() {
        let params = json!({"to": [{"address": "z@y.example"}], "subject": "s", "body": "b"});
        let action = Action { action: "email.send".into(), params };
        let decision = Policy::default().judge(&Case {
            action: &action,
            spec: spec("email.send").unwrap(),
            labels: &Labels::from([("to".to_owned(), Label::Untrusted)]),
            confidence: None,
            stage: Stage::Live,
            workflow: "lead-intake",
            review_asked: false,
            undoable: false,
        });
        assert_eq!(decision.ruling, Ruling::Review);
    }

    #[test]
    fn low_confidence_can_raise_a_review_and_high_confidence_never_waives_one() {
        let policy = Policy {
            rules: vec![
                rule(Some("confidence < 0.5"), Ruling::Review, "unsure"),
                rule(Some("confidence > 0.5"), Ruling::Allow, "sure"),
            ],
            ..Policy::default()
        };
        assert_eq!(judge(&policy, "x@y.example", Label::Owner, Stage::Live, 0.4).ruling, Ruling::Review);
        assert_eq!(
            judge(&policy, "x@y.example", Label::Owner, Stage::Supervised, 1.0).ruling,
            Ruling::Review
        );
    }

    #[test]
    fn a_rule_that_cannot_be_evaluated_asks_the_owner() {
        let policy =
            Policy { rules: vec![rule(Some("params.amount > 3"), Ruling::Deny, "d")], ..Policy::default() };
        let decision = judge(&policy, "x@y.example", Label::Owner, Stage::Live, 1.0);
        assert_eq!(decision.ruling, Ruling::Review);
        assert!(decision.reasons[0].contains("could not be evaluated"));
    }
}
