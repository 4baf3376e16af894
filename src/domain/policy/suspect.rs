//! What looks like an attempt to steer a model or to deceive a reader: said to the owner, never a reason to
//! allow anything.
//!
//! This is no defence. That comes from labels: whatever a text says, what is made of it stays untrusted, and
//! its targets are reviewed. Here the owner is told where to look, and a rule may ask for a review. So a miss
//! costs a hint, and a false alarm costs a look.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use crate::domain::fold::{fold, glance, is_invisible, quoted, turns_direction};
use crate::domain::policy::words::{FOLDED, MARKUP, ORDERS, PRETENCE};

/// Findings told of one action; more than a person reads.
const MOST: usize = 8;

/// Characters looked at in all: several long mails.
const BUDGET: usize = 400_000;

/// The shortest run of letters that is tried as encoded text, characters: a short order.
const ENCODED: usize = 32;

/// The longest encoded text that is decoded, characters.
const DECODED: usize = 20_000;

/// How far a verb may stand before what it is about, bytes; and behind it, as some languages have it.
const BEFORE: usize = 60;
const BEHIND: usize = 25;

/// Looks at texts one after the other, and keeps what it finds: each kind of thing once, where it was
/// found first.
pub struct Suspicion<'a> {
    /// Domains and hosts the owner knows: what looks like one of them is told.
    known: &'a BTreeSet<String>,
    left: usize,
    found: BTreeMap<String, String>,
    order: Vec<String>,
}

impl<'a> Suspicion<'a> {
    /// Nothing found yet.
    #[must_use]
    pub fn new(known: &'a BTreeSet<String>) -> Self {
        Self { known, left: BUDGET, found: BTreeMap::new(), order: Vec::new() }
    }

    /// What was found, a sentence each without a full stop.
    #[must_use]
    pub fn told(self) -> Vec<String> {
        let Self { mut found, order, .. } = self;
        order.iter().filter_map(|kind| found.remove(kind)).take(MOST).collect()
    }

    /// Keeps a finding; of a kind that is known already, the first one stays.
    pub fn add(&mut self, kind: &str, sentence: String) {
        if !self.found.contains_key(kind) {
            self.order.push(kind.to_owned());
            self.found.insert(kind.to_owned(), sentence);
        }
    }

    /// Looks at a text; `place` says where it stands, such as `input.body`.
    pub fn look(&mut self, place: &str, text: &str) {
        let text: &str = match text.char_indices().nth(self.left) {
            Some((end, _)) => &text[..end],
            None => text,
        };
        self.left -= text.chars().count();
        self.characters(place, text);
        let folded = fold(text);
        self.words(place, &folded);
        self.encoded(place, text);
        self.domains(place, text);
    }

