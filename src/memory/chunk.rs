//! How a document is cut: first at its headings, so that every piece knows where it stands, then
//! inside each section on structure (paragraphs, lists, sentences) up to [`LONGEST`].
//!
//! A heading inside a quotation or a list belongs to that block and opens no section.

use std::ops::Range;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use text_splitter::{Characters, ChunkConfig, MarkdownSplitter, TextSplitter};

/// The longest chunk, in characters. The built-in encoder reads 128 word pieces, which is about 600
/// characters of English; what it does not see, full text still finds.
pub const LONGEST: usize = 700;

/// The longest heading path kept with a chunk, in characters: it is repeated in every chunk of the section.
pub const LONGEST_HEADING: usize = 200;

/// The splitter's time grows with the square of what it is given when that has no structure, so it is
/// given no more than this at once, in bytes; only a section much longer than a chunk notices.
const BLOCK: usize = 8 * 1024;

/// Between the levels of a heading path.
const UNDER: &str = " › ";

/// What kind of text it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// CommonMark.
    Markdown,
    /// Anything else that is text.
    Text,
}

impl Kind {
    /// The kind that a file name's ending tells, if memory takes such files.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (stem, ending) = name.rsplit('/').next()?.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            _ if stem.is_empty() => None,
            "md" | "markdown" => Some(Self::Markdown),
            "txt" => Some(Self::Text),
            _ => None,
        }
    }
}

/// A document, cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The first heading, if there is one.
    pub title: Option<String>,
    /// The pieces, in the order of the text.
    pub pieces: Vec<Piece>,
}

/// One piece of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The headings it stands under, as in `Hosting › Monthly price`; empty outside any.
    pub heading: String,
    /// The text itself; never blank.
    pub text: String,
}

/// Cuts `text`. Takes time in proportion to its length; run it off the async threads.
#[must_use]
pub fn cut(kind: Kind, text: &str) -> Cut {
    match kind {
        Kind::Markdown => cut_markdown(text),
        Kind::Text => Cut { title: None, pieces: pieces(kind, "", text) },
    }
}

fn cut_markdown(text: &str) -> Cut {
    let headings = headings(text);
    let title = headings.iter().map(|heading| heading.title.clone()).find(|title| !title.is_empty());
    let before = &text[..headings.first().map_or(text.len(), |first| first.at.start)];
    let mut cut = Cut { title, pieces: pieces(Kind::Markdown, "", before) };
    let mut path: Vec<&Heading> = Vec::new();
    for (nth, heading) in headings.iter().enumerate() {
        let next = headings.get(nth + 1);
        path.retain(|above| above.level < heading.level);
        path.push(heading);
        let body = &text[heading.at.end..next.map_or(text.len(), |next| next.at.start)];
        let under = path_text(&path);
        if !body.trim().is_empty() {
            cut.pieces.extend(pieces(Kind::Markdown, &under, body));
        } else if next.is_none_or(|next| next.level <= heading.level) && !heading.title.is_empty() {
            // Nothing under it will carry it: the heading is all this section says.
            cut.pieces.extend(pieces(Kind::Text, &under, &heading.title));
        }
    }
    cut
}

struct Heading {
    level: u8,
    title: String,
    at: Range<usize>,
}

fn headings(text: &str) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let mut depth = 0_usize;
    let mut open = false;
    for (event, at) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) if depth == 0 => {
                found.push(Heading { level: level as u8, title: String::new(), at });
                open = true;
                depth += 1;
            }
            Event::Start(_) => depth += 1,
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                open &= !matches!(end, TagEnd::Heading(_));
            }
            Event::Text(piece) | Event::Code(piece) if open => append(&mut found, &piece),
            Event::SoftBreak | Event::HardBreak if open => append(&mut found, " "),
            _ => {}
        }
    }
    for heading in &mut found {
        heading.title = heading.title.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    found
}

fn append(headings: &mut [Heading], text: &str) {
    if let Some(heading) = headings.last_mut() {
        heading.title.push_str(text);
    }
}

fn path_text(path: &[&Heading]) -> String {
    let titles: Vec<&str> =
        path.iter().map(|heading| heading.title.as_str()).filter(|title| !title.is_empty()).collect();
    shortened(&titles.join(UNDER), LONGEST_HEADING)
}

