//! What templates name, marked inside the text that names it.

use super::*;

fn body(template: &str) -> Workspace {
    Workspace::sound().but(WORKFLOW_FILE, "{{ steps.draft.output.body }}", template)
}

#[test]
fn a_path_that_leads_nowhere_is_marked_inside_its_text() {
    body("Hi {{ input.from }}, {{ steps.draft.output.bdy }}").has(
        "config/workflows/hello.yaml:15:38",
        "steps.draft.output.bdy",
        "`steps.draft.output` has no `bdy`",
        "did you mean `body`?",
    );
    body("{{ input.form }}").has(
        "config/workflows/hello.yaml:15:17",
        "input.form",
        "`input` has no `form`",
        "did you mean `from`?",
    );
    body("{{ input.from.lower }}").has(
        "config/workflows/hello.yaml:15:17",
        "input.from.lower",
        "`input.from` has no `lower`",
        "use it as it is, or with a filter",
    );
    body("{{ workspace.nme }}").has(
        "config/workflows/hello.yaml:15:17",
        "workspace.nme",
        "`workspace` has no `nme`",
        "did you mean `name`?",
    );
}

#[test]
fn a_name_from_nowhere_says_what_there_is() {
    body("{{ email.body }}").has(
        "config/workflows/hello.yaml:15:17",
        "email.body",
        "there is nothing called `email` here",
        "`input`, `workspace`, `run` and `steps`",
    );
}

#[test]
fn a_step_reads_only_what_is_over_before_it_begins() {
    body("{{ steps.send.output.message_id }}").has(
        "config/workflows/hello.yaml:15:17",
        "steps.send.output.message_id",
        "`send` cannot read its own output",
        "after it",
    );
    Workspace::sound().but(WORKFLOW_FILE, "{{ input.from_name }}", "{{ steps.send.output }}").has(
        "config/workflows/hello.yaml:8:23",
        "steps.send.output",
        "`send` comes later than `draft`",
        "move `send` before `draft`",
    );
    body("{{ steps.drat.output }}").has(
        "config/workflows/hello.yaml:15:17",
        "steps.drat.output",
        "there is no step `drat`",
        "did you mean `draft`?",
    );
}

#[test]
fn a_broken_template_is_marked_where_it_breaks() {
    body("Hello {{ input.from | }} there").has(
        "config/workflows/hello.yaml:15:36",
        "}}",
        "the template does not read: unexpected end of variable block, expected identifier",
        "{{ }}",
    );
    body("{% if input.from %}x").has(
        "config/workflows/hello.yaml:15:33",
        "x",
        "the template does not read: unexpected end of input, expected end of block",
        "{{ }}",
    );
}

#[test]
fn a_filter_or_test_that_does_not_exist_is_found_before_it_is_needed() {
    body("{{ input.from | uper }} '| nothing'").has(
        "config/workflows/hello.yaml:15:30",
        "uper",
        "there is no filter `uper`",
        "minijinja",
    );
    body("{{ 'x | y' if input.from is blue }}").has(
        "config/workflows/hello.yaml:15:42",
        "blue",
        "there is no test `blue`",
        "minijinja",
    );
}

#[test]
fn titles_keys_conditions_and_artifacts_are_checked_too() {
    Workspace::sound().but(WORKFLOW_FILE, "Hello {{ input.from }}", "Hello {{ steps.draft.output }}").has(
        "config/workflows/hello.yaml:2:18",
        "steps.draft.output",
        "there is nothing called `steps` here",
        "a title names `input` and `workspace`",
    );
    Workspace::sound().but(WORKFLOW_FILE, "{{ input.message_id }}", "{{ input.messageid }}").has(
        "config/workflows/hello.yaml:16:23",
        "input.messageid",
        "`input` has no `messageid`",
        "did you mean `message_id`?",
    );
    Workspace::sound().but(WORKFLOW_FILE, "draft.output.kind ==", "draft.output.knd ==").has(
        "config/workflows/hello.yaml:11:11",
        "steps.draft.output.knd",
        "`steps.draft.output` has no `knd`",
        "did you mean `kind`?",
    );
    Workspace::sound().but(WORKFLOW_FILE, "[input.body,", "[input.bdy,").has(
        "config/workflows/hello.yaml:17:27",
        "input.bdy",
        "`input` has no `bdy`",
        "did you mean `body`?",
    );
}

#[test]
fn a_prompt_names_the_workspace_alone() {
    Workspace::sound().but(AGENT_FILE, "workspace.owner", "input.body").has(
        "agents/writer.md:14:18",
        "input.body",
        "there is nothing called `input` here",
        "a prompt names `workspace` alone",
    );
}

#[test]
fn a_canned_output_sees_what_the_agent_is_given_and_no_class_without_classes() {
    Workspace::sound().but(AGENT_FILE, "with.name", "class.class").has(
        "agents/writer.md:11:29",
        "class.class",
        "there is nothing called `class` here",
        "`class`",
    );
}

#[test]
fn a_report_shows_each_file_line_and_mend() {
    let workspace = body("{{ steps.draft.output.bdy }}")
        .but(WORKFLOW_FILE, "title:", "titel:")
        .but("config/models.yaml", "[small,", "[smal,")
        .but(AGENT_FILE, "workspace.owner", "input.body")
        .but("config/settings.yaml", "mailboxes:", "mailboxes:\n  jobs: [jobs@studio.example]");
    insta::assert_snapshot!(workspace.load().unwrap_err().render(false));
    // A misspelt field does not hide what else is wrong in its file.
    let workspace = workspace.but(WORKFLOW_FILE, "input.message_id", "input.messageid");
    assert!(workspace.problems().iter().any(|problem| problem.message == "`input` has no `messageid`"));
    let colored = workspace.load().unwrap_err().render(true);
    assert!(colored.contains("\u{1b}["));
}
