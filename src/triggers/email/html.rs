//! An HTML part as the text a reader sees.
//!
//! Not a browser: blocks become lines, table cells are kept apart, list items get a dash, links
//! their address. Elements that a browser would not show are left out, since text that only the
//! model sees is how instructions are smuggled in; the same trick by colours or sizes is not
//! noticed. One pass, no tree, so neither depth nor broken markup costs anything.

use mail_parser::decoders::html::add_html_token;

/// Elements whose content is never text.
const RAW: [&str; 4] = ["script", "style", "title", "template"];
/// Elements that stand on lines of their own.
const BLOCKS: [&str; 20] = [
    "address", "article", "aside", "center", "dd", "div", "dl", "dt", "fieldset", "footer", "form", "header",
    "hr", "li", "main", "ol", "pre", "section", "tr", "ul",
];
/// Elements with an empty line around them.
const PARAGRAPHS: [&str; 9] = ["blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "p", "table"];
/// Elements without an end tag.
const VOID: [&str; 10] = ["area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"];
/// How far a tag's quoted values are followed, characters; markup made to be slow stays linear.
const MAX_TAG: usize = 4096;
/// The longest link kept, bytes; longer ones are tracking, not addresses.
const MAX_LINK: usize = 200;

pub(super) fn to_text(html: &str) -> String {
    let mut page = Page::default();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        page.text(&rest[..at]);
        rest = &rest[at..];
        rest = match rest.as_bytes().get(1) {
            _ if rest.starts_with("<!--") => after(rest, "-->"),
            Some(b'!' | b'?') => after(rest, ">"),
            Some(b'/' | b'a'..=b'z' | b'A'..=b'Z') => {
                let (tag, next) = split_tag(rest);
                page.tag(&tag);
                if RAW.contains(&tag.name.as_str()) && !tag.closes {
                    after_element(next, &tag.name)
                } else {
                    next
                }
            }
            _ => {
                page.text("<");
                &rest[1..]
            }
        };
    }
    page.text(rest);
    page.out
}

/// What is waiting before the next character that shows.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Line,
    Paragraph,
}

#[derive(Default)]
struct Page {
    out: String,
    gap: Gap,
    /// Inside an element that is not shown: its name, and how many of that name are open.
    hidden: Option<(String, usize)>,
    /// The open link: its address and where its text begins.
    link: Option<(String, usize)>,
}

impl Page {
    fn text(&mut self, text: &str) {
        if self.hidden.is_some() {
            return;
        }
        for ch in entities(text).chars() {
            if ch.is_whitespace() { self.leave(Gap::Space) } else { self.push(ch) }
        }
    }

    fn push(&mut self, ch: char) {
        if !self.out.is_empty() {
            self.out.push_str(match self.gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Line => "\n",
                Gap::Paragraph => "\n\n",
            });
        }
        self.gap = Gap::None;
        self.out.push(ch);
    }

    fn leave(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn tag(&mut self, tag: &Tag) {
        let name = tag.name.as_str();
        if self.skip(tag) {
            return;
        }
        if PARAGRAPHS.contains(&name) {
            self.leave(Gap::Paragraph);
        } else if BLOCKS.contains(&name) || name == "br" {
            // The second of two line breaks makes the empty line that the writer meant.
            self.leave(if name == "br" && self.gap == Gap::Line { Gap::Paragraph } else { Gap::Line });
        } else if matches!(name, "td" | "th") {
            self.leave(Gap::Space);
        }
        match name {
            "li" if !tag.closes => {
                self.push('-');
                self.leave(Gap::Space);
            }
            "a" => self.link(tag),
            _ => {}
        }
    }

    /// True while inside an element that a browser would not show.
    fn skip(&mut self, tag: &Tag) -> bool {
        let void = VOID.contains(&tag.name.as_str());
        if let Some((name, open)) = &mut self.hidden {
            // A paragraph ends where the next one begins, so its end tag is often missing.
            let next_paragraph = name == "p" && tag.name == "p" && !tag.closes;
            if !next_paragraph {
                if *name == tag.name {
                    *open = if tag.closes { *open - 1 } else { *open + 1 };
                }
                if *open == 0 {
                    self.hidden = None;
                }
                return true;
            }
            self.hidden = None;
        }
        if !void && !tag.closes && tag.is_hidden() {
            self.hidden = Some((tag.name.clone(), 1));
        }
        self.hidden.is_some()
    }

    fn link(&mut self, tag: &Tag) {
        if let Some((address, start)) = self.link.take()
            && !self.out.get(start..).is_some_and(|shown| shown.contains(address.trim_end_matches('/')))
        {
            for ch in format!(" <{address}>").chars() {
                self.push(ch);
            }
        }
        let address = tag.attribute("href").filter(|_| !tag.closes).map(|value| entities(value.trim()));
        self.link = address
            .filter(|address| address.len() <= MAX_LINK && address.starts_with("http"))
            .filter(|address| !address.contains(char::is_whitespace))
            .map(|address| (address, self.out.len()));
    }
}

