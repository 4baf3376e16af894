//! Who is told in tests, and what tools find.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::domain::event::{ErrorKind, ModelCall, StepError, ToolCall};
use crate::domain::label::Label;
use crate::domain::plan::Answer;
use crate::domain::tool::Tool;
use crate::models::tools::Tools;
use crate::models::witness::{Hear, Witness};
use crate::models::{Asked, Models};

/// Keeps what it is told, in its order.
#[derive(Default)]
pub(super) struct Told {
    calls: Mutex<Vec<ModelCall>>,
    lookups: Mutex<Vec<ToolCall>>,
    order: Mutex<Vec<String>>,
    /// What was heard of each call; nobody listens when it is not there.
    pub(super) heard: Option<Arc<Mutex<Vec<String>>>>,
}

impl Told {
    /// Somebody who listens.
    pub(super) fn listening() -> Self {
        Self { heard: Some(Arc::default()), ..Self::default() }
    }

    /// Asks, and keeps the last call with the others.
    pub(super) async fn ask(&self, models: &Models, asked: Asked<'_>) -> Answer {
        let answer = models.answer(asked);
        let (last, answer) = tokio::time::timeout(super::LIMIT, answer).await.expect("an answer in time");
        if let Some(last) = last {
            self.called(last);
        }
        answer
    }

    pub(super) fn calls(&self) -> Vec<ModelCall> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) fn lookups(&self) -> Vec<ToolCall> {
        self.lookups.lock().unwrap().clone()
    }

    /// Names of models and tools, as they were told.
    pub(super) fn order(&self) -> Vec<String> {
        self.order.lock().unwrap().clone()
    }

    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.as_ref().map(|heard| heard.lock().unwrap().clone()).unwrap_or_default()
    }
}

impl Witness for Told {
    fn called(&self, call: ModelCall) {
        self.order.lock().unwrap().push(call.model.clone());
        self.calls.lock().unwrap().push(call);
    }

    fn looked_up(&self, call: ToolCall) {
        self.order.lock().unwrap().push(call.tool.clone());
        self.lookups.lock().unwrap().push(call);
    }

    fn hear(&self, _: &str, _: Option<&str>) -> Option<Hear> {
        let heard = self.heard.clone()?;
        let call = {
            let mut heard = heard.lock().unwrap();
            heard.push(String::new());
            heard.len() - 1
        };
        Some(Hear::new(move |piece| heard.lock().unwrap()[call].push_str(piece)))
    }
}

/// What it finds says what it was asked; `memory.search` finds what an outsider wrote, and `http.get` fails.
pub(super) struct Shelf;

impl Tools for Shelf {
    fn look_up<'a>(
        &'a self,
        tool: Tool,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<(Value, Label), StepError>> {
        Box::pin(async move {
            match tool {
                Tool::HttpGet => Err(StepError::new(ErrorKind::Denied, "evil.example is not on the list")),
                Tool::RecordsList => Err(StepError::new(ErrorKind::Internal, "row 7 of table x is broken")),
                Tool::ThreadGet => std::future::pending().await,
                Tool::MemorySearch => Ok((json!({"asked": arguments}), Label::Untrusted)),
                Tool::RecordsGet | Tool::Calc | Tool::Date => Ok((json!({"asked": arguments}), Label::Owner)),
            }
        })
    }
}
