//! What calls cost, in millionths of the workspace's currency.

use crate::config::models::Price;
use crate::models::wire::Usage;

/// The tokens that a price is for.
const MILLION: i128 = 1_000_000;

/// How a call is made, and so what share of the price it costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tariff {
    /// At once, at the whole price.
    Usual,
    /// In a batch, at half of it.
    Batch,
}

/// What a call costs, rounded up.
pub(crate) fn cost(price: &Price, usage: &Usage, tariff: Tariff) -> i64 {
    let of = match tariff {
        Tariff::Usual => MILLION,
        Tariff::Batch => 2 * MILLION,
    };
    let cached = usage.cached.min(usage.read);
    let of_cached = price.cached_input.as_ref().unwrap_or(&price.input);
    let total = part(usage.read - cached, price.input.micros)
        .saturating_add(part(cached, of_cached.micros))
        .saturating_add(part(usage.written, price.output.micros));
    // Three prices below 2^63 times counts below 2^64 stay below 2^129 only in theory: they saturate.
    i64::try_from(total.saturating_add(of - 1).div_euclid(of)).unwrap_or(i64::MAX)
}

fn part(tokens: u64, money: i64) -> i128 {
    i128::from(tokens).saturating_mul(i128::from(money))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(price: &Price, usage: &Usage) -> i64 {
        super::cost(price, usage, Tariff::Usual)
    }

    fn price(cached: Option<&str>) -> Price {
        Price {
            input: "0.15 USD".parse().unwrap(),
            cached_input: cached.map(|text| text.parse().unwrap()),
            output: "0.60 USD".parse().unwrap(),
        }
    }

    fn usage(read: u64, cached: u64, written: u64) -> Usage {
        Usage { read, cached, written, ..Usage::default() }
    }

    #[test]
    fn a_cost_is_rounded_up_to_the_next_millionth() {
        assert_eq!(cost(&price(None), &usage(0, 0, 0)), 0);
        assert_eq!(cost(&price(None), &usage(1, 0, 0)), 1);
        assert_eq!(cost(&price(None), &usage(1_000_000, 0, 1_000_000)), 750_000);
        let most = cost(&price(None), &usage(u64::MAX, 0, u64::MAX));
        assert_eq!(most, i64::try_from(u64::MAX / 4 * 3 + 3).unwrap_or(i64::MAX));
    }

    #[test]
    fn a_batch_costs_half_rounded_up() {
        let half = |read, written| super::cost(&price(None), &usage(read, 0, written), Tariff::Batch);
        assert_eq!((half(0, 0), half(1, 0), half(1_000_000, 1_000_000)), (0, 1, 375_000));
        assert_eq!(half(9, 1), 1, "0.975 millionths");
    }

    #[test]
    fn what_the_provider_had_in_its_cache_has_a_price_of_its_own() {
        let million = usage(1_000_000, 400_000, 0);
        assert_eq!(cost(&price(Some("0.05 USD")), &million), 90_000 + 20_000);
        assert_eq!(cost(&price(None), &million), 150_000);
        assert_eq!(cost(&price(Some("0.05 USD")), &usage(10, u64::MAX, 0)), 1, "no more than was read");
    }
}
