//! Workspaces as owners break them: each kind of problem, its place and its mend.

mod agents;
mod definitions;
mod files;
mod fuzz;
mod models;
mod money;
mod policy;
mod shipped;
mod templates;
mod triggers;

use std::fs;

use crate::config::problem::{Problem, Problems};
use crate::config::workspace::Definitions;

const SETTINGS: &str = "\
workspace:
  name: Studio
  owner: Ada
  email: ada@studio.example
  time_zone: Europe/Oslo
mailboxes:
  leads: [hello@studio.example]
";

const MODELS: &str = "\
providers:
  home: { base_url: http://localhost:11434/v1 }
models:
  small: { provider: home, id: qwen, price: { input: 0.10 USD, output: 0.20 USD } }
tiers:
  draft: [small, canned, owner]
";

const CONNECTORS: &str = "\
email:
  from: Ada <ada@studio.example>
http:
  allow: [api.studio.example]
";

const POLICY: &str = "\
known: [ada@studio.example]
rules:
  - rule: unsure
    action: email.send
    when: confidence < 0.5
    then: review
    because: not sure
";

const AGENT: &str = "\
---
agent: writer
tier: draft
output:
  type: object
  required: [body]
  properties:
    body: { type: string }
    kind: { type: string, enum: [warm, cold] }
canned:
  output: { body: \"Hello {{ with.name }}\", kind: warm }
  confidence: 0.5
---
You write for {{ workspace.owner }}.
";

const WORKFLOW: &str = "\
workflow: hello
title: \"Hello {{ input.from }}\"
on:
  - email: { mailbox: leads }
steps:
  - id: draft
    agent: writer
    with: { name: \"{{ input.from_name }}\" }
  - id: send
    action: email.send
    when: steps.draft.output.kind == \"warm\"
    with:
      to: \"{{ input.from }}\"
      subject: Hello
      body: \"{{ steps.draft.output.body }}\"
    dedupe: \"hello-{{ input.message_id }}\"
    review: { artifacts: [input.body, steps.draft.output], due: 3d }
";

const WORKFLOW_FILE: &str = "config/workflows/hello.yaml";
const AGENT_FILE: &str = "agents/writer.md";

/// A sound workspace, in memory.
struct Workspace(Vec<(String, String)>);

impl Workspace {
    fn sound() -> Self {
        let files = [
            ("config/settings.yaml", SETTINGS),
            ("config/models.yaml", MODELS),
            ("config/connectors.yaml", CONNECTORS),
            ("config/policy.yaml", POLICY),
            (AGENT_FILE, AGENT),
            (WORKFLOW_FILE, WORKFLOW),
        ];
        Self(files.map(|(file, text)| (file.to_owned(), text.to_owned())).to_vec())
    }

    /// With one place of one file written differently.
    fn but(mut self, file: &str, from: &str, to: &str) -> Self {
        let (_, text) = self.0.iter_mut().find(|(name, _)| name == file).unwrap();
        assert!(text.contains(from), "{from:?} is not in {file}");
        *text = text.replacen(from, to, 1);
        self
    }

    fn and(mut self, file: &str, text: &str) -> Self {
        self.0.push((file.to_owned(), text.to_owned()));
        self
    }

    fn without(mut self, file: &str) -> Self {
        self.0.retain(|(name, _)| name != file);
        self
    }

    fn load(&self) -> Result<(Definitions, Vec<Problem>), Problems> {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in &self.0 {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Definitions::load(dir.path())
    }

    fn problems(&self) -> Vec<Problem> {
        match self.load() {
            Ok((_, warnings)) => warnings,
            Err(problems) => problems.0,
        }
    }

    /// The workspace has this one problem and no other.
    #[track_caller]
    fn has(&self, place: &str, marked: &str, message: &str, mend: &str) {
        let problems = self.problems();
        let [problem] = problems.as_slice() else { panic!("not one problem: {problems:#?}") };
        assert_eq!(problem.message, message, "{problem}");
        assert!(problem.mend.contains(mend), "{problem}");
        assert_eq!(format!("{}:{}:{}", problem.file, problem.line, problem.column), place, "{problem}");
        let text = self.0.iter().find(|(file, _)| *file == problem.file).map_or("", |(_, text)| text);
        assert_eq!(&text[problem.span.clone()], marked, "{problem}");
    }
}

#[test]
fn a_sound_workspace_has_no_problem() {
    assert_eq!(Workspace::sound().problems(), []);
}
