//! Into the web inbox and out of it: links that work once, sessions that end.

use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use crate::support::visitor::{Visitor, link, secret, seen};
use crate::support::{App, app, app_with, eventually};

/// The name of the session's cookie where there is no TLS.
pub fn cookie_name(app: &App) -> String {
    format!("steward-{}", app.url.rsplit(':').next().unwrap())
}

#[tokio::test]
async fn a_link_is_not_used_up_by_looking_and_signs_in_once() {
    let app = app().await;
    let link = link(&app).await;
    let path = link.strip_prefix(&app.url).expect("the link leads to this service").to_owned();
    let visitor = Visitor::new(&app);
    for method in [Method::GET, Method::HEAD, Method::GET, Method::GET] {
        let looked = seen(visitor.request(method, &path).send().await.unwrap()).await;
        assert_eq!(looked.status, 200);
        assert!(looked.headers.get("set-cookie").is_none());
    }
    assert!(visitor.get(&path).await.body.contains("method=\"post\""));
    // Of those who press the button at once, one gets in.
    let all = futures_util::future::join_all((0..8).map(|_| visitor.enter(secret(&link)))).await;
    let inside: Vec<_> = all.iter().filter(|seen| seen.status == 303).collect();
    let [inside] = inside[..] else { panic!("{} got in", inside.len()) };
    let cookie = inside.header("set-cookie");
    assert!(cookie.starts_with(&format!("{}=", cookie_name(&app))), "{cookie}");
    assert!(
        cookie.contains("; HttpOnly; SameSite=Lax")
            && cookie.contains("Path=/;")
            && !cookie.contains("Secure"),
        "{cookie}"
    );
    let used = visitor.get(&path).await;
    assert!(used.body.contains("used already") && !used.body.contains("name=\"link\""), "{}", used.body);
    // Neither secret is anywhere in the database.
    let session = cookie.split(['=', ';']).nth(1).unwrap();
    let (client, connection) = app.store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    for table in ["sessions", "sign_in_links"] {
        let rows = client.query(&format!("select {table}::text from {table}"), &[]).await.unwrap();
        assert_eq!(rows.len(), 1, "{table}");
        let text: String = rows[0].get(0);
        assert!(!text.contains(session) && !text.contains(secret(&link)), "{text}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_link_that_is_too_old_unknown_or_void_signs_nobody_in_and_trying_is_bounded() {
    let app = app().await;
    let (client, connection) = app.store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let old = link(&app).await;
    let aged = "update sign_in_links set made_at = now() - interval '16 minutes', expires_at = now() - interval '1 second'";
    client.execute(aged, &[]).await.unwrap();
    let void = link(&app).await;
    let ended = app.client.delete(format!("{}/api/v1/sessions", app.url)).bearer_auth(&app.token);
    assert!(ended.send().await.unwrap().status().is_success());
    let visitor = Visitor::new(&app);
    for wrong in [secret(&old), secret(&void), "", "0", &"f".repeat(64)] {
        let seen = visitor.enter(wrong).await;
        assert_eq!(seen.status, 403, "{wrong}");
        assert!(seen.headers.get("set-cookie").is_none());
    }
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(visitor.enter("guess").await.status.as_u16());
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    // Who comes from another site's page does not even get to try.
    let fresh = link(&app).await;
    let forged = visitor.form("/sign-in", &[("link", secret(&fresh))]).header("sec-fetch-site", "cross-site");
    assert_eq!(forged.send().await.unwrap().status(), 403);
    app.stop().await;
}

#[tokio::test]
async fn a_flood_of_made_up_secrets_is_bounded_and_locks_nobody_out_who_has_a_good_one() {
    let app = app().await;
    let inside = Visitor::signed_in(&app).await;
    let outside = link(&app).await;
    let path = outside.strip_prefix(&app.url).unwrap().to_owned();
    let stranger = Visitor::new(&app);
    // As long as a good one is, and not.
    let made_up =
        |n: usize| format!("{n:064x}{}", if n.is_multiple_of(2) { "00".repeat(16) } else { String::new() });
    let looks = futures_util::future::join_all((0..40).map(|n| {
        let (mut forged, stranger, secret) = (Visitor::new(&app), &stranger, made_up(n));
        forged.cookie = Some(format!("{}={secret}", cookie_name(&app)));
        async move {
            let shown = stranger.get(&format!("/sign-in?link={secret}")).await.status.as_u16();
            let entered = stranger.enter(&secret).await.status.as_u16();
            [shown, entered, forged.get("/").await.status.as_u16()]
        }
    }));
    let statuses: Vec<u16> = looks.await.into_iter().flatten().collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused > 60, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 303, 403, 429].contains(status)), "{statuses:?}");
    // Whoever is in stays in, and who has a link comes in.
    for _ in 0..30 {
        assert_eq!(inside.get("/").await.status, 200);
    }
    let shown = stranger.get(&path).await;
    assert!(shown.status == 200 && shown.body.contains("name=\"link\""), "{}", shown.body);
    assert_eq!(stranger.enter(secret(&outside)).await.status, 303);
    let another = link(&app).await;
    assert_eq!(stranger.enter(secret(&another)).await.status, 303);
    app.stop().await;
}