struct Tag<'a> {
    /// In lower case.
    name: String,
    closes: bool,
    attributes: &'a str,
}

impl Tag<'_> {
    fn is_hidden(&self) -> bool {
        let style = self.attribute("style").unwrap_or_default().to_ascii_lowercase();
        let style: String = style.split_whitespace().collect();
        let declared = style.split(';').map(|declared| declared.trim_end_matches("!important"));
        let unseen = |found: &str| {
            matches!(
                found,
                "display:none" | "visibility:hidden" | "opacity:0" | "max-height:0" | "max-height:0px"
            )
        };
        declared.into_iter().any(unseen) || self.attribute("hidden").is_some()
    }

    /// The attribute's value, entities as they stand; empty when it has none.
    fn attribute(&self, wanted: &str) -> Option<&str> {
        let mut rest = self.attributes;
        loop {
            rest = rest.trim_start_matches(|ch: char| ch.is_ascii_whitespace() || ch == '/');
            if rest.is_empty() {
                return None;
            }
            let end = rest.find(|ch: char| ch.is_ascii_whitespace() || ch == '=').unwrap_or(rest.len());
            let (name, after_name) = rest.split_at(end);
            let after_name = after_name.trim_ascii_start();
            let (value, next) = match after_name.strip_prefix('=').map(str::trim_ascii_start) {
                None => ("", after_name),
                Some(value) => match value.chars().next() {
                    Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
                    _ => value.split_once(|ch: char| ch.is_ascii_whitespace()).unwrap_or((value, "")),
                },
            };
            if name.eq_ignore_ascii_case(wanted) {
                return Some(value);
            }
            rest = next;
        }
    }
}

/// Splits `<name attributes>` from what follows it; a `>` inside a quoted value does not end it.
fn split_tag(html: &str) -> (Tag<'_>, &str) {
    let closes = html.starts_with("</");
    let inner = &html[if closes { 2 } else { 1 }..];
    let mut quote = None;
    let mut previous = ' ';
    let end = inner.char_indices().take(MAX_TAG).find_map(|(at, ch)| {
        match (quote, ch) {
            (None, '>') => return Some(at),
            // A quotation mark opens a value only behind the equals sign.
            (None, '"' | '\'') if previous == '=' => quote = Some(ch),
            (Some(open), _) if open == ch => quote = None,
            _ => {}
        }
        if !ch.is_ascii_whitespace() {
            previous = ch;
        }
        None
    });
    // A quotation mark that is never closed must not swallow the rest of the page.
    let end = end.or_else(|| inner.find('>')).unwrap_or(inner.len());
    let (inside, rest) = inner.split_at(end);
    let name_end = inside.find(|ch: char| ch.is_ascii_whitespace() || ch == '/').unwrap_or(inside.len());
    let (name, attributes) = inside.split_at(name_end);
    (Tag { name: name.to_ascii_lowercase(), closes, attributes }, rest.strip_prefix('>').unwrap_or(rest))
}

fn after<'a>(html: &'a str, end: &str) -> &'a str {
    html.find(end).map_or("", |at| &html[at + end.len()..])
}

/// What follows `</name`, with the rest of that tag still to come.
fn after_element<'a>(html: &'a str, name: &str) -> &'a str {
    let is_end = |at: &usize| {
        let tag = html.as_bytes().get(at + 2..at + 2 + name.len());
        tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name.as_bytes()))
    };
    html.match_indices("</").map(|(at, _)| at).find(is_end).map_or("", |at| &html[at..])
}

/// Decodes `&name;` and `&#number;`; what is no entity stays as it stands.
fn entities(text: &str) -> String {
    /// The longest name in the HTML standard, with its ampersand and semicolon.
    const LONGEST: usize = 33;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let is_name = |ch: &u8| ch.is_ascii_alphanumeric() || *ch == b'#';
        let length = 1 + rest.bytes().skip(1).take(LONGEST).take_while(is_name).count();
        let (token, next) = match rest.as_bytes().get(length) {
            Some(b';') => rest.split_at(length + 1),
            _ => rest.split_at(length),
        };
        if token.ends_with(';') {
            add_html_token(&mut out, token.as_bytes(), false)
        } else {
            out.push_str(token)
        }
        rest = next;
    }
    out.push_str(rest);
    out
}
