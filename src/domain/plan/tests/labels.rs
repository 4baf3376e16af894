//! Labels only rise. Whatever comes from outside carries a mark here; through any way of writing a template,
//! through agents, reads, records and lists, whatever holds the mark is labelled untrusted. The only way up is
//! what the owner's file trusts.

use proptest::prelude::*;

use super::*;
use crate::domain::workflow::Trust;

/// Whoever wrote this is not the owner.
const MARK: &str = "MARK";

/// Ways of bringing a value into a text; `@` is its path.
const WAYS: [&str; 14] = [
    "{{ @ }}",
    "so: {{ @ }}!",
    "{{- @ -}}",
    "{{ (@ | string)[:200] }}",
    "{{ @ | string | upper }}",
    "{% set z = @ %}{{ z }}",
    "{% set input = @ %}{{ input }}",
    "{% with q = @ %}{{ q }}{% endwith %}",
    "{% for c in [@] %}{{ c }}{% endfor %}",
    "{{ [@, 'k'] | join('-') }}",
    "{{ {'k': @}.k }}",
    "{{ @ if workspace.name else 'none' }}",
    "{% filter replace('x', @ | string) %}x{% endfilter %}",
    "{{ workspace.name }}{% if true %}{{ @ }}{% endif %}",
];

/// What a step does, the way it brings its value in, and where that comes from.
type Choice = (u8, usize, usize);

fn path(of: usize, before: usize) -> String {
    match of % (before + 3) {
        0 => "input.body".to_owned(),
        1 => "input.customer.id".to_owned(),
        2 => "workspace.name".to_owned(),
        step => format!("steps.s{}.output", step - 3),
    }
}

fn template(way: usize, path: &str) -> Value {
    json!(WAYS[way % WAYS.len()].replace('@', path))
}

/// Steps after one another, and a mail of the last values.
fn story(choices: &[Choice], trusts: bool) -> Story {
    let mut steps = Vec::new();
    for (nth, (kind, way, of)) in choices.iter().enumerate() {
        let value = template(*way, &path(*of, nth));
        let kind = match kind % 5 {
            0 => action("noop", json!({"value": value})),
            1 => StepKind::Agent(AgentStep {
                agent: "writer".into(),
                mode: Default::default(),
                with: json!({"text": value}),
            }),
            2 => action("records.get", json!({"kind": "k", "key": value})),
            3 => action("records.put", json!({"kind": "k", "key": "fixed", "data": value})),
            _ => action("records.get", json!({"kind": "k", "key": "fixed"})),
        };
        let needs: Vec<String> = (0..nth).map(|before| format!("s{before}")).collect();
        let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
        steps.push(step(&format!("s{nth}"), &needs, kind));
    }
    let last = choices.len();
    let sources: Vec<String> = (0..last).map(|nth| format!("s{nth}")).collect();
    let needs: Vec<&str> = sources.iter().map(String::as_str).collect();
    let with = json!({
        "to": template(choices[0].1, &path(last + 2, last)),
        "subject": template(choices[last - 1].1, &path(choices[0].2, last)),
        "body": sources.iter().map(|id| format!("{{{{ steps.{id}.output }}}}")).collect::<String>(),
    });
    steps.push(step("mail", &needs, action("email.send", with)));
    let mut story = Story::new(steps);
    story.stage = Stage::Live;
    if let Event::RunOpened(opened) = &mut story.journal[0].event {
        opened.input = json!({"body": format!("{MARK} body"), "customer": {"id": "C-7"}});
        story.run = Run::open(story.run.id, opened.clone(), story.now);
    }
    if trusts {
        story.version.trust = Trust { paths: vec!["input.customer.id".into()], ..Trust::default() };
    }
    story
}

