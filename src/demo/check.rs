//! What the demo captured, read back from disk and held against what the origin saw and sent.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use agent_gate_store::record::{Body, Outcome, Record};
use agent_gate_store::{Exchange, ExchangeRow, Filter, Layout, Reader};

use super::PATIENCE;
use super::origin::{Origin, Seen};
use crate::terminal::{clean, print};

/// More than the script has.
const ROWS_MAX: usize = 100;

/// Prints what was captured; whether it is all that the origin saw and sent, byte for byte.
///
/// # Errors
/// When the index or the journal cannot be read.
pub(super) fn report(layout: &Layout, origin: &Origin) -> anyhow::Result<bool> {
    let seen = origin.seen();
    let reader = Reader::open(layout)?;
    let rows = captured(&reader, seen.len())?;
    print("\ncaptured on disk:")?;
    let mut complete = !seen.is_empty() && rows.len() == seen.len();
    for (number, row) in rows.iter().enumerate() {
        let same = match (reader.exchange(row.id)?, seen.get(number)) {
            (Some(exchange), Some(seen)) => is_same(&reader, &exchange, seen)?,
            _ => false,
        };
        complete &= same;
        print(&line(row, same))?;
    }
    print(if complete {
        "every byte is what the origin saw and sent"
    } else {
        "this is NOT all that the origin saw and sent"
    })?;
    Ok(complete)
}

/// The exchanges in order, once there are so many and each has ended: the client has its answer
/// before the index has it.
fn captured(reader: &Reader, count: usize) -> anyhow::Result<Vec<ExchangeRow>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut rows = reader.exchanges(&Filter::default(), ROWS_MAX)?;
        let ended = rows.iter().filter(|row| row.outcome.is_some()).count();
        if ended >= count || Instant::now() > deadline {
            rows.reverse();
            return Ok(rows);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn line(row: &ExchangeRow, same: bool) -> String {
    let status = row.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    format!(
        "  {} {}://{}{} {status}: {} bytes sent, {} received, {}",
        clean(&row.method),
        clean(&row.scheme),
        clean(&row.host),
        clean(&row.path),
        row.request_bytes,
        row.response_bytes.unwrap_or(0),
        if same { "byte for byte" } else { "NOT as the origin saw it" }
    )
}

fn is_same(reader: &Reader, exchange: &Exchange, seen: &Seen) -> anyhow::Result<bool> {
    let (Some(Record::Request(request)), Some(Record::Response(response))) =
        (&exchange.request, &exchange.response)
    else {
        return Ok(false);
    };
    Ok(request.complete
        && response.outcome == Outcome::Complete
        && bytes(reader, &request.body)? == seen.request
        && bytes(reader, &response.body)? == seen.response)
}

fn bytes(reader: &Reader, body: &Body<'_>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.body(body)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
