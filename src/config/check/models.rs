//! `config/models.yaml`: what it says for itself.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::config::check::money;
use crate::config::check::settings::secret;
use crate::config::check::templates::{Place, Scope};
use crate::config::document::Reporter;
use crate::config::models::{BUILT_IN, ENCODER, HeaderText, MOST_DIMENSIONS, Model, Models, Provider};
use crate::config::nearest;
use crate::config::node::Path;
use crate::domain::tier::{Link, WEEKDAYS};

/// Headers that the call itself sets: a second one would break it, or send it elsewhere.
const OURS: [&str; 7] =
    ["accept", "connection", "content-length", "content-type", "host", "te", "transfer-encoding"];

/// What the settings of organization and project are sent as.
const OF_FIELDS: [(&str, &str); 2] = [("openai-organization", "organization"), ("openai-project", "project")];

/// Checks the file; prices are in the workspace's `currency`, when that is known.
pub(in crate::config) fn models(report: &mut Reporter<'_>, models: &Models, currency: Option<&str>) {
    for (name, served) in &models.providers {
        provider(report, &Path::top().key("providers").key(name), served);
    }
    let providers: Vec<&str> = models.providers.keys().map(String::as_str).collect();
    for (name, served) in &models.models {
        let path = Path::top().key("models").key(name);
        if BUILT_IN.contains(&name.as_str()) {
            report.key(&path, format!("`{name}` is built in"), "give this model another name");
        }
        if !models.providers.contains_key(&served.provider) {
            let mend = nearest::mend(&served.provider, "the providers", &providers);
            report.value(&path.key("provider"), format!("there is no provider `{}`", served.provider), mend);
        }
        if models.embedding() != Some(name) {
            money::priced(report, &path, name, served, currency);
        }
        model(report, &path, served, currency);
    }
    tiers(report, models);
    embeddings(report, models, currency);
}

fn provider(report: &mut Reporter<'_>, path: &Path, provider: &Provider) {
    secret(report, &path.key("key"), provider.key.as_ref());
    let counts = [
        ("concurrency", provider.concurrency == 0),
        ("per_minute", provider.per_minute == Some(0)),
        ("tokens_per_minute", provider.tokens_per_minute == Some(0)),
        ("timeout", provider.timeout.0.is_zero()),
        ("connect_timeout", provider.connect_timeout.0.is_zero()),
        ("idle_timeout", provider.idle_timeout.is_some_and(|span| span.0.is_zero())),
    ];
    nothing(report, path, &counts);
    if !provider.base_url.username().is_empty() || provider.base_url.password().is_some() {
        let mend = "take the name and password out of the address; give a key as `key: env:NAME`";
        report.hidden(&path.key("base_url"), "`base_url` holds a password", mend);
    }
    for (name, text) in &provider.headers {
        header(report, &path.key("headers").key(name), name, text, provider);
    }
    for (field, text) in [("organization", &provider.organization), ("project", &provider.project)] {
        if text.as_ref().is_some_and(|text| text.is_empty() || HeaderValue::from_str(text).is_err()) {
            let message = format!("`{field}` cannot be sent as a header");
            report.value(&path.key(field), message, "write it as the provider shows it, such as `org-123`");
        }
    }
}

fn header(report: &mut Reporter<'_>, path: &Path, name: &str, text: &HeaderText, provider: &Provider) {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(lower.as_bytes()).is_err() {
        report.key(path, format!("`{name}` is no name of a header"), "write it as in `X-Title: Steward`");
    } else if OURS.contains(&lower.as_str()) {
        report.key(path, format!("every request sets `{name}` by itself"), "take the line away");
    } else if let Some((_, field)) = OF_FIELDS.iter().find(|(header, _)| *header == lower) {
        report.key(path, format!("`{name}` has a field of its own"), format!("write `{field}: …` instead"));
    } else if lower == "authorization" && provider.key.is_some() {
        let mend = "keep one of them; `key: env:NAME` is sent as `Authorization: Bearer …`";
        report.key(path, "both `key` and this header say who asks", mend);
    }
    match text {
        HeaderText::Secret(reference) => secret(report, path, Some(reference)),
        HeaderText::Plain(_) if lower == "authorization" || lower.ends_with("api-key") => {
            let mend = "name where it is kept, as `env:NAME` or `file:/path`; never the secret itself";
            report.hidden(path, format!("`{name}` holds a secret"), mend);
        }
        HeaderText::Plain(text) if HeaderValue::from_str(text).is_err() => {
            report.value(
                path,
                format!("`{name}` cannot be sent as a header"),
                "write it in one line of text",
            );
        }
        HeaderText::Plain(_) => {}
    }
}

