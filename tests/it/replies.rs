//! The owner answers the mail. What is not proven to be his, about a question as it is, does nothing; and no
//! answer ever approves or opens a run.

use crate::support::forge::by_hand;
use crate::support::letters::{OWNER, post};

const LEAD: &str = "01-lead-bakery.eml";
const OTHER: &str = "02-lead-ceramics-shop.eml";
const DOMAIN: &str = "harbourandpine.example";

/// As many mails as the door reads at once.
const AT_ONCE: usize = 4;

#[tokio::test]
async fn a_signed_reply_rejects_once_and_the_run_goes_on() {
    let post = post().await;
    let (run, review, mail) = post.lead(LEAD).await;
    let to = mail.reply_to.unwrap();
    assert!(to.split('@').next().unwrap().len() <= 64 && to.starts_with("steward+"), "{to}");
    let raw = post.of_owner(&to, "reject we are booked until May\n\nOn Mon Steward wrote:\n> approve");
    assert_eq!(post.reply(&review, raw.clone()).await, "rejected");
    let row = post.app.store.review(review.id).await.unwrap().unwrap();
    assert_eq!((row.status.as_str(), row.decided_by.as_deref()), ("rejected", Some("owner via email")));
    assert_eq!(serde_json::json!(row.verdict)["reason"], "we are booked until May");
    post.app.run_that_is(&run, &["declined"]).await;
    // The same mail delivered again is the same mail, and a new one is told that it comes too late.
    post.reply(&review, raw).await;
    assert_eq!(post.replies(&review).await, ["rejected"]);
    let late = post.reply(&review, post.of_owner(&to, "reject")).await;
    assert!(late.starts_with("explained: This was decided before"), "{late}");
    assert!(post.nth(2).await.text.contains("decided before your reply came"));
    assert_eq!(post.runs().await, 1);
    post.app.stop().await;
}

#[tokio::test]
async fn a_reply_comments_and_snoozes_and_never_approves() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let to = mail.reply_to.unwrap();
    let did = post.reply(&review, post.of_owner(&to, "Please use her first name.")).await;
    assert_eq!(did, "commented");
    let did = post.reply(&review, post.of_owner(&to, "snooze 2h")).await;
    assert!(did.starts_with("snoozed until "), "{did}");
    assert_eq!(post.found().len(), 1, "what was done needs no mail");
    for (n, yes) in ["approve", "Yes, send it"].into_iter().enumerate() {
        let did = post.reply(&review, post.of_owner(&to, yes)).await;
        assert!(did.starts_with("explained: Nothing was approved"), "{did}");
        let told = post.nth(n + 2).await;
        assert!(told.text.contains("a reply never approves"), "{}", told.text);
        assert_eq!(told.header("Auto-Submitted").as_deref(), Some("auto-generated"));
    }
    let did = post.reply(&review, post.of_owner(&to, "snooze until the cows come home")).await;
    assert!(did.starts_with("explained: Nothing was snoozed"), "{did}");
    assert_eq!(post.status(&review).await, "open");
    assert_eq!(post.runs().await, 1);
    post.app.stop().await;
}

#[tokio::test]
async fn a_forged_reply_does_nothing() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let (_, other, of_other) = post.lead(OTHER).await;
    let (to, to_other) = (mail.reply_to.unwrap(), of_other.reply_to.unwrap());
    let words = "reject";
    let good = post.of_owner(&to, words);
    let unsigned = good.split_once("From: ").map(|(_, rest)| format!("From: {rest}")).unwrap();
    let beside = format!("To: {to_other}\r\nTo: {to}");
    // A mail of the owner's own to somebody else, sent on to a question.
    let sent_on = format!("Delivered-To: {to}\r\n{}", post.of_owner("friend@elsewhere.example", words));
    let unproven = "nothing proves who sent it";
    let forged = [
        (&review, unproven, unsigned),
        (&review, unproven, good.replace("\r\nreject", "\r\nreject all")),
        (&review, unproven, post.signed("evil.example", OWNER, &to, words, "")),
        (&review, unproven, post.signed("unknown.example", OWNER, &to, words, "")),
        (
            &review,
            "it is not from the owner",
            post.signed("evil.example", "eve@evil.example", &to, words, ""),
        ),
        (&review, "it is not from the owner", post.signed(DOMAIN, &format!("eve@{DOMAIN}"), &to, words, "")),
        (&review, "the owner did not address it to this question", sent_on),
        // A second header beside the one that he signed.
        (
            &other,
            "the owner did not address it to this question",
            good.replace(&format!("To: {to}"), &beside),
        ),
    ];
    for (of, why, raw) in forged {
        assert_eq!(post.reply(of, raw.clone()).await, format!("ignored: {why}"), "{raw}");
    }
    let good = post.of_owner(&to, words);
    // The owner's answer to one question, sent on to the other one: its own address still stands in it, signed.
    let replayed = format!("Delivered-To: {to_other}\r\n{good}");
    let did = post.reply(&other, replayed).await;
    assert_eq!(did, "ignored: the owner did not address it to this question");
    // A key with another review's name in it, and one that is none at all, signed by the owner himself.
    let (local, rest) = to.split_at("steward+".len() + 26);
    let mixed = format!("{}{rest}", &to_other[..local.len()]);
    let did = post.reply(&other, post.of_owner(&mixed, words)).await;
    assert_eq!(did, "ignored: its address was not written by Steward, or the question has changed");
    post.hand_in(post.of_owner(&format!("steward+nothing@{DOMAIN}"), words)).await;
    assert_eq!((post.status(&review).await, post.status(&other).await), ("open".into(), "open".into()));
    assert_eq!(post.found().len(), 2, "nobody is answered who is not the owner");
    assert_eq!(post.runs().await, 2);
    post.app.stop().await;
}

