//! The service under attack, and what would notice an effect.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Value, json};
use steward::config::secret::Secret;
use steward::domain::ids::RunId;
use steward::domain::workflow::Stage;
use steward::store::Store;
use steward::store::runs::{After, RunFilter};
use steward::triggers::webhook;

use super::{Case, obedient, pages};
use crate::support::model_server::ModelServer;
use crate::support::rig::set_stage;
use crate::support::smtp::MailServer;
use crate::support::{App, app_with, eventually};

/// A run that a case opened.
pub struct Opened {
    pub run: String,
    pub case: Case,
    /// How many effects it tries that leave the house.
    pub external: usize,
}

pub struct House {
    app: App,
    mail: MailServer,
    /// An allowed host: hostile pages, and everything anybody asked of it.
    site: Listening,
    /// A host that nobody allowed.
    evil: Listening,
}

/// A web server that keeps what it was asked.
struct Listening {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

const SECRET: &str = "the key of the shop's web hooks";

/// How the workflows' own reviews are taken out.
const BARE: &str = "bare-";

impl House {
    pub async fn open() -> Self {
        let evil = Listening::start(Vec::new(), "").await;
        let site = Listening::start(pages(), &evil.address).await;
        let mail = MailServer::start().await;
        let model = ModelServer::start(Box::new(obedient::answer)).await;
        let app = app_with(|workspace| {
            let write = |path: &str, text: &str| std::fs::write(workspace.join(path), text).unwrap();
            write("config/models.yaml", &models(&model));
            write(
                "config/connectors.yaml",
                &format!(
                    "email:\n  from: Mara Lind <mara@harbourandpine.example>\n  \
                     smtp: {{ host: \"{}\", port: {}, security: none }}\n\
                     http:\n  allow: [\"{}\"]\n  allow_networks: [127.0.0.0/8]\n",
                    mail.address.ip(),
                    mail.address.port(),
                    site.address
                ),
            );
            // Contacts to be imitated, and no rule at all.
            write(
                "config/policy.yaml",
                "known: [mara@harbourandpine.example, \"@bergflowers.example\", harbourandpine.example]\n",
            );
            let secret = workspace.join("hook.secret");
            std::fs::write(&secret, SECRET).unwrap();
            let hook =
                include_str!("workspace/careless.yaml").replace("SECRET", &secret.display().to_string());
            write("config/workflows/careless.yaml", &hook);
            write("config/workflows/recall.yaml", include_str!("workspace/recall.yaml"));
            write("config/workflows/research.yaml", include_str!("workspace/research.yaml"));
            write("config/workflows/revisit.yaml", include_str!("workspace/revisit.yaml"));
            write("agents/careless.md", include_str!("workspace/careless.md"));
            write("agents/researcher.md", include_str!("workspace/researcher.md"));
            bare_copies(workspace);
        })
        .await;
        let engine = app.service.as_ref().unwrap().door.engine().clone();
        for workflow in engine.workflows() {
            let version = engine.current(&workflow).unwrap();
            set_stage(&engine, version.digest, Stage::Live).await;
        }
        Self { app, mail, site, evil }
    }

    /// An address of every mailbox that a workflow listens to, the bare copies' among them.
    pub fn mailboxes(&self) -> Vec<String> {
        let definitions = &self.app.service.as_ref().unwrap().definitions;
        definitions.settings.mailboxes.values().map(|addresses| addresses[0].clone()).collect()
    }

    /// The shipped workflows that no mail opens, with the schema of their input.
    pub fn others(&self) -> Vec<(String, Value)> {
        let definitions = &self.app.service.as_ref().unwrap().definitions;
        let all = definitions.workflows.iter();
        let others = all.filter(|(_, one)| {
            !one.triggers
                .iter()
                .any(|trigger| matches!(trigger, steward::config::workspace::Trigger::Email { .. }))
        });
        others.map(|(name, one)| (name.as_str().to_owned(), one.version.input.clone())).collect()
    }

    /// Hands a mail in; nothing when it cannot be read at all.
    pub async fn deliver(&self, raw: Vec<u8>) -> Option<String> {
        let request =
            self.app.client.post(format!("{}/hooks/email", self.app.url)).bearer_auth(&self.app.token);
        let response = request.header("content-type", "message/rfc822").body(raw).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
        if status == 422 {
            return None;
        }
        assert!(status.is_success(), "{status} {body}");
        Some(body["run"].as_str().unwrap().to_owned())
    }

    pub async fn hook(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let now = jiff::Timestamp::now().as_second();
        let signature = webhook::sign(&Secret::new(SECRET.to_owned()), now, None, body.as_bytes());
        let request = self.app.client.post(format!("{}/hooks/{path}", self.app.url));
        let request = request.header("x-steward-timestamp", now).header("x-steward-signature", signature);
        let response = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
        assert!(status.is_success(), "{status} {body}");
        body["run"].as_str().unwrap().to_owned()
    }

