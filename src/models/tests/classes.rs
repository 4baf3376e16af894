//! The encoder as a classifier, on mails as they come.

use serde_json::{Value, json};

use crate::domain::workflow::Class;
use crate::models::classify::{Classifier, Verdict};
use crate::models::encoder::Encoder;

fn classes() -> Vec<Class> {
    serde_json::from_value(json!([
        {"class": "lead", "examples": [
            "We run a small bakery and need a new website. What would it cost and when could you start?",
            "Could you send us an offer for a web shop with card payment and shipping?",
            "Our old homepage cannot be updated any more. We would need about five pages.",
            "A friend recommended you. Do you have time for a new project this year?",
            "I am looking for someone to redesign our site, the budget is about 5,000."]},
        {"class": "support", "examples": [
            "How do I change the opening hours on our website?",
            "The contact form on our site no longer works since yesterday.",
            "I have a question about the invoice you sent us.",
            "I forgot my password and cannot log in to edit my page.",
            "What do I have to enter for the DNS records?"]},
        {"class": "spam", "examples": [
            "I was on your website and found critical errors. We guarantee the first page of all search engines.",
            "Our SEO experts offer 5,000 backlinks for only $99 per month, offer ends today.",
            "You have been selected for a business loan, reply YES with your phone number.",
            "Invest in Bitcoin now and double your money in thirty days."]},
        {"class": "other", "examples": [
            "Your invoice for November is attached. The amount will be debited from your account.",
            "This is an automatic reply. I am out of the office.",
            "Our newsletter with conference tickets, articles and talks. Unsubscribe here.",
            "Your parcel is on its way, here is the tracking number."]}
    ]))
    .unwrap()
}

async fn sort(classifier: &Classifier, with: Value) -> Verdict {
    classifier.classify(&classes(), &with).await.unwrap().unwrap()
}

#[tokio::test]
async fn short_mails_find_their_class_with_a_margin() {
    let classifier = Classifier::new(Encoder::load().unwrap());
    for (class, subject, body) in [
        (
            "lead",
            "New website",
            "Hello, we are a small hotel and would like a new homepage. What does that cost?",
        ),
        ("lead", "Web shop", "I make candles and want to sell them online. Could you make me an offer?"),
        (
            "lead",
            "Enquiry",
            "Our studio needs a redesign of our site before summer, budget around 4000 euros.",
        ),
        ("support", "Opening hours", "How can I change the opening hours on the contact page? Thanks, Mia"),
        ("support", "Login", "I have forgotten my password for the site, can you reset it?"),
        ("support", "Form broken", "Customers tell us that the contact form shows an error since Monday."),
        ("spam", "Rank #1 on Google", "We offer guaranteed first page SEO rankings and backlinks for $199!"),
        (
            "spam",
            "Business loan",
            "Congratulations, you are pre-approved for a loan of $50,000. Reply with your number.",
        ),
        ("spam", "Crypto", "Double your Bitcoin in a week, invest now with our trading robot."),
        ("other", "Automatic reply", "I am out of the office until 3 May and will answer when I return."),
        ("other", "Shipped", "Your order has been shipped. Track your parcel with the number below."),
        (
            "other",
            "Newsletter May",
            "This month: new articles, upcoming talks, early bird tickets. Unsubscribe.",
        ),
    ] {
        let verdict = sort(&classifier, json!({"subject": subject, "body": body})).await;
        assert_eq!(verdict.class, class, "{subject}: {verdict:?}");
        assert!(verdict.confidence > 0.5, "{subject}: {verdict:?}");
    }
}

#[tokio::test]
async fn what_was_quoted_or_is_no_prose_does_not_sway_the_verdict() {
    let classifier = Classifier::new(Encoder::load().unwrap());
    let body = "How do I change the opening hours on our website?";
    let plain = sort(&classifier, json!({"body": body})).await;
    let quoting = format!("{body}\n> Invest in Bitcoin now and double your money\n> in thirty days.");
    let with = json!({"body": quoting, "from": "loan@bitcoin.example", "id": "seo-99", "n": 3});
    assert_eq!(sort(&classifier, with).await, plain);
}

#[tokio::test]
async fn an_input_without_any_text_gets_no_confidence_and_no_error() {
    let classifier = Classifier::new(Encoder::load().unwrap());
    for with in [json!({"body": " \n "}), json!({}), json!(null), json!({"n": [1]}), json!({"subject": "."})]
    {
        let verdict = sort(&classifier, with.clone()).await;
        assert!(verdict.confidence == 0.0 && verdict.scores.is_empty(), "{with}: {verdict:?}");
    }
    assert_eq!(classifier.classify(&[], &json!({"body": "x y"})).await.unwrap(), None);
}

#[tokio::test]
async fn the_beginning_of_a_long_mail_decides() {
    let classifier = Classifier::new(Encoder::load().unwrap());
    let tail = "Kind regards and best wishes from all of us here. ".repeat(20_000);
    let body =
        format!("We need a new website for our bakery. What would it cost, when could you start? {tail}");
    assert_eq!(sort(&classifier, json!({"body": body})).await.class, "lead");
}
