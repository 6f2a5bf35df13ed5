//! What is printed, and how: notes on stderr, results on stdout, captured text made harmless.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

/// Whoever read our standard output has left; not a failure.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output left")]
pub(crate) struct OutputClosed;

/// Tells the user something on stderr, in one line that says who speaks.
pub(crate) fn note(text: &str) {
    // Nobody is left to tell when stderr is closed; the exit code still says it.
    let _ = writeln!(io::stderr(), "agent-gate: {}", one_line(text));
}

/// An error and its causes in one line. A library's message may hold its cause already; it is not
/// told twice.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            let _ = write!(told, ": {cause}");
        }
    }
    one_line(&told)
}

/// Prints one line of results on stdout.
///
/// # Errors
/// [`OutputClosed`] when the reader left; else the write's own error.
pub(crate) fn print(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.map_err(|error| anyhow::Error::new(error).context("standard output")),
    }
}

/// Whether colours may be written to stdout: a terminal, and the user did not say no.
pub(crate) fn stdout_has_colours() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// Captured text for a terminal: whatever could move the cursor, change colours, end the line or
/// reorder what is read becomes a visible escape.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_harmful(c) {
            let _ = write!(cleaned, "\\u{{{:x}}}", u32::from(c));
        } else {
            cleaned.push(c);
        }
    }
    Cow::Owned(cleaned)
}

/// Messages of libraries may have several lines; ours have one.
fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    clean(&lines.join(" ")).into_owned()
}

/// C0, DEL and C1 controls drive terminals; the bidirectional controls reorder text on display.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_text_cannot_drive_the_terminal() {
        for (captured, shown) in [
            ("/v1/messages?beta=true", "/v1/messages?beta=true"),
            ("grüße/日本", "grüße/日本"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
        ] {
            assert_eq!(clean(captured), shown);
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::from_raw_os_error(30);
        let error = anyhow::Error::new(cause).context("cannot create /d").context("no data");
        let told = chain(&error);
        assert_eq!(told, "no data: cannot create /d: Read-only file system (os error 30)");
        assert_eq!(chain(&error.context(told.clone())), told);
    }

    #[test]
    fn notes_are_one_line() {
        assert_eq!(one_line("first\n  | second\n\n"), "first | second");
    }
}
