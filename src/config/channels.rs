//! `config/channels.yaml`: how the owner is reached when something waits for him or he should know something.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::config::secret::SecretRef;
use crate::domain::duration::Span;
use crate::domain::ladder::{ChannelName, Ladder, Quiet, Rung, Terms};
use crate::domain::notice::Severity;
use crate::domain::risk::RiskClass;

/// The whole file. Without it, everything waits in the web inbox, and nobody is told.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// The address under which the owner's browser reaches Steward, such as `https://steward.example.com`:
    /// where links lead. The address it listens on, when absent.
    #[serde(default)]
    pub public_url: Option<Url>,
    /// Hours in which the owner is not disturbed, in his time zone.
    #[serde(default)]
    pub quiet: Option<Quiet>,
    /// Slack.
    #[serde(default)]
    pub slack: Option<Slack>,
    /// Mail.
    #[serde(default)]
    pub email: Option<Email>,
    /// When the owner is told of a review, by its class of risk. For a class that is not here: at once over
    /// the first channel there is, again after four hours, and over all of them after a day.
    #[serde(default)]
    pub ladder: BTreeMap<RiskClass, Ladder>,
    /// How long an action waits once it may happen, by its name, such as `email.send: 2m`: until then it can
    /// be called back. A step's own `delay` comes before this one. At once, for an action that is not here.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub delay: BTreeMap<String, Span>,
    /// Over which channels the owner hears what he is not asked. For a severity that is not here: `critical`
    /// over all of them, `warning` over the first, `info` over none (the digest has it).
    #[serde(default)]
    pub notices: BTreeMap<Severity, BTreeSet<ChannelName>>,
    /// When the daily digest is sent, on the owner's clock, such as `08:00`. None, when absent.
    #[serde(default)]
    pub digest: Option<Digest>,
}

/// The owner's day in one message.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// When, on the owner's clock.
    #[schemars(with = "String")]
    pub at: jiff::civil::Time,
    /// Over which channels.
    pub channels: BTreeSet<ChannelName>,
}

/// A Slack app of the owner's own.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// The bot's token (`xoxb-`), as `env:NAME`.
    pub token: SecretRef,
    /// The channel or person that messages go to: an id such as `C0123456789` or `U0123456789`.
    pub channel: String,
    /// The owner's own id, such as `U0123456789`.
    pub owner: String,
    /// Who may decide besides the owner, by id. Empty: the owner alone.
    #[serde(default)]
    pub approvers: BTreeSet<String>,
    /// The app-level token (`xapp-`) for Socket Mode: no address of Steward's need be reachable then.
    #[serde(default)]
    pub app_token: Option<SecretRef>,
    /// The signing secret, for interactions over HTTP at `/hooks/slack`.
    #[serde(default)]
    pub signing_secret: Option<SecretRef>,
    /// Where Slack's methods are; Slack's own address when absent.
    #[serde(default)]
    pub api: Option<Url>,
}

/// The longest name, before the @, of an address for replies: a key of 42 characters and a plus stand behind it,
/// and all of it fits into 64 (RFC 5321, 4.5.3.1.1).
pub const REPLY_NAME: usize = 21;

/// Mail to the owner. It leaves through the server of `connectors.yaml`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// Where it goes; the owner's address of the settings when absent.
    #[serde(default)]
    pub to: Option<String>,
    /// The address replies come back to: mail to `NAME+KEY@DOMAIN` must reach Steward. Its name has at most 21
    /// characters and no plus. Without one, nobody can answer by mail, only by the link.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// How long a link lives; `3d` when absent.
    #[serde(default = "three_days")]
    #[schemars(with = "String", extend("format" = "span"))]
    pub link: Span,
}

fn three_days() -> Span {
    Span::secs(3 * 86_400)
}

