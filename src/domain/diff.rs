//! What changed between two texts, word by word: the greedy algorithm of E. W. Myers, "An O(ND) Difference
//! Algorithm and Its Variations" (1986), with a bound, so that no text however long takes long.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many words may have gone or come before the rest counts as replaced as a whole: the work grows with
/// this times the words there are.
const MAX_EDITS: usize = 600;

/// A stretch of text and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "change", content = "text", rename_all = "lowercase")]
pub enum Change {
    /// It is in both.
    Same(String),
    /// It was taken away.
    Gone(String),
    /// It was added.
    New(String),
}

/// How much was changed: words, without the space between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Words that are in both.
    pub kept: usize,
    /// Words that were taken away.
    pub gone: usize,
    /// Words that were added.
    pub added: usize,
}

impl Tally {
    /// The tally of these changes.
    #[must_use]
    pub fn of(changes: &[Change]) -> Self {
        let mut tally = Self::default();
        let count = |text: &str| text.split_whitespace().count();
        for change in changes {
            match change {
                Change::Same(text) => tally.kept += count(text),
                Change::Gone(text) => tally.gone += count(text),
                Change::New(text) => tally.added += count(text),
            }
        }
        tally
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { kept: self.kept + other.kept, gone: self.gone + other.gone, added: self.added + other.added }
    }
}

/// What became of `before`, in order. What is [`Change::Same`] or [`Change::Gone`] together is `before`,
/// what is `Same` or [`Change::New`] is the text after, to the letter.
#[must_use]
pub fn words(before: &str, after: &str) -> Vec<Change> {
    let (old, new) = (tokens(before), tokens(after));
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    let mut told = Telling::default();
    old[..start].iter().for_each(|word| told.same(word));
    match script(old_middle, new_middle) {
        Some(steps) => told.steps(&steps, old_middle, new_middle),
        None => {
            old_middle.iter().for_each(|word| told.gone(word));
            new_middle.iter().for_each(|word| told.come(word));
        }
    }
    old_rest[old_rest.len() - end..].iter().for_each(|word| told.same(word));
    told.end()
}

/// What became of each parameter that is a text in both and differs, by its name; one that is no text is
/// compared as JSON.
#[must_use]
pub fn params(before: &Value, after: &Value) -> Vec<(String, Vec<Change>)> {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => format!("{other:#}"),
    };
    let empty = serde_json::Map::new();
    let (old, new) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let added = new.keys().filter(|name| !old.contains_key(*name));
    let names = old.keys().chain(added);
    let differing = names.filter(|name| old.get(*name) != new.get(*name));
    differing.map(|name| (name.clone(), words(&text(old.get(name)), &text(new.get(name))))).collect()
}

/// Words, and the space between them, which counts like a word: where a line was broken matters, too.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let space = first.is_whitespace();
        let end = rest.find(|c: char| c.is_whitespace() != space).unwrap_or(rest.len());
        found.push(&rest[..end]);
        rest = &rest[end..];
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Keep,
    Take,
    Add,
}

/// How far each diagonal (place in `old` minus place in `new`) has come, of `old`, for the diagonals from
/// `-edge` to `edge`.
#[derive(Clone)]
struct Reach {
    edge: usize,
    of_old: Vec<usize>,
}

impl Reach {
    fn new(edge: usize) -> Self {
        Self { edge, of_old: vec![0; 2 * edge + 1] }
    }

    /// The part of it that `edits` edits can read.
    fn around(&self, edits: usize) -> Self {
        let edge = edits + 1;
        let of_old = self.of_old[self.edge - edge..=self.edge + edge].to_vec();
        Self { edge, of_old }
    }

    /// What stands on the diagonal `plus - minus`.
    fn at(&self, plus: usize, minus: usize) -> usize {
        self.of_old.get((self.edge + plus).wrapping_sub(minus)).copied().unwrap_or(0)
    }

