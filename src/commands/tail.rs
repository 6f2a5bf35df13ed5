//! `agent-gate tail`: one line an exchange, when it has ended.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use agent_gate_store::{ExchangeRow, Kind, Layout, Reader};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Config;
use crate::exit_code::Exit;
use crate::terminal::{self, OutputClosed, clean};

/// How often the index is looked at. The eye does not notice less.
const LOOK_EVERY_MS: u16 = 200;

/// Rows read in one go.
const ROWS_MAX: usize = 1000;

/// Prints exchanges from now on, until its output is closed or it is interrupted.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn run(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let layout = config.layout();
    let print = if json { as_json } else { as_text };
    let mut index = Index::wait_for(&layout)?;
    let mut seen = index.reader.committed()?;
    loop {
        let rows = index.reader.changed_since(seen, ROWS_MAX)?;
        for row in &rows {
            seen = row.seq;
            if has_ended(row) {
                terminal::print(&print(row)?)?;
            }
        }
        if rows.len() < ROWS_MAX {
            pause()?;
            index.follow(&layout)?;
        }
    }
}

/// The index, and which file it is: `reindex` puts another in its place.
struct Index {
    reader: Reader,
    inode: u64,
}

impl Index {
    /// Waits until there is one: the first run makes it.
    fn wait_for(layout: &Layout) -> anyhow::Result<Self> {
        loop {
            match inode(layout) {
                Some(inode) => match Reader::open(layout) {
                    Ok(reader) if reader.committed().is_ok() => return Ok(Self { reader, inode }),
                    Err(error) if inode_is_settled(layout, inode) => return Err(error.into()),
                    // Its tables are being made.
                    _ => pause()?,
                },
                None => pause()?,
            }
        }
    }

    fn follow(&mut self, layout: &Layout) -> anyhow::Result<()> {
        if inode(layout).is_some_and(|inode| inode != self.inode) {
            *self = Self::wait_for(layout)?;
        }
        Ok(())
    }
}

fn inode(layout: &Layout) -> Option<u64> {
    fs::metadata(layout.index_path()).ok().map(|file| file.ino())
}

/// Whether an index that cannot be read is more than a moment old.
fn inode_is_settled(layout: &Layout, inode: u64) -> bool {
    let Ok(file) = fs::metadata(layout.index_path()) else { return false };
    let age = file.modified().ok().and_then(|modified| modified.elapsed().ok());
    file.ino() == inode && age.is_none_or(|age| age > Duration::from_secs(5))
}

/// Sleeps until the next look; ends when nobody reads our output any more.
fn pause() -> anyhow::Result<()> {
    let out = io::stdout();
    let mut watched = [PollFd::new(out.as_fd(), PollFlags::empty())];
    // Interrupted or failed, it is a shorter sleep.
    let _ = poll(&mut watched, PollTimeout::from(LOOK_EVERY_MS));
    if watched[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR)) {
        return Err(OutputClosed.into());
    }
    Ok(())
}

fn has_ended(row: &ExchangeRow) -> bool {
    row.outcome.is_some() || row.kind == Kind::Refused
}

#[expect(clippy::unnecessary_wraps, reason = "one face with `as_json`")]
fn as_text(row: &ExchangeRow) -> anyhow::Result<String> {
    Ok(text(row, terminal::stdout_has_colours()))
}

fn as_json(row: &ExchangeRow) -> anyhow::Result<String> {
    Ok(serde_json::to_string(row)?)
}

fn text(row: &ExchangeRow, colours: bool) -> String {
    let what = match row.kind {
        Kind::Tunnel => "TUNNEL",
        _ if row.method.is_empty() => "-",
        _ => &row.method,
    };
    let (word, colour) = ending(row);
    let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
    let volume = match (row.messages_sent.zip(row.messages_received), row.response_bytes) {
        (Some((sent, received)), _) => format!("{sent}+{received} messages"),
        (None, Some(received)) => format!("{}+{received} B", row.request_bytes),
        (None, None) => format!("{} B", row.request_bytes),
    };
    let time = row.duration_us.map_or_else(String::new, |us| format!(" {} ms", us / 1000));
    format!("{} {} {} {word} {volume}{time}", row.at, clean(what), clean(&url(row)))
}

