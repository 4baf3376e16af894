use super::*;
use crate::domain::action::spec;
use crate::domain::event::Verified;
use crate::domain::policy::facts::{History, Seen, Sender};
use crate::domain::risk;
use crate::domain::workflow::Stage;
use jiff::civil::date;
use serde_json::json;

fn facts(stage: Stage, confidence: f64) -> Facts {
    let mut facts = Facts::bare("lead-intake".into(), stage, date(2026, 11, 30).at(10, 0, 0, 0));
    facts.confidence = Some(confidence);
    facts
}

/// A mail to `to`, in the thread of a mail that came from `ann@client.example`.
fn mail(to: Value, body: &str) -> Action {
    let params = json!({"to": to, "subject": "s", "body": body, "in_reply_to": "1@client.example"});
    Action { action: "email.send".into(), params }
}

fn weigh(policy: &Policy, action: &Action, label: Label, facts: &Facts) -> Weighed {
    let labels = Labels::from([("to".to_owned(), label), ("body".to_owned(), Label::Untrusted)]);
    policy.weigh(&Case { action, spec: spec(&action.action).unwrap(), labels: &labels, facts })
}

fn judge(policy: &Policy, to: &str, label: Label, stage: Stage, confidence: f64) -> Weighed {
    weigh(policy, &mail(json!(to), "b"), label, &facts(stage, confidence))
}

fn reasons(weighed: &Weighed) -> Vec<&str> {
    weighed.findings.iter().map(|finding| finding.reason.as_str()).collect()
}

fn rule(when: Option<&str>, then: Ruling, because: &str) -> Rule {
    Rule {
        rule: because.into(),
        action: "email.*".into(),
        when: when.map(Into::into),
        then,
        because: because.into(),
        needs: None,
    }
}

fn one(when: &str) -> Policy {
    Policy { rules: vec![rule(Some(when), Ruling::Review, "matched")], ..Policy::default() }
}

fn seen(key: &str, seen: Seen) -> History {
    History { targets: [(key.to_owned(), seen)].into(), ..History::default() }
}

#[test]
fn the_strictest_rule_wins_and_every_reason_is_kept() {
    let rules =
        vec![rule(None, Ruling::Allow, "a"), rule(None, Ruling::Deny, "d"), rule(None, Ruling::Review, "r")];
    let policy = Policy { rules, ..Policy::default() };
    let weighed = judge(&policy, "x@y.example", Label::Owner, Stage::Live, 1.0);
    assert_eq!(weighed.ruling, Ruling::Deny);
    let said: Vec<_> = weighed.findings.iter().map(|finding| finding.ruling).collect();
    assert_eq!(said, [Ruling::Deny, Ruling::Review, Ruling::Allow]);
}

#[test]
fn a_denial_says_which_rule_it_was_and_what_would_be_needed() {
    let mut deny = rule(Some("sent_day >= 5"), Ruling::Deny, "Five mails a day are enough.");
    deny.rule = "flood".into();
    let mut facts = facts(Stage::Live, 1.0);
    facts.history = Some(seen("x@y.example", Seen { day: 5, ..Seen::default() }));
    let told = |rule: &Rule| {
        let policy = Policy { rules: vec![rule.clone()], ..Policy::default() };
        reasons(&weigh(&policy, &mail(json!("x@y.example"), "b"), Label::Owner, &facts))[0].to_owned()
    };
    assert_eq!(
        told(&deny),
        "Five mails a day are enough (rule `flood`; needed: that `sent_day >= 5` does not hold)"
    );
    deny.needs = Some("Wait until tomorrow.".into());
    assert_eq!(told(&deny), "Five mails a day are enough (rule `flood`; needed: Wait until tomorrow)");
}

#[test]
fn a_supervised_version_has_every_external_effect_reviewed() {
    let weighed = judge(&Policy::default(), "x@y.example", Label::Owner, Stage::Supervised, 1.0);
    assert_eq!(weighed.ruling, Ruling::Review);
}

#[test]
fn a_recipient_from_outside_is_reviewed_unless_the_owner_knows_it() {
    let known = Policy { known: BTreeSet::from(["x@y.example".to_owned()]), ..Policy::default() };
    assert_eq!(judge(&known, "X@y.example", Label::Untrusted, Stage::Live, 1.0).ruling, Ruling::Allow);
    let weighed = judge(&known, "z@y.example", Label::Untrusted, Stage::Live, 1.0);
    assert_eq!((weighed.ruling, weighed.stakes.risk), (Ruling::Review, Risk::High));
    assert!(reasons(&weighed)[0].contains("z@y.example"));
    assert!(weighed.stakes.tags.contains(risk::UNKNOWN_TARGET));
}

