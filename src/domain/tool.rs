//! What agents may look things up with. The list is closed, and nothing in it writes: a tool that would
//! has no name here, so that no file and no model can ask for one.
//!
//! - [`Tool`]: the tools, with what each takes as JSON Schema;
//! - [`ToolCall`]: one use of one, as the journal keeps it;
//! - [`calc`], [`date`]: the two that need nothing but their arguments.

pub mod calc;
pub mod date;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::digest::Digest;
use crate::domain::label::Label;

/// The most of what a tool gave that the journal keeps, characters; the digest is of all of it.
pub const EXCERPT: usize = 1_000;

/// The longest arguments the journal keeps as they are, bytes of JSON; longer ones become their beginning.
const ARGUMENTS: usize = 2_000;

/// One tool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Tool {
    /// Passages of documents, with citations.
    #[serde(rename = "memory.search")]
    MemorySearch,
    /// One record.
    #[serde(rename = "records.get")]
    RecordsGet,
    /// Records of a kind.
    #[serde(rename = "records.list")]
    RecordsList,
    /// The mails of a thread.
    #[serde(rename = "thread.get")]
    ThreadGet,
    /// A page of an allowed host.
    #[serde(rename = "http.get")]
    HttpGet,
    /// Arithmetic.
    #[serde(rename = "calc")]
    Calc,
    /// Dates, and how far they lie apart.
    #[serde(rename = "date")]
    Date,
}

impl Tool {
    /// Every tool.
    pub const ALL: [Self; 7] = [
        Self::MemorySearch,
        Self::RecordsGet,
        Self::RecordsList,
        Self::ThreadGet,
        Self::HttpGet,
        Self::Calc,
        Self::Date,
    ];

    /// The name in agents' files and in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemorySearch => "memory.search",
            Self::RecordsGet => "records.get",
            Self::RecordsList => "records.list",
            Self::ThreadGet => "thread.get",
            Self::HttpGet => "http.get",
            Self::Calc => "calc",
            Self::Date => "date",
        }
    }

    /// The tool of that name, as it is written in files or as models are told it: the wire takes no dots.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name || tool.name().replace('.', "_") == name)
    }

    /// What a model is told about it.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::MemorySearch => "Find passages in the owner's documents, best first, with citations.",
            Self::RecordsGet => "Read one record by its kind and key; `found` is false when there is none.",
            Self::RecordsList => {
                "List records of a kind in the order of their keys; `next` is the `after` of the next page."
            }
            Self::ThreadGet => "Read the mails of a thread, oldest first, both directions.",
            Self::HttpGet => "Fetch an address with GET. Only hosts that the owner allows are reached.",
            Self::Calc => "Work out arithmetic: numbers, + - * / // % **, parentheses.",
            Self::Date => {
                "The present date and time, or those of `of`; with `plus` moved by a span such as \
                 `3 days` or `-2 weeks`; with `until` also the days in between."
            }
        }
    }

    /// JSON Schema of its arguments.
    #[must_use]
    pub fn arguments(self) -> Value {
        let text = |longest: u32| json!({"type": "string", "minLength": 1, "maxLength": longest});
        let (required, properties) = match self {
            Self::MemorySearch => (
                json!(["query"]),
                json!({"query": text(2_000), "limit": {"type": "integer", "minimum": 1, "maximum": 20}}),
            ),
            Self::RecordsGet => (json!(["kind", "key"]), json!({"kind": text(200), "key": text(1_000)})),
            Self::RecordsList => (
                json!(["kind"]),
                json!({"kind": text(200), "after": {"type": "string", "maxLength": 1_000},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 50}}),
            ),
            Self::ThreadGet => (json!(["thread"]), json!({"thread": text(1_000)})),
            Self::HttpGet => (json!(["url"]), json!({"url": text(8_000)})),
            Self::Calc => (
                json!(["expression"]),
                json!({"expression": text(500), "round": {"type": "integer", "minimum": 0, "maximum": 12}}),
            ),
            Self::Date => (
                json!([]),
                json!({"of": text(100), "plus": text(100), "until": text(100), "zone": text(100)}),
            ),
        };
        json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
    }
}

/// One use of a tool.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ToolCall {
    /// Its name; for one that there is not, the name the model gave.
    pub tool: String,
    /// The model that asked for it.
    pub model: String,
    /// The turn of the conversation in which it was asked for, from 1 on.
    pub turn: u32,
    /// What it was called with; long arguments are cut, and then a text.
    pub arguments: Value,
    /// `ok`, or what went wrong: the model was told the same.
    pub outcome: String,
    /// Where what it gave came from. The agent's output is never more trusted.
    pub label: Label,
    /// SHA-256 of the canonical JSON of what it gave, before anything was cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Digest>,
    /// The beginning of what it gave.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub excerpt: String,
    /// How long it took.
    pub millis: u64,
}

impl ToolCall {
    /// Arguments as the journal keeps them.
    #[must_use]
    pub fn kept(arguments: &Value) -> Value {
        let text = arguments.to_string();
        match text.len() <= ARGUMENTS {
            true => arguments.clone(),
            false => json!(beginning(&text, ARGUMENTS)),
        }
    }
}

/// The first `limit` characters, with a mark where the rest was cut off.
#[must_use]
pub fn beginning(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_one_name_that_both_files_and_the_wire_find_it_by() {
        for tool in Tool::ALL {
            assert_eq!(serde_json::to_value(tool).unwrap(), json!(tool.name()));
            assert_eq!(Tool::parse(tool.name()), Some(tool));
            assert_eq!(Tool::parse(&tool.name().replace('.', "_")), Some(tool));
            assert_eq!(tool.arguments()["additionalProperties"], json!(false));
        }
        for writing in ["records.put", "email.send", "http.request", "http.post", ""] {
            assert_eq!(Tool::parse(writing), None);
        }
    }

    #[test]
    fn long_arguments_are_kept_by_their_beginning() {
        let short = json!({"query": "opening hours"});
        assert_eq!(ToolCall::kept(&short), short);
        let kept = ToolCall::kept(&json!({"query": "é".repeat(5_000)}));
        assert!(kept.as_str().unwrap().ends_with('…') && kept.to_string().len() < 3 * ARGUMENTS);
    }
}
