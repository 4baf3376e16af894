//! A workspace's files as a whole: [`Definitions::load`] reads, checks and resolves them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::agent::{self, RawAgent};
use crate::config::channels::Channels;
use crate::config::check::{self, Names};
use crate::config::connectors::Connectors;
use crate::config::document::{Document, Reporter};
use crate::config::models::{Models, Provider};
use crate::config::nearest;
use crate::config::node::{NodeKind, Path};
use crate::config::policy::Policy;
use crate::config::problem::{Problem, Problems};
use crate::config::secret::{Secret, SecretRef};
use crate::config::settings::{Settings, Workspace};
use crate::config::structure::{read, schema_of};
use crate::config::workflow::RawWorkflow;
use crate::domain::gather::Gather;
use crate::domain::ids::WorkflowName;
use crate::domain::policy;
use crate::domain::retention::{Keep, Retention};
use crate::domain::schedule::Schedule;
use crate::domain::workflow::{StepKind, Version};

/// The largest file that is read, bytes: a thousand times a usual one.
const MAX_FILE: u64 = 1024 * 1024;

/// The files of `config/`, besides `workflows/` and `schemas/`.
const CONFIG: [&str; 5] = ["channels.yaml", "connectors.yaml", "models.yaml", "policy.yaml", "settings.yaml"];

/// Everything the owner defined, checked and resolved.
#[derive(Clone, Debug)]
pub struct Definitions {
    /// Who the owner is and where Steward listens.
    pub settings: Settings,
    /// Providers, models, tiers.
    pub models: Models,
    /// How effects leave the house.
    pub connectors: Connectors,
    /// How the owner is reached.
    pub channels: Channels,
    /// The owner's rules.
    pub policy: policy::Policy,
    /// The workflows, each with the agents it uses.
    pub workflows: BTreeMap<WorkflowName, Definition>,
}

/// One workflow.
#[derive(Clone, PartialEq, Debug)]
pub struct Definition {
    /// What opens a run by itself.
    pub triggers: Vec<Trigger>,
    /// What a run does.
    pub version: Version,
    /// How long finished runs are kept; as the settings say when absent. Not part of the version: a new
    /// word of the owner's counts for the runs there are.
    pub retention: Option<Keep>,
}

/// What opens a run by itself.
#[derive(Clone, PartialEq, Debug)]
pub enum Trigger {
    /// Mail to a mailbox of the settings.
    Email {
        /// Its name.
        mailbox: String,
        /// What is waited for before a run opens.
        gather: Option<Gather>,
    },
    /// JSON posted to `/hooks/PATH`.
    Webhook {
        /// The last part of the address.
        path: String,
        /// The key of the sender's signature.
        secret: SecretRef,
        /// What is waited for before a run opens.
        gather: Option<Gather>,
    },
    /// The clock.
    Schedule {
        /// Unique in the workflow.
        name: String,
        /// When, and with what input.
        schedule: Schedule,
    },
}

impl Definitions {
    /// Loads a workspace folder (`agents/`, `config/`). Gives the warnings beside the definitions.
    ///
    /// # Errors
    /// Every problem of every file at once, warnings among them, when one of them is an error.
    pub fn load(dir: &FilePath) -> Result<(Self, Vec<Problem>), Problems> {
        let mut loader = Loader { dir, problems: Problems::default() };
        let definitions = loader.load();
        let mut problems = loader.problems;
        problems.sort();
        match definitions {
            Some(definitions) if !problems.any_error() => Ok((definitions, problems.0)),
            _ => Err(problems),
        }
    }

    /// Every secret that the files name and that is there, with where it is looked for.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, Secret)> {
        let providers = self.models.providers.values().flat_map(Provider::secrets);
        let smtp = self.connectors.email.smtp.iter().filter_map(|smtp| smtp.password.as_ref());
        let triggers = self.workflows.values().flat_map(|workflow| &workflow.triggers);
        let hooks = triggers.filter_map(|trigger| match trigger {
            Trigger::Webhook { secret, .. } => Some(secret),
            _ => None,
        });
        let named = providers.chain(smtp).chain(hooks).chain(self.channels.secrets());
        let named = named.filter_map(|named| Some((named.place(), named.resolve()?)));
        let database = self.settings.database.iter().filter_map(|database| password(&database.url));
        named.chain(database).collect()
    }

    /// How long the runs of each workflow are kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        let said =
            |(name, definition): (&WorkflowName, &Definition)| Some((name.clone(), definition.retention?));
        Retention {
            default: self.settings.retention.unwrap_or_default(),
            workflows: self.workflows.iter().filter_map(said).collect(),
        }
    }
}

