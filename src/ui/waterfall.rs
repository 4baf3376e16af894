//! What a run did when, from its journal: a bar for each step, working drawn differently from waiting. Pure.
//!
//! Stretches in which nothing works are drawn shorter than they were: an owner decides in hours what a model
//! drafted in seconds, and true to scale nothing but the night would be seen.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::event::Event;
use crate::domain::ids::StepId;

/// The width of the drawing.
pub const WIDTH: f64 = 1000.0;

/// The narrowest stretch that can be seen.
const THIN: f64 = 4.0;

/// How much of the width all waiting together may take.
const WAITING: f64 = 0.4;

/// What a step is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// It works, or something works for it.
    Work,
    /// It waits for the owner.
    Owner,
    /// It waits for its next attempt.
    Retry,
    /// It waits for an event, a moment or another run.
    World,
}

impl Doing {
    /// The name for the style.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Owner => "owner",
            Self::Retry => "retry",
            Self::World => "world",
        }
    }
}

/// A stretch of time of one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stretch {
    /// What it did.
    pub doing: Doing,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl Stretch {
    fn millis(&self) -> i64 {
        self.until.as_millisecond() - self.from.as_millisecond()
    }
}

/// The same, drawn.
#[derive(Clone, PartialEq, Debug)]
pub struct Drawn {
    /// For the style.
    pub class: &'static str,
    /// The left edge, of [`WIDTH`].
    pub x: String,
    /// Its width.
    pub width: String,
}

/// One step's row.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bar {
    /// Its stretches.
    pub drawn: Vec<Drawn>,
    /// How long it worked, milliseconds.
    pub worked: i64,
    /// How long it waited, milliseconds.
    pub waited: i64,
}

/// All rows of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Waterfall {
    /// By step.
    pub bars: BTreeMap<StepId, Bar>,
    /// Whether waiting is drawn shorter than it was.
    pub is_shortened: bool,
}

/// Draws a journal as it stands at `now`.
#[must_use]
pub fn draw(events: &[(Event, Timestamp)], now: Timestamp) -> Waterfall {
    let stretches = stretches(events, now);
    let scale = Scale::of(stretches.values().flatten());
    let bar = |all: &Vec<Stretch>| {
        let sum = |works: bool| {
            all.iter().filter(|one| (one.doing == Doing::Work) == works).map(Stretch::millis).sum()
        };
        Bar { drawn: all.iter().map(|one| scale.draw(one)).collect(), worked: sum(true), waited: sum(false) }
    };
    let bars = stretches.iter().map(|(step, all)| (step.clone(), bar(all))).collect();
    Waterfall { bars, is_shortened: scale.is_shortened }
}

/// What each step did when.
#[must_use]
pub fn stretches(events: &[(Event, Timestamp)], now: Timestamp) -> BTreeMap<StepId, Vec<Stretch>> {
    let mut done: BTreeMap<StepId, Vec<Stretch>> = BTreeMap::new();
    let mut under_way: BTreeMap<StepId, (Doing, Timestamp)> = BTreeMap::new();
    for (event, at) in events {
        if matches!(event, Event::RunFinished { .. }) {
            for (step, (doing, from)) in std::mem::take(&mut under_way) {
                done.entry(step).or_default().push(Stretch { doing, from, until: *at });
            }
        }
        let (Some(step), Some(next)) = (event.step(), begins(event)) else { continue };
        let before = under_way.remove(step);
        match (before, next) {
            (Some(before), Some(next)) if before.0 == next => {
                under_way.insert(step.clone(), before);
            }
            (before, next) => {
                let ended = before.map(|(doing, from)| Stretch { doing, from, until: *at });
                done.entry(step.clone()).or_default().extend(ended);
                if let Some(next) = next {
                    under_way.insert(step.clone(), (next, *at));
                }
            }
        }
    }
    for (step, (doing, from)) in under_way {
        done.entry(step).or_default().push(Stretch { doing, from, until: now.max(from) });
    }
    done
}

/// What a step is about from this event on: `Some(None)` when it is over, `None` when nothing changes.
fn begins(event: &Event) -> Option<Option<Doing>> {
    match event {
        Event::StepStarted { .. }
        | Event::EachBegan { .. }
        | Event::EffectProposed(_)
        | Event::EffectStarted { .. }
        | Event::EffectCalledBack { .. }
        | Event::DraftReturned(_)
        | Event::ReviewDecided { .. }
        | Event::WaitEnded { .. } => Some(Some(Doing::Work)),
        Event::AttemptFailed { .. } => Some(Some(Doing::Retry)),
        Event::ReviewOpened(_) => Some(Some(Doing::Owner)),
        Event::WaitBegan { .. } | Event::ChildOpened { .. } | Event::EffectHeld { .. } => {
            Some(Some(Doing::World))
        }
        Event::StepSucceeded { .. }
        | Event::StepSkipped { .. }
        | Event::StepDeclined { .. }
        | Event::StepFailed { .. }
        | Event::ReviewSuperseded { .. } => Some(None),
        Event::RunOpened(_)
        | Event::ModelCalled { .. }
        | Event::ToolCalled { .. }
        | Event::EffectReused { .. }
        | Event::EffectSucceeded { .. }
        | Event::EffectFailed { .. }
        | Event::EffectWithdrawn { .. }
        | Event::EffectUnknown { .. }
        | Event::EffectCompensated { .. }
        | Event::RunCancelling { .. }
        | Event::RunCompensating { .. }
        | Event::RunPaused { .. }
        | Event::RunResumed { .. }
        | Event::RunReopened { .. }
        | Event::RunParked(_)
        | Event::RunUnparked { .. }
        | Event::RunFinished { .. } => None,
    }
}

