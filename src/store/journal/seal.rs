//! The hash chain of a run: each entry's hash covers the hash before it, so that no entry can be
//! changed, moved or taken out unnoticed. The chain covers the digest of the content, not the
//! content itself: content may be erased later without breaking it.

use jiff::Timestamp;

use crate::domain::digest::{Digest, canonical};
use crate::domain::event::Event;
use crate::domain::ids::RunId;
use crate::domain::label::Label;
use crate::domain::plan::Entry;

/// A journal entry, ready to be written.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its number in the run.
    pub seq: i64,
    /// The event's kind.
    pub kind: String,
    /// When it happened, exact to the microsecond, which is what PostgreSQL keeps.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: String,
    /// Where its content came from.
    pub label: Label,
    /// The content as canonical JSON.
    pub data: String,
    /// The digest of the content.
    pub data_digest: Digest,
    /// The hash that chains it.
    pub hash: Digest,
    /// The event itself, for the rows that follow from it.
    pub event: Event,
}

/// What stands before a run's first entry: its own id, so that no entry fits into another run.
#[must_use]
pub fn genesis(run: RunId) -> Digest {
    Digest::of_bytes(run.0.as_bytes())
}

/// Seals entries behind `head`, numbered from `seq + 1`.
#[must_use]
pub fn seal(head: Digest, seq: i64, at: Timestamp, entries: Vec<Entry>) -> Vec<Sealed> {
    let mut previous = head;
    let mut sealed = Vec::with_capacity(entries.len());
    for (seq, entry) in (seq + 1..).zip(entries) {
        let (kind, data) = split(&entry.event);
        let data_digest = Digest::of_bytes(data.as_bytes());
        let hash = link(previous, seq, &kind, at, &entry.actor, entry.label, data_digest);
        previous = hash;
        let Entry { event, actor, label } = entry;
        sealed.push(Sealed { seq, kind, at, actor, label, data, data_digest, hash, event });
    }
    sealed
}

/// The hash of one entry.
#[must_use]
pub fn link(
    previous: Digest,
    seq: i64,
    kind: &str,
    at: Timestamp,
    actor: &str,
    label: Label,
    data_digest: Digest,
) -> Digest {
    Digest::of_parts(&[
        &previous.0,
        &seq.to_be_bytes(),
        kind.as_bytes(),
        &at.as_microsecond().to_be_bytes(),
        actor.as_bytes(),
        label.as_str().as_bytes(),
        &data_digest.0,
    ])
}

/// An event as the journal's two columns: its kind, and its content as canonical JSON. Canonical JSON
/// sorts keys, so the whole event is `{"data":CONTENT,"kind":"KIND"}`: both are cut out of one text.
fn split(event: &Event) -> (String, String) {
    let whole = canonical(event);
    let parts = || {
        let (data, kind) = whole.strip_suffix("\"}")?.rsplit_once(",\"kind\":\"")?;
        Some((kind.to_owned(), data.strip_prefix("{\"data\":")?.to_owned()))
    };
    parts().unwrap_or_default()
}

/// The present moment as PostgreSQL keeps it.
#[must_use]
pub fn whole_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::StepId;
    use serde_json::json;

    #[test]
    fn an_event_is_cut_into_its_kind_and_its_canonical_content() {
        let nasty = "x\",\"kind\":\"run.finished\"}";
        let event = Event::StepSkipped { step: StepId::from("a"), reason: nasty.into() };
        let (kind, data) = split(&event);
        let value = serde_json::to_value(&event).unwrap();
        assert_eq!(json!(kind), value["kind"]);
        assert_eq!(data, canonical(&value["data"]));
    }

    #[test]
    fn a_chain_notices_any_change() {
        let run = RunId(uuid::Uuid::nil());
        let at = Timestamp::from_second(1).unwrap();
        let entry = |n: u32| Entry {
            event: Event::StepStarted { step: StepId::from("a"), attempt: n },
            actor: "system".into(),
            label: Label::System,
        };
        let sealed = seal(genesis(run), 1, at, vec![entry(1), entry(2)]);
        assert_eq!(sealed[1].seq, 3);
        assert_eq!(sealed[0].data, json!({"attempt": 1, "step": "a"}).to_string());
        let again = seal(sealed[0].hash, 2, at, vec![entry(2)]);
        assert_eq!(again[0].hash, sealed[1].hash, "the head alone is enough to go on");
        let other = seal(genesis(run), 1, at, vec![entry(2), entry(2)]);
        assert_ne!(other[1].hash, sealed[1].hash, "the same entry behind another one has another hash");
    }
}
