//! Whom or what an action reaches: each address and URL by itself, in one spelling.

use std::collections::BTreeSet;

use serde_json::Value;
use url::{Host, Url};

use crate::domain::action::{Action, ActionSpec, Labels};
use crate::domain::fold::{is_invisible, quoted};
use crate::domain::label::Label;

/// The longest spelling that is kept, bytes: longer than an address can be.
const MAX_KEY: usize = 500;

/// One address or URL that an action reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The parameter it stands in.
    pub param: &'static str,
    /// Where that parameter came from.
    pub label: Label,
    /// As it is written.
    pub text: String,
    /// The one spelling, for counting: an address in lower case, a URL without what stands after its path.
    pub key: String,
    /// Its domain or host in ASCII; none of something that is neither address nor URL.
    pub domain: Option<String>,
    /// What the owner's list is searched for; nothing when it is not plainly one address or URL, so that
    /// nobody can know it.
    known_as: Vec<String>,
}

impl Target {
    /// Whether it is on a list of spellings made by [`spelling`].
    #[must_use]
    pub fn is_in(&self, known: &BTreeSet<String>) -> bool {
        self.known_as.iter().any(|spelling| known.contains(spelling))
    }

    /// The spellings under which it may be known.
    #[must_use]
    pub fn known_as(&self) -> &[String] {
        &self.known_as
    }

    fn of(param: &'static str, label: Label, text: &str) -> Self {
        let text = text.trim();
        let (key, domain, known_as) = if let Some((url, host)) = web(text) {
            let mut bare = url.clone();
            bare.set_query(None);
            bare.set_fragment(None);
            (bare.to_string(), Some(host.clone()), vec![url.to_string(), host])
        } else if let Some((address, domain)) = address(text) {
            (address.clone(), Some(domain.clone()), vec![address, format!("@{domain}")])
        } else {
            (quoted(text, 200), None, Vec::new())
        };
        let key = match key.len() <= MAX_KEY {
            true => key,
            false => quoted(&key, 100),
        };
        Self { param, label, text: quoted(text, 200), key, domain, known_as }
    }
}

/// Everything an action reaches. A parameter that is no text or list of texts is one target that nobody
/// can know.
#[must_use]
pub fn targets(action: &Action, spec: &ActionSpec, labels: &Labels) -> Vec<Target> {
    let mut found = Vec::new();
    for param in spec.targets {
        let label = labels.get(*param).copied().unwrap_or_default();
        let mut add = |text: &str| found.push(Target::of(param, label, text));
        match action.params.get(*param) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => pieces(text).for_each(add),
            Some(Value::Array(items)) => {
                for item in items {
                    match item {
                        Value::String(text) => pieces(text).for_each(&mut add),
                        other => add(&other.to_string()),
                    }
                }
            }
            Some(other) => add(&other.to_string()),
        }
    }
    found
}

/// Whom or what an action with these parameters reaches, as it is written: to be shown, and never to be taken
/// for [`targets`].
#[must_use]
pub fn named(spec: &ActionSpec, params: &Value) -> Vec<String> {
    let values = spec.targets.iter().filter_map(|target| params.get(*target));
    let texts = values.flat_map(|value| match value {
        Value::Array(items) => items.iter().collect(),
        one => vec![one],
    });
    texts
        .filter(|value| !value.is_null())
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .collect()
}

/// Several addresses may stand in one text. A comma in a quoted name splits it into pieces that are no
/// addresses: nobody knows those, which errs on the safe side.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let web = text.contains("://");
    text.split(move |c| !web && matches!(c, ',' | ';')).map(str::trim).filter(|piece| !piece.is_empty())
}

/// The one spelling of an entry in a list of what is known: an address, `@domain`, a host, a URL. `None`
/// when it is none of them.
#[must_use]
pub fn spelling(entry: &str) -> Option<String> {
    let entry = entry.trim();
    if entry.contains("://") {
        return web(entry).map(|(url, _)| url.to_string());
    }
    match entry.strip_prefix('@') {
        Some(domain) => host(domain).map(|domain| format!("@{domain}")),
        None if entry.contains('@') => address(entry).map(|(address, _)| address),
        None => host(entry),
    }
}

fn web(text: &str) -> Option<(Url, String)> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = url.host_str()?.trim_end_matches('.').to_lowercase();
    Some((url, host))
}

