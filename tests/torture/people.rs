//! Those on this end: customers who ask until they are acknowledged, and an owner who decides, now and
//! then twice at the same moment, and says the truth about what is in doubt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use steward::domain::ids::RunId;

use crate::peers::Peers;
use crate::workspace::WORKFLOWS;

/// How long one request may take before whoever asked asks again, elsewhere.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the service may take to check itself: it does so while other lanes use both cores.
const VERIFIED: Duration = Duration::from_secs(120);

/// The pause of somebody who was not answered.
const PAUSE: Duration = Duration::from_millis(50);

/// How often the owner looks.
const LOOK: Duration = Duration::from_millis(150);

/// Runs that may be under way at once: enough to overlap, few enough for two cores.
pub const UNDER_WAY: u64 = 12;

/// What everybody knows.
#[derive(Clone)]
pub struct Village {
    pub peers: Peers,
    shared: Arc<Shared>,
}

struct Shared {
    http: reqwest::Client,
    /// Where nodes serve, with their tokens.
    doors: Mutex<Vec<(String, String)>>,
    /// Runs that were acknowledged, by the key they were asked for with.
    acknowledged: Mutex<BTreeMap<String, RunId>>,
    /// What must never be, seen from here.
    scandals: Mutex<Vec<String>>,
    dice: Mutex<StdRng>,
    /// Runs that have not ended; the lane counts them.
    unfinished: AtomicU64,
    closing: AtomicBool,
    decisions: AtomicU64,
}