/// Where moments lie in the drawing.
struct Scale {
    /// Moments in order, each with its place.
    places: Vec<(Timestamp, f64)>,
    is_shortened: bool,
}

impl Scale {
    fn of<'a>(stretches: impl Iterator<Item = &'a Stretch> + Clone) -> Self {
        let mut moments: Vec<Timestamp> = stretches.clone().flat_map(|one| [one.from, one.until]).collect();
        moments.sort_unstable();
        moments.dedup();
        let works = |from: Timestamp, until: Timestamp| {
            stretches.clone().any(|one| one.doing == Doing::Work && one.from <= from && one.until >= until)
        };
        let spans: Vec<(f64, bool)> = moments
            .windows(2)
            .map(|pair| {
                let length = pair[1].as_microsecond() - pair[0].as_microsecond();
                #[expect(clippy::cast_precision_loss, reason = "a drawing has a thousand units")]
                (length as f64, works(pair[0], pair[1]))
            })
            .collect();
        let sum = |works: bool| spans.iter().filter(|span| span.1 == works).map(|span| span.0).sum::<f64>();
        let (work, wait) = (sum(true), sum(false));
        let most = work * WAITING / (1.0 - WAITING);
        let is_shortened = work > 0.0 && wait > most;
        let factor = if is_shortened { most / wait } else { 1.0 };
        let total: f64 = work + wait * factor;
        let mut place = 0.0;
        let mut places: Vec<(Timestamp, f64)> =
            moments.first().map(|first| (*first, 0.0)).into_iter().collect();
        for ((length, works), moment) in spans.iter().zip(moments.iter().skip(1)) {
            let share = if *works { *length } else { length * factor };
            place += if total > 0.0 { share / total * WIDTH } else { 0.0 };
            places.push((*moment, place));
        }
        Self { places, is_shortened }
    }

    fn place(&self, at: Timestamp) -> f64 {
        let found = self.places.binary_search_by_key(&at, |(moment, _)| *moment);
        found.ok().and_then(|index| self.places.get(index)).map_or(0.0, |(_, place)| *place)
    }

    fn draw(&self, stretch: &Stretch) -> Drawn {
        let (left, right) = (self.place(stretch.from), self.place(stretch.until));
        let width = (right - left).max(THIN);
        let left = left.min(WIDTH - width);
        Drawn { class: stretch.doing.class(), x: format!("{left:.1}"), width: format!("{width:.1}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::digest::Digest;
    use crate::domain::event::{Ask, Question, Verdict};
    use crate::domain::ids::ReviewId;
    use crate::domain::label::Label;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn started(step: &str, second: i64) -> (Event, Timestamp) {
        (Event::StepStarted { step: step.into(), attempt: 1 }, at(second))
    }

    fn succeeded(step: &str, second: i64) -> (Event, Timestamp) {
        let event = Event::StepSucceeded {
            step: step.into(),
            attempt: 1,
            output: json!(null),
            label: Label::Owner,
            confidence: None,
        };
        (event, at(second))
    }

    fn reviewed(step: &str, opened: i64, decided: i64) -> [(Event, Timestamp); 2] {
        let review = ReviewId(uuid::Uuid::nil());
        let question = Question {
            step: step.into(),
            review,
            ask: Ask::Approval,
            title: String::new(),
            reasons: Vec::new(),
            artifacts: Vec::new(),
            digest: Digest::ZERO,
            action: None,
            form: None,
            labels: Default::default(),
            risk: None,
            sampled: false,
            due_at: None,
            allows_micros: None,
        };
        let verdict =
            Event::ReviewDecided { step: step.into(), review, verdict: Verdict::Approved, by: "o".into() };
        [(Event::ReviewOpened(question), at(opened)), (verdict, at(decided))]
    }

    fn journal() -> Vec<(Event, Timestamp)> {
        let mut events = vec![started("draft", 0), succeeded("draft", 4), started("send", 4)];
        events.extend(reviewed("send", 5, 7_205));
        events.push(succeeded("send", 7_206));
        events
    }

    #[test]
    fn waiting_for_the_owner_is_told_from_working() {
        let all = stretches(&journal(), at(9_000));
        let told: Vec<(Doing, i64)> =
            all[&StepId::from("send")].iter().map(|one| (one.doing, one.millis() / 1000)).collect();
        assert_eq!(told, [(Doing::Work, 1), (Doing::Owner, 7_200), (Doing::Work, 1)]);
        let bar = &draw(&journal(), at(9_000)).bars[&StepId::from("send")];
        assert_eq!((bar.worked, bar.waited), (2_000, 7_200_000));
    }

    #[test]
    fn a_night_of_waiting_leaves_room_for_seconds_of_work() {
        let drawing = draw(&journal(), at(9_000));
        assert!(drawing.is_shortened);
        let width = |drawn: &Drawn| drawn.width.parse::<f64>().unwrap();
        let bar = &drawing.bars[&StepId::from("draft")];
        assert!(width(&bar.drawn[0]) > 300.0, "{bar:?}");
        let waits = &drawing.bars[&StepId::from("send")].drawn[1];
        assert!((350.0..=400.5).contains(&width(waits)), "{waits:?}");
    }

    #[test]
    fn what_is_under_way_reaches_to_now_and_what_took_no_time_is_still_seen() {
        let events = [started("a", 0), succeeded("a", 0), started("b", 0)];
        let drawing = draw(&events, at(10));
        assert_eq!(drawing.bars[&StepId::from("b")].worked, 10_000);
        assert_eq!(drawing.bars[&StepId::from("a")].drawn[0].width, "4.0");
        assert_eq!(draw(&[], at(0)), Waterfall::default());
    }
}
