//! The shape of the source: who may use whom (the table of ARCHITECTURE.md), where SQL lives, what stays pure,
//! how long a file may be. Held by reading `src/`, so that a breach names its file and line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A module may use the modules of the rows above its own, and itself.
const LAYERS: &[&[&str]] = &[
    &["domain"],
    &["telemetry", "time", "failpoint"],
    &["config", "store"],
    &["models"],
    &["memory", "connectors"],
    &["orchestrator"],
    &["reviews", "triggers", "sandbox"],
    &["api"],
    &["ui"],
    &["app"],
    &["cli"],
];

/// What would give the pure rules a clock, a die or an outside world.
const IMPURE: &[&str] = &[
    "tokio",
    "ractor",
    "tokio_postgres",
    "reqwest",
    "rand",
    "SystemTime",
    "time::Instant",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "Uuid::now_v7",
    "Uuid::new_v4",
    "std::env",
    "std::fs",
    "std::net",
];

const LONGEST_FILE: usize = 500;
/// Longer files, each with the reason why splitting it would read worse.
const LONG_FILES: &[(&str, &str)] = &[];

#[test]
fn a_module_uses_only_the_layers_below_its_own() -> io::Result<()> {
    let mut breaches = Vec::new();
    for file in rust_files("src")? {
        let Some(owner) = file.module.first().filter(|name| *name != "lib" && *name != "main") else {
            continue;
        };
        let Some(own_row) = row(owner) else {
            breaches.push(format!("{}: `{owner}` has no row in LAYERS of tests/it/layering.rs", file.path));
            continue;
        };
        for (line, used) in root_modules_used(&file) {
            // Macros and re-exports of the crate root are not modules.
            let Some(used_row) = row(&used) else { continue };
            if used != *owner && used_row >= own_row {
                breaches.push(format!(
                    "{}:{line}: `{owner}` uses `{used}`, which is not in a layer below it",
                    file.path
                ));
            }
        }
    }
    none(&breaches, "a module uses only the rows above its own in LAYERS of tests/it/layering.rs");
    Ok(())
}

#[test]
fn sql_is_written_only_in_the_store() -> io::Result<()> {
    let mut breaches = Vec::new();
    for file in rust_files("src")?.iter().filter(|file| file.module.first().is_none_or(|m| m != "store")) {
        for (line, text) in &file.strings {
            if let Some(verb) = sql_verb(text) {
                breaches.push(format!("{}:{line}: a string literal with `{verb}`", file.path));
            }
        }
    }
    none(&breaches, "SQL is written only in src/store, in a function named for what it does");
    Ok(())
}

#[test]
fn the_domain_knows_no_clock_no_chance_and_no_outside_world() -> io::Result<()> {
    let mut breaches = Vec::new();
    for file in rust_files("src/domain")? {
        let words: Vec<&str> = file.tokens.iter().map(|(_, word)| word.as_str()).collect();
        for impure in IMPURE {
            let path = path_words(impure);
            for at in (0..words.len()).filter(|at| words[*at..].starts_with(&path)) {
                // A field or method of that name is not the crate.
                if at == 0 || words[at - 1] != "." {
                    breaches.push(format!("{}:{}: `{impure}`", file.path, file.tokens[at].0));
                }
            }
        }
    }
    none(&breaches, "src/domain is pure: time, randomness and what others said come in as arguments");
    Ok(())
}

#[test]
fn a_file_fits_in_one_reading() -> io::Result<()> {
    let mut breaches = Vec::new();
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        files.extend(rust_files(folder)?);
    }
    for file in &files {
        let listed = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        match (file.lines > LONGEST_FILE, listed) {
            (true, false) => breaches.push(format!("{}:{}: the file ends here", file.path, file.lines)),
            (false, true) => breaches.push(format!("{}: short again, strike it from LONG_FILES", file.path)),
            _ => {}
        }
    }
    for (path, reason) in LONG_FILES {
        if reason.is_empty() || !files.iter().any(|file| file.path == *path) {
            breaches.push(format!("{path}: in LONG_FILES without a reason or without a file"));
        }
    }
    let rule =
        format!("a file has at most {LONGEST_FILE} lines, or a reason in LONG_FILES of tests/it/layering.rs");
    none(&breaches, &rule);
    Ok(())
}

#[test]
fn the_reader_of_sources_sees_code_and_strings_but_not_comments() {
    let text = r##"
//! [`crate::cli`] // "delete from a"
use crate::{config::{self, Settings}, store as db, r#domain};
/* nested /* crate::app */ "select a from b" */
fn f<'a>(c: &'a str) -> char { let _ = r#"delete "from" c"#; let _ = "x\"\\"; '"' }
mod inner { use super::super::api; use super::models; }
fn g() { super::memory::find(); $crate::reviews::open(b"raw") }
"##;
    let file = read("src/store/mod.rs", text);
    let used: Vec<(usize, String)> = root_modules_used(&file);
    let expected = [(3, "config"), (3, "store"), (3, "domain"), (6, "api"), (7, "memory"), (7, "reviews")];
    assert_eq!(used, expected.map(|(line, name)| (line, name.to_owned())));
    let strings: Vec<(usize, &str)> =
        file.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(strings, [(5, "delete \"from\" c"), (5, "x\\\"\\\\"), (7, "raw")]);
}

#[test]
fn sql_is_told_from_prose() {
    for sql in [
        "select 1",
        "\n  SELECT a\n from b",
        "with x as (select a from b) table x",
        "insert into a values (1)",
        "update a\n set b = 1",
        "delete from a",
    ] {
        assert!(sql_verb(sql).is_some(), "{sql}");
    }
    for prose in
        ["<select name=\"a\">", "an update was set aside", "selected from", "inserted into", "please select "]
    {
        assert_eq!(sql_verb(prose), None, "{prose}");
    }
}

fn none(breaches: &[String], rule: &str) {
    assert!(breaches.is_empty(), "{rule}\n  {}", breaches.join("\n  "));
}

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The verb of an SQL statement in `text`, if there is one.
fn sql_verb(text: &str) -> Option<&'static str> {
    let words = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let begins = |verb: &str| {
        let inner = [format!(" {verb}"), format!("({verb}")];
        words.starts_with(verb) || inner.iter().any(|inner| words.contains(inner.as_str()))
    };
    let update_set =
        words.strip_prefix("update ").is_some_and(|rest| rest.split(' ').take(4).any(|word| word == "set"));
    match () {
        () if words.starts_with("select ") || begins("select ") && words.contains(" from ") => Some("select"),
        () if begins("insert into ") => Some("insert into"),
        () if update_set => Some("update ... set"),
        () if begins("delete from ") => Some("delete from"),
        () => None,
    }
}

