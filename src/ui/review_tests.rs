use askama::Template;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::reviews::shown::Reversibility;
use crate::store::asides::CommentRow;

fn row(ask: &str, form: &Value, hostile: &str) -> ReviewRow {
    let question = json!({
        "step": "s", "review": Uuid::nil(), "ask": ask, "title": hostile, "reasons": [hostile],
        "digest": Digest::ZERO, "risk": {"class": "low", "tags": [hostile]}, "form": form,
        "action": {"action": "email.send", "params": {hostile: hostile}},
        "artifacts": [{"title": hostile, "label": "untrusted", "value": {"x": hostile}}],
    });
    ReviewRow {
        id: ReviewId(Uuid::nil()),
        run: RunId(Uuid::nil()),
        step: "s".into(),
        ask: ask.into(),
        digest: Digest::ZERO,
        title: hostile.into(),
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

/// The page of a review behind a link, for whoever is signed in besides or not.
fn page(row: ReviewRow, signed_in: bool, hostile: &str) -> String {
    let fitting = reviews::fitting(row.question.ask, row.question.form.is_some());
    let is_open = row.status == "open";
    let comment = CommentRow {
        id: serde_json::from_value(json!(Uuid::nil())).unwrap(),
        by: hostile.into(),
        text: hostile.into(),
        at: row.opened_at,
    };
    let shown = reviews::Shown {
        artifacts: row.question.artifacts.clone(),
        reversibility: Reversibility::Irreversible,
        reversible: Reversibility::Irreversible.told(),
        verdicts: if is_open { fitting.to_vec() } else { Vec::new() },
        comments: vec![comment],
        review: row,
    };
    let mut viewer = Viewer::linked("secret", None);
    viewer.way = crate::ui::viewer::Way::Link { secret: "secret".into(), signed_in };
    let clock = Clock { now: "2026-03-02T11:00:00Z".parse().unwrap(), zone: TimeZone::UTC };
    let notice = Notice::wrong(hostile);
    ReviewPage::of(&shown, None, &viewer, &clock, Some(notice), &Typed::default()).render().unwrap()
}

fn said_in(row: &ReviewRow, fields: &[(&str, &str)]) -> Option<Verdict> {
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    match said(row, &Form::parse(text.as_bytes())) {
        Ok(Said::Verdict(verdict)) => Some(verdict),
        _ => None,
    }
}

#[test]
fn an_answer_is_text_where_text_is_asked_and_what_the_schema_says_everywhere_else() {
    let answer =
        |form: &Value, text| said_in(&row("answer", form, "x"), &[("do", "answer"), ("answer", text)]);
    let answered = |answer: Value| Some(Verdict::Answered { answer });
    assert_eq!(answer(&json!({"type": "string"}), "a\r\nb"), answered(json!("a\nb")));
    assert_eq!(answer(&json!({"type": "string", "enum": ["again"]}), "0"), answered(json!("again")));
    assert_eq!(answer(&json!({"type": "array"}), "[{\"a\": 1}]"), answered(json!([{"a": 1}])));
    assert_eq!(answer(&json!({"type": "array"}), "["), None);
}

#[test]
fn a_form_that_says_neither_yes_nor_no_decides_nothing() {
    let row = row("approval", &Value::Null, "x");
    for fields in
        [&[][..], &[("do", "")], &[("do", "expired")], &[("do", "answer")], &[("verdict", "approved")]]
    {
        assert_eq!(said_in(&row, fields), None, "{fields:?}");
    }
    let no = said_in(&row, &[("do", "reject"), ("reason", " no ")]);
    assert_eq!(no, Some(Verdict::Rejected { reason: "no".into() }));
    let words = said_in(&row, &[("do", "respond"), ("words", " shorter,\r\nplease ")]);
    assert_eq!(words, Some(Verdict::Responded { words: "shorter,\nplease".into() }));
}

#[test]
fn a_page_has_the_forms_that_fit_and_none_for_who_may_not_decide() {
    let choices = json!({"type": "string", "enum": ["happened", "again"]});
    let doubt = page(row("in_doubt", &choices, "x"), false, "x");
    assert!(doubt.contains("type=\"radio\"") && doubt.contains("> again</label>"), "{doubt}");
    assert!(!doubt.contains("value=\"approve\"") && !doubt.contains("value=\"reject\""));
    let approval = page(row("approval", &Value::Null, "x"), false, "x");
    for word in ["approve", "preview", "reject", "respond", "comment"] {
        assert!(approval.contains(&format!("name=\"do\" value=\"{word}\"")), "{word}");
    }
    assert!(approval.contains("value=\"morning\"") && approval.contains("action=\"/r/secret\""));
    let mut grave = row("approval", &Value::Null, "x");
    grave.question.risk = Some(crate::domain::risk::Risk::default());
    let shut = page(grave.clone(), false, "x");
    assert!(!shut.contains("<form") && shut.contains("href=\"/sign-in\""), "{shut}");
    assert!(shut.contains(&format!("href=\"/reviews/{}\"", grave.id)));
    assert!(page(grave, true, "x").contains("value=\"approve\""));
}

#[test]
fn a_page_behind_a_link_leads_to_nothing_else_of_the_owners() {
    for status in ["open", "approved"] {
        let row = ReviewRow { status: status.into(), ..row("approval", &Value::Null, "x") };
        let shown = page(row, true, "x");
        assert!(!shown.contains("/runs/") && !shown.contains("/reviews/") && !shown.contains("sign-out"));
        assert!(!shown.contains("hx-sse:connect"), "{shown}");
    }
}

/// A page without its editable fields, in which a text stands as it is, and without the marks of what hides.
fn beside_fields(page: &str) -> String {
    let (before, rest) = page.split_once("<details class=\"panel\" id=\"edit\"").unwrap_or((page, ""));
    let after = rest.split_once("</details>").map_or("", |(_, after)| after);
    format!("{before}{after}").replace("<span class=\"unseen\">", "").replace("</span>", "")
}

#[test]
fn hostile_content_adds_nothing_to_a_page() {
    let hostile =
        "\"><script>x</script><form action=https://evil.example><img src=x onerror=y>\u{202e}\u{200b}'";
    let shown = |text: &str| beside_fields(&page(row("approval", &Value::Null, text), false, text));
    let (calm, wild) = (shown("calm"), shown(hostile));
    assert_eq!(calm.matches('<').count(), wild.matches('<').count(), "{wild}");
    assert!(!wild.contains("=\"https://evil.example") && !wild.contains(['\u{202e}', '\u{200b}']));
    // Over and over: the page of a decided one shows as little.
    let over = ReviewRow {
        status: hostile.into(),
        decided_by: Some(hostile.into()),
        ..row("approval", &Value::Null, hostile)
    };
    let over = page(over, false, hostile);
    assert!(!over.contains("<script>") && !over.contains("<form"), "{over}");
}