/// The URL of a page of Steward's, where the owner's browser reaches it at `base`; `path` begins with a slash.
#[must_use]
pub fn page(base: &Url, path: &str) -> String {
    format!("{}{path}", base.as_str().trim_end_matches('/'))
}

impl Channels {
    /// The channels there are, in the order in which they are preferred.
    #[must_use]
    pub fn configured(&self) -> Vec<ChannelName> {
        let slack = self.slack.iter().map(|_| ChannelName::Slack);
        slack.chain(self.email.iter().map(|_| ChannelName::Email)).collect()
    }

    /// When the owner is told of a review of this class, over channels that there are.
    #[must_use]
    pub fn ladder(&self, risk: RiskClass) -> Ladder {
        let configured = self.configured();
        let mut ladder = self.ladder.get(&risk).cloned().unwrap_or_else(|| usual(&configured));
        for rung in &mut ladder.rungs {
            rung.channels.retain(|channel| configured.contains(channel));
        }
        ladder.rungs.retain(|rung| !rung.channels.is_empty());
        ladder.rungs.sort_by_key(|rung| rung.after);
        ladder
    }

    /// What holds for the reviews and effects of every workflow that says nothing of its own.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let expire = self.ladder.iter().filter_map(|(risk, ladder)| Some((*risk, ladder.expire?)));
        Terms { expire: expire.collect(), delay: self.delay.clone() }
    }

    /// Over which channels the owner hears of something that matters so much.
    #[must_use]
    pub fn notices(&self, severity: Severity) -> BTreeSet<ChannelName> {
        let configured = self.configured();
        match self.notices.get(&severity) {
            Some(named) => named.iter().copied().filter(|name| configured.contains(name)).collect(),
            None => match severity {
                Severity::Info => BTreeSet::new(),
                Severity::Warning => configured.into_iter().take(1).collect(),
                Severity::Critical => configured.into_iter().collect(),
            },
        }
    }

    /// The secrets it names.
    pub(in crate::config) fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let slack = self.slack.iter();
        slack.flat_map(|slack| {
            [Some(&slack.token), slack.app_token.as_ref(), slack.signing_secret.as_ref()]
                .into_iter()
                .flatten()
        })
    }
}

fn usual(configured: &[ChannelName]) -> Ladder {
    let rung = |secs, channels: &[ChannelName]| Rung {
        after: Span::secs(secs),
        channels: channels.iter().copied().collect(),
    };
    let first = &configured[..configured.len().min(1)];
    let rungs = vec![rung(0, first), rung(4 * 3600, first), rung(86_400, configured)];
    Ladder { rungs, ..Ladder::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(text: &str) -> Channels {
        serde_saphyr::from_str(text).unwrap()
    }

    const SLACK: &str = "slack: { token: \"env:T\", channel: C1, owner: U1 }\n";

    #[test]
    fn without_a_word_the_owner_is_told_at_once_again_and_then_everywhere() {
        let both = channels(&format!("{SLACK}email: {{}}\n"));
        let ladder = both.ladder(RiskClass::Low);
        let told: Vec<_> = ladder.rungs.iter().map(|rung| rung.channels.len()).collect();
        assert_eq!(told, [1, 1, 2]);
        assert!(Channels::default().ladder(RiskClass::High).rungs.is_empty());
    }

    #[test]
    fn a_rung_names_no_channel_that_is_not_there() {
        let text = format!("{SLACK}ladder: {{ high: {{ rungs: [{{ after: 0s, channels: [email] }}] }} }}\n");
        assert!(channels(&text).ladder(RiskClass::High).rungs.is_empty());
    }

    #[test]
    fn notices_go_by_their_severity() {
        let both = channels(&format!("{SLACK}email: {{}}\nnotices: {{ warning: [email] }}\n"));
        assert_eq!(both.notices(Severity::Critical).len(), 2);
        assert_eq!(both.notices(Severity::Warning), [ChannelName::Email].into());
        assert!(both.notices(Severity::Info).is_empty());
    }
}
