use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::digest::Digest;
use crate::domain::duration::Span;
use crate::domain::ids::EffectId;
use crate::domain::label::Label;

/// One request as the server got it.
#[derive(Clone, Debug)]
struct Got {
    head: String,
    body: String,
}

/// A web server that answers each path with the same bytes; an empty answer hangs up, `wait` never answers.
struct Server {
    port: u16,
    got: Arc<Mutex<Vec<Got>>>,
}

type Answers = Arc<Vec<(&'static str, String)>>;

impl Server {
    async fn start(answers: impl FnOnce(u16) -> Vec<(&'static str, String)>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, got) = (Arc::new(answers(port)), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(BufReader::new(stream), Arc::clone(&answers), Arc::clone(&log)));
            }
        });
        Self { port, got }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn client(&self) -> Http {
        client_to(&[format!("127.0.0.1:{}", self.port)], Duration::from_secs(20))
    }
}

async fn serve(
    mut stream: BufReader<TcpStream>,
    answers: Answers,
    log: Arc<Mutex<Vec<Got>>>,
) -> std::io::Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().unwrap().push(Got { head: head.to_ascii_lowercase(), body: String::from_utf8(body).unwrap() });
    let answer = answers
        .iter()
        .find(|(known, _)| *known == path)
        .map_or("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", |(_, a)| a);
    if answer == "wait" {
        stream.read_to_end(&mut Vec::new()).await?; // until the client gives up
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn client_to(allow: &[String], timeout: Duration) -> Http {
    let config = config::Http {
        allow: allow.to_vec(),
        allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
        timeout: Span(timeout),
    };
    Http::new(&config).unwrap()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn redirect(status: &str, to: impl std::fmt::Display) -> String {
    answer(status, &format!("location: {to}\r\n"), "")
}

fn call(params: Value) -> Call {
    Call {
        effect: EffectId(uuid::Uuid::nil()),
        key: "run/call/1".into(),
        action: Action { action: "http.request".into(), params },
        label: Label::Owner,
        at: "2026-03-01T09:30:00Z".parse().unwrap(),
    }
}

async fn ask(http: &Http, method: &str, url: String) -> EffectResult {
    http.perform(&call(json!({"method": method, "url": url}))).await
}

fn failure(result: EffectResult) -> StepError {
    match result {
        EffectResult::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

fn response(result: EffectResult) -> Value {
    match result {
        EffectResult::Succeeded(response) => response,
        other => panic!("{other:?}"),
    }
}

fn doubt(result: EffectResult) -> String {
    match result {
        EffectResult::Unknown(evidence) => evidence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_carries_what_was_asked_and_the_calls_key_and_gives_back_the_answer() {
    let json_answer = answer(
        "201 Created",
        "Content-Type: application/json\r\nETag: \"1\"\r\nX-Secret: 1\r\n",
        r#"{"id":7}"#,
    );
    let server = Server::start(|_| vec![("/orders?a=b", json_answer)]).await;
    let call = call(json!({
        "method": "post", "url": server.url("/orders?a=b#part"), "headers": {"X-Api-Key": "k"}, "body": {"n": 1},
        "idempotency_header": "Idempotency-Key",
    }));
    let http = server.client();
    assert_eq!(http.repeat(&call.action), Repeat::Token);
    assert_eq!(
        response(http.perform(&call).await),
        json!({
            "status": 201, "body": {"id": 7}, "truncated": false, "headers": {"content-type": "application/json", "etag": "\"1\""},
        })
    );
    let got = &server.got()[0];
    assert!(got.head.starts_with("post /orders?a=b http/1.1\r\n"), "{}", got.head);
    let key = Digest::of_bytes(b"run/call/1");
    for header in
        [format!("idempotency-key: {key}"), "x-api-key: k".into(), "content-type: application/json".into()]
    {
        assert!(got.head.contains(&format!("\r\n{header}\r\n")), "{header} in {}", got.head);
    }
    assert_eq!(got.body, r#"{"n":1}"#);
}

#[tokio::test]
async fn what_an_answer_says_about_the_effect_depends_on_the_status_and_on_whether_it_may_be_repeated() {
    let server = Server::start(|_| {
        vec![
            ("/429", answer("429 Slow", "retry-after: 7\r\n", "")),
            ("/503", answer("503 Down", "retry-after: 999999\r\n", "")),
            ("/408", answer("408 Late", "", "")),
            ("/500", answer("500 Oops", "", "secret body")),
            ("/400", answer("400 Bad", "", "")),
            ("/401", answer("401 Who", "", "")),
            ("/403", answer("403 No", "", "")),
            ("/304", answer("304 Same", "", "")),
            ("/302", answer("302 Nowhere", "", "")),
            ("/drop", String::new()),
            ("/half", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".into()),
        ]
    })
    .await;
    let http = server.client();
    for method in ["GET", "POST"] {
        let fails = async |path| failure(ask(&http, method, server.url(path)).await);
        let limited = fails("/429").await;
        assert_eq!((limited.kind, limited.retry_after), (ErrorKind::RateLimited, Some(Span::secs(7))));
        for path in ["/400", "/404", "/304", "/302"] {
            assert_eq!(fails(path).await.kind, ErrorKind::Refused, "{path}");
        }
        for path in ["/401", "/403"] {
            assert_eq!(fails(path).await.kind, ErrorKind::KeyRefused, "{path}");
        }
    }
    let down = failure(ask(&http, "GET", server.url("/503")).await);
    assert_eq!((down.kind, down.retry_after), (ErrorKind::Unavailable, Some(Span::secs(3600))));
    for path in ["/503", "/408", "/500", "/drop", "/half"] {
        assert_eq!(failure(ask(&http, "PUT", server.url(path)).await).kind, ErrorKind::Unavailable, "{path}");
        let evidence = doubt(ask(&http, "POST", server.url(path)).await);
        assert!(evidence.contains("127.0.0.1") && !evidence.contains("secret"), "{evidence}");
    }
    assert!(doubt(ask(&http, "PATCH", server.url("/500")).await).contains("500"));
}

#[tokio::test]
async fn a_time_out_before_sending_is_a_failure_and_after_it_a_doubt() {
    let server = Server::start(|_| vec![("/wait", "wait".into())]).await;
    let http = client_to(&[format!("127.0.0.1:{}", server.port)], Duration::from_millis(400));
    assert!(doubt(ask(&http, "POST", server.url("/wait")).await).contains("did not answer"));
    assert_eq!(failure(ask(&http, "GET", server.url("/wait")).await).kind, ErrorKind::Timeout);

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let http = client_to(&[closed.to_string()], Duration::from_secs(20));
    assert_eq!(failure(ask(&http, "POST", format!("http://{closed}/")).await).kind, ErrorKind::Unavailable);
    let nowhere = client_to(&["nowhere.invalid".into()], Duration::from_secs(20));
    let error = failure(ask(&nowhere, "POST", "https://nowhere.invalid/".into()).await);
    assert!(error.kind.retryable(), "{error:?}");
}

#[tokio::test]
async fn what_the_guard_refuses_is_never_sent() {
    let server = Server::start(|_| vec![]).await;
    let other = Server::start(|_| vec![]).await;
    let http = server.client();
    for url in [
        other.url("/"),
        "http://169.254.169.254/".into(),
        "ftp://127.0.0.1/".into(),
        server.url("/").replace("//", "//u:p@"),
    ] {
        assert_eq!(failure(ask(&http, "POST", url.clone()).await).kind, ErrorKind::Denied, "{url}");
    }
    // listed by name, but its address is not public
    let config = config::Http {
        allow: vec![format!("localhost:{}", server.port), "10.0.0.1".into()],
        ..config::Http::default()
    };
    let strict = Http::new(&config).unwrap();
    for url in
        [format!("http://localhost:{}/", server.port), "http://10.0.0.1/".into(), "http://0xa000001/".into()]
    {
        let error = failure(ask(&strict, "GET", url.clone()).await);
        assert_eq!(
            (error.kind, error.message.contains("http.allow_networks")),
            (ErrorKind::Denied, true),
            "{error:?}"
        );
    }
    assert!(server.got().is_empty() && other.got().is_empty());
}

#[tokio::test]
async fn the_connection_goes_to_the_addresses_that_were_checked_and_nowhere_else() {
    let server = Server::start(|_| vec![("/", answer("200 OK", "", "pinned"))]).await;
    let target = Target { host: Host::Domain("name.invalid".into()), port: server.port };
    let checked = [SocketAddr::from(([127, 0, 0, 1], server.port))];
    let client = client(&target, &checked, Duration::from_secs(20)).unwrap();
    let answer = client.get(format!("http://name.invalid:{}/", server.port)).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "pinned");
}

#[tokio::test]
async fn every_redirect_is_checked_again_in_full() {
    let other = Server::start(|_| vec![]).await;
    let (elsewhere, port) = (other.url("/secret"), other.port);
    let server = Server::start(|own| {
        vec![
            ("/there", redirect("302 Found", "/ok")),
            ("/ok", answer("200 OK", "", "fine")),
            ("/unlisted", redirect("302 Found", elsewhere)),
            ("/metadata", redirect("307 Go", "http://169.254.169.254/latest/meta-data")),
            ("/mapped", redirect("307 Go", format!("http://[::ffff:127.0.0.1]:{port}/"))),
            ("/private", redirect("307 Go", "http://10.0.0.1/")),
            ("/user", redirect("307 Go", format!("http://u@127.0.0.1:{own}/ok"))),
            ("/file", redirect("307 Go", "file:///etc/passwd")),
            ("/loop", redirect("302 Found", "/loop")),
        ]
    })
    .await;
    let http = client_to(&[format!("127.0.0.1:{}", server.port), "10.0.0.1".into()], Duration::from_secs(20));
    assert_eq!(response(ask(&http, "GET", server.url("/there")).await)["body"], "fine");
    for path in ["/unlisted", "/metadata", "/mapped", "/private", "/user", "/file"] {
        let error = failure(ask(&http, "GET", server.url(path)).await);
        assert_eq!(error.kind, ErrorKind::Denied, "{path}: {error:?}");
    }
    assert!(other.got().is_empty());
    let before = server.got().len();
    assert!(failure(ask(&http, "GET", server.url("/loop")).await).message.contains("more than 5 times"));
    assert_eq!(server.got().len() - before, 6);
}

#[tokio::test]
async fn a_redirect_keeps_or_drops_method_body_and_secrets_as_it_must() {
    let other = Server::start(|_| vec![("/take", answer("200 OK", "", ""))]).await;
    let there = other.url("/take");
    let server = Server::start(|_| {
        vec![
            ("/see", redirect("303 See", "/result")),
            ("/result", answer("200 OK", "", "result")),
            ("/gone", redirect("303 See", "/missing")),
            ("/trap", redirect("302 Found", "http://169.254.169.254/")),
            ("/moved", redirect("308 Moved", there)),
        ]
    })
    .await;
    let allow = [format!("127.0.0.1:{}", server.port), format!("127.0.0.1:{}", other.port)];
    let http = client_to(&allow, Duration::from_secs(20));
    let post = async |path| {
        let headers = json!({"Authorization": "Bearer s", "X-Key": "k", "Accept": "a/b"});
        http.perform(&call(
            json!({"method": "POST", "url": server.url(path), "headers": headers, "body": "text"}),
        ))
        .await
    };
    assert_eq!(response(post("/see").await)["body"], "result");
    let got = server.got();
    assert!(got[1].head.starts_with("get /result ") && got[1].body.is_empty(), "{got:?}");
    assert!(
        got[1].head.contains("authorization: bearer s") && !got[1].head.contains("content-type"),
        "{got:?}"
    );

    // the POST was taken: what comes after cannot make it undone
    assert!(doubt(post("/gone").await).contains("took the request (303"));
    assert!(doubt(post("/trap").await).contains("169.254.169.254"));

    assert_eq!(response(post("/moved").await)["status"], 200);
    let moved = &other.got()[0];
    assert!(moved.head.starts_with("post /take ") && moved.body == "text", "{moved:?}");
    assert!(
        moved.head.contains("accept: a/b") && !moved.head.contains("bearer") && !moved.head.contains("x-key"),
        "{moved:?}"
    );
}

#[tokio::test]
async fn a_large_body_is_cut_and_says_so() {
    let server = Server::start(|_| {
        vec![
            (
                "/large",
                answer(
                    "200 OK",
                    "content-type: application/json\r\n",
                    &format!("\"{}\"", "x".repeat(MAX_BODY)),
                ),
            ),
            ("/exact", answer("200 OK", "", &"x".repeat(MAX_BODY))),
        ]
    })
    .await;
    let large = response(ask(&server.client(), "GET", server.url("/large")).await);
    assert_eq!((large["truncated"].clone(), large["body"].as_str().unwrap().len()), (json!(true), MAX_BODY));
    assert_eq!(response(ask(&server.client(), "GET", server.url("/exact")).await)["truncated"], json!(false));
}

#[tokio::test]
async fn a_request_that_does_not_fit_is_refused_before_anything_is_looked_up() {
    let http = client_to(&["api.example.com".into()], Duration::from_secs(1));
    let with = |name: &str, value: Value| {
        let mut params = json!({"method": "POST", "url": "https://api.example.com/"});
        params[name] = value;
        params
    };
    let refused = [
        with("method", json!("TRACE")),
        with("method", json!("GET\r\n")),
        with("url", json!("not an address")),
        with("url", json!("https://api.example.com/\r\nX: y")),
        with("url", json!(format!("https://api.example.com/{}", "x".repeat(9000)))),
        with("headers", json!("x")),
        with("headers", json!({"a": 1})),
        with("headers", json!({"a b": "x"})),
        with("headers", json!({"a": "x\r\nb: c"})),
        with("headers", json!({"Host": "evil.example"})),
        with("headers", json!({"content-length": "1"})),
        with("headers", json!({"Transfer-Encoding": "chunked"})),
        with("headers", json!({"CONNECTION": "close"})),
        with("idempotency_header", json!("host")),
        with("idempotency_header", json!("a b")),
        with("body", json!("x".repeat(MAX_BODY + 1))),
        with("timeout", json!(1)),
        json!({"method": "GET", "url": "https://api.example.com/", "body": "x"}),
        json!({"method": "GET"}),
        json!([]),
    ];
    for params in refused {
        let error = failure(http.perform(&call(params.clone())).await);
        assert_eq!(error.kind, ErrorKind::Invalid, "{params} {error:?}");
    }
}

#[test]
fn only_what_is_harmless_or_carries_a_key_is_repeated() {
    let repeat = |params: Value| request::repeat(&call(params).action);
    for method in ["GET", "head", "PUT", "DELETE"] {
        assert_eq!(repeat(json!({"method": method})), Repeat::Natural, "{method}");
    }
    assert_eq!(repeat(json!({"method": "POST"})), Repeat::None);
    assert_eq!(repeat(json!({"method": "PATCH", "idempotency_header": ""})), Repeat::None);
    assert_eq!(repeat(json!({"method": "PATCH", "idempotency_header": "Idempotency-Key"})), Repeat::Token);
}
