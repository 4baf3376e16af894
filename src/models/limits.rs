//! Rate limits: what the owner set, what the provider says in its headers, and who waits for a turn.
//!
//! Everything here is told the time and does nothing by itself; the gateway's actor keeps it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::models::headers::{Left, Told};

/// The longest that a provider's word keeps a model from being asked. Beyond it one call finds out
/// whether the word still holds: a daily quota costs six refusals an hour, a mistake ten minutes.
const LONGEST_BLOCK: Duration = Duration::from_secs(600);

/// The limits of a provider or a model.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    requests: Meter,
    tokens: Meter,
    /// Nothing before then: the provider said so.
    blocked: Option<Instant>,
}

impl Limits {
    /// Limits per minute, unlimited where there is none. `at_once` calls may begin without a pause.
    pub(crate) fn new(calls: Option<u32>, tokens: Option<u32>, at_once: usize, now: Instant) -> Self {
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX);
        Self {
            requests: Meter::new(calls, |rate| at_once.min(rate), now),
            // Ten seconds' worth: a question of usual size need not wait, a flood is spread out.
            tokens: Meter::new(tokens, |rate| rate / 6, now),
            blocked: None,
        }
    }

    /// How long a call of so many tokens has to wait.
    pub(crate) fn wait(&self, tokens: u64, now: Instant) -> Duration {
        let blocked = self.blocked.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        blocked.max(self.requests.wait(1.0, now)).max(self.tokens.wait(float(tokens), now))
    }

    /// A call of so many tokens begins.
    pub(crate) fn take(&mut self, tokens: u64, now: Instant) {
        self.requests.take(1.0, now);
        self.tokens.take(float(tokens), now);
    }

    /// Learns from what came with an answer.
    pub(crate) fn learn(&mut self, told: &Told, refused: bool, now: Instant) {
        self.requests.learn(told.requests, now);
        self.tokens.learn(told.tokens, now);
        if let Some(asked) = told.wait.filter(|_| refused) {
            self.blocked = Some(now + asked.min(LONGEST_BLOCK));
        }
    }

    /// Forgets what the provider said.
    pub(crate) fn forget(&mut self) {
        self.blocked = None;
        self.requests.left = None;
        self.tokens.left = None;
    }
}

/// One thing that is counted: calls, or tokens.
#[derive(Debug, Default)]
struct Meter {
    bucket: Option<Bucket>,
    /// What the provider says is left until then.
    left: Option<(f64, Instant)>,
}

impl Meter {
    fn new(per_minute: Option<u32>, capacity: impl Fn(u32) -> u32, now: Instant) -> Self {
        let bucket = per_minute.map(|rate| Bucket::new(rate, capacity(rate), now));
        Self { bucket, left: None }
    }

    fn wait(&self, amount: f64, now: Instant) -> Duration {
        let own = self.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.wait(amount, now));
        match self.left {
            Some((left, until)) if left < amount => own.max(until.saturating_duration_since(now)),
            _ => own,
        }
    }

    fn take(&mut self, amount: f64, now: Instant) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(amount, now);
        }
        self.left = self.left.filter(|(_, until)| *until > now).map(|(left, until)| (left - amount, until));
    }

    fn learn(&mut self, told: Option<Left>, now: Instant) {
        if let Some(Left { left, reset }) = told {
            self.left = Some((float(left), now + reset.min(LONGEST_BLOCK)));
        }
    }
}