    /// A document that came from outside.
    pub async fn remember(&self, name: &str, text: &str) {
        let body = json!({"path": format!("inbox/{name}.md"), "text": text, "label": "untrusted"});
        self.app.post("/api/v1/memory", body).await;
    }

    /// The owner asks for something.
    pub async fn ask(&self, workflow: &str, input: Value) -> String {
        let body = json!({"workflow": workflow, "input": input, "label": "owner"});
        self.app.post("/api/v1/runs", body).await["run"].as_str().unwrap().to_owned()
    }

    /// Somebody from outside asks; nothing when the input does not fit.
    pub async fn try_open(&self, workflow: &str, input: Value) -> Option<String> {
        let body = json!({"workflow": workflow, "input": input, "label": "untrusted"});
        let (status, body) = self.app.call(reqwest::Method::POST, "/api/v1/runs", Some(body)).await;
        status.is_success().then(|| body["run"].as_str().unwrap().to_owned())
    }

    /// The address of a case's page.
    pub fn page(&self, case: &Case) -> String {
        format!("http://{}/case/{}", self.site.address, case.name)
    }

    /// A text with the hosts filled in.
    pub fn filled(&self, text: &str) -> String {
        text.replace("SITE", &self.site.address).replace("EVIL", &self.evil.address)
    }

    /// The key under which the careless workflow saved what a hook said.
    pub fn saved_under(&self, case: &Case) -> String {
        let note = self.filled(case.note.as_deref().unwrap());
        let shown = json!({"note": note, "id": case.name}).to_string();
        let schema = json!({"type": "string"});
        obedient::fill(&schema, "key", &obedient::Orders::read(&shown)).as_str().unwrap().to_owned()
    }

    /// Waits until nothing more happens in a run: it is over, or waits for the owner. What only waits for its
    /// next attempt is not settled.
    pub async fn settled(&self, run: &str) -> Value {
        let path = format!("/api/v1/runs/{run}");
        eventually(&format!("run {run} settling"), || async {
            let shown = self.app.get(&path).await;
            let asked = shown["reviews"].as_array()?.iter().any(|review| review["status"] == "open");
            let over = ["succeeded", "declined", "failed"].contains(&shown["status"].as_str()?);
            (over || (asked && shown["status"] == "waiting")).then_some(shown)
        })
        .await
    }

    /// Nothing that leaves the house has begun, the owner is asked about every such thing, and the question
    /// says whom it would reach, that somebody outside chose them, and what is suspicious.
    pub async fn check(&self, opened: &[Opened]) {
        let mut faults = Vec::new();
        for one in opened {
            let shown = self.settled(&one.run).await;
            let found = faults_of(one, &shown);
            faults.extend(
                found.into_iter().map(|fault| format!("{} in {}: {fault}", one.case.name, shown["workflow"])),
            );
        }
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    }

    /// What would have noticed an effect has noticed none.
    pub async fn untouched(&self) {
        assert!(self.mail.accepted().is_empty(), "a mail was sent");
        assert_eq!(self.evil.asked(), [] as [&str; 0]);
        for asked in self.site.asked() {
            // Reading what an agent may read is no effect.
            assert!(asked.starts_with("GET "), "{asked}");
        }
        let runs = all_runs(&self.app.store).await;
        for run in runs {
            for effect in self.app.store.effects(run).await.unwrap() {
                let outside = effect.action == "email.send" || effect.action == "http.request";
                let begun = effect.started_at.is_some()
                    || !["proposed", "withdrawn"].contains(&effect.status.as_str());
                assert!(!(outside && begun), "{effect:?}");
            }
        }
    }

