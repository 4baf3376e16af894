//! Money in an action: in parameters that are amounts, and in words.
//!
//! Written amounts are read as generously as people read them: `$1,200.50`, `1.200,50 €`, `EUR 300`,
//! `1 200 kr`, `5k USD`. Where a number can be read two ways (`1.200`), the greater one counts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::fold::fold;
use crate::domain::money::Money;

/// An amount, and the parameter it stands in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Amount {
    /// How much; its currency is empty where none is told.
    pub money: Money,
    /// The parameter.
    pub param: String,
}

/// Signs and words for currencies, folded, with their codes. `$` is taken for the US dollar.
const SIGNS: &[(&str, &str)] = &[
    ("us$", "USD"),
    ("a$", "AUD"),
    ("c$", "CAD"),
    ("$", "USD"),
    ("€", "EUR"),
    ("£", "GBP"),
    ("¥", "JPY"),
    ("₹", "INR"),
    ("₩", "KRW"),
    ("₺", "TRY"),
    ("₿", "BTC"),
];

/// Codes and words, folded, that stand by themselves.
const WORDS: &[(&str, &str)] = &[
    ("usd", "USD"),
    ("eur", "EUR"),
    ("gbp", "GBP"),
    ("chf", "CHF"),
    ("nok", "NOK"),
    ("sek", "SEK"),
    ("dkk", "DKK"),
    ("pln", "PLN"),
    ("czk", "CZK"),
    ("huf", "HUF"),
    ("jpy", "JPY"),
    ("cny", "CNY"),
    ("inr", "INR"),
    ("aud", "AUD"),
    ("cad", "CAD"),
    ("nzd", "NZD"),
    ("brl", "BRL"),
    ("zar", "ZAR"),
    ("sgd", "SGD"),
    ("hkd", "HKD"),
    ("mxn", "MXN"),
    ("krw", "KRW"),
    ("btc", "BTC"),
    ("eth", "ETH"),
    ("usdt", "USDT"),
    ("euro", "EUR"),
    ("euros", "EUR"),
    ("dollar", "USD"),
    ("dollars", "USD"),
    ("bucks", "USD"),
    ("pound", "GBP"),
    ("pounds", "GBP"),
    ("franc", "CHF"),
    ("francs", "CHF"),
    ("yen", "JPY"),
    ("rupees", "INR"),
    ("kr", "KR"),
    ("kroner", "NOK"),
    ("kronor", "SEK"),
    ("zl", "PLN"),
    ("fr.", "CHF"),
];

/// Names of parameters that are amounts.
pub const TYPED: [&str; 6] = ["amount", "total", "price", "sum", "refund", "value_due"];

/// Every amount in the parameters, at most [`MOST`], in the order they stand.
#[must_use]
pub fn amounts(params: &Value) -> Vec<Amount> {
    let mut found = Vec::new();
    for (name, value) in params.as_object().into_iter().flatten() {
        walk(name, name, value, params, &mut found);
    }
    found.truncate(MOST);
    found
}

/// Amounts that are kept of one action: nobody reads more.
pub const MOST: usize = 50;

