use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::domain::digest::Digest;
use crate::domain::ids::{ReviewId, RunId};

const LINK: &str = "https://steward.example/r/0123";

fn row(hostile: &str, body: &Value) -> ReviewRow {
    let action = json!({"action": "email.send", "params": {"to": hostile, "body": body}});
    let question = json!({
        "step": "reply", "review": Uuid::nil(), "ask": "approval", "title": hostile,
        "reasons": [hostile], "digest": Digest::ZERO, "risk": {"class": "high"}, "action": action,
        "artifacts": [{"title": hostile, "label": "untrusted", "value": hostile}],
    });
    ReviewRow {
        id: ReviewId(Uuid::nil()),
        run: RunId(Uuid::nil()),
        step: "reply".into(),
        ask: "approval".into(),
        digest: Digest::ZERO,
        title: hostile.to_owned(),
        status: "open".into(),
        question: serde_json::from_value(question).unwrap(),
        verdict: None,
        decided_by: None,
        opened_at: "2026-03-02T10:00:00Z".parse().unwrap(),
        due_at: None,
        decided_at: None,
        snoozed_until: None,
    }
}

fn written_about(hostile: &str, body: &Value) -> Written {
    let zone = TimeZone::UTC;
    let ways = Ways { link: LINK, until: "2026-03-05T10:00:00Z".parse().unwrap(), reply: true, zone: &zone };
    review(&row(hostile, body), &ways, false)
}

/// The same without line ends.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_review_says_why_what_and_on_what_it_rests() {
    let Written { subject, text, html } =
        written_about("Nora <nora@flowers.example>", &json!("Dear Nora,\nyes."));
    assert_eq!(subject, "[Steward] email.send waits for you (risk high) 000000");
    for said in [
        "May this happen?",
        "Risk: high.",
        "Why you are asked",
        "What will happen: email.send",
        "  | Dear Nora,\n  | yes.",
        "(from outside):",
        LINK,
        "until 2026-03-05 10:00 UTC",
        "A reply never approves.",
        "asks you to sign in",
    ] {
        let is_there = text.contains(said) || words(&text).contains(&words(said));
        assert!(is_there, "{said:?} is not in:\n{text}");
    }
    assert!(html.contains(&format!("<a href=\"{LINK}\"")));
    assert!(html.contains("Nora &lt;nora@flowers.example&gt;"));
}

#[test]
fn a_subject_tells_nothing_of_what_is_in_the_question() {
    let Written { subject, .. } = written_about("Salary of Nora: 100", &json!("x"));
    assert!(!subject.contains("Nora"), "{subject}");
}

#[test]
fn hostile_content_is_shown_and_does_nothing() {
    let hostile = "<script src=https://evil.example/x></script><img src=\"https://evil.example/p.gif\">\
                   [click](https://evil.example) <!channel> \u{202e}txt\u{200b}";
    let Written { text, html, .. } = written_about(hostile, &json!(hostile));
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
    assert_eq!(html.matches("://").count(), 2, "the link and its own text alone: {html}");
    assert_eq!(text.matches("://").count(), 1, "{text}");
    assert!(text.contains("⟨U+202E⟩txt⟨U+200B⟩"));
    assert!(!text.contains(['\u{202e}', '\u{200b}']));
}

#[test]
fn a_line_of_100_kilobytes_makes_a_mail_that_one_can_read() {
    let Written { text, .. } = written_about("n", &json!("x".repeat(100_000)));
    assert!(text.lines().all(|line| line.chars().count() <= 120));
    assert!(text.len() < 20_000);
    assert!(text.contains("more characters: the page has all of it."));
}

proptest! {
    #[test]
    fn no_content_adds_a_tag_or_a_link(hostile in any::<String>()) {
        let calm = written_about("calm", &json!("calm"));
        let Written { subject, html, .. } = written_about(&hostile, &json!(hostile));
        let names = |html: &str| html.matches("<a ").count() + html.matches("<script").count() + html.matches("<img").count();
        prop_assert_eq!(names(&html), names(&calm.html));
        prop_assert_eq!(html.matches("://").count(), calm.html.matches("://").count());
        prop_assert!(!subject.contains(['\n', '\r']));
    }
}
