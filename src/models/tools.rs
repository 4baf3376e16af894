//! Tools of agents: what a model asks to look up, and what it is told. [`Tools`] is the seam to whatever
//! knows the answers; it has no way to write, and [`Tool`] has no name for one.
//!
//! Whatever a model asks for is answered: an unknown tool, arguments that do not fit, a tool that fails or
//! takes too long are told to it in words, and to the journal.

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};

use crate::domain::digest::Digest;
use crate::domain::event::{ErrorKind, StepError, ToolCall};
use crate::domain::label::Label;
use crate::domain::tool::{EXCERPT, Tool, beginning};
use crate::models::chain::{Walk, millis};
use crate::models::converse::DATA;
use crate::models::error::clipped;
use crate::models::schema::without_nul;
use crate::models::wire::{Message, Reply, Wanted};

/// Tools used at the same moment for one turn: what a database and a web server take without a thought.
const AT_ONCE: usize = 4;

/// Tools used in one turn; a model that asks for more is told so.
const PER_TURN: usize = 16;

/// How long one tool may take.
const WAIT: Duration = Duration::from_secs(20);

/// How much of what a tool gave a model is shown, characters: some four thousand tokens.
const SHOWN: usize = 16_000;

/// Looks things up.
pub trait Tools: Send + Sync {
    /// What `tool` gives for `arguments`, which fit its schema, and where that came from. The sentence of
    /// an error is shown to the model.
    fn look_up<'a>(
        &'a self,
        tool: Tool,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<(Value, Label), StepError>>;
}

impl Walk<'_> {
    /// Uses what a model has asked for: its own words and the answers, to go on with, and where those came
    /// from.
    pub(crate) async fn use_tools(&self, model: &str, turn: u32, mut reply: Reply) -> (Vec<Message>, Label) {
        self.tale.goes_on(); // looking things up may take a while, and the call is over
        let beyond = reply.tool_calls.len().saturating_sub(PER_TURN);
        reply.tool_calls.truncate(PER_TURN);
        let mut messages = vec![Message::wanting(reply.text, &reply.tool_calls)];
        let mut label = Label::Owner;
        for some in reply.tool_calls.chunks(AT_ONCE) {
            for (wanted, used) in
                some.iter().zip(join_all(some.iter().map(|wanted| self.use_tool(wanted))).await)
            {
                label = label.join(used.label);
                messages.push(Message::told(&wanted.id, used.shown()));
                self.tale.looked_up(used.kept(model, turn, wanted));
            }
        }
        if let (1.., Some(last)) = (beyond, messages.last_mut()) {
            let more =
                format!("\n\n{beyond} further calls were not made: at most {PER_TURN} are in one turn.");
            last.content.push_str(&more);
        }
        (messages, label)
    }

    async fn use_tool(&self, wanted: &Wanted) -> Used {
        let began = Instant::now();
        let found = self.look_up(wanted).await;
        let (result, label) = match found {
            Ok((value, label)) => (Ok(without_nul(value)), label),
            Err(why) => (Err(clipped(&why.replace('\0', ""), EXCERPT)), Label::System),
        };
        // What was found depends on what was asked, and that on all the model has seen.
        Used { result, label: label.join(self.asked.label).join(Label::Model), took: began.elapsed() }
    }

    async fn look_up(&self, wanted: &Wanted) -> Result<(Value, Label), String> {
        let known = |tool: &Tool| self.agent.tools.contains(tool);
        let Some(tool) = Tool::parse(&wanted.name).filter(known) else {
            let names: Vec<&str> = self.agent.tools.iter().map(|tool| tool.name()).collect();
            return Err(format!(
                "there is no tool `{}`; there are: {}",
                clipped(&wanted.name, 60),
                names.join(", ")
            ));
        };
        let arguments = wanted.arguments().map_err(|why| format!("its arguments are not JSON: {why}"))?;
        let fit = self.models.schemas.check(&tool.arguments(), &arguments);
        fit.map_err(|error| format!("its arguments do not fit: {error}"))?;
        let wait = WAIT.min(self.left());
        match tokio::time::timeout(wait, self.asked.tools.look_up(tool, &arguments)).await {
            Ok(Ok(found)) => Ok(found),
            // What is wrong inside is for the log and the owner, not for a provider.
            Ok(Err(error)) if error.kind == ErrorKind::Internal => {
                tracing::error!(tool = tool.name(), %error, "a tool failed");
                Err("the tool failed".to_owned())
            }
            Ok(Err(error)) => Err(error.message),
            Err(_) => Err(format!("no answer within {} s", wait.as_secs())),
        }
    }
}

/// One use of a tool, over.
struct Used {
    result: Result<Value, String>,
    label: Label,
    took: Duration,
}

impl Used {
    /// What the model is told: data, framed as such.
    fn shown(&self) -> String {
        match &self.result {
            Ok(value) => format!("{DATA}\n\n{}", beginning(&value.to_string(), SHOWN)),
            Err(why) => json!({"error": why}).to_string(),
        }
    }

    /// What the journal keeps.
    fn kept(&self, model: &str, turn: u32, wanted: &Wanted) -> ToolCall {
        let name = Tool::parse(&wanted.name)
            .map_or_else(|| clipped(&wanted.name, 60), |tool| tool.name().to_owned());
        let arguments = wanted.arguments().unwrap_or_else(|_| json!(wanted.raw));
        ToolCall {
            tool: name.replace('\0', ""),
            model: model.to_owned(),
            turn,
            arguments: ToolCall::kept(&without_nul(arguments)),
            outcome: self.result.as_ref().err().cloned().unwrap_or_else(|| "ok".to_owned()),
            label: self.label,
            result: self.result.as_ref().ok().map(Digest::of_json),
            excerpt: self
                .result
                .as_ref()
                .map(|value| beginning(&value.to_string(), EXCERPT))
                .unwrap_or_default(),
            millis: millis(self.took),
        }
    }
}
