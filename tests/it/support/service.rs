//! A running service in this process, with a workspace and a database of its own.

use std::path::{Path, PathBuf};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use steward::app::{Options, Service};
use steward::config::template;
use steward::store::Store;
use steward::triggers::email::authentic::Authenticator;

use super::{database, eventually};

/// A running service and a client for it.
pub struct App {
    pub service: Option<Service>,
    pub url: String,
    pub token: String,
    pub client: reqwest::Client,
    pub workspace: PathBuf,
    pub store: Store,
    _folder: tempfile::TempDir,
}

/// A service over the shipped template.
pub async fn app() -> App {
    app_with(|_| {}).await
}

/// A service over the shipped template with changes; files are changed before it starts.
pub async fn app_with(change: impl FnOnce(&Path)) -> App {
    app_knowing(Authenticator::fixed([]).unwrap(), change).await
}

/// The same, with what is known of whom mail is from; the name service is never asked.
pub async fn app_knowing(authenticator: Authenticator, change: impl FnOnce(&Path)) -> App {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (folder, workspace) = database::folder();
    template::write(&workspace).unwrap();
    change(&workspace);
    let config = database::config().await;
    let store = Store::new(config.clone()).unwrap();
    let service = start(&workspace, config, authenticator).await;
    App {
        url: service.url(),
        token: service.token.expose().to_owned(),
        service: Some(service),
        client: reqwest::Client::new(),
        workspace,
        store,
        _folder: folder,
    }
}

async fn start(workspace: &Path, database: tokio_postgres::Config, authenticator: Authenticator) -> Service {
    let options = Options {
        workspace: workspace.to_owned(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        database: Some(database),
        authenticator: Some(authenticator),
        progress: Box::new(|_| {}),
    };
    Service::start(options).await.unwrap()
}

impl App {
    /// One request with the owner's token; the status and the JSON of the answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    /// Hands a raw email in at the door; the id of its run.
    pub async fn deliver(&self, raw: Vec<u8>) -> String {
        let request = self.client.post(format!("{}/hooks/email", self.url)).bearer_auth(&self.token);
        let response = request.header("content-type", "message/rfc822").body(raw).send().await.unwrap();
        let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
        assert!(status.is_success(), "{status} {body}");
        body["run"].as_str().unwrap().to_owned()
    }

    /// Waits until a run has one of these statuses; its row.
    pub async fn run_that_is(&self, id: &str, statuses: &[&str]) -> Value {
        let path = format!("/api/v1/runs/{id}");
        eventually(&format!("run {id} becoming {statuses:?}"), || async {
            let run = self.get(&path).await;
            statuses.contains(&run["status"].as_str()?).then_some(run)
        })
        .await
    }

    /// Waits for the open review of a run.
    pub async fn open_review(&self, run: &str) -> Value {
        eventually(&format!("a review of run {run}"), || async {
            let reviews = self.get("/api/v1/reviews?status=open&limit=100").await;
            reviews["reviews"].as_array()?.iter().find(|review| review["run"] == run).cloned()
        })
        .await
    }

    /// Every hash chain verifies.
    pub async fn assert_chains_hold(&self) {
        let audit = self.get("/api/v1/audit/verify").await;
        assert_eq!(audit["broken"], 0, "{audit}");
    }

    /// Stops in order.
    pub async fn stop(mut self) {
        if let Some(service) = self.service.take() {
            service.stop().await.unwrap();
        }
    }
}
