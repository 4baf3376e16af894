//! A YAML file as a tree that remembers where everything stands.
//!
//! Checks speak of a value by its [`Path`]; [`Document`] turns the path into the bytes to mark, down
//! to the words inside a text. [`Reporter`] is the two of them with the list of problems.

use std::ops::Range;
use std::sync::Arc;

use crate::config::node::{Node, NodeKind, Path, Step, bytes};
use crate::config::problem::{Problem, Problems};

/// The deepest nesting of a file: far beyond any workflow, well within the stack.
const MAX_DEPTH: usize = 64;

/// The most values in a file, aliases unfolded: what keeps a file of aliases from filling the memory.
const MAX_NODES: usize = 100_000;

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its name, relative to the workspace.
    pub file: String,
    /// Its whole text.
    pub source: Arc<str>,
    /// Its YAML.
    pub root: Node,
}

impl Document {
    /// Parses `yaml`, which stands in `source` at the same bytes.
    ///
    /// # Errors
    /// The one problem that keeps it from being YAML.
    pub fn parse(file: &str, source: &Arc<str>, yaml: &str) -> Result<Self, Box<Problem>> {
        let options = serde_saphyr::options! {
            with_snippet: false,
            // `no` and `on` are words: only `true` and `false` are booleans.
            strict_booleans: true,
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES },
        };
        match serde_saphyr::from_str_with_options::<Node>(yaml, options) {
            Ok(root) => Ok(Self { file: file.to_owned(), source: Arc::clone(source), root }),
            Err(error) => Err(Box::new(not_yaml(file, source, &error))),
        }
    }

    fn node(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(&self.root, |node, step| node.child(step))
    }

    /// The bytes of the value at `path`, or of the nearest value around it. Of a text of several lines,
    /// the first; of a list or a mapping, the key it stands under or the first entry it holds.
    #[must_use]
    pub fn locate(&self, path: &Path) -> Range<usize> {
        let (mut node, mut key) = (&self.root, None);
        for step in &path.0 {
            let Some(child) = node.child(step) else { break };
            key = match (&node.kind, step) {
                (NodeKind::Map(entries), Step::Key(name)) => entries.iter().find(|(k, _)| k.name == *name),
                _ => None,
            };
            node = child;
        }
        match (&node.kind, key) {
            (NodeKind::Scalar(_), _) => self.first_line(&node.span),
            (_, Some((key, _))) => key.span.clone(),
            (NodeKind::Map(entries), None) => match entries.first() {
                Some((key, Node { span, kind: NodeKind::Scalar(_) })) => {
                    key.span.start..self.first_line(span).end
                }
                Some((key, _)) => key.span.clone(),
                None => node.span.clone(),
            },
            (NodeKind::List(_), None) => self.first_line(&node.span),
        }
    }

    /// The bytes of the last key of `path`; without one, of the value.
    #[must_use]
    pub fn locate_key(&self, path: &Path) -> Range<usize> {
        let Some((Step::Key(name), parents)) = path.0.split_last() else { return self.locate(path) };
        match self.node(&Path(parents.to_vec())).map(|node| &node.kind) {
            Some(NodeKind::Map(entries)) => entries
                .iter()
                .find(|(key, _)| key.name == *name)
                .map_or_else(|| self.locate(path), |(key, _)| key.span.clone()),
            _ => self.locate(path),
        }
    }

    /// The bytes where `text[part]` stands, `text` being the value at `path`. Escapes and folded lines
    /// make the file differ from the text, so the words are looked up and counted; when they cannot be
    /// found the whole value is marked.
    #[must_use]
    pub fn locate_part(&self, path: &Path, text: &str, part: Range<usize>) -> Range<usize> {
        let whole = self.node(path).map_or(0..0, |node| node.span.clone());
        let words = text.get(part.clone()).unwrap_or_default();
        let words = words.lines().next().unwrap_or_default().trim_end();
        if words.is_empty() {
            return self.first_line(&whole);
        }
        let before = text.get(..part.start).map_or(0, |before| before.matches(words).count());
        let raw = self.source.get(whole.clone()).unwrap_or_default();
        match raw.match_indices(words).nth(before).or_else(|| raw.match_indices(words).next()) {
            Some((at, _)) => whole.start + at..whole.start + at + words.len(),
            None => self.first_line(&whole),
        }
    }

    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let text = self.source.get(span.clone()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        span.start..span.start + line.len()
    }
}