#[test]
fn a_contact_that_the_owner_wrote_down_is_known() {
    let mut facts = facts(Stage::Live, 1.0);
    let contact = Seen { contact: true, ..Seen::default() };
    facts.history = Some(seen("z@y.example", contact));
    let action = mail(json!("z@y.example"), "b");
    let weighed = weigh(&Policy::default(), &action, Label::Untrusted, &facts);
    assert_eq!((weighed.ruling, weighed.stakes.risk), (Ruling::Allow, Risk::Low));
}

#[test]
fn a_recipient_that_is_no_plain_text_cannot_slip_past_as_known() {
    let known = Policy { known: BTreeSet::from(["z@y.example".to_owned()]), ..Policy::default() };
    for to in [json!([{"address": "z@y.example"}]), json!("z@y.example <x@evil.example>"), json!(7)] {
        let weighed = weigh(&known, &mail(to.clone(), "b"), Label::Untrusted, &facts(Stage::Live, 1.0));
        assert_eq!(weighed.ruling, Ruling::Review, "{to}");
    }
}

#[test]
fn an_amount_or_account_that_others_chose_is_reviewed() {
    let params = json!({"method": "POST", "url": "https://pay.example/", "body": {"x": 1}});
    let action = Action { action: "http.request".into(), params };
    let judged = |label| {
        let mut action = action.clone();
        action.params["amount"] = json!(12);
        let labels = Labels::from([("amount".to_owned(), label)]);
        let facts = facts(Stage::Live, 1.0);
        let case =
            Case { action: &action, spec: spec("http.request").unwrap(), labels: &labels, facts: &facts };
        Policy::default().weigh(&case)
    };
    assert_eq!(judged(Label::Owner).ruling, Ruling::Allow);
    let untrusted = judged(Label::Untrusted);
    assert_eq!(reasons(&untrusted), ["`amount` was chosen by something from outside"]);
    assert_eq!(untrusted.names["amount"], json!(12.0));
}

#[test]
fn low_confidence_can_raise_a_review_and_high_confidence_never_waives_one() {
    let policy = Policy {
        rules: vec![
            rule(Some("confidence < 0.5"), Ruling::Review, "unsure"),
            rule(Some("confidence > 0.5"), Ruling::Allow, "sure"),
        ],
        ..Policy::default()
    };
    assert_eq!(judge(&policy, "x@y.example", Label::Owner, Stage::Live, 0.4).ruling, Ruling::Review);
    assert_eq!(judge(&policy, "x@y.example", Label::Owner, Stage::Supervised, 1.0).ruling, Ruling::Review);
}

#[test]
fn a_rule_that_cannot_be_evaluated_asks_the_owner() {
    for when in [
        "params.amount > 3",
        "sent_day > 3",
        "first_contact",
        "spent_today > 1",
        "params.subject > 3 + 'x'",
        "not first_contact",
        "first_contact and new_domain",
        "confidence < 0.1 or first_contact",
    ] {
        let policy = Policy { rules: vec![rule(Some(when), Ruling::Deny, "d")], ..Policy::default() };
        let weighed = judge(&policy, "x@y.example", Label::Owner, Stage::Live, 1.0);
        assert_eq!(weighed.ruling, Ruling::Review, "{when}");
        assert!(reasons(&weighed)[0].contains("could not be evaluated"), "{when}");
    }
}

#[test]
fn a_tag_that_cannot_be_evaluated_is_given_and_asks_the_owner() {
    let tag = TagRule {
        tag: "odd".into(),
        action: "*".into(),
        words: Vec::new(),
        when: Some("params.amount > 3".into()),
        risk: Risk::High,
    };
    let policy = Policy { tags: vec![tag], ..Policy::default() };
    let weighed = judge(&policy, "x@y.example", Label::Owner, Stage::Live, 1.0);
    assert_eq!((weighed.ruling, weighed.stakes.risk), (Ruling::Review, Risk::High));
    assert!(weighed.stakes.tags.contains("odd"));
}

#[test]
fn money_in_words_is_an_amount_for_rules_and_makes_the_risk_high() {
    let policy = one("amount > 1000 and currency == 'EUR'");
    let judged = |body: &str| {
        weigh(&policy, &mail(json!("x@y.example"), body), Label::Owner, &facts(Stage::Live, 1.0))
    };
    let dear = judged("The whole is 1.200,50 €, of which $300 were paid.");
    assert_eq!((dear.ruling, dear.stakes.risk), (Ruling::Review, Risk::High));
    assert_eq!(dear.names["amounts"].as_array().unwrap().len(), 2);
    assert_eq!(judged("The whole is 900 EUR").ruling, Ruling::Allow);
    assert_eq!(judged("Nothing of the kind").stakes.risk, Risk::Low);
}

