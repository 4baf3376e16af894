//! One MIME entity split into headers and content, and typed access to its headers.

use std::sync::LazyLock;

use mail_parser::{ContentType, Header, HeaderName, HeaderValue, MessageParser};

use super::{MAX_ADDRESS, MAX_ID, MAX_NAME, text};

/// The most header bytes read of one entity: mail servers refuse more, and some header parsers
/// take quadratic time.
const MAX_HEADERS: usize = 128 * 1024;

/// Only what Steward reads is parsed; every other header stays raw text.
static PARSER: LazyLock<MessageParser> = LazyLock::new(|| {
    MessageParser::new()
        .with_minimal_headers()
        .header_id(HeaderName::MessageId)
        .header_id(HeaderName::InReplyTo)
        .header_id(HeaderName::References)
        .default_header_raw()
});

/// The headers of one entity, in the order they stand.
pub(super) struct Headers(Vec<Header<'static>>);

/// Splits an entity at its first empty line; without one, all of it is header.
pub(super) fn split(entity: &[u8]) -> (Headers, &[u8]) {
    let mut end = 0;
    for line in entity.split_inclusive(|&byte| byte == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            return (read(&entity[..end]), &entity[end + line.len()..]);
        }
        end += line.len();
    }
    (read(entity), &[])
}

fn read(block: &[u8]) -> Headers {
    let mut block = block[..block.len().min(MAX_HEADERS)].to_vec();
    // Header values that run into the end of input are dropped by the parser.
    block.extend_from_slice(b"\r\n\r\n");
    let headers = PARSER
        .parse_headers(&block)
        .and_then(|mut message| message.parts.pop())
        .map(|part| part.headers.into_iter().map(Header::into_owned).collect());
    Headers(headers.unwrap_or_default())
}

impl Headers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// How often a header stands there.
    pub(super) fn count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    /// The header's first text, encoded words decoded.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.values(name).find_map(HeaderValue::as_text).map(str::to_owned)
    }

    /// Every usable address with its display name, groups flattened.
    pub(super) fn mailboxes(&self, name: &str) -> impl Iterator<Item = (String, Option<String>)> {
        self.values(name).filter_map(HeaderValue::as_address).flat_map(|list| list.iter()).filter_map(
            |found| {
                let address = bare_address(found.address()?)?;
                let name = text::line(found.name().unwrap_or_default(), MAX_NAME);
                Some((address, Some(name).filter(|name| !name.is_empty())))
            },
        )
    }

    /// Message ids without brackets. One that would have to be mended or cut is left out: two
    /// different messages must not come to share an id.
    pub(super) fn ids(&self, name: &str) -> impl Iterator<Item = String> {
        self.values(name)
            .flat_map(|value| value.as_text_list().unwrap_or_default())
            .filter(|id| {
                id.len() <= MAX_ID && !id.contains(char::is_whitespace) && text::line(id, MAX_ID) == **id
            })
            .filter(|id| !id.is_empty())
            .map(|id| id.to_string())
    }

    /// RFC 3339 with the sender's offset, if the date exists in the calendar.
    pub(super) fn date(&self, name: &str) -> Option<String> {
        let date = self.values(name).find_map(HeaderValue::as_datetime).filter(|date| date.is_valid())?;
        let date = date.to_rfc3339();
        date.parse::<jiff::Timestamp>().is_ok().then_some(date)
    }

    /// `type/subtype` in lower case.
    pub(super) fn media_type(&self) -> Option<String> {
        let found = self.content_type()?;
        let media_type = format!("{}/{}", found.ctype(), found.subtype()?).to_ascii_lowercase();
        Some(text::line(&media_type, MAX_NAME))
    }

    pub(super) fn content_type(&self) -> Option<&ContentType<'static>> {
        self.values("Content-Type").find_map(HeaderValue::as_content_type)
    }

    pub(super) fn disposition(&self) -> Option<&ContentType<'static>> {
        self.values("Content-Disposition").find_map(HeaderValue::as_content_type)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &HeaderValue<'static>> {
        self.0
            .iter()
            .filter(move |header| header.name.as_str().eq_ignore_ascii_case(name))
            .map(|header| &header.value)
    }
}

/// `Local@Domain` with the domain in lower case (the local part is the receiver's business, RFC
/// 5321 section 2.4), or none when it is no address one could write to.
fn bare_address(found: &str) -> Option<String> {
    let (local, domain) = found.trim().rsplit_once('@')?;
    let address = format!("{local}@{}", domain.to_lowercase());
    let plain = address.len() <= MAX_ADDRESS
        && !local.is_empty()
        && !domain.is_empty()
        && !address.contains(|ch: char| ch.is_whitespace() || matches!(ch, '<' | '>' | ',' | ';'))
        && text::line(&address, MAX_ADDRESS) == address;
    plain.then_some(address)
}
