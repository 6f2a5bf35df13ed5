//! Event streams: any bytes, read as a simple reader reads them.

use super::cuts::Cuts;
use crate::proto::sse::{EventReader, StreamEnd};

/// Reads the input as an event stream.
pub fn sse(data: &[u8]) {
    let cuts = Cuts::read(data);
    let at_once = read([cuts.input]);
    assert_eq!(read(cuts.pieces()), at_once, "in pieces, and at once");
    assert_eq!(read(cuts.input.chunks(1)), at_once, "byte by byte, and at once");
    assert_eq!(at_once.0, decode(cuts.input), "as a simple reader finds them");
    assert_eq!(at_once.1.oversized, 0, "no input here is as long as an event may be");
}

/// An event as it is dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    kind: Vec<u8>,
    data: Vec<u8>,
    id: Vec<u8>,
    retry: Option<u64>,
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, StreamEnd) {
    let (mut reader, mut events) = (EventReader::default(), Vec::new());
    for piece in pieces {
        reader.read(piece, &mut |it| {
            let (kind, data, id) = (it.kind.to_vec(), it.data.to_vec(), it.id.to_vec());
            events.push(Event { kind, data, id, retry: it.retry });
        });
    }
    (events, reader.finish())
}

/// The events of a whole stream by the letter of WHATWG HTML, section 9.2.6.
fn decode(input: &[u8]) -> Vec<Event> {
    let none = Event { kind: Vec::new(), data: Vec::new(), id: Vec::new(), retry: None };
    let (mut events, mut event) = (Vec::new(), none);
    for line in lines(input.strip_prefix("\u{feff}".as_bytes()).unwrap_or(input)) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"" if line.is_empty() => {
                if event.data.pop().is_some() {
                    let kind = if event.kind.is_empty() { b"message" } else { &event.kind[..] };
                    events.push(Event { kind: kind.to_vec(), ..event.clone() });
                }
                event = Event { kind: Vec::new(), data: Vec::new(), ..event };
            }
            b"event" => event.kind = value.to_vec(),
            b"data" => event.data.extend_from_slice(&[value, b"\n"].concat()),
            b"id" if !value.contains(&0) => event.id = value.to_vec(),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let digits = String::from_utf8_lossy(value);
                event.retry = digits.parse().ok().or(event.retry);
            }
            _ => {}
        }
    }
    events
}

/// The lines that have an end: a line feed, a carriage return, or both in this order.
fn lines(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = rest.iter().position(|byte| b"\r\n".contains(byte)) {
        lines.push(&rest[..end]);
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    lines
}
