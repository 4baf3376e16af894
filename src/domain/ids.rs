//! Every id is a type of its own: swapping two of them must not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::digest::Digest;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// One execution of one version. A UUIDv7: it carries the time, so journal partitions can follow it.
    RunId
);
uuid_id!(
    /// One proposed or carried-out action.
    EffectId
);
uuid_id!(
    /// One question to the owner.
    ReviewId
);
uuid_id!(
    /// One thing the owner should know.
    NoticeId
);
uuid_id!(
    /// One message to the owner.
    MessageId
);
uuid_id!(
    /// One comment on a review.
    CommentId
);
uuid_id!(
    /// One start of the process.
    NodeId
);
uuid_id!(
    /// One thing that happened outside and that runs may wait for.
    HappeningId
);
uuid_id!(
    /// One version of one document in memory.
    DocumentId
);
uuid_id!(
    /// Money set aside for one model call.
    ReservationId
);

uuid_id!(
    /// One call of a model. A UUIDv7: calls in the order of their ids are in the order of their time.
    CallId
);

impl EffectId {
    /// The effect that `step`'s `attempt` of `run` proposes. Derived, not drawn: planning the same
    /// transition again names the same effect.
    #[must_use]
    pub fn derive(run: RunId, step: &StepId, attempt: u32) -> Self {
        Self(derived("effect", run, step, attempt))
    }
}

impl ReviewId {
    /// The `nth` review that `run` opens for `step`; derived like [`EffectId::derive`].
    #[must_use]
    pub fn derive(run: RunId, step: &StepId, nth: u32) -> Self {
        Self(derived("review", run, step, nth))
    }
}

impl CommentId {
    /// What somebody says to `review` at one `occasion`: the same words said twice there are one comment.
    #[must_use]
    pub fn derive(review: ReviewId, occasion: &str, text: &str) -> Self {
        let parts: [&[u8]; 4] = [b"comment", review.0.as_bytes(), occasion.as_bytes(), text.as_bytes()];
        Self(first_half(&Digest::of_parts(&parts)))
    }
}

fn derived(what: &str, run: RunId, step: &StepId, nth: u32) -> Uuid {
    let digest =
        Digest::of_parts(&[what.as_bytes(), run.0.as_bytes(), step.0.as_bytes(), &nth.to_be_bytes()]);
    first_half(&digest)
}

fn first_half(digest: &Digest) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.0[..16]);
    Uuid::new_v8(bytes)
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

name_id!(
    /// The name of a workflow, unique in the workspace.
    WorkflowName
);
name_id!(
    /// The name of an agent, unique in the workspace.
    AgentName
);
name_id!(
    /// The name of a step, unique in its workflow. An item of a step that works through a list is
    /// `STEP/INDEX`, the undoing of either has `/undo` behind it; the owner's names have no `/`.
    StepId
);

/// The parts of a [`StepId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The step of the owner's file.
    pub base: &'a str,
    /// Which item of its list, from 0.
    pub item: Option<usize>,
    /// Whether it is the undoing.
    pub undo: bool,
}

impl StepId {
    /// The item at `index` of this step's list.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    /// The undoing of this step.
    #[must_use]
    pub fn undo(&self) -> Self {
        Self(format!("{}/undo", self.0))
    }

    /// What this id undoes; itself when it undoes nothing.
    #[must_use]
    pub fn undone(&self) -> Self {
        Self(self.0.strip_suffix("/undo").unwrap_or(&self.0).to_owned())
    }

    /// Its parts.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        let (rest, undo) = match self.0.strip_suffix("/undo") {
            Some(rest) => (rest, true),
            None => (self.as_str(), false),
        };
        let item = rest.split_once('/').and_then(|(base, index)| Some((base, index.parse().ok()?)));
        match item {
            Some((base, index)) => Place { base, item: Some(index), undo },
            None => Place { base: rest, item: None, undo }, // of the undoing of an undoing: no step at all
        }
    }
}
