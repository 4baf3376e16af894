//! The ledger's arithmetic, in memory: what the statements of `store::spend` do with rows. They are held
//! against it in tests, and tests without a database count by it.

use std::collections::BTreeMap;

use crate::domain::budget::Shortage;
use crate::domain::ids::ReservationId;

/// What one account holds, micro-units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Set aside for calls under way.
    pub reserved: i64,
    /// Spent.
    pub settled: i64,
    /// The part of it by which calls cost more than was set aside for them.
    pub overrun: i64,
}

/// An account that is to pay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paying {
    /// Its key.
    pub account: String,
    /// What kind it is.
    pub scope: String,
    /// What it may hold; any amount when absent.
    pub limit: Option<i64>,
}

/// How a reservation ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The call cost this much.
    Settled(i64),
    /// The call was never sent.
    Released,
    /// Nobody can tell: all of it is taken for spent. The truth may still come later.
    Assumed,
}

/// A reservation, and what of it the accounts hold.
#[derive(Clone, Debug)]
struct Entry {
    accounts: Vec<String>,
    worst: i64,
    end: Option<End>,
}

impl Entry {
    fn cost(&self) -> i64 {
        match self.end {
            Some(End::Settled(cost)) => cost.max(0),
            Some(End::Assumed) => self.worst,
            Some(End::Released) | None => 0,
        }
    }
}

/// Accounts and reservations.
#[derive(Clone, Debug, Default)]
pub struct Book {
    accounts: BTreeMap<String, Held>,
    entries: BTreeMap<ReservationId, Entry>,
}

impl Book {
    /// Sets `worst` aside in every account or in none.
    ///
    /// # Errors
    /// The account that lacks most.
    pub fn reserve(&mut self, id: ReservationId, worst: i64, paying: &[Paying]) -> Result<(), Shortage> {
        let short = paying.iter().filter_map(|paying| {
            let held = self.held(&paying.account);
            let used = held.reserved + held.settled;
            let limit = paying.limit.filter(|limit| used + worst > *limit)?;
            Some(Shortage { scope: paying.scope.clone(), limit, used, worst })
        });
        if let Some(short) = short.max_by_key(|short| short.used - short.limit) {
            return Err(short);
        }
        for paying in paying {
            self.accounts.entry(paying.account.clone()).or_default().reserved += worst;
        }
        let accounts = paying.iter().map(|paying| paying.account.clone()).collect();
        self.entries.insert(id, Entry { accounts, worst, end: None });
        Ok(())
    }

    /// Ends a reservation. Only what was assumed can end once more.
    pub fn end(&mut self, id: ReservationId, end: End) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match (entry.end, end) {
            (None, _) | (Some(End::Assumed), End::Settled(_)) => {}
            (Some(_), _) => return,
        }
        let (was_open, before) = (entry.end.is_none(), entry.cost());
        entry.end = Some(end);
        let (cost, worst) = (entry.cost(), entry.worst);
        for account in &entry.accounts {
            let held = self.accounts.entry(account.clone()).or_default();
            held.reserved -= if was_open { worst } else { 0 };
            held.settled += cost - before;
            held.overrun += (cost - worst).max(0) - (before - worst).max(0);
        }
    }

    /// What an account holds.
    #[must_use]
    pub fn held(&self, account: &str) -> Held {
        self.accounts.get(account).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const LIMITS: [Option<i64>; 4] = [Some(40), Some(90), Some(150), None];

    #[derive(Clone, Debug)]
    enum Do {
        Reserve { worst: i64, accounts: [bool; 4] },
        End { nth: usize, end: End },
    }

    fn action() -> impl Strategy<Value = Do> {
        let end = prop_oneof![(0i64..40).prop_map(End::Settled), Just(End::Released), Just(End::Assumed),];
        prop_oneof![
            (0i64..30, any::<[bool; 4]>()).prop_map(|(worst, accounts)| Do::Reserve { worst, accounts }),
            (0usize..40, end).prop_map(|(nth, end)| Do::End { nth, end }),
        ]
    }

    fn paying(accounts: [bool; 4]) -> Vec<Paying> {
        let all = LIMITS.iter().enumerate().filter(|(n, _)| accounts[*n]);
        all.map(|(n, limit)| Paying { account: n.to_string(), scope: "run".into(), limit: *limit }).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_500))]

        /// Against bookkeeping by hand: a list of calls, summed up anew each time.
        #[test]
        fn no_account_is_ever_overshot_and_each_equals_the_sum_of_its_calls(
            actions in proptest::collection::vec(action(), 1..60),
        ) {
            let mut book = Book::default();
            let mut calls: Vec<(ReservationId, [bool; 4], i64, Option<End>)> = Vec::new();
            for action in actions {
                match action {
                    Do::Reserve { worst, accounts } => {
                        let id = ReservationId(Uuid::from_u128(calls.len() as u128));
                        let before: Vec<Held> = (0..4).map(|n| book.held(&n.to_string())).collect();
                        let fits = (0..4).all(|n| !accounts[n] || LIMITS[n].is_none_or(|limit| {
                            before[n].reserved + before[n].settled + worst <= limit
                        }));
                        let reserved = book.reserve(id, worst, &paying(accounts));
                        prop_assert_eq!(reserved.is_ok(), fits, "all that fits is given, and nothing else");
                        match reserved {
                            Ok(()) => calls.push((id, accounts, worst, None)),
                            Err(short) => prop_assert!(short.used + short.worst > short.limit),
                        }
                    }
                    Do::End { nth, end } if !calls.is_empty() => {
                        let nth = nth % calls.len();
                        let call = &mut calls[nth];
                        book.end(call.0, end);
                        let takes = call.3.is_none()
                            || (call.3 == Some(End::Assumed) && matches!(end, End::Settled(_)));
                        call.3 = if takes { Some(end) } else { call.3 };
                    }
                    Do::End { .. } => {}
                }
                for (n, limit) in LIMITS.into_iter().enumerate() {
                    let held = book.held(&n.to_string());
                    let mine = || calls.iter().filter(|call| call.1[n]);
                    let reserved: i64 = mine().filter(|call| call.3.is_none()).map(|call| call.2).sum();
                    let cost = |call: &(ReservationId, [bool; 4], i64, Option<End>)| match call.3 {
                        Some(End::Settled(cost)) => cost,
                        Some(End::Assumed) => call.2,
                        _ => 0,
                    };
                    let settled: i64 = mine().map(cost).sum();
                    let overrun: i64 = mine().map(|call| (cost(call) - call.2).max(0)).sum();
                    prop_assert_eq!(held, Held { reserved, settled, overrun });
                    if let Some(limit) = limit {
                        prop_assert!(reserved + settled - overrun <= limit, "{held:?} in {n}");
                    }
                }
            }
        }
    }
}
