//! The text format of Prometheus, version 0.0.4: families of samples, each with its help and type.
//! See the exposition formats in Prometheus' documentation.

use std::fmt::Write;

/// The media type of the format.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the numbers of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only grows, but for restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles, their sum and their count.
    Summary,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// A text under way.
#[derive(Default)]
pub(super) struct Text {
    out: String,
}

/// The family that samples are added to.
pub(super) struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Text {
    /// Begins a family: its samples follow one another, and no other family has its name.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str()); // a String takes all
        Family { text: self, name }
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

impl Family<'_> {
    /// A sample under labels.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.part("", labels, value)
    }

    /// A sample of a part of the family: `_sum` or `_count` of a summary.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) -> &mut Self {
        let out = &mut self.text.out;
        let _ = write!(out, "{}{suffix}", self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(out, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            out.push('}');
        }
        let _ = match value {
            value if value.is_nan() => writeln!(out, " NaN"),
            value if value.is_infinite() => writeln!(out, " {}Inf", if value > 0.0 { '+' } else { '-' }),
            value => writeln!(out, " {value}"),
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_label_holds_stays_within_its_quotes() {
        let mut text = Text::default();
        text.family("steward_runs", Kind::Gauge, "Runs by\nstatus.")
            .sample(&[("status", "a\"b\\c\nd"), ("node", "n")], 3.0)
            .sample(&[], 0.25);
        text.family("steward_wait_seconds", Kind::Summary, "Waits.")
            .sample(&[("quantile", "0.5")], f64::NAN)
            .part("_count", &[], 1e15)
            .part("_sum", &[], f64::INFINITY);
        assert_eq!(
            text.finish(),
            "# HELP steward_runs Runs by\\nstatus.\n# TYPE steward_runs gauge\n\
             steward_runs{status=\"a\\\"b\\\\c\\nd\",node=\"n\"} 3\nsteward_runs 0.25\n\
             # HELP steward_wait_seconds Waits.\n# TYPE steward_wait_seconds summary\n\
             steward_wait_seconds{quantile=\"0.5\"} NaN\nsteward_wait_seconds_count 1000000000000000\n\
             steward_wait_seconds_sum +Inf\n"
        );
    }
}
