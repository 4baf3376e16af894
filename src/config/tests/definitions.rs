//! Workflows and agents: names, order, parameters, schemas.

use super::*;
use crate::domain::admission::{Concurrency, Flow, Priority};

#[test]
fn an_unknown_name_is_answered_with_the_nearest_known_one() {
    let place = "config/workflows/hello.yaml";
    Workspace::sound().but(WORKFLOW_FILE, "action: email.send", "action: mail.send").has(
        &format!("{place}:10:13"),
        "mail.send",
        "there is no action `mail.send`",
        "did you mean `email.send`?",
    );
    Workspace::sound().but(WORKFLOW_FILE, "mailbox: leads", "mailbox: lead").has(
        &format!("{place}:4:23"),
        "lead",
        "there is no mailbox `lead`",
        "did you mean `leads`?",
    );
    Workspace::sound().but(AGENT_FILE, "tier: draft", "tier: draught").has(
        "agents/writer.md:3:7",
        "draught",
        "there is no tier `draught`",
        "did you mean `draft`?",
    );
    Workspace::sound().but(WORKFLOW_FILE, "agent: writer", "agent: riter").has(
        &format!("{place}:7:12"),
        "riter",
        "there is no agent `riter`",
        "did you mean `writer`?",
    );
}

#[test]
fn an_agent_no_workflow_uses_is_a_warning() {
    let other = AGENT.replace("agent: writer", "agent: poet");
    let (_, warnings) = Workspace::sound().and("agents/poet.md", &other).load().unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].message, "no workflow uses the agent `poet`");
    assert_eq!((warnings[0].line, warnings[0].column), (2, 8));
}

#[test]
fn an_actions_parameters_are_checked_both_ways() {
    Workspace::sound()
        .but(WORKFLOW_FILE, "      subject: Hello\n", "      subjet: Hello\n      subject: Hello\n")
        .has(
            "config/workflows/hello.yaml:14:7",
            "subjet",
            "`email.send` has no parameter `subjet`",
            "did you mean `subject`?",
        );
    Workspace::sound().but(WORKFLOW_FILE, "      subject: Hello\n", "").has(
        "config/workflows/hello.yaml:12:5",
        "with",
        "`email.send` needs the parameter `subject`",
        "add `subject:`",
    );
}

#[test]
fn a_step_does_exactly_one_thing() {
    Workspace::sound()
        .but(WORKFLOW_FILE, "    agent: writer\n", "    agent: writer\n    action: noop\n")
        .has(
            "config/workflows/hello.yaml:6:5",
            "id: draft",
            "a step has either an `agent` or an `action`, not both",
            "exactly one",
        );
    let idle = "steps:\n  - id: idle\n";
    Workspace::sound().but(WORKFLOW_FILE, "steps:\n", idle).has(
        "config/workflows/hello.yaml:6:5",
        "id: idle",
        "this step does nothing",
        "exactly one",
    );
}

#[test]
fn a_question_to_the_owner_has_an_ask_and_takes_no_parameters() {
    let step = "steps:\n  - id: ask\n    review: { form: { type: object } }\n    dedupe: x\n";
    let problems = Workspace::sound().but(WORKFLOW_FILE, "steps:\n", step).problems();
    let messages: Vec<_> = problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(messages, ["this review asks nothing", "a step that asks the owner has no `dedupe`"]);
}

#[test]
fn a_review_step_becomes_a_question_with_its_form() {
    let step = "steps:\n  - id: ask\n    review: { ask: \"Take {{ input.from }}?\", form: { type: boolean }, due: 2h }\n";
    let (definitions, _) = Workspace::sound().but(WORKFLOW_FILE, "steps:\n", step).load().unwrap();
    let version = &definitions.workflows[&"hello".into()].version;
    let crate::domain::workflow::StepKind::Review(review) = &version.steps[0].kind else { panic!() };
    assert_eq!(review.form, Some(serde_json::json!({"type": "boolean"})));
    assert_eq!(review.shows.due, Some("2h".parse().unwrap()));
    assert_eq!(version.steps[1].needs, ["ask".into()]);
}

#[test]
fn a_review_of_something_that_changes_nothing_is_pointed_out() {
    let step = "steps:\n  - id: find\n    action: memory.search\n    with: { query: x }\n    review: {}\n";
    Workspace::sound().but(WORKFLOW_FILE, "steps:\n", step).has(
        "config/workflows/hello.yaml:9:5",
        "review",
        "`memory.search` changes nothing: there is nothing to review",
        "take `review` away",
    );
}