fn not_yaml(file: &str, source: &Arc<str>, error: &serde_saphyr::Error) -> Problem {
    let span = error.location().map_or(0..0, |location| match location.span().byte_offset() {
        Some(_) => bytes(&location),
        None => place(source, location.line(), location.column()),
    });
    let text = error.without_snippet().to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    match message.strip_prefix("duplicate mapping key: ") {
        Some(rest) => {
            let key = rest.split(", ").next().unwrap_or(rest);
            Problem::new(file, source, span, format!("`{key}` stands here twice"), "write each key once")
        }
        None => Problem::new(
            file,
            source,
            span,
            format!("this is not YAML: {message}"),
            "look at the indentation, the colons and the quotes here: a text that begins with `{{` needs them",
        ),
    }
}

/// The byte at a line and column, both from 1.
fn place(source: &str, line: u64, column: u64) -> Range<usize> {
    let index = |n: u64| usize::try_from(n.saturating_sub(1)).unwrap_or(0);
    let mut lines = source.split_inclusive('\n');
    let start: usize = lines.by_ref().take(index(line)).map(str::len).sum();
    let within =
        lines.next().unwrap_or_default().chars().take(index(column)).map(char::len_utf8).sum::<usize>();
    start + within..start + within + 1
}

/// Adds problems of one file, by path.
pub struct Reporter<'a> {
    /// The file.
    pub document: &'a Document,
    /// Where the problems go.
    pub problems: &'a mut Problems,
}

impl Reporter<'_> {
    /// A problem with the value at `path`.
    pub fn value(&mut self, path: &Path, message: impl Into<String>, mend: impl Into<String>) {
        self.span(self.document.locate(path), message, mend);
    }

    /// A problem with a value that must not be shown: a secret that was written into the file.
    pub fn hidden(&mut self, path: &Path, message: impl Into<String>, mend: impl Into<String>) {
        let Document { file, source, .. } = self.document;
        let span = self.document.locate(path);
        let stars = "*".repeat(span.len());
        let masked: Arc<str> = format!("{}{stars}{}", &source[..span.start], &source[span.end..]).into();
        self.problems.0.push(Problem::new(file, &masked, span, message, mend));
    }

    /// A problem with the key at `path`.
    pub fn key(&mut self, path: &Path, message: impl Into<String>, mend: impl Into<String>) {
        self.span(self.document.locate_key(path), message, mend);
    }

    /// A problem with bytes of the file.
    pub fn span(&mut self, span: Range<usize>, message: impl Into<String>, mend: impl Into<String>) {
        let Document { file, source, .. } = self.document;
        self.problems.0.push(Problem::new(file, source, span, message, mend));
    }

    /// A warning about the value at `path`.
    pub fn warn(&mut self, path: &Path, message: impl Into<String>, mend: impl Into<String>) {
        let Document { file, source, .. } = self.document;
        let problem = Problem::new(file, source, self.document.locate(path), message, mend);
        self.problems.0.push(problem.warning());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Document {
        Document::parse("f.yaml", &yaml.into(), yaml).unwrap()
    }

    #[test]
    fn words_are_found_inside_quotes_blocks_and_after_letters_of_two_bytes() {
        let yaml = "é:\n  - a: \"hé {{ x }} {{ y }}\"\n    b: |\n      one\n      two {{ z }}\n";
        let document = parse(yaml);
        let item = Path::top().key("é").index(0);
        let marked = |path: &Path, text: &str, words: &str| {
            let start = text.find(words).unwrap();
            yaml.get(document.locate_part(path, text, start..start + words.len())).unwrap().to_owned()
        };
        assert_eq!(marked(&item.key("a"), "hé {{ x }} {{ y }}", "y"), "y");
        assert_eq!(marked(&item.key("b"), "one\ntwo {{ z }}\n", "{{ z }}"), "{{ z }}");
    }

    #[test]
    fn a_list_or_a_mapping_is_marked_by_its_key_or_first_entry() {
        let yaml = "steps:\n  - id: x\n    with: {a: 1}\n";
        let document = parse(yaml);
        let steps = Path::top().key("steps");
        assert_eq!(&yaml[document.locate(&steps)], "steps");
        assert_eq!(&yaml[document.locate(&steps.index(0))], "id: x");
        assert_eq!(&yaml[document.locate(&steps.index(0).key("with"))], "with");
        assert_eq!(&yaml[document.locate(&steps.index(0).key("with").key("a"))], "1");
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        let value = parse("[no, on, true, 1.5, ~, 0x10]").root.to_value();
        assert_eq!(value, serde_json::json!(["no", "on", true, 1.5, null, 16]));
    }

    #[test]
    fn nesting_and_aliases_without_end_are_refused() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(Document::parse("f.yaml", &deep.as_str().into(), &deep).is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let previous = format!("*a{}, ", n - 1).repeat(8);
            bomb.push_str(&format!("a{n}: &a{n} [{previous}]\n"));
        }
        assert!(Document::parse("f.yaml", &bomb.as_str().into(), &bomb).is_err());
    }
}
