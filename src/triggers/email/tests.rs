//! What is promised about reading email: the examples as they arrive in the wild, then single
//! promises, then hostile bytes (`hostile`).

use std::path::{Path, PathBuf};

use super::*;

mod hostile;

fn inbox() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/inbox")
}

fn example(name: &str) -> Email {
    parse(&std::fs::read(inbox().join(name)).unwrap()).unwrap()
}

fn message(headers: &str, body: &str) -> Email {
    parse(format!("From: a@b.example\r\n{headers}\r\n\r\n{body}").as_bytes()).unwrap()
}

fn html(body: &str) -> String {
    message("Content-Type: text/html; charset=utf-8", body).body
}

#[test]
fn every_example_is_read_as_its_sender_meant_it() {
    // file, sender, name, subject, start of the body, attachments
    let table = [
        (
            "01-lead-bakery.eml",
            "jonas@baeckerei-brandt.example",
            "Jonas Brandt | Bäckerei Brandt",
            "New website for our bakery – what would it cost?",
            "Hello Mara,\n\nwe run a small bakery with two shops in Potsdam and our present website is eight\nyears old – on a phone",
            vec![],
        ),
        (
            "02-lead-ceramics-shop.eml",
            "ingrid@solheim-keramikk.example",
            "Ingrid Solheim",
            "Enquiry: web shop for handmade ceramics",
            "Hi there,\n\nI make ceramics in a studio near Bergen & sell",
            vec![],
        ),
        (
            "03-lead-physio-brief.eml",
            "k.walden@walden-physio.example",
            "Dr. Katrin Walden",
            "Request for an offer: practice website with online booking",
            "Dear Ms Lind,\n\nour practice (five therapists, Leipzig)",
            vec![("Brief website Walden.pdf", "application/pdf")],
        ),
        (
            "04-lead-guesthouse-latin1.eml",
            "asa@gasthuset-kalla.example",
            "Åsa Björklund",
            "Homepage for our guest house on Öland",
            "Hello Harbour & Pine,\n\nmy name is Åsa Björklund, I run a small guest house on Öland",
            vec![],
        ),
        (
            "05-lead-tea-iso-2022-jp.eml",
            "y.sato@satochaho.example",
            "佐藤 由美",
            "ウェブショップのご相談 / Web shop for Japanese tea",
            "Harbour & Pine\nリンド様\n\nはじめまして。東京で小さな日本茶の店",
            vec![],
        ),
        (
            "06-support-invoice-reply.eml",
            "torben@fjordblick-yacht.example",
            "Torben Claasen",
            "Re: Invoice HP-2026-0187",
            "Hi Mara,\n\nthanks, the invoice arrived. Two questions",
            vec![],
        ),
        (
            "07-support-forwarded-dns.eml",
            "chidi@okafor-goldsmith.example",
            "Chidi Okafor",
            "Fwd: Action needed: DNS records of okafor-goldsmith.example",
            "Hi Mara,\n\nplease see the attached message from my domain company.",
            vec![("Action needed: DNS records.eml", "message/rfc822")],
        ),
        (
            "08-spam-seo.eml",
            "kevin.smith4471@rank-rocket-seo.example",
            "Kevin Smith",
            "🚀 1st PAGE guaranteed for harbourandpine.example?? (27 errors found)",
            "Dear Business Owner,\n\nI was on your website harbourandpine.example and found 27 CRITICAL",
            vec![],
        ),
        (
            "09-lead-injection.eml",
            "renner@renner-kollegen.example",
            "Philipp Renner",
            "Website for a law office",
            "Hello,\n\nwe are a small law office in Hamburg (three lawyers)",
            vec![],
        ),
        (
            "10-auto-reply-out-of-office.eml",
            "b.vogt@musikschule-saale.example",
            "Beate Vogt",
            "Automatic reply: Your quotation HP-Q-2026-041",
            "Thank you for your message. I am out of the office until 30 November",
            vec![],
        ),
        (
            "11-newsletter.eml",
            "editors@pixelpost.example",
            "The Pixel Post",
            "Container queries everywhere + Layout Days in Ghent",
            "THE PIXEL POST\nIssue 48",
            vec![],
        ),
        (
            "12-support-opening-hours.eml",
            "info@gruene-aue.example",
            "Gärtnerei Grüne Aue",
            "How do I change our opening hours?",
            "Hello,\n\nwe have had our site (gruene-aue.example) with you since summer",
            vec![],
        ),
        (
            "13-supplier-invoice.eml",
            "billing@serverfarm-elbe.example",
            "Serverfarm Elbe Billing",
            "Your invoice 2026-11-30412",
            "Dear customer,\n\nyour invoice 2026-11-30412 for November 2026",
            vec![("Rechnung 2026-11-30412 – Elbe.pdf", "application/pdf")],
        ),
    ];
    let files = std::fs::read_dir(inbox()).unwrap().count();
    assert_eq!(files, table.len(), "every example has a row here");
    for (file, from, name, subject, body, attachments) in table {
        let email = example(file);
        assert_eq!(email.from, from, "{file}");
        assert_eq!(email.from_name.as_deref(), Some(name), "{file}");
        assert_eq!(email.subject, subject, "{file}");
        assert!(email.body.starts_with(body), "{file}: {}", email.body);
        assert!(!email.body.contains(['\r', '\u{fffd}']) && !email.body_truncated, "{file}");
        let found: Vec<_> =
            email.attachments.iter().map(|found| (found.name.as_str(), found.media_type.as_str())).collect();
        assert_eq!(found, attachments, "{file}");
        assert!(email.date.is_some_and(|date| date.starts_with("2026-11-")), "{file}");
        assert!(email.message_id.contains('@') && !email.message_id.ends_with("missing.invalid"), "{file}");
    }
}

