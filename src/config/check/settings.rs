//! Settings and connectors: what each of them says for itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lettre::Address;
use lettre::message::Mailbox;

use crate::config::check::money;
use crate::config::connectors::Connectors;
use crate::config::document::Reporter;
use crate::config::nearest;
use crate::config::node::Path;
use crate::config::secret::SecretRef;
use crate::config::settings::Settings;
use crate::domain::retention::{Keep, SHORTEST};

/// A secret that is named but not there: what needs it is passed over until it is.
pub(super) fn secret(report: &mut Reporter<'_>, path: &Path, secret: Option<&SecretRef>) {
    let Some(secret) = secret.filter(|secret| secret.resolve().is_none()) else { return };
    let (message, mend) = match secret {
        SecretRef::Env(variable) => (
            format!("the environment has no `{variable}`"),
            format!("set it before `steward up`: `export {variable}=…`"),
        ),
        SecretRef::File(path) => (
            format!("the file `{}` is not there, empty or unreadable", path.display()),
            "put the secret into it before `steward up`, readable for whoever runs that alone".to_owned(),
        ),
    };
    report.warn(path, message, mend);
}

/// Checks `config/settings.yaml`.
pub(in crate::config) fn settings(report: &mut Reporter<'_>, settings: &Settings) {
    let workspace = Path::top().key("workspace");
    address(report, &workspace.key("email"), &settings.workspace.email);
    if jiff::tz::TimeZone::get(&settings.workspace.time_zone).is_err() {
        let message = format!("there is no time zone `{}`", settings.workspace.time_zone);
        report.value(&workspace.key("time_zone"), message, "write its IANA name, such as `Europe/Oslo`");
    }
    let currency = &settings.workspace.currency;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
        let message = format!("`{currency}` is not a currency");
        report.value(&workspace.key("currency"), message, "write three capital letters, such as `USD`");
    }
    money::spending(report, &settings.budget, currency);
    mailboxes(report, settings);
    retention(report, settings.retention);
    secret(report, &Path::top().key("database").key("url"), settings.database.as_ref().map(|d| &d.url));
}

/// Checks how long finished runs are kept, in the settings or in a workflow.
pub(super) fn retention(report: &mut Reporter<'_>, keep: Option<Keep>) {
    let Some(Keep::For(span)) = keep else { return };
    if span < SHORTEST {
        let message =
            format!("`{span}` is too short: a run's keys go with it, and senders may repeat for days");
        report.value(&Path::top().key("retention"), message, format!("write at least `{SHORTEST}`"));
    }
}

fn mailboxes(report: &mut Reporter<'_>, settings: &Settings) {
    let path = Path::top().key("mailboxes");
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (name, addresses) in &settings.mailboxes {
        let path = path.key(name);
        if addresses.is_empty() && settings.default_mailbox.as_ref() != Some(name) {
            let message = format!("no mail reaches the mailbox `{name}`");
            report.value(&path, message, "list at least one address, or make it the `default_mailbox`");
        }
        for (index, text) in addresses.iter().enumerate() {
            let path = path.index(index);
            address(report, &path, text);
            match seen.entry(text.to_lowercase()) {
                Entry::Vacant(free) => {
                    free.insert(name);
                }
                Entry::Occupied(taken) => {
                    let message = format!("`{text}` belongs to the mailbox `{}` already", taken.get());
                    report.value(&path, message, "keep it in one mailbox");
                }
            }
        }
    }
    if let Some(default) = settings.default_mailbox.as_ref().filter(|d| !settings.mailboxes.contains_key(*d))
    {
        let known: Vec<&str> = settings.mailboxes.keys().map(String::as_str).collect();
        let mend = nearest::mend(default, "the mailboxes", &known);
        report.value(&Path::top().key("default_mailbox"), format!("there is no mailbox `{default}`"), mend);
    }
}

fn address(report: &mut Reporter<'_>, path: &Path, text: &str) {
    if text.parse::<Address>().is_err() {
        report.value(path, format!("`{text}` is not an email address"), "write it as `name@domain`");
    }
}

/// Checks `config/connectors.yaml`.
pub(in crate::config) fn connectors(report: &mut Reporter<'_>, connectors: &Connectors) {
    let email = Path::top().key("email");
    if connectors.email.from.parse::<Mailbox>().is_err() {
        let message = format!("`{}` is not a sender", connectors.email.from);
        report.value(&email.key("from"), message, "write it as `Name <name@domain>` or `name@domain`");
    }
    if let Some(smtp) = &connectors.email.smtp {
        let path = email.key("smtp");
        secret(report, &path.key("password"), smtp.password.as_ref());
        if smtp.username.is_some() != smtp.password.is_some() {
            let lacks = if smtp.username.is_some() { "password" } else { "username" };
            report.value(
                &path,
                format!("`smtp` lacks `{lacks}`"),
                "give both `username` and `password`, or neither",
            );
        }
    }
    for (index, host) in connectors.http.allow.iter().enumerate() {
        let known = url::Url::parse(&format!("http://{host}"));
        let plain = !host.is_empty()
            && known.is_ok_and(|url| {
                url.path() == "/"
                    && url.query().is_none()
                    && url.username().is_empty()
                    && !host.ends_with('/')
            });
        if !plain {
            let path = Path::top().key("http").key("allow").index(index);
            let mend = "write the name alone, such as `api.example.com` or `localhost:8080`";
            report.value(&path, format!("`{host}` is not a host"), mend);
        }
    }
}
