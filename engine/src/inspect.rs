//! One body as it is read beside the wire: its content codings undone, its events counted. No I/O:
//! whoever carries the body says when there is time for it.

use agent_gate_store::content_coding::{Decoder, codings};
use agent_gate_store::record::{Decoded, EventsFlaw};

use crate::limits::{EVENT_BYTES_KEPT, UNDECODED_BYTES_MAX};
use crate::proto::sse::EventReader;

/// A body under way that has something to be read.
#[derive(Debug)]
pub(crate) struct Inspector {
    coded: Option<Coded>,
    readers: Readers,
    /// Whether the body has any byte.
    has_begun: bool,
}

/// A coded body: what of it has passed and is not decoded yet, and what decodes it.
#[derive(Debug)]
struct Coded {
    decoder: Decoder,
    /// Decoded up to `at`.
    passed: Vec<u8>,
    at: usize,
    /// The decoder has more to give without more input.
    has_more: bool,
}

/// Those who read the decoded body, piece by piece.
#[derive(Debug, Default)]
struct Readers {
    events: Option<EventCount>,
}

/// What a body came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// What its codings hid, if it has any.
    pub(crate) decoded: Option<Decoded>,
    /// How many events an event stream held.
    pub(crate) events: Option<u64>,
    /// What was wrong with them.
    pub(crate) events_flaw: Option<EventsFlaw>,
}

impl Inspector {
    /// For a request's body with these fields of its head; none if there is nothing to be read.
    pub(crate) fn of_request<'a>(
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Option<Box<Self>> {
        Self::of(&codings(fields), Readers::default())
    }

    /// For a response's body.
    pub(crate) fn of_response<'a>(
        fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    ) -> Option<Box<Self>> {
        let events = is_event_stream(fields.clone()).then(EventCount::default);
        Self::of(&codings(fields), Readers { events })
    }

    fn of(codings: &[String], readers: Readers) -> Option<Box<Self>> {
        let coded = (!codings.is_empty()).then(|| Coded::new(codings));
        if coded.is_none() && readers.events.is_none() {
            return None;
        }
        Some(Box::new(Self { coded, readers, has_begun: false }))
    }

    /// The next piece of the body has passed. A coded one is decoded by [`Self::go_on`].
    pub(crate) fn piece(&mut self, content: &[u8]) {
        self.has_begun |= !content.is_empty();
        match &mut self.coded {
            Some(coded) => coded.passed.extend_from_slice(content),
            None => self.readers.piece(content),
        }
    }

    /// Whether there is something left to decode.
    pub(crate) fn is_busy(&self) -> bool {
        self.coded.as_ref().is_some_and(Coded::is_busy)
    }

    /// Whether so much is left that no more should come.
    pub(crate) fn is_behind(&self) -> bool {
        let left = |coded: &Coded| coded.passed.len() - coded.at;
        self.coded.as_ref().is_some_and(|coded| left(coded) > UNDECODED_BYTES_MAX)
    }

    /// Decodes as much as goes into one turn.
    pub(crate) fn go_on(&mut self) {
        if let Some(coded) = &mut self.coded {
            coded.go_on(&mut self.readers);
        }
    }

    /// The body is over, and nothing is left to decode.
    pub(crate) fn finish(self) -> Summary {
        debug_assert!(!self.is_busy(), "the body is read to its end first");
        if !self.has_begun {
            return Summary::default();
        }
        let decoded = self.coded.and_then(|coded| coded.decoder.finish());
        let events = self.readers.events;
        Summary {
            decoded,
            events: events.as_ref().map(|events| events.count),
            events_flaw: events.and_then(|events| events.flaw()),
        }
    }
}

impl Coded {
    fn new(codings: &[String]) -> Self {
        Self { decoder: Decoder::new(codings), passed: Vec::new(), at: 0, has_more: false }
    }

    fn is_busy(&self) -> bool {
        self.has_more || self.at < self.passed.len()
    }

    fn go_on(&mut self, readers: &mut Readers) {
        let rest = &self.passed[self.at..];
        let progress = self.decoder.push(rest, &mut |decoded| readers.piece(decoded));
        self.has_more = progress.more;
        self.at += progress.taken;
        if self.at == self.passed.len() {
            self.passed.clear();
            self.passed.shrink_to(EVENT_BYTES_KEPT);
            self.at = 0;
        }
    }
}

