//! Text of others, made inert: as lines that nothing hides in, for plain text and for HTML alike. Whatever
//! moves a cursor, has no width or turns the reading direction is written out as `⟨U+202E⟩`; long lines are
//! folded; addresses of the web are written so that no mail program makes a link of them.

use serde_json::Value;

use crate::domain::text;

/// The longest line, characters: mail is read in narrow windows.
const LINE: usize = 96;

/// The most lines shown of one thing; the page has all of it.
const LINES: usize = 60;

/// The longest text of one line, such as a title, characters.
const TITLE: usize = 200;

/// One line: line ends become spaces, at most 200 characters.
#[must_use]
pub fn line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(TITLE) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(&text),
    }
}

/// The lines of a text, each at most 96 characters, at most 60 of them; what is left out is said.
#[must_use]
pub fn lines(text: &str) -> Vec<String> {
    lines_to(text, LINES)
}

/// As [`lines`], at most `most` of them.
#[must_use]
pub fn lines_to(text: &str, most: usize) -> Vec<String> {
    let mut shown = Vec::new();
    let mut left = 0usize;
    let text = text.replace("\r\n", "\n");
    for whole in text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        // Only as much of a line is made visible as is shown: it may be as long as a mail.
        let mut rest = whole;
        loop {
            if shown.len() >= most {
                left += rest.chars().count();
                break;
            }
            let cut = cut(rest);
            shown.push(visible(&rest[..cut]));
            rest = &rest[cut..];
            if rest.is_empty() {
                break;
            }
        }
    }
    if left > 0 {
        shown.push(format!("… and {left} more characters: the page has all of it."));
    }
    shown
}

/// Where a line is folded: behind the last space that fits, if there is one in its second half.
fn cut(text: &str) -> usize {
    let Some((end, _)) = text.char_indices().nth(LINE) else { return text.len() };
    match text[..end].rfind(' ') {
        Some(space) if space >= end / 2 => space + 1,
        _ => end,
    }
}

/// The same with everything treacherous written out, and no address of the web left whole.
fn visible(text: &str) -> String {
    let shown = text::visible(text).replace('\t', "    ");
    shown.replace("://", "[:]//").replace("www.", "www[.]").replace("WWW.", "WWW[.]")
}

/// A value as a person reads it: a text as it is, a list one entry a line, anything else as JSON.
#[must_use]
pub fn words(value: &Value) -> String {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => Some("nothing".to_owned()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    };
    match value {
        Value::Array(all) if !all.is_empty() && all.iter().all(|one| plain(one).is_some()) => {
            all.iter().filter_map(plain).collect::<Vec<_>>().join("\n")
        }
        value => plain(value).unwrap_or_else(|| format!("{value:#}")),
    }
}

/// `text` for HTML, as text and inside of quotes alike.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::text::is_treacherous;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_hides_or_turns_is_written_out_and_nothing_is_left_to_click() {
        let shown = line("pay\u{202e}exe.\u{200b}x\nhttps://evil.example www.evil.example");
        assert_eq!(shown, "pay⟨U+202E⟩exe.⟨U+200B⟩x https[:]//evil.example www[.]evil.example");
    }

    #[test]
    fn a_line_of_100_kilobytes_is_folded_and_the_rest_is_counted() {
        let shown = lines(&"x".repeat(100_000));
        assert_eq!(shown.len(), LINES + 1);
        assert!(shown[..LINES].iter().all(|line| line.chars().count() == LINE));
        assert_eq!(
            shown[LINES],
            format!("… and {} more characters: the page has all of it.", 100_000 - LINES * LINE)
        );
    }

    #[test]
    fn a_long_line_is_folded_between_words() {
        let text = "word ".repeat(40);
        assert!(lines(&text).iter().all(|line| line.is_empty() || line.ends_with("word ")));
    }

    #[test]
    fn a_value_is_read_as_a_person_reads_it() {
        assert_eq!(words(&json!(["a", "b"])), "a\nb");
        assert_eq!(words(&json!(null)), "nothing");
        assert_eq!(words(&json!({"a": 1})), "{\n  \"a\": 1\n}");
    }

    proptest! {
        #[test]
        fn no_text_ends_a_tag_opens_one_or_keeps_what_hides(text in any::<String>()) {
            let escaped: String = lines(&text).iter().map(|line| escape(line)).collect();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(!escaped.chars().any(is_treacherous));
            prop_assert!(!escaped.contains("://"));
        }
    }
}
