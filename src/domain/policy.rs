//! Policy: turns a proposed action into allow, review or deny.
//!
//! Every rule that matches is collected, with its reason; the strictest outcome wins. Some rules
//! are structure and stand in no file, so that no file can forget them: an effect of a supervised
//! version is reviewed, and so is one whose target or amount comes from outside.
//!
//! - [`Policy::judge`] rules, [`Policy::weigh`] tells everything that led to it;
//! - [`facts`] is what a ruling rests on besides the action; [`names`] is what rules may ask about;
//! - [`target`] reads whom an action reaches, [`amount`] how much money it speaks of, [`suspect`] what looks
//!   like an attempt to steer or deceive.
//!
//! Pure: what the database knows ([`facts::History`]) is looked up before, and recorded with the ruling.

pub mod amount;
pub mod facts;
pub mod names;
pub mod suspect;
pub mod target;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::action::{Action, ActionSpec, Labels, Reach};
use crate::domain::fold::{fold, has_word};
use crate::domain::label::Label;
use crate::domain::quiet::Quiet;
use crate::domain::risk::{Risk, RiskClass};
use crate::domain::template::{self, Scope, TemplateError};
use facts::Facts;
use view::View;

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

impl Ruling {
    /// The name used in files and screens.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Review => "review",
            Self::Deny => "deny",
        }
    }
}

/// A ruling with every reason that led to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// The strictest of all that matched.
    pub ruling: Ruling,
    /// Why, one sentence each, the strictest first.
    pub reasons: Vec<String>,
    /// What is at stake.
    #[serde(default)]
    pub risk: Risk,
    /// What it rests on besides the action; none in journals from before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Box<Facts>>,
}

/// The owner's rules, in the order of the file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
    /// What marks an action, besides what code knows.
    #[serde(default)]
    pub tags: Vec<TagRule>,
    /// Addresses, `@domains`, hosts and URLs the owner knows, each in its [`target::spelling`].
    pub known: BTreeSet<String>,
    /// When `quiet` is true for rules.
    #[serde(default)]
    pub quiet: Option<Quiet>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, for the reasons.
    pub rule: String,
    /// The actions it is about: `email.send`, `email.*` or `*`.
    pub action: String,
    /// A condition over [`names::RULE_NAMES`]; always when absent.
    pub when: Option<String>,
    /// What it says.
    pub then: Ruling,
    /// Why, for the owner.
    pub because: String,
    /// What would have to be otherwise.
    #[serde(default)]
    pub needs: Option<String>,
}

/// What marks an action: words in its texts, or a condition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TagRule {
    /// The tag.
    pub tag: String,
    /// The actions it is about, as in [`Rule::action`].
    pub action: String,
    /// Beginnings of words, one of which stands in a text of the action.
    pub words: Vec<String>,
    /// A condition over [`names::RULE_NAMES`] but for those of [`names::AFTER_TAGS`].
    pub when: Option<String>,
    /// What the tag makes of an action's risk.
    pub risk: RiskClass,
}

/// An action to be judged, with what the ruling rests on.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    /// What is proposed.
    pub action: &'a Action,
    /// What is known of its kind.
    pub spec: &'a ActionSpec,
    /// Where each parameter came from.
    pub labels: &'a Labels,
    /// Everything else.
    pub facts: &'a Facts,
}

/// One thing that was found about an action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What it says; `allow` for what is only worth knowing.
    pub ruling: Ruling,
    /// The rule of the owner's file; none for what is structure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
}

/// A judgement with all that led to it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Weighed {
    /// The strictest of all findings.
    pub ruling: Ruling,
    /// What is at stake.
    pub risk: Risk,
    /// Everything that was found, the strictest first.
    pub findings: Vec<Finding>,
    /// What the owner's rules could ask about.
    pub names: Value,
}

impl Policy {
    /// Judges one action. A rule that cannot be evaluated counts as a review, with the fault as its reason:
    /// a broken rule must never let something through.
    #[must_use]
    pub fn judge(&self, case: &Case<'_>) -> Decision {
        let Weighed { ruling, risk, findings, .. } = self.weigh(case);
        let reasons = findings.into_iter().map(|finding| finding.reason).collect();
        Decision { ruling, reasons, risk, facts: Some(Box::new(case.facts.clone())) }
    }

