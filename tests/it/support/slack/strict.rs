//! What Slack refuses: the published limits and required fields, written down a second time, apart from
//! the product's own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Slack's word for a refusal, and what is wrong.
pub type Refusal = (&'static str, String);

type Checked = Result<(), Refusal>;

fn wrong(why: impl Into<String>) -> Checked {
    Err(("invalid_blocks", why.into()))
}

fn length(what: &str, text: &str, from: usize, to: usize) -> Checked {
    let length = text.chars().count();
    match (from..=to).contains(&length) {
        true => Ok(()),
        false => wrong(format!("{what} has {length} characters, not {from} to {to}")),
    }
}

/// The fields of an object: these must be there, those may be, no other.
fn fields<'a>(
    what: &str,
    value: &'a Value,
    must: &[&str],
    may: &[&str],
) -> Result<&'a Map<String, Value>, Refusal> {
    let bad = |why: String| ("invalid_blocks", why);
    let map = value.as_object().ok_or_else(|| bad(format!("{what} is no object: {value}")))?;
    if let Some(name) = must.iter().find(|name| !map.contains_key(**name)) {
        return Err(bad(format!("{what} has no {name}: {value}")));
    }
    match map.keys().find(|name| !must.contains(&name.as_str()) && !may.contains(&name.as_str())) {
        Some(name) => Err(bad(format!("{what} has a {name}"))),
        None => Ok(map),
    }
}

fn string<'a>(what: &str, value: &'a Value) -> Result<&'a str, Refusal> {
    value.as_str().ok_or_else(|| ("invalid_blocks", format!("{what} is no text: {value}")))
}

fn list<'a>(what: &str, value: &'a Value, to: usize) -> Result<&'a Vec<Value>, Refusal> {
    let list = value.as_array().ok_or_else(|| ("invalid_blocks", format!("{what} is no list")))?;
    match (1..=to).contains(&list.len()) {
        true => Ok(list),
        false => Err(("invalid_blocks", format!("{what} has {} elements, not 1 to {to}", list.len()))),
    }
}

/// The arguments of `chat.postMessage`, `chat.update` and `chat.postEphemeral`.
pub fn message(body: &Value, must: &[&str]) -> Checked {
    let may = [
        "blocks",
        "metadata",
        "unfurl_links",
        "unfurl_media",
        "link_names",
        "parse",
        "mrkdwn",
        "thread_ts",
        "reply_broadcast",
        "text",
    ];
    let map = fields("the message", body, must, &may)?;
    for name in must {
        length(name, string(name, &map[*name])?, 1, 40_000)?;
    }
    let text = map.get("text").and_then(Value::as_str).unwrap_or_default();
    if text.is_empty() {
        return Err(("no_text", "there is no text".into()));
    }
    length("text", text, 1, 4000)?;
    if let Some(metadata) = map.get("metadata") {
        let metadata = fields("metadata", metadata, &["event_type", "event_payload"], &[])?;
        if !metadata["event_type"].is_string() || !metadata["event_payload"].is_object() {
            return Err(("invalid_metadata_format", metadata["event_type"].to_string()));
        }
    }
    let blocks = map.get("blocks").ok_or(("no_text", "there are no blocks".to_owned()))?;
    // Not published; from about there on Slack refuses (slackapi/bolt-js issue 2509).
    let size = blocks.to_string().len();
    if size > 13_100 {
        return Err(("msg_blocks_too_long", format!("the blocks have {size} bytes")));
    }
    self::blocks(blocks, 50, false)
}

/// A list of blocks.
pub fn blocks(blocks: &Value, most: usize, in_view: bool) -> Checked {
    let mut ids = BTreeSet::new();
    for block in list("blocks", blocks, most)? {
        if let Some(id) = block.get("block_id") {
            let id = string("block_id", id)?;
            length("block_id", id, 1, 255)?;
            if !ids.insert(id) {
                return wrong(format!("two blocks are called {id}"));
            }
        }
        match (block["type"].as_str().unwrap_or_default(), in_view) {
            ("header", _) => {
                let map = fields("header", block, &["type", "text"], &["block_id"])?;
                plain(&map["text"], 150)?;
            }
            ("context", _) => {
                let map = fields("context", block, &["type", "elements"], &["block_id"])?;
                list("context", &map["elements"], 10)?.iter().try_for_each(|it| plain(it, 3000))?;
            }
            ("rich_text", _) => {
                let map = fields("rich_text", block, &["type", "elements"], &["block_id"])?;
                list("rich_text", &map["elements"], 1000)?.iter().try_for_each(rich)?;
            }
            ("actions", false) => actions(block)?,
            ("input", true) => input(block)?,
            (other, _) => return wrong(format!("there is no {other} here")),
        }
    }
    Ok(())
}

/// Nothing that Slack reads for markup is ever needed.
fn plain(value: &Value, most: usize) -> Checked {
    let map = fields("a text", value, &["type", "text"], &["emoji"])?;
    if map["type"] != "plain_text" {
        return wrong(format!("{} is read for markup", map["type"]));
    }
    length("a text", string("a text", &map["text"])?, 1, most)
}