#[test]
fn two_of_the_same_name_are_refused() {
    Workspace::sound()
        .but(WORKFLOW_FILE, "id: send", "id: draft")
        .but(WORKFLOW_FILE, "    when: steps.draft.output.kind == \"warm\"\n", "")
        .but(WORKFLOW_FILE, "{{ steps.draft.output.body }}", "x")
        .but(WORKFLOW_FILE, ", steps.draft.output]", "]")
        .has("config/workflows/hello.yaml:9:9", "draft", "there are two steps `draft`", "another id");
    Workspace::sound().and("agents/zweiter.md", AGENT).has(
        "agents/zweiter.md:2:8",
        "writer",
        "there are two agents `writer`",
        "another name",
    );
    let other = WORKFLOW.replace("  - email: { mailbox: leads }\n", "  []\n");
    Workspace::sound().and("config/workflows/other.yaml", &other).has(
        "config/workflows/other.yaml:1:11",
        "hello",
        "there are two workflows `hello`; the other is in config/workflows/hello.yaml",
        "another name",
    );
}

#[test]
fn a_mailbox_and_a_webhook_open_one_workflow_each() {
    let other = WORKFLOW.replace("workflow: hello", "workflow: other");
    Workspace::sound().and("config/workflows/other.yaml", &other).has(
        "config/workflows/other.yaml:4:23",
        "leads",
        "the mailbox `leads` opens `hello` already",
        "mailbox of its own",
    );
    // A variable that every machine has, so that no warning stands beside the problem.
    let hook = "{ path: form, secret: env:PATH }";
    let twice = format!("  - webhook: {hook}\n  - webhook: {hook}\nsteps:");
    Workspace::sound()
        .but(WORKFLOW_FILE, "steps:", &twice)
        .but(WORKFLOW_FILE, "steps:", "input: { type: object, properties: { from: {}, from_name: {}, message_id: {}, body: {} } }\nsteps:")
        .has(
            "config/workflows/hello.yaml:6:22",
            "form",
            "the path `form` opens `hello` already",
            "path of its own",
        );
}

#[test]
fn a_trigger_is_exactly_one_thing() {
    Workspace::sound()
        .but(
            WORKFLOW_FILE,
            "{ mailbox: leads }",
            "{ mailbox: leads }\n    webhook: { path: x, secret: env:PATH }",
        )
        .but(WORKFLOW_FILE, "steps:", "input: {}\nsteps:")
        .but("config/settings.yaml", "mailboxes:\n  leads: [hello@studio.example]\n", "mailboxes: {}\n")
        .has(
            "config/workflows/hello.yaml:4:5",
            "email",
            "a trigger is exactly one of `email`, `webhook` and `schedule`",
            "its own line",
        );
}

#[test]
fn a_step_that_can_never_run_is_found_with_all_that_build_on_it() {
    let workspace =
        Workspace::sound().but(WORKFLOW_FILE, "    agent: writer\n", "    when: false\n    agent: writer\n");
    let problems = workspace.problems();
    let messages: Vec<_> = problems.iter().map(|p| (p.line, p.message.as_str())).collect();
    assert_eq!(
        messages,
        [
            (7, "`draft` can never run: its condition is always false"),
            (10, "`send` can never run: it builds on `draft`, which never does"),
        ]
    );
    let workspace = Workspace::sound().but(WORKFLOW_FILE, "kind == \"warm\"", "kind == \"warn\"");
    workspace.has(
        "config/workflows/hello.yaml:11:39",
        "warn",
        "`steps.draft.output.kind` is never `warn`",
        "did you mean `warm`?",
    );
}

#[test]
fn a_schema_must_be_one_and_stay_in_its_file() {
    Workspace::sound().but(AGENT_FILE, "body: { type: string }", "body: { type: text }").has(
        "agents/writer.md:8:19",
        "text",
        "this is not a JSON Schema: \"text\" is not valid under any of the schemas listed in the 'anyOf' keyword",
        "write a JSON Schema",
    );
    Workspace::sound()
        .but(AGENT_FILE, "body: { type: string }", "body: { $ref: \"https://x.example/s.json\" }")
        .has(
            "agents/writer.md:8:19",
            "\"https://x.example/s.json\"",
            "`https://x.example/s.json` is outside of this file",
            "#/$defs/",
        );
}

#[test]
fn a_schema_that_is_its_own_part_is_checked_without_going_round_for_ever() {
    let circle = "allOf: [{ $ref: '#' }]\n  properties:";
    let constant = Workspace::sound().but(AGENT_FILE, "Hello {{ with.name }}", "Hello");
    constant.but(AGENT_FILE, "properties:", circle).problems();
}

