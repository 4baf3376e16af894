//! The few pieces of Block Kit that messages are made of. Every text in them is plain or rich text, which
//! Slack does not read for markup: no mention, link or format can come from a value.

use serde_json::{Value, json};

use crate::domain::text::visible;
use crate::reviews::slack::limits;
use crate::reviews::slack::text::{cut, line, short};

/// A text that Slack does not read.
#[must_use]
pub fn plain(text: &str, most: usize) -> Value {
    json!({"type": "plain_text", "text": something(&short(&line(text), most)), "emoji": false})
}

/// Slack takes no empty text.
fn something(text: &str) -> &str {
    match text.trim().is_empty() {
        true => "(empty)",
        false => text,
    }
}

/// A headline.
#[must_use]
pub fn header(text: &str) -> Value {
    json!({"type": "header", "text": plain(text, limits::HEADER)})
}

/// Words within a rich text.
#[must_use]
pub fn words(text: &str) -> Value {
    json!({"type": "text", "text": something(text)})
}

/// Words that stand out.
#[must_use]
pub fn bold(text: &str) -> Value {
    json!({"type": "text", "text": something(text), "style": {"bold": true}})
}

/// A link of our own. Addresses from outside are shown as text alone.
#[must_use]
pub fn link(url: &str, text: &str) -> Value {
    json!({"type": "link", "url": url, "text": text})
}

/// A paragraph.
#[must_use]
pub fn section(elements: Vec<Value>) -> Value {
    json!({"type": "rich_text_section", "elements": elements})
}

/// One point per line, of at most `most` bytes each.
#[must_use]
pub fn bullets<'a>(lines: impl Iterator<Item = &'a str>, most: usize) -> Value {
    let points: Vec<Value> = lines.map(|it| section(vec![words(&bounded(&line(it), most))])).collect();
    json!({"type": "rich_text_list", "style": "bullet", "elements": points})
}

/// A value from outside, character by character.
#[must_use]
pub fn preformatted(text: &str) -> Value {
    json!({"type": "rich_text_preformatted", "elements": [words(text)]})
}

/// A block of rich text.
#[must_use]
pub fn rich(elements: Vec<Value>) -> Value {
    json!({"type": "rich_text", "elements": elements})
}

/// Small print.
#[must_use]
pub fn context(lines: &[String]) -> Value {
    let lines: Vec<Value> =
        lines.iter().take(limits::CONTEXT).map(|line| plain(line, limits::HEADER)).collect();
    json!({"type": "context", "elements": lines})
}

/// A row of buttons.
#[must_use]
pub fn actions(buttons: Vec<Value>) -> Value {
    json!({"type": "actions", "elements": buttons.into_iter().take(limits::ACTIONS).collect::<Vec<_>>()})
}

/// A button. Its value is an opaque handle, never what it is about.
#[must_use]
pub fn button(action: &str, text: &str, value: &str, style: Option<&str>) -> Value {
    let mut button = json!({
        "type": "button", "action_id": action, "value": value,
        "text": plain(&bounded(&line(text), limits::BUTTON), limits::BUTTON),
    });
    if let Some(style) = style {
        button["style"] = json!(style);
    }
    button
}

/// A menu behind three dots. Like a button's, the values of its options are opaque.
#[must_use]
pub fn menu(action: &str, options: impl Iterator<Item = (String, &'static str)>) -> Value {
    let options = options
        .take(limits::MENU)
        .map(|(value, says)| json!({"text": plain(says, limits::BUTTON), "value": value}));
    json!({"type": "overflow", "action_id": action, "options": options.collect::<Vec<_>>()})
}

/// A button that opens a page of Steward's.
#[must_use]
pub fn link_button(url: &str, text: &str) -> Value {
    json!({"type": "button", "action_id": "open", "url": url, "text": plain(text, limits::BUTTON)})
}

/// Makes a button ask back before it counts.
#[must_use]
pub fn confirmed(mut button: Value, title: &str, text: &str, yes: &str) -> Value {
    button["confirm"] = json!({
        "title": plain(title, limits::CONFIRM_TITLE),
        "text": plain(text, limits::CONFIRM_TEXT),
        "confirm": plain(yes, limits::CONFIRM_BUTTON),
        "deny": plain("Not yet", limits::CONFIRM_BUTTON),
        "style": "danger",
    });
    button
}

/// At most `most` bytes of a text in JSON, with an ellipsis when there are more.
#[must_use]
pub fn bounded(text: &str, most: usize) -> String {
    let text = visible(text);
    match cut(&text, most) {
        (_, 0) => text,
        _ => format!("{}…", cut(&text, most.saturating_sub(3)).0),
    }
}

/// What blocks weigh against [`limits::WHOLE`]: their JSON, entities written out.
#[must_use]
pub fn weight(blocks: &[Value]) -> usize {
    let json = serde_json::to_string(blocks).unwrap_or_default();
    json.len() + 4 * json.bytes().filter(|byte| b"&<>".contains(byte)).count()
}