    fn set(&mut self, plus: usize, minus: usize, x: usize) {
        if let Some(place) = self.of_old.get_mut((self.edge + plus).wrapping_sub(minus)) {
            *place = x;
        }
    }

    /// Whether the `edits`th edit reaches the diagonal `plus - minus` by adding a word of `new`, rather than
    /// by taking one of `old` away.
    fn adds(&self, edits: usize, plus: usize, minus: usize) -> bool {
        minus == plus + edits
            || (plus != minus + edits && self.at(plus, minus + 1) < self.at(plus + 1, minus))
    }
}

/// The shortest way from `old` to `new`; `None` when it is longer than [`MAX_EDITS`].
fn script(old: &[&str], new: &[&str]) -> Option<Vec<Step>> {
    let most = MAX_EDITS.min(old.len() + new.len());
    let mut reach = Reach::new(most + 1);
    let mut trace: Vec<Reach> = Vec::new();
    for edits in 0..=most {
        trace.push(reach.around(edits));
        for turn in 0..=edits {
            // The diagonals -edits, -edits + 2, … edits.
            let (plus, minus) = (2 * turn, edits);
            let mut x = match reach.adds(edits, plus, minus) {
                true => reach.at(plus + 1, minus),
                false => reach.at(plus, minus + 1) + 1,
            };
            let mut y = (x + minus).saturating_sub(plus);
            while x < old.len() && y < new.len() && old[x] == new[y] {
                (x, y) = (x + 1, y + 1);
            }
            reach.set(plus, minus, x);
            if x >= old.len() && y >= new.len() {
                return Some(back(&trace, old.len(), new.len()));
            }
        }
    }
    None
}

/// The way that led to the end, read from behind; `trace[d]` is what the `d`th edit went by.
fn back(trace: &[Reach], old: usize, new: usize) -> Vec<Step> {
    let (mut x, mut y) = (old, new);
    let mut steps = Vec::with_capacity(old.max(new));
    for (edits, reach) in trace.iter().enumerate().rev() {
        let adds = reach.adds(edits, x, y);
        let (from_x, from_y) = match adds {
            true => (reach.at(x + 1, y), (reach.at(x + 1, y) + y).saturating_sub(x + 1)),
            false => (reach.at(x, y + 1), (reach.at(x, y + 1) + y + 1).saturating_sub(x)),
        };
        while x > from_x && y > from_y {
            steps.push(Step::Keep);
            (x, y) = (x - 1, y - 1);
        }
        if edits > 0 {
            steps.push(if adds { Step::Add } else { Step::Take });
            (x, y) = (from_x, from_y);
        }
    }
    steps.reverse();
    steps
}

/// Changes as they are told: neighbours of a kind are one.
#[derive(Default)]
struct Telling {
    changes: Vec<Change>,
    gone: String,
    new: String,
}

impl Telling {
    fn steps(&mut self, steps: &[Step], old: &[&str], new: &[&str]) {
        let (mut old, mut new) = (old.iter(), new.iter());
        for step in steps {
            match step {
                Step::Keep => {
                    if let (Some(word), Some(_)) = (old.next(), new.next()) {
                        self.same(word);
                    }
                }
                Step::Take => old.next().into_iter().for_each(|word| self.gone(word)),
                Step::Add => new.next().into_iter().for_each(|word| self.come(word)),
            }
        }
    }

    fn same(&mut self, word: &str) {
        self.flush();
        match self.changes.last_mut() {
            Some(Change::Same(text)) => text.push_str(word),
            _ => self.changes.push(Change::Same(word.to_owned())),
        }
    }

    fn gone(&mut self, word: &str) {
        self.gone.push_str(word);
    }

    fn come(&mut self, word: &str) {
        self.new.push_str(word);
    }

    /// What has gone is told before what has come.
    fn flush(&mut self) {
        if !self.gone.is_empty() {
            self.changes.push(Change::Gone(std::mem::take(&mut self.gone)));
        }
        if !self.new.is_empty() {
            self.changes.push(Change::New(std::mem::take(&mut self.new)));
        }
    }

