//! A budget does not hold enough: the owner may allow more this once, or answer himself.

use serde_json::Value;

use crate::domain::budget::Shortage;
use crate::domain::event::Ask;
use crate::domain::money::Money;
use crate::domain::plan::Planner;
use crate::domain::run::IllegalEvent;
use crate::domain::workflow::Step;

impl Planner<'_, '_> {
    /// An approval lets this run cost as much more as the question says; an answer is the step's output.
    pub(super) fn ask_for_money(&mut self, step: &Step, short: &Shortage) -> Result<(), IllegalEvent> {
        let currency = self.env.workspace.get("currency").and_then(Value::as_str).unwrap_or("USD").to_owned();
        let more = short.wanted();
        let reasons = vec![
            short.told(&currency),
            format!("approve: this run may cost {} more, this once", Money { micros: more, currency }),
            "answer: give the step's output yourself, at no cost; reject: the step is not done".to_owned(),
        ];
        self.ask_about_agent(step, Ask::Budget, Some(more), None, &|_| reasons.clone())
    }
}
