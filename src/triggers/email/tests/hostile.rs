//! Bytes made to break a parser: random, mutated, deep, wide, quadratic.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Far above what the slowest of these takes, far below what quadratic work would take.
const BOUND: Duration = Duration::from_secs(20);

fn assert_promises(email: &Email) {
    fn check(value: &Value) {
        match value {
            Value::String(text) => {
                let bad = |ch: char| ch.is_control() && !matches!(ch, '\n' | '\t');
                assert!(!text.contains(bad), "{text:?}");
            }
            Value::Array(values) => values.iter().for_each(check),
            Value::Object(fields) => fields.values().for_each(check),
            _ => {}
        }
    }
    check(&Value::from(email));
    assert!(email.from.contains('@') && !email.message_id.is_empty() && !email.thread.is_empty());
    assert!(email.body.chars().count() <= MAX_BODY);
    assert!(email.attachments.len() <= MAX_ATTACHMENTS);
}

fn examples() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(inbox()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One edit: where (as a fraction of the length), how many bytes go, what comes instead.
fn edit() -> impl Strategy<Value = (f64, usize, Vec<u8>)> {
    let pieces = prop::sample::select(vec![
        &b"\r\n"[..],
        b"\n\n",
        b":",
        b"=",
        b"?=",
        b"=?utf-8?B?",
        b"\"",
        b"(",
        b"<",
        b">",
        b"--",
        b"\0",
        b"\xff\xfe",
        b"\r\nContent-Type: multipart/mixed; boundary=\"\"\r\n",
        b"\r\nContent-Type: message/rfc822\r\n\r\n",
        b"; charset*0*=utf-7''%",
        b"&#x110000;",
        b"<!--",
        b"<p style=display:none",
        b"\x1b$B",
        b"@",
        b",",
        b";",
    ]);
    let junk = prop_oneof![pieces.prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 0..20)];
    (0.0..1.0_f64, 0..60_usize, junk)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        if let Ok(email) = parse(&bytes) {
            assert_promises(&email);
        }
        let mut with_sender = b"From: a@b.example\r\nX: ".to_vec();
        with_sender.extend(bytes);
        assert_promises(&parse(&with_sender).unwrap());
    }

    #[test]
    fn no_mutation_of_a_real_email_makes_it_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec(edit(), 1..12),
    ) {
        let all = examples();
        let mut bytes = all[which.index(all.len())].clone();
        for (at, gone, instead) in edits {
            let start = (at * bytes.len() as f64) as usize;
            let end = (start + gone).min(bytes.len());
            bytes.splice(start..end, instead);
        }
        if let Ok(email) = parse(&bytes) {
            assert_promises(&email);
        }
    }

    #[test]
    fn no_html_makes_it_panic(page in "(<(/?(p|div|a|span|script|li|td|br)( (href|style|hidden)(=[\"']?(http://x|display:none)?[\"']?)?)?)?>?|&(amp|#x?[0-9a-f]{0,8}|[a-z]{0,40});?|[ -~äé\u{200b}\n]{0,5}|<!--|-->){0,40}") {
        assert_promises(&message("Content-Type: text/html; charset=utf-8", &page));
    }
}

fn within_bound(what: &str, headers: &str, body: &str) -> Email {
    let raw = format!("From: a@b.example\r\n{headers}\r\n\r\n{body}");
    assert!(raw.len() <= MAX_EMAIL, "{what}: {}", raw.len());
    let start = Instant::now();
    let email = parse(raw.as_bytes()).unwrap();
    assert!(start.elapsed() < BOUND, "{what} took {:?}", start.elapsed());
    assert_promises(&email);
    email
}

#[test]
fn a_message_nested_a_thousand_deep_is_read_to_a_bound() {
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(1000);
    let email = within_bound("messages", "Content-Type: message/rfc822", &format!("{nested}\r\n\r\nend"));
    assert!(email.attachments.len() < 20, "{}", email.attachments.len());

    let levels: String = (0..1000)
        .map(|at| format!("--b{at}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n", at + 1))
        .collect();
    within_bound("multiparts", "Content-Type: multipart/mixed; boundary=b0", &levels);

    let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(500_000);
    within_bound("half a million messages", "Content-Type: message/rfc822", &deep);
}

#[test]
fn ten_thousand_parts_are_read_to_a_bound_and_the_rest_is_told() {
    let parts = "--x\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n".repeat(10_000);
    let email = within_bound("parts", "Content-Type: multipart/mixed; boundary=x", &parts);
    assert!(email.body_truncated && email.body.starts_with("hello\n\nhello"));

    let files = "--x\r\nContent-Type: application/pdf\r\n\r\n\r\n".repeat(500);
    let email = within_bound("files", "Content-Type: multipart/mixed; boundary=x", &files);
    assert_eq!((email.attachments.len(), email.body_truncated), (MAX_ATTACHMENTS, false));

    let lost = "--x\r\nContent-Type: multipart/mixed; boundary=absent\r\n\r\n".repeat(200_000);
    within_bound("parts without end", "Content-Type: multipart/mixed; boundary=x", &lost);
}

#[test]
fn markup_and_headers_made_to_be_slow_are_not() {
    for piece in [
        "<a b=\"' c='\" d=' e=\"",
        "<a href='https://x.example'>",
        "<!--",
        "<script>",
        "<p hidden>",
        "&",
        "&#",
        "<",
    ] {
        let page = piece.repeat(2_000_000 / piece.len());
        within_bound(piece, "Content-Type: text/html", &page);
    }
    for piece in [
        "=?aa",
        "=?utf-8?q?",
        "=?utf-8?b?",
        "(",
        "\"",
        "a;",
        "<",
        "x@y,",
        ";a*=u'v'w",
        ";a*1=b",
        "\r\n =?a?q?b?=",
    ] {
        let value = piece.repeat(1_000_000 / piece.len());
        for name in ["Subject", "To", "Content-Type: a/b", "References", "Date", "Content-Disposition"] {
            within_bound(&format!("{name} {piece}"), &format!("{name}: {value}"), "");
        }
    }
}
