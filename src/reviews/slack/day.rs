//! What asks nothing: notices, and the owner's day.

use serde_json::Value;

use crate::domain::risk::RiskClass;
use crate::domain::text::visible;
use crate::reviews::digest::DayDigest;
use crate::reviews::slack::blocks::{Look, Message};
use crate::reviews::slack::kit::{
    actions, bold, bounded, bullets, button, context, header, link, preformatted, rich, section, words,
};
use crate::reviews::slack::limits;
use crate::reviews::slack::text::{cut, escape, line, short};
use crate::store::digest::Count;
use crate::store::notices::NoticeRow;

/// One line of the digest, bytes: as many of them as are shown in each of three lists fit.
const LINE: usize = 100;

/// Lines in each list.
const LINES: usize = 15;

/// Tells of a notice, with a button to say that it was seen.
#[must_use]
pub fn notice(notice: &NoticeRow, look: &Look) -> Message {
    let seen = button("seen", "Seen", &notice.id.to_string(), None);
    told(notice, look, actions(vec![seen]))
}

/// The same once it was seen.
#[must_use]
pub fn seen(notice: &NoticeRow, look: &Look, by: &str) -> Message {
    told(notice, look, context(&[format!("Seen by {by}")]))
}

fn told(notice: &NoticeRow, look: &Look, last: Value) -> Message {
    let severity = match notice.severity.as_str() {
        "critical" => "Something does not work",
        "warning" => "Soon something will not work",
        _ => "Good to know",
    };
    let headline = format!("{severity}: {}", line(&notice.title));
    let detail = visible(&notice.detail);
    let mut body = Vec::new();
    if !detail.trim().is_empty() {
        body.push(preformatted(cut(&detail, limits::SHOWN).0));
    }
    if let Some(run) = notice.run {
        body.push(section(vec![link(&look.run(run), "The run in Steward")]));
    }
    let mut blocks = vec![header(&headline)];
    blocks.extend((!body.is_empty()).then(|| rich(body)));
    let times = match notice.times {
        1 => format!("Happened {}", look.moment(notice.first_at)),
        times => format!("Happened {times} times, first {}", look.moment(notice.first_at)),
    };
    blocks.extend([context(&[times]), last]);
    Message { text: escape(&short(&headline, 300)), blocks }
}

/// The owner's day.
#[must_use]
pub fn digest(day: &DayDigest, look: &Look) -> Message {
    let headline = format!("Your day: {}", day.day.strftime("%A, %-d %B"));
    let mut blocks = vec![header(&headline)];
    let mut list = |title: String, lines: Vec<String>| {
        let mut body = vec![section(vec![bold(&bounded(&line(&title), 3 * LINE))])];
        if !lines.is_empty() {
            body.push(bullets(lines.iter().take(LINES).map(String::as_str), LINE));
        }
        blocks.push(rich(body));
    };
    let waiting = day.waiting.iter().map(|it| match it.risk {
        RiskClass::High => format!("High risk · {}, since {}", line(&it.title), look.moment(it.opened_at)),
        RiskClass::Medium | RiskClass::Low => {
            format!("{}, since {}", line(&it.title), look.moment(it.opened_at))
        }
    });
    list(format!("{} for you to decide", number(day.waiting_total, "nothing")), waiting.collect());
    let sent = day.went_out.iter().map(|it| format!("{} to {}", line(&it.action), line(&it.target)));
    list(format!("Went out on {}: {}", day.of, counts(&day.went_out_total)), sent.collect());
    list(format!("Runs opened: {}", counts(&day.runs)), Vec::new());
    let (spend, month) = (&day.spend.yesterday, &day.spend.month);
    list(format!("Models cost {spend} for {} calls, {month} this month", day.spend.calls), Vec::new());
    if !day.notices.is_empty() {
        let told = day.notices.iter().map(|it| format!("{}: {}", it.severity, line(&it.title)));
        list("You should know".into(), told.collect());
    }
    blocks.push(rich(vec![section(vec![link(&look.page("/"), "Open Steward"), words(" for all of it.")])]));
    let text = format!("{headline}: {} to decide", number(day.waiting_total, "nothing"));
    Message { text: escape(&text), blocks }
}

fn number(many: i64, none: &str) -> String {
    match many {
        0 => none.to_owned(),
        many => many.to_string(),
    }
}

fn counts(all: &[Count]) -> String {
    match all.is_empty() {
        true => "nothing".into(),
        false => {
            let each = all.iter().map(|it| format!("{} {}", it.number, line(&it.name)));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}
