//! A real headless Chromium, driven over its DevTools protocol through a pair of pipes: JSON, ended by a zero
//! byte. `script/browser` says where it is, and installs one where there is none.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{OnceCell, oneshot};

use super::{PATIENCE, eventually};

static BINARY: OnceCell<PathBuf> = OnceCell::const_new();

/// A screen.
#[derive(Clone, Copy)]
pub struct Screen {
    pub name: &'static str,
    pub width: u32,
    pub height: u32,
    pub touch: bool,
    pub dark: bool,
}

pub const DESKTOP: Screen = Screen { name: "desktop", width: 1280, height: 860, touch: false, dark: false };
pub const PHONE: Screen = Screen { name: "phone", width: 375, height: 740, touch: true, dark: false };

impl Screen {
    pub fn dark(self) -> Self {
        Self { dark: true, ..self }
    }
}

struct Wire {
    to: tokio::sync::Mutex<ChildStdin>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    complaints: Mutex<Vec<String>>,
    next: AtomicU64,
}

impl Wire {
    async fn call(&self, method: &str, params: Value, session: Option<&str>) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, receive) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, send);
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut to = self.to.lock().await;
        to.write_all(format!("{message}\0").as_bytes()).await.unwrap();
        to.flush().await.unwrap();
        drop(to);
        let answer = tokio::time::timeout(PATIENCE, receive).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {method}")).expect("the browser lives");
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    fn hear(&self, message: Value) {
        if let Some(id) = message["id"].as_u64() {
            if let Some(waiting) = self.waiting.lock().unwrap().remove(&id) {
                let _ = waiting.send(message);
            }
            return;
        }
        // What a page must never cause: a breach of its policy, or an error in a script of ours.
        let params = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                params["entry"]["text"].to_string()
            }
            Some("Runtime.exceptionThrown") => params["exceptionDetails"].to_string(),
            Some("Audits.issueAdded") if params["issue"]["code"] == "ContentSecurityPolicyIssue" => {
                params.to_string()
            }
            _ => return,
        };
        self.complaints.lock().unwrap().push(complaint);
    }
}

/// A browser with one profile of its own.
pub struct Browser {
    wire: Arc<Wire>,
    _child: Child,
    _profile: tempfile::TempDir,
}

/// A page in it.
pub struct Page {
    wire: Arc<Wire>,
    session: String,
    screen: Screen,
}

async fn find() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/script/browser");
    let output = Command::new(script).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success(), "script/browser found no browser");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
}

impl Browser {
    pub async fn start() -> Self {
        let binary = BINARY.get_or_init(find).await;
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on descriptors 3 and 4; a shell puts our pipes there.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#, "sh"])
            .arg(binary)
            .args([
                "--headless",
                "--remote-debugging-pipe",
                "--no-first-run",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            // The pages are ours, and its own sandbox cannot be had as root or in most containers.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut from = BufReader::new(child.stdout.take().unwrap());
        let wire = Arc::new(Wire {
            to: tokio::sync::Mutex::new(child.stdin.take().unwrap()),
            waiting: Mutex::default(),
            complaints: Mutex::default(),
            next: AtomicU64::new(1),
        });
        let hearing = wire.clone();
        tokio::spawn(async move {
            let mut message = Vec::new();
            while from.read_until(0, &mut message).await.is_ok_and(|count| count > 0) {
                if let Ok(value) = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message)) {
                    hearing.hear(value);
                }
                message.clear();
            }
            hearing.waiting.lock().unwrap().clear();
        });
        Self { wire, _child: child, _profile: profile }
    }

    /// A new page on a screen.
    pub async fn page(&self, screen: Screen) -> Page {
        let target = self.wire.call("Target.createTarget", json!({"url": "about:blank"}), None).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.wire.call("Target.attachToTarget", attach, None).await["sessionId"].clone();
        let mut page =
            Page { wire: self.wire.clone(), session: session.as_str().unwrap().to_owned(), screen };
        for domain in ["Page", "Runtime", "Log", "Audits"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.on(screen).await;
        page
    }

    /// Breaches of the pages' policy, and errors in their scripts.
    pub fn complaints(&self) -> Vec<String> {
        self.wire.complaints.lock().unwrap().clone()
    }
}

impl Page {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.wire.call(method, params, Some(&self.session)).await
    }

    /// Looks at the page on another screen.
    pub async fn on(&mut self, screen: Screen) {
        self.screen = screen;
        let metrics = json!({"width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": screen.touch});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if screen.dark { "dark" } else { "light" };
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Has the page run no script; what the test asks of it still works.
    pub async fn without_scripts(&self) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    /// Opens an address, and waits until it is there.
    pub async fn open(&self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url})).await;
        assert!(went.get("errorText").is_none(), "{url}: {went}");
        self.until(
            "the page being there",
            "document.readyState === 'complete' && location.href !== 'about:blank'",
        )
        .await;
    }

    pub async fn eval(&self, script: &str) -> Value {
        let params = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result.get("exceptionDetails").is_none(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true; a page that is on its way to another one is asked again.
    pub async fn until(&self, what: &str, script: &str) {
        eventually(&format!("{what} ({script})"), || async {
            let params = json!({"expression": script, "returnByValue": true});
            let result = self.call("Runtime.evaluate", params).await;
            (result["result"]["value"] == true).then_some(())
        })
        .await;
    }

    /// Waits for an element.
    pub async fn sees(&self, selector: &str) {
        self.until("an element", &format!("document.querySelector({}) !== null", json!(selector))).await;
    }

    pub async fn text(&self, selector: &str) -> String {
        let text =
            self.eval(&format!("document.querySelector({})?.innerText ?? null", json!(selector))).await;
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}")).to_owned()
    }

    /// Presses a key, as `KeyboardEvent.key` names it.
    pub async fn key(&self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r".to_owned()),
            "Tab" => (9, String::new()),
            "Escape" => (27, String::new()),
            letter => (u32::from(letter.to_uppercase().bytes().next().unwrap()), letter.to_owned()),
        };
        let name = if key.len() == 1 { format!("Key{}", key.to_uppercase()) } else { key.to_owned() };
        let mut down = json!({"type": "keyDown", "key": key, "code": name, "windowsVirtualKeyCode": code});
        if !text.is_empty() {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({"type": "keyUp", "key": key, "code": name, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Types into what has the focus.
    pub async fn write(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Clicks in the middle of an element: with the mouse, wherever it stands.
    pub async fn click(&self, selector: &str) {
        self.sees(selector).await;
        let place = self
            .eval(&format!(
                "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}}); \
                 const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
                json!(selector)
            ))
            .await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Keeps a picture of the whole page and one of the screen, named for the screen.
    pub async fn picture(&self, name: &str) {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("screens");
        std::fs::create_dir_all(&folder).unwrap();
        let shade = if self.screen.dark { "dark" } else { "light" };
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let bytes = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}-{}-{shade}.png", self.screen.name)), bytes).unwrap();
    }
}
