//! Zero-shot classes: a text belongs to the class whose example phrases it resembles most.
//!
//! The encoder reads only a few hundred characters, so a text is cut into windows: its subject with
//! the first lines, then what follows. A window's score for a class is the mean of its best two
//! cosine similarities to the class's examples (one lucky example is not enough, a class with
//! many examples gains nothing by their number). The windows' scores are averaged with falling
//! weights: people say what they want at the beginning.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::digest::Digest;
use crate::domain::workflow::Class;
use crate::models::encoder::{Encoder, EncoderError};
use crate::models::memo::Memo;

/// One window, characters: about what 128 word pieces of prose hold.
const WINDOW: usize = 450;

/// How much each window counts; a text of one window has it alone.
const WEIGHTS: [f32; 3] = [0.5, 0.3, 0.2];

/// How many of a class's best examples are averaged.
const BEST: usize = 2;

/// The margin between the best and the second class at which the confidence is half-way between
/// that of a coin toss and certainty. On the thirteen example mails, sorted by the template's
/// router, the right verdicts have margins from 0.05 to 0.22 (confidence 0.59 to 0.90); the one
/// wrong verdict, on a newsletter, has 0.002 (0.27).
const HALF_MARGIN: f32 = 0.06;

/// The fields of an agent's input that lead a text, before all others.
const LEADING: [&str; 2] = ["subject", "title"];

/// What the encoder thinks of a text.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Verdict {
    /// The class with the best score; the first of the list when nothing can be said.
    pub class: String,
    /// How sure, 0..=1.
    pub confidence: f64,
    /// Every class's score: a cosine similarity, -1..=1.
    pub scores: BTreeMap<String, f64>,
}

/// The encoder as a classifier. It keeps the vectors of the examples it has seen.
pub(crate) struct Classifier {
    encoder: Encoder,
    examples: Memo<Vec<Vec<Vec<f32>>>>,
}

impl Classifier {
    pub(crate) fn new(encoder: Encoder) -> Self {
        Self { encoder, examples: Memo::new() }
    }

    /// Chooses one of `classes` for the agent's input. `None` without classes or examples.
    ///
    /// # Errors
    /// When the encoder fails. A blank text is no failure: it has no confidence.
    pub(crate) async fn classify(
        &self,
        classes: &[Class],
        with: &Value,
    ) -> Result<Option<Verdict>, EncoderError> {
        let digest = Digest::of_json(&serde_json::to_value(classes).unwrap_or_default());
        let examples = match self.examples.get(&digest) {
            Some(examples) => examples,
            None => self.examples.keep(digest, self.embed_examples(classes).await?),
        };
        let windows = self.encoder.embed(windows(with)).await?;
        Ok(verdict(classes, &scores(&examples, &windows)))
    }

    async fn embed_examples(&self, classes: &[Class]) -> Result<Vec<Vec<Vec<f32>>>, EncoderError> {
        let mut embedded = Vec::with_capacity(classes.len());
        for class in classes {
            let examples = class.examples.iter().filter(|text| !text.trim().is_empty()).cloned().collect();
            embedded.push(self.encoder.embed(examples).await?);
        }
        Ok(embedded)
    }
}

/// The windows of an agent's input; none when there is no text in it.
fn windows(with: &Value) -> Vec<String> {
    let text = prose(with);
    let mut windows = Vec::new();
    if !text.contains(char::is_alphanumeric) {
        return windows;
    }
    let mut window = String::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().take(WINDOW).collect();
        if !window.is_empty() && window.chars().count() + word.chars().count() >= WINDOW {
            windows.push(std::mem::take(&mut window));
            if windows.len() == WEIGHTS.len() {
                return windows;
            }
        }
        if !window.is_empty() {
            window.push(' ');
        }
        window.push_str(&word);
    }
    windows.extend((!window.is_empty()).then_some(window));
    windows
}

/// The text of an input: its leading fields, then every other text that reads as prose (an address
/// or an id says nothing about a class), without the lines quoted from earlier messages.
fn prose(with: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    if let Some(map) = with.as_object() {
        let leading = LEADING.iter().filter_map(|key| map.get(*key)?.as_str());
        let leading = leading.map(|text| text.trim().trim_end_matches('.')).filter(|text| !text.is_empty());
        parts.extend(leading.map(|text| format!("{text}.")));
        let others = map.iter().filter(|(key, _)| !LEADING.contains(&key.as_str()));
        parts.extend(
            others.filter_map(|(_, value)| value.as_str()).filter(|text| is_prose(text)).map(unquoted),
        );
    }
    if parts.is_empty() {
        parts.extend(with.as_str().map(unquoted));
        parts.extend(with.as_object().into_iter().flatten().filter_map(|(_, v)| v.as_str()).map(unquoted));
    }
    parts.join("\n")
}

fn is_prose(text: &str) -> bool {
    text.split_whitespace().nth(1).is_some() || !text.is_ascii()
}

fn unquoted(text: &str) -> String {
    let own: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('>')).collect();
    let own = own.join("\n");
    if own.trim().is_empty() { text.to_owned() } else { own }
}

/// Each class's score over all windows; empty without windows.
fn scores(examples: &[Vec<Vec<f32>>], windows: &[Vec<f32>]) -> Vec<f32> {
    if windows.is_empty() {
        return Vec::new();
    }
    let whole: f32 = WEIGHTS.iter().take(windows.len()).sum();
    let class = |vectors: &Vec<Vec<f32>>| {
        let sum: f32 =
            windows.iter().zip(WEIGHTS).map(|(window, weight)| weight * best(vectors, window)).sum();
        sum / whole
    };
    examples.iter().map(class).collect()
}

/// The mean of the best similarities between a window and a class's examples.
fn best(examples: &[Vec<f32>], window: &[f32]) -> f32 {
    let mut cosines: Vec<f32> = examples.iter().map(|example| cosine(example, window)).collect();
    cosines.sort_by(|a, b| b.total_cmp(a));
    cosines.truncate(BEST);
    let count = cosines.len().max(1);
    cosines.iter().sum::<f32>() / count as f32
}

/// The cosine of two vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn verdict(classes: &[Class], scores: &[f32]) -> Option<Verdict> {
    let first = classes.first()?;
    let mut ranked: Vec<(&Class, f32)> = classes.iter().zip(scores.iter().copied()).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (class, confidence) = match *ranked.as_slice() {
        [] => (first, 0.0),
        [(only, _)] => (only, 0.0),
        [(best, score), (_, second), ..] => (best, confidence(score - second, ranked.len())),
    };
    let named = ranked.iter().map(|(class, score)| (class.class.clone(), rounded(*score)));
    Some(Verdict { class: class.class.clone(), confidence, scores: named.collect() })
}

/// The confidence that a margin deserves among so many classes: a coin toss (1/n) without any,
/// rising towards 1 as the margin grows, half-way at [`HALF_MARGIN`].
fn confidence(margin: f32, classes: usize) -> f64 {
    let floor = 1.0 / classes as f32;
    let risen = 1.0 - 0.5f32.powf(margin.max(0.0) / HALF_MARGIN);
    rounded(floor + (1.0 - floor) * risen)
}

/// Four decimals: what is left differs between processors and means nothing.
fn rounded(number: f32) -> f64 {
    (f64::from(number) * 10_000.0).round() / 10_000.0
}