    fn end(mut self) -> Vec<Change> {
        self.flush();
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn told(before: &str, after: &str) -> String {
        let mark = |change: &Change| match change {
            Change::Same(text) => text.clone(),
            Change::Gone(text) => format!("[-{text}-]"),
            Change::New(text) => format!("{{+{text}+}}"),
        };
        words(before, after).iter().map(mark).collect()
    }

    #[test]
    fn what_was_changed_is_told_word_by_word_and_what_went_before_what_came() {
        assert_eq!(
            told("We can start on Monday.", "We can start on Tuesday."),
            "We can start on [-Monday.-]{+Tuesday.+}"
        );
        assert_eq!(told("a b c d", "a c d e"), "a [-b -]c d{+ e+}");
        assert_eq!(told("one\ntwo", "one\n\ntwo"), "one[-\n-]{+\n\n+}two");
        assert_eq!(told("", "new"), "{+new+}");
        assert_eq!(told("gone", ""), "[-gone-]");
        assert_eq!(told("same", "same"), "same");
        assert!(words("", "").is_empty());
    }

    #[test]
    fn a_text_that_shares_nothing_is_replaced_whole_however_long_it_is() {
        let long = |word: &str| (0..30_000).map(|n| format!("{word}{n} ")).collect::<String>();
        let changes = words(&long("a"), &long("b"));
        assert_eq!(changes.len(), 3, "gone, new, and the last space");
    }

    #[test]
    fn only_parameters_that_differ_are_told_of_and_lists_are_compared_as_written() {
        let before = json!({"to": ["a@x.example"], "subject": "Re", "body": "Dear Ann", "cc": null});
        let after = json!({"to": ["b@x.example"], "subject": "Re", "body": "Dear Anna", "in_reply_to": "x"});
        let told = params(&before, &after);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["body", "cc", "to", "in_reply_to"]);
        assert_eq!(Tally::of(&told[0].1), Tally { kept: 1, gone: 1, added: 1 });
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_off_their_difference(
            before in "([ab]{1,2}|[ \n]){0,40}", after in "([ab]{1,2}|[ \n]){0,40}",
        ) {
            let (mut old, mut new) = (String::new(), String::new());
            let changes = words(&before, &after);
            for change in &changes {
                match change {
                    Change::Same(text) => { old.push_str(text); new.push_str(text); }
                    Change::Gone(text) => old.push_str(text),
                    Change::New(text) => new.push_str(text),
                }
            }
            prop_assert_eq!(old, before.clone());
            prop_assert_eq!(new, after.clone());
            let kinds: Vec<_> = changes.iter().map(std::mem::discriminant).collect();
            prop_assert!(kinds.windows(2).all(|two| two[0] != two[1]), "neighbours of a kind are one");
            prop_assert_eq!(before == after, changes.iter().all(|change| matches!(change, Change::Same(_))));
        }

        #[test]
        fn no_way_is_shorter(before in "[abc]{0,8}", after in "[abc]{0,8}") {
            let spaced = |text: &str| text.chars().map(|c| format!("{c}")).collect::<Vec<_>>();
            let (old, new) = (spaced(&before), spaced(&after));
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let steps = script(&old, &new).unwrap();
            let edits = steps.iter().filter(|step| **step != Step::Keep).count();
            prop_assert_eq!(edits, old.len() + new.len() - 2 * common(&old, &new));
        }
    }

    /// The longest common subsequence, the slow way.
    fn common(old: &[&str], new: &[&str]) -> usize {
        match (old.split_first(), new.split_first()) {
            (Some((a, old)), Some((b, new))) if a == b => 1 + common(old, new),
            (Some((_, rest)), Some((_, others))) => common(rest, new).max(common(old, others)),
            _ => 0,
        }
    }
}
