//! Bodies and queries, read so that whatever is wrong with them is told precisely.

use std::str::FromStr;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::api::problem::{Kind, Problem};

/// The largest JSON body: far more than any input a person writes.
pub const MAX_JSON: usize = 1024 * 1024;

/// How much of a body that is too large is still read, and thrown away: a sender that is cut off while
/// it writes sees a broken connection instead of the answer.
const MAX_DRAINED: usize = 64 * 1024 * 1024;

/// A JSON body of at most `LIMIT` bytes.
pub struct Json<T, const LIMIT: usize = MAX_JSON>(pub T);

impl<S: Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let media_type = header(request.headers(), CONTENT_TYPE.as_str())?.unwrap_or_default();
        if !is_json(media_type) {
            return Err(Problem::new(Kind::WrongMediaType, "send `Content-Type: application/json`"));
        }
        let (parts, body) = request.into_parts();
        json(&read(&parts.headers, body, LIMIT).await?).map(Self)
    }
}

/// A browser sends other media types across origins without asking; none of them is taken for JSON.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(Kind::BadRequest, format!("the body is not the JSON that is wanted here: {error}"))
            .with("line", error.line())
            .with("column", error.column())
    })
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// 413 when it has more, 400 when it breaks off.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let announced = header(headers, CONTENT_LENGTH.as_str())?.and_then(|length| length.parse().ok());
    let announced: usize = announced.unwrap_or(0);
    let mut stream = body.into_data_stream();
    let mut whole = Vec::with_capacity(if announced <= limit { announced } else { 0 });
    let mut seen = 0usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Kind::BadRequest, "the body broke off"))?;
        seen = seen.saturating_add(chunk.len());
        if seen > limit || announced > limit {
            whole = Vec::new();
        } else {
            whole.extend_from_slice(&chunk);
        }
        if seen > MAX_DRAINED {
            break;
        }
    }
    match seen.max(announced) > limit {
        true => Err(Problem::new(Kind::TooLarge, format!("the body may have at most {limit} bytes"))
            .with("limit", limit)),
        false => Ok(whole.into()),
    }
}

/// The query of a request.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))
    }
}

/// A header as text, if it is there.
///
/// # Errors
/// 400 when it is not text or stands there twice: two readers could understand it differently.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Problem::new(Kind::BadRequest, format!("the header {name} stands there twice")));
    }
    let text = value.map(|value| value.to_str()).transpose();
    text.map_err(|_| Problem::new(Kind::BadRequest, format!("the header {name} is not plain text")))
}

/// An id in a path; one that cannot be an id names nothing.
///
/// # Errors
/// 404 of the kind given.
pub fn id<T: FromStr>(text: &str, kind: Kind) -> Result<T, Problem> {
    text.parse().map_err(|_| Problem::new(kind, format!("`{}` is not an id", text.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[tokio::test]
    async fn a_body_of_the_limit_is_read_and_one_byte_more_is_refused() {
        let headers = HeaderMap::new();
        let read = |bytes: usize| read(&headers, Body::from(vec![b'x'; bytes]), 10);
        assert_eq!(read(10).await.unwrap().len(), 10);
        assert_eq!(read(11).await.unwrap_err().kind, Kind::TooLarge);
    }

    #[test]
    fn bad_json_is_told_with_its_place() {
        let problem = json::<Value>(b"{\n \"a\": }").unwrap_err();
        assert_eq!(problem.kind, Kind::BadRequest);
        assert_eq!((&problem.body()["line"], &problem.body()["column"]), (&2.into(), &7.into()));
    }

    #[test]
    fn only_json_is_taken_for_json() {
        assert!(is_json("application/json; charset=utf-8") && is_json("application/problem+json"));
        for other in ["", "text/plain", "application/x-www-form-urlencoded", "text/json", "image/svg+json"] {
            assert!(!is_json(other), "{other}");
        }
    }

    #[test]
    fn a_header_that_stands_there_twice_is_refused() {
        let mut headers = HeaderMap::new();
        headers.append("if-match", "a".parse().unwrap());
        assert_eq!(header(&headers, "if-match").unwrap(), Some("a"));
        headers.append("if-match", "b".parse().unwrap());
        assert!(header(&headers, "if-match").is_err());
    }
}