/// At most `most` characters of `text`.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn pieces(kind: Kind, heading: &str, text: &str) -> Vec<Piece> {
    let config = || ChunkConfig::new(LONGEST).with_sizer(Characters);
    let (markdown, plain) = (MarkdownSplitter::new(config()), TextSplitter::new(config()));
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (block, after) = rest.split_at(end_of_block(rest));
        let mut take = |text: &str| {
            if !text.trim().is_empty() {
                pieces.push(Piece { heading: heading.to_owned(), text: text.to_owned() });
            }
        };
        match kind {
            Kind::Markdown => markdown.chunks(block).for_each(&mut take),
            Kind::Text => plain.chunks(block).for_each(&mut take),
        }
        rest = after;
    }
    pieces
}

/// Where to stop reading for now: after the last paragraph that fits into [`BLOCK`], or else the last
/// line, word or character.
fn end_of_block(text: &str) -> usize {
    if text.len() <= BLOCK {
        return text.len();
    }
    let window = &text[..text.floor_char_boundary(BLOCK)];
    let after = |mark: &str| window.rfind(mark).map(|at| at + mark.len());
    after("\n\n").or_else(|| after("\n")).or_else(|| after(" ")).unwrap_or(window.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings_and_texts(cut: &Cut) -> Vec<(&str, &str)> {
        cut.pieces.iter().map(|piece| (piece.heading.as_str(), piece.text.as_str())).collect()
    }

    #[test]
    fn every_piece_knows_the_headings_it_stands_under() {
        let cut = cut(
            Kind::Markdown,
            "Welcome.\n\n# Hosting\n\n## Monthly *price*\n\n12 EUR.\n\nTerms\n-----\n\nOne month.\n\n# Support\n\nBy mail.\n",
        );
        assert_eq!(cut.title.as_deref(), Some("Hosting"));
        assert_eq!(
            headings_and_texts(&cut),
            [
                ("", "Welcome."),
                ("Hosting › Monthly price", "12 EUR."),
                ("Hosting › Terms", "One month."),
                ("Support", "By mail."),
            ]
        );
    }

    #[test]
    fn what_only_looks_like_a_heading_opens_no_section() {
        let text = "# Real\n\n```\n# a comment\n```\n\n> # quoted\n\n- # listed\n";
        let cut = cut(Kind::Markdown, text);
        assert!(cut.pieces.iter().all(|piece| piece.heading == "Real"), "{cut:?}");
        assert!(cut.pieces.iter().any(|piece| piece.text.contains("# a comment")), "{cut:?}");
    }

    #[test]
    fn a_heading_with_nothing_under_it_is_still_found() {
        let cut = cut(
            Kind::Markdown,
            "# Services\n## We do not work on Fridays\n## Prices\nFair.\n# Closing words",
        );
        assert_eq!(
            headings_and_texts(&cut),
            [
                ("Services › We do not work on Fridays", "We do not work on Fridays"),
                ("Services › Prices", "Fair."),
                ("Closing words", "Closing words"),
            ]
        );
    }

    #[test]
    fn no_piece_is_longer_than_the_limit_and_none_is_lost() {
        let words: Vec<String> = (0..2_000).map(|nth| format!("word{nth}")).collect();
        for kind in [Kind::Markdown, Kind::Text] {
            let cut = cut(kind, &words.join(" "));
            assert!(cut.pieces.iter().all(|piece| piece.text.chars().count() <= LONGEST));
            let again: Vec<&str> =
                cut.pieces.iter().flat_map(|piece| piece.text.split_whitespace()).collect();
            assert_eq!(again, words);
        }
    }

    #[test]
    fn only_known_endings_are_taken() {
        assert_eq!(Kind::of_name("a/b.c/Notes.MD"), Some(Kind::Markdown));
        assert_eq!(Kind::of_name("a.markdown"), Some(Kind::Markdown));
        assert_eq!(Kind::of_name("a.txt"), Some(Kind::Text));
        for name in ["a.pdf", "a", ".md", "folder.md/file", ""] {
            assert_eq!(Kind::of_name(name), None, "{name}");
        }
    }
}
