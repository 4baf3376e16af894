//! How trust is earned: thresholds that count, and none that only pretend to.

use super::*;

#[test]
fn no_file_may_say_how_far_it_is_trusted_itself() {
    Workspace::sound().but(WORKFLOW_FILE, "action: email.send", "action: workflow.stage").has(
        "config/workflows/hello.yaml:10:13",
        "workflow.stage",
        "there is no action `workflow.stage`",
        "the actions",
    );
}

#[test]
fn thresholds_beside_by_hand_or_without_a_cause_are_told() {
    let says = |text: &str| {
        let replaced = format!("autonomy: {text}\nsteps:\n  - id: draft");
        Workspace::sound().but(WORKFLOW_FILE, "steps:\n  - id: draft", &replaced)
    };
    says("{ by_hand: true, promote: { after: 20, unchanged: 0.95 } }").has(
        "config/workflows/hello.yaml:5:22",
        "true",
        "`by_hand` means that no threshold counts",
        "take `by_hand` away",
    );
    let problems = says("{ demote: { automatic: true } }").problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].message, "nothing brings this about");
    let problems = says("{ demote: { on: [rejected_sample] } }").problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].mend.contains("sample: 0.05"), "{problems:#?}");
    assert!(!says("{ promote: { after: 0, unchanged: 0.95 } }").problems().is_empty(), "0 earns nothing");
    assert!(!says("{ promote: { after: 5, unchanged: 95 } }").problems().is_empty(), "a share, no percents");
    let (definitions, warnings) = says("{ promote: { after: 5, unchanged: 1 } }").load().unwrap();
    assert_eq!(warnings, []);
    assert_eq!(definitions.autonomy(&"hello".into()).promote.map(|rule| rule.after), Some(5));
}
