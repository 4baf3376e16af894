//! The order of steps as a graph: what comes before what, and whether there is an order at all.

use std::collections::{BTreeMap, BTreeSet};

/// Every step with all the steps that are over before it begins.
pub(in crate::config) type Ancestors<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Follows `needs` through the whole graph. Needs that name no step are left out.
///
/// # Errors
/// A cycle, as the steps on it in their order.
pub(in crate::config) fn ancestors<'a>(
    needs: &BTreeMap<&'a str, Vec<&'a str>>,
) -> Result<Ancestors<'a>, Vec<&'a str>> {
    let mut done = Ancestors::new();
    let mut way: Vec<(&str, usize)> = Vec::new();
    for start in needs.keys() {
        if !done.contains_key(start) {
            way.push((start, 0));
        }
        // Depth first with a stack of our own: a chain of a thousand steps needs no deep recursion.
        while let Some((step, next)) = way.last_mut() {
            let step = *step;
            let before = needs.get(step).map(Vec::as_slice).unwrap_or_default();
            let known = before.iter().filter(|need| needs.contains_key(*need));
            if let Some(need) = known.clone().nth(*next) {
                *next += 1;
                if let Some(at) = way.iter().position(|(step, _)| step == need) {
                    return Err(way[at..].iter().map(|(step, _)| *step).collect());
                }
                if !done.contains_key(need) {
                    way.push((need, 0));
                }
            } else {
                let mut all: BTreeSet<&str> = known.clone().copied().collect();
                all.extend(known.filter_map(|need| done.get(need)).flatten());
                done.insert(step, all);
                way.pop();
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_a_step_is_followed_to_the_beginning() {
        let needs =
            BTreeMap::from([("a", vec![]), ("b", vec!["a"]), ("c", vec!["a"]), ("d", vec!["b", "c"])]);
        assert_eq!(ancestors(&needs).unwrap()["d"], BTreeSet::from(["a", "b", "c"]));
        assert!(ancestors(&needs).unwrap()["a"].is_empty());
    }

    #[test]
    fn a_cycle_is_named_step_by_step() {
        let needs =
            BTreeMap::from([("a", vec![]), ("b", vec!["a", "d"]), ("c", vec!["b"]), ("d", vec!["c"])]);
        assert_eq!(ancestors(&needs).unwrap_err(), ["b", "d", "c"]);
        assert_eq!(ancestors(&BTreeMap::from([("a", vec!["a"])])).unwrap_err(), ["a"]);
    }

    #[test]
    fn a_long_chain_is_no_burden() {
        let names: Vec<String> = (0..2000).map(|n| format!("s{n:05}")).collect();
        let needs: BTreeMap<&str, Vec<&str>> = (0..2000)
            .map(|n| (names[n].as_str(), if n + 1 < 2000 { vec![names[n + 1].as_str()] } else { vec![] }))
            .collect();
        assert_eq!(ancestors(&needs).unwrap()["s00000"].len(), 1999);
    }
}
