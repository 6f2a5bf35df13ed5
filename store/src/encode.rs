//! A record as the line it becomes, made on the thread that records, and back.

use std::io::{self, Write};

use serde::Deserialize;

use crate::body::push_member;
use crate::record::{Hash, Record, VERSION};

/// The line of `record` without its last member `prev`, its closing brace and its line feed,
/// which the writer adds when it knows the line before.
pub(crate) fn line(record: &Record<'_>) -> Vec<u8> {
    // Escapes make a body about an eighth longer; the rest are heads.
    let body = record.memory_bytes();
    let mut line = Line(Vec::with_capacity(body + body / 8 + 1536));
    serde_json::to_writer(&mut line, record)
        .expect("records have string keys only, and a Vec takes every write");
    line.0.pop();
    if let Some(body) = record.body() {
        push_member(&mut line.0, body);
    }
    line.0
}

/// What ends every line.
pub(crate) fn line_end(prev: Hash) -> String {
    format!(",\"prev\":\"{prev}\"}}\n")
}

/// The record in a line, or why it is none that this version knows.
pub(crate) fn record(line: &[u8]) -> Result<Record<'static>, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }

    let Version { v } = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    if v != VERSION {
        return Err(format!("journal format {v} is not known to this agent-gate"));
    }
    serde_json::from_slice(line).map_err(|e| e.to_string())
}

/// Writes the version before the record's first member.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.is_empty() {
            debug_assert_eq!(bytes, b"{", "serde_json writes the brace by itself");
            write!(self.0, "{{\"v\":{VERSION},")?;
            return Ok(());
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
