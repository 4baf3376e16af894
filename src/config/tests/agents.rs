//! What an agent's file says of tools, turns, votes and the second pass.

use super::*;
use crate::domain::duration::Span;
use crate::domain::tool::Tool;
use crate::domain::workflow::Votes;

fn with(lines: &str) -> Workspace {
    Workspace::sound().but(AGENT_FILE, "tier: draft\n", &format!("tier: draft\n{lines}"))
}

#[test]
fn all_of_it_is_part_of_the_version_and_of_its_digest() {
    let plain = Workspace::sound().load().unwrap().0;
    let full = "tools: [memory.search, calc]\nmax_turns: 3\ntoken_limit: 9000\nfinalize: draft\nvotes: 3\nvotes_by: kind\ncache: 24h\n";
    let full = with(full).but(WORKFLOW_FILE, "steps:\n", "sample: 0.05\nsteps:\n").load().unwrap().0;
    let version = &full.workflows[&"hello".into()].version;
    let agent = &version.agents[&"writer".into()];
    assert_eq!(agent.tools, [Tool::MemorySearch, Tool::Calc]);
    assert_eq!(
        (agent.max_turns, agent.token_limit, agent.finalize.as_deref()),
        (3, Some(9000), Some("draft"))
    );
    assert_eq!(agent.votes, Some(Votes { of: 3, by: Some("kind".into()) }));
    assert_eq!(agent.cache, Some(Span::secs(86_400)));
    assert_eq!(version.sample, Some(0.05));
    assert_ne!(version.digest(), plain.workflows[&"hello".into()].version.digest());
    let told = serde_json::to_value(plain.workflows[&"hello".into()].version.clone()).unwrap().to_string();
    for silent in ["tools", "max_turns", "token_limit", "finalize", "votes", "sample", "cache"] {
        assert!(
            !told.contains(&format!("\"{silent}\"")),
            "what is not said leaves older digests as they are: {silent}"
        );
    }
}

#[test]
fn a_tool_that_there_is_not_is_named_with_the_nearest_or_with_why() {
    with("tools: [memory.serch]\n").has(
        "agents/writer.md:4:9",
        "memory.serch",
        "there is no tool `memory.serch`",
        "did you mean `memory.search`?",
    );
    with("tools: [records.put]\n").has(
        "agents/writer.md:4:9",
        "records.put",
        "there is no tool `records.put`",
        "agents only read",
    );
    with("tools: [calc, date, calc]\n").has(
        "agents/writer.md:4:21",
        "calc",
        "the tool `calc` stands here twice",
        "take one of them away",
    );
}

#[test]
fn what_could_have_no_effect_is_a_fault() {
    with("max_turns: 3\n").has(
        "agents/writer.md:4:1",
        "max_turns",
        "an agent without tools has one turn",
        "add `tools",
    );
    with("votes_by: kind\n").has(
        "agents/writer.md:4:1",
        "votes_by",
        "there are no `votes` to compare",
        "add `votes: 3`",
    );
    with("votes: 3\nvotes_by: kid\n").has(
        "agents/writer.md:5:11",
        "kid",
        "the output schema has no `kid`",
        "did you mean `kind`?",
    );
    with("finalize: finale\n").has(
        "agents/writer.md:4:11",
        "finale",
        "there is no tier `finale`",
        "the tiers of config/models.yaml",
    );
}

#[test]
fn numbers_out_of_range_are_told_with_the_range() {
    for (lines, word) in [
        ("votes: 1\n", "votes"),
        ("tools: [calc]\nmax_turns: 0\n", "max_turns"),
        ("token_limit: 5\n", "token_limit"),
    ] {
        let problems = with(lines).problems();
        assert!(problems.len() == 1 && problems[0].to_string().contains(word), "{problems:?}");
    }
    let problems = Workspace::sound().but(WORKFLOW_FILE, "steps:\n", "sample: 1.5\nsteps:\n").problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn an_answer_serves_for_a_month_at_most() {
    with("cache: 31d\n").has(
        "agents/writer.md:4:8",
        "31d",
        "`31d` is too long: models change, and so does what is right",
        "at most `30d`",
    );
    with("cache: 0s\n").has(
        "agents/writer.md:4:8",
        "0s",
        "an answer of no age serves nobody",
        "take `cache` away",
    );
    with("cache: a day\n").has(
        "agents/writer.md:4:8",
        "a day",
        "`a day` is not what `cache` takes",
        "write a duration",
    );
}

#[test]
fn a_step_that_may_wait_says_so_in_its_version_and_others_leave_older_digests_alone() {
    use crate::domain::workflow::{Mode, StepKind};
    let mode = |workspace: &Workspace| {
        let definitions = workspace.load().unwrap().0;
        let version = definitions.workflows[&"hello".into()].version.clone();
        let StepKind::Agent(step) = &version.steps[0].kind else { panic!("{version:?}") };
        (step.mode, serde_json::to_string(&version).unwrap().contains("\"mode\""))
    };
    let patient =
        Workspace::sound().but(WORKFLOW_FILE, "agent: writer\n", "agent: writer\n    mode: batch\n");
    assert_eq!(mode(&patient), (Mode::Batch, true));
    assert_eq!(mode(&Workspace::sound()), (Mode::Now, false));
}

#[test]
fn what_cannot_wait_is_told() {
    let patient = |workspace: Workspace| {
        workspace.but(WORKFLOW_FILE, "agent: writer\n", "agent: writer\n    mode: batch\n")
    };
    patient(with("tools: [calc]\n")).has(
        "config/workflows/hello.yaml:8:11",
        "batch",
        "the agent `writer` has `tools`: it is asked more than once, and cannot wait",
        "take `mode: batch` away",
    );
    patient(with("votes: 3\n")).has(
        "config/workflows/hello.yaml:8:11",
        "batch",
        "the agent `writer` has `votes`: it is asked more than once, and cannot wait",
        "use an agent without",
    );
    Workspace::sound()
        .but(WORKFLOW_FILE, "agent: writer\n", "agent: writer\n    mode: batch\n    deadline: 2h\n")
        .has(
            "config/workflows/hello.yaml:9:15",
            "2h",
            "its time is up after 2h, and a batch may take 26h",
            "deadline: 2d",
        );
    Workspace::sound()
        .but(WORKFLOW_FILE, "action: email.send\n", "action: email.send\n    mode: batch\n")
        .has(
            "config/workflows/hello.yaml:11:5",
            "mode",
            "a step without an agent has no `mode`",
            "take it away",
        );
}
