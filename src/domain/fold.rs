//! Text as it reads to a person, whatever characters it is made of: for finding words in it, never for
//! showing or sending it.
//!
//! People take `pаypal` with a Cyrillic `а`, `ｐａｙｐａｌ` in full width and `pay​pal` with a zero-width space for the
//! same word. Folding makes them the same: characters nobody sees are left out, look-alikes become the Latin
//! letter or the digit they look like, everything is in lower case. (After the idea of Unicode's skeletons,
//! UTS 39; the table is the part of it that is used to deceive.)

use std::collections::HashMap;
use std::sync::LazyLock;

static TAKEN_FOR: LazyLock<HashMap<char, char>> =
    LazyLock::new(|| ALIKE.iter().flat_map(|(alike, letter)| alike.chars().map(|c| (c, *letter))).collect());

/// Look-alikes beyond full width, each with the character it is taken for. Lower case; capitals are
/// lowered before.
const ALIKE: &[(&str, char)] = &[
    ("аạąàáâãäåāɑα𝐚𝗮", 'a'),
    ("ьƅ", 'b'),
    ("сϲçćč", 'c'),
    ("ԁɗđ", 'd'),
    ("еёęèéêëēєҽ", 'e'),
    ("ƒ", 'f'),
    ("ɡğ", 'g'),
    ("һհ", 'h'),
    ("іїıìíîïīι", 'i'),
    ("јϳ", 'j'),
    ("кκķ", 'k'),
    ("ӏłļ", 'l'),
    ("м", 'm'),
    ("ոñńņ", 'n'),
    ("оօοòóôõöøōσ", 'o'),
    ("рρ", 'p'),
    ("ԛ", 'q'),
    ("гŕ", 'r'),
    ("ѕśşš", 's'),
    ("тτţ", 't'),
    ("υùúûüūս", 'u'),
    ("ѵν", 'v'),
    ("ѡԝω", 'w'),
    ("хχ×", 'x'),
    ("уүýÿγ", 'y'),
    ("ʐžźż", 'z'),
];

/// Whether a character takes no room on the screen, or changes only how others are shown.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a character turns the direction in which others are read.
#[must_use]
pub fn turns_direction(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in lower case, in the characters it is taken for, white space run together.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !is_invisible(*c)) {
        match c {
            c if c.is_ascii() && !c.is_ascii_whitespace() => folded.push(c.to_ascii_lowercase()),
            c if c.is_whitespace() => {
                if !folded.ends_with(' ') {
                    folded.push(' ');
                }
            }
            c => c.to_lowercase().for_each(|c| folded.push(taken_for(c))),
        }
    }
    folded
}

fn taken_for(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => {
            let ascii = u32::from(c) - 0xfee0;
            char::from_u32(ascii).map_or(c, |c| c.to_ascii_lowercase())
        }
        // Mathematical letters: runs of twenty-six, capitals before small ones.
        '\u{1d400}'..='\u{1d6a3}' => letter((u32::from(c) - 0x1d400) % 26).unwrap_or(c),
        '\u{1d7ce}'..='\u{1d7ff}' => char::from_digit((u32::from(c) - 0x1d7ce) % 10, 10).unwrap_or(c),
        '‘' | '’' | '‛' | 'ʼ' => '\'',
        '“' | '”' | '„' => '"',
        '‐'..='―' | '−' => '-',
        '。' | '․' => '.',
        _ => TAKEN_FOR.get(&c).copied().unwrap_or(c),
    }
}

fn letter(nth: u32) -> Option<char> {
    char::from_u32(u32::from('a') + nth)
}

/// What a domain looks like at a glance: folded, with the groups that people read as one letter.
#[must_use]
pub fn glance(domain: &str) -> String {
    let folded = fold(domain).replace('0', "o").replace(['1', '|'], "l").replace('5', "s").replace('3', "e");
    folded.replace("rn", "m").replace("vv", "w").replace("cl", "d").replace('i', "l")
}

/// A text of somebody else's in a sentence of ours: one line, nothing invisible, at most `most` characters.
#[must_use]
pub fn quoted(text: &str, most: usize) -> String {
    let plain = text.chars().filter(|c| !is_invisible(*c)).map(|c| if c.is_control() { ' ' } else { c });
    let mut quoted: String = plain.clone().take(most).collect();
    if plain.count() > most {
        quoted.push('…');
    }
    quoted
}

/// Whether a folded text has a word that begins so. What stands before it must be no letter or digit:
/// `price` is in no `enterprise`.
#[must_use]
pub fn has_word(folded: &str, word: &str) -> bool {
    let begins = word.chars().next().is_some_and(char::is_alphanumeric);
    folded
        .match_indices(word)
        .any(|(at, _)| !begins || !folded[..at].chars().next_back().is_some_and(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_the_same_folds_to_the_same() {
        for odd in ["paypal", "PayPal", "p\u{0430}yp\u{0430}l", "ｐａｙＰＡＬ", "pay\u{200b}pal", "𝐩𝐚𝐲𝐩𝐚𝐥"]
        {
            assert_eq!(fold(odd), "paypal", "{odd}");
        }
        assert_eq!(fold("Ignore\u{00a0}\n  previous"), "ignore previous");
        assert_eq!(glance("paypa1.example"), glance("paypaI.example"));
        assert_eq!(glance("harb0urandp1ne.example"), glance("harbourandpine.example"));
    }

    #[test]
    fn a_word_begins_where_no_other_goes_on() {
        assert!(has_word("the price is", "price") && has_word("liability", "liab"));
        assert!(!has_word("an enterprise", "price"));
        assert!(has_word("that is 5€ more", "€"));
    }
}
