//! The workspace that is tortured: every kind of step, of effect and of question there is. A workflow
//! more is one more entry of [`WORKFLOWS`]; whatever it calls or mails carries its key with it.

use std::path::Path;

use anyhow::Result;
use steward::config::template;

use crate::peers::Peers;

/// The variable whose value must turn up nowhere.
pub const CANARY_VARIABLE: &str = "TORTURE_HOOK_SECRET";

/// One workflow: its name, how often it is asked for, whether policy alone decides, and its steps.
pub struct Workflow {
    pub name: &'static str,
    pub weight: u32,
    pub live: bool,
    /// What stands beside its steps.
    more: &'static str,
    steps: &'static str,
}

const CALL: &str = r#"method: POST, url: "http://{web}/call""#;

pub const WORKFLOWS: &[Workflow] = &[
    // What Steward does by itself, step by step.
    Workflow {
        name: "chain",
        weight: 2,
        live: true,
        more: "priority: high",
        steps: r#"
  - { id: a, action: noop, with: { value: "{{ input.n }}" } }
  - { id: b, action: noop, with: { value: "{{ steps.a.output }}" } }
  - { id: c, action: noop, with: { value: "{{ steps.b.output }}" } }
  - { id: kept, action: records.put, with: { kind: chain, key: "{{ input.n }}", data: { n: "{{ steps.c.output }}" } } }
  - { id: read, action: records.get, with: { kind: chain, key: "{{ input.n }}" } }
  - { id: d, action: noop, with: { value: "{{ steps.read.output.found }}" } }
"#,
    },
    // A receiver that knows our key, one that does not, and a mail; nobody is asked but in doubt.
    Workflow {
        name: "direct",
        weight: 3,
        live: true,
        more: "concurrency: { key: \"{{ input.n | last }}\", limit: 1 }",
        steps: r#"
  - id: pay
    action: http.request
    with: { {call}, idempotency_header: Idempotency-Key, body: { key: "pay-{{ input.n }}" } }
    dedupe: "pay-{{ input.n }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
    timeout: 5s
  - id: tell
    action: http.request
    with: { {call}, body: { key: "tell-{{ input.n }}" } }
    dedupe: "tell-{{ input.n }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
    timeout: 5s
  - id: mail
    action: email.send
    with: { to: someone@else.example, subject: "mail-{{ input.n }}", body: "Order {{ input.n }}." }
    dedupe: "mail-{{ input.n }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
"#,
    },
    // The owner sees every effect, and is asked a question of the workflow's own.
    Workflow {
        name: "asked",
        weight: 3,
        live: false,
        more: "",
        steps: r#"
  - id: sort
    agent: router
    with: { subject: "Order {{ input.n }}", body: "A new website please" }
  - id: which
    review:
      ask: "How is {{ input.n }} to be done?"
      form: { type: string, enum: [fast, well] }
  - id: write
    action: http.request
    with: { {call}, body: { key: "ask-{{ input.n }}", how: "{{ steps.which.output.answer }}" } }
    dedupe: "ask-{{ input.n }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
    timeout: 5s
    when: steps.which.output.decision == "answered"
  - id: confirm
    action: email.send
    with: { to: someone@else.example, subject: "confirm-{{ input.n }}", body: "Done." }
    dedupe: "confirm-{{ input.n }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
"#,
    },
    // Branches side by side, a list, an event, a moment, and a run of another workflow.
    Workflow {
        name: "wide",
        weight: 2,
        live: true,
        more: "",
        steps: r#"
  - { id: one, needs: [], action: records.put, with: { kind: wide, key: "{{ input.n }}", data: { n: 1 } } }
  - id: two
    needs: []
    each: { of: "{{ [1, 2, 3, 4] }}", parallel: 2 }
    action: http.request
    with: { {call}, idempotency_header: Idempotency-Key, body: { key: "each-{{ input.n }}-{{ item }}" } }
    dedupe: "each-{{ input.n }}-{{ item }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
    timeout: 5s
  - { id: heard, needs: [], wait: { event: go, match: "{{ input.n }}", timeout: 1h } }
  - { id: nap, needs: [], wait: { for: 1500ms } }
  - { id: child, needs: [one, two, heard, nap], workflow: chain, with: { n: "{{ input.n }}-child" } }
"#,
    },
    // It cannot succeed: what it did is undone, the last thing first.
    Workflow {
        name: "undone",
        weight: 1,
        live: true,
        more: "",
        steps: r#"
  - id: kept
    action: records.put
    with: { kind: undone, key: "{{ input.n }}", data: { n: "{{ input.n }}" } }
    undo: { action: records.revert }
  - id: paid
    action: http.request
    with: { {call}, idempotency_header: Idempotency-Key, body: { key: "paid-{{ input.n }}" } }
    dedupe: "paid-{{ input.n }}"
    retry: { attempts: 10, base: 50ms, max: 500ms }
    timeout: 5s
    undo:
      action: http.request
      with: { {call}, idempotency_header: Idempotency-Key, body: { key: "{{ run.id }}/paid/undo" } }
  - id: refused
    action: http.request
    with: { method: POST, url: "http://{web}/nowhere", body: { key: "nowhere-{{ input.n }}" } }
    dedupe: "nowhere-{{ input.n }}"
    timeout: 5s
"#,
    },
];

/// Writes the workspace of one node.
pub fn write(folder: &Path, peers: &Peers) -> Result<()> {
    template::write(folder)?;
    for entry in std::fs::read_dir(folder.join("config/workflows"))? {
        std::fs::remove_file(entry?.path())?;
    }
    let call = CALL.replace("{web}", &peers.web.to_string());
    for workflow in WORKFLOWS {
        let text = format!(
            "workflow: {name}\ntitle: \"{name} {{{{ input.n }}}}\"\n\
             on:\n  - webhook: {{ path: {name}, secret: env:{CANARY_VARIABLE} }}\n\
             input: {{ type: object, required: [n], properties: {{ n: {{ type: string }} }} }}\n\
             {more}\nsteps:{steps}",
            name = workflow.name,
            more = workflow.more,
            steps = workflow.steps.replace("{call}", &call).replace("{web}", &peers.web.to_string()),
        );
        std::fs::write(folder.join(format!("config/workflows/{}.yaml", workflow.name)), text)?;
    }
    let connectors = format!(
        "email:\n  from: Steward <steward@harbour.example>\n  \
         smtp: {{ host: \"{}\", port: {}, security: none, timeout: 3s }}\n\
         http:\n  allow: [\"{}\"]\n  allow_networks: [\"127.0.0.0/8\"]\n  timeout: 2s\n",
        peers.mail.ip(),
        peers.mail.port(),
        peers.web,
    );
    std::fs::write(folder.join("config/connectors.yaml"), connectors)?;
    std::fs::write(folder.join("config/policy.yaml"), "known: []\nrules: []\n")?;
    Ok(())
}
