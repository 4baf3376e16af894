//! Writing to the terminal. Results go to stdout, everything else to stderr. Text that others wrote
//! passes through [`plain`]: it must not move the cursor, hide itself or pass for Steward's own words.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::cli::Fail;
use crate::domain::text::is_treacherous;

/// Columns when nobody says how many.
const USUAL_WIDTH: usize = 100;

/// Writes a line to stdout.
///
/// # Errors
/// When stdout takes no more. A reader that has gone, as in `| head`, is no error.
pub fn line(text: &str) -> Result<(), Fail> {
    write(&mut io::stdout().lock(), text)
}

/// Writes a piece of a line to stdout.
///
/// # Errors
/// As [`line()`].
pub fn piece(text: &str) -> Result<(), Fail> {
    let mut stdout = io::stdout().lock();
    done(write!(stdout, "{text}").and_then(|()| stdout.flush()))
}

/// Writes JSON to stdout; serde escapes control characters by itself.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &Value) -> Result<(), Fail> {
    line(&format!("{value:#}"))
}

/// Writes a line to stderr. That nobody reads it is nobody's problem.
pub fn note(text: &str) {
    let _ = write(&mut io::stderr().lock(), text);
}

fn write(to: &mut impl Write, text: &str) -> Result<(), Fail> {
    done(writeln!(to, "{text}").and_then(|()| to.flush()))
}

fn done(written: io::Result<()>) -> Result<(), Fail> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether stdout may be coloured (see no-color.org).
#[must_use]
pub fn color() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How many columns there are.
#[must_use]
pub fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.unwrap_or(USUAL_WIDTH).clamp(40, 200)
}

/// Text for one line of a terminal: control characters (line ends among them) and characters that turn
/// or hide what follows are written as escapes.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            _ if is_treacherous(char) => safe.extend(char.escape_unicode()),
            _ => safe.push(char),
        }
    }
    safe
}

/// At most `width` characters of one line.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    let safe = plain(text);
    if safe.chars().count() <= width {
        return safe;
    }
    let kept: String = safe.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Lines under each other, every column as wide as its widest cell; the last one takes what is left.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>], width: usize) -> String {
    let last = head.len().saturating_sub(1);
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(std::iter::once(head[column].len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(widest).collect();
    let before: usize = widths.iter().take(last).map(|width| width + 2).sum();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (column, cell) in cells.enumerate() {
            match column == last {
                true => text.push_str(&cut(cell, width.saturating_sub(before).max(20))),
                false => text.push_str(&format!("{cell:<width$}  ", width = widths[column])),
            }
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// A moment without its fraction of a second.
#[must_use]
pub fn moment(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => plain(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_text_cannot_move_the_cursor_or_hide_itself() {
        assert_eq!(plain("\u{1b}[2Jgone\u{7}"), "\\u{1b}[2Jgone\\u{7}");
        assert_eq!(plain("a\r\nb\tc\u{9b}1m"), "a\\r\\nb\\tc\\u{9b}1m");
        assert_eq!(
            plain("pay \u{202e}evil\u{2066}\u{200b}\u{e0041}"),
            "pay \\u{202e}evil\\u{2066}\\u{200b}\\u{e0041}"
        );
    }

    #[test]
    fn ordinary_text_of_any_script_stays_as_it_is() {
        for text in ["Grüße, 世界 — ¿qué?", "👍🏽", "a\\nb"] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn a_table_is_as_wide_as_the_screen_at_most() {
        let rows = vec![vec!["abc".into(), "x".repeat(90)], vec!["a\u{1b}".into(), "y".into()]];
        let table = table(&["ID", "TITLE"], &rows, 40);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "ID       TITLE");
        assert_eq!(lines[1].chars().count(), 40);
        assert_eq!(lines[2], "a\\u{1b}  y");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        struct Gone(io::ErrorKind);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write(&mut Gone(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write(&mut Gone(io::ErrorKind::StorageFull), "x").is_err());
    }
}
