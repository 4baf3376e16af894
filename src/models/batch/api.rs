//! `/files` and `/batches` of the OpenAI interface, as far as they are needed, and as tolerant as the rest.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::ids::CallId;
use crate::models::error::{Kind, ModelError, clipped};
use crate::models::openai::{Endpoint, MAX_BODY, bounded, broken};
use crate::models::wire::from_error;
use crate::store::calls::Body;

/// How long one of these requests may take, and one that moves a whole file.
const WAIT: Duration = Duration::from_secs(10);
const FILE_WAIT: Duration = Duration::from_secs(300);

/// The metadata that a batch is known by.
const MARK: &str = "steward_batch";

/// The most batches looked through for one that may be there: the newest come first.
const PAGES: usize = 20;
const PAGE: usize = 100;

/// How much older than its mark the provider's clock may take a batch to be, seconds.
const SLACK: i64 = 3600;

/// The longest file of answers that is read, bytes.
const MAX_FILE: usize = 256 * 1024 * 1024;

/// One provider's files and batches.
pub(super) struct Remote<'e>(pub(super) &'e Endpoint);

/// Where a batch stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    UnderWay,
    Done,
    Expired,
    Cancelled,
    Failed,
}

/// What the provider says of a batch.
pub(super) struct State {
    pub(super) stage: Stage,
    /// In its own word.
    pub(super) word: String,
    pub(super) output: Option<String>,
    pub(super) errors: Option<String>,
    /// Why it failed.
    pub(super) error: Option<ModelError>,
}

