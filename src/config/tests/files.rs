//! Files that are missing, broken or of the wrong shape; settings, models, connectors, policy.

use super::*;

#[test]
fn an_empty_folder_is_one_problem_that_says_what_to_do() {
    let problems = Workspace(Vec::new()).problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("is not a workspace"));
    assert!(problems[0].mend.contains("copy the template's agents/ and config/ folders"));
    assert!(problems[0].mend.contains("steward demo"));
}

#[test]
fn a_missing_file_is_named_with_where_to_get_it() {
    Workspace::sound().without("config/models.yaml").has(
        "config/models.yaml:1:1",
        "",
        "this file is missing",
        "copy it from the template",
    );
}

#[test]
fn policy_and_connectors_may_be_left_out() {
    let workspace = Workspace::sound().without("config/policy.yaml").without("config/connectors.yaml");
    assert_eq!(workspace.problems(), []);
}

#[test]
fn a_file_that_nothing_reads_is_pointed_out() {
    Workspace::sound().and("config/setings.yaml", "").has(
        "config/setings.yaml:1:1",
        "",
        "nothing reads this file",
        "did you mean `settings.yaml`?",
    );
}

#[test]
fn broken_yaml_is_marked_where_it_breaks() {
    Workspace::sound().but("config/policy.yaml", "rule: unsure", "rule: unsure: x").has(
        "config/policy.yaml:3:17",
        ":",
        "this is not YAML: mapping values are not allowed in this context",
        "indentation",
    );
}

#[test]
fn a_key_written_twice_is_refused() {
    Workspace::sound().but(WORKFLOW_FILE, "title:", "workflow: other\ntitle:").has(
        "config/workflows/hello.yaml:2:1",
        "workflow",
        "`workflow` stands here twice",
        "once",
    );
}

#[test]
fn an_unknown_field_is_marked_with_the_nearest_known_one() {
    Workspace::sound().but(WORKFLOW_FILE, "    agent: writer", "    agnet: writer").has(
        "config/workflows/hello.yaml:7:5",
        "agnet",
        "`agnet` is not a field of entry 1 of `steps`",
        "did you mean `agent`?",
    );
}

#[test]
fn a_retention_is_a_time_that_outlasts_repetitions_or_for_good() {
    for keep in ["7d", "400d", "forever"] {
        let workspace = Workspace::sound().but(WORKFLOW_FILE, "on:", &format!("retention: {keep}\non:"));
        assert_eq!(workspace.problems(), [], "{keep}");
    }
    Workspace::sound().but(WORKFLOW_FILE, "on:", "retention: 3d\non:").has(
        "config/workflows/hello.yaml:3:12",
        "3d",
        "`3d` is too short: a run's keys go with it, and senders may repeat for days",
        "write at least `7d`",
    );
    Workspace::sound().but("config/settings.yaml", "mailboxes:", "retention: 1h\nmailboxes:").has(
        "config/settings.yaml:6:12",
        "1h",
        "`1h` is too short: a run's keys go with it, and senders may repeat for days",
        "write at least `7d`",
    );
    Workspace::sound().but(WORKFLOW_FILE, "on:", "retention: a while\non:").has(
        "config/workflows/hello.yaml:3:12",
        "a while",
        "`a while` is not what `retention` takes",
        "or `forever`",
    );
}

#[test]
fn what_a_later_version_will_know_is_not_accepted_now() {
    let workspace = Workspace::sound().but(WORKFLOW_FILE, "on:", "cache: 1h\non:");
    assert!(workspace.problems()[0].message.contains("is not a field of a workflow"));
    for field in ["loop: [a]", "tools: {}", "votes: 3"] {
        let workspace =
            Workspace::sound().but(WORKFLOW_FILE, "    agent:", &format!("    {field}\n    agent:"));
        assert!(workspace.problems()[0].message.contains("is not a field of entry 1 of `steps`"), "{field}");
    }
}

#[test]
fn a_missing_field_and_a_wrong_type_are_both_reported() {
    let workspace = Workspace::sound().but("config/settings.yaml", "  owner: Ada\n", "").but(
        "config/settings.yaml",
        "name: Studio",
        "name: [Studio]",
    );
    let problems = workspace.problems();
    let messages: Vec<_> = problems.iter().map(|p| (p.line, p.column, p.message.as_str())).collect();
    assert_eq!(
        messages,
        [(1, 1, "`workspace` lacks `owner`"), (2, 3, "`name` is a list, not a text")],
        "{problems:?}"
    );
}

#[test]
fn a_value_of_its_own_form_says_how_it_is_written() {
    Workspace::sound().but(WORKFLOW_FILE, "due: 3d", "due: 3 days").has(
        "config/workflows/hello.yaml:17:65",
        "3 days",
        "`3 days` is not what `due` takes",
        "`500ms`, `30s`",
    );
    Workspace::sound().but("config/models.yaml", "0.10 USD", "0.10").has(
        "config/models.yaml:4:54",
        "0.10",
        "`input` is a number, not a text",
        "a text",
    );
    Workspace::sound().but("config/models.yaml", "http://localhost:11434/v1", "localhost").has(
        "config/models.yaml:2:21",
        "localhost",
        "`localhost` is not what `base_url` takes",
        "https://",
    );
}

