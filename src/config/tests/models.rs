//! Providers, models and tiers as owners break them.

use super::*;
use crate::config::models::{HeaderText, Models, Tokenizer};
use crate::domain::tier::Link;

const FILE: &str = "config/models.yaml";

fn provider(more: &str) -> Workspace {
    Workspace::sound().but(FILE, "/v1 }", &format!("/v1, {more} }}"))
}

fn model(more: &str) -> Workspace {
    Workspace::sound().but(FILE, "id: qwen,", &format!("id: qwen, {more},"))
}

fn tier(chain: &str) -> Workspace {
    Workspace::sound().but(FILE, "[small, canned, owner]", chain)
}

fn read(workspace: &Workspace) -> Models {
    workspace.load().unwrap_or_else(|problems| panic!("{problems}")).0.models
}

#[test]
fn everything_about_a_provider_can_be_said() {
    let models = read(&provider(
        "headers: { X-Title: Studio, X-Key: \"env:PATH\" }, organization: org-1, project: proj_1, \
         concurrency: 2, per_minute: 60, tokens_per_minute: 90000, timeout: 2m, connect_timeout: 3s, \
         idle_timeout: 20s, json_schema: false, tools: false, embeddings: false, batch: true, stream_usage: false",
    ));
    let home = &models.providers["home"];
    assert_eq!(home.headers["X-Title"], HeaderText::Plain("Studio".into()));
    assert_eq!(home.secrets().count(), 1);
    assert_eq!((home.tokens_per_minute, home.batch, home.tools), (Some(90_000), true, false));
    assert!(!format!("{home:?}").contains("Studio"), "a header may be a secret that was written by mistake");
}

#[test]
fn a_model_counts_as_its_maker_does_unless_it_says_otherwise() {
    let models = read(&model("context: 32768, max_output: 4096, tokens_per_minute: 1000"));
    assert_eq!(models.tokenizer(&models.models["small"]), Tokenizer::Bytes);
    let openai = model("context: 9").but(FILE, "http://localhost:11434/v1", "https://api.openai.com/v1");
    let models = read(&openai);
    assert_eq!(models.tokenizer(&models.models["small"]), Tokenizer::O200k);
    let models = read(&openai.but(FILE, "context: 9", "tokenizer: bytes"));
    assert_eq!(models.tokenizer(&models.models["small"]), Tokenizer::Bytes);
}

#[test]
fn a_limit_of_nothing_would_let_nothing_through() {
    for field in ["concurrency", "per_minute", "tokens_per_minute"] {
        provider(&format!("{field}: 0")).has(
            &format!("config/models.yaml:2:{}", 50 + field.len()),
            "0",
            &format!("with `{field}` at zero nothing could ever be asked"),
            "more than zero",
        );
    }
    model("max_output: 0").has(
        "config/models.yaml:4:50",
        "0",
        "with `max_output` at zero nothing could ever be asked",
        "take the line away",
    );
    model("context: 100, max_output: 101").has(
        "config/models.yaml:4:64",
        "101",
        "`max_output: 101` does not fit into `context: 100`",
        "question and the answer",
    );
}

#[test]
fn a_header_is_one_that_may_be_sent_and_holds_no_secret_in_the_file() {
    provider("headers: { Host: x }").has(
        "config/models.yaml:2:59",
        "Host",
        "every request sets `Host` by itself",
        "take the line away",
    );
    provider("headers: { OpenAI-Project: x }").has(
        "config/models.yaml:2:59",
        "OpenAI-Project",
        "`OpenAI-Project` has a field of its own",
        "write `project: …`",
    );
    provider("headers: { \"a b\": x }").has(
        "config/models.yaml:2:59",
        "\"a b\"",
        "`a b` is no name of a header",
        "X-Title: Steward",
    );
    let workspace = provider("headers: { Api-Key: sk-123 }");
    workspace.has(
        "config/models.yaml:2:68",
        "sk-123",
        "`Api-Key` holds a secret",
        "`env:NAME` or `file:/path`",
    );
    assert!(!workspace.load().unwrap_err().render(false).contains("sk-123"));
    provider("key: \"env:PATH\", headers: { Authorization: \"env:PATH\" }").has(
        "config/models.yaml:2:76",
        "Authorization",
        "both `key` and this header say who asks",
        "keep one of them",
    );
}

