//! Characters that make a text look like something else than it is.

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
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}' // no width; marks of direction
            | '\u{2028}'..='\u{202e}' // line ends; turns of direction (Trojan Source)
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' // text between the lines
            | '\u{e0000}'..='\u{e0fff}') // tags and selectors: invisible bytes
}

#[cfg(test)]
mod tests {
    use super::*;

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
