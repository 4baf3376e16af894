//! Characters that make a text look like something else than it is, and texts with all of them made visible.

use std::fmt::Write;

/// Whether a character moves a cursor, hides, or turns what follows: wherever such a text is shown to a
/// person it is made visible. Line ends and tabs are control characters too; who shows texts of several lines
/// takes them out first.
#[must_use]
pub fn is_treacherous(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' // soft hyphen: seen at the end of a line alone
            | '\u{34f}' // joins nothing to nothing
            | '\u{61c}' // mark of direction
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // letters without a shape
            | '\u{17b4}' | '\u{17b5}' // vowels without a shape
            | '\u{180b}'..='\u{180f}' // Mongolian selectors
            | '\u{200b}'..='\u{200f}' // no width; marks of direction
            | '\u{2028}'..='\u{202e}' // line ends; turns of direction (Trojan Source)
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}' // text between the lines
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' // controls of shorthand and of music
            | '\u{e0000}'..='\u{e0fff}') // tags and selectors: invisible bytes
}

/// A text with everything treacherous written out, as `⟨U+202E⟩`: what a person reads is then what stands there.
/// It may have several lines; `\r\n` is a line end.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\t' => shown.push(char),
            _ if is_treacherous(char) => {
                let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(char));
            }
            _ => shown.push(char),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_hides_is_written_out_and_what_is_seen_stays() {
        assert_eq!(
            visible("pay\u{202e}evil\u{200b}\u{e0041}\u{1b}[1m\rx"),
            "pay⟨U+202E⟩evil⟨U+200B⟩⟨U+E0041⟩⟨U+001B⟩[1m⟨U+000D⟩x"
        );
        assert_eq!(visible("Grüße, 你好 👋\r\n\tzwei"), "Grüße, 你好 👋\n\tzwei");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_in_what_is_shown(text in any::<String>()) {
            prop_assert!(visible(&text).chars().all(|it| it == '\n' || it == '\t' || !is_treacherous(it)));
        }
    }

    #[test]
    fn what_hides_or_turns_is_told_from_what_is_written() {
        for char in
            ['\u{0}', '\u{1b}', '\n', '\u{85}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{e0041}', '\u{e0100}']
        {
            assert!(is_treacherous(char), "{}", char.escape_unicode());
        }
        for char in "Grüße, 世界 — ¿qué? 👍🏽 שלום\u{fe0f}\u{a0}".chars() {
            assert!(!is_treacherous(char), "{}", char.escape_unicode());
        }
    }
}