#[tokio::test]
async fn a_reply_about_a_draft_that_has_changed_does_nothing() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let changed = format!("update reviews set digest = sha256('another draft') where id = '{}'", review.id);
    by_hand(&post.app.store, &changed).await;
    let did = post.reply(&review, post.of_owner(&mail.reply_to.unwrap(), "reject")).await;
    assert_eq!(did, "ignored: its address was not written by Steward, or the question has changed");
    assert_eq!(post.status(&review).await, "open");
    post.app.stop().await;
}

#[tokio::test]
async fn machines_that_answer_are_not_heard_and_no_two_of_them_talk_for_ever() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let to = mail.reply_to.clone().unwrap();
    for header in [
        "Auto-Submitted: auto-replied\r\n",
        "Precedence: bulk\r\n",
        "X-Autoreply: yes\r\n",
        "Return-Path: <>\r\n",
        "Content-Type: multipart/report; boundary=x\r\n",
        "List-Id: <list.example>\r\n",
    ] {
        let raw = post.signed(DOMAIN, OWNER, &to, "reject I am on holiday", header);
        assert_eq!(post.reply(&review, raw).await, "ignored: a machine wrote it", "{header}");
    }
    // Steward's own mail, sent back to it as it is.
    let own =
        String::from_utf8(mail.raw.clone()).unwrap().replace(&format!("To: {OWNER}"), &format!("To: {to}"));
    assert_eq!(post.reply(&review, own).await, "ignored: a machine wrote it");
    // The explanation, sent back by a machine that forwards: it is not answered again.
    post.reply(&review, post.of_owner(&to, "approve")).await;
    let told = post.nth(2).await;
    let back =
        String::from_utf8(told.raw.clone()).unwrap().replace(&format!("To: {OWNER}"), &format!("To: {to}"));
    assert_eq!(post.reply(&review, back).await, "ignored: a machine wrote it");
    assert_eq!(post.found().len(), 2);
    assert_eq!(post.status(&review).await, "open");
    assert_eq!(post.runs().await, 1);
    post.app.stop().await;
}

#[tokio::test]
async fn a_run_knows_which_domain_vouches_for_the_mail_that_opened_it() {
    let post = post().await;
    let hello = "hello@harbourandpine.example";
    let words = "I need a web shop for my flowers, can you help me and what would it cost?";
    for (raw, vouched) in [
        (
            post.signed("evil.example", "eve@evil.example", hello, words, ""),
            serde_json::json!("evil.example"),
        ),
        (post.signed("evil.example", "nora@flowers.example", hello, words, ""), serde_json::Value::Null),
    ] {
        let run = post.app.deliver(raw.into_bytes()).await.parse().unwrap();
        let opened = post.app.store.journal(run, 0, 1).await.unwrap().remove(0);
        assert_eq!(opened.data.unwrap()["input"]["authenticated"], vouched);
    }
    post.app.stop().await;
}

#[tokio::test]
async fn a_reply_that_is_dropped_into_the_inbox_folder_goes_the_same_way() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let raw = post.of_owner(&mail.reply_to.unwrap(), "reject not this one");
    let inbox = post.app.workspace.join(".steward/inbox");
    std::fs::write(inbox.join("reply.tmp"), raw).unwrap();
    std::fs::rename(inbox.join("reply.tmp"), inbox.join("reply.eml")).unwrap();
    crate::support::eventually("the rejection", || async {
        (post.status(&review).await == "rejected").then_some(())
    })
    .await;
    crate::support::eventually("the file put away", || async {
        inbox.join("done/reply.eml").exists().then_some(())
    })
    .await;
    assert_eq!(post.runs().await, 1);
    post.app.stop().await;
}

#[tokio::test]
async fn a_reply_that_is_delivered_several_times_at_once_is_heard_once() {
    let post = post().await;
    let (_, review, mail) = post.lead(LEAD).await;
    let to = mail.reply_to.unwrap();
    for nth in 1..=5 {
        let raw = post.of_owner(&to, &format!("Comment number {nth}."));
        futures_util::future::join_all((0..AT_ONCE).map(|_| post.hand_in(raw.clone()))).await;
        let comments = post.app.store.comments(review.id, 50).await.unwrap();
        assert_eq!(comments.len(), nth, "{comments:?}");
    }
    assert_eq!(post.replies(&review).await, ["commented"; 5]);
    // Whoever dealt with one and died before he could say so is taken for gone after a while: the mail is dealt
    // with again, and what it said is still said once.
    by_hand(&post.app.store, "update mail_replies set did = null, claimed_until = now()").await;
    let raw = post.of_owner(&to, "Comment number 6.");
    post.hand_in(raw.clone()).await;
    by_hand(&post.app.store, "update mail_replies set did = null, claimed_until = now()").await;
    assert_eq!(post.reply(&review, raw).await, "commented");
    assert_eq!(post.app.store.comments(review.id, 50).await.unwrap().len(), 6);
    // One word that decides, at once: it decides, and the owner is not told that he came too late.
    let raw = post.of_owner(&to, "reject not now");
    futures_util::future::join_all((0..AT_ONCE).map(|_| post.hand_in(raw.clone()))).await;
    assert_eq!(post.status(&review).await, "rejected");
    assert!(post.replies(&review).await.contains(&"rejected".to_owned()));
    assert_eq!(post.found().len(), 1, "nothing was explained");
    post.app.stop().await;
}
