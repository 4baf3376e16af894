//! The client of the HTTP API. It finds the service by what `steward up` leaves in the workspace:
//! `.steward/address`, one line with a URL, and `.steward/token`. `STEWARD_URL` and `STEWARD_TOKEN`
//! come before both. Where several services run in one folder, `.steward/nodes/` names the others: when
//! the first was killed and does not answer, another one does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use crate::api::audit::LINES;
use crate::api::auth::CLI_AGENT;
use crate::app::presence::somebody_is_at;
use crate::cli::watch::{Event, Events};
use crate::cli::{Common, Fail};

/// How long the service may take to accept a connection: it is near, or it is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take: longer than the service gives its slowest request.
const ANSWER: Duration = Duration::from_secs(620);

/// How long one stream of events is listened to before it is asked for anew.
const STREAM: Duration = Duration::from_secs(6 * 3600);

/// What to do when nobody answers.
const MEND: &str = "start it with `steward up`";

/// The way to one service.
pub struct Client {
    base: Url,
    token: String,
    http: reqwest::Client,
    /// The workspace it serves, as far as this machine knows.
    pub workspace: PathBuf,
}

/// A good answer.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Value,
}

impl Client {
    /// The client of the service of a workspace.
    ///
    /// # Errors
    /// [`Fail::Unreachable`] when the workspace has no running service.
    pub fn find(common: &Common) -> Result<Self, Fail> {
        let workspace = workspace(common.workspace.as_deref());
        let address = given("STEWARD_URL").or_else(|| announced(&workspace.join(".steward")));
        let address = address.ok_or_else(|| {
            Fail::Unreachable(format!(
                "no service is running for the workspace {}; {MEND}",
                workspace.display()
            ))
        })?;
        let base: Url = address
            .parse()
            .ok()
            .filter(|url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Fail::Usage(format!("`{}` is not the URL of a service", address.escape_debug()))
            })?;
        let token = given("STEWARD_TOKEN").or_else(|| first_line(&workspace.join(".steward/token")));
        let token = token.ok_or_else(|| {
            let missing = "there is no token in .steward/token; set STEWARD_TOKEN, or name the workspace with --workspace";
            Fail::Refused(missing.to_owned())
        })?;
        let mut builder = reqwest::Client::builder()
            .user_agent(format!("{CLI_AGENT}/{}", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none());
        if is_here(&base) {
            builder = builder.no_proxy(); // a proxy's loopback is not ours
        }
        let http = builder.build().map_err(|error| Fail::Refused(error.to_string()))?;
        Ok(Self { base, token, http, workspace })
    }

