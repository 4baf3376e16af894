//! Text from outside, made harmless before it goes into a message: what cannot be seen is shown, and no
//! more of it than fits.

use serde_json::Value;

/// Text with everything invisible made visible: control characters, turns of direction, zero-width text,
/// tags. What a person reads is then what stands there.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\t' => shown.push(character),
            _ if hides(character) => shown.push_str(&format!("‹U+{:04X}›", u32::from(character))),
            _ => shown.push(character),
        }
    }
    shown
}

/// The same on one line.
#[must_use]
pub fn line(text: &str) -> String {
    visible(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Characters that nobody sees, or that change how others are seen.
fn hides(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' // Mongolian selectors
            | '\u{200b}'..='\u{200f}' // zero width, marks of direction
            | '\u{2028}'..='\u{202e}' // line ends, turns of direction
            | '\u{2060}'..='\u{206f}' // joiners, isolates
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}') // tags, more selectors
}

/// The first characters, and an ellipsis when there are more than `most`.
#[must_use]
pub fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// How many bytes a text takes in JSON, its quotes aside.
#[must_use]
pub fn cost(text: &str) -> usize {
    text.chars().map(cost_of).sum()
}

fn cost_of(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\t' => 2,
        // Slack writes these as entities.
        '&' | '<' | '>' => 5,
        _ if character.is_control() => 6,
        _ => character.len_utf8(),
    }
}

/// The first characters that take at most `most` bytes in JSON, and how many are left out.
#[must_use]
pub fn cut(text: &str, most: usize) -> (&str, usize) {
    let mut taken = 0;
    for (at, character) in text.char_indices() {
        taken += cost_of(character);
        if taken > most {
            return (&text[..at], text[at..].chars().count());
        }
    }
    (text, 0)
}

/// Escapes what Slack reads as markup in a text that it does read:
/// <https://docs.slack.dev/messaging/formatting-message-text#escaping>.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A value as a person reads it: texts as they are, everything else as JSON.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text),
        Value::Null => "nothing".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            // Inside JSON, too, what hides is to be seen; line ends are written as `\n` there.
            visible(&serde_json::to_string_pretty(value).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_hides_is_shown_and_what_is_seen_stays() {
        assert_eq!(
            visible("pay\u{202e}evil\u{200b}\u{e0041}\u{1b}[1m"),
            "pay‹U+202E›evil‹U+200B›‹U+E0041›‹U+001B›[1m"
        );
        assert_eq!(visible("Grüße, 你好 👋\r\n\tzwei"), "Grüße, 你好 👋\n\tzwei");
        assert_eq!(line(" a\n\n b "), "a b");
    }

    #[test]
    fn a_text_for_notifications_can_neither_mention_nor_link() {
        assert_eq!(
            escape("<!channel> <https://x.example|bank> &"),
            "&lt;!channel&gt; &lt;https://x.example|bank&gt; &amp;"
        );
    }

    proptest! {
        #[test]
        fn what_is_cut_fits_and_nothing_is_lost_uncounted(text in any::<String>(), most in 0usize..200) {
            let (kept, left) = cut(&text, most);
            prop_assert!(cost(kept) <= most);
            prop_assert_eq!(kept.chars().count() + left, text.chars().count());
            prop_assert!(short(&text, most.max(1)).chars().count() <= most.max(1));
        }

        #[test]
        fn nothing_hidden_is_left_in_what_is_shown(text in any::<String>()) {
            prop_assert!(visible(&text).chars().all(|it| it == '\n' || it == '\t' || !hides(it)));
        }

        #[test]
        fn a_text_costs_at_least_what_it_takes_in_json(text in any::<String>()) {
            let text = visible(&text);
            prop_assert!(serde_json::to_string(&text).unwrap().len() - 2 <= cost(&text));
        }
    }
}
