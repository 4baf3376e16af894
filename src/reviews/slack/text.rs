//! Text from outside, made harmless before it goes into a message: what cannot be seen is shown, and no
//! more of it than fits.

use serde_json::Value;

use crate::domain::text::visible;

/// A text with what hides made visible, on one line.
#[must_use]
pub fn line(text: &str) -> String {
    visible(text).split_whitespace().collect::<Vec<_>>().join(" ")
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
    fn a_line_is_one_and_nothing_hides_in_it() {
        assert_eq!(line(" a\n\n b\u{202e} "), "a b⟨U+202E⟩");
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
        fn a_text_costs_at_least_what_it_takes_in_json(text in any::<String>()) {
            let text = visible(&text);
            prop_assert!(serde_json::to_string(&text).unwrap().len() - 2 <= cost(&text));
        }
    }
}
