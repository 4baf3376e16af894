//! Tiers: ordered chains of models, some of them only on a condition.

use jiff::civil::{DateTime, Weekday};
use serde_json::{Value, json};

use crate::domain::label::Label;
use crate::domain::template::{Scope, TemplateError};

/// One model of a chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name in `config/models.yaml`, or one that is built in.
    pub model: String,
    /// The condition without which it is passed over, an expression over [`Known::names`].
    pub when: Option<String>,
}

/// What the condition of a link may depend on.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// What is left to spend in the tightest budget that the call is subject to, millionths of the
    /// workspace's currency; nothing when no budget limits it.
    pub budget_left: Option<i64>,
    /// The time on the owner's clock.
    pub at: DateTime,
    /// How many tokens the agent's question may have at most.
    pub input_tokens: u64,
}

impl Known {
    /// The values by the names that conditions use. Without a budget, more is left than anything costs.
    #[must_use]
    pub fn names(&self) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "it is compared with amounts that people write")]
        let left = self.budget_left.unwrap_or(i64::MAX) as f64 / 1e6;
        json!({
            "budget": {"left": left},
            "time": {
                "hour": self.at.hour(),
                "minute": self.at.minute(),
                "clock": format!("{:02}:{:02}", self.at.hour(), self.at.minute()),
                "weekday": weekday(self.at.weekday()),
            },
            "input": {"tokens": self.input_tokens},
        })
    }
}

impl Link {
    /// A link without a condition.
    pub fn to(model: impl Into<String>) -> Self {
        Self { model: model.into(), when: None }
    }

    /// Whether it is to be asked.
    ///
    /// # Errors
    /// When its condition gives no value.
    pub fn applies(&self, known: &Known) -> Result<bool, TemplateError> {
        let Some(when) = &self.when else { return Ok(true) };
        Scope::new(&known.names(), |_| Label::System).holds(when)
    }
}

/// The days as conditions name them.
pub const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "monday",
        Weekday::Tuesday => "tuesday",
        Weekday::Wednesday => "wednesday",
        Weekday::Thursday => "thursday",
        Weekday::Friday => "friday",
        Weekday::Saturday => "saturday",
        Weekday::Sunday => "sunday",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(when: &str, budget_left: Option<i64>) -> Result<bool, TemplateError> {
        let at = "2026-11-25T22:05:00".parse().unwrap(); // a Wednesday
        let link = Link { model: "large".into(), when: Some(when.into()) };
        link.applies(&Known { budget_left, at, input_tokens: 1200 })
    }

    #[test]
    fn a_condition_knows_the_budget_the_owners_clock_and_the_size_of_the_input() {
        for (when, expected) in [
            ("budget.left < 1", true),
            ("budget.left >= 0.5", true),
            ("time.hour >= 22 or time.hour < 6", true),
            ("time.clock >= '22:10'", false),
            ("time.weekday in ['saturday', 'sunday']", false),
            ("time.weekday == 'wednesday' and time.minute == 5", true),
            ("input.tokens > 1000", true),
        ] {
            assert_eq!(holds(when, Some(500_000)), Ok(expected), "{when}");
        }
        assert_eq!(holds("budget.left < 1000000", None), Ok(false), "nothing limits it");
        assert!(holds("input.size > 1", None).is_err());
    }

    #[test]
    fn a_link_without_a_condition_is_always_asked() {
        let known = Known { budget_left: Some(0), at: DateTime::default(), input_tokens: 0 };
        assert_eq!(Link::to("small").applies(&known), Ok(true));
    }

    #[test]
    fn the_days_have_the_names_that_are_checked() {
        let monday: DateTime = "2026-11-23T00:00:00".parse().unwrap();
        for (days, name) in (0..).zip(WEEKDAYS) {
            let at = monday.checked_add(jiff::Span::new().days(days)).unwrap();
            assert_eq!(weekday(at.weekday()), name);
        }
    }
}
