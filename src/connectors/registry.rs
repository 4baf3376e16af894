//! Which connector serves which action.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::connectors::Connector;
use crate::connectors::email::Email;
use crate::connectors::http::Http;
use crate::connectors::records::Records;
use crate::connectors::stages::Stages;
use crate::domain::action::{self, Action, Reach, Repeat};

/// Every connector by the actions it serves.
#[derive(Clone)]
pub struct Connectors {
    by_action: BTreeMap<&'static str, Arc<dyn Connector>>,
}

impl Connectors {
    /// All connectors of a workspace.
    #[must_use]
    pub fn new(email: Email, http: Http, records: Records) -> Self {
        let stages = Stages::new(records.store().clone());
        Self::of([Arc::new(email) as Arc<dyn Connector>, Arc::new(http), Arc::new(records), Arc::new(stages)])
    }

    /// These connectors; of two that serve the same action, the later one.
    pub fn of(connectors: impl IntoIterator<Item = Arc<dyn Connector>>) -> Self {
        let mut by_action = BTreeMap::new();
        for connector in connectors {
            by_action.extend(connector.actions().iter().map(|action| (*action, Arc::clone(&connector))));
        }
        Self { by_action }
    }

    /// The connector that carries `action` out; none for an action that only reads or computes.
    #[must_use]
    pub fn get(&self, action: &str) -> Option<Arc<dyn Connector>> {
        self.by_action.get(action).map(Arc::clone)
    }

    /// What happens when `action` is carried out twice. Of an action that nobody serves nothing is known.
    #[must_use]
    pub fn repeat(&self, action: &Action) -> Repeat {
        if let Some(connector) = self.by_action.get(action.action.as_str()) {
            return connector.repeat(action);
        }
        match action::spec(&action.action).map(|spec| spec.reach) {
            Some(Reach::Pure | Reach::Read) => Repeat::Natural,
            Some(Reach::Internal | Reach::External) | None => Repeat::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::connectors as config;
    use crate::domain::action::ACTIONS;
    use crate::store::Store;

    fn all() -> [Arc<dyn Connector>; 4] {
        let email = Email::new(&config::Email::default(), "outbox").unwrap();
        let http = Http::new(&config::Http::default()).unwrap();
        let records = Records::new(Store::new(tokio_postgres::Config::new()).unwrap());
        let stages = Stages::new(records.store().clone());
        [Arc::new(email), Arc::new(http), Arc::new(records), Arc::new(stages)]
    }

    #[tokio::test]
    async fn every_action_with_an_effect_has_exactly_one_connector_and_no_connector_anything_else() {
        let mut served: Vec<_> = all().iter().flat_map(|connector| connector.actions()).copied().collect();
        served.sort_unstable();
        let with_effect: Vec<_> =
            ACTIONS.iter().filter(|spec| spec.reach >= Reach::Internal).map(|spec| spec.name).collect();
        assert_eq!(served, with_effect);
        let connectors = Connectors::of(all());
        for spec in ACTIONS {
            assert_eq!(connectors.get(spec.name).is_some(), spec.reach >= Reach::Internal, "{}", spec.name);
        }
    }

    #[tokio::test]
    async fn an_action_that_nobody_serves_is_never_repeated() {
        let connectors = Connectors::of(all());
        let repeat = |name: &str| connectors.repeat(&Action { action: name.into(), params: json!({}) });
        assert_eq!(repeat("money.send"), Repeat::None);
        assert_eq!((repeat("noop"), repeat("records.get")), (Repeat::Natural, Repeat::Natural));
        assert_eq!((repeat("email.send"), repeat("records.put")), (Repeat::Natural, Repeat::Natural));
    }
}
