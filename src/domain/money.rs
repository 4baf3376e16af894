//! Money is an integer number of millionths of a currency unit; never a float.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in one currency. Written as in `0.10 USD`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Money {
    /// Millionths of the unit.
    pub micros: i64,
    /// ISO 4217 code, three capital letters.
    pub currency: String,
}

/// Why a text is not an amount of money.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an amount as `0.10 USD`: up to six decimals and a three-letter currency")]
pub struct NotMoney;

impl FromStr for Money {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let (number, currency) = text.trim().split_once(' ').ok_or(NotMoney)?;
        if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(NotMoney);
        }
        let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(NotMoney);
        }
        let whole: i64 = whole.parse().map_err(|_| NotMoney)?;
        let decimals: i64 = format!("{decimals:0<6}").parse().map_err(|_| NotMoney)?;
        let micros = whole.checked_mul(1_000_000).and_then(|m| m.checked_add(decimals)).ok_or(NotMoney)?;
        Ok(Self { micros, currency: currency.to_owned() })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.micros < 0 { "-" } else { "" };
        let micros = self.micros.unsigned_abs();
        let decimals = format!("{:06}", micros % 1_000_000);
        let decimals = decimals.trim_end_matches('0');
        write!(f, "{sign}{}.{decimals:0<2} {}", micros / 1_000_000, self.currency)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_amount_keeps_every_millionth() {
        let amount: Money = "0.000001 USD".parse().unwrap();
        assert_eq!(amount.micros, 1);
        assert_eq!(amount.to_string(), "0.000001 USD");
        assert_eq!("3 EUR".parse::<Money>().unwrap().to_string(), "3.00 EUR");
    }

    #[test]
    fn what_is_not_plainly_an_amount_is_refused() {
        for text in ["", "1", "1 usd", "1USD", "-1 USD", "1.0000001 USD", "1,5 USD", ".5 USD", "1e3 USD"] {
            assert_eq!(text.parse::<Money>(), Err(NotMoney), "{text}");
        }
    }

    proptest! {
        #[test]
        fn writing_and_reading_an_amount_gives_it_back(micros in 0..i64::MAX) {
            let amount = Money { micros, currency: "USD".into() };
            prop_assert_eq!(amount.to_string().parse::<Money>().unwrap(), amount);
        }
    }
}
