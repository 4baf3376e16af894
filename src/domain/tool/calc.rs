//! The tool `calc`: arithmetic and nothing else. The template engine works it out, within its fuel; only
//! figures and operators get that far, so that no name, text, list or filter can be reached from a model.

use serde_json::{Value, json};

use crate::domain::label::Label;
use crate::domain::template::Scope;

/// How many digits of a result count: what lies beyond is the noise of binary fractions.
const DIGITS: usize = 14;

/// Works out `expression`, rounded to `round` places if that is said.
///
/// # Errors
/// Why it has no value, for the model to mend.
pub fn calc(expression: &str, round: Option<u8>) -> Result<Value, String> {
    let known = |c: char| c.is_ascii_digit() || "+-*/%(). \t\n".contains(c);
    if let Some(strange) = expression.chars().find(|c| !known(*c)) {
        return Err(format!("`{}` is no figure and no operator", strange.escape_default()));
    }
    let nothing = json!({});
    let value = Scope::new(&nothing, |_| Label::Owner).expression(expression.trim());
    let value = value.map_err(|error| error.message)?;
    match (&value, value.as_f64()) {
        (Value::Number(number), Some(_)) if number.is_i64() || number.is_u64() => Ok(value),
        (_, Some(number)) if number.is_finite() => Ok(tidy(number, round)),
        _ => Err("that has no value".to_owned()),
    }
}

fn tidy(number: f64, round: Option<u8>) -> Value {
    let exact = |number: f64| format!("{number:.*e}", DIGITS).parse::<f64>().unwrap_or(number);
    let rounded = match round.map(|places| 10f64.powi(i32::from(places))) {
        // Halves go up, as on invoices.
        Some(scale) if (number * scale).is_finite() => exact(exact(number * scale).round() / scale),
        Some(_) | None => exact(number),
    };
    // A whole number that a float holds exactly is told as one.
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 {
        return json!(rounded as i64);
    }
    json!(rounded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_come_out_as_people_write_them() {
        for (expression, round, value) in [
            ("0.1 + 0.2", None, json!(0.3)),
            ("1250.50 * 1.25", Some(2), json!(1563.13)),
            ("(3 + 4) * 2", None, json!(14)),
            ("7 // 2", None, json!(3)),
            ("10 / 4", None, json!(2.5)),
            ("10 / 5", None, json!(2)),
            ("2 ** 10", None, json!(1024)),
            ("100 * 1.19", None, json!(119)),
            ("1.005", Some(2), json!(1.01)),
            ("-2.5", Some(0), json!(-3)),
        ] {
            assert_eq!(calc(expression, round), Ok(value), "{expression}");
        }
    }

    #[test]
    fn nothing_but_arithmetic_is_worked_out() {
        for expression in
            ["", "1 /", "range(9)", "'a' * 9", "[1] * 9", "x", "1 / 0", "9 ** 9 ** 9 ** 9", "{{ 1 }}"]
        {
            assert!(calc(expression, None).is_err(), "{expression}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_there_is_a_number_or_a_reason(expression in "[0-9+*/%(). -]{0,60}") {
            match calc(&expression, Some(2)) {
                Ok(value) => prop_assert!(value.is_number()),
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }
    }
}