    /// Looks at every text inside a value.
    pub fn look_at_value(&mut self, place: &str, value: &Value) {
        match value {
            Value::String(text) => self.look(place, text),
            Value::Array(items) => {
                for (nth, item) in items.iter().enumerate() {
                    self.look_at_value(&format!("{place}.{nth}"), item);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.look_at_value(&format!("{place}.{}", quoted(name, 40)), field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Looks at a domain that something is sent to.
    pub fn look_at_domain(&mut self, place: &str, domain: &str) {
        if let Some(known) = self.known.iter().find(|known| resembles(domain, known)) {
            let domain = quoted(domain, 80);
            self.add(
                "domain",
                format!("`{place}` names {domain}, which looks like {known} that you know and is another"),
            );
        } else if let Some(odd) = odd_letters(domain) {
            self.add("letters", format!("`{place}` names {}, {odd}", quoted(domain, 80)));
        }
    }

    fn characters(&mut self, place: &str, text: &str) {
        // A joiner between two letters of a script that needs it, or in an emoji, is no trick; many are.
        let hidden =
            text.chars().filter(|c| is_invisible(*c) && !matches!(c, '\u{fe0f}' | '\u{200d}')).count();
        if text.chars().any(turns_direction) {
            self.add("direction", format!("`{place}` holds marks that turn the reading direction"));
        } else if hidden > 0 {
            self.add("invisible", format!("`{place}` holds {hidden} characters that nobody sees"));
        }
    }

    fn words(&mut self, place: &str, folded: &str) {
        let lists = &*FOLDED;
        for (phrase, means) in &lists.phrases {
            if let Some(at) = folded.find(phrase.as_str()) {
                self.say(place, means, folded, at);
            }
        }
        if let Some(at) = near(folded, &lists.setting_aside, &lists.guidance) {
            self.say(place, ORDERS, folded, at);
        }
        // `i g n o r e`, `1gn0re`: what is left when everything but letters is taken away.
        let squeezed: String = folded.chars().filter_map(leet).collect();
        for word in [
            "ignoreprevious",
            "ignoreallprevious",
            "ignoreyourinstruc",
            "systemprompt",
            "vtabercerivbhf",
            "vtabernyy",
        ] {
            if squeezed.contains(word) {
                self.add(ORDERS, format!("`{place}` {ORDERS}, in a disguise"));
            }
        }
        if let Some(at) = PRETENCE.iter().find_map(|mark| folded.find(mark)) {
            self.say(place, MARKUP, folded, at);
        }
        if let Some(at) = near(folded, &lists.changed, &lists.account) {
            self.say(place, "speaks of a changed account", folded, at);
        }
        if (folded.contains("{{") && folded.contains("}}")) || folded.contains("{%") {
            self.add("template", format!("`{place}` holds template code, which stays text"));
        }
        let hides = [
            "display:none",
            "display: none",
            "font-size:0",
            "font-size: 0",
            "visibility:hidden",
            "opacity:0",
        ];
        if let Some(at) = hides.iter().find_map(|mark| folded.find(mark)) {
            self.say(place, "hides a part of its text", folded, at);
        }
        if let Some(at) = folded.find("![").filter(|at| folded[*at..].contains("](http")) {
            self.say(place, "embeds a picture from elsewhere, which tells who opens it", folded, at);
        }
    }

    fn say(&mut self, place: &str, means: &str, folded: &str, at: usize) {
        let start = folded[..at].char_indices().rev().nth(7).map_or(0, |(start, _)| start);
        let words = quoted(folded[start..].trim(), 60);
        self.add(means, format!("`{place}` {means}: “{words}”"));
    }

    /// Orders are also given in base64, so that no filter reads them.
    fn encoded(&mut self, place: &str, text: &str) {
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_');
        let runs = text.split(|c: char| !part(c)).filter(|run| run.len() >= ENCODED && run.len() <= DECODED);
        for run in runs.take(50) {
            let run = run.replace('-', "+").replace('_', "/");
            // A run may begin in the middle of a group when something was glued to it.
            let decoded = (0..4).filter_map(|skip| {
                let run = run.get(skip..)?;
                let whole = &run[..run.len() - run.len() % 4];
                let bytes = STANDARD_NO_PAD.decode(whole).ok()?;
                let text = String::from_utf8(bytes).ok()?;
                text.chars().all(|c| !c.is_control() || c.is_whitespace()).then_some(text)
            });
            for text in decoded {
                let known = BTreeSet::new();
                let mut inner = Suspicion::new(&known);
                inner.words(place, &fold(&text));
                if !inner.found.is_empty() {
                    let words = quoted(&text, 60);
                    self.add("encoded", format!("`{place}` holds an order in code: “{words}”"));
                    return;
                }
            }
        }
    }

    fn domains(&mut self, place: &str, text: &str) {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
        let mut places: Vec<usize> = text.match_indices('@').map(|(at, _)| at + 1).collect();
        places.extend(text.match_indices("://").map(|(at, _)| at + 3));
        for at in places.into_iter().take(500) {
            let rest = &text[at..];
            let domain = &rest[..rest.find(|c: char| !part(c)).unwrap_or(rest.len())];
            if domain.contains('.') && domain.len() <= 253 {
                self.look_at_domain(place, domain.trim_matches('.'));
            }
        }
    }
}

/// Where a word of the one list stands close before a word of the other, or right behind it.
fn near(folded: &str, some: &[String], others: &[String]) -> Option<usize> {
    let places = |words: &[String]| -> Vec<(usize, usize)> {
        let found = words.iter().flat_map(|word| folded.match_indices(word.as_str()));
        let meant = |at: usize| {
            let before = &folded[..at];
            !before.ends_with(char::is_alphanumeric) && !before.ends_with("n't ") && !before.ends_with("not ")
        };
        let mut places: Vec<_> =
            found.filter(|(at, _)| meant(*at)).map(|(at, word)| (at, at + word.len())).collect();
        places.sort_unstable();
        places
    };
    let (some, others) = (places(some), places(others));
    let close = |(at, end): (usize, usize)| {
        let first = others.partition_point(|(other, _)| *other + BEHIND < at);
        let next = others.get(first..)?.iter().take_while(|(other, _)| *other <= end + BEFORE);
        next.map(|(other, _)| at.min(*other)).next()
    };
    some.into_iter().find_map(close)
}

fn leet(c: char) -> Option<char> {
    match c {
        '0' => Some('o'),
        '1' | '!' => Some('i'),
        '3' => Some('e'),
        '4' | '@' => Some('a'),
        '5' | '$' => Some('s'),
        '7' => Some('t'),
        c if c.is_alphabetic() => Some(c),
        _ => None,
    }
}

/// Whether one domain is made to be taken for another.
fn resembles(domain: &str, known: &str) -> bool {
    let (domain, known) = (domain.to_lowercase(), known.to_lowercase());
    let (domain, known) = (domain.as_str(), known.as_str());
    let is_it =
        domain == known || domain.ends_with(&format!(".{known}")) || known.ends_with(&format!(".{domain}"));
    if is_it
        || known.len() < 5
        || !known.contains('.')
        || known.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return false;
    }
    let (seen, real) = (glance(domain), glance(known));
    let name = |domain: &str| domain.split('.').next().unwrap_or_default().to_owned();
    let (own, others) = (name(&real), name(&seen));
    seen == real
        || seen.starts_with(&format!("{real}.")) // the known one is only the beginning
        || seen.replace('-', ".").starts_with(&format!("{}.", real.replace('-', ".")))
        || (own.len() >= 6 && others == own) // the same name under another ending
        || (own.len() >= 6 && others.len() > own.len() && others.contains(&own))
        || (real.len() >= 8 && one_edit(&seen, &real))
}

/// Whether one letter more, less, other, or two swapped turn the one into the other.
fn one_edit(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([], _) | (_, []) => true,
        _ if a.len() < b.len() => *a == b[1..],
        _ if a.len() > b.len() => a[1..] == *b,
        _ => a[1..] == b[1..] || (a.len() > 1 && a[0] == b[1] && a[1] == b[0] && a[2..] == b[2..]),
    }
}

fn odd_letters(domain: &str) -> Option<&'static str> {
    if domain.to_lowercase().split('.').any(|part| part.starts_with("xn--")) || !domain.is_ascii() {
        let mixed =
            domain.split('.').any(|part| part.chars().any(|c| c.is_ascii_alphabetic()) && !part.is_ascii());
        return Some(match mixed {
            true => "a domain that mixes the letters of several scripts",
            false => "a domain in letters that may be taken for others",
        });
    }
    None
}

#[cfg(test)]
#[path = "suspect_tests.rs"]
mod tests;