/// Plays the run to its end, as the actors would: agents repeat what they are given, records keep labels.
fn play(story: &mut Story) {
    let mut kept: BTreeMap<String, (Value, Label)> = BTreeMap::new();
    let mut ahead = story.tick().tasks;
    while let Some(task) = ahead.pop() {
        let learnt = match task {
            Task::Instant(step) => Stimulus::Instant(step),
            Task::Agent { step, with, label, .. } => {
                let output =
                    Answer::Output { output: with, label: label.join(Label::Model), confidence: None };
                Stimulus::Answered(step, None, output)
            }
            Task::Read { step, action, label } => {
                let key = action.text("key").unwrap_or_default().to_owned();
                let nothing = (json!({"found": false, "key": key}), Label::Owner);
                let (value, found) = kept.get(&key).cloned().unwrap_or(nothing);
                Stimulus::Read(step, Ok((value, found.join(label))))
            }
            Task::Perform(proposal) if proposal.action.action == "records.put" => {
                let label = Label::join_all(proposal.labels.values().copied());
                let data = json!({"found": true, "data": proposal.action.params["data"]});
                kept.insert("fixed".into(), (data, label));
                let response = json!({"kind": "k", "key": "fixed", "version": 1});
                Stimulus::Effect(proposal.step.clone(), EffectResult::Succeeded(response))
            }
            _ => continue,
        };
        ahead.extend(story.learn(&[learnt]).tasks);
    }
}

fn holds_mark(value: &Value) -> bool {
    value.to_string().to_uppercase().contains(MARK)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn no_template_agent_record_or_read_lowers_a_label(
        choices in proptest::collection::vec((any::<u8>(), any::<usize>(), any::<usize>()), 1..6),
        trusts in any::<bool>(),
    ) {
        let mut story = story(&choices, trusts);
        play(&mut story);
        let mut proposed = 0;
        for entry in &story.journal {
            match &entry.event {
                Event::StepSucceeded { output, label, .. } if holds_mark(output) => {
                    prop_assert_eq!(*label, Label::Untrusted, "{}", output);
                }
                Event::EffectProposed(proposal) => {
                    proposed += 1;
                    for (name, value) in proposal.action.params.as_object().unwrap() {
                        let label = proposal.labels.get(name).copied().unwrap_or_default();
                        prop_assert!(!holds_mark(value) || label == Label::Untrusted, "{} is {}: {}", name, label, value);
                        // Without trust, nothing that came in counts for more.
                        let came_in = value.to_string().to_uppercase().contains("C-7");
                        prop_assert!(trusts || !came_in || label == Label::Untrusted, "{} is {}", name, label);
                    }
                    let trusted = &proposal.decision.facts.as_ref().unwrap().trusted;
                    prop_assert!(trusts || trusted.is_empty());
                }
                _ => {}
            }
        }
        prop_assert!(proposed > 0, "the mail is proposed");
        prop_assert!(story.folds());
    }
}

#[test]
fn a_trusted_path_counts_as_the_owners_word_and_the_ruling_says_so() {
    let with = json!({"to": "{{ input.customer.id }}@client.example", "subject": "s", "body": "b"});
    let told = |trust: &[&str]| {
        let mut story = Story::new(vec![step("mail", &[], action("email.send", with.clone()))]);
        story.stage = Stage::Live;
        if let Event::RunOpened(opened) = &mut story.journal[0].event {
            opened.input = json!({"customer": {"id": "ann"}, "other": "x"});
            story.run = Run::open(story.run.id, opened.clone(), story.now);
        }
        story.version.trust.paths = trust.iter().map(|path| (*path).to_owned()).collect();
        story.tick();
        let proposal = story.journal.iter().find_map(|entry| match &entry.event {
            Event::EffectProposed(proposal) => Some(proposal.clone()),
            _ => None,
        });
        proposal.unwrap()
    };
    for trust in [&["input.customer.id"][..], &["input.customer"][..]] {
        let proposal = told(trust);
        assert_eq!(proposal.labels["to"], Label::Owner);
        let reason = "`input.customer.id` counts as your word: the workflow trusts it";
        assert!(
            proposal.decision.reasons.iter().any(|said| said == reason),
            "{:?}",
            proposal.decision.reasons
        );
    }
    for trust in [&[][..], &["input.cust"][..], &["input.other"][..], &["input.customer.id.x"][..]] {
        assert_eq!(told(trust).labels["to"], Label::Untrusted, "{trust:?}");
    }
}
