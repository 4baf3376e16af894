//! What may be done in Slack beside deciding: leave a question alone for a while, say something to it, give a
//! draft back to its agent. Each opens a modal from the menu of its message, and goes through the same
//! functions as on the web page.

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::ids::CommentId;
use crate::reviews::aside::{self, AsideRefusal};
use crate::reviews::decide::has_author;
use crate::reviews::slack::blocks::more;
use crate::reviews::slack::interact::{Reply, Told, refused, uncertain, unchanged, update, wrong};
use crate::reviews::slack::payload::View;
use crate::reviews::slack::{Slack, modal};
use crate::reviews::snooze;
use crate::store::reviews::ReviewRow;

impl Slack {
    /// Opens what a word of the menu stands for.
    pub(super) async fn more(&self, trigger: &str, review: &ReviewRow, word: &str) -> Told {
        if !more(review).any(|(known, _)| known == word) {
            return Told::Wrong("That is not on the menu.".into());
        }
        let view = match word {
            "snooze" => {
                let now = self.door.engine().now();
                let offers = snooze::offers(now, &self.look.zone, review.due_at);
                if offers.is_empty() {
                    return Told::Wrong("It expires too soon to be left alone until later.".into());
                }
                modal::snooze(review, &offers, now, &self.look)
            }
            "comment" => modal::comment(review),
            _ => match has_author(&self.door, review).await {
                Ok(()) => modal::respond(review),
                Err(refusal) => return refused(refusal),
            },
        };
        self.open(trigger, &view).await
    }

    /// Leaves it alone until what was offered when the modal was opened at `since`: told twice, it is the
    /// same moment.
    pub(super) async fn snoozed(&self, review: &ReviewRow, since: &str, state: &Value) -> Reply {
        let until = || {
            let since = Timestamp::from_second(since.parse().ok()?).ok()?;
            snooze::until(&modal::given(state, 0)?, since, &self.look.zone)
        };
        let Some(until) = until() else { return wrong(0, "Until when?") };
        match aside::snooze(self.door.engine(), review.id, until).await {
            Ok(()) => {
                let until = self.look.moment(until);
                update(&format!("You hear of it again on {until}. Until then it waits, and can be decided."))
            }
            Err(refusal) => self.left(review, refusal).await,
        }
    }

    /// Keeps a comment, once for each modal that was opened for one.
    pub(super) async fn commented(&self, user: &str, review: &ReviewRow, view: &View) -> Reply {
        let text = modal::given(&view.state, 0).unwrap_or_default();
        let (text, by) = (text.trim(), self.by(user));
        let id = CommentId::derive(review.id, &format!("slack {} {user}", view.id), text);
        match aside::comment_once(self.door.engine(), id, review.id, &by, text).await {
            Ok(_) => update("Your comment is kept with it."),
            Err(refusal) => self.left(review, refusal).await,
        }
    }

    /// Nothing came of it.
    async fn left(&self, review: &ReviewRow, refusal: AsideRefusal) -> Reply {
        let told = match refusal {
            AsideRefusal::BadMoment(_) | AsideRefusal::BadWords(_) => Told::Wrong(refusal.to_string()),
            AsideRefusal::NotFound(_) => Told::Over("There is no such review any more.".into()),
            AsideRefusal::Store(error) => uncertain(&error),
            AsideRefusal::Over { .. } => match self.door.engine().store.review(review.id).await {
                Ok(Some(now)) => Told::Over(unchanged(&now)),
                Ok(None) => Told::Over("There is no such review any more.".into()),
                Err(error) => uncertain(&error),
            },
        };
        told.into_reply()
    }
}
