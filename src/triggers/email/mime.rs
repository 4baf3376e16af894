//! The walk over a message's parts: which text is the body, what is attached.
//!
//! RFC 2046 read as people read mail: of alternatives the plain text, of mixed parts every text
//! that is not a file, of a forwarded message its text too. Depth and number of parts are bounded,
//! so the work is linear in the size of the message.

use std::borrow::Cow;

use mail_parser::decoders::{
    base64::base64_decode, charsets::map::charset_decoder, quoted_printable::quoted_printable_decode,
};
use sha2::{Digest, Sha256};

use super::{
    Attachment, MAX_ATTACHMENTS, MAX_NAME, MAX_SUBJECT,
    headers::{self, Headers},
    html, text,
};

/// How deep parts are opened; mail programs reach five. Below, a part is one attachment. An encoded
/// message in a message is held decoded at every level, so this bounds memory too.
const MAX_DEPTH: usize = 8;
/// How many parts are read; the rest is left out and the body marked as truncated.
const MAX_PARTS: usize = 1000;

/// What a message says and carries.
pub(super) struct Content {
    pub(super) text: String,
    pub(super) truncated: bool,
    pub(super) attachments: Vec<Attachment>,
}

pub(super) fn read(message: &[u8]) -> Content {
    let mut walk = Walk { parts: 0, truncated: false, attachments: Vec::new() };
    let body = walk.entity(message, 0, "text/plain");
    Content { text: body.text, truncated: walk.truncated, attachments: walk.attachments }
}

struct Walk {
    parts: usize,
    truncated: bool,
    attachments: Vec<Attachment>,
}

/// The readable text below one part, and whether it was written as plain text.
#[derive(Default)]
struct Body {
    text: String,
    plain: bool,
}

impl Walk {
    fn entity(&mut self, entity: &[u8], depth: usize, default_type: &str) -> Body {
        self.parts += 1;
        let (headers, content) = headers::split(entity);
        let media_type = headers.media_type().unwrap_or_else(|| default_type.to_owned());
        let open = depth < MAX_DEPTH;
        match media_type.as_str() {
            kind if kind.starts_with("multipart/") && open => self.multipart(&headers, content, depth, kind),
            "message/rfc822" | "message/global" if open => {
                self.message(&headers, content, depth, &media_type)
            }
            "text/plain" | "text/html" if !is_file(&headers) => {
                let text = decode_text(&headers, &decode(&headers, content));
                match media_type.as_str() {
                    "text/html" => Body { text: html::to_text(&text), plain: false },
                    _ => Body { text, plain: true },
                }
            }
            _ => {
                self.attach(&headers, &decode(&headers, content), &media_type, "unnamed");
                Body::default()
            }
        }
    }

    fn multipart(&mut self, headers: &Headers, content: &[u8], depth: usize, kind: &str) -> Body {
        let boundary =
            headers.content_type().and_then(|found| found.attribute("boundary")).unwrap_or_default();
        let room = MAX_PARTS.saturating_sub(self.parts);
        let (parts, more) = split_parts(content, boundary.trim_end().as_bytes(), room);
        self.truncated |= more;
        if parts.is_empty() && !more {
            // No part is marked: what is there is still what the sender wrote.
            return Body { text: decode_text(headers, content), plain: true };
        }
        let default_type = if kind == "multipart/digest" { "message/rfc822" } else { "text/plain" };
        let bodies = parts.into_iter().map(|part| {
            // A part before this one may have used up the room.
            if self.parts >= MAX_PARTS {
                self.truncated = true;
                return Body::default();
            }
            self.entity(part, depth + 1, default_type)
        });
        let mut bodies: Vec<Body> = bodies.filter(|body| !body.text.trim().is_empty()).collect();
        if kind == "multipart/alternative" {
            let chosen = bodies.iter().position(|body| body.plain).unwrap_or(0);
            return if bodies.is_empty() { Body::default() } else { bodies.swap_remove(chosen) };
        }
        let plain = bodies.iter().all(|body| body.plain);
        let texts: Vec<&str> = bodies.iter().map(|body| body.text.trim_end()).collect();
        Body { text: texts.join("\n\n"), plain }
    }