#[test]
fn only_machines_and_newsletters_among_the_examples_are_kept_from_automatic_answers() {
    let mut auto = Vec::new();
    let mut list = Vec::new();
    for file in std::fs::read_dir(inbox()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let email = example(&name);
        if email.auto {
            auto.push(name[..2].to_owned());
        }
        if email.list {
            list.push(name[..2].to_owned());
        }
    }
    auto.sort();
    assert_eq!(auto, ["10", "11", "13"]);
    assert_eq!(list, ["11"]);
}

#[test]
fn an_attachment_is_described_by_its_decoded_bytes() {
    let email = example("03-lead-physio-brief.eml");
    let brief = &email.attachments[0];
    assert!(brief.bytes > 500 && brief.bytes < 2000, "{}", brief.bytes);
    let email = message(
        "Content-Type: application/x; name=\"../../etc/pa\\\"sswd\"\r\nContent-Transfer-Encoding: base64",
        "aGVsbG8=",
    );
    assert_eq!(email.body, "");
    assert_eq!(email.attachments[0].bytes, 5);
    assert_eq!(email.attachments[0].sha256, hex::encode(Sha256::digest(b"hello")));
    assert!(!email.attachments[0].name.contains('/'), "{}", email.attachments[0].name);
}

#[test]
fn a_reply_names_the_first_message_of_its_thread() {
    let email = example("06-support-invoice-reply.eml");
    assert_eq!(email.thread, "7E41C9A0-2C55-4E07-9F43-1B8D06A7C3E2@fjordblick-yacht.example");
    assert_eq!(email.to, ["support@harbourandpine.example"]);
    assert!(email.body.contains("\n> On 12. Nov 2026"), "the quotation stays");

    assert_eq!(message("Message-ID: <m@x>\r\nIn-Reply-To: <first@x>", "").thread, "first@x");
    assert_eq!(message("Message-ID: <m@x>", "").thread, "m@x");
}

#[test]
fn a_forwarded_message_is_both_attached_and_readable() {
    let body = example("07-support-forwarded-dns.eml").body;
    let (own, attached) = body.split_once("--- Attached message ---\n").unwrap();
    assert!(own.contains("will my email break"), "{own}");
    assert!(attached.starts_with("From: notices@nordhost.example\nSubject: Action needed"), "{attached}");
    assert!(attached.contains("server that we switch off on 30 November 2026"), "{attached}");
}