/// A bucket that fills steadily. What is larger than the bucket is let through when it is full, and is
/// made up for afterwards: the level goes below zero.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: u32, capacity: u32, now: Instant) -> Self {
        let capacity = f64::from(capacity.max(1));
        Self { per_second: f64::from(per_minute.max(1)) / 60.0, capacity, level: capacity, at: now }
    }

    fn level(&self, now: Instant) -> f64 {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        (self.level + filled).min(self.capacity)
    }

    fn wait(&self, amount: f64, now: Instant) -> Duration {
        let lacking = amount.min(self.capacity) - self.level(now);
        match lacking > 1e-9 {
            true => Duration::try_from_secs_f64(lacking / self.per_second).unwrap_or(Duration::MAX),
            false => Duration::ZERO,
        }
    }

    fn take(&mut self, amount: f64, now: Instant) {
        (self.level, self.at) = (self.level(now) - amount, now);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of tokens is far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Those who wait, in lanes that take turns: whoever floods a lane waits behind himself alone.
pub(crate) struct Queue<T> {
    /// The lane whose turn it is stands first. None is empty.
    lanes: VecDeque<(Arc<str>, VecDeque<T>)>,
    waiting: usize,
    most: usize,
}

impl<T> Queue<T> {
    /// A queue for `most` altogether.
    pub(crate) fn new(most: usize) -> Self {
        Self { lanes: VecDeque::new(), waiting: 0, most }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Takes one more. When there is no room, gives back who has to go: the last of the longest lane.
    pub(crate) fn push(&mut self, lane: &Arc<str>, item: T) -> Option<T> {
        match self.lanes.iter_mut().find(|(name, _)| name == lane) {
            Some((_, items)) => items.push_back(item),
            None => self.lanes.push_back((Arc::clone(lane), VecDeque::from([item]))),
        }
        self.waiting += 1;
        if self.waiting <= self.most {
            return None;
        }
        let longest = self.lanes.iter_mut().max_by_key(|(_, items)| items.len())?;
        let last = longest.1.pop_back();
        self.tidy();
        last
    }

    /// The first that may go, by turns of the lanes; within a lane those who may not go hold up nobody.
    pub(crate) fn next(&mut self, mut may: impl FnMut(&T) -> bool) -> Option<T> {
        let (lane, place) = self
            .lanes
            .iter()
            .enumerate()
            .find_map(|(lane, (_, items))| items.iter().position(&mut may).map(|place| (lane, place)))?;
        let (name, mut items) = self.lanes.remove(lane)?;
        let item = items.remove(place);
        self.lanes.push_back((name, items)); // its turn comes again after all others
        self.tidy();
        item
    }

    /// Takes out everybody who has to go.
    pub(crate) fn drain(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for (_, items) in &mut self.lanes {
            let (leaving, staying): (Vec<T>, Vec<T>) = items.drain(..).partition(&mut gone);
            items.extend(staying);
            out.extend(leaving);
        }
        self.tidy();
        out
    }

    /// Everybody who waits, in no order that matters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.lanes.iter().flat_map(|(_, items)| items)
    }

    fn tidy(&mut self) {
        self.lanes.retain(|(_, items)| !items.is_empty());
        self.waiting = self.lanes.iter().map(|(_, items)| items.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(requests: Option<Left>, tokens: Option<Left>, wait: Option<Duration>) -> Told {
        Told { requests, tokens, wait }
    }

    #[tokio::test]
    async fn calls_are_spread_over_the_minute_after_a_first_burst() {
        let now = Instant::now();
        let mut limits = Limits::new(Some(120), None, 2, now);
        for _ in 0..2 {
            assert_eq!(limits.wait(1, now), Duration::ZERO);
            limits.take(1, now);
        }
        assert_eq!(limits.wait(1, now), SECOND / 2);
        assert_eq!(limits.wait(1, now + SECOND / 2), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_question_larger_than_the_allowance_goes_alone_and_the_rest_make_up_for_it() {
        let now = Instant::now();
        let mut limits = Limits::new(None, Some(6_000), 4, now);
        assert_eq!(limits.wait(4_000, now), Duration::ZERO, "the bucket is full");
        limits.take(4_000, now);
        assert_eq!(limits.wait(100, now), 31 * SECOND, "3,000 of debt and the 100, at 100 a second");
    }

    #[tokio::test]
    async fn what_the_provider_says_is_left_counts_until_its_reset() {
        let now = Instant::now();
        let mut limits = Limits::default();
        let left = |left| Some(Left { left, reset: 20 * SECOND });
        limits.learn(&told(left(2), left(1_000), None), false, now);
        limits.take(600, now);
        assert_eq!(limits.wait(300, now), Duration::ZERO);
        assert_eq!(limits.wait(600, now), 20 * SECOND, "too few tokens");
        limits.take(300, now);
        assert_eq!(limits.wait(1, now), 20 * SECOND, "no call is left");
        assert_eq!(limits.wait(5_000, now + 20 * SECOND), Duration::ZERO, "after the reset nothing is known");
    }

    #[tokio::test]
    async fn a_refusal_blocks_as_long_as_it_says_but_not_for_ever() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.learn(&told(None, None, Some(7 * SECOND)), true, now);
        assert_eq!(limits.wait(1, now + SECOND), 6 * SECOND);
        limits.learn(&told(None, None, Some(Duration::from_secs(1 << 40))), true, now);
        assert_eq!(limits.wait(1, now), LONGEST_BLOCK);
        limits.forget();
        limits.learn(&told(None, None, Some(7 * SECOND)), false, now);
        assert_eq!(limits.wait(1, now), Duration::ZERO, "a good answer asks nobody to wait");
    }

    fn queue(most: usize, items: &[(&str, u32)]) -> (Queue<u32>, Vec<u32>) {
        let mut queue = Queue::new(most);
        let out = items.iter().filter_map(|(lane, item)| queue.push(&Arc::from(*lane), *item)).collect();
        (queue, out)
    }

    #[test]
    fn lanes_take_turns_however_long_they_are() {
        let (mut queue, _) = queue(9, &[("a", 1), ("a", 2), ("a", 3), ("b", 10), ("c", 20), ("b", 11)]);
        let order: Vec<u32> = std::iter::from_fn(|| queue.next(|_| true)).collect();
        assert_eq!(order, [1, 10, 20, 2, 11, 3]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_flood_that_fills_the_queue_is_turned_away_itself() {
        let (mut queue, out) = queue(3, &[("a", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 10)]);
        assert_eq!((out, queue.len()), (vec![4, 3], 3));
        assert_eq!(queue.next(|item| *item > 5), Some(10));
        assert_eq!(queue.next(|item| *item > 5), None);
        assert_eq!(queue.drain(|item| *item == 1), [1]);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [2]);
    }

    proptest! {
        /// Whatever the load: in no minute more begins than the limit, the first burst and one overrun.
        #[test]
        fn no_minute_has_more_than_its_limit(
            rate in 1u32..600, at_once in 1usize..20, pauses in proptest::collection::vec(0u64..3_000, 1..200)
        ) {
            let start = Instant::now();
            let mut limits = Limits::new(Some(rate), None, at_once, start);
            let (mut now, mut begun) = (start, Vec::new());
            for pause in pauses {
                now += Duration::from_millis(pause);
                now += limits.wait(1, now);
                prop_assert!(limits.wait(1, now) < Duration::from_millis(1));
                limits.take(1, now);
                begun.push(now);
            }
            for first in &begun {
                let within = begun.iter().filter(|at| *at >= first && **at < *first + 60 * SECOND).count();
                prop_assert!(within <= rate as usize + at_once + 1, "{within}");
            }
        }

        #[test]
        fn nobody_is_lost_or_served_twice(items in proptest::collection::vec((0u8..4, any::<bool>()), 0..80)) {
            let mut queue = Queue::new(10);
            let (mut pushed, mut seen) = (0u32, Vec::new());
            for (lane, take) in items {
                seen.extend(queue.push(&Arc::from(lane.to_string().as_str()), pushed));
                pushed += 1;
                if take { seen.extend(queue.next(|_| true)); }
                prop_assert!(queue.len() <= 10);
            }
            seen.extend(queue.drain(|_| true));
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..pushed).collect::<Vec<_>>());
        }
    }
}