fn rich(element: &Value) -> Checked {
    match element["type"].as_str().unwrap_or_default() {
        "rich_text_list" => {
            let map = fields("a list", element, &["type", "style", "elements"], &[])?;
            if map["style"] != "bullet" && map["style"] != "ordered" {
                return wrong("a list without style");
            }
            list("a list", &map["elements"], 1000)?.iter().try_for_each(|point| {
                match point["type"] == "rich_text_section" {
                    true => rich(point),
                    false => wrong("a point is a section"),
                }
            })
        }
        "rich_text_section" | "rich_text_preformatted" => {
            let map = fields("a section", element, &["type", "elements"], &[])?;
            list("a section", &map["elements"], 1000)?.iter().try_for_each(|word| {
                match word["type"].as_str().unwrap_or_default() {
                    "text" => {
                        let map = fields("words", word, &["type", "text"], &["style"])?;
                        length("words", string("words", &map["text"])?, 1, 12_000)
                    }
                    "link" => {
                        let map = fields("a link", word, &["type", "url"], &["text", "style"])?;
                        url(&map["url"])
                    }
                    other => wrong(format!("there is no {other} in a rich text of ours")),
                }
            })
        }
        other => wrong(format!("{other} is no rich text")),
    }
}

fn url(value: &Value) -> Checked {
    let text = string("an address", value)?;
    length("an address", text, 1, 3000)?;
    match text.parse::<reqwest::Url>().is_ok_and(|url| ["http", "https"].contains(&url.scheme())) {
        true => Ok(()),
        false => wrong(format!("{text} is no address")),
    }
}

fn actions(block: &Value) -> Checked {
    let map = fields("actions", block, &["type", "elements"], &["block_id"])?;
    let mut ids = BTreeSet::new();
    for button in list("actions", &map["elements"], 25)? {
        if button["type"] == "overflow" {
            let map = fields("an overflow menu", button, &["type", "action_id", "options"], &["confirm"])?;
            let id = string("action_id", &map["action_id"])?;
            length("action_id", id, 1, 255)?;
            if !ids.insert(id) {
                return wrong(format!("two elements are called {id}"));
            }
            list("options", &map["options"], 5)?.iter().try_for_each(option)?;
            continue;
        }
        let map = fields(
            "a button",
            button,
            &["type", "text", "action_id"],
            &["value", "url", "style", "confirm"],
        )?;
        if map["type"] != "button" {
            return wrong(format!("{} is no button", map["type"]));
        }
        plain(&map["text"], 75)?;
        let id = string("action_id", &map["action_id"])?;
        length("action_id", id, 1, 255)?;
        if !ids.insert(id) {
            return wrong(format!("two buttons are called {id}"));
        }
        if let Some(value) = map.get("value") {
            length("a value", string("a value", value)?, 1, 2000)?;
        }
        map.get("url").map_or(Ok(()), url)?;
        if let Some(style) = map.get("style").filter(|style| **style != "primary" && **style != "danger") {
            return wrong(format!("there is no style {style}"));
        }
        let Some(confirm) = map.get("confirm") else { continue };
        let map = fields("confirm", confirm, &["title", "text", "confirm", "deny"], &["style"])?;
        for (name, most) in [("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)] {
            plain(&map[name], most)?;
        }
    }
    Ok(())
}

fn input(block: &Value) -> Checked {
    let map = fields("input", block, &["type", "label", "element"], &["block_id", "optional", "hint"])?;
    plain(&map["label"], 2000)?;
    let element = &map["element"];
    match element["type"].as_str().unwrap_or_default() {
        "plain_text_input" => {
            let may = ["initial_value", "multiline", "max_length", "min_length", "placeholder"];
            let map = fields("an input", element, &["type", "action_id"], &may)?;
            let most = map.get("max_length").and_then(Value::as_u64).unwrap_or(3000);
            if !(1..=3000).contains(&most) {
                return wrong(format!("an input takes {most} characters"));
            }
            let value = map.get("initial_value").map_or(Ok("x"), |value| string("initial_value", value))?;
            length("initial_value", value, 1, usize::try_from(most).unwrap())
        }
        "static_select" => {
            let map = fields(
                "a menu",
                element,
                &["type", "action_id", "options"],
                &["placeholder", "initial_option"],
            )?;
            list("options", &map["options"], 100)?.iter().try_for_each(option)
        }
        other => wrong(format!("{other} is no input")),
    }
}

fn option(option: &Value) -> Checked {
    let map = fields("an option", option, &["text", "value"], &["description"])?;
    plain(&map["text"], 75)?;
    length("an option's value", string("an option's value", &map["value"])?, 1, 150)
}

/// A modal.
pub fn view(view: &Value) -> Checked {
    let may = ["submit", "close", "callback_id", "private_metadata", "clear_on_close", "notify_on_close"];
    let map = fields("the view", view, &["type", "title", "blocks"], &may)?;
    if map["type"] != "modal" {
        return wrong("it is no modal");
    }
    for name in ["title", "submit", "close"] {
        map.get(name).map_or(Ok(()), |text| plain(text, 24))?;
    }
    for (name, most) in [("callback_id", 255), ("private_metadata", 3000)] {
        map.get(name).map_or(Ok(()), |text| length(name, string(name, text)?, 0, most))?;
    }
    let asks = map["blocks"].as_array().is_some_and(|all| all.iter().any(|block| block["type"] == "input"));
    if asks && !map.contains_key("submit") {
        return wrong("a modal with inputs has a button to submit");
    }
    blocks(&map["blocks"], 100, true)
}

/// Every string in a value.
pub fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().flat_map(strings).collect(),
        Value::Object(map) => map.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}