impl Remote<'_> {
    /// Gives the questions over; gives the file's id.
    pub(super) async fn upload(
        &self,
        batch: Uuid,
        questions: Vec<(CallId, Option<Body>)>,
    ) -> Result<String, ModelError> {
        let pack = tokio::task::spawn_blocking(move || form(batch, &questions));
        let (kind, body) =
            pack.await.map_err(|_| ModelError::new(Kind::Unavailable, "the file was not made"))?;
        let answer = self.json(Method::POST, "/files", Some((kind, body)), FILE_WAIT).await?;
        id(&answer)
    }

    /// Begins a batch; gives its id.
    pub(super) async fn submit(&self, batch: Uuid, file: &str) -> Result<String, ModelError> {
        let body = json!({
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {MARK: batch},
        });
        let body = Some(("application/json".to_owned(), body.to_string().into_bytes()));
        id(&self.json(Method::POST, "/batches", body, WAIT).await?)
    }

    /// Looks for a batch with this mark among those that are no older.
    pub(super) async fn find(
        &self,
        batch: Uuid,
        since: Option<Timestamp>,
    ) -> Result<Option<String>, ModelError> {
        let mark = batch.to_string();
        let oldest = since.map_or(i64::MIN, |since| since.as_second() - SLACK);
        let mut after = String::new();
        for _ in 0..PAGES {
            let page = self.json(Method::GET, &format!("/batches?limit={PAGE}{after}"), None, WAIT).await?;
            let Some(listed) = page["data"].as_array() else {
                return Err(ModelError::new(Kind::Rejected, "the provider does not list batches"));
            };
            if let Some(found) = listed.iter().find(|found| found["metadata"][MARK] == mark.as_str()) {
                return id(found).map(Some);
            }
            let last = listed.last();
            let old = last.and_then(|last| last["created_at"].as_i64()).is_some_and(|at| at < oldest);
            match last.and_then(|last| last["id"].as_str()) {
                Some(last) if page["has_more"] == true && !old => after = format!("&after={last}"),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// How a batch stands.
    pub(super) async fn look(&self, batch: &str) -> Result<State, ModelError> {
        let said = self.json(Method::GET, &format!("/batches/{batch}"), None, WAIT).await?;
        let word = said["status"].as_str().unwrap_or_default();
        let stage = match word {
            "completed" => Stage::Done,
            "expired" => Stage::Expired,
            "cancelled" => Stage::Cancelled,
            "failed" => Stage::Failed,
            _ => Stage::UnderWay, // what is not known is not over
        };
        let text = |name: &str| said[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let error = said["errors"]["data"].get(0).map(|error| from_error(400, error));
        Ok(State {
            stage,
            word: clipped(word, 40),
            output: text("output_file_id"),
            errors: text("error_file_id"),
            error,
        })
    }

    /// Asks for the end of a batch.
    pub(super) async fn cancel(&self, batch: &str) -> Result<(), ModelError> {
        self.json(Method::POST, &format!("/batches/{batch}/cancel"), None, WAIT).await.map(drop)
    }

    /// The lines of a file. One that is longer than any answer may be is left out.
    pub(super) async fn lines(&self, file: &str) -> Result<Vec<Vec<u8>>, ModelError> {
        let read = async {
            let mut response = self.0.fetch(Method::GET, &format!("/files/{file}/content"), None).await?;
            let (mut lines, mut line, mut whole, mut skip) = (Vec::new(), Vec::new(), 0, false);
            while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
                whole += chunk.len();
                if whole > MAX_FILE {
                    return Err(ModelError::new(Kind::Rejected, "the file of answers is too long"));
                }
                for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                    skip |= line.len() + piece.len() > MAX_BODY;
                    match skip {
                        true => line.clear(),
                        false => line.extend_from_slice(piece),
                    }
                    if piece.ends_with(b"\n") {
                        lines.push(self.0.redacted(std::mem::take(&mut line)));
                        skip = false;
                    }
                }
            }
            lines.push(self.0.redacted(line));
            Ok(lines)
        };
        within(FILE_WAIT, read).await
    }

    /// Nothing is left there that is not needed any more; what cannot be removed goes by the provider's own terms.
    pub(super) async fn forget(&self, files: &[String]) {
        let remove = |file: &String| {
            let path = format!("/files/{file}");
            async move {
                if let Err(error) = self.json(Method::DELETE, &path, None, WAIT).await {
                    tracing::debug!(%error, "a file of a batch stays with its provider");
                }
            }
        };
        join_all(files.iter().map(remove)).await;
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<(String, Vec<u8>)>,
        wait: Duration,
    ) -> Result<Value, ModelError> {
        let ask = async {
            let body = bounded(self.0.fetch(method, path, body).await?, MAX_BODY).await?;
            serde_json::from_slice(&self.0.redacted(body))
                .map_err(|_| ModelError::new(Kind::Unavailable, "the provider's answer is not JSON").billed())
        };
        within(wait, ask).await
    }
}

async fn within<T>(
    wait: Duration,
    ask: impl Future<Output = Result<T, ModelError>>,
) -> Result<T, ModelError> {
    let late = |_| {
        let why = format!("no whole answer within {} s", wait.as_secs());
        Err(ModelError::new(Kind::Timeout, why).billed())
    };
    tokio::time::timeout(wait, ask).await.unwrap_or_else(late)
}

fn id(answer: &Value) -> Result<String, ModelError> {
    let unreadable = || ModelError::new(Kind::Unavailable, "the provider names no id").billed();
    let plain = |id: &&str| {
        !id.is_empty() && id.len() <= 200 && id.bytes().all(|b| b.is_ascii_graphic() && !b"/?#%".contains(&b))
    };
    answer["id"].as_str().filter(plain).map(str::to_owned).ok_or_else(unreadable)
}

/// The file as `multipart/form-data` (RFC 7578): a line of JSON per call. What was erased meanwhile is left out.
fn form(batch: Uuid, questions: &[(CallId, Option<Body>)]) -> (String, Vec<u8>) {
    let boundary = format!("steward-{}", Uuid::new_v4().simple());
    let mut body = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{boundary}\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"steward-{batch}.jsonl\"\r\n\
         content-type: application/jsonl\r\n\r\n"
    )
    .into_bytes();
    for (id, question) in questions {
        let Some(question) = question.as_ref().and_then(|question| question.unpack().ok()) else { continue };
        let head = format!(
            "{{\"custom_id\":\"{id}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&question);
        body.extend_from_slice(b"}\n");
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}