/// An address and its domain, in lower case and ASCII; `Name <address>` is its address. `None` when it is not
/// plainly one.
#[must_use]
pub fn address(text: &str) -> Option<(String, String)> {
    let text = text.trim();
    let bare = match text.split_once('<') {
        Some((name, rest)) if !name.contains(['"', '@', '>', ',']) => rest.strip_suffix('>')?,
        Some(_) => return None,
        None => text,
    };
    let (user, domain) = bare.split_once('@')?;
    let odd =
        |c: char| c.is_whitespace() || c.is_control() || is_invisible(c) || "\"<>()[],;:\\@".contains(c);
    if user.is_empty() || user.contains(odd) || domain.contains(odd) {
        return None;
    }
    let domain = host(domain)?;
    Some((format!("{}@{domain}", user.to_lowercase()), domain))
}

fn host(text: &str) -> Option<String> {
    let text = text.trim_end_matches('.');
    if text.is_empty() || text.contains(['/', '@', '?', '#']) || text.contains(char::is_whitespace) {
        return None;
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => (name, port),
        _ => (text, ""),
    };
    let _ = port; // a host is known on all its ports
    Host::parse(name).ok().map(|host| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::spec;
    use serde_json::json;

    fn reached(to: Value) -> Vec<Target> {
        let params = json!({"to": to, "subject": "s", "body": "b"});
        let action = Action { action: "email.send".into(), params };
        targets(&action, spec("email.send").unwrap(), &Labels::from([("to".into(), Label::Untrusted)]))
    }

    #[test]
    fn everybody_whom_an_action_reaches_is_named_as_he_is_written() {
        let mail = spec("email.send").unwrap();
        let to = json!({"to": ["Ann <a@x.example>", "b@x.example"], "cc": "c@x.example", "subject": "s"});
        assert_eq!(named(mail, &to), ["Ann <a@x.example>", "b@x.example", "c@x.example"]);
        assert!(named(mail, &json!({"to": null})).is_empty());
    }

    fn known(to: Value, list: &[&str]) -> bool {
        let list = list.iter().map(|entry| spelling(entry).unwrap()).collect();
        reached(to).iter().all(|target| target.is_in(&list))
    }

    #[test]
    fn one_address_has_one_spelling() {
        for to in [
            "Mara@Client.EXAMPLE",
            "Mara <mara@client.example>",
            " mara@client.example ",
            "mara@client.example,",
        ] {
            let found = reached(json!(to));
            assert_eq!((found.len(), found[0].key.as_str()), (1, "mara@client.example"), "{to}");
            assert_eq!(found[0].domain.as_deref(), Some("client.example"));
            assert!(known(json!(to), &["mara@client.example"]) && known(json!(to), &["@client.example"]));
        }
        assert!(known(json!("a@bücher.example"), &["a@xn--bcher-kva.example"]));
    }

    #[test]
    fn whatever_is_not_plainly_an_address_is_known_to_nobody() {
        for to in [
            json!("\"mara@client.example\" <x@evil.example>"),
            json!("mara@client.example <x@evil.example>"),
            json!("mara@client.example x@evil.example"),
            json!("mara@client.example@evil.example"),
            json!("mara@client.example\u{200b}"),
            json!("mara@cl\u{0456}ent.example"),
            json!("mara@client.example, x@evil.example"),
            json!(["mara@client.example", {"address": "mara@client.example"}]),
            json!({"address": "mara@client.example"}),
            json!("client.example"),
        ] {
            assert!(!known(to.clone(), &["mara@client.example", "client.example"]), "{to}");
        }
    }

    #[test]
    fn a_url_is_known_by_itself_or_by_its_host_and_by_no_trick() {
        let target = |url: &str| Target::of("url", Label::Untrusted, url);
        let known = |url: &str, entry: &str| target(url).is_in(&BTreeSet::from([spelling(entry).unwrap()]));
        assert!(known("https://API.client.example/a?b=c", "api.client.example"));
        assert!(known("https://api.client.example/a", "https://api.client.example/a"));
        assert!(!known("https://api.client.example/a?leak=1", "https://api.client.example/a"));
        for trick in [
            "https://api.client.example@evil.example/",
            "https://evil.example/api.client.example",
            "https://api.client.example.evil.example/",
            "https://api.client.example\\.evil.example/",
            "ftp://api.client.example/",
            "//api.client.example/",
        ] {
            // What a browser reads as the known host is that host; nothing else is.
            let found = target(trick);
            assert_eq!(
                found.is_in(&BTreeSet::from(["api.client.example".to_owned()])),
                found.domain.as_deref() == Some("api.client.example"),
                "{trick}"
            );
        }
        assert_eq!(target("https://api.client.example/a?b=c#d").key, "https://api.client.example/a");
    }
}
