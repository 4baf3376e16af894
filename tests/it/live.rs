//! The suite of agents: the shipped ones and a few harder ones, asked through the whole product's models. It
//! runs against a server that only manages JSON under a schema's grammar, as llama.cpp does, and, when
//! `STEWARD_LIVE_BASE_URL` and `STEWARD_LIVE_MODEL` are set (and `STEWARD_LIVE_KEY`, where there is one),
//! against that live endpoint, too.
//!
//! It asks for what a small model can be held to: an output under the schema, by this model. Whether the
//! output is wise is not for this suite to say.

use std::path::Path;

use serde_json::{Map, Value, json};
use steward::config::models::Models as Config;
use steward::config::workspace::Definitions;
use steward::domain::event::ModelCall;
use steward::domain::label::Label;
use steward::domain::plan::Answer;
use steward::domain::workflow::Agent;

use crate::support::model_server::{ModelServer, says};
use crate::support::{asking, database};

const EMAIL: &str = "Hello, we are a small bakery in Bergen and need a new website with a shop before \
                     Easter. Our budget is about 4,000 EUR. Could you start in February? Ingrid";

fn agent(spec: Value) -> Agent {
    let mut agent = json!({"agent": "suite", "tier": "live", "max_tokens": 400});
    agent.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(agent).unwrap()
}

/// Every agent of the template, and shapes that models get wrong without a grammar.
fn suite() -> Vec<(Agent, Value)> {
    let (template, _) = Definitions::load(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let with = json!({"from": "ingrid@bakery.example", "from_name": "Ingrid", "subject": "New website",
        "body": EMAIL, "text": EMAIL, "attachments": [], "passages": [], "class": "lead"});
    let shipped = template.workflows.values().flat_map(|workflow| workflow.version.agents.values().cloned());
    let mut suite: Vec<(Agent, Value)> = shipped.map(|agent| (agent, with.clone())).collect();
    let closed = |properties: Value| {
        let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
        json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
    };
    for (prompt, properties) in [
        (
            "Say which language the text is in.",
            json!({"language": {"type": "string", "enum": ["en", "de", "no"]}}),
        ),
        (
            "Say how much money the text names, as whole euros.",
            json!({"euros": {"type": "integer", "minimum": 0}}),
        ),
        (
            "List at most three things they ask for.",
            json!({"things": {"type": "array", "maxItems": 3, "items": {"type": "string", "minLength": 1}}}),
        ),
        (
            "Say who wrote, and whether a date is named.",
            json!({"writer": closed(json!({"name": {"type": "string"}})), "dated": {"type": "boolean"}}),
        ),
    ] {
        suite.push((agent(json!({"prompt": prompt, "output": closed(properties)})), json!({"text": EMAIL})));
    }
    suite
}

async fn run(base_url: &str, model: &str, key: Option<&str>) -> Vec<ModelCall> {
    let mut provider = json!({"base_url": base_url, "timeout": "120s", "concurrency": 1});
    if let Some(variable) = key {
        provider["key"] = json!(format!("env:{variable}"));
    }
    let config: Config = serde_json::from_value(json!({
        "providers": {"live": provider},
        "models": {"live": {"provider": "live", "id": model, "price": {"input": "0.00 USD", "output": "0.00 USD"}}},
        "tiers": {"live": ["live"]},
    }))
    .unwrap();
    let workspace =
        json!({"name": "Harbour and Pine", "owner": "Mara", "about": "Websites for small shops."});
    let models = asking::models(&database().await, &config, workspace).await;
    let tested = models.test(None).await;
    assert!(tested[0].ok, "{tested:?}");
    let mut calls = Vec::new();
    for (mut agent, with) in suite() {
        agent.tier = "live".into();
        let (call, answer) = asking::ask(&models, &agent, &with, Label::Untrusted).await;
        let call = call.unwrap();
        let Answer::Output { output, label, .. } = answer else { panic!("{}: {answer:?}", agent.agent) };
        assert_eq!((call.outcome.as_str(), label), ("ok", Label::Untrusted), "{}", agent.agent);
        assert!(jsonschema_fits(&agent.output, &output), "{}: {output}", agent.agent);
        assert!(call.input_tokens > 0 && call.output_tokens > 0, "{call:?}");
        calls.push(call);
    }
    models.stop().await;
    calls
}

/// A second opinion, not the product's own: what is required is there, and nothing else where that is closed.
fn jsonschema_fits(schema: &Value, output: &Value) -> bool {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let known = |key: &String| schema["properties"].get(key).is_some();
    let closed = schema["additionalProperties"] == false;
    required.iter().all(|key| output.get(key.as_str().unwrap()).is_some())
        && output.as_object().is_some_and(|output| !closed || output.keys().all(known))
}

/// The smallest value that a grammar made of this schema lets through.
fn smallest(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|options| options.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let empty = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            Value::Object(properties.iter().map(|(key, part)| (key.clone(), smallest(part))).collect())
        }
        Some("array") => json!([]),
        Some("string") => {
            let length = schema["minLength"].as_u64().unwrap_or(1);
            json!("x".repeat(usize::try_from(length).unwrap()))
        }
        Some("boolean") => json!(true),
        _ => schema.get("minimum").cloned().unwrap_or(json!(0)),
    }
}

#[tokio::test]
async fn the_suite_passes_with_a_model_that_only_manages_json_under_a_grammar() {
    // Without a schema it babbles, and it neither counts tokens nor says why it stopped.
    let server =
        ModelServer::start(Box::new(|request| match request["response_format"]["json_schema"]["schema"] {
            Value::Null => says("Well, let me think about that."),
            ref schema => {
                let message = json!({"role": "assistant", "content": smallest(schema).to_string()});
                axum::response::IntoResponse::into_response(axum::Json(
                    json!({"choices": [{"message": message}]}),
                ))
            }
        }))
        .await;
    let calls = run(&format!("http://{}/v1", server.address), "tiny", None).await;
    assert!(calls.len() >= 8 && calls.iter().all(|call| call.estimated), "{calls:?}");
}

#[tokio::test]
async fn the_suite_passes_with_a_live_model() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(url), Some(model)) = (variable("STEWARD_LIVE_BASE_URL"), variable("STEWARD_LIVE_MODEL")) else {
        eprintln!("skipped: set STEWARD_LIVE_BASE_URL and STEWARD_LIVE_MODEL to ask a live model");
        return;
    };
    let key = variable("STEWARD_LIVE_KEY").map(|_| "STEWARD_LIVE_KEY");
    let calls = run(&url, &model, key).await;
    let (read, written) =
        calls.iter().fold((0, 0), |sum, call| (sum.0 + call.input_tokens, sum.1 + call.output_tokens));
    eprintln!("{model}: {} agents answered, {read} tokens read, {written} written", calls.len());
}
