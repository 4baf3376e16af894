//! What Slack says when somebody clicks or submits, <https://docs.slack.dev/reference/interaction-payloads>:
//! only what is used of it. Nothing of it is believed but who clicked what: everything else is looked up.

use serde::Deserialize;
use serde_json::Value;

/// An interaction.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Payload {
    /// Buttons were clicked.
    BlockActions {
        /// By whom.
        user: Person,
        /// What opens a modal, for three seconds.
        trigger_id: String,
        /// Where.
        #[serde(default)]
        container: Container,
        /// Which.
        actions: Vec<Press>,
    },
    /// A modal was submitted.
    ViewSubmission {
        /// By whom.
        user: Person,
        /// Which.
        view: View,
    },
    /// Something that Steward offers nobody.
    #[serde(other)]
    Other,
}

/// Who did it.
#[derive(Clone, Debug, Deserialize)]
pub struct Person {
    /// Slack's id.
    pub id: String,
}

/// Where buttons stand; empty in a modal.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Container {
    /// The channel.
    #[serde(default)]
    pub channel_id: Option<String>,
    /// The message.
    #[serde(default)]
    pub message_ts: Option<String>,
}

/// A button that was clicked, or a menu that something was chosen from.
#[derive(Clone, Debug, Deserialize)]
pub struct Press {
    /// Which.
    pub action_id: String,
    /// What it carries.
    #[serde(default)]
    pub value: Option<String>,
    /// What was chosen, of a menu.
    #[serde(default)]
    pub selected_option: Option<Chosen>,
}

/// What was chosen from a menu.
#[derive(Clone, Debug, Deserialize)]
pub struct Chosen {
    /// What it carries.
    pub value: String,
}

/// A modal that was submitted.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    /// Slack's id of it: another one each time a modal is opened.
    #[serde(default)]
    pub id: String,
    /// Which.
    #[serde(default)]
    pub callback_id: String,
    /// What it carries.
    #[serde(default)]
    pub private_metadata: String,
    /// What stands in its inputs.
    #[serde(default)]
    pub state: Value,
}

/// It is no interaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this is not an interaction of Slack's")]
pub struct NotAnInteraction;

impl Payload {
    /// Reads the body of a request: a form with one field, `payload`.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_form(body: &[u8]) -> Result<Self, NotAnInteraction> {
        let mut fields = url::form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
        let (_, payload) = fields.next().ok_or(NotAnInteraction)?;
        match fields.next() {
            None => serde_json::from_str(&payload).map_err(|_| NotAnInteraction),
            Some(_) => Err(NotAnInteraction),
        }
    }

    /// Reads the payload of an envelope of Socket Mode.
    ///
    /// # Errors
    /// When it is none.
    pub fn of_value(value: &Value) -> Result<Self, NotAnInteraction> {
        Self::deserialize(value).map_err(|_| NotAnInteraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn form(payload: &str) -> Vec<u8> {
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", payload)
            .finish()
            .into_bytes()
    }

    #[test]
    fn a_click_is_read_for_who_clicked_what_and_where_and_for_nothing_else() {
        let click = json!({
            "type": "block_actions", "user": {"id": "U1", "name": "x"}, "trigger_id": "1.2.3",
            "container": {"type": "message", "channel_id": "C1", "message_ts": "1.1"}, "message": {"text": "any"},
            "actions": [{"type": "button", "action_id": "approve", "value": "v", "block_id": "b"}],
        });
        let Ok(Payload::BlockActions { user, container, actions, .. }) =
            Payload::of_form(&form(&click.to_string()))
        else {
            panic!("{click}")
        };
        assert_eq!((user.id.as_str(), container.channel_id.as_deref()), ("U1", Some("C1")));
        assert_eq!((actions[0].action_id.as_str(), actions[0].value.as_deref()), ("approve", Some("v")));
        assert!(matches!(Payload::of_form(&form(r#"{"type":"view_closed"}"#)), Ok(Payload::Other)));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_interaction_or_none(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            prop_assert_eq!(Payload::of_form(&bytes).err(), Some(NotAnInteraction));
            prop_assert_eq!(Payload::of_form(&form(&text)).err(), Some(NotAnInteraction));
        }
    }
}
