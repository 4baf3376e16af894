//! The template is what an owner learns from: it must have no fault, and do its work without a key.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::check::schema::validator;
use crate::config::problem::Severity;
use crate::config::workspace::{Definitions, Trigger};
use crate::domain::label::Label;
use crate::domain::template::Scope;
use crate::domain::workflow::Agent;

fn shipped() -> Definitions {
    Definitions::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap().0
}

#[test]
fn the_shipped_template_has_no_problem() {
    let (definitions, warnings) = match Definitions::load(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}"),
    };
    // A key that is not set on this machine is no fault of the template.
    let faults: Vec<_> =
        warnings.iter().filter(|warning| !warning.message.starts_with("the environment has no")).collect();
    assert!(faults.is_empty(), "{faults:?}");
    assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
    let names: Vec<_> = definitions.workflows.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["lead-intake", "support"]);
    let leads = &definitions.workflows[&"lead-intake".into()];
    assert_eq!(leads.triggers, [Trigger::Email { mailbox: "leads".into(), gather: None }]);
    assert_eq!(leads.version.steps[1].needs, ["set_aside".into()]);
    assert_eq!(leads.version.agents.len(), 3);
    assert!(definitions.policy.known.contains("mara@harbourandpine.example"));
}

/// What an agent gives without any model.
fn canned(agent: &Agent, with: &Value) -> Value {
    let canned = agent.canned.as_ref().unwrap();
    let workspace = serde_json::to_value(shipped().settings.workspace).unwrap();
    let context = json!({"with": with, "workspace": workspace});
    let scope = Scope::new(&context, |_| Label::Owner);
    if let Some(when) = &canned.when {
        assert!(scope.holds(when).unwrap());
    }
    let output = scope.fill(&canned.output).unwrap();
    let errors: Vec<_> =
        validator(&agent.output).unwrap().iter_errors(&output).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {output:#}");
    output
}

fn agent(name: &str) -> Agent {
    let definitions = shipped();
    let mut agents = definitions.workflows.values().flat_map(|d| d.version.agents.values());
    agents.find(|agent| agent.agent.as_str() == name).unwrap().clone()
}

#[test]
fn without_a_model_a_lead_is_judged_by_rule_of_thumb_and_answered_with_the_right_questions() {
    let with = json!({
        "from": "jonas@b.example", "from_name": "Jonas Brandt", "subject": "New website for our bakery",
        "body": "We need 6 or 7 pages, online before Easter, and have set aside 4.000 € for it.",
        "attachments": ["brief.pdf"],
    });
    let judged = canned(&agent("qualifier"), &with);
    assert_eq!(judged["fit"], json!(0.9));
    assert_eq!(judged["unknown"], json!([]));
    insta::assert_snapshot!(judged["why"].as_str().unwrap(), @"By rule of thumb, no model has read it: it is about our kind of work, it names a budget, and there is an attachment you should read.");

    let mut vague = with.clone();
    vague["body"] = json!("Could you call me about a web shop?");
    vague["attachments"] = json!([]);
    let judged = canned(&agent("qualifier"), &vague);
    assert_eq!(judged["wants"], json!("a web shop"));
    assert_eq!(judged["unknown"], json!(["budget", "date", "pages"]));
    vague["wants"] = judged["wants"].clone();
    vague["unknown"] = judged["unknown"].clone();
    vague["from_name"] = Value::Null;
    let reply = canned(&agent("lead-reply"), &vague);
    insta::assert_snapshot!(reply["body"].as_str().unwrap());
    vague["unknown"] = json!([]);
    let reply = canned(&agent("lead-reply"), &vague);
    insta::assert_snapshot!("lead_reply_with_nothing_unknown", reply["body"].as_str().unwrap());
}

#[test]
fn without_a_model_a_question_is_answered_with_the_passages_and_where_they_stand() {
    let hit = |title: &str, heading: &str, text: &str| json!({"document": "d", "version": 1, "title": title, "heading": heading, "place": "1", "text": text, "score": 0.5});
    let with = json!({
        "from_name": "Marlene Graf", "subject": "How do I change our opening hours?", "body": "…", "customer": null,
        "passages": [
            hit("Editing your site", "Opening hours", "Open the page, press Edit.\n"),
            hit("Prices", "Hosting", "Hosting for a website: 24 EUR per month."),
            hit("Prices", "Discounts", "None."),
        ],
    });
    let answer = canned(&agent("support-answer"), &with);
    assert_eq!(answer["citations"], json!(["Editing your site", "Prices"]));
    insta::assert_snapshot!(answer["body"].as_str().unwrap());
}