#[test]
fn html_reads_as_the_page_reads() {
    let body = example("02-lead-ceramics-shop.eml").body;
    let expected = "Hi there,\n\nI make ceramics in a studio near Bergen & sell at markets and through Instagram. \
        I’d like a proper web shop now: around 60 products, card payment, shipping inside Norway and to the EU.\n\n\
        Products about 60, mostly one of a kind\nLanguages English and Norwegian\n\
        Start of sales end of March 2027\nBudget 8,000 to 10,000 EUR\n\n\
        I like the shop you built for the candle maker <https://nordlicht-kerzen.example/>. Do you have time in \
        January, and is hosting included in the price?\n\n\
        Best wishes,\nIngrid Solheim\nSolheim Keramikk · solheim-keramikk.example <https://solheim-keramikk.example>";
    assert_eq!(body, expected);

    assert_eq!(
        html("<ul><li>one<li>two</ul>a&nbsp;&lt;b&gt; &unknown; 1 < 2 &"),
        "- one\n- two\na <b> &unknown; 1 < 2 &"
    );
    assert_eq!(
        html("<a title='x > y' href=\"https://x.example/?a=1&amp;b\">here</a>"),
        "here <https://x.example/?a=1&b>"
    );
    assert_eq!(html("<p>one<p>two<br><br>three<hr>four"), "one\n\ntwo\n\nthree\nfour");
}

#[test]
fn text_that_a_browser_would_not_show_never_reaches_the_body() {
    assert!(!example("02-lead-ceramics-shop.eml").body.starts_with("Web shop"));
    assert_eq!(
        html("a<script>if (1 < 2) '<p>'</script><STYLE>p {}</style><title>t</title><!-- <p>c --> b"),
        "a b"
    );
    assert_eq!(html("a<div hidden>x<div>y</div>z</div>b"), "ab");
    assert_eq!(html("a<span style='color:red; display : none !important'>x<br>y</span>b"), "ab");
    assert_eq!(html("<p style=display:none>secret<p hidden>too<p>seen</p>"), "seen");
}

#[test]
fn of_alternatives_the_plain_text_is_kept_unless_it_is_empty() {
    let alternatives = |plain: &str| {
        let parts = format!(
            "--x\r\nContent-Type: text/plain\r\n\r\n{plain}\r\n--x\r\nContent-Type: text/html\r\n\r\n<p>rich\r\n--x--"
        );
        message("Content-Type: multipart/alternative; boundary=x", &parts).body
    };
    assert_eq!(alternatives("plain"), "plain");
    assert_eq!(alternatives("  \r\n"), "rich");
}

#[test]
fn broken_mime_still_gives_the_text_that_is_there() {
    assert_eq!(message("Content-Type: multipart/mixed; boundary=x", "no part at all").body, "no part at all");
    assert_eq!(message("Content-Type: multipart/mixed", "no boundary").body, "no boundary");
    assert_eq!(
        message("Content-Type: multipart/mixed; boundary=x", "--x\r\n\r\nnever closed").body,
        "never closed"
    );
    assert_eq!(message("Content-Transfer-Encoding: quoted-printable", "100 =% broken").body, "100 =% broken");
    assert_eq!(message("Content-Type: text/plain; charset=us-ascii", "schön").body, "schön");
    assert_eq!(message("Content-Type: text/plain; charset=no-such", "schön").body, "schön");
    let latin1 = parse(b"From: a@b.example\n\nsch\xf6n").unwrap();
    assert_eq!(latin1.body, "schön");
}

#[test]
fn the_same_bytes_have_the_same_id_even_without_a_message_id() {
    let first = message("Subject: x", "body").message_id;
    assert_eq!(first, message("Subject: x", "body").message_id);
    assert_ne!(first, message("Subject: x", "other").message_id);
    assert!(first.starts_with("sha256-") && first.ends_with("@missing.invalid"), "{first}");
    // An id that would have to be cut or mended could become another message's id.
    for unusable in ["<>".to_owned(), format!("<{}@x>", "a".repeat(2000)), "<a\u{200b}b@x>".to_owned()] {
        let id = message(&format!("Message-ID: {unusable}"), "body").message_id;
        assert!(id.starts_with("sha256-"), "{unusable}: {id}");
    }
}

#[test]
fn addresses_are_bare_and_only_their_domain_is_lowered() {
    let email = parse(
        b"From: \"Lind, Mara\" <Mara.Lind@EXAMPLE.Test>\r\nReply-To: Box@Reply.Example\r\n\
          To: team: a@x.example, B <b@x.example>;, nonsense, c@\r\nCc: \r\n\r\n",
    )
    .unwrap();
    assert_eq!(email.from, "Mara.Lind@example.test");
    assert_eq!(email.from_name.as_deref(), Some("Lind, Mara"));
    assert_eq!(email.reply_to.as_deref(), Some("Box@reply.example"));
    assert_eq!(email.to, ["a@x.example", "b@x.example"]);
    assert!(email.cc.is_empty());
    assert_eq!((email.subject.as_str(), email.body.as_str(), email.date), ("", "", None));
}

