//! `steward runs watch`: a run as it happens, from `GET /api/v1/runs/{id}/events`. A connection that breaks is
//! taken up again behind the last entry that was seen.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::client::Client;
use crate::cli::{Fail, out, render};

/// Connections in a row that bring nothing before nobody is believed to be there any more.
const IN_VAIN: u32 = 5;

/// The pause before the next one.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows a run to its end; with `lines`, each event as a line of JSON.
///
/// # Errors
/// See [`Fail`]; [`Fail::Said`] when the run ended otherwise than well.
pub async fn watch(client: &Client, run: &str, lines: bool) -> Result<(), Fail> {
    let path = format!("/api/v1/runs/{run}/events");
    let mut screen = Screen { lines, ..Screen::default() };
    let mut in_vain = 0;
    while !screen.ended {
        let before = screen.events;
        let told = client.events(&path, screen.last.clone().as_deref(), |event| screen.show(&event)).await;
        in_vain = if screen.events > before { 0 } else { in_vain + 1 };
        match told {
            Err(Fail::Unreachable(_)) | Ok(()) if in_vain < IN_VAIN => {}
            Ok(()) => return Err(Fail::Unreachable("nobody tells of this run any more".to_owned())),
            Err(fail) => return Err(fail),
        }
        if !screen.ended {
            tokio::time::sleep(PAUSE).await;
        }
    }
    match screen.outcome.as_deref() {
        Some("succeeded") | None => Ok(()),
        Some(_) => Err(Fail::Said),
    }
}

/// One server-sent event.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Event {
    /// `entry`, `draft` or `end`.
    pub name: String,
    /// The number of an entry.
    pub id: Option<String>,
    /// What it says.
    pub data: Value,
}

/// Puts server-sent events together from whatever pieces they come in (WHATWG HTML, section 9.2.6), as far as
/// Steward sends them.
#[derive(Default)]
pub struct Events {
    rest: Vec<u8>,
    name: String,
    id: Option<String>,
    data: String,
}

impl Events {
    /// The events that this piece completes.
    pub fn add(&mut self, piece: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(piece);
        let mut whole = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            whole.extend(self.line(line.trim_end_matches(['\r', '\n'])));
        }
        whole
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let id = self.id.take();
            let data = serde_json::from_str(&data).ok()?; // a comment keeps the connection alive
            return Some(Event { name, id, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data.push_str(value),
            _ => {}
        }
        None
    }
}

/// What is on the screen.
#[derive(Default)]
struct Screen {
    lines: bool,
    /// How many events came.
    events: u64,
    /// The number of the last entry.
    last: Option<String>,
    /// The draft that stands on the line that is being written: whose it is, and how far it has come.
    draft: Option<(Value, u64)>,
    outcome: Option<String>,
    ended: bool,
}

impl Screen {
    fn show(&mut self, event: &Event) -> Result<(), Fail> {
        self.events += 1;
        if event.name == "entry" {
            self.last.clone_from(&event.id);
            match event.data["kind"].as_str() {
                Some("run.finished") => {
                    self.outcome = event.data["data"]["outcome"].as_str().map(str::to_owned);
                }
                Some("run.reopened") => self.outcome = None,
                _ => {}
            }
        }
        self.ended = event.name == "end";
        if self.lines {
            return out::line(&json!({"event": event.name, "id": event.id, "data": event.data}).to_string());
        }
        match event.name.as_str() {
            "draft" => out::piece(&self.drafted(&event.data)),
            _ => {
                if self.draft.take().is_some() {
                    out::line("")?;
                }
                render::entry(&event.data).map_or(Ok(()), |line| out::line(&line))
            }
        }
    }

    /// A piece of a draft: behind what is there, or on a line of its own when another call writes.
    fn drafted(&mut self, draft: &Value) -> String {
        let whose = json!([draft["step"], draft["model"], draft["part"], draft["call"]]);
        let text = draft["text"].as_str().unwrap_or_default();
        let at = draft["at"].as_u64().unwrap_or(0);
        let before = self.draft.replace((whose.clone(), at + text.len() as u64));
        let text = out::plain(text);
        match before {
            Some((other, end)) if other == whose && end == at => text,
            Some((other, _)) if other == whose => format!(" … {text}"), // some pieces were missed
            before => {
                let named = |name: &str| out::plain(draft[name].as_str().unwrap_or_default());
                let line = if before.is_some() { "\n" } else { "" };
                format!("{line}  {}: {} writes: {text}", named("step"), named("model"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_come() {
        let text = ": hello\n\nid: 3\nevent: entry\ndata: {\"kind\": \"run.opened\"}\n\nevent: end\r\ndata: {}\r\n\r\n";
        let wanted = [
            Event { name: "entry".into(), id: Some("3".into()), data: json!({"kind": "run.opened"}) },
            Event { name: "end".into(), id: None, data: json!({}) },
        ];
        assert_eq!(Events::default().add(text.as_bytes()), wanted);
        let mut events = Events::default();
        let one_by_one: Vec<Event> = text.bytes().flat_map(|byte| events.add(&[byte])).collect();
        assert_eq!(one_by_one, wanted);
    }

    #[test]
    fn a_draft_grows_on_its_line_and_what_is_missing_or_begins_anew_is_seen() {
        let mut screen = Screen::default();
        let mut piece = |call: u64, at: u64, text: &str| {
            screen.drafted(&json!({"step": "draft", "model": "m", "call": call, "at": at, "text": text}))
        };
        assert_eq!(piece(1, 0, "Dear"), "  draft: m writes: Dear");
        assert_eq!(piece(1, 4, " Ann\n"), " Ann\\n");
        assert_eq!(piece(1, 20, "!"), " … !");
        assert_eq!(piece(2, 0, "\u{1b}[2J"), "\n  draft: m writes: \\u{1b}[2J");
    }
}
