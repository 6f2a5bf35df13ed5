//! Event streams (WHATWG HTML, section 9.2.6): the events that a client would dispatch.

use memchr::{memchr, memchr2};

use crate::limits::{EVENT_BYTES_KEPT, EVENT_BYTES_MAX};

/// U+FEFF, which may stand at a stream's start and means nothing.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// An event as it is dispatched. The text is meant to be UTF-8, and is handed on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Its type: `message` unless it says something else.
    pub(crate) kind: &'a [u8],
    /// Its data lines, joined by line feeds.
    pub(crate) data: &'a [u8],
    /// The stream's last id so far, possibly empty.
    pub(crate) id: &'a [u8],
    /// The stream's last reconnection time so far, in milliseconds.
    pub(crate) retry: Option<u64>,
}

/// What is left to say at a stream's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamEnd {
    /// Events that were longer than [`EVENT_BYTES_MAX`], and skipped.
    pub(crate) oversized: u64,
    /// Whether the stream ended within an event, which a client drops.
    pub(crate) unfinished: bool,
}

/// A stream under way. An event that lies in one piece is not copied, unless it has several data
/// lines.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// How much of a byte order mark was there; its length once it cannot come any more.
    mark: usize,
    /// The last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// The beginning of the line under way, from pieces before this one. Empty while skipping.
    line: Vec<u8>,
    /// Length of the line under way.
    line_bytes: usize,
    /// Length of the event under way: all its lines but comments, without their ends.
    event_bytes: usize,
    /// The event is too long: whatever comes up to its end means nothing.
    skipping: bool,
    kind: Vec<u8>,
    /// The data lines but for those that [`Lines`] borrows.
    data: Vec<u8>,
    has_data: bool,
    id: Vec<u8>,
    retry: Option<u64>,
    oversized: u64,
}

impl EventReader {
    /// Takes the next bytes of the stream and hands on the events that end in them.
    pub(crate) fn read(&mut self, mut input: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        while let Some((byte, rest)) = input.split_first()
            && self.mark < BYTE_ORDER_MARK.len()
        {
            if *byte == BYTE_ORDER_MARK[self.mark] {
                self.mark += 1;
                input = rest;
            } else {
                // What looked like one is text.
                let text = &BYTE_ORDER_MARK[..std::mem::replace(&mut self.mark, 3)];
                Lines { stream: self, first: None }.read(text, sink);
            }
        }
        Lines { stream: self, first: None }.read(input, sink);
    }

    /// The stream is over.
    pub(crate) fn finish(&self) -> StreamEnd {
        let half_mark = (1..BYTE_ORDER_MARK.len()).contains(&self.mark);
        let half_line = self.line_bytes > 0 && self.line.first() != Some(&b':');
        StreamEnd {
            oversized: self.oversized,
            unfinished: half_mark || half_line || self.has_data || self.skipping,
        }
    }

    /// More of the event; whether it is still worth reading.
    fn count(&mut self, bytes: usize) -> bool {
        self.line_bytes += bytes;
        self.event_bytes = self.event_bytes.saturating_add(bytes);
        if self.event_bytes > EVENT_BYTES_MAX {
            self.skipping = true;
            self.forget();
        }
        !self.skipping
    }

    /// Makes room for the next event.
    fn forget(&mut self) {
        for buffer in [&mut self.line, &mut self.data, &mut self.kind] {
            buffer.clear();
            buffer.shrink_to(EVENT_BYTES_KEPT);
        }
        self.has_data = false;
    }

    fn take_retry(&mut self, value: &[u8]) {
        if let Ok(text) = std::str::from_utf8(value)
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(milliseconds) = text.parse()
        {
            self.retry = Some(milliseconds);
        }
    }
}

/// The lines of one piece.
struct Lines<'s, 'i> {
    stream: &'s mut EventReader,
    /// The event's data, while it is one line of this piece.
    first: Option<&'i [u8]>,
}