#[test]
fn an_email_must_be_able_to_open_the_run() {
    Workspace::sound()
        .but(WORKFLOW_FILE, "steps:", "input: { type: object, required: [from, budget] }\nsteps:")
        .has(
            "config/workflows/hello.yaml:5:41",
            "budget",
            "an email has no `budget`, so it could never open a run",
            "the fields of an email",
        );
}

#[test]
fn a_canned_output_must_fit_the_output_schema() {
    Workspace::sound().but(AGENT_FILE, "kind: warm }", "kind: hot }").has(
        "agents/writer.md:11:50",
        "hot",
        "the output schema does not allow this: \"hot\" is not one of \"warm\" or \"cold\"",
        "agree",
    );
    Workspace::sound().but(AGENT_FILE, "body: \"Hello {{ with.name }}\", ", "").has(
        "agents/writer.md:11:3",
        "output",
        "the canned output lacks `body`",
        "add `body:`",
    );
    Workspace::sound().but(AGENT_FILE, "confidence: 0.5", "confidence: 50").has(
        "agents/writer.md:12:15",
        "50",
        "a confidence is a number from 0 to 1",
        "0.5",
    );
}

#[test]
fn what_a_canned_output_reads_must_be_given() {
    Workspace::sound().but(WORKFLOW_FILE, "with: { name:", "with: { nam:").has(
        "config/workflows/hello.yaml:8:5",
        "with",
        "the canned output of `writer` reads `with.name`, which is not given",
        "add `name:`",
    );
    let guarded = Workspace::sound().but(WORKFLOW_FILE, "with: { name:", "with: { nam:").but(
        AGENT_FILE,
        "{{ with.name }}",
        "{{ with.name | default('you') }}",
    );
    assert_eq!(guarded.problems(), []);
}

#[test]
fn the_encoders_classes_must_be_outputs() {
    let classes = "classes: [{ class: hot, examples: [burning] }]\ncanned:";
    Workspace::sound()
        .but(AGENT_FILE, "kind: { type", "class: { type")
        .but(AGENT_FILE, "kind: warm", "class: warm")
        .but(WORKFLOW_FILE, "output.kind", "output.class")
        .but(AGENT_FILE, "canned:", classes)
        .has("agents/writer.md:10:20", "hot", "the output schema does not allow the class `hot`", "`enum`");
}

#[test]
fn an_agent_without_front_matter_or_prompt_says_how_it_begins() {
    Workspace::sound().but(AGENT_FILE, "---\nagent", "agent").has(
        "agents/writer.md:1:1",
        "agent: writer",
        "this agent has no front matter",
        "begin the file with a line `---`",
    );
    Workspace::sound().but(AGENT_FILE, "---\nYou", "You").has(
        "agents/writer.md:1:1",
        "---",
        "the front matter has no end",
        "another line `---`",
    );
    Workspace::sound().but(AGENT_FILE, "You write for {{ workspace.owner }}.\n", "").has(
        "agents/writer.md:2:8",
        "writer",
        "this agent has no prompt",
        "instructions",
    );
}

#[test]
fn concurrency_and_priority_are_checked_and_kept() {
    let with = |text: &str| Workspace::sound().but(WORKFLOW_FILE, "on:", &format!("{text}\non:"));
    let sound = with("concurrency: { key: '{{ input.from }}', limit: 2 }\npriority: low");
    let (definitions, _) = sound.load().unwrap();
    let flow = definitions.workflows.values().next().unwrap().version.flow.clone();
    let concurrency = Some(Concurrency { key: Some("{{ input.from }}".into()), limit: 2 });
    assert_eq!(flow, Flow { concurrency, priority: Priority::Low });
    let message = |text: &str| with(text).problems().first().unwrap().message.clone();
    assert_eq!(message("concurrency: { key: '{{ input.form }}', limit: 2 }"), "`input` has no `form`");
    assert!(message("concurrency: { key: '{{ steps.x.output }}', limit: 2 }").contains("steps"));
    for wrong in ["concurrency: { limit: 0 }", "concurrency: {}", "concurrency: 1", "priority: urgent"] {
        let _: String = message(wrong);
    }
    let limits = |text: &str| {
        let at = format!("{text}\nmailboxes:");
        Workspace::sound().but("config/settings.yaml", "mailboxes:", &at).problems().len()
    };
    assert_eq!([limits("limits: { queued: 5, ageing: 1m }"), limits("limits: { queued: 0 }")], [0, 1]);
}
