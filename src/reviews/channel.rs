//! What a way to the owner has to do. A channel carries a question and shows its outcome; it never
//! decides: what comes back goes through [`mod@crate::reviews::decide`].

use futures_util::future::BoxFuture;
use jiff::civil::Date;
use serde_json::Value;

use crate::domain::ids::MessageId;
use crate::domain::ladder::ChannelName;
use crate::store::notices::NoticeRow;
use crate::store::reviews::ReviewRow;

/// A message to the owner.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Its id, the same at each try: a channel that can look a message up, or that drops a second one of
    /// the same id, makes of "at least once" exactly once.
    pub id: MessageId,
    /// Whether an earlier try may have got through.
    pub again: bool,
    /// What it says.
    pub says: Says<'a>,
}

/// What a message says.
#[derive(Clone, Copy, Debug)]
pub enum Says<'a> {
    /// Something waits for a decision.
    Ask(&'a ReviewRow),
    /// It still does. `first` is where the first word about it stands.
    Remind {
        /// What waits.
        review: &'a ReviewRow,
        /// See above.
        first: Option<&'a Value>,
    },
    /// Something to know.
    Notice(&'a NoticeRow),
    /// The owner's day.
    Digest(Date),
}

/// Why a message did not get through.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    /// It may get through later.
    #[error("{0}")]
    Passing(String),
    /// It never will as it is, such as a refused key: the owner has to mend something.
    #[error("{0}")]
    Lasting(String),
}

/// A way to the owner.
pub trait Channel: Send + Sync {
    /// Which one.
    fn name(&self) -> ChannelName;

    /// Sends a message; gives where it stands, as [`Channel::close`] needs it.
    fn deliver<'a>(&'a self, letter: Letter<'a>) -> BoxFuture<'a, Result<Value, Trouble>>;

    /// Makes a message that was sent say how its review ended: nobody may think that it still asks. A
    /// channel on which nothing can be changed does nothing.
    fn close<'a>(&'a self, place: &'a Value, review: &'a ReviewRow) -> BoxFuture<'a, Result<(), Trouble>>;
}
