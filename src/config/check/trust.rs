//! `trust:` of a workflow: the only ways in which something counts for more than where it came from.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::check::paths::{self, Miss};
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::workflow::RawWorkflow;
use crate::domain::workflow::Trust;

/// Checks what the workflow trusts.
pub(super) fn resolve(
    report: &mut Reporter<'_>,
    raw: &RawWorkflow,
    base: &BTreeMap<&'static str, Value>,
    outputs: &BTreeMap<&str, Value>,
) -> Trust {
    let Some(trust) = &raw.trust else { return Trust::default() };
    let top = Path::top().key("trust");
    for (index, path) in trust.paths.iter().enumerate() {
        if let Err((message, mend)) = leads_somewhere(path, base, outputs) {
            report.value(&top.key("paths").index(index), message, mend);
        }
    }
    if trust.answers_to_sender && !raw.on.iter().any(|trigger| trigger.email.is_some()) {
        let message = "no mail opens this workflow, so it has no sender to answer";
        report.value(&top.key("answers_to_sender"), message, "take it away, or add `- email:` under `on`");
    }
    if !trust.public.is_empty() && !trust.answers_to_sender {
        let message = "`public` says what an answer to the sender may carry";
        report.value(&top.key("public"), message, "add `answers_to_sender: true`, or take this away");
    }
    Trust { answers: trust.answers_to_sender, public: trust.public.clone(), paths: trust.paths.clone() }
}

/// A trusted path names one value: never all of an input, nor all that a step gave.
fn leads_somewhere(
    path: &str,
    base: &BTreeMap<&'static str, Value>,
    outputs: &BTreeMap<&str, Value>,
) -> Result<(), (String, String)> {
    let parts: Vec<&str> = path.split('.').collect();
    let followed = match parts.as_slice() {
        ["input", rest @ ..] if !rest.is_empty() => match base.get("input") {
            Some(schema) => paths::follow(schema, "input", rest).map(|_| ()),
            None => Ok(()),
        },
        ["steps", step, "output", rest @ ..] if !rest.is_empty() => match outputs.get(*step) {
            Some(schema) => {
                let rest: Vec<&str> = std::iter::once("output").chain(rest.iter().copied()).collect();
                paths::follow(schema, &format!("steps.{step}"), &rest).map(|_| ())
            }
            None => {
                let known: Vec<&str> = outputs.keys().copied().collect();
                let mend = nearest::mend(step, "the steps of this workflow", &known);
                return Err((format!("there is no step `{step}`"), mend));
            }
        },
        _ => {
            let message = format!("`{path}` names no single value");
            let mend = "write it as in `input.customer` or `steps.find.output.account`";
            return Err((message, mend.to_owned()));
        }
    };
    followed.map_err(|Miss { at, key, known }| {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        (format!("`{at}` has no `{key}`"), nearest::mend(&key, &format!("what `{at}` has"), &known))
    })
}
