//! A question reaches the owner's mailbox, and its link decides once, for him, about what he has seen.

use std::collections::BTreeSet;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use serde_json::json;
use steward::api::session::form_token;
use steward::domain::event::Verdict;
use steward::domain::ladder::ChannelName;
use steward::domain::notice::{NoticeKind, Severity};
use steward::store::notices::News;

use crate::support::eventually;
use crate::support::forge::by_hand;
use crate::support::letters::{Post, post, post_with};
use crate::support::visitor::Visitor;

const LEAD: &str = "01-lead-bakery.eml";
const OTHER: &str = "02-lead-ceramics-shop.eml";

/// A browser without any memory, that does not follow where it is sent.
fn browser() -> Client {
    Client::builder().redirect(redirect::Policy::none()).build().unwrap()
}

/// Presses a button of the page behind a link, whose forms carry what follows from its secret.
async fn press(link: &str, fields: &[(&str, &str)]) -> Response {
    form(link, &form_token(secret(link)), fields).send().await.unwrap()
}

fn form(link: &str, proof: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.append_pair("csrf", proof).extend_pairs(fields);
    // As browsers send it from a page that tells nobody its address.
    let request = browser().post(link).header("origin", "null").header("sec-fetch-site", "same-origin");
    request.header("content-type", "application/x-www-form-urlencoded").body(body.finish())
}

fn secret(link: &str) -> &str {
    link.rsplit_once('/').unwrap().1
}

async fn page(link: &str) -> (StatusCode, String) {
    let response = browser().get(link).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// What the form of the page sends along.
fn digest_in(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"digest\" value=\"").expect("a form with a digest");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn scanners_change_nothing_and_the_person_behind_them_decides_once() {
    let post = post().await;
    let (run, review, mail) = post.lead(LEAD).await;
    let link = mail.link();
    assert!(mail.subject.contains("email.send waits for you"), "{}", mail.subject);
    assert!(!mail.html.contains("<img") && !mail.html.contains("<script"));
    assert_eq!(mail.header("Auto-Submitted").as_deref(), Some("auto-generated"));

    // A scanner follows the link, again and again, in every way that is not pressing the button.
    for _ in 0..10 {
        let looks = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE]
            .map(|method| browser().request(method, &link).send());
        futures_util::future::join_all(looks).await;
    }
    let response = browser().head(&link).send().await.unwrap();
    assert_eq!(response.status(), 200);
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex, nofollow, noarchive"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    assert_eq!(post.status(&review).await, "open");

    // The person looks and presses it.
    let (status, shown) = page(&link).await;
    assert_eq!(status, 200);
    let digest = digest_in(&shown);
    assert_eq!(digest, review.digest.to_string());
    let pressed = press(&link, &[("do", "approve"), ("digest", &digest)]).await;
    assert_eq!(pressed.status(), StatusCode::SEE_OTHER);
    post.app.run_that_is(&run, &["succeeded"]).await;
    let decided = post.app.store.review(review.id).await.unwrap().unwrap();
    assert_eq!(decided.decided_by.as_deref(), Some("owner via email link"));

    // Whoever has the link now sees the outcome, and nothing can be done with it.
    let (status, shown) = page(&link).await;
    assert!(
        status == 200 && shown.contains("<h2 id=\"outcome\">Approved</h2>") && !shown.contains("<form"),
        "{shown}"
    );
    let again = press(&link, &[("do", "reject"), ("digest", &digest)]).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    assert_eq!(post.status(&review).await, "approved");
    post.app.stop().await;
}

#[tokio::test]
async fn forged_foreign_and_expired_links_decide_nothing() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let (_, other, _) = post.lead(OTHER).await;
    let link = mail.link();
    let digest = review.digest.to_string();
    let approve = [("do", "approve"), ("digest", digest.as_str())];

    // A secret that nobody made, or one with a letter changed.
    let (start, secret) = link.rsplit_once('/').unwrap();
    let first = if secret.starts_with('0') { '1' } else { '0' };
    for forged in ["0".repeat(64), format!("{first}{}", &secret[1..]), secret[1..].to_owned(), "x".into()] {
        let forged = format!("{start}/{forged}");
        assert_eq!(page(&forged).await.0, 404, "{forged}");
        assert_eq!(press(&forged, &approve).await.status(), 404, "{forged}");
    }
    // The link of one review with what another one asks, or with nothing that was seen.
    let foreign = other.digest.to_string();
    let about_another = press(&link, &[("do", "approve"), ("digest", &*foreign)]).await;
    assert_eq!(about_another.status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(press(&link, &[("do", "approve")]).await.status(), StatusCode::BAD_REQUEST);
    // A form that does not come from its page: without its proof, with that of another, from another site.
    for proof in ["", "0", &form_token(&"0".repeat(64))] {
        assert_eq!(form(&link, proof, &approve).send().await.unwrap().status(), 403, "{proof}");
    }
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let body = format!("csrf={}&do=approve&digest={digest}", form_token(secret));
        let forged = browser().post(&link).header(name, value).body(body).send().await.unwrap();
        assert_eq!(forged.status(), 403, "{name}");
    }
    assert_eq!(press(&link, &[("digest", &digest)]).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!((post.status(&review).await, post.status(&other).await), ("open".into(), "open".into()));

    // One that is too old.
    by_hand(&post.app.store, "update link_tokens set expires_at = now() - interval '1 second'").await;
    assert_eq!(page(&link).await.0, StatusCode::GONE);
    assert_eq!(press(&link, &approve).await.status(), StatusCode::GONE);
    assert_eq!(post.status(&review).await, "open");
    post.app.stop().await;
}

