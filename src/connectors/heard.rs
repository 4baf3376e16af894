//! What other parties say, made fit for an error message or a piece of evidence.

use std::error::Error;
use std::io;

/// Enough of a server's words to understand it; more would only fill the journal.
const ENOUGH: usize = 300;

/// `text` on one line, without control characters, cut to a sentence or two.
pub(super) fn heard(text: &str) -> String {
    let line = text.split(|c: char| c.is_control() || c.is_whitespace());
    let line = line.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The innermost cause: the outer ones only say that something failed.
pub(super) fn cause(error: &(dyn Error + 'static)) -> String {
    heard(&causes(error).last().unwrap_or(error).to_string())
}

/// What TLS objects to, if that is why it failed: a certificate does not mend itself by trying again.
pub(super) fn tls_fault(error: &(dyn Error + 'static)) -> Option<String> {
    let fault = causes(error).find_map(|error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let wrapped = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        error.downcast_ref::<rustls::Error>().or(wrapped)
    })?;
    Some(heard(&fault.to_string()))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_one_short_line() {
        assert_eq!(heard("mailbox\r\n full\0 \u{1b}[31m now "), "mailbox full [31m now");
        assert_eq!(heard(&"é".repeat(400)).chars().count(), ENOUGH + 1);
    }
}
