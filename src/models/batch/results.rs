//! What the files of a batch that is over say: a line of JSON per call.

use serde_json::Value;

use crate::domain::ids::CallId;
use crate::models::error::clipped;
use crate::store::batches::{Ended, Fault};
use crate::store::calls::Body;

/// How much of what a provider says about an error is kept, characters.
const MESSAGE: usize = 200;

/// The calls of these lines; what cannot be read, or names no call, is left out. Packs each answer, where that
/// holds nobody up.
pub(super) async fn read(lines: Vec<Vec<u8>>) -> Vec<Ended> {
    let read = move || lines.iter().filter_map(|line| ended(line)).collect();
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn ended(line: &[u8]) -> Option<Ended> {
    let line: Value = serde_json::from_slice(line.trim_ascii()).ok()?;
    let id: CallId = line["custom_id"].as_str()?.parse().ok()?;
    let status = line["response"]["status_code"].as_u64().and_then(|status| u16::try_from(status).ok());
    let body = &line["response"]["body"];
    let how = match status {
        Some(status) if !body.is_null() => Ok((status, Body::pack(body.to_string().as_bytes()))),
        _ => {
            let error = &line["error"];
            let fault = match error["code"].as_str() {
                Some("batch_expired") => Fault::Expired,
                Some("batch_cancelled") => Fault::Cancelled,
                _ => Fault::Failed,
            };
            let why = error["message"].as_str().unwrap_or("the provider gave no answer to it");
            Err((fault, clipped(why, MESSAGE)))
        }
    };
    Some(Ended { id, how })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[tokio::test]
    async fn each_line_is_an_answer_an_error_or_nothing() {
        let id = "0190a5c8-0000-7000-8000-000000000001";
        let said = |line: Value| line.to_string().into_bytes();
        let lines = vec![
            said(
                json!({"custom_id": id, "response": {"status_code": 200, "body": {"choices": []}}, "error": null}),
            ),
            said(json!({"custom_id": id, "response": {"status_code": 429, "body": {"error": {}}}})),
            said(
                json!({"custom_id": id, "response": null, "error": {"code": "batch_expired", "message": "late"}}),
            ),
            said(json!({"custom_id": id, "response": {"status_code": 200}})),
            said(json!({"custom_id": "somebody else's", "response": {"status_code": 200, "body": {}}})),
            b"{half".to_vec(),
            Vec::new(),
        ];
        let told: Vec<_> =
            read(lines).await.into_iter().map(|ended| ended.how.map(|(status, _)| status)).collect();
        assert_eq!(
            told,
            [
                Ok(200),
                Ok(429),
                Err((Fault::Expired, "late".to_owned())),
                Err((Fault::Failed, "the provider gave no answer to it".to_owned())),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_reading(line in r#"[{}":a-z0-9,\[\]\\]{0,80}"#) {
            let _ = ended(line.as_bytes());
        }
    }
}
