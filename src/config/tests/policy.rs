//! `config/policy.yaml` and `trust:` of workflows.

use super::*;
use crate::domain::risk::Risk;

fn with(rule: &str) -> Workspace {
    Workspace::sound().but("config/policy.yaml", "confidence < 0.5", rule)
}

#[test]
fn a_rule_must_be_about_an_action_that_exists() {
    Workspace::sound().but("config/policy.yaml", "email.send", "mail.*").has(
        "config/policy.yaml:4:13",
        "mail.*",
        "no action is called `mail.*`",
        "`email.send`",
    );
}

#[test]
fn a_rules_condition_names_what_a_rule_may_know() {
    with("confidnce < 0.5").has(
        "config/policy.yaml:5:11",
        "confidnce",
        "there is nothing called `confidnce` here",
        "did you mean `confidence`?",
    );
    with("quiet and sent_dai > 5").has(
        "config/policy.yaml:5:21",
        "sent_dai",
        "there is nothing called `sent_dai` here",
        "did you mean `sent_day`?",
    );
    with("params.url != 1").has(
        "config/policy.yaml:5:11",
        "params.url",
        "`params` has no `url`",
        "`subject`",
    );
    with("confidence <").has(
        "config/policy.yaml:5:22",
        "<",
        "the template does not read: unexpected end of input, expected expression",
        "mend",
    );
    with("stage == 'supervise'").has(
        "config/policy.yaml:5:21",
        "supervise",
        "`stage` is never `supervise`",
        "did you mean `supervised`?",
    );
    with("{{ confidence }}").has(
        "config/policy.yaml:5:12",
        "{",
        "this is not YAML: expected string scalar",
        "a text that begins with `{{` needs them",
    );
}

#[test]
fn every_name_a_rule_may_use_is_told_in_the_schema_for_editors() {
    let schema =
        serde_json::to_value(crate::config::structure::schema_of::<crate::config::policy::Policy>()).unwrap();
    let told = schema.to_string();
    for name in crate::domain::policy::names::RULE_NAMES {
        assert!(told.contains(&format!("`{}`", name.name)), "{}", name.name);
    }
}

#[test]
fn what_is_known_is_an_address_a_domain_a_host_or_a_url() {
    let known = |entry: &str| Workspace::sound().but("config/policy.yaml", "ada@studio.example", entry);
    for entry in ["Ada@studio.example", "\"@studio.example\"", "api.studio.example", "https://a.example/b"] {
        assert_eq!(known(entry).problems(), [], "{entry}");
    }
    known("Ada Lovelace").has(
        "config/policy.yaml:1:9",
        "Ada Lovelace",
        "`Ada Lovelace` is no address, domain, host or URL",
        "write `ann@client.example`",
    );
}

#[test]
fn a_tag_has_a_word_or_a_condition_that_does_not_rest_on_tags() {
    let tag = |tag: &str| {
        Workspace::sound().but("config/policy.yaml", "rules:", &format!("tags:\n  - {tag}\nrules:"))
    };
    assert_eq!(tag("{ tag: vip, words: [duke], risk: low }").problems(), []);
    tag("{ tag: vip }").has(
        "config/policy.yaml:3:12",
        "vip",
        "nothing ever gives the tag `vip`",
        "give it `words:` or `when:`",
    );
    tag("{ tag: vip, when: risk == 'high' }").has(
        "config/policy.yaml:3:23",
        "risk",
        "there is nothing called `risk` here",
        "`amount`",
    );
    let (definitions, _) = tag("{ tag: legal, words: [law] }").load().unwrap();
    assert_eq!(definitions.policy.tags[0].risk, Risk::High, "code knows this one");
}

#[test]
fn only_a_denial_says_what_it_needs() {
    let needs = |then: &str| {
        let to = format!("then: {then}\n    needs: wait");
        Workspace::sound().but("config/policy.yaml", "then: review", &to)
    };
    assert_eq!(needs("deny").problems(), []);
    needs("review").has(
        "config/policy.yaml:7:12",
        "wait",
        "`needs` explains a denial, and this rule denies nothing",
        "then: deny",
    );
}

#[test]
fn a_workflow_trusts_single_values_that_exist() {
    let trust =
        |trust: &str| Workspace::sound().but(WORKFLOW_FILE, "steps:", &format!("trust: {trust}\nsteps:"));
    for sound in [
        "{ answers_to_sender: true, public: [public/] }",
        "{ paths: [input.thread, steps.draft.output.body] }",
    ] {
        assert_eq!(trust(sound).problems(), [], "{sound}");
    }
    trust("{ paths: [input.thred] }").has(
        "config/workflows/hello.yaml:5:18",
        "input.thred",
        "`input` has no `thred`",
        "did you mean `thread`?",
    );
    trust("{ paths: [input] }").has(
        "config/workflows/hello.yaml:5:18",
        "input",
        "`input` names no single value",
        "input.customer",
    );
    trust("{ paths: [steps.drft.output.body] }").has(
        "config/workflows/hello.yaml:5:18",
        "steps.drft.output.body",
        "there is no step `drft`",
        "did you mean `draft`?",
    );
    trust("{ public: [public/] }").has(
        "config/workflows/hello.yaml:5:10",
        "public",
        "`public` says what an answer to the sender may carry",
        "answers_to_sender: true",
    );
}
