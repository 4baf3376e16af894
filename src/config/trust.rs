//! `trust:` of a workflow.

use schemars::JsonSchema;
use serde::Deserialize;

/// What counts for more than where it came from.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawTrust {
    /// An answer to the sender alone, inside their own thread, authenticated by DMARC and carrying nothing
    /// of yours, needs no review for its recipient. Every other rule still holds.
    #[serde(default)]
    pub answers_to_sender: bool,
    /// Beginnings of the paths of documents, such as `public/`, that such an answer may carry. Without it,
    /// nothing found in memory may be in one.
    #[serde(default)]
    pub public: Vec<String>,
    /// Paths, such as `input.account`, whose values count as your own word wherever this workflow uses them.
    #[serde(default)]
    pub paths: Vec<String>,
}
