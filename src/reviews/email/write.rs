//! What mail to the owner says: each letter as a list of blocks, which become plain text and simple HTML.
//! Pure. Nothing remote is in it: no picture, no style sheet, no font, nothing that tells who read it when.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::show::{escape, line, lines, lines_to, words};
use crate::domain::risk::RiskClass;
use crate::reviews::digest::DayDigest;
use crate::reviews::words::{origin, wants};
use crate::store::notices::NoticeRow;
use crate::store::reviews::ReviewRow;

/// Lines shown of each thing in the digest.
const BRIEF: usize = 2;

/// A letter before it is addressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// One line that may be read over a shoulder: what and how grave, never what is in it.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// A piece of a letter; the texts in it are anybody's.
enum Block {
    /// A sentence of Steward's own.
    Say(String),
    /// A heading of Steward's own.
    Head(String),
    /// Things one after the other.
    List(Vec<String>),
    /// Something shown as it is, under its name.
    Quote(String, Vec<String>),
    /// The link, the only one.
    Link(&'static str, String),
}

/// How a review is answered from a mail.
#[derive(Clone, Debug)]
pub struct Ways<'a> {
    /// The link to its page.
    pub link: &'a str,
    /// Until when the link is good.
    pub until: Timestamp,
    /// Whether a reply reaches it.
    pub reply: bool,
    /// The owner's time zone.
    pub zone: &'a TimeZone,
}

/// A question.
#[must_use]
pub fn review(row: &ReviewRow, ways: &Ways<'_>, reminder: bool) -> Written {
    let question = &row.question;
    let what = question.action.as_ref().map_or("A question", |action| action.action.as_str());
    let mark = hex::encode(&row.id.0.as_bytes()[..3]);
    let mut blocks = Vec::new();
    if reminder {
        blocks.push(Block::Say("This still waits for you.".into()));
    }
    blocks.push(Block::Say(wants(question.ask, question.form.is_some()).into()));
    blocks.push(Block::List(vec![row.title.clone()]));
    blocks.push(Block::Say(format!("Risk: {}.", question.class().as_str())));
    if !question.reasons.is_empty() {
        blocks.push(Block::Head("Why you are asked".into()));
        blocks.push(Block::List(question.reasons.clone()));
    }
    if let Some(action) = &question.action {
        blocks.push(Block::Head(format!("What will happen: {}", action.action)));
        let params = action.params.as_object().into_iter().flatten();
        blocks.extend(params.map(|(name, value)| Block::Quote(name.clone(), lines(&words(value)))));
    }
    if !question.artifacts.is_empty() {
        blocks.push(Block::Head("What it rests on".into()));
        blocks.extend(question.artifacts.iter().map(|artifact| {
            let name = format!("{} ({})", artifact.title, origin(artifact.label));
            Block::Quote(name, lines(&words(&artifact.value)))
        }));
    }
    blocks.push(Block::Link("Look at it and decide", ways.link.to_owned()));
    let until = moment(ways.until, ways.zone);
    blocks.push(Block::Say(format!(
        "The link decides once, about exactly this, until {until}. Opening it changes nothing."
    )));
    if question.class() == RiskClass::High {
        blocks.push(Block::Say("Because the risk is high, the page asks you to sign in as well.".into()));
    }
    if let Some(due) = row.due_at {
        let due = moment(due, ways.zone);
        blocks.push(Block::Say(format!("Without a decision it expires at {due}, which is never a yes.")));
    }
    if ways.reply {
        blocks.push(Block::Say(
            "Or answer this mail. The first line counts: \u{201c}reject\u{201d} and why, \u{201c}snooze 2h\u{201d}, \
             \u{201c}snooze tomorrow\u{201d}; anything else is kept as a comment. A reply never approves."
                .into(),
        ));
    }
    blocks.push(Block::Say(
        "Addresses of web pages in what others wrote are written with [:] or [.], so that nothing but the link \
         above can be followed."
            .into(),
    ));
    // The word before the subject that mail programs expect of what follows in a thread.
    let again = if reminder { "Re: " } else { "" };
    let subject =
        format!("{again}[Steward] {what} waits for you (risk {}) {mark}", question.class().as_str());
    written(subject, &blocks)
}

/// Something to know.
#[must_use]
pub fn notice(row: &NoticeRow, inbox: &str, zone: &TimeZone) -> Written {
    let times = match row.times {
        1 => format!("It happened at {}.", moment(row.first_at, zone)),
        times => format!("It happened {times} times, first at {}.", moment(row.first_at, zone)),
    };
    let blocks = [
        Block::Say(line(&row.title)),
        Block::Quote("What happened".into(), lines(&row.detail)),
        Block::Say(times),
        Block::Link("Look at it", inbox.to_owned()),
        Block::Say("You hear of it once. It is told again only after you have acknowledged it.".into()),
    ];
    written(format!("[Steward] {}: {}", row.severity, row.kind.replace('_', " ")), &blocks)
}