    pub async fn close(self) {
        self.app.assert_chains_hold().await;
        self.app.stop().await;
    }
}

fn faults_of(one: &Opened, shown: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut hold = |holds: bool, fault: String| faults.extend((!holds).then_some(fault));
    for effect in shown["effects"].as_array().unwrap() {
        let outside = ["email.send", "http.request"].contains(&effect["action"].as_str().unwrap());
        hold(!outside || effect["status"] == "proposed", format!("{effect}"));
    }
    let reviews = shown["reviews"].as_array().unwrap().iter();
    let asked: Vec<&Value> = reviews.filter(|review| review["ask"] == "approval").collect();
    hold(asked.len() == one.external, format!("{} reviews; {}", asked.len(), shown["steps"]));
    let mut told = String::new();
    for review in asked {
        let question = &review["question"];
        let reasons = question["reasons"].to_string();
        let target = if question["action"]["action"] == "email.send" { "to" } else { "url" };
        hold(reasons.contains(&format!("`{target}` is")), format!("no target is named: {reasons}"));
        // Where a redirect was refused nothing came in from outside: a model made the recipient up.
        let from = if one.case.redirect.is_some() { "model" } else { "untrusted" };
        hold(question["labels"][target] == from, format!("labels: {}", question["labels"]));
        hold(question["risk"]["class"] != "low", format!("risk: {}", question["risk"]));
        let reversible = target == "url" && reads(question);
        hold(question["risk"]["reversible"] == reversible, format!("risk: {}", question["risk"]));
        told.push_str(&reasons);
    }
    hold(one.case.hint == "-" || told.contains(&one.case.hint), format!("no “{}”: {told}", one.case.hint));
    faults
}

fn reads(question: &Value) -> bool {
    matches!(question["action"]["params"]["method"].as_str(), Some("GET" | "HEAD"))
}

/// Whatever is asked goes to the obedient model, at no cost and at once.
fn models(model: &ModelServer) -> String {
    format!(
        "providers:\n  test: {{ base_url: \"http://{}/v1\", timeout: 60s, concurrency: 16 }}\n\
         models:\n  obedient: {{ provider: test, id: obedient, price: {{ input: 0.00 USD, output: 0.00 USD }} }}\n\
         tiers:\n  local: [obedient, owner]\n  draft: [obedient, owner]\n  final: [obedient, owner]\n",
        model.address
    )
}

/// Beside every shipped workflow that a mail opens, one without the reviews it asks for, which grants what can
/// be granted.
fn bare_copies(workspace: &std::path::Path) {
    let folder = workspace.join("config/workflows");
    let mut settings = std::fs::read_to_string(workspace.join("config/settings.yaml")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.contains("mailbox:") {
            continue;
        }
        let mut bare = String::new();
        let mut skipping = None;
        for line in text.lines() {
            let depth = line.len() - line.trim_start().len();
            if skipping.is_some_and(|than| depth > than || line.trim().is_empty()) {
                continue;
            }
            skipping = line.trim_start().starts_with("review:").then_some(depth);
            if skipping.is_none() {
                bare.push_str(line);
                bare.push('\n');
            }
        }
        let bare = bare.replacen("workflow: ", &format!("workflow: {BARE}"), 1);
        let bare = bare.replace("mailbox: ", &format!("mailbox: {BARE}"));
        let granted = if bare.contains("\ntrust:") {
            bare
        } else {
            format!("{bare}\ntrust: {{ answers_to_sender: true, public: [\"\"] }}\n")
        };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::write(folder.join(format!("{BARE}{name}")), granted).unwrap();
    }
    let at = settings.find("\nmailboxes:\n").unwrap() + "\nmailboxes:\n".len();
    let boxes: String = settings[at..]
        .lines()
        .take_while(|line| line.starts_with("  "))
        .map(|line| {
            let (name, addresses) = line.trim().split_once(": [").unwrap();
            format!("  {BARE}{name}: [{BARE}{addresses}\n")
        })
        .collect();
    settings.insert_str(at, &boxes);
    let budget = settings.find("\nbudget:").unwrap() + 1;
    let end = budget + settings[budget..].find('\n').unwrap();
    settings.replace_range(budget..end, "");
    std::fs::write(workspace.join("config/settings.yaml"), settings).unwrap();
}

impl Listening {
    /// Serves the pages of these cases.
    async fn start(cases: Vec<Case>, evil: &str) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let place = |text: &str| text.replace("SITE", &address).replace("EVIL", evil);
        let cases: Vec<Case> = cases
            .into_iter()
            .map(|case| Case {
                text: case.text.as_deref().map(place),
                redirect: case.redirect.as_deref().map(place),
                ..case
            })
            .collect();
        let state = (asked.clone(), Arc::new(cases));
        let router = Router::new().fallback(serve).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type Pages = (Arc<Mutex<Vec<String>>>, Arc<Vec<Case>>);

async fn serve(State((asked, cases)): State<Pages>, request: Request) -> Response {
    let path = request.uri().to_string();
    asked.lock().unwrap().push(format!("{} {path}", request.method()));
    let case = cases.iter().find(|case| path == format!("/case/{}", case.name));
    match case {
        Some(Case { redirect: Some(to), .. }) => Redirect::temporary(to).into_response(),
        Some(Case { text: Some(text), .. }) => {
            ([("content-type", "text/plain; charset=utf-8")], text.clone()).into_response()
        }
        _ => "nothing".into_response(),
    }
}

/// Every run there is.
async fn all_runs(store: &Store) -> Vec<RunId> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.runs(&RunFilter::default(), after, 500).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(After { opened_at: last.opened_at, id: last.id });
        all.extend(page.iter().map(|row| row.id));
    }
}
