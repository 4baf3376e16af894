//! A review made ready to be shown: everything a decision needs, and nothing that is not inert. Pure, from the
//! review's row; the same page for the owner who is signed in and for whoever holds a link to this one review.

use askama::Template;
use serde_json::Value;

use crate::api::session::Form;
use crate::domain::event::{Ask, Verdict};
use crate::reviews::words::wants;
use crate::reviews::{self, snooze};
use crate::store::effects::EffectRow;
use crate::store::reviews::ReviewRow;
use crate::ui::answer;
use crate::ui::facts::{Change, Held, Part, Said, Stake, changes, does, parts, rests_on};
use crate::ui::params::{self, Errors};
use crate::ui::text::{Folded, Inert, Readable};
use crate::ui::viewer::Viewer;
use crate::ui::when::{Clock, When};

/// How a review ended.
#[derive(Clone, Debug)]
pub struct Decided {
    /// `approved`, `edited`, …: the status.
    pub status: Inert,
    /// The same in a sentence.
    pub sentence: &'static str,
    /// By whom.
    pub by: Option<Inert>,
    /// When.
    pub at: Option<When>,
    /// The owner's words: the reason of a rejection, or what the next draft is to heed.
    pub reason: Option<Folded>,
    /// The answer to a question.
    pub answer: Option<Readable>,
}

/// Something to tell before anything else.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `changed`, `late`, `wrong`: for the style.
    pub class: &'static str,
    /// What it says.
    pub says: Inert,
}

impl Notice {
    /// What is asked is not what was seen.
    #[must_use]
    pub fn changed() -> Self {
        let says = "This changed while you were looking at it. Nothing was decided: look at it as it is now.";
        Self { class: "changed", says: Inert::line(says) }
    }

    /// Somebody was faster.
    #[must_use]
    pub fn late() -> Self {
        let says = "It was decided before you did. What you said changed nothing.";
        Self { class: "late", says: Inert::line(says) }
    }

    /// It was called back, and its run has still to hear of it.
    #[must_use]
    pub fn told() -> Self {
        let says = "Its run hears of it before it lets anything go, but has not yet.";
        Self { class: "late", says: Inert::line(says) }
    }

    /// What was typed does not do.
    #[must_use]
    pub fn wrong(why: &str) -> Self {
        Self { class: "wrong", says: Inert::line(why) }
    }
}

/// What was typed before the page is shown again.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// The form, as it was sent.
    pub form: Option<Form>,
    /// What is wrong with it, by field.
    pub errors: Errors,
    /// The edit that it makes, to be looked at before it is approved.
    pub edit: Option<Value>,
}

/// What may be decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the verdicts")]
#[expect(clippy::struct_excessive_bools, reason = "each stands for one form of the page")]
pub struct May {
    pub approve: bool,
    pub edit: bool,
    pub reject: bool,
    pub answer: bool,
    pub respond: bool,
    /// Leave it alone for a while.
    pub snooze: bool,
    /// Say something to it.
    pub comment: bool,
}

/// For how long it may be left alone, at a touch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nap {
    /// The word of the form.
    pub word: &'static str,
    /// What the button says.
    pub says: &'static str,
    /// Until when that is.
    pub until: When,
}

/// The next thing that waits.
#[derive(Clone, Debug)]
pub struct Next {
    /// Where it is.
    pub href: String,
    /// What it is.
    pub title: Inert,
}

/// One review, ready to be shown.
#[derive(Template, Clone, Debug)]
#[template(path = "review.html", config = "src/ui/askama.toml")]
#[expect(missing_docs, reason = "each is named for what the page shows there")]
pub struct ReviewPage {
    /// For the form that signs out; nothing for who is not signed in here.
    pub csrf: Option<String>,
    /// What the forms of the review prove themselves by.
    pub proof: String,
    pub here: String,
    pub run: Option<String>,
    pub next: Option<Next>,
    pub notice: Option<Notice>,
    pub title: Inert,
    /// What is wanted of the owner, in a few words.
    pub wants: &'static str,
    pub digest: String,
    pub stake: Option<Stake>,
    /// Set for who has to sign in first: where it can be decided then.
    pub sign_in: Option<String>,
    pub opened: When,
    pub due: Option<When>,
    pub reasons: Vec<Inert>,
    /// What the action does.
    pub does: Option<Inert>,
    /// Whether it can be taken back.
    pub reversible: Option<Inert>,
    pub params: Vec<Part>,
    pub artifacts: Vec<Part>,
    pub may: May,
    pub approve: &'static str,
    pub reject: &'static str,
    pub edit_fields: Vec<params::Field>,
    pub edit_open: bool,
    pub changes: Vec<Change>,
    pub answer_fields: Vec<answer::Field>,
    pub reason_typed: String,
    pub words_typed: String,
    pub comment_typed: String,
    pub snoozes: Vec<Nap>,
    pub snoozed: Option<When>,
    pub comments: Vec<Said>,
    /// What was approved and waits, so that it can be called back.
    pub held: Option<Held>,
    pub decided: Option<Decided>,
}

