//! What an edit changes, word by word.

use std::time::{Duration, Instant};

use similar::{Algorithm, ChangeTag, capture_diff_slices_deadline};

use crate::ui::text::Inert;

/// How long a difference may be looked for; beyond, it is told more coarsely. Two texts without anything in
/// common take the square of their length.
const PATIENCE: Duration = Duration::from_millis(250);

/// Characters of what stays that are shown around a change.
const AROUND: usize = 160;

/// A stretch of words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// In both texts.
    Same(&'a str),
    /// In the first alone.
    Gone(&'a str),
    /// In the second alone.
    New(&'a str),
}

/// The way from one text to the other. What is [`Piece::Same`] and [`Piece::Gone`], in order, is the first
/// text; what is [`Piece::Same`] and [`Piece::New`] is the second.
#[must_use]
pub fn words<'a>(before: &'a str, after: &'a str) -> Vec<Piece<'a>> {
    let (old, new) = (split(before), split(after));
    let deadline = Instant::now().checked_add(PATIENCE);
    let changes = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline);
    let mut pieces = Pieces { before, after, from: (0, 0), to: (0, 0), tag: None, found: Vec::new() };
    for change in changes.iter().flat_map(|change| change.iter_changes(&old, &new)) {
        pieces.take(change.tag(), change.value().len());
    }
    pieces.flush();
    pieces.found
}

/// Joins words of one kind: positions alone tell where they are.
struct Pieces<'a> {
    before: &'a str,
    after: &'a str,
    from: (usize, usize),
    to: (usize, usize),
    tag: Option<ChangeTag>,
    found: Vec<Piece<'a>>,
}

impl Pieces<'_> {
    fn take(&mut self, tag: ChangeTag, length: usize) {
        if self.tag != Some(tag) {
            self.flush();
            self.tag = Some(tag);
        }
        if tag != ChangeTag::Insert {
            self.to.0 += length;
        }
        if tag != ChangeTag::Delete {
            self.to.1 += length;
        }
    }

    fn flush(&mut self) {
        let (old, new) = (&self.before[self.from.0..self.to.0], &self.after[self.from.1..self.to.1]);
        self.found.extend(match self.tag {
            Some(ChangeTag::Equal) => Some(Piece::Same(old)),
            Some(ChangeTag::Delete) => Some(Piece::Gone(old)),
            Some(ChangeTag::Insert) => Some(Piece::New(new)),
            None => None,
        });
        self.from = self.to;
    }
}

/// Words, runs of blanks, and each other character by itself.
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let kind = kind(first);
        let end = match kind {
            Kind::Other => first.len_utf8(),
            _ => rest.find(|char| self::kind(char) != kind).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    words
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Blank,
    Other,
}

fn kind(char: char) -> Kind {
    match char {
        '\n' => Kind::Other, // so that an empty line more is one line more
        _ if char.is_whitespace() => Kind::Blank,
        _ if char.is_alphanumeric() => Kind::Word,
        _ => Kind::Other,
    }
}

/// A piece as a page shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marked {
    /// `same`, `gone` or `new`.
    pub kind: &'static str,
    /// The words.
    pub text: Inert,
}

/// The pieces for a page: long stretches that stay are cut short in their middle.
#[must_use]
pub fn shown(before: &str, after: &str) -> Vec<Marked> {
    let pieces = words(before, after);
    let last = pieces.len().saturating_sub(1);
    let show = |(at, piece): (usize, &Piece<'_>)| match piece {
        Piece::Same(text) => Marked { kind: "same", text: Inert::text(&around(text, at == 0, at == last)) },
        Piece::Gone(text) => Marked { kind: "gone", text: Inert::text(text) },
        Piece::New(text) => Marked { kind: "new", text: Inert::text(text) },
    };
    pieces.iter().enumerate().map(show).collect()
}

fn around(text: &str, is_first: bool, is_last: bool) -> String {
    let count = text.chars().count();
    if count <= 3 * AROUND {
        return text.to_owned();
    }
    let head: String = if is_first { String::new() } else { text.chars().take(AROUND).collect() };
    let tail: String = if is_last { String::new() } else { text.chars().skip(count - AROUND).collect() };
    let left = count - head.chars().count() - tail.chars().count();
    format!("{head} … {left} characters that stay … {tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(pieces: &[Piece<'_>]) -> (String, String) {
        let (mut before, mut after) = (String::new(), String::new());
        for piece in pieces {
            match piece {
                Piece::Same(text) => {
                    before.push_str(text);
                    after.push_str(text);
                }
                Piece::Gone(text) => before.push_str(text),
                Piece::New(text) => after.push_str(text),
            }
        }
        (before, after)
    }

    #[test]
    fn a_changed_word_is_told_as_one_word() {
        assert_eq!(
            words("see you on Thursday.", "see you on Friday."),
            [Piece::Same("see you on "), Piece::Gone("Thursday"), Piece::New("Friday"), Piece::Same(".")]
        );
        assert_eq!(words("", "a"), [Piece::New("a")]);
        assert_eq!(words("a b", "a b"), [Piece::Same("a b")]);
        assert!(words("", "").is_empty());
    }

    #[test]
    fn long_texts_without_anything_in_common_are_told_in_time() {
        let text = |seed: usize| (0..20_000).map(|n| format!("{} ", n * seed % 99_991)).collect::<String>();
        let (before, after) = (text(7_919), text(104_729));
        assert_eq!(joined(&words(&before, &after)), (before.clone(), after.clone()));
    }

    #[test]
    fn what_stays_is_cut_short_and_what_changes_never_is() {
        let (before, new) = ("same ".repeat(1000), "new ".repeat(1000));
        let shown = shown(&before, &format!("{before}{new}"));
        assert!(shown[0].text.to_string().len() < 400, "{}", shown[0].text);
        assert!(shown[1].text.to_string().len() >= 3_999);
    }

    proptest! {
        #[test]
        fn following_the_difference_gives_both_texts(before in "[ab .\n]{0,40}", after in "[ab .\n]{0,40}") {
            prop_assert_eq!(joined(&words(&before, &after)), (before, after));
        }

        #[test]
        fn and_so_for_any_text(before in any::<String>(), after in any::<String>()) {
            prop_assert_eq!(joined(&words(&before, &after)), (before, after));
        }
    }
}
