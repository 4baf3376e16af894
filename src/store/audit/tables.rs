//! The tables of effects and reviews tell the journal's story: keys and decisions are guarded by them.

use std::collections::BTreeMap;

use crate::domain::event::Outcome;
use crate::store::audit::page::{EffectFacts, Facts, ReviewFacts};
use crate::store::audit::story::{Effect, Review, Stands, Told};
use crate::store::audit::{Findings, Invariant};

pub(super) fn check(facts: &Facts, told: &Told, findings: &mut Findings<'_>) {
    let rows: BTreeMap<_, _> = facts.effects.iter().map(|row| (row.id, row)).collect();
    for (id, effect) in &told.effects {
        match rows.get(id) {
            Some(row) => check_effect(row, effect, told, findings),
            None => findings.add(Invariant::I3, format!("effect {id} is in the journal and has no row")),
        }
    }
    for id in rows.keys().filter(|id| !told.effects.contains_key(id)) {
        findings.add(Invariant::I3, format!("effect {id} has a row and is not in the journal"));
    }
    let rows: BTreeMap<_, _> = facts.reviews.iter().map(|row| (row.id, row)).collect();
    for (id, review) in &told.reviews {
        match rows.get(id) {
            Some(row) => check_review(facts, row, review, told, findings),
            None => findings.add(Invariant::I5, format!("review {id} is in the journal and has no row")),
        }
    }
    for id in rows.keys().filter(|id| !told.reviews.contains_key(id)) {
        findings.add(Invariant::I5, format!("review {id} has a row and is not in the journal"));
    }
}

fn check_effect(row: &EffectFacts, effect: &Effect, told: &Told, findings: &mut Findings<'_>) {
    let statuses: &[&str] = match effect.stands {
        // A parked run ends without its planner: what was proposed is withdrawn behind its back.
        Stands::Proposed if told.outcome == Some(Outcome::Parked) => &["withdrawn", "proposed"],
        Stands::Proposed => &["proposed"],
        Stands::Started => &["started"],
        Stands::Succeeded => &["succeeded"],
        Stands::Compensated => &["compensated"],
        Stands::Failed => &["failed"],
        Stands::Unknown => &["unknown"],
        Stands::Withdrawn => &["withdrawn"],
    };
    let mut differs = |what: &str| {
        findings.add(Invariant::I3, format!("effect {}: its {what} is not what the journal tells", row.id));
    };
    if !statuses.contains(&row.status.as_str()) {
        differs(&format!("status `{}`", row.status));
    }
    if row.key != effect.key || row.action != effect.action.action {
        differs("key");
    }
    if row.step != effect.step || u32::try_from(row.attempt) != Ok(effect.attempt) {
        differs("step or attempt");
    }
    if row.digest != Some(effect.digest) {
        differs("digest");
    }
    if row.request != effect.action.params {
        differs("request");
    }
    if effect.stands == Stands::Proposed && row.goes != effect.held {
        differs("moment to go out");
    }
    if effect.response.is_some() && row.response != effect.response {
        differs("response");
    }
}

fn check_review(facts: &Facts, row: &ReviewFacts, review: &Review, told: &Told, findings: &mut Findings<'_>) {
    let mut breach = |what: &str| findings.add(Invariant::I5, format!("review {}: {what}", row.id));
    if row.digest != Some(review.digest) || row.step != review.step || row.ask != review.ask.as_str() {
        breach("its row asks something else than the journal tells");
    }
    let status = row.status.as_str();
    match &review.verdict {
        Some(verdict) if verdict.status() != status => {
            breach(&format!("its row is `{status}`, the journal says `{}`", verdict.status()));
        }
        Some(_) if !row.consumed => breach("its decision was heard and does not count as used"),
        Some(_) => {}
        None if status == "open" && review.superseded => breach("it was withdrawn and is open"),
        // A run that was given up may have been unable to say so: see `check_effect`.
        None if status == "superseded" && !review.superseded && told.outcome != Some(Outcome::Parked) => {
            breach("its row is withdrawn, the journal says nothing of it");
        }
        // Decided, and the run has not heard of it yet: then the message lies there.
        None if !matches!(status, "open" | "superseded") && !review.superseded && told.outcome.is_none() => {
            let topic = format!("review:{}", row.id);
            if !facts.inbox.iter().any(|(told, _)| *told == topic) {
                breach("it is decided, and the run will never hear of it");
            }
        }
        None => {}
    }
}
