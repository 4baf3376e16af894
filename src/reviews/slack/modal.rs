//! Modals: editing a draft, saying why not, answering a form, leaving a question alone, saying something to
//! it, giving its draft back; and what to read from them when they come
//! back. A modal carries the same opaque handle as a button does; its inputs are named by their numbers.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::reviews::slack::blocks::{Handle, Look, choice, editable};
use crate::reviews::slack::form::{Field, Takes};
use crate::reviews::slack::kit::{bounded, link, plain, rich, section, words};
use crate::reviews::slack::limits;
use crate::reviews::slack::text::line;
use crate::reviews::snooze::Offer;
use crate::store::reviews::ReviewRow;

/// What is written into an input.
const INPUT_ACTION: &str = "in";

/// A label, bytes.
const LABEL: usize = 150;

/// The inputs' blocks, by number.
#[must_use]
pub fn block(number: usize) -> String {
    format!("i{number}")
}

/// Edits the texts of an action. What is too long for an input is edited on the web page.
#[must_use]
pub fn edit(review: &ReviewRow, look: &Look) -> Value {
    let mut blocks: Vec<Value> = editable(review)
        .enumerate()
        .map(|(n, (name, text))| {
            let mut element = prose();
            if !text.is_empty() {
                element["initial_value"] = json!(text);
            }
            input(n, name, element, true)
        })
        .collect();
    blocks.push(elsewhere(review, look, "Longer texts and everything else are edited on the "));
    view("edit", "Edit and approve", "Do this", review, blocks)
}

/// Asks why not.
#[must_use]
pub fn reject(review: &ReviewRow) -> Value {
    let why = input(0, "Why not? It is kept in the journal.", prose(), true);
    view("reject", "Reject", "Reject", review, vec![why])
}

/// Asks what is to be said to a review.
#[must_use]
pub fn comment(review: &ReviewRow) -> Value {
    let what = input(0, "Your comment is kept with it, and decides nothing.", prose(), false);
    view("comment", "Comment", "Keep it", review, vec![what])
}

/// Asks what the next draft is to heed.
#[must_use]
pub fn respond(review: &ReviewRow) -> Value {
    let what = input(0, "What shall be different? The new draft is asked about anew.", prose(), false);
    view("respond", "Another draft", "Give it back", review, vec![what])
}

/// Asks until when a review is to be left alone. What is chosen counts from `now` on, whenever it comes back.
#[must_use]
pub fn snooze(review: &ReviewRow, offers: &[Offer], now: Timestamp, look: &Look) -> Value {
    let options = offers.iter().map(|offer| {
        let says = format!("{} ({})", offer.says, look.moment(offer.until));
        (offer.word.to_owned(), bounded(&says, limits::BUTTON))
    });
    let until = input(0, "You are told of it again then; its deadline stays.", select(options), false);
    view(&format!("snooze.{}", now.as_second()), "Not now", "Leave me alone", review, vec![until])
}

/// Asks for an answer.
#[must_use]
pub fn answer(review: &ReviewRow, fields: &[Field], look: &Look) -> Value {
    let mut blocks: Vec<Value> = fields
        .iter()
        .enumerate()
        .map(|(n, field)| {
            let element = match &field.takes {
                Takes::Text => prose(),
                Takes::Number => json!({"type": "plain_text_input", "action_id": INPUT_ACTION,
                    "max_length": 30}),
                Takes::Choice(values) => {
                    let choices = values.iter().map(|value| bounded(&choice(value), limits::BUTTON));
                    select(choices.enumerate().map(|(n, says)| (n.to_string(), says)))
                }
            };
            input(n, &field.label, element, field.optional || field.takes == Takes::Text)
        })
        .collect();
    blocks.push(elsewhere(review, look, "What it is about stands on the "));
    view("answer", "Answer", "Answer", review, blocks)
}

/// Says something, and nothing can be done about it.
#[must_use]
pub fn says(text: &str) -> Value {
    json!({
        "type": "modal", "title": plain("Steward", limits::VIEW_TITLE), "close": plain("Close", limits::VIEW_TITLE),
        "blocks": [rich(vec![section(vec![words(&bounded(text, limits::SHOWN))])])],
    })
}

fn view(callback: &str, title: &str, submit: &str, review: &ReviewRow, blocks: Vec<Value>) -> Value {
    json!({
        "type": "modal", "callback_id": callback, "private_metadata": Handle::of(review).to_string(),
        "title": plain(title, limits::VIEW_TITLE), "submit": plain(submit, limits::VIEW_TITLE),
        "close": plain("Not yet", limits::VIEW_TITLE), "blocks": blocks,
    })
}

fn input(number: usize, label: &str, element: Value, optional: bool) -> Value {
    json!({
        "type": "input", "block_id": block(number), "optional": optional, "element": element,
        "label": plain(&bounded(&line(label), LABEL), limits::LABEL),
    })
}

/// Takes any text.
fn prose() -> Value {
    json!({"type": "plain_text_input", "action_id": INPUT_ACTION, "multiline": true, "max_length": limits::INPUT})
}

/// Takes one of these: what comes back, and what is read.
fn select(options: impl Iterator<Item = (String, String)>) -> Value {
    let options = options.map(|(value, says)| json!({"text": plain(&says, limits::BUTTON), "value": value}));
    json!({"type": "static_select", "action_id": INPUT_ACTION, "options": options.collect::<Vec<_>>()})
}

fn elsewhere(review: &ReviewRow, look: &Look, words_before: &str) -> Value {
    rich(vec![section(vec![words(words_before), link(&look.review(review.id), "web page")])])
}

/// What stands in the inputs of a modal that was submitted, by number; `None` for one that is empty.
#[must_use]
pub fn given(state: &Value, number: usize) -> Option<String> {
    let input = state.get("values")?.get(block(number))?.get(INPUT_ACTION)?;
    let text = input.get("value").or_else(|| input.get("selected_option")?.get("value"))?;
    text.as_str().map(str::to_owned)
}