#[test]
fn a_secret_in_a_file_that_is_not_there_is_a_warning() {
    let (_, warnings) = provider("key: \"file:/nowhere/key\"").load().unwrap();
    assert_eq!(warnings[0].message, "the file `/nowhere/key` is not there, empty or unreadable");
    let relative = provider("key: \"file:key\"").load().unwrap_err();
    assert!(relative.0[0].mend.contains("`file:/path`"), "{relative}");
}

#[test]
fn a_password_in_an_address_is_refused_without_showing_it() {
    let workspace = Workspace::sound().but(FILE, "http://localhost", "http://me:hunter2@localhost");
    let problems = workspace.load().unwrap_err();
    assert_eq!(problems.0[0].message, "`base_url` holds a password");
    assert!(!problems.render(false).contains("hunter2"));
}

#[test]
fn what_is_cached_costs_no_more_than_what_is_not() {
    let priced = |cached: &str| {
        Workspace::sound().but(FILE, "input: 0.10 USD", &format!("input: 0.10 USD, cached_input: {cached}"))
    };
    assert_eq!(priced("0.01 USD").problems(), []);
    priced("0.11 USD").has(
        "config/models.yaml:4:78",
        "0.11 USD",
        "`0.11 USD` for what is cached is more than `0.10 USD` for what is not",
        "cached_input",
    );
    priced("0.01 EUR").has(
        "config/models.yaml:4:78",
        "0.01 EUR",
        "this price is in EUR, the workspace counts in USD",
        "USD",
    );
}

#[test]
fn a_link_may_have_a_condition_over_money_time_and_size() {
    let workspace = tier("[{ model: small, when: budget.left > 1 and time.hour < 22 }, small, owner]");
    let models = read(&workspace);
    let when = Some("budget.left > 1 and time.hour < 22".to_owned());
    assert_eq!(models.tiers["draft"][0], Link { model: "small".into(), when });
    assert_eq!(models.tiers["draft"][1], Link::to("small"), "without the condition it may come again");
}

#[test]
fn a_condition_is_checked_like_every_other() {
    tier("[{ model: small, when: budget.lef > 1 }, owner]").has(
        "config/models.yaml:6:33",
        "budget.lef",
        "`budget` has no `lef`",
        "`left`",
    );
    tier("[{ model: small, when: time.weekday == 'sonntag' }, owner]").has(
        "config/models.yaml:6:50",
        "sonntag",
        "`time.weekday` is never `sonntag`",
        "sunday",
    );
    tier("[{ model: small, when: steps.a > 1 }, owner]").has(
        "config/models.yaml:6:33",
        "steps.a",
        "there is nothing called `steps` here",
        "`budget.left`",
    );
    tier("[{ model: smal, when: budget.left > 1 }, owner]").has(
        "config/models.yaml:6:20",
        "smal",
        "there is no model `smal`",
        "did you mean `small`?",
    );
    tier("[{ modl: small }, owner]").has(
        "config/models.yaml:6:13",
        "modl",
        "`modl` is not a field of entry 1 of `draft`",
        "did you mean `model`?",
    );
    tier("[3, owner]").has(
        "config/models.yaml:6:11",
        "3",
        "entry 1 of `draft` is a number, not a text or a mapping",
        "",
    );
}

#[test]
fn the_model_that_embeds_is_one_that_can_be_asked() {
    let named = |name: &str| Workspace::sound().but(FILE, "tiers:", &format!("embeddings: {name}\ntiers:"));
    assert_eq!(read(&named("small")).embedding(), Some("small"));
    assert_eq!(read(&named("encoder")).embedding(), None, "it is built in");
    assert_eq!(read(&Workspace::sound()).embedding(), None);
    named("smal").has("config/models.yaml:5:13", "smal", "there is no model `smal` that embeds", "small");
    named("owner").has(
        "config/models.yaml:5:13",
        "owner",
        "there is no model `owner` that embeds",
        "encoder",
    );
    named("small").but(FILE, "/v1 }", "/v1, embeddings: false }").has(
        "config/models.yaml:5:13",
        "small",
        "`small` cannot embed: its provider has `embeddings: false`",
        "or `encoder`, which is built in",
    );
    let price = ", price: { input: 0.10 USD, output: 0.20 USD }";
    named("small").but(FILE, price, "").has(
        "config/models.yaml:5:13",
        "small",
        "`small` has no price, so nothing could be embedded",
        "price: { input: 0.00 USD, output: 0.00 USD }",
    );
    for size in ["0", "4001"] {
        model(&format!("dimensions: {size}")).has(
            "config/models.yaml:4:50",
            size,
            &format!("vectors of {size} coordinates cannot be indexed"),
            "write 1 to 4000",
        );
    }
}
