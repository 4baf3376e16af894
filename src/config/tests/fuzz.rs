//! Whatever stands in the files, loading gives definitions or problems, never a panic.

use proptest::prelude::*;

use super::*;

fn file() -> impl Strategy<Value = usize> {
    0..6usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_file_with_parts_cut_swapped_or_strewn_with_signs_is_loaded_or_explained(
        index in file(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), strewn()), 1..4),
    ) {
        let mut workspace = Workspace::sound();
        let text = &mut workspace.0[index].1;
        for (from, length, with) in cuts {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let from = from.index(places.len());
            let to = (from + length.index(12)).min(places.len() - 1);
            text.replace_range(places[from]..places[to], &with);
        }
        explained(&workspace);
    }

    #[test]
    fn random_text_is_loaded_or_explained(index in file(), text in "(\\PC|[\n :\\-{}\\[\\]\"'|>&*!%#]){0,200}") {
        let mut workspace = Workspace::sound();
        workspace.0[index].1 = text;
        explained(&workspace);
    }
}

fn strewn() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[ \n:{}\\[\\]\"'|>&*!%#,.-]{1,6}",
        "\\PC{0,8}",
        Just("{{ ".into()),
        Just(" }}".into()),
        Just("{% if".into()),
        Just("null".into()),
        Just("[[[{a: ".into()),
        Just("$ref: '#'".into()),
        Just("9e999".into()),
        Just("<<: *a".into()),
    ]
}

/// Every problem lies in its file, at a place that exists, and can be shown.
fn explained(workspace: &Workspace) {
    let Err(problems) = workspace.load() else { return };
    assert!(problems.any_error());
    for problem in &problems.0 {
        assert!(
            problem.line >= 1
                && problem.column >= 1
                && !problem.message.is_empty()
                && !problem.mend.is_empty()
        );
    }
    assert!(!problems.render(false).is_empty());
}