/// How it ended, and the colour of that: green, yellow for an origin's no, red for what failed.
fn ending(row: &ExchangeRow) -> (String, u8) {
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    const RED: u8 = 31;
    if let Some(by) = row.refused_by {
        return (format!("refused:{}", word(&by)), RED);
    }
    let status = row.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    match row.outcome {
        Some(agent_gate_store::record::Outcome::Complete) | None => {
            let colour = if row.status.is_some_and(|s| s >= 400) { YELLOW } else { GREEN };
            (status, colour)
        }
        Some(outcome) => (format!("{status} {}", word(&outcome)), RED),
    }
}

/// A value's word in the journal.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

fn url(row: &ExchangeRow) -> String {
    let ExchangeRow { scheme, host, port, path, .. } = row;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    match (scheme.as_str(), *port) {
        _ if path.contains("://") => path.clone(),
        ("https", 443) | ("http", 80) => format!("{scheme}://{host}{path}"),
        ("", _) => format!("{host}:{port}{path}"),
        _ => format!("{scheme}://{host}:{port}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use agent_gate_store::record::{Outcome, RefusedBy};
    use agent_gate_store::{Id, Timestamp};

    use super::*;

    fn row() -> ExchangeRow {
        ExchangeRow {
            seq: 1,
            id: Id(0),
            run: Id(0),
            at: Timestamp(0),
            kind: Kind::Exchange,
            method: "POST".into(),
            scheme: "https".into(),
            host: "a.example".into(),
            port: 443,
            path: "/v1?x=1".into(),
            status: Some(200),
            outcome: Some(Outcome::Complete),
            refused_by: None,
            request_bytes: 5,
            response_bytes: Some(7),
            duration_us: Some(12_345),
            flags: Vec::new(),
            messages_sent: None,
            messages_received: None,
        }
    }

    #[test]
    fn lines_tell_what_happened() {
        let start = "1970-01-01T00:00:00.000000Z ";
        let cut = ExchangeRow { outcome: Some(Outcome::CutByOrigin), ..row() };
        let refused = ExchangeRow {
            kind: Kind::Refused,
            scheme: String::new(),
            host: "::1".into(),
            path: String::new(),
            status: None,
            outcome: None,
            refused_by: Some(RefusedBy::AddressRefused),
            request_bytes: 0,
            response_bytes: None,
            duration_us: None,
            method: String::new(),
            ..row()
        };
        let websocket = ExchangeRow {
            method: "GET".into(),
            status: Some(101),
            messages_sent: Some(4),
            messages_received: Some(70),
            ..row()
        };
        for (row, line) in [
            (websocket, "GET https://a.example/v1?x=1 101 4+70 messages 12 ms"),
            (row(), "POST https://a.example/v1?x=1 200 5+7 B 12 ms"),
            (cut, "POST https://a.example/v1?x=1 200 cut_by_origin 5+7 B 12 ms"),
            (refused, "- [::1]:443 refused:address_refused 0 B"),
        ] {
            assert_eq!(text(&row, false), format!("{start}{line}"));
        }
        assert!(text(&row(), true).contains("\x1b[32m200\x1b[0m"));
    }

    #[test]
    fn captured_bytes_do_not_drive_the_terminal() {
        let row = ExchangeRow { path: "/\x1b[2J\n".into(), method: "\x07".into(), ..row() };
        assert!(!text(&row, false).contains(char::is_control));
    }

    #[test]
    fn only_what_has_ended_is_told() {
        assert!(has_ended(&row()));
        assert!(!has_ended(&ExchangeRow { outcome: None, ..row() }));
        assert!(has_ended(&ExchangeRow { outcome: None, kind: Kind::Refused, ..row() }));
    }
}
