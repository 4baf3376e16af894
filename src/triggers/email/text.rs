//! Characters that never enter Steward, and cuts at a limit.
//!
//! What a person sees and what a model reads must be the same text. So beside control characters
//! (PostgreSQL refuses U+0000) these are left out: characters without width, with which words are
//! hidden or split; overrides of the reading direction; tag characters and variation selectors,
//! which can carry a whole invisible message. The price: joined emoji come apart, and scripts
//! that use joiners lose a hint about letter forms.

use super::MAX_BODY;

/// The body as it is kept: LF lines without trailing white space, at most [`MAX_BODY`]
/// characters; and whether something was cut off.
pub(super) fn body(raw: &str) -> (String, bool) {
    let mut kept = String::new();
    for line in raw.replace("\r\n", "\n").split(['\n', '\r', '\u{2028}', '\u{2029}']) {
        let line: String = line.chars().filter(|&ch| ch == '\t' || is_kept(ch)).collect();
        kept.push_str(line.trim_end());
        kept.push('\n');
    }
    let kept = kept.trim_matches('\n');
    match kept.char_indices().nth(MAX_BODY) {
        Some((end, _)) => (kept[..end].trim_end().to_owned(), true),
        None => (kept.to_owned(), false),
    }
}

/// One line: runs of white space become a space, at most `limit` characters.
pub(super) fn line(raw: &str, limit: usize) -> String {
    let mut kept = String::new();
    for word in raw.split_whitespace() {
        let word: String = word.chars().filter(|&ch| is_kept(ch)).collect();
        if !kept.is_empty() && !word.is_empty() {
            kept.push(' ');
        }
        kept.push_str(&word);
    }
    match kept.char_indices().nth(limit) {
        Some((end, _)) => kept[..end].trim_end().to_owned(),
        None => kept,
    }
}

fn is_kept(ch: char) -> bool {
    let unseen = matches!(ch,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' // soft hyphen, joiners, marks
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers
        | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}' // zero width, isolates
        | '\u{202a}'..='\u{202e}' // direction overrides
        | '\u{fe00}'..='\u{fe0f}' | '\u{fff0}'..='\u{fffb}' // variation selectors, annotations
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' // musical and tag characters
    );
    !ch.is_control() && !unseen
}