fn model(report: &mut Reporter<'_>, path: &Path, model: &Model, currency: Option<&str>) {
    if model.id.trim().is_empty() {
        report.value(&path.key("id"), "`id` is empty", "write the model's name at the provider");
    }
    let counts = [
        ("context", model.context == Some(0)),
        ("max_output", model.max_output == Some(0)),
        ("per_minute", model.per_minute == Some(0)),
        ("tokens_per_minute", model.tokens_per_minute == Some(0)),
    ];
    nothing(report, path, &counts);
    if let Some(wanted) = model.dimensions.filter(|wanted| !(1..=MOST_DIMENSIONS).contains(wanted)) {
        let message = format!("vectors of {wanted} coordinates cannot be indexed");
        let mend = format!("write 1 to {MOST_DIMENSIONS}; fewer are quicker and smaller");
        report.value(&path.key("dimensions"), message, mend);
    }
    if let (Some(context), Some(most)) = (model.context, model.max_output)
        && most > context
    {
        let message = format!("`max_output: {most}` does not fit into `context: {context}`");
        report.value(&path.key("max_output"), message, "the context holds the question and the answer");
    }
    let Some(price) = &model.price else { return };
    let parts = [
        ("input", Some(&price.input)),
        ("cached_input", price.cached_input.as_ref()),
        ("output", Some(&price.output)),
    ];
    for (field, money) in parts.iter().filter_map(|(field, money)| money.map(|money| (field, money))) {
        if let Some(currency) = currency.filter(|currency| *currency != money.currency) {
            let message = format!("this price is in {}, the workspace counts in {currency}", money.currency);
            let mend = format!("write it in {currency}, or change `currency` in config/settings.yaml");
            report.value(&path.key("price").key(field), message, mend);
        }
    }
    if let Some(cached) = price.cached_input.as_ref().filter(|cached| cached.micros > price.input.micros) {
        let message = format!("`{cached}` for what is cached is more than `{}` for what is not", price.input);
        let mend = "look the prices up again, or take `cached_input` away";
        report.value(&path.key("price").key("cached_input"), message, mend);
    }
}

/// Limits that would let nothing through.
fn nothing(report: &mut Reporter<'_>, path: &Path, counts: &[(&str, bool)]) {
    for (field, _) in counts.iter().filter(|(_, zero)| *zero) {
        let message = format!("with `{field}` at zero nothing could ever be asked");
        report.value(&path.key(field), message, "write more than zero, or take the line away");
    }
}

fn tiers(report: &mut Reporter<'_>, models: &Models) {
    let path = Path::top().key("tiers");
    let known: Vec<&str> = BUILT_IN.into_iter().chain(models.models.keys().map(String::as_str)).collect();
    for (name, chain) in &models.tiers {
        let path = path.key(name);
        if chain.is_empty() {
            let mend = "list models in the order to try them; `owner` at the end asks you";
            report.value(&path, format!("the tier `{name}` has no models"), mend);
        }
        for (index, Link { model, when }) in chain.iter().enumerate() {
            let entry = path.index(index);
            // An entry with a condition is marked at the model's name within it.
            let place = if when.is_some() { entry.key("model") } else { entry.clone() };
            let always = |earlier: &&Link| earlier.when.is_none();
            if !known.contains(&model.as_str()) {
                let mend = nearest::mend(model, "the models", &known);
                report.value(&place, format!("there is no model `{model}`"), mend);
            } else if chain[..index].iter().filter(always).any(|earlier| earlier.model == *model) {
                report.value(&place, format!("`{model}` is in this chain already"), "keep the first");
            } else if chain[..index].iter().filter(always).any(|earlier| earlier.model == "owner") {
                let message = format!("`{model}` is never asked: the owner always answers");
                report.value(&place, message, "put `owner` at the end");
            }
            if let Some(when) = when {
                conditions().expression(report, &Place::Value(&entry.key("when")), when);
            }
        }
    }
}

/// The model that embeds: there is no next one, so whatever keeps it from being asked is told at once.
fn embeddings(report: &mut Reporter<'_>, models: &Models, currency: Option<&str>) {
    let Some(name) = models.embedding() else { return };
    let path = Path::top().key("embeddings");
    let Some(model) = models.models.get(name) else {
        let known: Vec<&str> =
            std::iter::once(ENCODER).chain(models.models.keys().map(String::as_str)).collect();
        let mend = nearest::mend(name, "the models", &known);
        report.value(&path, format!("there is no model `{name}` that embeds"), mend);
        return;
    };
    if models.providers.get(&model.provider).is_some_and(|provider| !provider.embeddings) {
        let message = format!("`{name}` cannot embed: its provider has `embeddings: false`");
        let mend = format!("name a model of another provider, or `{ENCODER}`, which is built in");
        report.value(&path, message, mend);
    }
    if model.price.is_none() {
        let currency = currency.unwrap_or("USD");
        let message = format!("`{name}` has no price, so nothing could be embedded");
        let mend = format!(
            "add what a million tokens cost to `{name}`: `price: {{ input: 0.00 {currency}, output: 0.00 {currency} }}`"
        );
        report.value(&path, message, mend);
    }
}

/// What the condition of a link may name: `domain::tier::Known::names`.
fn conditions() -> Scope {
    let object = |properties: Value| json!({"type": "object", "additionalProperties": false, "properties": properties});
    let number = json!({"type": "number"});
    let time = json!({"hour": number, "minute": number, "clock": {"type": "string"},
        "weekday": {"type": "string", "enum": WEEKDAYS}});
    Scope {
        names: BTreeMap::from([
            ("budget", object(json!({"left": number}))),
            ("time", object(time)),
            ("input", object(json!({"tokens": number}))),
        ]),
        steps: None,
        hint: "a tier's condition names `budget.left`, `time.hour`, `time.minute`, `time.clock`, \
               `time.weekday` and `input.tokens`",
    }
}
