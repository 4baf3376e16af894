//! What admission promises, held against a naive model that remembers every turn there ever was.

use jiff::SignedDuration;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const AGE: Span = Span::secs(60);

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn lane(workflow: &str, key: &str) -> Lane {
    Lane { workflow: workflow.into(), key: key.into() }
}

fn run(number: usize) -> RunId {
    RunId(Uuid::from_u128(number as u128 + 1))
}

fn candidate(number: usize, lane: Lane, slots: Option<u32>, priority: Priority, came: i64) -> Candidate {
    Candidate { run: run(number), lane, slots, priority, rank: rank(priority, second(came), AGE) }
}

/// One run of a generated story: workflow, key, limit, class, and how many turns later the next comes.
type Came = (u8, u8, Option<u32>, u8, u8);

fn any_run() -> impl Strategy<Value = Came> {
    (0u8..4, 0u8..4, proptest::option::of(1u32..3), 0u8..3, 0u8..3)
}

fn concrete(number: usize, came: &Came, at: i64) -> Candidate {
    let (workflow, key, slots, level, _) = *came;
    let lane = lane(&format!("w{workflow}"), &format!("k{key}"));
    candidate(number, lane, slots, Priority::of_level(level).unwrap(), at)
}

/// Every turn so far: whose it was, and whether it was a fair one.
#[derive(Default)]
struct Naive(Vec<(Lane, bool)>);

impl Naive {
    /// Sorts everybody who may begin by the rules, from the whole history, and takes the first.
    fn next(&mut self, waiting: &[Candidate], held: &BTreeMap<Lane, u32>) -> Option<RunId> {
        let mut able: Vec<&Candidate> = waiting
            .iter()
            .filter(|c| c.slots.is_none() || c.slots.unwrap() > *held.get(&c.lane).unwrap_or(&0))
            .collect();
        able.sort_by_key(|c| (c.rank, c.run));
        let aged = self.0.len() % 4 == 3;
        if !aged {
            let best = able.iter().map(|c| c.priority.level()).min()?;
            able.retain(|c| c.priority.level() == best);
            let turns_ago = |w: &WorkflowName| self.0.iter().rev().position(|(lane, _)| lane.workflow == *w);
            let longest = able.iter().map(|c| turns_ago(&c.lane.workflow).unwrap_or(usize::MAX)).max()?;
            let workflow =
                able.iter().find(|c| turns_ago(&c.lane.workflow).unwrap_or(usize::MAX) == longest)?;
            let workflow = workflow.lane.workflow.clone();
            able.retain(|c| c.lane.workflow == workflow);
            let last = self.0.iter().rev().find(|(lane, fair)| *fair && lane.workflow == workflow);
            let mut keys: Vec<&str> = able.iter().map(|c| c.lane.key.as_str()).collect();
            keys.sort_unstable();
            let behind = last.and_then(|(lane, _)| keys.iter().find(|key| **key > lane.key.as_str()));
            let key = (*behind.unwrap_or(keys.first()?)).to_owned();
            able.retain(|c| c.lane.key == key);
        }
        let chosen = able.first()?;
        self.0.push((chosen.lane.clone(), !aged));
        Some(chosen.run)
    }
}

