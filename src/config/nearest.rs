//! Names that were perhaps meant, for mends.

/// How far a name may be from a known one to be taken for it, in letters changed.
const FAR: usize = 3;

/// "did you mean `x`?" when one of the known names is near; otherwise what there is to choose from.
#[must_use]
pub fn mend(wanted: &str, what: &str, known: &[&str]) -> String {
    match nearest(wanted, known) {
        Some(name) => format!("did you mean `{name}`? {}", list(what, known)),
        None => list(what, known),
    }
}

fn list(what: &str, known: &[&str]) -> String {
    let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => format!("there are no {what} yet"),
        names => format!("{what}: {}", names.join(", ")),
    }
}

/// The known name nearest to `wanted`, if any is near.
#[must_use]
pub fn nearest<'k>(wanted: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = FAR.min(wanted.chars().count().div_ceil(2));
    let near = known.iter().map(|name| (distance(wanted, name), *name)).filter(|(far, _)| *far <= limit);
    near.min().map(|(_, name)| name)
}

/// Levenshtein's distance, by letters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let changed = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_a_different_word_is_not() {
        let known = ["agent", "action", "when", "with"];
        assert_eq!(nearest("agnet", &known), Some("agent"));
        assert_eq!(nearest("whit", &known), Some("with"));
        assert_eq!(nearest("budget", &known), None);
        assert_eq!(mend("x", "mailboxes", &[]), "there are no mailboxes yet");
    }
}
