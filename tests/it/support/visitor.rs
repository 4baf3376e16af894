//! Somebody at the pages with nothing but HTTP: follows no redirect, keeps the one cookie, runs no script.

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::json;

use super::App;

pub struct Visitor {
    pub url: String,
    pub cookie: Option<String>,
    client: Client,
}

/// An answer, read.
pub struct Seen {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The value of the hidden field of that name; of its first one.
    pub fn field(&self, name: &str) -> String {
        let (_, rest) =
            self.body.split_once(&format!("name=\"{name}\" value=\"")).expect("the field is there");
        rest.split('"').next().unwrap().to_owned()
    }
}

/// A fresh sign-in link: its whole URL.
pub async fn link(app: &App) -> String {
    app.post("/api/v1/sign-in-links", json!({})).await["url"].as_str().unwrap().to_owned()
}

/// The secret of a link.
pub fn secret(link: &str) -> &str {
    link.split_once("link=").unwrap().1
}

impl Visitor {
    pub fn new(app: &App) -> Self {
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url: app.url.clone(), cookie: None, client }
    }

    /// One who is signed in.
    pub async fn signed_in(app: &App) -> Self {
        let mut visitor = Self::new(app);
        let seen = visitor.enter(secret(&link(app).await)).await;
        assert_eq!(seen.status, 303, "{}", seen.body);
        let cookie = seen.header("set-cookie").split(';').next().unwrap().to_owned();
        visitor.cookie = Some(cookie);
        visitor
    }

    /// Uses a link.
    pub async fn enter(&self, secret: &str) -> Seen {
        self.post("/sign-in", &[("link", secret)]).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request =
            self.client.request(method, format!("{}{path}", self.url)).header("accept", "text/html");
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Seen {
        seen(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Seen {
        seen(self.form(path, fields).send().await.unwrap()).await
    }

    pub fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.request(Method::POST, path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }
}

pub async fn seen(response: Response) -> Seen {
    Seen {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}
