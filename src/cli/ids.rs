//! Shortened ids: six or more characters of the beginning or the end of one, as long as only one fits.

use serde_json::Value;
use uuid::Uuid;

use crate::cli::Fail;
use crate::cli::client::Client;

/// The fewest characters that may stand for an id.
const SHORTEST: usize = 6;

/// Pages of a list that are searched: the newest thousands.
const PAGES: usize = 20;

/// What people read of an id: its end, for ids made at about the same time begin alike.
#[must_use]
pub fn short(id: &str) -> &str {
    id.len().checked_sub(8).and_then(|from| id.get(from..)).unwrap_or(id)
}

/// The run that `text` stands for.
///
/// # Errors
/// [`Fail::NotFound`] when none does, [`Fail::Usage`] when several do.
pub async fn run(client: &Client, text: &str) -> Result<String, Fail> {
    complete(client, text, "run", &[("/api/v1/runs", "runs", None)]).await
}

/// The review that `text` stands for; open ones come first.
///
/// # Errors
/// As [`run`].
pub async fn review(client: &Client, text: &str) -> Result<String, Fail> {
    let of = |status| ("/api/v1/reviews", "reviews", Some(status));
    let lists = ["open", "approved", "edited", "rejected", "answered", "expired", "superseded"].map(of);
    complete(client, text, "review", &lists).await
}

/// The notice that `text` stands for.
///
/// # Errors
/// As [`run`].
pub async fn notice(client: &Client, text: &str) -> Result<String, Fail> {
    complete(client, text, "notice", &[("/api/v1/notices", "notices", None)]).await
}

type List = (&'static str, &'static str, Option<&'static str>);

async fn complete(client: &Client, text: &str, what: &str, lists: &[List]) -> Result<String, Fail> {
    if let Ok(id) = text.parse::<Uuid>() {
        return Ok(id.to_string());
    }
    let wanted = text.to_ascii_lowercase();
    if wanted.len() < SHORTEST || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        let usage = format!(
            "`{}` is no {what} id: give {SHORTEST} or more characters of its beginning or end",
            text.escape_debug()
        );
        return Err(Fail::Usage(usage));
    }
    for (path, name, status) in lists {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES {
            let mut query = vec![("limit", "200")];
            query.extend(status.map(|status| ("status", status)));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = client.get(path, &query).await?;
            found.extend(fitting(&page[name], &wanted));
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one.clone()),
            several => return Err(Fail::Usage(format!("`{wanted}` could be {}", several.join(", ")))),
        }
    }
    Err(Fail::NotFound(format!("there is no {what} `{wanted}`")))
}

fn fitting(rows: &Value, wanted: &str) -> Vec<String> {
    let ids = rows.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str());
    let fits = |id: &&str| {
        let bare = id.replace('-', "");
        [*id, &bare].iter().any(|id| id.starts_with(wanted) || id.ends_with(wanted))
    };
    ids.filter(fits).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_found_by_its_beginning_or_its_end_with_or_without_dashes() {
        let id = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
        let rows = json!([{"id": id}, {"id": "0190a1b2-ffff-7e5f-8a9b-0c1d2e3f0000"}]);
        assert_eq!(fitting(&rows, short(id)), [id]);
        assert_eq!(fitting(&rows, "0190a1b2c3"), [id]);
        assert_eq!(fitting(&rows, "0190a1b2").len(), 2);
        assert!(fitting(&rows, "aaaaaa").is_empty());
    }
}
