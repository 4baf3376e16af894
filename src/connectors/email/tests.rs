use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;
use crate::config::secret::SecretRef;
use crate::domain::duration::Span;
use crate::domain::ids::EffectId;
use crate::domain::label::Label;

pub(super) fn call(body: &str) -> Call {
    let params = json!({"to": ["b@x.example", "c@x.example"], "subject": "s", "body": body});
    Call {
        effect: EffectId(uuid::Uuid::nil()),
        key: "run/reply/1".into(),
        action: Action { action: "email.send".into(), params },
        label: Label::Owner,
        at: "2026-03-01T09:30:00Z".parse().unwrap(),
    }
}

fn outbox(folder: &std::path::Path) -> Email {
    Email::new(&config::Email { from: "ada@studio.example".into(), smtp: None }, folder).unwrap()
}

fn response(result: EffectResult) -> Value {
    match result {
        EffectResult::Succeeded(response) => response,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_same_mail_twice_is_one_file_with_exactly_its_bytes() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("outbox");
    let email = outbox(&folder);
    let call = call("hello\n.\nworld");
    assert_eq!(email.probe(&call).await, EffectResult::Absent);
    let first = response(email.perform(&call).await);
    let again = response(email.perform(&call).await);
    assert_eq!(first, again);
    assert_eq!(response(email.probe(&call).await), first);
    assert_eq!(email.repeat(&call.action), Repeat::Natural);

    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(first["file"], name);
    assert!(name.starts_with("20260301T093000Z-") && name.ends_with(".eml"), "{name}");
    let bytes = std::fs::read(&files[0]).unwrap();
    assert_eq!(bytes, message::build(&call, &email.sender).unwrap().bytes);
    assert_eq!(first["sha256"], json!(Digest::of_bytes(&bytes)));
    assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_outbox_that_cannot_be_written_is_a_failure_that_may_pass() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let EffectResult::Failed(error) = outbox(&file).perform(&call("b")).await else { panic!() };
    assert!(error.kind.retryable(), "{error:?}");
}

#[test]
fn settings_under_which_no_mail_can_go_are_refused_with_the_mend() {
    let smtp = config::Smtp {
        host: "mail.studio.example".into(),
        port: None,
        security: config::Security::Tls,
        username: Some("ada".into()),
        password: None,
        timeout: Span::secs(1),
    };
    let new = |from: &str, smtp: &config::Smtp| {
        let config = config::Email { from: from.into(), smtp: Some(smtp.clone()) };
        Email::new(&config, "outbox").map(|_| ()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(new("nobody", &smtp), @r#"`email.from`: "nobody" is not an address: Invalid input; write `Name <address>` or an address"#);
    insta::assert_snapshot!(new("a@x.example", &smtp), @"`email.smtp.username` is set but `email.smtp.password` is not; write `password: env:NAME`");
    let unset = SecretRef::Env("STEWARD_TEST_NEVER_SET".into());
    insta::assert_snapshot!(new("a@x.example", &config::Smtp { password: Some(unset), ..smtp }), @"`email.smtp.password`: STEWARD_TEST_NEVER_SET is not set");
}
