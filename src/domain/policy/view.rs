//! A case as it is looked at: whom it reaches, how much it speaks of, whether it answers the sender; and what
//! holds of it whatever the owner's file says.

use crate::domain::action::Reach;
use crate::domain::label::Label;
use crate::domain::policy::amount::{Amount, amounts};
use crate::domain::policy::facts::{Seen, Sender};
use crate::domain::policy::target::{self, Target, address};
use crate::domain::policy::{Case, Finding, Policy, Ruling};
use crate::domain::risk::{self, Risk, Stakes};
use crate::domain::workflow::Stage;

/// A case with everything that is read from it once.
pub(super) struct View<'a> {
    pub(super) policy: &'a Policy,
    pub(super) case: Case<'a>,
    pub(super) targets: Vec<Target>,
    pub(super) amounts: Vec<Amount>,
    pub(super) answering: Answering<'a>,
}

/// Whether the action answers the sender of the mail that opened the run.
pub(super) enum Answering<'a> {
    /// It does not, or there is no sender.
    No,
    /// It goes to them alone, in their thread; with what keeps the relief from them, if anything does.
    Sender(&'a Sender, Option<String>),
}

/// Names of parameters that decide what is paid, and to whom: as targets are, they are not to be chosen by
/// somebody outside.
const PAID: [&str; 12] = [
    "amount",
    "total",
    "price",
    "currency",
    "refund",
    "account",
    "account_number",
    "bank_account",
    "iban",
    "bic",
    "payee",
    "wallet",
];

impl<'a> View<'a> {
    pub(super) fn of(policy: &'a Policy, case: &Case<'a>) -> Self {
        let targets = match case.spec.reach {
            Reach::External => target::targets(case.action, case.spec, case.labels),
            Reach::Pure | Reach::Read | Reach::Internal => Vec::new(),
        };
        let answering = answering(case, &targets);
        Self { policy, case: *case, targets, amounts: amounts(&case.action.params), answering }
    }