    /// Judges one action and tells everything that led to it.
    #[must_use]
    pub fn weigh(&self, case: &Case<'_>) -> Weighed {
        let view = View::of(self, case);
        let mut findings = view.structural();
        let mut names = names::context(&view);
        let tags = self.tags(case, &names, &mut findings);
        let risk = view.stakes(tags);
        names["tags"] = serde_json::json!(risk.tags);
        names["risk"] = risk.class.as_str().into();
        names["reversible"] = risk.reversible.into();
        let scope = Scope::new(&names, |_| Label::Owner);
        for rule in self.rules.iter().filter(|rule| covers(&rule.action, &case.action.action)) {
            let found = match applies(rule.when.as_deref(), &scope) {
                Ok(true) => {
                    Finding { ruling: rule.then, rule: Some(rule.rule.clone()), reason: rule.reason() }
                }
                Ok(false) => continue,
                Err(error) => unclear(&rule.rule, &error),
            };
            findings.push(found);
        }
        drop(scope);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.ruling));
        let ruling = findings.first().map_or(Ruling::Allow, |finding| finding.ruling);
        Weighed { ruling, risk, findings, names }
    }

    /// The tags that the owner's file gives. One that cannot be evaluated is given, and asks the owner.
    fn tags(&self, case: &Case<'_>, names: &Value, findings: &mut Vec<Finding>) -> Vec<(String, RiskClass)> {
        let mut found = Vec::new();
        let covering = self.tags.iter().filter(|tag| covers(&tag.action, &case.action.action));
        let mut texts = None;
        let scope = Scope::new(names, |_| Label::Owner);
        for tag in covering {
            let texts: &str = texts.get_or_insert_with(|| folded_texts(&case.action.params));
            let said = tag.words.iter().any(|word| has_word(texts, &fold(word)));
            let holds = match &tag.when {
                None => Ok(tag.words.is_empty() || said),
                Some(_) if said => Ok(true),
                Some(when) => applies(Some(when), &scope),
            };
            if let Err(error) = &holds {
                findings.push(unclear(&tag.tag, error));
            }
            if holds.unwrap_or(true) {
                found.push((tag.tag.clone(), tag.risk));
            }
        }
        found
    }

    /// Whether judging such an action rests on what was done before: it leaves the house, or a rule or a
    /// tag about it asks.
    #[must_use]
    pub fn asks_history(&self, spec: &ActionSpec) -> bool {
        let asks = |when: &Option<String>| {
            let mut named = BTreeSet::new();
            when.as_deref().is_some_and(|when| {
                template::expression_paths(when, &mut named).is_err()
                    || named.iter().any(|name| names::FROM_HISTORY.iter().any(|one| name.starts_with(one)))
            })
        };
        let rules = self.rules.iter().map(|rule| (&rule.action, &rule.when));
        let mut all = rules.chain(self.tags.iter().map(|tag| (&tag.action, &tag.when)));
        spec.reach == Reach::External || all.any(|(action, when)| covers(action, spec.name) && asks(when))
    }

    /// Domains and hosts on the owner's list: what looks like one of them is suspicious.
    #[must_use]
    pub fn known_domains(&self) -> BTreeSet<String> {
        let domain = |entry: &String| match url::Url::parse(entry) {
            Ok(url) => url.host_str().map(str::to_owned),
            Err(_) => entry.rsplit('@').next().map(str::to_owned),
        };
        self.known.iter().filter_map(domain).collect()
    }
}

impl Rule {
    /// Why, and of a denial also which rule it was and what would be needed.
    fn reason(&self) -> String {
        if self.then != Ruling::Deny {
            return self.because.clone();
        }
        let because = self.because.trim_end_matches('.');
        let needed = match (&self.needs, &self.when) {
            (Some(needs), _) => needs.trim_end_matches('.').to_owned(),
            (None, Some(when)) => format!("that `{when}` does not hold"),
            (None, None) => "that you change this rule: it covers every such action".to_owned(),
        };
        format!("{because} (rule `{}`; needed: {needed})", self.rule)
    }
}

fn unclear(name: &str, error: &TemplateError) -> Finding {
    let reason = format!("the rule `{name}` could not be evaluated: {error}");
    Finding { ruling: Ruling::Review, rule: Some(name.to_owned()), reason }
}

/// Whether an action of that name falls under a rule about `pattern`.
#[must_use]
pub fn covers(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => action.starts_with(prefix),
        None => pattern == action,
    }
}

fn applies(when: Option<&str>, scope: &Scope<'_>) -> Result<bool, TemplateError> {
    when.map_or(Ok(true), |condition| scope.surely_holds(condition))
}

/// Every text in the parameters, folded, a line each.
fn folded_texts(params: &Value) -> String {
    fn gather(value: &Value, all: &mut String) {
        match value {
            Value::String(text) => {
                all.push_str(&fold(text));
                all.push('\n');
            }
            Value::Array(items) => items.iter().for_each(|item| gather(item, all)),
            Value::Object(fields) => fields.values().for_each(|field| gather(field, all)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut all = String::new();
    gather(params, &mut all);
    all
}