impl Readers {
    fn piece(&mut self, decoded: &[u8]) {
        if let Some(events) = &mut self.events {
            events.piece(decoded);
        }
    }
}

/// Counts the events of an event stream.
#[derive(Debug, Default)]
struct EventCount {
    reader: EventReader,
    count: u64,
}

impl EventCount {
    fn piece(&mut self, decoded: &[u8]) {
        let Self { reader, count } = self;
        reader.read(decoded, &mut |_| *count += 1);
    }

    fn flaw(&self) -> Option<EventsFlaw> {
        let end = self.reader.finish();
        if end.oversized > 0 {
            Some(EventsFlaw::Oversized)
        } else {
            end.unfinished.then_some(EventsFlaw::Unfinished)
        }
    }
}

/// Whether the first `Content-Type` is that of an event stream, parameters aside.
fn is_event_stream<'a>(mut fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> bool {
    let kind = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let essence = kind.and_then(|(_, value)| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_gate_store::record::CodingFlaw;

    type Fields = [(&'static str, &'static str)];

    fn of(fields: &Fields) -> Option<Box<Inspector>> {
        Inspector::of_response(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn summary(fields: &Fields, pieces: &[&[u8]]) -> Summary {
        let mut inspector = of(fields).expect("something to read");
        for piece in pieces {
            inspector.piece(piece);
            while inspector.is_busy() {
                inspector.go_on();
            }
        }
        inspector.finish()
    }

    #[test]
    fn only_what_can_be_read_is_inspected() {
        for fields in [
            &[][..],
            &[("Content-Type", "application/json")],
            &[("Content-Encoding", "identity"), ("Content-Type", "text/plain")],
            &[("Content-Type", "text/event-streams"), ("X", "text/event-stream")],
        ] {
            assert!(of(fields).is_none(), "{fields:?}");
        }
        let events = [("content-type", " Text/Event-Stream ; charset=utf-8")];
        assert!(of(&events).is_some());
        let fields = events.iter().map(|(name, value)| (*name, value.as_bytes()));
        assert!(Inspector::of_request(fields).is_none());
        assert!(Inspector::of_request([("content-encoding", &b"br"[..])].into_iter()).is_some());
    }

    #[test]
    fn events_are_counted_also_under_a_coding() {
        let stream = b"data: 1\n\ndata: 2\n\ndata: cut";
        let cut = Some(EventsFlaw::Unfinished);
        let plain =
            summary(&[("Content-Type", "text/event-stream")], &[&stream[..12], &stream[12..]]);
        assert_eq!(plain, Summary { decoded: None, events: Some(2), events_flaw: cut });

        let coded = zstd::bulk::compress(stream, 3).unwrap();
        let fields = [("Content-Type", "text/event-stream"), ("Content-Encoding", "zstd")];
        let pieces: Vec<_> = coded.chunks(1).collect();
        let decoded = |bytes, flaw| Some(Decoded { codings: vec!["zstd".to_owned()], bytes, flaw });
        let told = summary(&fields, &pieces);
        let all = decoded(stream.len() as u64, None);
        assert_eq!(told, Summary { decoded: all, events: Some(2), events_flaw: cut });
        assert_eq!(summary(&fields, &[]), Summary::default());
        let told = summary(&fields, &[&coded[..6]]);
        assert_eq!(told.decoded, decoded(0, Some(CodingFlaw::Truncated)));
        assert_eq!((told.events, told.events_flaw), (Some(0), None));
    }

    /// What passes at once is decoded in many turns, and nothing is held afterwards.
    #[test]
    fn decoding_takes_turns() {
        let plain = vec![b'x'; 4 << 20];
        let coded = zstd::bulk::compress(&plain, 3).unwrap();
        let mut inspector = of(&[("Content-Encoding", "zstd")]).unwrap();
        inspector.piece(&coded);
        let mut turns = 0;
        while inspector.is_busy() {
            inspector.go_on();
            turns += 1;
        }
        assert!(turns > 30, "{turns}");
        assert!(inspector.coded.as_ref().unwrap().passed.capacity() <= EVENT_BYTES_KEPT);
        assert!(!inspector.is_behind());
        inspector.piece(&vec![0; UNDECODED_BYTES_MAX + 1]);
        assert!(inspector.is_behind());
    }
}
