//! An answer that comes in pieces: server-sent events (WHATWG HTML, section 9.2.6), put together again into
//! the one completion they are pieces of. Tolerant like [`crate::models::wire`], but in one thing: an answer
//! that does not come to its end is none.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::models::error::{Kind, ModelError};
use crate::models::openai::{MAX_BODY, broken};
use crate::models::witness::Hear;

/// Cuts a stream of bytes into the data of its events. Names, ids and comments are passed over.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// The last byte was a carriage return: a line feed right after it ends no further line.
    returned: bool,
}

impl Events {
    /// Reads on; whole events are added to `found`.
    fn feed(&mut self, bytes: &[u8], found: &mut Vec<String>) {
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => self.end_line(found),
                byte => self.line.push(*byte),
            }
        }
    }

    fn end_line(&mut self, found: &mut Vec<String>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = self.data.take().map(|data| String::from_utf8_lossy(&data).into_owned());
            found.extend(data);
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => self.data = Some(value.to_vec()),
            }
        }
    }

    /// The last event of a stream that ends without its blank line.
    fn end(mut self, found: &mut Vec<String>) {
        self.end_line(found);
        self.end_line(found);
    }

    fn held(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, Vec::len)
    }
}

/// What the pieces so far make.
#[derive(Default)]
struct Pieces {
    content: String,
    refusal: String,
    /// Id, name and arguments of each tool call, by its number.
    calls: BTreeMap<u64, (String, String, String)>,
    finish: Value,
    model: Value,
    usage: Value,
    error: Value,
    done: bool,
}

impl Pieces {
    /// Adds the data of one event; gives what it adds to the answer's text.
    fn add(&mut self, data: &str) -> Result<String, ModelError> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(String::new());
        }
        let Ok(piece) = serde_json::from_str::<Value>(data) else {
            return Err(
                ModelError::new(Kind::Unavailable, "a piece of the provider's answer is not JSON").billed()
            );
        };
        for (name, kept) in
            [("model", &mut self.model), ("usage", &mut self.usage), ("error", &mut self.error)]
        {
            keep(&piece[name], kept);
        }
        let choice = &piece["choices"][0];
        keep(&choice["finish_reason"], &mut self.finish);
        // Some send the last piece as a whole message.
        let delta = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        let text = delta["content"].as_str().unwrap_or_default();
        self.content.push_str(text);
        self.refusal.push_str(delta["refusal"].as_str().unwrap_or_default());
        for (at, call) in (0u64..).zip(delta["tool_calls"].as_array().into_iter().flatten()) {
            let (id, name, arguments) = self.calls.entry(call["index"].as_u64().unwrap_or(at)).or_default();
            let function = &call["function"];
            id.push_str(call["id"].as_str().filter(|_| id.is_empty()).unwrap_or_default());
            name.push_str(function["name"].as_str().filter(|_| name.is_empty()).unwrap_or_default());
            match &function["arguments"] {
                Value::Null => {}
                Value::String(text) => arguments.push_str(text),
                whole => *arguments = whole.to_string(),
            }
        }
        Ok(text.to_owned())
    }

    fn held(&self) -> usize {
        let calls = self.calls.values().map(|(id, name, arguments)| id.len() + name.len() + arguments.len());
        self.content.len() + self.refusal.len() + calls.sum::<usize>()
    }

    /// The completion, if it came to its end: the last piece says why the model stopped, or that it is the last.
    fn whole(self) -> Result<Value, ModelError> {
        if self.finish.is_null() && !self.done && self.error.is_null() {
            return Err(ModelError::new(Kind::Unavailable, "its answer broke off in the middle").billed());
        }
        let mut message = Map::new();
        message.insert("content".into(), json!(self.content));
        if !self.refusal.is_empty() {
            message.insert("refusal".into(), json!(self.refusal));
        }
        if !self.calls.is_empty() {
            let call = |(id, name, arguments): (String, String, String)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
            message.insert("tool_calls".into(), self.calls.into_values().map(call).collect());
        }
        let mut whole = json!({"choices": [{"message": message, "finish_reason": self.finish}]});
        for (name, value) in [("model", self.model), ("usage", self.usage), ("error", self.error)] {
            if !value.is_null() {
                whole[name] = value;
            }
        }
        Ok(whole)
    }
}

/// What a later piece says counts, unless it says nothing.
fn keep(said: &Value, kept: &mut Value) {
    if !said.is_null() {
        *kept = said.clone();
    }
}

