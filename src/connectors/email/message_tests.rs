use lettre::message::Mailbox;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::action::Action;
use crate::domain::event::ErrorKind;
use crate::domain::ids::EffectId;
use crate::domain::label::Label;

fn call(params: Value) -> Call {
    Call {
        effect: EffectId(uuid::Uuid::nil()),
        key: "run/reply/1".into(),
        action: Action { action: "email.send".into(), params },
        label: Label::Untrusted,
        at: "2026-03-01T09:30:00Z".parse().unwrap(),
    }
}

fn owner() -> Mailbox {
    sender("Ada Example <ada@studio.example>").unwrap()
}

fn mail(params: Value) -> Result<Mail, StepError> {
    build(&call(params), &owner())
}

fn simple(name: &str, value: Value) -> Value {
    let mut params = json!({"to": "b@x.example", "subject": "s", "body": "b"});
    params[name] = value;
    params
}

#[test]
fn a_mail_is_these_exact_bytes() {
    let mail = mail(json!({
        "to": ["Bob Client <bob@client.example>", "carol@client.example"],
        "cc": "Zoë <zoe@bücher.example>",
        "subject": "Re: Größe — an offer that is long enough to need more than one line, certainly",
        "body": "Hello Bob,\nthe price is 12 €.\r\n.\n-- \nAda\n",
        "in_reply_to": "first@client.example",
        "references": "<root@client.example> first@client.example",
    }))
    .unwrap();
    let text = String::from_utf8(mail.bytes.clone()).unwrap();
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    assert!(text.ends_with("\r\n") && text.is_ascii());
    insta::assert_snapshot!(text.replace("\r\n", "\n"), @r#"
    From: "Ada Example" <ada@studio.example>
    To: "Bob Client" <bob@client.example>, carol@client.example
    Cc: =?utf-8?b?Wm/Dqw==?= <zoe@xn--bcher-kva.example>
    Subject: Re: =?utf-8?b?R3LDtsOfZSDigJQ=?= an offer that is long enough to
     need more than one line, certainly
    In-Reply-To: <first@client.example>
    References: <root@client.example>
     <first@client.example>
    Message-ID: <d7706832dcabe9cc35a2f81e341c9a6f@studio.example>
    Date: Sun, 01 Mar 2026 09:30:00 +0000
    MIME-Version: 1.0
    Content-Type: text/plain; charset=utf-8
    Content-Transfer-Encoding: quoted-printable

    Hello Bob,
    the price is 12 =E2=82=AC.
    .
    --=20
    Ada
    "#);
    let recipients: Vec<_> = mail.recipients.iter().map(ToString::to_string).collect();
    assert_eq!(recipients, ["bob@client.example", "carol@client.example", "zoe@xn--bcher-kva.example"]);
}

#[test]
fn the_same_call_is_the_same_bytes_and_the_message_id_depends_on_the_key_alone() {
    let params = json!({"to": "b@x.example", "subject": "s", "body": "b"});
    assert_eq!(mail(params.clone()).unwrap().bytes, mail(params.clone()).unwrap().bytes);
    let id = |call: &Call| build(call, &owner()).unwrap().message_id;
    let first = call(params);
    let again = Call { effect: EffectId(uuid::Uuid::max()), ..call(simple("subject", json!("other"))) };
    let other = Call { key: "run/reply/2".into(), ..first.clone() };
    assert_eq!(id(&first), id(&again));
    assert_ne!(id(&first), id(&other));
}

#[test]
fn a_line_break_in_a_header_is_refused_with_the_parameters_name() {
    for name in ["to", "cc", "subject", "in_reply_to", "references"] {
        for poison in
            ["a@x.example\r\nBcc: e@evil.example", "a@x.example\nX: y", "a@x.example\rX", "a\0b@x.example"]
        {
            for value in [json!(poison), json!([poison])] {
                let error = mail(simple(name, value)).unwrap_err();
                assert_eq!(error.kind, ErrorKind::Invalid, "{name} {poison:?}");
                assert!(error.message.contains(&format!("`{name}`")), "{error}");
            }
        }
    }
}

#[test]
fn an_address_is_a_whole_address_or_refused() {
    let refused = [
        "",
        " , ",
        "bob",
        "bob@",
        "@x.example",
        "a@x.example garbage",
        "a@x.example; b@x.example",
        "a@b@x.example",
        "\"a b\"@x.example",
        "é@x.example",
        "<a@x.example",
        "a@x..example",
        "a@x.example> RCPT TO:<b@x.example",
        "a@x.example, nonsense",
        "A <a@x.example> b@x.example",
    ];
    for text in refused {
        assert!(mail(simple("to", json!(text))).is_err(), "{text:?} was taken");
    }
    for value in [json!(null), json!(5), json!({"a": "b@x.example"}), json!([["b@x.example"]]), json!([])] {
        assert!(mail(simple("to", value.clone())).is_err(), "{value} was taken");
    }
    let taken = mail(simple("to", json!("A <a@x.example>, \"B, C\" <b@x.example>, a@x.example"))).unwrap();
    assert_eq!(taken.recipients.len(), 2);
}

#[test]
fn limits_hold_for_recipients_subject_body_and_unknown_parameters() {
    let many = |n: usize| json!((0..n).map(|i| format!("a{i}@x.example")).collect::<Vec<_>>());
    assert!(mail(simple("to", many(50))).is_ok());
    assert!(mail(simple("to", many(51))).is_err());
    assert!(mail(simple("subject", json!("word ".repeat(199)))).is_ok());
    assert!(mail(simple("subject", json!("word ".repeat(200)))).is_err());
    assert!(mail(simple("subject", json!("é".repeat(500)))).is_err());
    assert!(mail(simple("subject", json!("x".repeat(995)))).is_err());
    assert!(mail(simple("body", json!("x".repeat(MAX_BODY)))).is_ok());
    assert!(mail(simple("body", json!("x".repeat(MAX_BODY + 1)))).is_err());
    assert!(mail(simple("body", json!("a\0b"))).is_err());
    assert!(mail(simple("bcc", json!("a@x.example"))).unwrap_err().message.contains("`bcc`"));
    assert!(sender("a@x.example, b@x.example").is_err());
    assert!(sender("steward@localhost").is_ok());
}

#[test]
fn a_long_thread_keeps_its_root_and_its_latest_messages() {
    let ids: Vec<_> = (0..100).map(|i| format!("<{i}@x.example>")).collect();
    let kept = shorten(ids);
    assert_eq!(
        (kept.len(), &*kept[0], &*kept[1], &*kept[29]),
        (30, "<0@x.example>", "<71@x.example>", "<99@x.example>")
    );
}

/// The headers of a mail, unfolded.
fn headers(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let unfolded = head.replace("\r\n ", " ");
    unfolded
        .split("\r\n")
        .map(|line| line.split_once(": ").map(|(n, v)| (n.into(), v.into())).unwrap())
        .collect()
}

proptest! {
    #[test]
    fn whatever_is_given_the_headers_are_the_eight_that_were_meant(
        subject in any::<String>(), name in any::<String>(), body in any::<String>(),
    ) {
        let to = format!("{name} <b@x.example>");
        if let Ok(mail) = mail(json!({"to": to, "subject": subject, "body": body})) {
            let names: Vec<_> = headers(&mail.bytes).into_iter().map(|(name, _)| name).collect();
            prop_assert_eq!(names, [
                "From", "To", "Subject", "Message-ID", "Date", "MIME-Version", "Content-Type",
                "Content-Transfer-Encoding",
            ]);
            prop_assert!(mail.recipients.iter().all(|to| to.to_string() == "b@x.example" || name.contains('@')));
            let read = mail_parser::MessageParser::default().parse(&mail.bytes).unwrap();
            let sent = body.replace("\r\n", "\n").replace('\r', "\n");
            let got = read.body_text(0).unwrap().replace("\r\n", "\n");
            prop_assert_eq!(got.trim_end_matches('\n'), sent.trim_end_matches('\n'));
        }
    }
}