/// Of a database's address only the password is a secret.
fn password(named: &SecretRef) -> Option<(String, Secret)> {
    let address = url::Url::parse(named.resolve()?.expose()).ok()?;
    Some((named.place(), Secret::new(address.password()?.to_owned())))
}

/// Reads, checks and resolves the text of a policy file by itself.
///
/// # Errors
/// With everything that is wrong in it.
pub fn policy(text: &str) -> Result<policy::Policy, Problems> {
    let mut problems = Problems::default();
    let source: Arc<str> = text.into();
    let document = Document::parse("config/policy.yaml", &source, &source);
    let document = document.map_err(|problem| Problems(vec![*problem]))?;
    let raw = read::<Policy>(&document, "the policy file", &mut problems);
    if let Some(raw) = &raw {
        check::policy::policy(&mut Reporter { document: &document, problems: &mut problems }, raw);
    }
    match raw {
        Some(raw) if !problems.any_error() => Ok(raw.resolve()),
        _ => Err(problems),
    }
}

struct Loader<'a> {
    dir: &'a FilePath,
    problems: Problems,
}

/// A file that was read into its struct.
struct Read<T> {
    document: Document,
    raw: T,
}

impl Loader<'_> {
    fn load(&mut self) -> Option<Definitions> {
        if self.is_empty() {
            return None;
        }
        self.strangers();
        let settings = self.required::<Settings>("config/settings.yaml", "the settings file");
        let models = self.required::<Models>("config/models.yaml", "the models file");
        let connectors = self.optional::<Connectors>("config/connectors.yaml", "the connectors file");
        let channels = self.optional::<Channels>("config/channels.yaml", "the channels file");
        let policy = self.optional::<Policy>("config/policy.yaml", "the policy file");
        if let Some(Read { document, raw }) = &settings {
            check::settings::settings(&mut self.report(document), raw);
        }
        if let Some(Read { document, raw }) = &models {
            let currency = settings.as_ref().map(|settings| settings.raw.workspace.currency.as_str());
            check::models::models(&mut self.report(document), raw, currency);
        }
        if let Some(Read { document, raw }) = &connectors {
            check::settings::connectors(&mut self.report(document), raw);
        }
        if let Some(Read { document, raw }) = &channels {
            check::channels::channels(&mut self.report(document), raw);
        }
        if let Some(Read { document, raw }) = &policy {
            check::policy::policy(&mut self.report(document), raw);
        }
        let mut names = Names {
            tiers: models.as_ref().map(|models| models.raw.tiers.keys().cloned().collect()),
            mailboxes: settings.as_ref().map(|settings| settings.raw.mailboxes.keys().cloned().collect()),
            agents: BTreeMap::new(),
            currency: settings.as_ref().map(|settings| settings.raw.workspace.currency.clone()),
            workspace: workspace_schema(),
            time_zone: settings.as_ref().map(|settings| settings.raw.workspace.time_zone.clone()),
        };
        let agents = self.agents(&mut names);
        let workflows = self.workflows(&names);
        self.whole(&agents, &workflows, &names, settings.as_ref());
        let definition = |(_, definition): (_, Definition)| (definition.version.workflow.clone(), definition);
        Some(Definitions {
            settings: settings?.raw,
            models: models?.raw,
            connectors: connectors.map(|read| read.raw).unwrap_or_default(),
            channels: channels.map(|read| read.raw).unwrap_or_default(),
            policy: policy.map(|read| read.raw.resolve()).unwrap_or_default(),
            workflows: workflows.into_iter().map(definition).collect(),
        })
    }

    fn report<'r>(&'r mut self, document: &'r Document) -> Reporter<'r> {
        Reporter { document, problems: &mut self.problems }
    }

    /// A problem that is in no file.
    fn missing(&mut self, file: &str, message: impl Into<String>, mend: &str) {
        self.problems.0.push(Problem::new(file, &"".into(), 0..0, message, mend));
    }

    fn is_empty(&mut self) -> bool {
        let empty = !["agents", "config"].iter().any(|folder| self.dir.join(folder).is_dir());
        if empty {
            let message =
                format!("`{}` is not a workspace: it has no agents/ and no config/", self.dir.display());
            let mend = "copy the template's agents/ and config/ folders here, or run `steward demo`";
            self.missing(".", message, mend);
        }
        empty
    }

    /// Files that nothing reads, most likely misnamed.
    fn strangers(&mut self) {
        for file in self.files("config", "") {
            let name = file.trim_start_matches("config/");
            let yaml = name.ends_with(".yaml") || name.ends_with(".yml");
            if yaml && !CONFIG.contains(&name) {
                let mend = nearest::mend(name, "the files of config/", &CONFIG);
                let problem = Problem::new(&file, &"".into(), 0..0, "nothing reads this file", mend);
                self.problems.0.push(problem.warning());
            }
        }
        for file in self.files("config/workflows", ".yml") {
            let mend = "rename it to end in `.yaml`";
            let problem = Problem::new(&file, &"".into(), 0..0, "nothing reads this file", mend);
            self.problems.0.push(problem.warning());
        }
    }

    /// The names of files in a folder of the workspace, in their order.
    fn files(&self, folder: &str, suffix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join(folder)).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        let names = files.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names
            .filter(|name| name.ends_with(suffix) && !name.starts_with('.'))
            .map(|name| format!("{folder}/{name}"))
            .collect();
        names.sort();
        names
    }

    /// The text of a file; nothing when it cannot be read.
    fn text(&mut self, file: &str) -> Option<Arc<str>> {
        let path = self.dir.join(file);
        let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if size > MAX_FILE {
            self.missing(file, format!("this file has {size} bytes"), "keep it below 1 MiB");
            return None;
        }
        match fs::read_to_string(&path) {
            Ok(text) => Some(text.into()),
            Err(error) => {
                self.missing(
                    file,
                    format!("this file cannot be read: {error}"),
                    "make it readable UTF-8 text",
                );
                None
            }
        }
    }

    fn required<T: JsonSchema + DeserializeOwned>(&mut self, file: &str, what: &str) -> Option<Read<T>> {
        if !self.dir.join(file).exists() {
            let mend = "copy it from the template's config/ folder, or run `steward demo`";
            self.missing(file, "this file is missing", mend);
            return None;
        }
        self.optional(file, what)
    }

    fn optional<T: JsonSchema + DeserializeOwned>(&mut self, file: &str, what: &str) -> Option<Read<T>> {
        if !self.dir.join(file).exists() {
            return None;
        }
        let source = self.text(file)?;
        let document = self.parsed(Document::parse(file, &source, &source))?;
        let raw = read(&document, what, &mut self.problems)?;
        Some(Read { document, raw })
    }

    fn parsed<T>(&mut self, parsed: Result<T, Box<Problem>>) -> Option<T> {
        parsed.map_err(|problem| self.problems.0.push(*problem)).ok()
    }

    fn agents(&mut self, names: &mut Names) -> Vec<Document> {
        let mut documents = Vec::new();
        for file in self.files("agents", ".md") {
            let stem = file.trim_start_matches("agents/").trim_end_matches(".md");
            let Some(source) = self.text(&file) else { continue };
            let parsed = agent::split(&file, &source).and_then(|parts| {
                Document::parse(&file, &source, &parts.yaml).map(|document| (document, parts.prompt))
            });
            let Some((document, body)) = self.parsed(parsed) else {
                names.agents.entry(stem.to_owned()).or_insert(None);
                continue;
            };
            let name = name_in(&document, "agent").unwrap_or_else(|| stem.to_owned());
            if names.agents.contains_key(&name) {
                let message = format!("there are two agents `{name}`");
                self.report(&document).value(
                    &Path::top().key("agent"),
                    message,
                    "give this one another name",
                );
            }
            let before = self.problems.0.len();
            let agent = read::<RawAgent>(&document, "an agent", &mut self.problems)
                .map(|raw| check::agent::resolve(&mut self.report(&document), &raw, body, names));
            // What has a problem of its own is not held against the workflows that use it.
            let sound = self.problems.0.len() == before;
            names.agents.insert(name, agent.filter(|_| sound));
            documents.push(document);
        }
        documents
    }

    fn workflows(&mut self, names: &Names) -> Vec<(Document, Definition)> {
        let mut found: Vec<(Document, Definition)> = Vec::new();
        for file in self.files("config/workflows", ".yaml") {
            let Some(Read { document, raw }) = self.optional::<RawWorkflow>(&file, "a workflow") else {
                continue;
            };
            if let Some((other, _)) = found.iter().find(|(_, d)| d.version.workflow.as_str() == raw.workflow)
            {
                let message =
                    format!("there are two workflows `{}`; the other is in {}", raw.workflow, other.file);
                self.report(&document).value(
                    &Path::top().key("workflow"),
                    message,
                    "give this one another name",
                );
            }
            let definition = check::workflow::resolve(&mut self.report(&document), &raw, names);
            found.push((document, definition));
        }
        found
    }

    /// Workflows that other workflows run, and whether that ever ends.
    fn children(&mut self, workflows: &[(Document, Definition)]) {
        let known: Vec<&str> = workflows.iter().map(|(_, d)| d.version.workflow.as_str()).collect();
        let mut opens: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (document, definition) in workflows {
            for (index, step) in definition.version.steps.iter().enumerate() {
                let StepKind::Workflow(child) = &step.kind else { continue };
                let path = Path::top().key("steps").index(index).key("workflow");
                let name = child.workflow.as_str();
                if !known.contains(&name) {
                    let mend = nearest::mend(name, "the workflows in config/workflows/", &known);
                    self.report(document).value(&path, format!("there is no workflow `{name}`"), mend);
                }
                opens.entry(definition.version.workflow.as_str()).or_default().push(name);
            }
        }
        if let Err(cycle) = check::graph::ancestors(&opens)
            && let Some((document, _)) =
                workflows.iter().find(|(_, d)| cycle.first() == Some(&d.version.workflow.as_str()))
        {
            let way: Vec<String> =
                cycle.iter().chain(cycle.first()).map(|name| format!("`{name}`")).collect();
            let message = format!("these workflows open each other without end: {}", way.join(" → "));
            let mend = "let one of them wait for an event, or open it by a webhook, instead";
            self.report(document).value(&Path::top().key("steps"), message, mend);
        }
    }

    /// What only all the files together can show.
    fn whole(
        &mut self,
        agents: &[Document],
        workflows: &[(Document, Definition)],
        names: &Names,
        settings: Option<&Read<Settings>>,
    ) {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for (document, definition) in workflows {
            let name = definition.version.workflow.as_str();
            for (index, trigger) in definition.triggers.iter().enumerate() {
                let path = Path::top().key("on").index(index);
                let (what, place, mend) = match trigger {
                    Trigger::Email { mailbox, .. } => (
                        format!("the mailbox `{mailbox}`"),
                        path.key("email").key("mailbox"),
                        "a mail opens one run: give this workflow a mailbox of its own in config/settings.yaml",
                    ),
                    Trigger::Webhook { path: hook, .. } => (
                        format!("the path `{hook}`"),
                        path.key("webhook").key("path"),
                        "a request opens one run: give this workflow a path of its own",
                    ),
                    Trigger::Schedule { .. } => continue,
                };
                if let Some(other) = taken.get(&what) {
                    let message = format!("{what} opens `{other}` already");
                    self.report(document).value(&place, message, mend);
                }
                taken.entry(what).or_insert(name);
            }
        }
        self.children(workflows);
        // With a fault somewhere, what is unused may only be misspelt.
        if self.problems.any_error() {
            return;
        }
        if let Some(Read { document, raw }) = settings {
            for mailbox in
                raw.mailboxes.keys().filter(|name| !taken.contains_key(&format!("the mailbox `{name}`")))
            {
                let message = format!("no workflow listens to the mailbox `{mailbox}`");
                let mend = "add `- email: { mailbox: … }` under a workflow's `on`, or take the mailbox away";
                self.report(document).warn(&Path::top().key("mailboxes").key(mailbox), message, mend);
            }
        }
        for document in agents {
            let Some(name) = name_in(document, "agent") else { continue };
            let used =
                workflows.iter().any(|(_, d)| d.version.agents.keys().any(|agent| agent.as_str() == name));
            if !used && names.agents.get(&name).is_some_and(Option::is_some) {
                let message = format!("no workflow uses the agent `{name}`");
                self.report(document).warn(
                    &Path::top().key("agent"),
                    message,
                    "use it in a step, or take it away",
                );
            }
        }
    }
}

/// The name a file gives its content, whatever else is wrong in it.
fn name_in(document: &Document, key: &str) -> Option<String> {
    let NodeKind::Map(entries) = &document.root.kind else { return None };
    let (_, node) = entries.iter().find(|(found, _)| found.name == key)?;
    node.to_value().as_str().map(str::to_owned)
}

fn workspace_schema() -> Value {
    schema_of::<Workspace>()
}
