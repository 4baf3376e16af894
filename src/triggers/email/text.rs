//! Characters that never enter Steward, and cuts at a limit.
//!
//! What a person sees and what a model reads must be the same text. So beside control characters
//! (PostgreSQL refuses U+0000) these are left out: characters without width, with which words are
//! hidden or split; overrides of the reading direction; tag characters and variation selectors,
//! which can carry a whole invisible message. The price: joined emoji come apart, and scripts
//! that use joiners lose a hint about letter forms.

use super::MAX_BODY;
use crate::domain::text::is_treacherous;

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
    !is_treacherous(ch) && !matches!(ch, '\u{fe00}'..='\u{fe0f}') // variation selectors
}
