//! Text that others wrote, as pages show it: escaped, never a link, and with everything that hides or turns
//! made visible. Templates are given [`Inert`], which is the only text of theirs that is not escaped again.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;
use serde_json::Value;

use crate::domain::text::is_treacherous;

/// Characters shown before a text is folded: a letter that fills a screen.
const OPEN: usize = 1_800;

/// Lines shown before it is folded.
const LINES: usize = 30;

/// Nothing deeper is laid out; it is shown as JSON.
const LISTED: usize = 30;

/// HTML that is safe wherever text may stand.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Inert(String);

impl Inert {
    /// Text of several lines: `\r\n` is a line end, and every other control character is seen.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let mut html = String::with_capacity(text.len() + text.len() / 8);
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '\n' | '\t' => html.push(char),
                '\r' if chars.peek() == Some(&'\n') => {}
                _ => push(&mut html, char),
            }
        }
        Self(html)
    }

    /// Text of one line: line ends and tabs are blanks.
    #[must_use]
    pub fn line(text: &str) -> Self {
        let mut html = String::with_capacity(text.len() + text.len() / 8);
        for char in text.chars() {
            match char {
                '\n' | '\t' | '\r' => html.push(' '),
                _ => push(&mut html, char),
            }
        }
        Self(html)
    }

    /// The beginning of a text, as one line of at most `most` characters.
    #[must_use]
    pub fn glimpse(text: &str, most: usize) -> Self {
        let words = text.split_whitespace();
        let mut line = String::new();
        for word in words {
            if line.len() > most.saturating_mul(4) {
                break;
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        match line.char_indices().nth(most) {
            Some((end, _)) => Self::line(&format!("{}…", line[..end].trim_end())),
            None => Self::line(&line),
        }
    }
}

/// A character that cannot be seen is written out, as a mark that no letter can be taken for.
fn push(html: &mut String, char: char) {
    match char {
        '&' => html.push_str("&amp;"),
        '<' => html.push_str("&lt;"),
        '>' => html.push_str("&gt;"),
        '"' => html.push_str("&quot;"),
        '\'' => html.push_str("&#39;"),
        _ if is_treacherous(char) => {
            let _ = write!(html, "<span class=\"unseen\">U+{:04X}</span>", u32::from(char));
        }
        _ => html.push(char),
    }
}

impl fmt::Display for Inert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Inert {}

/// A text of any length: the beginning, and behind a fold the whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folded {
    /// What is seen at once; all of it, unless there is a `whole`.
    pub open: Inert,
    /// The whole text, when that is more.
    pub whole: Option<Inert>,
    /// How much it is, for the fold.
    pub size: String,
}

impl Folded {
    /// Folds a text if it is long.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let by_lines = text.match_indices('\n').nth(LINES).map(|(at, _)| at);
        let by_length = text.char_indices().nth(OPEN).map(|(at, _)| at);
        let end = by_lines.into_iter().chain(by_length).min();
        match end {
            None => Self { open: Inert::text(text), whole: None, size: String::new() },
            Some(end) => Self {
                open: Inert::text(&format!("{}…", text[..end].trim_end())),
                whole: Some(Inert::text(text)),
                size: size(text),
            },
        }
    }
}

fn size(text: &str) -> String {
    let lines = text.lines().count();
    let characters = text.chars().count();
    match characters {
        0..10_000 => format!("{characters} characters in {lines} lines"),
        _ => format!("{} thousand characters in {lines} lines", characters / 1000),
    }
}

/// A value as people read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readable {
    /// Nothing is there.
    Nothing,
    /// A text, a number, a truth; JSON of what is too deep to be laid out.
    Text(Folded),
    /// JSON of what is too deep to be laid out.
    Code(Folded),
    /// Things one below the other.
    List(Vec<Folded>),
    /// Things with names.
    Fields(Vec<(Inert, Folded)>),
    /// Several of these, one below the other.
    Groups(Vec<Vec<(Inert, Folded)>>),
}

impl Readable {
    /// Lays a value out.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nothing,
            Value::String(text) if text.is_empty() => Self::Nothing,
            Value::Array(items) if items.is_empty() => Self::Nothing,
            Value::Object(fields) if fields.is_empty() => Self::Nothing,
            Value::Array(items) if items.len() <= LISTED => {
                let things = || items.iter().map(plain).collect::<Option<_>>().map(Self::List);
                let groups = || items.iter().map(fields).collect::<Option<_>>().map(Self::Groups);
                things().or_else(groups).unwrap_or_else(|| code(value))
            }
            Value::Object(_) => fields(value).map_or_else(|| code(value), Self::Fields),
            Value::Array(_) => code(value),
            plain => Self::Text(Folded::new(&words(plain))),
        }
    }
}

