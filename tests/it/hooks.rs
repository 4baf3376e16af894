//! Hooks over real connections: what the headers of a request refuse needs no body.

use jiff::Timestamp;
use serde_json::Value;
use steward::config::secret::Secret;
use steward::triggers::webhook::sign;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{App, app_with};

const BODY: &[u8] = br#"{"n": 1}"#;

async fn orders() -> App {
    app_with(|workspace| {
        let secret = workspace.join("orders-secret");
        std::fs::write(&secret, "s3cret").unwrap();
        let workflow = format!(
            "workflow: orders\ntitle: Orders\non:\n  - webhook: {{ path: orders, secret: \"file:{}\" }}\n\
             input: {{ type: object, required: [n], properties: {{ n: {{ type: integer }} }} }}\n\
             steps:\n  - id: note\n    action: noop\n    with: {{ value: done }}\n",
            secret.display()
        );
        std::fs::write(workspace.join("config/workflows/orders.yaml"), workflow).unwrap();
    })
    .await
}

/// Sends the head of a request that announces [`BODY`], and of the body no byte.
async fn head(app: &App, path: &str, headers: &[(&str, &str)]) -> TcpStream {
    let address = app.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        BODY.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The status and the body of the answer.
async fn answer(mut stream: TcpStream) -> (u16, Value) {
    let mut whole = Vec::new();
    let _ = stream.read_to_end(&mut whole).await; // who is refused early may find the connection reset
    let text = String::from_utf8_lossy(&whole);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
    (status.unwrap_or_else(|| panic!("{text}")), body.unwrap_or_default())
}

#[tokio::test]
async fn a_hook_refuses_what_its_headers_refuse_before_the_body_has_come() {
    let app = orders().await;
    let secret = Secret::new("s3cret".into());
    let now = Timestamp::now().as_second();
    let (at, old) = (now.to_string(), (now - 301).to_string());
    let good = sign(&secret, now, None, BODY);
    let long = "k".repeat(201);
    let (time, signature, key) = ("X-Steward-Timestamp", "X-Steward-Signature", "Idempotency-Key");
    for (path, headers, status) in [
        ("/hooks/orders", vec![], 401),
        ("/hooks/orders", vec![(time, at.as_str())], 401),
        ("/hooks/orders", vec![(signature, good.as_str())], 401),
        ("/hooks/orders", vec![(time, "+1"), (signature, &good)], 401),
        ("/hooks/orders", vec![(time, &at), (signature, "sha256=00")], 401),
        ("/hooks/orders", vec![(time, &at), (signature, &good[7..])], 401),
        ("/hooks/orders", vec![(time, &old), (signature, &good)], 401),
        ("/hooks/orders", vec![(time, &at), (time, &at), (signature, &good)], 400),
        ("/hooks/orders", vec![(time, &at), (signature, &good), (key, "")], 400),
        ("/hooks/orders", vec![(time, &at), (signature, &good), (key, "a b")], 400),
        ("/hooks/orders", vec![(time, &at), (signature, &good), (key, &long)], 400),
        ("/hooks/nobody", vec![(time, &at), (signature, &good)], 404),
    ] {
        // A request whose body is waited for is ended after a while, with another status.
        let (refused, problem) = answer(head(&app, path, &headers).await).await;
        assert_eq!(refused, status, "{path} {headers:?}: {problem}");
    }
    assert_eq!(app.get("/api/v1/runs").await["runs"], serde_json::json!([]));
    // What nothing is wrong with is heard to its end, and only then believed.
    for (body, status) in [(&br#"{"n": 2}"#[..], 401), (BODY, 201), (BODY, 200)] {
        let mut stream = head(&app, "/hooks/orders", &[(time, &at), (signature, &good)]).await;
        stream.write_all(body).await.unwrap();
        let (answered, said) = answer(stream).await;
        assert_eq!(answered, status, "{said}");
    }
    app.stop().await;
}