/// What the store looks up of a queue of any length: the longest waiting of each workflow, and the next
/// keys behind the one served last and from the start, with the longest waiting of each.
fn look(queue: &[Candidate], turns: &Turns, deep: usize, keys: usize, per_key: usize) -> Vec<Candidate> {
    let mut found: BTreeMap<RunId, Candidate> = BTreeMap::new();
    let mut sorted: Vec<&Candidate> = queue.iter().collect();
    sorted.sort_by_key(|c| (c.rank, c.run));
    let workflows: BTreeSet<&WorkflowName> = queue.iter().map(|c| &c.lane.workflow).collect();
    for workflow in workflows {
        let mine: Vec<&Candidate> = sorted.iter().copied().filter(|c| c.lane.workflow == *workflow).collect();
        let all: BTreeSet<&str> = mine.iter().map(|c| c.lane.key.as_str()).collect();
        let after = turns.keys().find(|(name, _)| *name == workflow).map(|(_, key)| key.to_owned());
        let behind = all.iter().filter(|key| after.as_deref().is_some_and(|after| **key > after)).take(keys);
        let ring: BTreeSet<&str> = behind.chain(all.iter().take(keys)).copied().collect();
        let heads =
            ring.into_iter().flat_map(|key| mine.iter().filter(move |c| c.lane.key == key).take(per_key));
        for c in heads.chain(mine.iter().take(deep)) {
            found.insert(c.run, (*c).clone());
        }
    }
    found.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2500))]

    #[test]
    fn every_turn_is_the_naive_models_turn_and_no_limit_is_ever_exceeded(
        story in proptest::collection::vec(any_run(), 1..40),
        rooms in proptest::collection::vec((0usize..5, any::<prop::sample::Index>()), 1..40),
    ) {
        let (mut turns, mut naive) = (Turns::default(), Naive::default());
        let (mut waiting, mut under_way): (Vec<Candidate>, Vec<Candidate>) = (Vec::new(), Vec::new());
        let mut story = story.iter().enumerate();
        for (at, (room, ends)) in rooms.iter().enumerate() {
            for (number, came) in story.by_ref().take(3) {
                waiting.push(concrete(number, came, at as i64 * 20));
            }
            let mut held: BTreeMap<Lane, u32> = BTreeMap::new();
            for c in under_way.iter().filter(|c| c.slots.is_some()) {
                *held.entry(c.lane.clone()).or_default() += 1;
            }
            let choice = choose(&mut turns, waiting.clone(), held.clone(), *room);
            prop_assert!(choice.admit.len() <= *room);
            for chosen in &choice.admit {
                prop_assert_eq!(naive.next(&waiting, &held), Some(*chosen));
                let place = waiting.iter().position(|c| c.run == *chosen).unwrap();
                let c = waiting.swap_remove(place);
                if let Some(slots) = c.slots {
                    let held = held.entry(c.lane.clone()).or_default();
                    *held += 1;
                    prop_assert!(*held <= slots, "the limit holds");
                }
                under_way.push(c);
            }
            // Room is left only when nobody can use it, and it is said why the others cannot.
            let able = waiting.iter().any(|c| c.slots.is_none_or(|s| *held.get(&c.lane).unwrap_or(&0) < s));
            prop_assert_eq!(able, choice.crowded);
            prop_assert!(choice.admit.len() == *room || !able);
            for c in waiting.iter().filter(|c| c.slots.is_some_and(|s| *held.get(&c.lane).unwrap_or(&0) >= s)) {
                prop_assert_eq!(choice.full.get(&c.lane), held.get(&c.lane));
            }
            if !under_way.is_empty() {
                under_way.swap_remove(ends.index(under_way.len()));
            }
        }
    }

    #[test]
    fn every_queued_run_begins_after_at_most_four_turns_for_each_that_is_ahead_by_rank(
        story in proptest::collection::vec(any_run(), 1..9),
        flood in 0u8..3,
        seconds in 20i64..90,
    ) {
        let mut turns = Turns::default();
        let mut waiting: Vec<(Candidate, u64)> = Vec::new();
        let mut all: Vec<Candidate> = Vec::new();
        let mut story = story.iter().enumerate().peekable();
        // One turn at a time; more keep coming than are served, the most urgent class among them.
        for turn in 0u64.. {
            let now = turn as i64 * seconds;
            if let Some((number, came)) = story.next() {
                let c = Candidate { slots: None, ..concrete(number, came, now) };
                all.push(c.clone());
                waiting.push((c, turn));
            }
            for n in 0..2usize {
                let number = 10_000 + turn as usize * 2 + n;
                let lane = lane("flood", &format!("k{number}"));
                let c = candidate(number, lane, None, Priority::of_level(flood).unwrap(), now);
                all.push(c.clone());
                waiting.push((c, turn));
            }
            let queue: Vec<Candidate> = waiting.iter().map(|(c, _)| c.clone()).collect();
            let looked = look(&queue, &turns, 3, 2, 1);
            let choice = choose(&mut turns, looked, BTreeMap::new(), 1);
            prop_assert_eq!(choice.admit.len(), 1, "a bounded look never hides all who may begin");
            let place = waiting.iter().position(|(c, _)| c.run == choice.admit[0]).unwrap();
            let (begun, came) = waiting.swap_remove(place);
            let ahead = all.iter().filter(|c| (c.rank, c.run) < (begun.rank, begun.run)).count() as u64;
            prop_assert!(turn - came < AGED_TURN * (ahead + 1), "{} turns with {} ahead", turn - came, ahead);
            let told_all = story.peek().is_none();
            if told_all && waiting.iter().all(|(c, _)| c.lane.workflow.as_str() == "flood") {
                break;
            }
            prop_assert!(turn < 5_000, "somebody starves");
        }
    }

    #[test]
    fn a_lower_class_overtakes_what_came_later_by_more_than_its_handicap_and_nothing_else(
        class in 0u8..3, other in 0u8..3, came in 0i64..1_000, later in 0i64..1_000, ageing in 1u64..300,
    ) {
        let ageing = Span::secs(ageing);
        let [class, other] = [class, other].map(|level| Priority::of_level(level).unwrap());
        let waited = SignedDuration::from_secs(later - came);
        let handicap = |p: Priority| SignedDuration::try_from(p.handicap(ageing).0).unwrap();
        let before = rank(class, second(came), ageing) < rank(other, second(later), ageing);
        prop_assert_eq!(before, waited > handicap(class) - handicap(other));
    }
}