/// A mapping as things with names; one inside of it as things with two names. Nothing of what is deeper or has
/// more of them than are laid out.
fn fields(value: &Value) -> Option<Vec<(Inert, Folded)>> {
    let mut named = Vec::new();
    for (name, value) in value.as_object()? {
        let inside = value.as_object().filter(|inside| !inside.is_empty());
        match inside {
            None => named.push((name.clone(), plain(value)?)),
            Some(inside) => {
                for (inner, value) in inside {
                    named.push((format!("{name} {inner}"), plain(value)?));
                }
            }
        }
    }
    let shown = |(name, value): (String, Folded)| (Inert::line(&name.replace('_', " ")), value);
    (named.len() <= LISTED).then(|| named.into_iter().map(shown).collect())
}

/// What has no parts, or only a few short ones.
fn plain(value: &Value) -> Option<Folded> {
    match value {
        Value::Array(items) => {
            let words: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            Some(Folded::new(&words?.join("; ")))
        }
        Value::Object(_) => None,
        plain => Some(Folded::new(&words(plain))),
    }
}

fn code(value: &Value) -> Readable {
    Readable::Code(Folded::new(&format!("{value:#}")))
}

/// A value without parts in words.
#[must_use]
pub fn words(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn markup_is_text_and_what_cannot_be_seen_is_written_out() {
        let hostile = "<script>alert('1')</script>&amp; \"\u{202e}evil\u{200b}\u{1b}[2J";
        assert_eq!(
            Inert::text(hostile).to_string(),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;amp; &quot;\
             <span class=\"unseen\">U+202E</span>evil<span class=\"unseen\">U+200B</span>\
             <span class=\"unseen\">U+001B</span>[2J"
        );
        assert_eq!(Inert::text("a\r\nb\rc").to_string(), "a\nb<span class=\"unseen\">U+000D</span>c");
        assert_eq!(Inert::line("a\r\nb\tc").to_string(), "a  b c");
    }

    #[test]
    fn a_long_text_is_folded_and_nothing_of_it_is_lost() {
        let line = "x".repeat(100_000);
        let folded = Folded::new(&line);
        assert_eq!(folded.whole, Some(Inert::text(&line)));
        assert!(folded.open.to_string().len() < 2_000);
        let many = "y\n".repeat(31);
        assert!(Folded::new(&many).whole.is_some());
        assert_eq!(Folded::new("short").whole, None);
    }

    #[test]
    fn a_glimpse_is_one_line_of_few_characters() {
        assert_eq!(Inert::glimpse("a\n\n b   c", 10).to_string(), "a b c");
        assert_eq!(Inert::glimpse("ääääää", 3).to_string(), "äää…");
    }

    #[test]
    fn a_value_is_laid_out_as_far_as_people_can_read_it() {
        assert_eq!(Readable::of(&json!(null)), Readable::Nothing);
        assert!(
            matches!(Readable::of(&json!({"fit": 0.9, "unknown": ["a", "b"]})), Readable::Fields(fields) if fields.len() == 2)
        );
        let inside = Readable::of(&json!({"last": {"at": "noon", "of": 1}}));
        let names = |fields: &[(Inert, Folded)]| -> Vec<String> {
            fields.iter().map(|(name, _)| name.to_string()).collect()
        };
        assert!(
            matches!(&inside, Readable::Fields(fields) if names(fields) == ["last at", "last of"]),
            "{inside:?}"
        );
        assert!(matches!(Readable::of(&json!({"deep": {"er": {"still": 1}}})), Readable::Code(_)));
        assert!(
            matches!(Readable::of(&json!([{"a": 1}, {"b": 2}])), Readable::Groups(groups) if groups.len() == 2)
        );
        assert!(matches!(Readable::of(&json!([{"a": 1}, [{"b": 2}]])), Readable::Code(_)));
        assert!(matches!(Readable::of(&json!(["a", "b"])), Readable::List(items) if items.len() == 2));
    }

    proptest! {
        #[test]
        fn no_text_brings_a_tag_an_attribute_or_an_unseen_character(text in any::<String>()) {
            for html in [Inert::text(&text), Inert::line(&text), Inert::glimpse(&text, 20)] {
                let html = html.to_string();
                let bare = html.split("<span class=\"unseen\">U+").map(|part| {
                    part.split_once("</span>").filter(|(code, _)| code.bytes().all(|b| b.is_ascii_hexdigit())).map_or(part, |(_, rest)| rest)
                }).collect::<String>();
                prop_assert!(!bare.contains(['<', '>', '"', '\'']), "{html}");
                prop_assert!(!bare.chars().any(|char| is_treacherous(char) && char != '\n' && char != '\t'), "{html}");
            }
        }
    }
}