impl<'i> Lines<'_, 'i> {
    fn read(mut self, mut input: &'i [u8], sink: &mut impl FnMut(Event<'_>)) {
        while !input.is_empty() {
            if std::mem::take(&mut self.stream.after_return) && input[0] == b'\n' {
                input = &input[1..];
                continue;
            }
            let Some(end) = memchr2(b'\r', b'\n', input) else {
                if self.stream.count(input.len()) {
                    self.stream.line.extend_from_slice(input);
                }
                break;
            };
            self.line(&input[..end], sink);
            self.stream.after_return = input[end] == b'\r';
            input = &input[end + 1..];
        }
        self.keep_first();
    }

    /// A line ends, with `end` as its last or only part.
    fn line(&mut self, end: &'i [u8], sink: &mut impl FnMut(Event<'_>)) {
        let is_read = self.stream.count(end.len());
        let is_empty = std::mem::take(&mut self.stream.line_bytes) == 0;
        if is_empty {
            self.dispatch(sink);
        } else if is_read && self.stream.line.is_empty() {
            self.whole_line(end);
        } else if is_read {
            let mut line = std::mem::take(&mut self.stream.line);
            line.extend_from_slice(end);
            self.joined_line(&line);
            line.clear();
            self.stream.line = line;
        }
    }

    /// A line of this piece: its data need not be copied.
    fn whole_line(&mut self, line: &'i [u8]) {
        match field(line) {
            Some((b"data", value)) if !self.stream.has_data => {
                self.stream.has_data = true;
                self.first = Some(value);
            }
            _ => self.joined_line(line),
        }
    }

    fn joined_line(&mut self, line: &[u8]) {
        let Some((name, value)) = field(line) else {
            // Comments keep a connection alive for hours, and are of no event.
            self.stream.event_bytes -= line.len();
            return;
        };
        match name {
            b"data" => self.add_data(value),
            b"event" => {
                self.stream.kind.clear();
                self.stream.kind.extend_from_slice(value);
            }
            b"id" if memchr(0, value).is_none() => {
                self.stream.id.clear();
                self.stream.id.extend_from_slice(value);
            }
            b"retry" => self.stream.take_retry(value),
            _ => {}
        }
    }

    fn add_data(&mut self, value: &[u8]) {
        self.keep_first();
        if self.stream.has_data {
            self.stream.data.push(b'\n');
        }
        self.stream.has_data = true;
        self.stream.data.extend_from_slice(value);
    }

    /// Copies what will be needed beyond this piece, or with more data.
    fn keep_first(&mut self) {
        if let Some(first) = self.first.take()
            && !self.stream.skipping
        {
            self.stream.data.extend_from_slice(first);
        }
    }

    /// An empty line: the event is over.
    fn dispatch(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        let stream = &mut *self.stream;
        let first = self.first.take();
        if std::mem::take(&mut stream.skipping) {
            stream.oversized += 1;
        } else if stream.has_data {
            sink(Event {
                kind: if stream.kind.is_empty() { b"message" } else { &stream.kind },
                data: first.unwrap_or(&stream.data),
                id: &stream.id,
                retry: stream.retry,
            });
        }
        stream.event_bytes = 0;
        stream.forget();
    }
}