/// Reads a streamed answer to its end, telling its text as it comes; gives the completion as JSON. What is
/// kept of it is bounded like an answer that comes whole; how long it may take is the caller's to bound.
pub(crate) async fn assemble(
    mut response: reqwest::Response,
    hear: Option<&Hear>,
) -> Result<Vec<u8>, ModelError> {
    let (mut events, mut pieces, mut found) = (Events::default(), Pieces::default(), Vec::new());
    while !pieces.done {
        let chunk = response.chunk().await.map_err(|error| broken(&error))?;
        match &chunk {
            Some(chunk) => events.feed(chunk, &mut found),
            None => std::mem::take(&mut events).end(&mut found),
        }
        for data in found.drain(..) {
            let text = pieces.add(&data)?;
            if let Some(hear) = hear.filter(|_| !text.is_empty()) {
                hear.tell(&text);
            }
        }
        if events.held() + pieces.held() > MAX_BODY {
            return Err(
                ModelError::new(Kind::Rejected, "the provider's answer is longer than 2 MiB").billed()
            );
        }
        if chunk.is_none() {
            break;
        }
    }
    Ok(pieces.whole()?.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for chunk in chunks {
            events.feed(chunk, &mut found);
        }
        events.end(&mut found);
        found
    }

    #[test]
    fn events_are_found_whatever_ends_their_lines_and_comments_are_passed_over() {
        let text =
            ": keep-alive\n\nevent: x\r\ndata: one\r\n\r\nid: 7\rdata:two\rdata: lines\r\rdata\n\ndata: last";
        assert_eq!(events(&[text.as_bytes()]), ["one", "two\nlines", "last"]);
    }

    #[test]
    fn pieces_of_text_and_of_tool_calls_make_one_completion() {
        let mut pieces = Pieces::default();
        for piece in [
            json!({"model": "m", "choices": [{"delta": {"role": "assistant", "content": null}}]}),
            json!({"choices": [{"delta": {"content": "{\"a\""}}], "usage": null}),
            json!({"choices": [{"delta": {"tool_calls": [
                {"index": 0, "id": "x", "function": {"name": "calc", "arguments": ""}}]}}]}),
            json!({"choices": [{"delta": {"content": ": 1}", "tool_calls": [
                {"index": 0, "function": {"arguments": "{\"expres"}}]}}]}),
            json!({"choices": [{"delta": {"tool_calls": [
                {"index": 0, "function": {"arguments": "sion\": \"1\"}"}},
                {"index": 1, "id": "y", "function": {"name": "date", "arguments": {}}}]}}]}),
            json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
            json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        ] {
            pieces.add(&piece.to_string()).unwrap();
        }
        let whole = pieces.whole().unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], json!("{\"a\": 1}"));
        let calls = &whole["choices"][0]["message"]["tool_calls"];
        assert_eq!(calls[0]["function"], json!({"name": "calc", "arguments": "{\"expression\": \"1\"}"}));
        assert_eq!((&calls[1]["id"], &calls[1]["function"]["arguments"]), (&json!("y"), &json!("{}")));
        assert_eq!((&whole["usage"]["prompt_tokens"], &whole["model"]), (&json!(7), &json!("m")));
    }

    #[test]
    fn what_does_not_come_to_its_end_is_no_answer() {
        let mut pieces = Pieces::default();
        pieces.add(r#"{"choices": [{"delta": {"content": "{\"class\": \"lead\"}"}}]}"#).unwrap();
        assert_eq!(pieces.whole().unwrap_err().kind, Kind::Unavailable);
        assert_eq!(Pieces::default().add("{half").unwrap_err().kind, Kind::Unavailable);
        let mut failed = Pieces::default();
        failed.add(r#"{"error": {"message": "overloaded", "code": 503}}"#).unwrap();
        assert_eq!(failed.whole().unwrap()["error"]["code"], json!(503));
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_into_chunks_changes_nothing(
            text in "(data: ?[a-zé]{0,6}|: [a-z]{0,3}|)((\r\n|\n|\r)(data: ?[a-zé]{0,6}|))*", at in 0usize..64,
        ) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            prop_assert_eq!(events(&[bytes]), events(&[&bytes[..at], &bytes[at..]]));
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(events(&[bytes]), events(&single));
        }

        #[test]
        fn no_piece_breaks_the_reading(piece in r#"[{}":a-z,\[\]0-9]{0,60}"#) {
            let mut pieces = Pieces::default();
            let _ = pieces.add(&piece);
            let _ = pieces.whole();
        }
    }
}