impl ReviewPage {
    /// The page of a review, for `viewer`; `held` is what its step lets wait, if anything.
    #[must_use]
    pub fn of(
        shown: &reviews::Shown,
        held: Option<&EffectRow>,
        viewer: &Viewer,
        clock: &Clock,
        notice: Option<Notice>,
        typed: &Typed,
    ) -> Self {
        let row = &shown.review;
        let question = &row.question;
        let action = question.action.as_ref();
        let is_open = row.status == "open";
        let must_sign_in = viewer.must_sign_in(row);
        let snoozes = match is_open {
            true => snooze::offers(clock.now, &clock.zone, row.due_at)
                .into_iter()
                .map(|offer| Nap { word: offer.word, says: offer.says, until: clock.when(offer.until) })
                .collect(),
            false => Vec::new(),
        };
        let may = if must_sign_in { May::default() } else { may(shown, viewer, !snoozes.is_empty()) };
        let form = typed.form.as_ref();
        let field = |name| form.and_then(|form| form.get(name)).unwrap_or_default().to_owned();
        let errors = &typed.errors;
        let changes = match (action, &typed.edit, &row.verdict) {
            (Some(action), Some(params), _) | (Some(action), None, Some(Verdict::Edited { params })) => {
                changes(action, params)
            }
            _ => Vec::new(),
        };
        let edited = form.is_some_and(|form| matches!(form.get("do"), Some("preview" | "edit")));
        Self {
            csrf: viewer.sees_all.then(|| viewer.csrf.clone()),
            proof: viewer.csrf.clone(),
            here: viewer.here.clone(),
            run: viewer.sees_all.then(|| format!("/runs/{}", row.run)),
            next: None,
            notice,
            title: Inert::line(&row.title),
            wants: wants(question.ask, question.form.is_some()),
            digest: row.digest.to_string(),
            stake: Stake::of(question),
            sign_in: must_sign_in.then(|| format!("/reviews/{}", row.id)),
            opened: clock.when(row.opened_at),
            due: row.due_at.map(|at| clock.when(at)),
            reasons: question.reasons.iter().map(|reason| Inert::line(reason)).collect(),
            does: action.map(does),
            reversible: action
                .filter(|_| is_open && question.ask == Ask::Approval)
                .map(|_| Inert::line(&shown.reversible)),
            params: action.map(|action| parts(action, &question.labels)).unwrap_or_default(),
            artifacts: rests_on(&shown.artifacts),
            may,
            approve: if question.ask == Ask::Budget { "Allow it" } else { "Approve" },
            reject: if question.ask == Ask::Question { "Decline" } else { "Reject" },
            edit_fields: match action {
                Some(action) if may.edit => params::fields(action, form.filter(|_| edited), errors),
                _ => Vec::new(),
            },
            edit_open: edited,
            changes,
            answer_fields: match &question.form {
                Some(schema) if may.answer => answer::fields(schema, form, errors),
                _ => Vec::new(),
            },
            reason_typed: field("reason"),
            words_typed: field("words"),
            comment_typed: field("text"),
            snoozes,
            snoozed: row.snoozed_until.filter(|until| is_open && *until > clock.now).map(|at| clock.when(at)),
            comments: shown.comments.iter().map(|comment| Said::of(comment, clock)).collect(),
            held: held.and_then(|effect| Held::of(effect, clock)),
            decided: (!is_open).then(|| decided(row, clock)),
        }
    }

    /// Whether anything can be decided here.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.decided.is_none()
    }
}

fn may(shown: &reviews::Shown, viewer: &Viewer, can_snooze: bool) -> May {
    let question = &shown.review.question;
    let takes = |verdict| shown.verdicts.contains(&verdict);
    let is_open = shown.review.status == "open";
    May {
        approve: takes("approved"),
        edit: takes("edited") && question.action.is_some(),
        reject: takes("rejected"),
        answer: takes("answered") && question.form.is_some(),
        respond: takes("responded"),
        snooze: is_open && can_snooze,
        // Behind a link that has decided nothing is left to do.
        comment: is_open || viewer.sees_all,
    }
}

fn decided(row: &ReviewRow, clock: &Clock) -> Decided {
    let sentence = match row.status.as_str() {
        _ if matches!(row.verdict, Some(Verdict::Responded { .. })) => "Given back for another draft",
        "approved" => "Approved",
        "edited" => "Approved with changes",
        "rejected" => "Rejected",
        "answered" => "Answered",
        "expired" => "Expired: nobody decided in time, and that is never a yes",
        _ => "No longer asked",
    };
    let (reason, answer) = match &row.verdict {
        Some(Verdict::Rejected { reason }) if !reason.is_empty() => (Some(Folded::new(reason)), None),
        Some(Verdict::Responded { words }) => (Some(Folded::new(words)), None),
        Some(Verdict::Answered { answer }) => (None, Some(Readable::of(answer))),
        _ => (None, None),
    };
    Decided {
        status: Inert::line(&row.status),
        sentence,
        by: row.decided_by.as_deref().map(Inert::line),
        at: row.decided_at.map(|at| clock.when(at)),
        reason,
        answer,
    }
}