impl Village {
    pub fn new(peers: Peers, dice: StdRng) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap();
        let shared = Shared {
            http,
            doors: Mutex::default(),
            acknowledged: Mutex::default(),
            scandals: Mutex::default(),
            dice: Mutex::new(dice),
            unfinished: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            decisions: AtomicU64::new(0),
        };
        Self { peers, shared: Arc::new(shared) }
    }

    pub fn open_door(&self, url: &str, token: &str) {
        self.shared.doors.lock().unwrap().push((url.to_owned(), token.to_owned()));
    }

    pub fn shut_door(&self, url: &str) {
        self.shared.doors.lock().unwrap().retain(|(open, _)| open != url);
    }

    pub fn acknowledged(&self) -> Vec<RunId> {
        self.shared.acknowledged.lock().unwrap().values().copied().collect()
    }

    pub fn scandals(&self) -> Vec<String> {
        self.shared.scandals.lock().unwrap().clone()
    }

    pub fn decisions(&self) -> u64 {
        self.shared.decisions.load(Ordering::Relaxed)
    }

    pub fn count_unfinished(&self, unfinished: u64) {
        self.shared.unfinished.store(unfinished, Ordering::Relaxed);
    }

    /// No more customers; those who wait for their acknowledgement still get it.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::SeqCst);
    }

    /// A customer asks for one run after another until the shop closes.
    pub async fn customer(self, name: usize) {
        for n in 0u64.. {
            while self.shared.unfinished.load(Ordering::Relaxed) >= UNDER_WAY {
                if self.is_closing() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
            if self.is_closing() {
                return;
            }
            let total: u32 = WORKFLOWS.iter().map(|workflow| workflow.weight).sum();
            let mut drawn = self.roll(total);
            let workflow = WORKFLOWS.iter().find(|workflow| {
                let here = drawn < workflow.weight;
                drawn = drawn.saturating_sub(workflow.weight);
                here
            });
            let Some(workflow) = workflow else { return };
            let n = format!("{name}-{n}");
            self.ask_for(workflow.name, &n).await;
            if workflow.name == "wide" {
                self.say_go(&n).await;
            }
            tokio::time::sleep(Duration::from_millis(u64::from(self.roll(120)))).await;
        }
    }

    /// Asks until it is acknowledged, and now and then once more, as people who did not get the answer do.
    async fn ask_for(&self, workflow: &str, n: &str) {
        let again = self.roll(10) == 0;
        let body = json!({"workflow": workflow, "input": {"n": n}});
        let mut answers = 0;
        while answers < 1 + u32::from(again) {
            match self.post("/api/v1/runs", &body, Some(n)).await {
                Some((status, answer)) if status < 300 => {
                    answers += 1;
                    self.note(n, &answer);
                }
                Some((status, answer)) if status < 500 && status != 429 && status != 409 => {
                    return self.scandal(format!("a customer was refused: {status} {answer}"));
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// What the run waits for, until somebody has taken it.
    async fn say_go(&self, n: &str) {
        let body = json!({"event": "go", "match": n, "data": {"n": n}});
        while self.post("/api/v1/events", &body, Some(n)).await.is_none_or(|(status, _)| status >= 300) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, n: &str, answer: &Value) {
        let Some(run) = answer["run"].as_str().and_then(|run| run.parse().ok()) else {
            return self.scandal(format!("an acknowledgement names no run: {answer}"));
        };
        let before = self.shared.acknowledged.lock().unwrap().insert(n.to_owned(), run);
        if before.is_some_and(|before| before != run) {
            self.scandal(format!("I1: the key {n} was acknowledged twice, with runs {before:?} and {run}"));
        }
    }

    /// The owner looks every moment and decides what is open, for as long as the task lives.
    pub async fn owner(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(open) = self.get("/api/v1/reviews?status=open&limit=100").await else { continue };
            for review in open["reviews"].as_array().into_iter().flatten() {
                self.decide(review).await;
            }
        }
    }

    async fn decide(&self, review: &Value) {
        let (Some(id), Some(run)) = (review["id"].as_str(), review["run"].as_str()) else { return };
        if self.roll(40) == 0 {
            self.post(&format!("/api/v1/runs/{run}/cancel"), &json!({}), None).await;
            return;
        }
        let path = format!("/api/v1/reviews/{id}/decision");
        let decision = self.verdict(review);
        if self.roll(8) > 0 || review["ask"] == "in_doubt" {
            if self.post(&path, &decision, None).await.is_some_and(|(status, _)| status < 300) {
                self.shared.decisions.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        // With two hands: at most one of two decisions may count.
        let other = match review["ask"].as_str() {
            Some("approval") => json!({"verdict": "rejected", "reason": "the other hand"}),
            _ => decision.clone(),
        };
        let (one, two) = tokio::join!(self.post(&path, &decision, None), self.post(&path, &other, None));
        let taken = [one, two].into_iter().flatten().filter(|(status, _)| *status < 300).count();
        self.shared.decisions.fetch_add(taken as u64, Ordering::Relaxed);
        if taken > 1 {
            self.scandal(format!("I5: review {id} took two decisions"));
        }
    }

    fn verdict(&self, review: &Value) -> Value {
        let action = &review["question"]["action"];
        match review["ask"].as_str().unwrap_or_default() {
            "in_doubt" => {
                let key = action["params"]["subject"].as_str().or(action["params"]["body"]["key"].as_str());
                let action = match action["action"].as_str() {
                    Some("email.send") => "email.send",
                    _ => "http.request",
                };
                let answer = match self.peers.happened(action, key.unwrap_or_default()) {
                    0 => "again",
                    _ => "happened",
                };
                json!({"verdict": "answered", "answer": answer})
            }
            "question" if self.roll(8) == 0 => json!({"verdict": "rejected", "reason": "not this one"}),
            "question" => json!({"verdict": "answered", "answer": "well"}),
            "undo" => json!({"verdict": "answered", "answer": "again"}),
            "parked" => json!({"verdict": "answered", "answer": "again"}),
            "answer" => json!({"verdict": "answered", "answer": {"class": "lead", "confidence": 1.0}}),
            _ => match self.roll(10) {
                0 => json!({"verdict": "rejected", "reason": "no"}),
                1 | 2 => {
                    let mut params = action["params"].clone();
                    match params["body"].is_object() {
                        true => params["body"]["how"] = json!("as edited"),
                        false => params["body"] = json!("As edited."),
                    }
                    json!({"verdict": "edited", "params": params, "digest": review["digest"]})
                }
                _ => json!({"verdict": "approved", "digest": review["digest"]}),
            },
        }
    }

    /// What the service's own check of everything says; it reads all there is, and takes its time.
    pub async fn verify(&self) -> Result<Value> {
        let (url, token) = self.door().context("no node serves")?;
        let request = self.shared.http.get(format!("{url}/api/v1/audit/verify"));
        let answer = request.bearer_auth(token).timeout(VERIFIED).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// `None` when nobody answered.
    async fn get(&self, path: &str) -> Option<Value> {
        let (url, token) = self.door()?;
        let request = self.shared.http.get(format!("{url}{path}")).bearer_auth(token);
        let answer = request.send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Option<(u16, Value)> {
        let (url, token) = self.door()?;
        let mut request = self.shared.http.post(format!("{url}{path}")).bearer_auth(token).json(body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.unwrap_or_default()))
    }

    fn door(&self) -> Option<(String, String)> {
        let doors = self.shared.doors.lock().unwrap().clone();
        let which = self.roll(u32::try_from(doors.len()).unwrap_or(1).max(1)) as usize;
        doors.get(which).cloned()
    }

    fn roll(&self, below: u32) -> u32 {
        self.shared.dice.lock().unwrap().random_range(0..below)
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::SeqCst)
    }

    fn scandal(&self, what: String) {
        self.shared.scandals.lock().unwrap().push(what);
    }
}