#[test]
fn words_of_a_tag_are_found_in_any_spelling_and_rules_go_by_the_tag() {
    let tag = TagRule {
        tag: "legal".into(),
        action: "email.*".into(),
        words: vec!["liab".into(), "contract".into()],
        when: None,
        risk: Risk::High,
    };
    let mut policy = one("'legal' in tags and risk == 'high'");
    policy.tags.push(tag);
    let judged = |body: &str| {
        let action = mail(json!("x@y.example"), body);
        weigh(&policy, &action, Label::Owner, &facts(Stage::Live, 1.0)).ruling
    };
    for body in ["our LIABILITY", "the c\u{043e}ntract", "a con\u{200b}tract", "ｃｏｎｔｒａｃｔ"] {
        assert_eq!(judged(body), Ruling::Review, "{body}");
    }
    for body in ["we subcontract", "reliable"] {
        assert_eq!(judged(body), Ruling::Allow, "{body}");
    }
}

#[test]
fn how_often_and_whether_ever_are_known_from_before() {
    let mut facts = facts(Stage::Live, 1.0);
    let history = Seen { hour: 2, day: 6, before: true, domain_before: true, contact: false };
    facts.history = Some(seen("x@y.example", history));
    let judged =
        |when: &str, facts: &Facts| weigh(&one(when), &mail(json!("x@y.example"), "b"), Label::Owner, facts);
    assert_eq!(judged("sent_day > 5", &facts).ruling, Ruling::Review);
    assert_eq!(judged("sent_hour > 5 or first_contact or new_domain", &facts).ruling, Ruling::Allow);
    assert_eq!(judged("targets[0].before and targets[0].sent_day == 6", &facts).ruling, Ruling::Review);
    facts.history = Some(seen("x@y.example", Seen::default()));
    let first = judged("first_contact and new_domain", &facts);
    assert_eq!((first.ruling, first.stakes.risk), (Ruling::Review, Risk::Medium));
    facts.history = Some(seen("x@y.example", Seen { domain_before: true, ..Seen::default() }));
    assert_eq!(judged("first_contact and not new_domain", &facts).ruling, Ruling::Review);
}

#[test]
fn the_hour_the_day_and_quiet_hours_are_the_owners() {
    let mut policy = one("quiet or weekend or hour < 6");
    policy.quiet = serde_json::from_value(json!({"from": "21:00:00", "to": "07:00:00"})).unwrap();
    let at = |day: i8, hour: i8| {
        let facts = Facts { local: date(2026, 11, day).at(hour, 0, 0, 0), ..facts(Stage::Live, 1.0) };
        weigh(&policy, &mail(json!("x@y.example"), "b"), Label::Owner, &facts).ruling
    };
    assert_eq!(at(30, 10), Ruling::Allow);
    assert_eq!(at(30, 22), Ruling::Review);
    assert_eq!(at(30, 6), Ruling::Review);
    assert_eq!(at(29, 10), Ruling::Review, "a Sunday");
}

/// Everything that the relief for answers asks for.
fn answer() -> Facts {
    let mut facts = facts(Stage::Live, 1.0);
    facts.sender = Some(Sender {
        address: "Ann@client.example".into(),
        message_id: "1@client.example".into(),
        thread: "1@client.example".into(),
        verified: Some(Verified { by: "dmarc".into(), domain: "client.example".into() }),
        granted: true,
        private: Vec::new(),
    });
    facts
}