#[test]
fn automatic_mail_is_recognised_by_each_of_its_signs() {
    for sign in [
        "Auto-Submitted: auto-replied (vacation)",
        "auto-submitted: Auto-Generated",
        "Precedence: BULK",
        "Precedence: list",
        "Precedence: junk",
        "X-Autoreply: yes",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "Return-Path: <>",
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x",
    ] {
        assert!(message(sign, "").auto, "{sign}");
    }
    for no_sign in ["Auto-Submitted: no", "Precedence: first-class", "X-Auto-Response-Suppress: None", "X: y"]
    {
        assert!(!message(no_sign, "").auto, "{no_sign}");
    }
    assert!(message("List-Unsubscribe: <https://x.example>", "").list);
    assert!(message("LIST-ID: <x.example>", "").list);
}

#[test]
fn what_is_not_an_email_is_refused_with_the_reason() {
    let not = |why| Err(EmailError::NotAnEmail { why });
    assert_eq!(parse(b""), Err(EmailError::Empty));
    assert_eq!(parse(b" \r\n\r\n"), Err(EmailError::Empty));
    assert_eq!(parse(b"just words"), not("it has no header"));
    assert_eq!(parse(b"Subject: x\r\n\r\nbody"), not("it has no From header"));
    assert_eq!(parse(b"From: nobody\r\n\r\nbody"), Err(EmailError::NoSender));
    assert_eq!(parse(b"From: \r\n\r\nbody"), Err(EmailError::NoSender));
    let big = vec![b'x'; 30 * 1024 * 1024];
    let error = parse(&big).unwrap_err();
    assert_eq!(error.to_string(), "the email has 31457280 bytes; the limit is 26214400");
}

#[test]
fn a_message_saved_by_a_mail_program_is_read_too() {
    let email =
        parse(b"\xef\xbb\xbf\r\nFrom mara Thu Nov 19 10:00:00 2026\nFrom: a@b.example\nSubject: x\n\nhi\n")
            .unwrap();
    assert_eq!(
        (email.from.as_str(), email.subject.as_str(), email.body.as_str()),
        ("a@b.example", "x", "hi")
    );
    assert_eq!(parse(b"From: a@b.example").unwrap().body, "");
}

#[test]
fn characters_that_hide_or_reorder_text_are_left_out() {
    let body = message(
        "",
        "a\u{202e}b\u{200b}c\0d\u{7}e\u{85}f\u{e0041}g\u{fe0f}\th  \r\n\r\ni\rj \u{2028}k\r\n\r\n",
    )
    .body;
    assert_eq!(body, "abcdefg\th\n\ni\nj\nk");
    let email = message("Subject: =?utf-8?Q?a=00=E2=80=AEb=0D=0ABcc:_x?=", "");
    assert_eq!(email.subject, "ab Bcc: x");
}

#[test]
fn what_is_too_long_is_cut_and_the_cut_is_told() {
    let email = message(&format!("Subject: {}", "ö".repeat(2000)), &"ä".repeat(MAX_BODY + 1));
    assert_eq!((email.body.chars().count(), email.body_truncated), (MAX_BODY, true));
    assert_eq!(email.subject.chars().count(), MAX_SUBJECT);
    assert!(!message("", &"ä".repeat(MAX_BODY)).body_truncated);
    let many = vec!["x@y.example"; 500].join(",\r\n ");
    assert_eq!(message(&format!("To: {many}"), "").to.len(), MAX_ADDRESSES);
}

#[test]
fn the_run_input_is_an_object_with_every_field() {
    let email = example("03-lead-physio-brief.eml");
    let value = Value::from(&email);
    assert_eq!(value, serde_json::to_value(&email).unwrap());
    assert_eq!(value["cc"][0], "empfang@walden-physio.example");
    assert_eq!(value["date"], "2026-11-18T11:20:11+01:00");
    assert_eq!(value["attachments"][0]["media_type"], "application/pdf");
}