/// `param` is the parameter that all of it stands in, `name` the name of `value` in `around`.
fn walk(param: &str, name: &str, value: &Value, around: &Value, found: &mut Vec<Amount>) {
    match value {
        Value::String(text) => {
            let before = found.len();
            found.extend(written(text).into_iter().map(|money| Amount { money, param: param.to_owned() }));
            if found.len() == before && TYPED.contains(&name) {
                let micros = number(fold(text).trim()).map(|(micros, _)| micros);
                found.extend(micros.map(|micros| typed(param, micros, around)));
            }
        }
        Value::Number(number) if TYPED.contains(&name) => {
            let micros = number.as_f64().map(|number| (number * 1e6).round() as i64); // saturates
            found.extend(micros.map(|micros| typed(param, micros, around)));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(param, name, item, around, found)),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| walk(param, name, field, value, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// An amount beside which the currency stands, or nowhere.
fn typed(param: &str, micros: i64, around: &Value) -> Amount {
    let currency = around.get("currency").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
    Amount { money: Money { micros, currency }, param: param.to_owned() }
}

/// The amounts that a text speaks of.
#[must_use]
pub fn written(text: &str) -> Vec<Money> {
    let folded = fold(text);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = folded[at..].find(|c: char| c.is_ascii_digit()).map(|next| at + next) {
        let Some((mut micros, length)) = number(&folded[start..]) else { break };
        let mut end = start + length;
        let (times, more) = magnitude(&folded[end..]);
        // A word in which a digit stands, as in `b2b`, is no number.
        let is_part = folded[..start].chars().next_back().is_some_and(|c| c.is_alphabetic())
            && currency_before(&folded[..start]).is_none();
        let currency = match is_part {
            true => None,
            false => currency_before(&folded[..start]).or_else(|| currency_after(&folded[end + more..])),
        };
        if let Some(currency) = currency {
            micros = micros.saturating_mul(times);
            end += more;
            found.push(Money { micros, currency: currency.to_owned() });
            if found.len() == MOST {
                break;
            }
        }
        at = end;
    }
    found
}

/// The number that a text begins with, in millionths, and how many bytes it takes.
fn number(text: &str) -> Option<(i64, usize)> {
    let mut end = 0;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(end) {
        let digit_follows = bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        let separates = match byte {
            b'.' | b',' | b'\'' => digit_follows,
            // A space separates thousands alone: exactly three digits follow.
            b' ' => {
                let rest = &bytes[end + 1..];
                rest.len() >= 3
                    && rest[..3].iter().all(u8::is_ascii_digit)
                    && !rest.get(3).is_some_and(u8::is_ascii_digit)
            }
            _ => false,
        };
        if !byte.is_ascii_digit() && !separates {
            break;
        }
        end += 1;
    }
    let text = &text[..end];
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (whole, decimals) = split(text);
    let whole: String = whole.chars().filter(char::is_ascii_digit).collect();
    let whole = whole.parse::<i64>().unwrap_or(i64::MAX); // more digits than fit are very much money
    let decimals: i64 = format!("{:0<6.6}", decimals).parse().unwrap_or(0);
    Some((whole.saturating_mul(1_000_000).saturating_add(decimals), end))
}

/// A number's whole part and its decimals.
fn split(text: &str) -> (&str, &str) {
    let Some(last) = text.rfind(['.', ',']) else { return (text, "") };
    let (whole, decimals) = (&text[..last], &text[last + 1..]);
    let mark = &text[last..=last];
    let others = whole.contains(['.', ',', '\'', ' ']);
    let same = whole.contains(mark);
    let is_decimal = match decimals.len() {
        3 => others && !same, // `1,200.500`; alone it may be a thousand, and then it is more
        _ => !same,
    };
    if is_decimal { (whole, decimals) } else { (text, "") }
}

/// `k`, `thousand`, `m`, `million` after a number, and how many bytes they take.
fn magnitude(rest: &str) -> (i64, usize) {
    let space = rest.len() - rest.trim_start_matches(' ').len();
    let word: &str = {
        let rest = &rest[space..];
        &rest[..rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len())]
    };
    let times = match word {
        "k" | "thousand" | "tausend" | "tsd" => 1_000,
        "m" | "mio" | "million" | "millions" | "millionen" | "mn" => 1_000_000,
        _ => return (1, 0),
    };
    (times, space + word.len())
}

fn currency_before(text: &str) -> Option<&'static str> {
    let text = text.trim_end_matches([' ', ':', '\u{a0}']);
    let sign = SIGNS.iter().find(|(sign, _)| text.ends_with(sign));
    let start = text.char_indices().rev().take_while(|(_, c)| c.is_alphabetic() || *c == '.').last();
    let word = start.map_or("", |(at, _)| &text[at..]);
    sign.or_else(|| WORDS.iter().find(|(known, _)| *known == word)).map(|(_, code)| *code)
}

fn currency_after(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches([' ', '-', ',']);
    let sign = SIGNS.iter().find(|(sign, _)| text.starts_with(sign));
    let word = &text[..text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len())];
    sign.or_else(|| WORDS.iter().find(|(known, _)| *known == word)).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Vec<String> {
        written(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn money_is_found_however_people_write_it() {
        for (text, amount) in [
            ("That is $1,200.50 in all.", "1200.50 USD"),
            ("1.200,50 €", "1200.50 EUR"),
            ("EUR 300", "300.00 EUR"),
            ("Please pay 300EUR today", "300.00 EUR"),
            ("1 200,50 euros", "1200.50 EUR"),
            ("CHF 1'200.-", "1200.00 CHF"),
            ("1\u{202f}200 kr", "1200.00 KR"),
            ("US$5k", "5000.00 USD"),
            ("about 1.2 million dollars", "1200000.00 USD"),
            ("£0.99", "0.99 GBP"),
            ("$1.200", "1200.00 USD"),
            ("€12.000.000", "12000000.00 EUR"),
            ("＄１２００", "1200.00 USD"),
            ("1\u{200b}200 €", "1200.00 EUR"),
            ("0.5 btc", "0.50 BTC"),
            ("price: 250 USD.", "250.00 USD"),
        ] {
            assert_eq!(read(text), [amount], "{text}");
        }
        assert_eq!(read("between €100 and 200 €"), ["100.00 EUR", "200.00 EUR"]);
    }

    #[test]
    fn numbers_that_are_no_money_are_left_alone() {
        for text in ["call 555 1234", "b2b", "the 3 of us", "2026-11-30", "version 1.2", "", "$", "€ only"]
        {
            assert_eq!(read(text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn an_enormous_number_is_the_most_there_can_be() {
        assert_eq!(written(&format!("${}", "9".repeat(80)))[0].micros, i64::MAX);
    }

    #[test]
    fn parameters_that_are_amounts_count_with_the_currency_beside_them() {
        let params = json!({"amount": 12.5, "currency": "eur", "body": {"lines": [{"price": "3", "currency": "USD"}]},
            "note": "and 5 €"});
        let found: Vec<_> = amounts(&params).iter().map(|a| (a.param.clone(), a.money.to_string())).collect();
        assert_eq!(
            found,
            [
                ("amount".to_owned(), "12.50 EUR".to_owned()),
                ("body".to_owned(), "3.00 USD".to_owned()),
                ("note".to_owned(), "5.00 EUR".to_owned()),
            ]
        );
    }
}