/// The order in which everybody begins when one may go at a time.
fn order(mut waiting: Vec<Candidate>) -> Vec<RunId> {
    let mut turns = Turns::default();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let choice = choose(&mut turns, waiting.clone(), BTreeMap::new(), 1);
        waiting.retain(|c| c.run != choice.admit[0]);
        order.extend(choice.admit);
    }
    order
}

#[test]
fn a_low_run_that_has_waited_beats_newer_high_ones_and_one_that_has_not_is_the_last() {
    let highs = |came: i64| (1..=20).map(move |n| candidate(n, lane("high", ""), None, Priority::High, came));
    let low = || candidate(0, lane("low", ""), None, Priority::Low, 0);
    let aged = order(std::iter::once(low()).chain(highs(121)).collect());
    assert_eq!(aged.iter().position(|r| *r == run(0)), Some(3), "the first aged turn is the fourth");
    let fresh = order(std::iter::once(low()).chain(highs(119)).collect());
    assert_eq!(fresh.last(), Some(&run(0)));
}

#[test]
fn a_flood_of_one_workflow_costs_another_at_most_two_turns() {
    let mut waiting: Vec<Candidate> =
        (0..300).map(|n| candidate(n, lane("leads", &format!("k{n}")), None, Priority::Normal, 0)).collect();
    waiting.push(candidate(1000, lane("billing", ""), None, Priority::Normal, 50));
    let mut turns = Turns::default();
    let first = choose(&mut turns, waiting.clone(), BTreeMap::new(), 2);
    assert!(first.admit.contains(&run(1000)));
}

#[test]
fn a_flood_of_one_key_takes_turns_with_the_other_keys() {
    let mut waiting: Vec<Candidate> =
        (0..300).map(|n| candidate(n, lane("leads", "loud@x"), None, Priority::Normal, 0)).collect();
    waiting.push(candidate(1000, lane("leads", "quiet@x"), None, Priority::Normal, 50));
    assert!(order(waiting).iter().position(|r| *r == run(1000)).unwrap() < 4);
}

#[test]
fn nothing_said_about_flow_leaves_a_versions_digest_as_it_was() {
    assert_eq!(serde_json::to_value(Flow::default()).unwrap(), serde_json::json!({}));
    assert!(Flow::default().is_default());
}
