//! Whatever is in a review, its Slack message is one that Slack takes, and nothing in it is more than text.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};
use steward::domain::action::Action;
use steward::domain::digest::Digest;
use steward::domain::event::{Artifact, Ask, Question, Verdict};
use steward::domain::ids::{NoticeId, ReviewId, RunId};
use steward::domain::label::Label;
use steward::domain::money::Money;
use steward::domain::risk::{Risk, RiskClass};
use steward::reviews::digest::{DayDigest, Spend, WentOut};
use steward::reviews::slack::blocks::{Fit, Look, Message, ask, closed, remind};
use steward::reviews::slack::form::Form;
use steward::reviews::slack::{day, modal};
use steward::reviews::snooze;
use steward::store::digest::{Count, WaitingRow};
use steward::store::notices::NoticeRow;
use steward::store::reviews::ReviewRow;
use uuid::Uuid;

use crate::support::slack::sdk;
use crate::support::slack::strict::{self, strings};

const WEB: &str = "https://steward.example/";

pub fn look() -> Look {
    Look { web: WEB.parse().unwrap(), zone: TimeZone::get("Europe/Oslo").unwrap() }
}

/// Text as senders send it, and as attackers do.
fn text() -> impl Strategy<Value = String> {
    let hostile = prop::sample::select(vec![
        "<!channel> <@U1> <#C1>",
        "<https://evil.example|your bank>",
        "[click](https://evil.example) **bold** `code`",
        "<script>alert(1)</script>&amp;\"'",
        "pay \u{202e}lived\u{202c} \u{200b}\u{feff}\u{2066}\u{e0041}",
        "\u{0}\u{1b}[31m\r\n\r\n\t",
        ":rotating_light: @here @everyone",
        "{{ owner }} {% for %}",
        "",
        "   \n ",
        "👩‍👩‍👧‍👦 Größe 你好 مرحبا",
    ]);
    let long = (any::<char>(), 0usize..100_000).prop_map(|(it, n)| it.to_string().repeat(n));
    prop_oneof![
        4 => ".{0,60}",
        3 => hostile.prop_map(str::to_owned),
        1 => long,
        2 => prop::collection::vec(any::<char>(), 0..300).prop_map(|all| all.into_iter().collect::<String>()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

fn asking() -> impl Strategy<Value = (Ask, Option<Value>)> {
    let schema = prop_oneof![
        prop::collection::vec(text(), 1..120).prop_map(|all| json!({"type": "string", "enum": all})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "array"})),
        prop::collection::btree_map(
            text(),
            prop::sample::select(vec!["string", "number", "boolean", "array"]),
            0..25
        )
        .prop_map(|map| {
            let properties: serde_json::Map<String, Value> =
                map.into_iter().map(|(name, kind)| (name, json!({"type": kind}))).collect();
            json!({"type": "object", "properties": properties})
        }),
    ];
    let ask = prop::sample::select(vec![
        Ask::Approval,
        Ask::Answer,
        Ask::Question,
        Ask::InDoubt,
        Ask::Undo,
        Ask::Parked,
        Ask::Budget,
    ]);
    (ask, prop::option::of(schema))
}

prop_compose! {
    fn reviews()(
        title in text(), step in text(), reasons in prop::collection::vec(text(), 0..12),
        artifacts in prop::collection::vec((text(), value()), 0..9),
        action in prop::option::of((text(), prop::collection::btree_map(text(), value(), 0..20))),
        (ask, form) in asking(),
        risk in prop::sample::select(vec![RiskClass::Low, RiskClass::Medium, RiskClass::High]),
        status in prop::sample::select(vec!["open", "approved", "edited", "rejected", "answered", "expired", "superseded"]),
        word in text(), due in any::<bool>(),
    ) -> ReviewRow {
        let digest = Digest::of_bytes(title.as_bytes());
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        let verdict = match status {
            "rejected" => Some(Verdict::Rejected { reason: word.clone() }),
            "answered" => Some(Verdict::Answered { answer: json!(word) }),
            _ => None,
        };
        let artifacts = artifacts.into_iter().map(|(title, value)| Artifact { title, label: Label::Untrusted, value });
        let review = ReviewId(Uuid::now_v7());
        ReviewRow {
            id: review, run: RunId(Uuid::now_v7()), step: step.as_str().into(), ask: ask.as_str().into(), digest,
            title: title.clone(), status: status.into(), verdict, decided_by: Some(word), opened_at: at,
            due_at: due.then_some(at), decided_at: (status != "open").then_some(at), snoozed_until: None,
            question: Question {
                step: step.as_str().into(), review, ask, title, reasons, artifacts: artifacts.collect(), digest,
                action: action.map(|(action, params)| Action { action, params: json!(params) }),
                form, labels: Default::default(), sampled: false, risk: Some(Risk::of([("x".to_owned(), risk)], false)), due_at: None, allows_micros: None,
            },
        }
    }
}

/// Slack takes it, and nothing in it hides, mentions, links elsewhere or is read for markup.
fn sound(message: &Message) -> Result<(), TestCaseError> {
    let body = json!({"channel": "C1", "text": message.text, "blocks": message.blocks});
    let taken = strict::message(&body, &["channel"]);
    prop_assert!(taken.is_ok(), "{taken:?}");
    prop_assert!(!message.text.contains(['<', '>']), "{}", message.text);
    inert(&body)
}

fn inert(value: &Value) -> Result<(), TestCaseError> {
    for text in strings(value) {
        let hidden = text.chars().find(|it| {
            (it.is_control() && *it != '\n' && *it != '\t')
                || matches!(it, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        });
        prop_assert!(hidden.is_none(), "{hidden:?} in {text}");
    }
    links(value)
}

fn links(value: &Value) -> Result<(), TestCaseError> {
    match value {
        Value::Array(all) => all.iter().try_for_each(links),
        Value::Object(map) => {
            if let Some(url) = map.get("url").and_then(Value::as_str) {
                prop_assert!(url.starts_with(WEB), "{url}");
            }
            map.values().try_for_each(links)
        }
        _ => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_in_a_review_slack_takes_its_message_and_it_is_text_alone(review in reviews()) {
        let look = look();
        for message in [
            ask(&review, &look, Fit::Whole), ask(&review, &look, Fit::Short), remind(&review, &look), closed(&review, &look),
        ] {
            sound(&message)?;
        }
        let mut views = vec![
            modal::reject(&review), modal::edit(&review, &look), modal::comment(&review), modal::respond(&review),
        ];
        let naps = snooze::offers(review.opened_at, &look.zone, None);
        views.push(modal::snooze(&review, &naps, review.opened_at, &look));
        if let Some(Form::Modal(fields)) = review.question.form.as_ref().map(Form::of) {
            views.push(modal::answer(&review, &fields, &look));
        }
        for view in &views {
            let taken = strict::view(view);
            prop_assert!(taken.is_ok(), "{taken:?}");
            links(view)?;
        }
    }

    #[test]
    fn a_button_carries_the_review_and_its_digest_and_nothing_of_what_it_is_about(review in reviews()) {
        let handle = format!("{} {}", review.id, review.digest);
        for block in ask(&review, &look(), Fit::Whole).blocks {
            for button in block["elements"].as_array().into_iter().flatten().filter(|it| it["type"] == "button") {
                let value = button.get("value");
                prop_assert!(value.is_none_or(|it| it == &handle), "{value:?}");
                let action = button["action_id"].as_str().unwrap();
                let ours = ["approve", "edit", "reject", "answer", "open"].contains(&action)
                    || action.strip_prefix("answer.").is_some_and(|it| it.parse::<usize>().is_ok());
                prop_assert!(ours, "{action}");
            }
            for menu in block["elements"].as_array().into_iter().flatten().filter(|it| it["type"] == "overflow") {
                let values: Vec<&str> =
                    menu["options"].as_array().unwrap().iter().map(|it| it["value"].as_str().unwrap()).collect();
                let words: Vec<&str> = values.iter().filter_map(|it| it.strip_suffix(&format!(" {handle}"))).collect();
                let takes_words = review.question.ask == Ask::Approval;
                let expected: &[&str] =
                    if takes_words { &["snooze", "comment", "respond"] } else { &["snooze", "comment"] };
                prop_assert_eq!((menu["action_id"].as_str(), &words[..]), (Some("more"), expected));
            }
        }
    }

    #[test]
    fn what_is_of_high_risk_or_not_shown_whole_asks_back_before_it_is_approved(mut review in reviews()) {
        review.question.ask = Ask::Approval;
        let whole = ask(&review, &look(), Fit::Whole);
        let buttons = whole.blocks.iter().filter_map(|block| block["elements"].as_array()).flatten();
        let approve = buttons.clone().find(|it| it["action_id"] == "approve").unwrap();
        let left_out = json!(whole.blocks).to_string().contains("Not everything fits here");
        let careful = review.question.class() == RiskClass::High || left_out;
        prop_assert_eq!(approve.get("confirm").is_some(), careful);
    }

    #[test]
    fn notices_and_the_digest_fit_too(title in text(), detail in text(), name in text(), many in 0usize..30, times in 1i32..1000) {
        let at = Timestamp::from_second(1_790_000_000).unwrap();
        let notice = NoticeRow {
            id: NoticeId(Uuid::now_v7()), kind: name.clone(), subject: name.clone(), severity: "critical".into(),
            title: title.clone(), detail, run: Some(RunId(Uuid::now_v7())), times, first_at: at, last_at: at,
            acknowledged_at: None, acknowledged_by: None, over_at: None,
        };
        sound(&day::notice(&notice, &look()))?;
        sound(&day::seen(&notice, &look(), &name))?;
        let money = |micros| Money { micros, currency: "EUR".into() };
        let waiting = WaitingRow { review: ReviewId(Uuid::now_v7()), title: title.clone(), risk: RiskClass::High, opened_at: at, due_at: None };
        let sent = WentOut { run: RunId(Uuid::now_v7()), title, action: "email.send".into(), target: name.clone(), at };
        let count = Count { name, number: 7 };
        let digest = DayDigest {
            day: "2026-03-03".parse().unwrap(), of: "2026-03-02".parse().unwrap(),
            waiting: vec![waiting; many], waiting_total: 400, went_out: vec![sent; many],
            went_out_total: vec![count.clone(); many.min(2)], runs: vec![count; many.min(7)],
            spend: Spend { yesterday: money(1_234_567), month: money(9_000_000), calls: 12 }, notices: vec![notice; many],
        };
        sound(&day::digest(&digest, &look()))?;
    }
}

/// Reviews of every kind, the same at each run.
fn samples() -> Vec<ReviewRow> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    (0..40).map(|_| reviews().new_tree(&mut runner).unwrap().current()).collect()
}

#[tokio::test]
async fn slacks_own_library_takes_our_messages_and_modals_and_finds_in_them_what_we_put_there() {
    let (reviews, look) = (samples(), look());
    let mut messages: Vec<Value> =
        reviews.iter().map(|it| json!(ask(it, &look, Fit::Whole).blocks)).collect();
    messages.extend(reviews.iter().map(|it| json!(closed(it, &look).blocks)));
    messages.extend(reviews.iter().map(|it| json!(remind(it, &look).blocks)));
    let blocks: usize = messages.iter().map(|it| it.as_array().unwrap().len()).sum();
    assert_eq!(sdk::job(json!({"job": "blocks", "messages": messages})).await, blocks);
    let views: Vec<Value> = reviews
        .iter()
        .flat_map(|it| [modal::reject(it), modal::edit(it, &look), modal::respond(it)])
        .collect();
    assert_eq!(sdk::job(json!({"job": "views", "views": views})).await, views.len());
}
