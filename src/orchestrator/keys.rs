//! Keys that others do not take any more: the owner hears of each once, until it is taken again.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::domain::action::Action;
use crate::domain::event::ErrorKind;
use crate::domain::notice::{NoticeKind, Severity};
use crate::domain::plan::EffectResult;
use crate::orchestrator::engine::Engine;
use crate::store::notices::News;
use crate::store::{Store, StoreError};

/// Notices that are read when a node starts: there are as many keys as connectors and hosts.
const MOST: i64 = 1_000;

/// Whose keys are known to be refused: of all others nothing is asked when an effect succeeds.
#[derive(Default)]
pub struct Refused(Mutex<BTreeSet<String>>);

impl Refused {
    /// Those of which the owner was told before this start.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let kind = NoticeKind::ConnectorKey.as_str();
        let standing = store.notices(true, MOST).await?.into_iter().filter(|notice| notice.kind == kind);
        Ok(Self(Mutex::new(standing.map(|notice| notice.subject).collect())))
    }

    fn add(&self, subject: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.to_owned());
    }

    fn remove(&self, subject: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(subject)
    }
}

/// Learns from the end of an effect whether its key was taken.
pub(super) async fn learn(engine: &Engine, action: &Action, result: &EffectResult) {
    match result {
        EffectResult::Failed(error) if error.kind == ErrorKind::KeyRefused => {
            let subject = subject(action);
            engine.refused.add(&subject);
            let title = format!("{subject} does not accept Steward's key");
            let detail = format!(
                "{}. Nothing goes out there until the key is mended; what failed can be retried then.",
                error.message.trim_end_matches('.')
            );
            let news = News {
                kind: NoticeKind::ConnectorKey,
                subject: &subject,
                severity: Severity::Critical,
                title: &title,
                detail: &detail,
                run: None,
            };
            engine.tell_owner(&news).await;
        }
        EffectResult::Succeeded(_) => {
            let subject = subject(action);
            if engine.refused.remove(&subject)
                && let Err(error) = engine.store.notice_over(NoticeKind::ConnectorKey, &subject).await
            {
                tracing::warn!(%error, subject, "a notice stands although it is over");
            }
        }
        EffectResult::Failed(_) | EffectResult::Unknown(_) | EffectResult::Absent => {}
    }
}

/// The mail server is one; of web services each host has a key of its own.
fn subject(action: &Action) -> String {
    let connector = action.action.split('.').next().unwrap_or_default();
    let host = action.text("url").and_then(|url| url::Url::parse(url).ok());
    match host.as_ref().and_then(url::Url::host_str) {
        Some(host) => format!("{connector} {host}"),
        None => connector.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_belongs_to_a_connector_and_on_the_web_to_a_host() {
        let of = |action: &str, params| subject(&Action { action: action.into(), params });
        assert_eq!(of("email.send", json!({"to": "a@x.example"})), "email");
        assert_eq!(of("http.request", json!({"url": "https://api.example/pay?key=1"})), "http api.example");
    }
}