/// The owner's day.
#[must_use]
pub fn digest(day: &DayDigest, inbox: &str, stop: &str, zone: &TimeZone) -> Written {
    let counted = |all: &[crate::store::digest::Count]| -> String {
        let all: Vec<String> = all.iter().map(|count| format!("{} {}", count.number, count.name)).collect();
        if all.is_empty() { "nothing".into() } else { all.join(", ") }
    };
    let mut blocks = vec![Block::Head(format!("Waiting for you: {}", day.waiting_total))];
    if !day.waiting.is_empty() {
        blocks.push(Block::List(
            day.waiting
                .iter()
                .map(|one| {
                    format!(
                        "{} (risk {}, since {})",
                        line(&one.title),
                        one.risk.as_str(),
                        moment(one.opened_at, zone)
                    )
                })
                .collect(),
        ));
    }
    blocks.push(Block::Head(format!("What left the house on {}: {}", day.of, counted(&day.went_out_total))));
    if !day.went_out.is_empty() {
        let told = day.went_out.iter().map(|one| format!("{} to {}: {}", one.action, one.target, one.title));
        blocks.push(Block::List(told.map(|text| lines_to(&text, BRIEF).join(" ")).collect()));
    }
    blocks.push(Block::Say(format!("Runs: {}.", counted(&day.runs))));
    blocks.push(Block::Say(format!(
        "Models cost {} ({} calls), {} since the first of the month.",
        day.spend.yesterday, day.spend.calls, day.spend.month
    )));
    if !day.notices.is_empty() {
        blocks.push(Block::Head("What you should know".into()));
        let told = day.notices.iter().map(|one| format!("{}: {}", one.severity, line(&one.title)));
        blocks.push(Block::List(told.collect()));
    }
    blocks.push(Block::Link("Open the inbox", inbox.to_owned()));
    blocks.push(Block::Link("No more of these", stop.to_owned()));
    written(format!("[Steward] Your day, {}: {} waiting", day.day, day.waiting_total), &blocks)
}

/// Why what a reply said was not done.
#[must_use]
pub fn explanation(why: &str, inbox: &str) -> Written {
    let blocks = [
        Block::Say(line(why)),
        Block::Link("Look at it and decide", inbox.to_owned()),
        Block::Say("Nobody answers this mail, and a reply never approves.".into()),
    ];
    written("Re: [Steward] Your reply".into(), &blocks)
}

/// A moment on the owner's clock.
#[must_use]
pub fn moment(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

const STYLE: &str = "font-family:sans-serif;max-width:44em;line-height:1.4";
const QUOTE: &str = "white-space:pre-wrap;word-break:break-word;margin:0 0 1em;padding:.5em .8em;\
                     border-left:3px solid #999;background:#f4f4f4";

fn written(subject: String, blocks: &[Block]) -> Written {
    let (mut text, mut html) = (String::new(), String::new());
    for block in blocks {
        match block {
            Block::Say(said) => {
                text.push_str(&format!("{}\n\n", wrapped(said, "")));
                html.push_str(&format!("<p>{}</p>\n", escape(said)));
            }
            Block::Head(said) => {
                let said = line(said);
                text.push_str(&format!("{said}\n{}\n", "-".repeat(said.chars().count().min(72))));
                html.push_str(&format!("<h3>{}</h3>\n", escape(&said)));
            }
            Block::List(all) => {
                let all: Vec<String> = all.iter().map(|one| line(one)).collect();
                all.iter().for_each(|one| text.push_str(&format!("- {}\n", wrapped(one, "  "))));
                text.push('\n');
                let items: String = all.iter().map(|one| format!("<li>{}</li>", escape(one))).collect();
                html.push_str(&format!("<ul>{items}</ul>\n"));
            }
            Block::Quote(name, shown) => {
                let name = line(name);
                text.push_str(&format!("{name}:\n"));
                shown.iter().for_each(|one| text.push_str(&format!("  | {one}\n")));
                text.push('\n');
                let shown = escape(&shown.join("\n"));
                html.push_str(&format!(
                    "<div><b>{}</b></div>\n<pre style=\"{QUOTE}\" dir=\"auto\">{shown}</pre>\n",
                    escape(&name)
                ));
            }
            Block::Link(says, url) => {
                text.push_str(&format!("{says}:\n{url}\n\n"));
                let url = escape(url);
                html.push_str(&format!(
                    "<p><a href=\"{url}\" rel=\"noreferrer\">{}</a><br><small>{url}</small></p>\n",
                    escape(says)
                ));
            }
        }
    }
    let head = "<!doctype html><html><head><meta charset=\"utf-8\"><title>Steward</title></head>";
    let html = format!("{head}<body style=\"{STYLE}\">\n{html}</body></html>\n");
    Written { subject: line(&subject), text, html }
}

/// Words in lines of at most 76 characters; those after the first begin with `indent`.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut out, mut width) = (String::new(), 0);
    for word in text.split_whitespace() {
        let long = word.chars().count();
        if width > 0 && width + 1 + long > 76 {
            out.push('\n');
            out.push_str(indent);
            width = indent.len();
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += long;
    }
    out
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