    /// Where the service is.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// `GET path?query`.
    ///
    /// # Errors
    /// See [`Fail`]; a problem of the service keeps its words.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Fail> {
        Ok(self.send(self.request(Method::GET, path)?.query(query)).await?.body)
    }

    /// `GET path` as JSON lines: each is told to `each`, the last is the answer.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn follow(&self, path: &str, mut each: impl FnMut(&Value)) -> Result<Value, Fail> {
        let request = self.request(Method::GET, path)?.header(ACCEPT, LINES);
        let mut reply = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = reply.status();
        if !status.is_success() {
            let problem = reply.bytes().await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            return Err(refused(status, problem.as_ref()));
        }
        let (mut rest, mut last) = (Vec::new(), None);
        while let Some(chunk) = reply.chunk().await.map_err(|error| self.unreachable(&error))? {
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                last = serde_json::from_slice(&line).ok();
                last.iter().for_each(&mut each);
            }
        }
        last.ok_or_else(|| Fail::Refused(format!("{} does not answer like Steward", self.base)))
    }

    /// `GET path` as server-sent events, from behind `last` on, until the service or the connection ends them.
    ///
    /// # Errors
    /// As [`Client::get`], and what `each` gives.
    pub async fn events(
        &self,
        path: &str,
        last: Option<&str>,
        mut each: impl FnMut(Event) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let mut request = self.request(Method::GET, path)?.timeout(STREAM);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let mut reply = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = reply.status();
        if !status.is_success() {
            let problem = reply.bytes().await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            return Err(refused(status, problem.as_ref()));
        }
        let mut events = Events::default();
        while let Ok(Some(chunk)) = reply.chunk().await {
            for event in events.add(&chunk) {
                each(event)?;
            }
        }
        Ok(())
    }

    /// `POST path` with a JSON body and perhaps one header.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post(&self, path: &str, body: &Value, header: Option<(&str, &str)>) -> Result<Reply, Fail> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            let bad = || Fail::Usage(format!("`{}` cannot be sent as {name}", value.escape_debug()));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
        self.send(self.request(Method::POST, path)?.headers(headers).json(body)).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn delete(&self, path: &str) -> Result<Value, Fail> {
        Ok(self.send(self.request(Method::DELETE, path)?).await?.body)
    }

    /// `POST path?query` with a raw email.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post_email(&self, path: &str, query: &[(&str, &str)], raw: Vec<u8>) -> Result<Reply, Fail> {
        let request = self.request(Method::POST, path)?.query(query).header(CONTENT_TYPE, "message/rfc822");
        self.send(request.body(raw)).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Fail> {
        let url = self.base.join(path).map_err(|error| Fail::Usage(error.to_string()))?;
        Ok(self.http.request(method, url).bearer_auth(&self.token))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Reply, Fail> {
        let reply = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = reply.status();
        let bytes = reply.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body: Option<Value> = serde_json::from_slice(&bytes).ok();
        match (status.is_success(), body) {
            (true, Some(body)) => Ok(Reply { status, body }),
            (true, None) => Err(Fail::Refused(format!("{} does not answer like Steward", self.base))),
            (false, problem) => Err(refused(status, problem.as_ref())),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Fail {
        let why = if error.is_timeout() { "gave no answer in time" } else { "does not answer" };
        Fail::Unreachable(format!("the service at {} {why}; {MEND}", self.base))
    }
}

/// The service's own words, with whatever list helps to mend it.
fn refused(status: StatusCode, problem: Option<&Value>) -> Fail {
    let text =
        |name: &str| problem.and_then(|problem| problem.get(name)?.as_str()).map(crate::cli::out::plain);
    let title = text("title").unwrap_or_else(|| format!("the service answered {status}"));
    let words = match text("detail") {
        Some(detail) => format!("{title}: {detail}"),
        None => title,
    };
    match status {
        StatusCode::NOT_FOUND => Fail::NotFound(words),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Fail::Conflict(words),
        StatusCode::SERVICE_UNAVAILABLE => Fail::Unreachable(words),
        StatusCode::TOO_MANY_REQUESTS => Fail::Full(words),
        _ => Fail::Refused(words),
    }
}

/// The folder that was named, else the nearest parent with `config/settings.yaml`, else this one.
#[must_use]
pub fn workspace(named: Option<&Path>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let found = here.ancestors().find(|folder| folder.join("config/settings.yaml").is_file());
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn first_line(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// The address that was announced last, or, if nobody is there any more, another one where somebody is.
fn announced(state: &Path) -> Option<String> {
    let last = first_line(&state.join("address"));
    let entries = std::fs::read_dir(state.join("nodes")).into_iter().flatten().flatten();
    let others: Vec<String> = entries.filter_map(|entry| first_line(&entry.path())).collect();
    if others.iter().all(|other| Some(other) == last.as_ref()) {
        return last;
    }
    last.iter().chain(&others).find(|address| somebody_is_at(address)).cloned().or(last)
}

fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_status_has_its_exit_code_and_the_services_own_words() {
        let code = |status: u16| refused(StatusCode::from_u16(status).unwrap(), None).code();
        assert_eq!([401, 422, 500].map(code), [1, 1, 1]);
        assert_eq!([404, 409, 412, 503, 429].map(code), [4, 5, 5, 3, 6]);
        let problem = json!({"title": "There is no such workflow", "detail": "there is `a`\u{1b}[2J"});
        let fail = refused(StatusCode::NOT_FOUND, Some(&problem));
        assert_eq!(fail.to_string(), "There is no such workflow: there is `a`\\u{1b}[2J");
    }

    #[test]
    fn only_loopback_goes_around_a_proxy() {
        let here = |url: &str| is_here(&url.parse().unwrap());
        assert!(here("http://127.0.0.1:7007") && here("http://[::1]:1") && here("http://localhost"));
        assert!(!here("https://steward.example") && !here("http://10.0.0.1"));
    }

    #[test]
    fn where_the_last_one_was_killed_another_service_of_the_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = folder.path().join("nodes");
        std::fs::create_dir(&nodes).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = format!("http://{}", listener.local_addr().unwrap());
        let killed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::write(folder.path().join("address"), format!("http://{killed}\n")).unwrap();
        std::fs::write(nodes.join("killed"), format!("http://{killed}\n")).unwrap();
        assert_eq!(announced(folder.path()), Some(format!("http://{killed}")), "there is no choice");
        std::fs::write(nodes.join("alive"), format!("{alive}\n")).unwrap();
        assert_eq!(announced(folder.path()), Some(alive));
    }

    #[test]
    fn a_workspace_without_a_service_is_told_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        if std::env::var_os("STEWARD_URL").is_some() {
            return;
        }
        let common = Common { workspace: Some(folder.path().to_owned()), json: false };
        let fail = Client::find(&common).err().unwrap();
        assert_eq!(fail.code(), 3);
        assert!(fail.to_string().ends_with("start it with `steward up`"), "{fail}");
    }
}
