//! What the owner says in a reply: pure, from the text of the mail to a command. Quoted text and signatures
//! are cut first. There is no word that approves: whoever can send mail in the owner's name must not be able
//! to say yes in it, whatever is asked.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::domain::duration::Span;
use crate::reviews::snooze;

/// The longest text taken, characters.
const MAX_TEXT: usize = 4_000;

/// How long a snooze may be.
const SNOOZE: std::ops::RangeInclusive<u64> = 60..=30 * 86_400;

/// Words that would mean yes.
const YES: [&str; 10] =
    ["approve", "approved", "yes", "ok", "okay", "go", "send", "accept", "lgtm", "confirm"];

/// What a reply says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A remark.
    Comment(String),
    /// Not now.
    Snooze(Timestamp),
    /// No.
    Reject(String),
    /// It would be yes; in a mail it is a remark.
    Yes(String),
    /// It would be a snooze, but nobody knows until when.
    When(String),
    /// Nothing, once what was quoted is cut.
    Nothing,
}

/// What the text of a reply says.
#[must_use]
pub fn read(body: &str, now: Timestamp, zone: &TimeZone) -> Command {
    let text = own_words(body);
    let Some((first, rest)) = text.split_once('\n').or((!text.is_empty()).then_some((&*text, ""))) else {
        return Command::Nothing;
    };
    let (word, more) = first.split_once(char::is_whitespace).unwrap_or((first, ""));
    let bare = word.trim_end_matches([':', ',', '.', '!', ';']).to_lowercase();
    let joined = || format!("{}\n{}", more.trim(), rest.trim()).trim().to_owned();
    match bare.as_str() {
        "comment" => Command::Comment(joined()),
        "reject" | "rejected" => Command::Reject(joined()),
        "snooze" => match until(more.trim(), now, zone) {
            Some(until) => Command::Snooze(until),
            None => Command::When(text),
        },
        // A sentence that begins with such a word is a sentence.
        yes if YES.contains(&yes) && first.split_whitespace().count() <= 4 => Command::Yes(text),
        _ => Command::Comment(text),
    }
}

/// `2h`, `3d`, `tomorrow`.
fn until(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let word = text.split_whitespace().next()?.trim_end_matches(['.', ',', '!']).to_lowercase();
    if word == "tomorrow" {
        return snooze::tomorrow(now, zone);
    }
    let span: Span = word.parse().ok()?;
    SNOOZE.contains(&span.0.as_secs()).then(|| span.after(now))
}

/// What the sender wrote himself: without quotes, the line that announces them, and a signature.
fn own_words(body: &str) -> String {
    let mut own: Vec<&str> = Vec::new();
    let lines: Vec<&str> = body.lines().map(str::trim_end).collect();
    for (at, line) in lines.iter().enumerate() {
        let next = lines[at + 1..].iter().find(|next| !next.is_empty()).copied().unwrap_or_default();
        if ends_own_words(line, next) {
            break;
        }
        if !line.trim_start().starts_with('>') {
            own.push(line);
        }
    }
    let text = own.join("\n").trim().to_owned();
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// Where a mail program begins what is not the sender's: a signature (RFC 3676, 4.3), or what is quoted.
fn ends_own_words(line: &str, next: &str) -> bool {
    let bare = line.trim();
    let rule = |char: char| bare.len() >= 10 && bare.chars().all(|one| one == char);
    let announces = bare.ends_with(':')
        && (next.trim_start().starts_with('>') || bare.contains('@') || bare.ends_with(" wrote:"));
    // `On … <name@example.com>` may be broken into two lines.
    let broken = bare.starts_with("On ") && next.trim_end().ends_with("wrote:");
    let original = bare.starts_with("-----") && bare.ends_with("-----");
    let outlook = bare.starts_with("From: ") && bare.contains('@');
    line == "--" || rule('_') || announces || broken || original || outlook
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-03-02T22:30:00Z".parse().unwrap()
    }

    fn said(body: &str) -> Command {
        read(body, now(), &TimeZone::get("Europe/Oslo").unwrap())
    }

    #[test]
    fn the_first_word_is_the_command_and_anything_else_a_comment() {
        assert_eq!(
            said("Reject: too expensive\nask again in May"),
            Command::Reject("too expensive\nask again in May".into())
        );
        assert_eq!(
            said("comment please use her first name"),
            Command::Comment("please use her first name".into())
        );
        assert_eq!(said("Please use her first name."), Command::Comment("Please use her first name.".into()));
        assert_eq!(
            said("rejection is not what I want"),
            Command::Comment("rejection is not what I want".into())
        );
        assert_eq!(said(" \n\n"), Command::Nothing);
    }

    #[test]
    fn a_snooze_is_a_length_of_time_or_the_owners_tomorrow() {
        let at = |text: &str| Command::Snooze(text.parse().unwrap());
        assert_eq!(said("snooze 2h"), at("2026-03-03T00:30:00Z"));
        // Half past eleven at night in Oslo: tomorrow is in eight and a half hours.
        assert_eq!(said("Snooze tomorrow."), at("2026-03-03T07:00:00Z"));
        for unclear in ["snooze", "snooze forever", "snooze 10s", "snooze 400d", "snooze -2h"] {
            assert!(matches!(said(unclear), Command::When(_)), "{unclear}");
        }
    }

    #[test]
    fn no_word_approves() {
        for yes in ["approve", "Approved!", "yes", "OK", "yes, send it please", "LGTM"] {
            assert!(matches!(said(yes), Command::Yes(_)), "{yes}");
        }
        let sentence = "ok but please change the date to Friday before anything is sent";
        assert!(matches!(said(sentence), Command::Comment(_)));
    }

    #[test]
    fn quotes_and_signatures_are_not_the_owners_words() {
        let quoted = "reject not now\n\nOn Mon, 2 Mar 2026 at 10:00 Steward <s@x.example> wrote:\n> approve\n> snooze 2h";
        assert_eq!(said(quoted), Command::Reject("not now".into()));
        let broken = "Fine by me so far, thank you\n\nOn Mon, 2 Mar 2026 at 10:00,\nSteward wrote:\n\n> x";
        assert_eq!(said(broken), Command::Comment("Fine by me so far, thank you".into()));
        let german = "Bitte kürzer\n\nAm 02.03.26 schrieb Steward <s@x.example>:\n> x";
        assert_eq!(said(german), Command::Comment("Bitte kürzer".into()));
        let signed = "snooze 2h\n--\nMara\nreject everything";
        assert!(matches!(said(signed), Command::Snooze(_)));
        let outlook =
            "Hello there my friend\n\n________________________________\nFrom: Steward <s@x.example>\nreject";
        assert_eq!(said(outlook), Command::Comment("Hello there my friend".into()));
        let above = "> reject this?\nNo, keep it as it is";
        assert_eq!(said(above), Command::Comment("No, keep it as it is".into()));
        assert_eq!(said("> reject"), Command::Nothing);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic_and_never_grows(body in any::<String>()) {
            if let Command::Comment(text) | Command::Reject(text) | Command::Yes(text) = said(&body) {
                prop_assert!(text.chars().count() <= MAX_TEXT && text.len() <= body.len());
            }
        }
    }
}