    /// A forwarded message is a file to keep and a text to read: without it, "see below" would be
    /// all there is.
    fn message(&mut self, headers: &Headers, content: &[u8], depth: usize, media_type: &str) -> Body {
        let content = decode(headers, content);
        let (inner, _) = headers::split(&content);
        let subject = text::line(&inner.text("Subject").unwrap_or_default(), MAX_SUBJECT);
        let name = if subject.is_empty() { "message.eml".to_owned() } else { format!("{subject}.eml") };
        self.attach(headers, &content, media_type, &name);

        let mut body = self.entity(&content, depth + 1, "text/plain");
        let from =
            inner.mailboxes("From").next().map_or_else(|| "unknown".to_owned(), |(address, _)| address);
        body.text = format!("--- Attached message ---\nFrom: {from}\nSubject: {subject}\n\n{}", body.text);
        body
    }

    fn attach(&mut self, headers: &Headers, content: &[u8], media_type: &str, default_name: &str) {
        if self.attachments.len() < MAX_ATTACHMENTS {
            self.attachments.push(Attachment {
                name: file_name(headers).unwrap_or_else(|| text::line(default_name, MAX_NAME)),
                media_type: media_type.to_owned(),
                bytes: content.len(),
                sha256: hex::encode(Sha256::digest(content)),
            });
        }
    }
}

/// The pieces between the boundary's lines (RFC 2046 section 5.1), at most `room`, and whether
/// there are more.
fn split_parts<'a>(content: &'a [u8], boundary: &[u8], room: usize) -> (Vec<&'a [u8]>, bool) {
    let mut parts = Vec::new();
    if boundary.is_empty() {
        return (parts, false);
    }
    let mut start = None;
    let mut offset = 0;
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) {
            let closes = rest.starts_with(b"--");
            if closes || rest.trim_ascii().is_empty() {
                if let Some(start) = start.replace(offset + line.len()) {
                    if parts.len() == room {
                        return (parts, true);
                    }
                    parts.push(without_line_end(&content[start..offset]));
                }
                if closes {
                    return (parts, false);
                }
            }
        }
        offset += line.len();
    }
    match start {
        Some(_) if parts.len() == room => (parts, true),
        Some(start) => {
            parts.push(&content[start..]);
            (parts, false)
        }
        None => (parts, false),
    }
}

/// The line end before a boundary belongs to the boundary.
fn without_line_end(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}

fn is_file(headers: &Headers) -> bool {
    headers.disposition().is_some_and(|found| found.is_attachment()) || file_name(headers).is_some()
}

/// The name without folders: a name is shown and stored, never followed.
fn file_name(headers: &Headers) -> Option<String> {
    let disposition = headers.disposition().and_then(|found| found.attribute("filename"));
    let name = disposition.or_else(|| headers.content_type().and_then(|found| found.attribute("name")))?;
    let name = text::line(name.rsplit(['/', '\\']).next().unwrap_or_default(), MAX_NAME);
    Some(name).filter(|name| !name.is_empty())
}

/// Undoes the transfer encoding; content that breaks its encoding stays as it is.
fn decode<'a>(headers: &Headers, content: &'a [u8]) -> Cow<'a, [u8]> {
    let encoding = headers.text("Content-Transfer-Encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let decoded = match encoding.as_str() {
        "base64" => base64_decode(content),
        "quoted-printable" => quoted_printable_decode(content),
        _ => None,
    };
    decoded.map_or(Cow::Borrowed(content), Cow::Owned)
}

/// UTF-8 where it is valid and nothing else is said, else the declared charset, else
/// windows-1252, in which every byte is some character.
fn decode_text(headers: &Headers, content: &[u8]) -> String {
    let declared = headers.content_type().and_then(|found| found.attribute("charset")).unwrap_or_default();
    // Programs that say us-ascii and send more than that send UTF-8.
    if !declared.trim().eq_ignore_ascii_case("us-ascii")
        && let Some(decoder) = charset_decoder(declared.trim().as_bytes())
    {
        return decoder(content);
    }
    match (std::str::from_utf8(content), charset_decoder(b"windows-1252")) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), Some(decoder)) => decoder(content),
        (Err(_), None) => String::from_utf8_lossy(content).into_owned(),
    }
}
