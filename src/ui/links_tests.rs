use jiff::tz::TimeZone;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::ids::{ReviewId, RunId};
use crate::store::reviews::ReviewRow;

fn row(ask: &str, form: &Value, hostile: &str) -> ReviewRow {
    let question = json!({
        "step": "s", "review": Uuid::nil(), "ask": ask, "title": hostile, "reasons": [hostile],
        "digest": Digest::ZERO, "risk": {"class": "low"}, "form": form,
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

fn said(row: ReviewRow, fields: &[(&str, &str)]) -> Result<Verdict, String> {
    let form = Form(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
    verdict(&form, &Behind::Open(Box::new(row)))
}

#[test]
fn an_answer_is_text_where_text_is_asked_and_json_everywhere_else() {
    let answer =
        |form: &Value, text| said(row("answer", form, "x"), &[("verdict", "answered"), ("answer", text)]);
    let answered = |answer: Value| Ok(Verdict::Answered { answer });
    assert_eq!(answer(&json!({"type": "string"}), "a\r\nb"), answered(json!("a\nb")));
    assert_eq!(answer(&json!({"type": "string", "enum": ["again"]}), "\"again\""), answered(json!("again")));
    assert_eq!(answer(&json!({"type": "object"}), "{\"a\": 1}"), answered(json!({"a": 1})));
    assert!(answer(&json!({"type": "object"}), "{").unwrap_err().contains("not JSON"));
}

#[test]
fn a_form_that_says_neither_yes_nor_no_decides_nothing() {
    for fields in [&[][..], &[("verdict", "")], &[("verdict", "expired")], &[("verdict", "edited")]] {
        assert!(said(row("approval", &Value::Null, "x"), fields).is_err(), "{fields:?}");
    }
    let no = said(row("approval", &Value::Null, "x"), &[("verdict", "rejected"), ("reason", " no ")]);
    assert_eq!(no, Ok(Verdict::Rejected { reason: "no".into() }));
}

#[test]
fn a_page_has_the_buttons_that_fit_and_none_for_who_may_not_decide() {
    let choices = json!({"type": "string", "enum": ["happened", "again"]});
    let shown = |row: ReviewRow, may| page::review(&Behind::Open(Box::new(row)), may, None, &TimeZone::UTC);
    let doubt = shown(row("in_doubt", &choices, "x"), true);
    assert!(doubt.contains("<option value=\"&quot;again&quot;\">again</option>"), "{doubt}");
    assert!(!doubt.contains("value=\"approved\"") && !doubt.contains("value=\"rejected\""));
    let approval = shown(row("approval", &Value::Null, "x"), true);
    assert!(approval.contains("value=\"approved\"") && approval.contains("value=\"rejected\""));
    assert!(!shown(row("approval", &Value::Null, "x"), false).contains("<form"));
}

#[test]
fn hostile_content_adds_nothing_to_a_page() {
    let hostile =
        "\"><script>x</script><form action=https://evil.example><img src=x onerror=y>\u{202e}\u{200b}'";
    let shown = |text: &str| {
        let behind = Behind::Open(Box::new(row("approval", &Value::Null, text)));
        page::review(&behind, true, Some(text), &TimeZone::UTC)
    };
    let (calm, wild) = (shown("calm"), shown(hostile));
    assert_eq!(calm.matches('<').count(), wild.matches('<').count(), "{wild}");
    assert!(!wild.contains("https://evil.example") && !wild.contains(['\u{202e}', '\u{200b}']));
    // Over and over: the page of a decided one shows as little.
    let over = ReviewRow {
        status: hostile.into(),
        decided_by: Some(hostile.into()),
        ..row("approval", &Value::Null, hostile)
    };
    let over = page::review(&Behind::Over(Box::new(over)), false, None, &TimeZone::UTC);
    assert!(!over.contains("<script") && !over.contains("<form"), "{over}");
}