/// Name and value of a line; none for a comment.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(colon) = memchr(b':', line) else { return Some((line, b"")) };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    (colon > 0).then(|| (name, value.strip_prefix(b" ").unwrap_or(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as `kind|data|id|retry`, and the end.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, StreamEnd) {
        let (mut reader, mut events) = (EventReader::default(), Vec::new());
        for piece in pieces {
            reader.read(piece, &mut |event| {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let retry = event.retry.map_or_else(String::new, |ms| ms.to_string());
                let parts = [text(event.kind), text(event.data), text(event.id), retry];
                events.push(parts.join("|"));
            });
        }
        (events, reader.finish())
    }

    const TABLE: [(&str, &[&str], bool); 26] = [
        ("", &[], false),
        ("\n\r\n\r", &[], false),
        ("data: one\n\n", &["message|one||"], false),
        ("data: one\r\n\r\ndata: two\r\n\r\n", &["message|one||", "message|two||"], false),
        ("data: one\r\rdata: two\r\r", &["message|one||", "message|two||"], false),
        ("data: mixed\r\n\ndata: x\n\r\n", &["message|mixed||", "message|x||"], false),
        ("data\n\ndata\ndata\n\ndata:", &["message|||", "message|\n||"], true),
        ("data:a\ndata: b\ndata:  c\n\n", &["message|a\nb\n c||"], false),
        ("event: tick\ndata: 1\nevent: tock\n\n", &["tock|1||"], false),
        ("event: lost\n\ndata: 1\n\n", &["message|1||"], false),
        ("id: 7\n\ndata: 1\n\nid\ndata: 2\n\n", &["message|1|7|", "message|2||"], false),
        ("id: a\0b\ndata: 1\n\n", &["message|1||"], false),
        ("retry: 30\ndata: 1\n\nretry: x\ndata:2\n\n", &["message|1||30", "message|2||30"], false),
        ("retry:\nretry: +5\nretry: 99999999999999999999\ndata:\n\n", &["message|||"], false),
        (": ping\n\n:\n\n: ping\ndata: 1\n\n", &["message|1||"], false),
        ("data : 1\nDATA: 2\nunknown\n\n", &[], false),
        ("\u{feff}data: marked\n\n", &["message|marked||"], false),
        ("\u{feff}\u{feff}data: twice\n\ndata: 1\n\n", &["message|1||"], false),
        ("\u{fefe}: x\ndata: no mark\n\n", &["message|no mark||"], false),
        ("\u{feff}", &[], false),
        ("data: ünï\n\n", &["message|ünï||"], false),
        ("data: {\"a\": \"b:c\"}\n\n", &["message|{\"a\": \"b:c\"}||"], false),
        ("data: 1\n\ndata: cut\n", &["message|1||"], true),
        ("data: 1\n\nda", &["message|1||"], true),
        ("data: 1\n\n: only a comm", &["message|1||"], false),
        ("data: 1\r\n\r\nevent: x\r\n", &["message|1||"], false),
    ];

    #[test]
    fn every_cut_gives_the_same() {
        for (stream, events, unfinished) in TABLE {
            let bytes = stream.as_bytes();
            let end = StreamEnd { oversized: 0, unfinished };
            let expected = (events.iter().map(|&event| event.to_owned()).collect(), end);
            for at in 0..=bytes.len() {
                assert_eq!(read([&bytes[..at], &bytes[at..]]), expected, "{stream:?} at {at}");
            }
            for step in 1..=bytes.len().max(1) {
                assert_eq!(read(bytes.chunks(step)), expected, "{stream:?} by {step}");
            }
        }
    }

    #[test]
    fn half_a_mark_is_text() {
        assert_eq!(read([&BYTE_ORDER_MARK[..2]]).1, StreamEnd { oversized: 0, unfinished: true });
        assert_eq!(read([&b"\xef\xbbdata: 1\n\ndata: 2\n\n"[..]]).0, ["message|2||"]);
    }

    #[test]
    fn events_without_end_are_skipped() {
        let long = "x".repeat(EVENT_BYTES_MAX);
        let many_lines = format!("data: {}\n", "y".repeat(1000)).repeat(EVENT_BYTES_MAX / 1000);
        let fits = format!("data: {}", &long[6..]);
        for (stream, events, end) in [
            (format!("{fits}\n\ndata: after\n\n"), 2, (0, false)),
            (format!("{fits}x\n\ndata: after\n\n"), 1, (1, false)),
            (format!("data: before\n\ndata: {long}\n\r\ndata: after\n\n"), 2, (1, false)),
            (format!("{many_lines}id: 5\n\ndata: after\n\n"), 1, (1, false)),
            (format!("id: {long}\r\ndata: lost\r\n\r\ndata: after\r\n\r\n"), 1, (1, false)),
            (format!("data: 1\n\ndata: {long}"), 1, (0, true)),
            (format!("data: 1\n\n:{long}{long}\ndata: lost\n\n"), 1, (1, false)),
            (": ping\n".repeat(EVENT_BYTES_MAX / 5) + "data: 1\n\n", 1, (0, false)),
        ] {
            let bytes = stream.as_bytes();
            let expected = StreamEnd { oversized: end.0, unfinished: end.1 };
            let whole = read([bytes]);
            assert_eq!((whole.0.len(), whole.1), (events, expected), "{stream:.20}");
            for step in [999, 65_536, 4_000_000] {
                assert!(read(bytes.chunks(step)) == whole, "{stream:.20} by {step}");
            }
            let last = "message|after||";
            assert!(whole.0.last().is_none_or(|e| e == last || e == "message|1||"), "an id");
        }
    }

    #[test]
    fn no_more_is_held_than_an_event_needs() {
        let mut reader = EventReader::default();
        let long = "x".repeat(1_000_000);
        reader.read(format!("data: {long}").as_bytes(), &mut |_| ());
        reader.read(b"\n\n", &mut |event| assert_eq!(event.data.len(), long.len()));
        let held = [&reader.line, &reader.data].map(Vec::capacity);
        assert!(held.iter().all(|bytes| *bytes <= EVENT_BYTES_KEPT), "{held:?}");
    }
}