/// One source file, taken apart.
struct File {
    /// From the repository's root.
    path: String,
    /// The path of the module it holds: `["store", "journal"]` for `src/store/journal.rs`.
    module: Vec<String>,
    lines: usize,
    /// Identifiers, `::` and single characters of punctuation, with their lines; no comments, no literals.
    tokens: Vec<(usize, String)>,
    /// The literals' contents as written, with the lines they begin on.
    strings: Vec<(usize, String)>,
}

fn rust_files(folder: &str) -> io::Result<Vec<File>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join(folder), &mut paths)?;
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        files.push(read(&name, &text));
    }
    Ok(files)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &str, text: &str) -> File {
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let module = stem.split('/').skip(1).map(str::to_owned).collect();
    let (tokens, strings) = lex(text);
    File { path: path.to_owned(), module, lines: text.lines().count(), tokens, strings }
}

/// The modules of the crate's root that a file names, by `crate::` or by climbing there with `super::`.
fn root_modules_used(file: &File) -> Vec<(usize, String)> {
    let word = |at: usize| file.tokens.get(at).map_or("", |(_, word)| word.as_str());
    let (mut used, mut depth, mut inner) = (Vec::new(), 0, Vec::new());
    let mut at = 0;
    while at < file.tokens.len() {
        match word(at) {
            "{" => {
                if at >= 2 && word(at - 2) == "mod" {
                    inner.push(depth);
                }
                depth += 1;
            }
            "}" => {
                depth -= 1;
                inner.pop_if(|opened| *opened == depth);
            }
            "crate" if word(at + 1) == "::" => used.extend(heads(file, at + 2)),
            "super" if word(at + 1) == "::" => {
                let climbed =
                    (0..).take_while(|n| word(at + 2 * n) == "super" && word(at + 2 * n + 1) == "::");
                let climbed = climbed.count();
                at += 2 * climbed;
                if climbed == file.module.len() + inner.len() {
                    used.extend(heads(file, at));
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    used
}

/// The first names of the paths at `at`: one, or those of a `{…}` group.
fn heads(file: &File, at: usize) -> Vec<(usize, String)> {
    let Some(tokens) = file.tokens.get(at..) else { return Vec::new() };
    if tokens.first().is_none_or(|(_, word)| word != "{") {
        return tokens.first().cloned().into_iter().collect();
    }
    let (mut found, mut depth) = (Vec::new(), 0);
    for pair in tokens.windows(2) {
        match pair[0].1.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        match (depth, pair[0].1.as_str()) {
            (0, _) => break,
            (1, "{" | ",") if pair[1].1 != "}" => found.push(pair[1].clone()),
            _ => {}
        }
    }
    found
}

fn path_words(path: &str) -> Vec<&str> {
    let mut words: Vec<&str> = path.split("::").flat_map(|word| [word, "::"]).collect();
    words.pop();
    words
}

type Lexed = (Vec<(usize, String)>, Vec<(usize, String)>);

/// Splits Rust source into tokens and string literals. Enough for source that compiles.
fn lex(text: &str) -> Lexed {
    let (mut tokens, mut strings) = (Vec::new(), Vec::new());
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest)
        } else if let Some((open, close, length)) = string_bounds(rest) {
            strings.push((line, rest[open..close].to_owned()));
            length
        } else if first == '\'' {
            char_length(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let name = rest.strip_prefix("r#").unwrap_or(rest);
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            tokens.push((line, name[..end].to_owned()));
            rest.len() - name.len() + end
        } else if rest.starts_with("::") {
            tokens.push((line, "::".to_owned()));
            2
        } else {
            if !first.is_whitespace() {
                tokens.push((line, first.to_string()));
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    (tokens, strings)
}

/// Block comments nest.
fn comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Where the contents of the literal at the start of `rest` begin and end, and its whole length.
fn string_bounds(rest: &str) -> Option<(usize, usize, usize)> {
    let body = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - body.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let open = prefix + 1 + hashes + 1;
        raw[hashes..].starts_with('"').then_some(())?;
        let end = format!("\"{}", "#".repeat(hashes));
        let close = rest[open..].find(&end).map_or(rest.len(), |at| open + at);
        return Some((open, close, (close + end.len()).min(rest.len())));
    }
    body.starts_with('"').then_some(())?;
    let open = prefix + 1;
    let mut escaped = false;
    let close = rest[open..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let close = close.map_or(rest.len(), |at| open + at);
    Some((open, close, (close + 1).min(rest.len())))
}

/// A character, or the quote of a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((after, escaped))) => {
            let from = after + escaped.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |at| from + at + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}
