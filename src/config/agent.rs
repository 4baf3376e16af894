//! `agents/*.md`: a front matter of YAML between two lines `---`, then the prompt.

use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::config::problem::Problem;
use crate::domain::duration::Span;
use crate::domain::workflow::TURNS;

/// The front matter.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawAgent {
    /// Its name, unique in the workspace.
    #[schemars(extend("format" = "name"))]
    pub agent: String,
    /// The tier in `config/models.yaml` whose models answer, in their order.
    pub tier: String,
    /// JSON Schema of the output, an object.
    #[schemars(with = "serde_json::Map<String, Value>")]
    pub output: Value,
    /// What the built-in encoder chooses between; the choice is `class` in the output.
    #[serde(default)]
    pub classes: Vec<RawClass>,
    /// The output without any model.
    #[serde(default)]
    pub canned: Option<RawCanned>,
    /// The most tokens a model may answer with.
    #[serde(default = "a_page")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_tokens: u32,
    /// What it may look things up with: `memory.search`, `records.get`, `records.list`, `thread.get`,
    /// `http.get` (hosts of `http.allow` in `config/connectors.yaml`), `calc`, `date`. All of them only read.
    #[serde(default)]
    pub tools: Vec<String>,
    /// The most turns of one conversation with a model; in the last one it must answer. Only an agent with
    /// tools has more than one.
    #[serde(default = "usual_turns")]
    #[schemars(range(min = 1, max = 50))]
    pub max_turns: u32,
    /// The most tokens, read and written, that all models together may use in one attempt of a step; no
    /// turn begins once they are used up. Any number when absent.
    #[serde(default)]
    #[schemars(range(min = 100, max = 10_000_000))]
    pub token_limit: Option<u64>,
    /// The tier in `config/models.yaml` that goes over the draft: a larger model mends what a smaller one
    /// wrote. Where its chain comes to `canned` the draft stands.
    #[serde(default)]
    pub finalize: Option<String>,
    /// How many independent answers are compared; the one that most agree on counts, and the share of those
    /// that do is how sure it is, unless the answer itself is less sure.
    #[serde(default)]
    #[schemars(range(min = 2, max = 9))]
    pub votes: Option<u32>,
    /// The field of the output that `votes` are compared by; all of them but `confidence` when absent.
    #[serde(default)]
    pub votes_by: Option<String>,
    /// How long an answer may serve again, such as `24h`, up to `30d`: for the very same question to the same
    /// model, from input of the same origin, it is then given at once and costs nothing. Never when absent,
    /// and never for an answer that tools had a part in.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "span"))]
    pub cache: Option<Span>,
}

fn usual_turns() -> u32 {
    TURNS
}

/// One class, with texts that belong to it.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawClass {
    /// The name that appears in the output.
    pub class: String,
    /// Phrases as they occur in texts of this class.
    #[schemars(length(min = 1))]
    pub examples: Vec<String>,
}

/// An output as templates over `with` (what the agent is given), `class` (what the encoder chose:
/// `class.class`, `class.confidence`, `class.scores`) and `workspace`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawCanned {
    /// A condition: whether it applies; always when absent.
    #[serde(default)]
    #[schemars(extend("type" = ["string", "boolean", "null"]))]
    pub when: Option<Value>,
    /// The output: templates.
    #[schemars(with = "serde_json::Map<String, Value>")]
    pub output: Value,
    /// How sure you are of it: a number from 0 to 1, or an expression that gives one.
    #[schemars(extend("type" = ["number", "string"]))]
    pub confidence: Value,
}

fn a_page() -> u32 {
    1024
}

/// An agent's file in its two parts.
pub(super) struct Parts {
    /// The YAML, with blanks before it, so that every byte keeps its place in the file.
    pub(super) yaml: String,
    /// Where the prompt stands in the file.
    pub(super) prompt: Range<usize>,
}

/// Cuts an agent's file in two.
///
/// # Errors
/// The problem, when there is no front matter.
pub(super) fn split(file: &str, source: &Arc<str>) -> Result<Parts, Box<Problem>> {
    const MEND: &str = "begin the file with a line `---`, then `agent: NAME`, `tier:` and `output:`, \
                        another line `---`, then the prompt";
    let mut at = 0;
    let mut fences = Vec::new();
    for line in source.split_inclusive('\n') {
        let begins = fences.is_empty();
        if line.trim_start_matches('\u{feff}').trim_end() == "---" {
            fences.push(at..at + line.len());
        } else if begins && !line.trim_start_matches('\u{feff}').trim().is_empty() {
            break;
        }
        at += line.len();
        if fences.len() == 2 {
            break;
        }
    }
    match fences.as_slice() {
        [first, second] => {
            let before = source[..first.end].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' });
            let yaml = before.collect::<String>() + &source[first.end..second.start];
            let body = &source[second.end..];
            let start = second.end + (body.len() - body.trim_start().len());
            Ok(Parts { yaml, prompt: start..start + body.trim().len() })
        }
        [first] => {
            let span = first.start..first.start + 3;
            Err(Box::new(Problem::new(file, source, span, "the front matter has no end", MEND)))
        }
        _ => {
            let first = source.lines().next().unwrap_or_default().len();
            Err(Box::new(Problem::new(file, source, 0..first, "this agent has no front matter", MEND)))
        }
    }
}
