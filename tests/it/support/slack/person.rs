//! Somebody with Slack on his screen: clicks what stands there and submits what opened, in the real formats.

use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};
use steward::config::secret::Secret;
use steward::reviews::slack::signature::sign;

use super::{CHANNEL, Fake, SIGNING_SECRET};

/// The button of a message.
pub fn button<'a>(message: &'a Value, action: &str) -> Option<&'a Value> {
    let blocks = message["blocks"].as_array()?;
    let rows = blocks.iter().filter(|block| block["type"] == "actions");
    rows.flat_map(|row| row["elements"].as_array().unwrap()).find(|button| button["action_id"] == action)
}

/// A click of `user` on a button of a message, as Slack tells of it.
pub fn click(fake: &Fake, message: &Value, action: &str, user: &str) -> Value {
    let button = button(message, action).unwrap_or_else(|| panic!("no button {action} in {message}"));
    press(fake, message, action, &button["value"], user)
}

/// A choice of `user` from the menu of a message, as Slack tells of it.
pub fn choose(fake: &Fake, message: &Value, word: &str, user: &str) -> Value {
    let menu = button(message, "more").unwrap_or_else(|| panic!("no menu in {message}"));
    let begins = |option: &&Value| option["value"].as_str().unwrap().starts_with(&format!("{word} "));
    let option = menu["options"].as_array().unwrap().iter().find(begins);
    pick(fake, message, option.unwrap_or_else(|| panic!("no {word} in {menu}")), user)
}

/// The same with any option.
pub fn pick(fake: &Fake, message: &Value, option: &Value, user: &str) -> Value {
    let mut payload = press(fake, message, "more", &Value::Null, user);
    payload["actions"] = json!([{
        "type": "overflow", "action_id": "more", "block_id": "Mb2", "selected_option": option,
        "action_ts": "1503435960.000001",
    }]);
    payload
}

/// The same with any value.
pub fn press(fake: &Fake, message: &Value, action: &str, value: &Value, user: &str) -> Value {
    json!({
        "type": "block_actions",
        "user": {"id": user, "username": "someone", "name": "someone", "team_id": "T1"},
        "api_app_id": "A1", "token": "unused", "team": {"id": "T1", "domain": "test"}, "enterprise": null,
        "is_enterprise_install": false, "trigger_id": fake.trigger(),
        "response_url": "https://hooks.slack.com/actions/T1/1/x",
        "container": {"type": "message", "message_ts": message["ts"], "channel_id": CHANNEL, "is_ephemeral": false},
        "channel": {"id": CHANNEL, "name": "reviews"}, "message": message, "state": {"values": {}},
        "actions": [{
            "type": "button", "action_id": action, "block_id": "Mb2", "value": value,
            "text": {"type": "plain_text", "text": "x", "emoji": false}, "action_ts": "1503435960.000001",
        }],
    })
}

/// A modal that `user` submits with these texts in its inputs, in their order.
pub fn submit(view: &Value, given: &[Option<&str>], user: &str) -> Value {
    let inputs = view["blocks"].as_array().unwrap().iter().filter(|block| block["type"] == "input");
    let mut values = json!({});
    for (input, text) in inputs.zip(given) {
        let (block, element) = (input["block_id"].as_str().unwrap(), &input["element"]);
        let kind = element["type"].as_str().unwrap();
        let state = match kind {
            "static_select" => {
                json!({"type": kind, "selected_option": text.map(|value| json!({"value": value}))})
            }
            _ => json!({"type": kind, "value": text}),
        };
        values[block] = json!({element["action_id"].as_str().unwrap(): state});
    }
    let mut view = view.clone();
    view["state"] = json!({"values": values});
    view["id"] = view["id"].as_str().unwrap_or("V1").into();
    json!({
        "type": "view_submission", "user": {"id": user, "name": "someone"}, "team": {"id": "T1"},
        "api_app_id": "A1", "token": "unused", "trigger_id": "1.2.3", "view": view, "response_urls": [],
    })
}

/// The body of a request that tells of an interaction.
pub fn form(payload: &Value) -> String {
    let mut url = reqwest::Url::parse("http://x/").unwrap();
    url.query_pairs_mut().append_pair("payload", &payload.to_string());
    url.query().unwrap().to_owned()
}

/// Sends a body to `/hooks/slack`, signed with `secret` at that moment.
pub async fn send(url: &str, body: String, secret: &str, at: i64) -> (StatusCode, Value) {
    let signature = sign(&Secret::new(secret.into()), at, body.as_bytes());
    let request = reqwest::Client::new()
        .post(format!("{url}/hooks/slack"))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-slack-request-timestamp", at.to_string())
        .header("x-slack-signature", signature)
        .body(body);
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap_or(Value::Null))
}

/// Tells of an interaction as Slack does: signed, now. What Slack is answered.
pub async fn tell(url: &str, payload: &Value) -> Value {
    let (status, answer) = send(url, form(payload), SIGNING_SECRET, Timestamp::now().as_second()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}
