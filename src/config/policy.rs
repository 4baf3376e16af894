//! `config/policy.yaml`: the owner's rules.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::policy::{self, Ruling};

/// The whole file.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Addresses, hosts and URLs the owner knows.
    #[serde(default)]
    pub known: BTreeSet<String>,
    /// The rules; every one that matches counts, the strictest wins.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name.
    pub rule: String,
    /// The actions it is about: `email.send`, `email.*` or `*`.
    pub action: String,
    /// A condition over `action`, `params`, `labels`, `confidence`, `workflow`, `stage`.
    #[serde(default)]
    pub when: Option<String>,
    /// What it says.
    pub then: Ruling,
    /// Why, for the owner.
    pub because: String,
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
        });
        policy::Policy {
            rules: rules.collect(),
            known: self.known.iter().map(|k| k.to_lowercase()).collect(),
        }
    }
}