#[tokio::test]
async fn strangers_who_never_finish_their_forms_take_no_place_of_the_owners() {
    let app = app().await;
    let inside = Visitor::signed_in(&app).await;
    let address = app.url.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /sign-in HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: 100\r\n\r\nlink="
    );
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let stranger = Visitor::new(&app);
    eventually("all places of strangers to be taken", || async {
        (stranger.get("/sign-in").await.status == 429).then_some(())
    })
    .await;
    assert_eq!(inside.get("/").await.status, 200);
    let link = link(&app).await; // asked for with the token
    let shown = stranger.get(link.strip_prefix(&app.url).unwrap()).await;
    assert!(shown.status == 200 && shown.body.contains("name=\"link\""), "{}", shown.body);
    drop(slow);
    app.stop().await;
}

#[tokio::test]
async fn a_session_ends_when_its_owner_leaves_everywhere_or_stays_away() {
    let app = app().await;
    let (client, connection) = app.store.config().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let is_in = async |visitor: &Visitor| visitor.get("/").await.status == 200;

    let (one, other) = (Visitor::signed_in(&app).await, Visitor::signed_in(&app).await);
    let csrf = one.get("/").await.field("csrf");
    let left = one.post("/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!((left.status.as_u16(), left.header("location")), (303, "/sign-in"));
    assert!(left.header("set-cookie").contains("Max-Age=0"));
    assert!(!is_in(&one).await && is_in(&other).await);

    for change in [
        "update sessions set last_used_at = now() - interval '8 days'",
        "update sessions set made_at = now() - interval '31 days', expires_at = now() - interval '1 second'",
    ] {
        let visitor = Visitor::signed_in(&app).await;
        assert!(is_in(&visitor).await);
        client.execute(change, &[]).await.unwrap();
        assert!(!is_in(&visitor).await, "{change}");
    }
    let (one, other) = (Visitor::signed_in(&app).await, Visitor::signed_in(&app).await);
    let ended = app
        .client
        .delete(format!("{}/api/v1/sessions", app.url))
        .bearer_auth(&app.token)
        .send()
        .await
        .unwrap();
    assert_eq!(ended.json::<Value>().await.unwrap()["ended"], 2);
    assert!(!is_in(&one).await && !is_in(&other).await);
    app.stop().await;
}

#[tokio::test]
async fn behind_tls_the_cookie_never_travels_in_the_clear() {
    let app = app_with(|workspace| {
        let path = workspace.join("config/channels.yaml");
        let channels = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{channels}\npublic_url: https://steward.example\n")).unwrap();
    })
    .await;
    let link = link(&app).await;
    assert!(link.starts_with("https://steward.example/sign-in?link="), "{link}");
    let seen = Visitor::new(&app).enter(secret(&link)).await;
    let cookie = seen.header("set-cookie");
    assert!(
        cookie.starts_with("__Host-steward=") && cookie.ends_with("; Secure") && cookie.contains("Path=/;"),
        "{cookie}"
    );
    app.stop().await;
}