#[test]
fn an_answer_to_the_authenticated_sender_in_their_thread_is_the_one_relief() {
    let judged = |action: &Action, facts: &Facts| {
        let labels = Labels::from([("to".into(), Label::Untrusted), ("cc".into(), Label::Untrusted)]);
        let case = Case { action, spec: spec("email.send").unwrap(), labels: &labels, facts };
        Policy::default().weigh(&case)
    };
    let action = mail(json!("ann@client.example"), "b");
    let relieved = judged(&action, &answer());
    assert_eq!(relieved.ruling, Ruling::Allow);
    assert!(reasons(&relieved)[0].contains("authenticated by DMARC"), "it is seen in the reasons");

    let without = |change: &dyn Fn(&mut Sender)| {
        let mut facts = answer();
        change(facts.sender.as_mut().unwrap());
        judged(&action, &facts).ruling
    };
    assert_eq!(without(&|sender| sender.granted = false), Ruling::Review);
    assert_eq!(without(&|sender| sender.verified = None), Ruling::Review);
    assert_eq!(without(&|sender| sender.private.push("find".into())), Ruling::Review);
    assert_eq!(without(&|sender| sender.message_id = "2@client.example".into()), Ruling::Review);
    assert_eq!(without(&|sender| sender.address = "bob@client.example".into()), Ruling::Review);
    let other = Verified { by: "dmarc".into(), domain: "evil.example".into() };
    assert_eq!(without(&|sender| sender.verified = Some(other.clone())), Ruling::Review);
    let claimed = Verified { by: "header".into(), domain: "client.example".into() };
    assert_eq!(without(&|sender| sender.verified = Some(claimed.clone())), Ruling::Review);

    for params in [
        json!({"to": ["ann@client.example", "x@evil.example"]}),
        json!({"to": "ann@client.example", "cc": "x@evil.example"}),
        json!({"to": "ann@client.example, x@evil.example"}),
        json!({"to": "x@evil.example"}),
        json!({"to": "ann@client.example", "in_reply_to": null}),
    ] {
        let mut other = action.clone();
        for (name, value) in params.as_object().unwrap() {
            other.params[name] = value.clone();
        }
        assert_eq!(judged(&other, &answer()).ruling, Ruling::Review, "{params}");
    }
    let mut supervised = answer();
    supervised.stage = Stage::Supervised;
    assert_eq!(judged(&action, &supervised).ruling, Ruling::Review, "every other rule still holds");
}

#[test]
fn what_looks_suspicious_is_told_and_makes_the_risk_high_but_lowers_nothing() {
    let mut facts = facts(Stage::Live, 1.0);
    facts.suspicious.push("`input.body` gives orders".into());
    let action = mail(json!("x@y.example"), "b");
    let told = weigh(&one("suspicious"), &action, Label::Owner, &facts);
    assert_eq!((told.ruling, told.stakes.risk), (Ruling::Review, Risk::High));
    assert_eq!(reasons(&told), ["matched", "`input.body` gives orders"]);
    let unknown = weigh(&Policy::default(), &action, Label::Untrusted, &facts);
    assert_eq!(unknown.ruling, Ruling::Review);
}

#[test]
fn what_can_be_taken_back_is_said_for_each_kind() {
    let judged = |name: &str, params: Value, undoable: bool| {
        let action = Action { action: name.into(), params };
        let facts = Facts { undoable, ..facts(Stage::Live, 1.0) };
        let labels = Labels::new();
        let case = Case { action: &action, spec: spec(name).unwrap(), labels: &labels, facts: &facts };
        Policy::default().weigh(&case).stakes
    };
    let url = "https://a.example/";
    assert!(judged("records.put", json!({"kind": "k", "key": "k", "data": "1 €"}), false).reversible);
    assert!(judged("http.request", json!({"method": "get", "url": url}), false).reversible);
    let delete = judged("http.request", json!({"method": "DELETE", "url": url}), false);
    assert!(!delete.reversible && delete.risk == Risk::High);
    assert!(judged("http.request", json!({"method": "POST", "url": url}), true).reversible);
    let many = json!({"to": ["a@b.example", "c@d.example", "e@f.example", "g@h.example"], "subject": "", "body": ""});
    assert!(judged("email.send", many, false).tags.contains(risk::BULK));
}

#[test]
fn what_was_recorded_gives_the_same_judgement_again() {
    let mut facts = answer();
    facts.history = Some(seen("x@y.example", Seen { day: 3, ..Seen::default() }));
    let policy = one("sent_day > 2 and hour == 10");
    let action = mail(json!("x@y.example"), "100 €");
    let labels = Labels::from([("to".into(), Label::Untrusted)]);
    let case = Case { action: &action, spec: spec("email.send").unwrap(), labels: &labels, facts: &facts };
    let decision = policy.judge(&case);
    let recorded: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
    let again = policy.judge(&Case { facts: recorded.facts.as_deref().unwrap(), ..case });
    assert_eq!(again, decision);
}

#[test]
fn a_decision_from_before_facts_were_recorded_is_still_read() {
    let old: Decision = serde_json::from_str(r#"{"ruling": "review", "reasons": ["r"]}"#).unwrap();
    assert_eq!((old.stakes.risk, old.facts), (Risk::High, None));
}
