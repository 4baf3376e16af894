//! `config/policy.yaml`: that its rules are about actions there are, and ask about what there is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::check::templates::{Place, Scope};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::policy::Policy;
use crate::domain::action::{ACTIONS, ActionSpec};
use crate::domain::policy::names::{AFTER_TAGS, RULE_NAMES};
use crate::domain::policy::{Ruling, covers, target};

/// Checks `config/policy.yaml`.
pub(in crate::config) fn policy(report: &mut Reporter<'_>, policy: &Policy) {
    for (index, entry) in policy.known.iter().enumerate() {
        if target::spelling(entry).is_none() {
            let mend = "write `ann@client.example`, `@client.example`, `api.client.example` or a URL";
            let path = Path::top().key("known").index(index);
            report.value(&path, format!("`{entry}` is no address, domain, host or URL"), mend);
        }
    }
    for (index, tag) in policy.tags.iter().enumerate() {
        let path = Path::top().key("tags").index(index);
        if tag.words.is_empty() && tag.when.is_none() {
            let message = format!("nothing ever gives the tag `{}`", tag.tag);
            report.value(&path.key("tag"), message, "give it `words:` or `when:`");
        }
        if let Some(empty) = tag.words.iter().position(|word| word.trim().is_empty()) {
            let message = "an empty word stands in every text";
            report.value(&path.key("words").index(empty), message, "take it away");
        }
        condition(report, &path, &tag.action, tag.when.as_deref(), true);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = Path::top().key("rules").index(index);
        if policy.rules[..index].iter().any(|earlier| earlier.rule == rule.rule) {
            let message = format!("there are two rules `{}`", rule.rule);
            report.value(&path.key("rule"), message, "give this one another name");
        }
        if rule.needs.is_some() && rule.then != Ruling::Deny {
            let message = "`needs` explains a denial, and this rule denies nothing";
            report.value(&path.key("needs"), message, "take it away, or write `then: deny`");
        }
        condition(report, &path, &rule.action, rule.when.as_deref(), false);
    }
}

fn condition(report: &mut Reporter<'_>, path: &Path, action: &str, when: Option<&str>, of_tag: bool) {
    let covered: Vec<&ActionSpec> = ACTIONS.iter().filter(|spec| covers(action, spec.name)).collect();
    if covered.is_empty() {
        let known: Vec<&str> = ACTIONS.iter().map(|spec| spec.name).collect();
        let mend = nearest::mend(action, "the actions", &known);
        report.value(&path.key("action"), format!("no action is called `{action}`"), mend);
    } else if let Some(when) = when {
        scope(&covered, of_tag).expression(report, &Place::Value(&path.key("when")), when);
    }
}

/// What a condition may name, with the parameters of the actions it is about.
fn scope(covered: &[&ActionSpec], of_tag: bool) -> Scope {
    let label = json!({"type": "string", "enum": ["owner", "system", "model", "untrusted"]});
    let parameters = || covered.iter().flat_map(|spec| spec.required.iter().chain(spec.optional));
    let object = |schema: &dyn Fn() -> Value| {
        let properties: serde_json::Map<String, Value> =
            parameters().map(|name| ((*name).to_owned(), schema())).collect();
        json!({"type": "object", "additionalProperties": false, "properties": properties})
    };
    let actions: Vec<&str> = covered.iter().map(|spec| spec.name).collect();
    let schema = |name: &str, kind: &str| match name {
        "params" => object(&|| json!(true)),
        "labels" => object(&|| label.clone()),
        "action" => json!({"type": "string", "enum": actions}),
        "label" => label.clone(),
        "stage" => json!({"type": "string", "enum": ["supervised", "live", "retired"]}),
        "risk" => json!({"type": "string", "enum": ["low", "medium", "high"]}),
        "weekday" => json!({"type": "string", "enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}),
        _ => json!({"type": kind}),
    };
    let usable = RULE_NAMES.iter().filter(|one| !of_tag || !AFTER_TAGS.contains(&one.name));
    let names: BTreeMap<&'static str, Value> =
        usable.map(|one| (one.name, schema(one.name, one.kind))).collect();
    Scope { names, steps: None, hint: "" }
}
