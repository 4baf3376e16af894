//! What `config/channels.yaml` says for itself.

use lettre::Address;

use crate::config::channels::{Channels, REPLY_NAME};
use crate::config::check::settings::secret;
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::domain::action::{ACTIONS, Reach};
use crate::domain::ladder::ChannelName;

/// Checks `config/channels.yaml`.
pub(in crate::config) fn channels(report: &mut Reporter<'_>, channels: &Channels) {
    let top = Path::top();
    if let Some(url) = &channels.public_url {
        let plain = ["http", "https"].contains(&url.scheme())
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/";
        if !plain {
            let mend = "write scheme and host alone, such as `https://steward.example.com`";
            report.value(
                &top.key("public_url"),
                format!("`{url}` is not where Steward can be reached"),
                mend,
            );
        }
    }
    if let Some(slack) = &channels.slack {
        let path = top.key("slack");
        secret(report, &path.key("token"), Some(&slack.token));
        secret(report, &path.key("app_token"), slack.app_token.as_ref());
        secret(report, &path.key("signing_secret"), slack.signing_secret.as_ref());
        let ids = [("channel", &slack.channel, "CDGU"), ("owner", &slack.owner, "UW")];
        for (key, id, kinds) in ids {
            slack_id(report, &path.key(key), id, kinds);
        }
        for (index, id) in slack.approvers.iter().enumerate() {
            slack_id(report, &path.key("approvers").index(index), id, "UW");
        }
        if slack.app_token.is_none() && slack.signing_secret.is_none() {
            let mend = "add `app_token` (Socket Mode) or `signing_secret` (HTTP)";
            report.warn(&path, "nobody can decide in Slack, only be told", mend);
        }
    }
    if let Some(email) = &channels.email {
        for (key, address) in [("to", &email.to), ("reply_to", &email.reply_to)] {
            let Some(address) = address else { continue };
            if address.parse::<Address>().is_err() {
                let path = top.key("email").key(key);
                report.value(
                    &path,
                    format!("`{address}` is not an address"),
                    "write it as `name@example.com`",
                );
            }
        }
    }
    for name in channels.delay.keys() {
        held(report, &top.key("delay").key(name), name);
    }
    for (risk, ladder) in &channels.ladder {
        let Some(expire) = ladder.expire else { continue };
        if ladder.rungs.iter().any(|rung| rung.after >= expire) {
            let path = top.key("ladder").key(risk.as_str()).key("expire");
            report.warn(&path, "it expires before the last rung is climbed", "let it expire later");
        }
    }
    if let Some(address) = channels.email.as_ref().and_then(|email| email.reply_to.as_deref()) {
        let name = address.rsplit_once('@').map_or(address, |(name, _)| name);
        if name.len() > REPLY_NAME || name.contains(['+', '"']) {
            let mend = format!("write a name of at most {REPLY_NAME} plain characters before the @");
            let path = top.key("email").key("reply_to");
            report.value(&path, format!("`{address}` leaves no room for a key behind its name"), mend);
        }
    }
    let there = |name: ChannelName| channels.configured().contains(&name);
    let rungs = channels.ladder.iter().flat_map(|(risk, ladder)| {
        let path = top.key("ladder").key(risk.as_str()).key("rungs");
        ladder.rungs.iter().enumerate().map(move |(n, rung)| (path.index(n).key("channels"), &rung.channels))
    });
    let notices =
        channels.notices.iter().map(|(severity, named)| (top.key("notices").key(severity.as_str()), named));
    let digest = channels.digest.iter().map(|digest| (top.key("digest").key("channels"), &digest.channels));
    for (path, named) in rungs.chain(notices).chain(digest) {
        for name in named.iter().filter(|name| !there(**name)) {
            let message = format!("there is no `{}` in this file", name.as_str());
            report.value(&path, message, "add it above, or take it away here");
        }
    }
}

/// Only what leaves the house can be called back in time: all else is put right afterwards.
pub(in crate::config) fn held(report: &mut Reporter<'_>, path: &Path, name: &str) {
    let leaving: Vec<&str> =
        ACTIONS.iter().filter(|spec| spec.reach == Reach::External).map(|spec| spec.name).collect();
    if !leaving.contains(&name) {
        let mend = nearest::mend(name, "the actions that leave the house", &leaving);
        report.key(path, format!("`{name}` cannot be held back"), mend);
    }
}

fn slack_id(report: &mut Reporter<'_>, path: &Path, id: &str, kinds: &str) {
    let sound = id.len() >= 2
        && id.starts_with(|first| kinds.contains(first))
        && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if !sound {
        let mend = "copy the id from the profile or the channel's details in Slack, such as `U0123456789`";
        report.value(path, format!("`{id}` is not an id of Slack's"), mend);
    }
}
