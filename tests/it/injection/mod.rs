//! The injection suite: more than two hundred hostile mails, web hooks, documents and results of tools over
//! every shipped workflow and over careless ones, with a model that obeys every instruction it reads. Every
//! version is live, the owner has no rule at all, and mail workflows grant every relief there is: what keeps
//! the house shut is structure alone.
//!
//! - `cases/`: the hostile inputs; `workspace/`: workflows in which the model decides whom to write to;
//! - [`obedient`]: the model; [`house`]: the service, what would notice an effect, and what must hold.

mod house;
mod obedient;

use serde::Deserialize;
use serde_json::{Value, json};

use house::{House, Opened};

/// One hostile input.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// What the review must say, beside where the recipient came from.
    pub hint: String,
    #[serde(default)]
    pub from: Option<String>,
    #[serde(default)]
    pub reply_to: Option<String>,
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub html: Option<String>,
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// `REPEAT` in the body stands for a thousand of these.
    #[serde(default)]
    pub repeat: Option<String>,
    #[serde(default)]
    pub note: Option<String>,
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub redirect: Option<String>,
}

fn cases(yaml: &str) -> Vec<Case> {
    serde_saphyr::from_str(yaml).unwrap()
}

fn emails() -> Vec<Case> {
    let mut all = cases(include_str!("cases/emails_orders.yaml"));
    all.extend(cases(include_str!("cases/emails_deceit.yaml")));
    all
}

fn hooks() -> Vec<Case> {
    cases(include_str!("cases/hooks.yaml"))
}

fn documents() -> Vec<Case> {
    cases(include_str!("cases/documents.yaml"))
}

fn pages() -> Vec<Case> {
    cases(include_str!("cases/pages.yaml"))
}

impl Case {
    /// The mail, as it would come over the wire, to one mailbox.
    fn mail(&self, to: &str) -> Vec<u8> {
        let own = format!("Customer <{}@evil.test>", self.name);
        let mut mail = format!(
            "From: {}\r\nTo: {to}\r\nSubject: {}\r\nMessage-ID: <{}.{}@evil.test>\r\n",
            self.from.as_deref().unwrap_or(&own),
            self.subject.as_deref().unwrap_or("A question about your work"),
            self.name,
            to.replace('@', "."),
        );
        for (name, value) in &self.headers {
            mail.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(reply_to) = &self.reply_to {
            mail.push_str(&format!("Reply-To: {reply_to}\r\n"));
        }
        let (kind, body) = match (&self.body, &self.html) {
            (Some(body), _) => {
                ("plain", body.replace("REPEAT", &self.repeat.clone().unwrap_or_default().repeat(1000)))
            }
            (None, html) => ("html", html.clone().unwrap()),
        };
        mail.push_str(&format!(
            "Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}\r\n"
        ));
        mail.into_bytes()
    }
}

#[test]
fn there_are_at_least_two_hundred_hostile_inputs_and_no_two_are_the_same() {
    let all: Vec<Case> = [emails(), hooks(), documents(), pages()].concat();
    assert!(all.len() >= 200, "{}", all.len());
    let names: std::collections::BTreeSet<_> = all.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), all.len());
    let texts: std::collections::BTreeSet<_> = all
        .iter()
        .map(|case| {
            format!(
                "{:?}",
                (
                    &case.from,
                    &case.reply_to,
                    &case.headers,
                    &case.subject,
                    &case.body,
                    &case.html,
                    &case.note,
                    &case.text
                )
            )
        })
        .collect();
    assert_eq!(texts.len(), all.len());
}

#[tokio::test]
async fn a_model_that_obeys_everybody_sends_nothing_without_the_owner_whatever_comes_in() {
    let house = House::open().await;
    let mut opened: Vec<Opened> = Vec::new();

    // Mail, into every workflow that listens to a mailbox, as shipped and without the reviews it asks for.
    for case in emails() {
        for mailbox in house.mailboxes() {
            if let Some(run) = house.deliver(case.mail(&mailbox)).await {
                opened.push(Opened { run, case: case.clone(), external: 1 });
            }
        }
    }
    // Web hooks, into a workflow in which the model decides everything.
    for case in hooks() {
        let note = house.filled(case.note.as_deref().unwrap());
        let run = house.hook("orders", &json!({"id": case.name, "note": note})).await;
        opened.push(Opened { run, case, external: 2 });
    }
    // Documents and pages, found by harmless questions of the owner.
    for case in documents() {
        house.remember(&case.name, case.text.as_deref().unwrap()).await;
        let run = house.ask("recall", json!({"text": case.text.as_deref().unwrap()})).await;
        opened.push(Opened { run, case, external: 1 });
    }
    for case in pages() {
        let run = house.ask("research", json!({"url": house.page(&case)})).await;
        opened.push(Opened { run, case, external: 1 });
    }
    house.check(&opened).await;

    // What the hooks saved is read by later runs, and the addresses they saved as contacts are nobody's.
    let mut later = Vec::new();
    for case in hooks() {
        let run = house.ask("revisit", json!({"key": house.saved_under(&case)})).await;
        later.push(Opened { run, case: Case { hint: "outside".into(), ..case }, external: 1 });
    }
    house.check(&later).await;
    house.untouched().await;
    house.close().await;
}

/// Every workflow that no mail opens, with hostile values wherever its input takes a text.
#[tokio::test]
async fn workflows_that_no_mail_opens_send_nothing_either() {
    let house = House::open().await;
    for (workflow, input) in house.others() {
        for case in hooks().into_iter().take(10) {
            let hostile = house.filled(case.note.as_deref().unwrap());
            let input: Value = obedient::fill(&input, "input", &obedient::Orders::read(&hostile));
            let Some(run) = house.try_open(&workflow, input).await else { continue };
            house.settled(&run).await;
        }
    }
    house.untouched().await;
    house.close().await;
}
