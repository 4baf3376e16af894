//! Names that were perhaps meant, for mends.

/// How far a name may be from a known one to be taken for it, in letters changed.
const FAR: usize = 3;

/// The longest name that is compared, bytes.
const LONGEST: usize = 64;

/// "did you mean `x`?" when one of the known names is near; otherwise what there is to choose from.
#[must_use]
pub(super) fn mend(wanted: &str, what: &str, known: &[&str]) -> String {
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
pub(super) fn nearest<'k>(wanted: &str, known: &[&'k str]) -> Option<&'k str> {
    // A long text is no slip of the finger, and measuring it would cost its square.
    if wanted.len() > LONGEST {
        return None;
    }
    let limit = FAR.min(wanted.chars().count().div_ceil(2));
    let near = known.iter().map(|name| (distance(wanted, name), letters(wanted) != letters(name), *name));
    near.filter(|(far, ..)| *far <= limit).min().map(|(.., name)| name)
}

fn letters(name: &str) -> Vec<char> {
    let mut letters: Vec<char> = name.chars().collect();
    letters.sort_unstable();
    letters
}

/// Letters to change, add, drop or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
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