    pub(super) fn seen(&self, target: &Target) -> Option<&'a Seen> {
        self.case.facts.history.as_ref()?.targets.get(&target.key)
    }

    pub(super) fn knows(&self, target: &Target) -> bool {
        target.is_in(&self.policy.known) || self.seen(target).is_some_and(|seen| seen.contact)
    }

    pub(super) fn chosen_by_others(&self, target: &Target) -> bool {
        target.label >= Label::Model && !self.knows(target)
    }

    /// What holds whatever the owner's file says, and what is worth knowing besides.
    pub(super) fn structural(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let facts = self.case.facts;
        let mut say = |ruling, reason: String| found.push(Finding { ruling, rule: None, reason });
        if facts.review_asked {
            say(Ruling::Review, "the workflow asks for a review of this step".into());
        }
        if self.case.spec.reach < Reach::External {
            return found;
        }
        if facts.stage == Stage::Supervised {
            say(Ruling::Review, "this version is supervised: every external effect is reviewed".into());
        }
        let relieved = matches!(self.answering, Answering::Sender(_, None));
        for target in self.targets.iter().filter(|target| !relieved && self.chosen_by_others(target)) {
            let from = from(target.label);
            let text = &target.text;
            say(
                Ruling::Review,
                match target.domain {
                    Some(_) => {
                        format!("`{}` is {text}, which {from} chose and you do not know yet", target.param)
                    }
                    None => format!("`{}` is no plain address, and {from} chose it: {text}", target.param),
                },
            );
        }
        for name in PAID {
            let label = self.case.labels.get(name).copied().unwrap_or_default();
            if label >= Label::Model
                && self.case.action.params.get(name).is_some_and(|value| !value.is_null())
            {
                say(Ruling::Review, format!("`{name}` was chosen by {}", from(label)));
            }
        }
        match &self.answering {
            Answering::Sender(sender, None) => {
                say(
                    Ruling::Allow,
                    format!(
                        "it answers {} in their own thread, authenticated by DMARC: the workflow trusts such answers",
                        sender.address
                    ),
                );
            }
            Answering::Sender(sender, Some(lacks)) if sender.granted => {
                say(
                    Ruling::Allow,
                    format!("the workflow trusts answers to the sender, but not this one: {lacks}"),
                );
            }
            Answering::Sender(..) | Answering::No => {}
        }
        for path in &facts.trusted {
            say(Ruling::Allow, format!("`{path}` counts as your word: the workflow trusts it"));
        }
        for suspicion in &facts.suspicious {
            say(Ruling::Allow, suspicion.clone());
        }
        found
    }

    /// What is at stake, with the tags that the owner's file gives.
    pub(super) fn stakes(&self, mut tags: Vec<(String, Risk)>) -> Stakes {
        let case = &self.case;
        let method = case.action.text("method").unwrap_or_default().to_ascii_uppercase();
        let reads = case.action.action == "http.request" && matches!(method.as_str(), "GET" | "HEAD");
        let external = case.spec.reach == Reach::External;
        let mut add = |tag: &str| tags.push((tag.to_owned(), Risk::of_tag(tag).unwrap_or_default()));
        if !self.amounts.is_empty() && external {
            add(risk::MONEY);
        }
        if method == "DELETE" || case.action.action.ends_with(".delete") {
            add(risk::DELETION);
        }
        if external && case.facts.confidence.is_some_and(|confidence| confidence < risk::SURE) {
            add(risk::UNSURE);
        }
        if !case.facts.suspicious.is_empty() {
            add(risk::SUSPICIOUS);
        }
        if self.targets.len() > risk::FEW {
            add(risk::BULK);
        }
        let answers = matches!(self.answering, Answering::Sender(..));
        if !answers && self.targets.iter().any(|target| self.chosen_by_others(target)) {
            add(risk::UNKNOWN_TARGET);
        }
        if self.is_first_contact() == Some(true) {
            add(risk::FIRST_CONTACT);
        }
        if self.is_new_domain() == Some(true) {
            add(risk::NEW_DOMAIN);
        }
        Stakes::of(tags, !external || reads || case.facts.undoable)
    }

    /// Whether somebody is written to who never was before; `None` when nobody knows.
    pub(super) fn is_first_contact(&self) -> Option<bool> {
        self.any_new(|target, seen| !seen.before && !self.knows(target) && target.text.contains('@'))
    }

    /// Whether a domain or host is reached that never was before.
    pub(super) fn is_new_domain(&self) -> Option<bool> {
        self.any_new(|target, seen| !seen.domain_before && !self.knows(target))
    }

    fn any_new(&self, is_new: impl Fn(&Target, &Seen) -> bool) -> Option<bool> {
        let mut any = false;
        for target in &self.targets {
            any |= is_new(target, self.seen(target)?);
        }
        Some(any)
    }
}

fn from(label: Label) -> &'static str {
    match label {
        Label::Untrusted => "something from outside",
        Label::Owner | Label::System | Label::Model => "a model",
    }
}

/// An answer goes to the sender alone, and into the very thread their mail belongs to.
fn answering<'a>(case: &Case<'a>, targets: &[Target]) -> Answering<'a> {
    let Some(sender) = &case.facts.sender else { return Answering::No };
    let Some((address, domain)) = address(&sender.address) else { return Answering::No };
    let to_them = case.action.action == "email.send"
        && !targets.is_empty()
        && targets
            .iter()
            .all(|target| target.param == "to" && target.key == address && target.domain.is_some());
    if !to_them {
        return Answering::No;
    }
    if !sender.granted {
        return Answering::Sender(sender, Some("it is not granted".into()));
    }
    let id = |name: &str| case.action.text(name).map(|id| id.trim().trim_matches(['<', '>']).to_owned());
    let lacks = if id("in_reply_to").as_deref() != Some(sender.message_id.as_str()) {
        Some("it is not in their thread".to_owned())
    } else if sender.verified.as_ref().is_none_or(|verified| !verified.is_of(&domain)) {
        Some("nobody has verified that it is them".to_owned())
    } else if !sender.private.is_empty() {
        Some(format!("`{}` may bring in what is yours alone", sender.private.join("`, `")))
    } else {
        None
    };
    Answering::Sender(sender, lacks)
}
