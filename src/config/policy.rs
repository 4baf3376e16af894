//! `config/policy.yaml`: the owner's rules.

use std::collections::BTreeSet;

use jiff::civil::Time;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::policy::{self, Ruling, names, target};
use crate::domain::quiet::{Day, Quiet};
use crate::domain::risk::Risk;

/// The whole file.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Addresses, `@domains`, hosts and URLs you know.
    #[serde(default)]
    pub known: Vec<String>,
    /// When `quiet` holds in conditions, in your own time.
    #[serde(default)]
    pub quiet: Option<RawQuiet>,
    /// What marks an action, for rules and for its risk, besides what code knows: `money` (an amount), `bulk`
    /// (more than three recipients), `deletion`, `unknown_target`, `first_contact`, `new_domain`, `unsure`
    /// (confidence below 0.6), `suspicious`.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The rules; every one that matches counts, the strictest wins.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Quiet hours.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawQuiet {
    /// When they begin, as in `21:00`.
    #[schemars(with = "String")]
    pub from: Time,
    /// When they end, as in `07:00`.
    #[schemars(with = "String")]
    pub to: Time,
    /// Days that are quiet as a whole.
    #[serde(default)]
    pub days: BTreeSet<Day>,
}

/// One tag: given when one of the words stands in a text of the action, or the condition holds.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Its name.
    #[schemars(extend("format" = "name"))]
    pub tag: String,
    /// The actions it is about: `email.send`, `email.*` or `*`; all when absent.
    #[serde(default = "all")]
    pub action: String,
    /// Beginnings of words, in any case.
    #[serde(default)]
    pub words: Vec<String>,
    /// A condition, as in a rule, over what does not follow from tags.
    #[serde(default)]
    pub when: Option<String>,
    /// What it makes of an action's risk; for a tag that code knows what code says, else `medium`.
    #[serde(default)]
    pub risk: Option<Risk>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name.
    pub rule: String,
    /// The actions it is about: `email.send`, `email.*` or `*`.
    pub action: String,
    /// A condition; without it the rule always holds. [`names::RULE_NAMES`] lists what it may name.
    #[serde(default)]
    #[schemars(extend("description" = names::told()))]
    pub when: Option<String>,
    /// What it says.
    pub then: Ruling,
    /// Why, for the owner.
    pub because: String,
    /// Of a denial: what would have to be otherwise, for whoever reads it.
    #[serde(default)]
    pub needs: Option<String>,
}

fn all() -> String {
    "*".into()
}

impl Policy {
    /// The rules as the policy engine takes them.
    #[must_use]
    pub fn resolve(&self) -> policy::Policy {
        let rules = self.rules.iter().map(|rule| policy::Rule {
            rule: rule.rule.clone(),
            action: rule.action.clone(),
            when: rule.when.clone(),
            then: rule.then,
            because: rule.because.clone(),
            needs: rule.needs.clone(),
        });
        let tags = self.tags.iter().map(|tag| policy::TagRule {
            tag: tag.tag.clone(),
            action: tag.action.clone(),
            words: tag.words.clone(),
            when: tag.when.clone(),
            risk: tag.risk.or(Risk::of_tag(&tag.tag)).unwrap_or(Risk::Medium),
        });
        let quiet = self.quiet.as_ref();
        policy::Policy {
            rules: rules.collect(),
            tags: tags.collect(),
            known: self.known.iter().filter_map(|entry| target::spelling(entry)).collect(),
            quiet: quiet.map(|quiet| Quiet { from: quiet.from, to: quiet.to, days: quiet.days.clone() }),
        }
    }
}