#[test]
fn a_secret_written_into_a_file_is_refused_without_showing_it() {
    let workspace = Workspace::sound().but(
        "config/models.yaml",
        "base_url: http://localhost:11434/v1",
        "base_url: http://localhost:11434/v1, key: sk-123",
    );
    workspace.has(
        "config/models.yaml:2:53",
        "sk-123",
        "`key` holds something else than a name",
        "never the secret itself",
    );
    assert!(!workspace.load().unwrap_err().render(false).contains("sk-123"));
}

#[test]
fn a_secret_that_is_not_set_is_a_warning() {
    let workspace = Workspace::sound().but(
        "config/models.yaml",
        "base_url: http://localhost:11434/v1",
        "base_url: http://localhost:11434/v1, key: env:STEWARD_TEST_UNSET",
    );
    let (_, warnings) = workspace.load().unwrap();
    assert_eq!(warnings[0].message, "the environment has no `STEWARD_TEST_UNSET`");
    assert_eq!((warnings[0].line, warnings[0].column), (2, 53));
}

#[test]
fn a_time_zone_must_exist() {
    Workspace::sound().but("config/settings.yaml", "Europe/Oslo", "Europe/Olso").has(
        "config/settings.yaml:5:14",
        "Europe/Olso",
        "there is no time zone `Europe/Olso`",
        "IANA",
    );
}

#[test]
fn an_address_must_be_one() {
    Workspace::sound().but("config/settings.yaml", "ada@studio.example", "ada").has(
        "config/settings.yaml:4:10",
        "ada",
        "`ada` is not an email address",
        "name@domain",
    );
    Workspace::sound().but("config/connectors.yaml", "<ada@studio.example>", "<ada>").has(
        "config/connectors.yaml:2:9",
        "Ada <ada>",
        "`Ada <ada>` is not a sender",
        "name@domain",
    );
}

#[test]
fn an_address_belongs_to_one_mailbox() {
    Workspace::sound()
        .but("config/settings.yaml", "[hello@studio.example]", "[hello@studio.example, Hello@studio.example]")
        .has(
            "config/settings.yaml:7:33",
            "Hello@studio.example",
            "`Hello@studio.example` belongs to the mailbox `leads` already",
            "one mailbox",
        );
}

#[test]
fn a_mailbox_without_a_workflow_is_a_warning_and_an_unknown_default_an_error() {
    let workspace = Workspace::sound().but(
        "config/settings.yaml",
        "mailboxes:",
        "default_mailbox: lead\nmailboxes:\n  jobs: [jobs@studio.example]",
    );
    workspace.has("config/settings.yaml:6:18", "lead", "there is no mailbox `lead`", "did you mean `leads`?");
    let (_, warnings) = workspace.but("config/settings.yaml", ": lead\n", ": leads\n").load().unwrap();
    assert_eq!(warnings[0].message, "no workflow listens to the mailbox `jobs`");
    assert_eq!((warnings[0].line, warnings[0].column), (8, 3));
}

#[test]
fn a_tier_needs_models_that_exist_and_ends_with_the_owner() {
    Workspace::sound().but("config/models.yaml", "[small, canned, owner]", "[]").has(
        "config/models.yaml:6:3",
        "draft",
        "the tier `draft` has no models",
        "`owner`",
    );
    Workspace::sound().but("config/models.yaml", "[small,", "[smal,").has(
        "config/models.yaml:6:11",
        "smal",
        "there is no model `smal`",
        "did you mean `small`?",
    );
    Workspace::sound().but("config/models.yaml", "canned, owner", "owner, canned").has(
        "config/models.yaml:6:25",
        "canned",
        "`canned` is never asked: the owner always answers",
        "at the end",
    );
}

#[test]
fn a_model_needs_a_provider_and_a_price_in_the_workspaces_currency() {
    Workspace::sound().but("config/models.yaml", "provider: home", "provider: hom").has(
        "config/models.yaml:4:22",
        "hom",
        "there is no provider `hom`",
        "did you mean `home`?",
    );
    Workspace::sound().but("config/models.yaml", "0.20 USD", "0.20 EUR").has(
        "config/models.yaml:4:72",
        "0.20 EUR",
        "this price is in EUR, the workspace counts in USD",
        "USD",
    );
}

#[test]
fn an_allowed_host_is_a_name_not_an_address_of_a_page() {
    Workspace::sound()
        .but("config/connectors.yaml", "api.studio.example", "https://api.studio.example/v1")
        .has(
            "config/connectors.yaml:4:11",
            "https://api.studio.example/v1",
            "`https://api.studio.example/v1` is not a host",
            "name alone",
        );
}