#[tokio::test]
async fn a_draft_that_changed_after_the_message_went_out_voids_its_link() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let (link, digest) = (mail.link(), review.digest.to_string());
    let changed = format!("update reviews set digest = sha256('another draft') where id = '{}'", review.id);
    by_hand(&post.app.store, &changed).await;
    let (status, shown) = page(&link).await;
    assert!(status == StatusCode::GONE && shown.contains("This has changed"), "{status} {shown}");
    let pressed = press(&link, &[("do", "approve"), ("digest", &digest)]).await;
    assert_eq!(pressed.status(), StatusCode::GONE);
    assert_eq!(post.status(&review).await, "open");
    post.app.stop().await;
}

#[tokio::test]
async fn a_high_risk_asks_for_more_than_a_link() {
    let post = post().await;
    let (run, review, mail) = post.lead(LEAD).await;
    let grave = "update reviews set question = jsonb_set(question, '{risk,class}', '\"high\"')";
    by_hand(&post.app.store, grave).await;
    let (link, digest) = (mail.link(), review.digest.to_string());
    let (status, shown) = page(&link).await;
    assert!(status == 200 && shown.contains("href=\"/sign-in\"") && !shown.contains("<form"), "{shown}");
    assert!(shown.contains(&format!("href=\"/reviews/{}\"", review.id)), "and back");
    for fields in [
        &[("do", "approve"), ("digest", digest.as_str())][..],
        &[("do", "reject"), ("digest", digest.as_str())],
        &[("do", "snooze"), ("for", "hour")],
        &[("do", "comment"), ("text", "hello")],
    ] {
        assert_eq!(press(&link, fields).await.status(), StatusCode::FORBIDDEN, "{fields:?}");
    }
    // The API's token opens no page, and a cookie beside the form of somebody without one makes nobody the owner.
    let approve = [("do", "approve"), ("digest", digest.as_str())];
    let bearer = form(&link, &form_token(secret(&link)), &approve).bearer_auth(&post.app.token);
    assert_eq!(bearer.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let owner = Visitor::signed_in(&post.app).await;
    let cookie = owner.cookie.clone().unwrap();
    let besides = form(&link, &form_token(secret(&link)), &approve).header("cookie", &cookie);
    assert_eq!(besides.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(post.status(&review).await, "open");
    // The same by the owner, signed in, on the page as he is shown it.
    let here = format!("/r/{}", secret(&link));
    let shown = owner.get(&here).await;
    assert!(shown.body.contains("value=\"approve\""), "{}", shown.body);
    let fields = [("csrf", &*shown.field("csrf")), ("do", "approve"), ("digest", &*digest)];
    let known = owner.form(&here, &fields).header("origin", "null").send().await.unwrap();
    assert_eq!(known.status(), StatusCode::SEE_OTHER);
    let decided = post.app.store.review(review.id).await.unwrap().unwrap();
    assert_eq!(decided.decided_by.as_deref(), Some("owner via email link"));
    post.app.run_that_is(&run, &["succeeded"]).await;
    post.app.stop().await;
}

#[tokio::test]
async fn a_link_opens_the_page_of_the_inbox_and_everything_on_it_but_the_rest_of_the_house() {
    let post = post().await;
    let (run, review, mail) = post.lead(LEAD).await;
    let (link, digest) = (mail.link(), review.digest.to_string());
    let here = format!("/r/{}", secret(&link));
    let (_, shown) = page(&link).await;
    let inbox = Visitor::signed_in(&post.app).await.get(&format!("/reviews/{}", review.id)).await.body;
    let parts = |page: &str| -> Vec<String> {
        let sections = page.split("<section class=\"").skip(1);
        sections.map(|part| part.split("</section>").next().unwrap().to_owned()).collect()
    };
    assert!(parts(&shown).len() > 2 && parts(&shown) == parts(&inbox), "{shown}");
    assert!(!shown.contains(&run) && !shown.contains("/sign-out") && !shown.contains("/reviews/"));

    // Said and put off, as often as one likes: the link is not used up by it.
    for n in 0..2 {
        let said = press(&link, &[("do", "comment"), ("text", &format!("<b>call</b> them {n}"))]).await;
        assert_eq!(said.status(), StatusCode::SEE_OTHER);
        assert_eq!(said.headers()["location"], here);
    }
    assert_eq!(press(&link, &[("do", "comment"), ("text", " \n")]).await.status(), 422);
    assert_eq!(press(&link, &[("do", "snooze"), ("for", "hour")]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(press(&link, &[("do", "snooze"), ("for", "year")]).await.status(), StatusCode::BAD_REQUEST);
    let (_, shown) = page(&link).await;
    assert!(
        shown.contains("&lt;b&gt;call&lt;/b&gt; them 1") && shown.contains("Left alone until"),
        "{shown}"
    );
    assert!(shown.contains("owner via email link"));

    // Words that say nothing are refused, and give the link back.
    assert!(shown.contains("value=\"respond\""));
    let words = [("do", "respond"), ("words", " "), ("digest", digest.as_str())];
    assert_eq!(press(&link, &words).await.status(), 422);

    // An edit is looked at first, which decides nothing, and uses nothing up.
    let params = &review.question.action.as_ref().unwrap().params;
    let edited: Vec<(String, String)> = params
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = if name == "body" { format!("{text}\nWarmly") } else { text };
            (format!("p.{name}"), text)
        })
        .collect();
    let edit = |word| -> Vec<(&str, &str)> {
        let typed = edited.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        typed.chain([("digest", digest.as_str()), ("do", word)]).collect()
    };
    let preview = press(&link, &edit("preview")).await;
    assert_eq!(preview.status(), 200);
    assert!(preview.text().await.unwrap().contains("<ins>"));
    assert_eq!(post.status(&review).await, "open");
    assert_eq!(press(&link, &edit("edit")).await.status(), StatusCode::SEE_OTHER);
    let decided = post.app.store.review(review.id).await.unwrap().unwrap();
    let Some(Verdict::Edited { params }) = decided.verdict else { panic!("{:?}", decided.verdict) };
    assert!(params["body"].as_str().unwrap().ends_with("\nWarmly"));
    // And then nothing more is said through it.
    for fields in [[("do", "comment"), ("text", "late")], [("do", "snooze"), ("for", "hour")]] {
        assert_eq!(press(&link, &fields).await.status(), StatusCode::CONFLICT, "{fields:?}");
    }
    post.app.stop().await;
}

#[tokio::test]
async fn words_for_another_draft_are_said_through_a_link_once() {
    let post = post().await;
    let (run, review, mail) = post.lead(LEAD).await;
    let (link, digest) = (mail.link(), review.digest.to_string());
    let words = [("do", "respond"), ("words", "Shorter, please."), ("digest", digest.as_str())];
    assert_eq!(press(&link, &words).await.status(), StatusCode::SEE_OTHER);
    let said = post.app.store.review(review.id).await.unwrap().unwrap();
    assert_eq!(said.verdict, Some(Verdict::Responded { words: "Shorter, please.".into() }));
    let (_, shown) = page(&link).await;
    assert!(shown.contains("Given back for another draft") && shown.contains("Shorter, please."), "{shown}");
    assert_eq!(press(&link, &words).await.status(), StatusCode::CONFLICT);
    assert_ne!(post.app.open_review(&run).await["id"], json!(review.id), "the owner is asked anew");
    post.app.stop().await;
}

#[tokio::test]
async fn of_many_presses_at_once_one_decides_and_an_expiry_is_one_of_them() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let (link, digest) = (mail.link(), review.digest.to_string());
    let presses = (0..8).map(|n| {
        let verdict = if n % 2 == 0 { "approve" } else { "reject" };
        let (link, digest) = (link.clone(), digest.clone());
        async move {
            let pressed = press(&link, &[("do", verdict), ("digest", &digest)]).await;
            let became = if verdict == "approve" { "approved" } else { "rejected" };
            (pressed.status() == StatusCode::SEE_OTHER).then_some(became)
        }
    });
    let expiry = post.app.store.decide(review.id, review.digest, &Verdict::Expired, "clock");
    let (pressed, expired) = tokio::join!(futures_util::future::join_all(presses), expiry);
    let mut won: Vec<&str> = pressed.into_iter().flatten().collect();
    won.extend(expired.ok().map(|_| "expired"));
    assert_eq!(won, [post.status(&review).await]);
    post.app.stop().await;
}

#[tokio::test]
async fn a_second_delivery_has_the_same_message_id_and_a_reminder_stands_in_the_thread() {
    let post = post().await;
    let (_, review, first) = post.lead(LEAD).await;
    eventually("the first word noted", || async {
        let noted = "update messages_out set due_at = now() where status = 'sent'";
        by_hand(&post.app.store, noted).await;
        by_hand(&post.app.store, "update messages_out set status = 'due' where status = 'sent'").await;
        (post.found().len() > 1).then_some(())
    })
    .await;
    eventually("the second try noted", || async {
        let (client, connection) = post.app.store.config().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_opt("select 1 from messages_out where status = 'sent'", &[]).await.unwrap().map(drop)
    })
    .await;
    let again = post.nth(2).await;
    assert_eq!(again.message_id, first.message_id);
    assert_ne!(again.link(), first.link(), "a secret is never written down: each try has its own");
    let before = post.found().len();
    let later =
        "update reviews set opened_at = opened_at - interval '5 hours', tell_at = now() - interval '1 hour'";
    by_hand(&post.app.store, later).await;
    let reminder = eventually("the reminder", || async {
        post.found().into_iter().skip(before).find(|mail| mail.message_id != first.message_id)
    })
    .await;
    assert_eq!(reminder.in_reply_to.as_deref(), Some(first.message_id.as_str()));
    assert!(reminder.subject.starts_with("Re: ") && reminder.text.contains("still waits"));
    // Decided through one of them, the others are void.
    let digest = review.digest.to_string();
    let reject = [("do", "reject"), ("reason", "not now"), ("digest", digest.as_str())];
    assert_eq!(press(&reminder.link(), &reject).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(press(&first.link(), &reject).await.status(), StatusCode::CONFLICT);
    assert!(page(&first.link()).await.1.contains("not now"));
    post.app.stop().await;
}

#[tokio::test]
async fn a_notice_comes_by_mail_once() {
    let post = post().await;
    let news = News {
        kind: NoticeKind::ConnectorKey,
        subject: "crm",
        severity: Severity::Critical,
        title: "The key of <crm> is refused",
        detail: "401\u{202e} https://evil.example",
        run: None,
    };
    for _ in 0..3 {
        post.app.service.as_ref().unwrap().door.engine().tell_owner(&news).await;
    }
    let mail = post.nth(1).await;
    assert_eq!(mail.subject, "[Steward] critical: connector key");
    assert!(mail.text.contains("The key of <crm> is refused") && mail.html.contains("&lt;crm&gt;"));
    assert!(mail.text.contains("401⟨U+202E⟩ https[:]//evil.example"), "{}", mail.text);
    post.app.stop().await;
}

async fn digest_post() -> Post {
    post_with("digest: { at: \"00:00\", channels: [email] }\n").await
}

#[tokio::test]
async fn the_digest_ends_by_one_request_and_looking_does_not_end_it() {
    let post = digest_post().await;
    let mail = post.nth(1).await;
    assert!(mail.subject.starts_with("[Steward] Your day, "), "{}", mail.subject);
    assert!(mail.text.contains("Waiting for you: 0"), "{}", mail.text);
    assert_eq!(mail.header("List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"));
    let stop = mail.header("List-Unsubscribe").unwrap();
    let stop = stop.trim_start_matches('<').trim_end_matches('>').to_owned();
    assert!(mail.text.contains(&stop));
    let forged = format!("{}{}", &stop[..stop.len() - 1], if stop.ends_with('0') { '1' } else { '0' });
    for _ in 0..3 {
        assert!(page(&stop).await.1.contains("is sent to you."));
        assert_eq!(press(&forged, &[("List-Unsubscribe", "One-Click")]).await.status(), 404);
    }
    let owner = crate::support::letters::OWNER;
    assert!(post.app.store.digest_wanted(owner).await.unwrap());
    assert_eq!(press(&stop, &[("List-Unsubscribe", "One-Click")]).await.status(), 200);
    assert!(page(&stop).await.1.contains("not sent to you any more"));

    // The next one is not sent; the button brings them back.
    let by_mail = BTreeSet::from([ChannelName::Email]);
    post.app.store.send_digest("2030-01-01".parse().unwrap(), &by_mail).await.unwrap();
    eventually("the digest dropped", || async {
        let (client, connection) = post.app.store.config().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let dropped = "select 1 from messages_out where day = '2030-01-01' and place ->> 'unwanted' = 'true'";
        client.query_opt(dropped, &[]).await.unwrap().map(drop)
    })
    .await;
    assert_eq!(post.found().len(), 1);
    assert_eq!(press(&stop, &[("digest", "on")]).await.status(), 200);
    post.app.store.send_digest("2030-01-02".parse().unwrap(), &by_mail).await.unwrap();
    assert!(post.nth(2).await.subject.contains("2030-01-02"));
    post.app.stop().await;
}
