//! `steward models`: what there is to ask, whether it answers, and letting a paused provider be asked again.

use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Common, Fail, out};

/// `steward models`.
#[derive(clap::Args, Clone, Debug)]
pub struct ModelsArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// List providers and models: prices, limits, who is paused and why
    List,
    /// Ask each model for one token; shows how long it took, or what is wrong
    Test {
        /// This model alone
        model: Option<String>,
    },
    /// Let a paused provider be asked again at once, after you have mended what was wrong
    Reset {
        /// Its name in config/models.yaml
        provider: String,
    },
}

/// Runs the command.
///
/// # Errors
/// See [`Fail`]; a model that does not answer its test is [`Fail::Said`].
pub async fn run(args: ModelsArgs) -> Result<(), Fail> {
    let client = Client::find(&args.common)?;
    let json = args.common.json;
    match args.command.unwrap_or(Command::List) {
        Command::List => list(&client, json).await,
        Command::Test { model } => test(&client, json, model).await,
        Command::Reset { provider } => reset(&client, json, &provider).await,
    }
}

async fn list(client: &Client, json: bool) -> Result<(), Fail> {
    let found = client.get("/api/v1/models", &[]).await?;
    if json {
        return out::json(&found);
    }
    let models = rows(&found["models"], |row| {
        let tiers = row["tiers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let tiers = tiers.chain((row["embeds"] == true).then_some("(embeddings)"));
        vec![
            text(row, "model"),
            text(row, "provider"),
            price(&row["price"]),
            limits(row),
            tiers.collect::<Vec<_>>().join(", "),
        ]
    });
    let providers = rows(&found["providers"], |row| {
        let until =
            row["until"].as_str().map(|at| format!("until {}: ", out::moment(at))).unwrap_or_default();
        let busy = format!("{}/{}", row["under_way"], row["concurrency"]);
        let why = format!("{until}{}", text(row, "why"));
        vec![text(row, "provider"), text(row, "state"), busy, row["waiting"].to_string(), limits(row), why]
    });
    if providers.is_empty() {
        return out::line("no providers: the encoder sorts, canned outputs draft, you decide");
    }
    let head = ["MODEL", "PROVIDER", "PRICE PER MILLION (IN/CACHED/OUT)", "LIMITS", "TIERS"];
    out::line(&out::table(&head, &models, out::width()))?;
    let head = ["PROVIDER", "STATE", "UNDER WAY", "WAITING", "LIMITS", "WHY"];
    out::line(&format!("\n{}", out::table(&head, &providers, out::width())))
}

async fn test(client: &Client, json: bool, model: Option<String>) -> Result<(), Fail> {
    out::note("asking each model for one token…");
    let mut path = "/api/v1/models/test".to_owned();
    if let Some(model) = &model {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("model", model).finish();
        path = format!("{path}?{query}");
    }
    let reply = client.post(&path, &json!({}), None).await?.body;
    let failed = reply["tested"].as_array().into_iter().flatten().any(|row| row["ok"] != true);
    if json {
        out::json(&reply)?;
    } else {
        let tested = rows(&reply["tested"], |row| {
            let tokens = format!("{}+{}", row["input_tokens"], row["output_tokens"]);
            let took = format!("{} ms", row["millis"]);
            let by = text(row, "answered_by");
            vec![text(row, "model"), text(row, "provider"), took, tokens, by, text(row, "outcome")]
        });
        let head = ["MODEL", "PROVIDER", "TOOK", "TOKENS", "ANSWERED BY", "OUTCOME"];
        match tested.is_empty() {
            true => out::line("config/models.yaml has no models")?,
            false => out::line(&out::table(&head, &tested, out::width()))?,
        }
    }
    if failed { Err(Fail::Said) } else { Ok(()) }
}

async fn reset(client: &Client, json: bool, provider: &str) -> Result<(), Fail> {
    let mut name = url::form_urlencoded::byte_serialize(provider.as_bytes()).collect::<String>();
    name = name.replace('+', "%20"); // a path, not a form
    let reply = client.post(&format!("/api/v1/models/providers/{name}/reset"), &json!({}), None).await?.body;
    match (json, reply["was_paused"] == true) {
        (true, _) => out::json(&reply),
        (false, true) => out::line(&format!("{} is asked again", out::plain(provider))),
        (false, false) => out::line(&format!("{} was not paused", out::plain(provider))),
    }
}

fn price(price: &Value) -> String {
    let Some(input) = price["input"].as_str() else { return "–".to_owned() };
    let (output, cached) = (price["output"].as_str().unwrap_or("–"), price["cached_input"].as_str());
    let number =
        |money: &str| money.split_once(' ').map_or(money.to_owned(), |(number, _)| number.to_owned());
    let cached = cached.map_or("–".to_owned(), number);
    format!("{} / {cached} / {output}", number(input))
}

fn limits(row: &Value) -> String {
    let part = |name: &str, unit: &str| row[name].as_u64().map(|most| format!("{most} {unit}/min"));
    let parts = [part("per_minute", "calls"), part("tokens_per_minute", "tokens")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    list.as_array().into_iter().flatten().map(row).collect()
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}
