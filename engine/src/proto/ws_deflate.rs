//! permessage-deflate (RFC 7692): what was agreed on, and the inflating of one direction.
//!
//! A direction's window is kept from message to message unless agreed otherwise; some clients send
//! 500 bytes for 20,000 that way, and who does not keep it reads nothing. Payload is gathered into
//! blocks, so that the same calls are made, and the same faults found, however it arrives.

use agent_gate_store::record::Flaw;
use flate2::{Decompress, FlushDecompress, Status};

use super::head::Head;
use crate::limits::{
    INFLATE_BLOCK_BYTES, INFLATE_RATIO_MAX, INFLATED_BYTES_FREE, INFLATED_BYTES_MAX,
};

/// Extensions of a WebSocket as the two heads of its upgrade agree on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// permessage-deflate, if agreed on.
    pub(crate) deflate: Option<Deflate>,
    /// Whether there are others: then payloads may be anything, and reserved bits mean something.
    pub(crate) unknown: bool,
}

/// How long each side keeps its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deflate {
    /// Whether the client's messages build on those before.
    pub(crate) client_takeover: bool,
    /// Whether the origin's do.
    pub(crate) server_takeover: bool,
}

const FIELD: &str = "sec-websocket-extensions";
const NAME: &str = "permessage-deflate";

impl Extensions {
    /// What the response accepts of what the request offers (RFC 6455, section 9.1).
    pub(crate) fn agreed(request: &Head, response: &Head) -> Self {
        let offered = request.members(FIELD).any(|offer| name(offer).eq_ignore_ascii_case(NAME));
        let mut agreed = Self::default();
        for member in response.members(FIELD) {
            match Deflate::parse(member) {
                Some(deflate) if offered && agreed.deflate.is_none() => {
                    agreed.deflate = Some(deflate);
                }
                _ => agreed.unknown = true,
            }
        }
        agreed
    }
}

impl Deflate {
    /// RFC 7692, section 7.1. A window of any agreed size fits into the one that is used here.
    fn parse(member: &[u8]) -> Option<Self> {
        if !name(member).eq_ignore_ascii_case(NAME) {
            return None;
        }
        let member = std::str::from_utf8(member).ok()?;
        let mut deflate = Self { client_takeover: true, server_takeover: true };
        for parameter in member.split(';').skip(1) {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "client_no_context_takeover" if value.is_empty() => deflate.client_takeover = false,
                "server_no_context_takeover" if value.is_empty() => deflate.server_takeover = false,
                "client_max_window_bits" | "server_max_window_bits"
                    if value.parse().is_ok_and(|bits: u8| (8..=15).contains(&bits)) => {}
                _ => return None,
            }
        }
        Some(deflate)
    }
}

/// The extension that a member of the list names.
fn name(member: &[u8]) -> &str {
    let end = memchr::memchr(b';', member).unwrap_or(member.len());
    std::str::from_utf8(member[..end].trim_ascii()).unwrap_or_default()
}

/// The inflating of one direction's messages.
#[derive(Debug)]
pub(crate) struct Inflater {
    takeover: bool,
    /// None between messages that do not build on each other, and before the first.
    stream: Option<Decompress>,
    /// Whether the window is lost, so that nothing that builds on it can be read any more.
    is_lost: bool,
    /// Payload that is gathered, of which the first `read` bytes are inflated.
    block: Vec<u8>,
    read: usize,
    /// What the block has given so far.
    block_gave: u64,
    /// Bytes of the message, on the wire and inflated.
    taken: u64,
    given: u64,
    /// How much of [`TAIL`] is inflated.
    tail_read: usize,
}

/// What a sender cuts off the end of each message (RFC 7692, section 7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes are there.
    Given(usize),
    /// Nothing is left to inflate for now.
    Done,
}

impl Inflater {
    pub(crate) fn new(takeover: bool) -> Self {
        Self {
            takeover,
            stream: None,
            is_lost: false,
            block: Vec::new(),
            read: 0,
            block_gave: 0,
            taken: 0,
            given: 0,
            tail_read: 0,
        }
    }

    /// Begins a message; `false` when it cannot be inflated.
    pub(crate) fn begin(&mut self) -> bool {
        (self.taken, self.given, self.tail_read) = (0, 0, 0);
        !self.is_lost
    }

    /// How much more payload the block takes before it is to be inflated, in bytes.
    pub(crate) fn room(&self) -> usize {
        INFLATE_BLOCK_BYTES - self.block.len()
    }

    /// Takes payload into the block, no more than there is room for.
    pub(crate) fn gather(&mut self, payload: &[u8]) {
        debug_assert!(payload.len() <= self.room());
        self.block.extend_from_slice(payload);
    }

    /// Inflates of a full block, or at a message's end of what there is, as much as there is room
    /// for.
    pub(crate) fn step(&mut self, at_end: bool, out: &mut [u8]) -> Result<Step, Flaw> {
        let is_full = self.block.len() == INFLATE_BLOCK_BYTES;
        if self.block.is_empty() || !(is_full || at_end) {
            return Ok(Step::Done);
        }
        self.measure()?;
        let (read, written) = inflate(&mut self.stream, &self.block[self.read..], out)?;
        self.read += read;
        self.taken += read as u64;
        self.given += written as u64;
        self.block_gave += written as u64;
        if written < out.len() {
            let has_stalled = self.read < self.block.len();
            // The head of a deflate block takes a tenth of ours; more of it is a place to hide in.
            if has_stalled || is_full && self.block_gave == 0 {
                self.read = 0;
                return Err(Flaw::InflateFailed);
            }
            self.clear_block();
        }
        Ok(if written == 0 { Step::Done } else { Step::Given(written) })
    }

    /// Inflates the last of a message, once [`Self::step`] has nothing left to do.
    pub(crate) fn finish(&mut self, out: &mut [u8]) -> Result<Step, Flaw> {
        let has_ended = self.stream.as_ref().is_none_or(|stream| stream.total_in() == 0);
        // No payload is no deflate; and a stream that came to its end by itself needs no more.
        if self.taken == 0 || has_ended {
            return Ok(Step::Done);
        }
        self.measure()?;
        let (read, written) = inflate(&mut self.stream, &TAIL[self.tail_read..], out)?;
        self.tail_read += read;
        self.given += written as u64;
        Ok(if written == 0 { Step::Done } else { Step::Given(written) })
    }

    /// The message is over.
    pub(crate) fn end(&mut self) {
        self.clear_block();
        if !self.takeover {
            self.stream = None;
            self.block = Vec::new();
        }
    }

    /// Gives the message up; what was gathered of it and not inflated.
    pub(crate) fn give_up(&mut self) -> Vec<u8> {
        self.stream = None;
        self.is_lost = self.takeover;
        let mut rest = std::mem::take(&mut self.block);
        rest.drain(..self.read);
        self.clear_block();
        rest
    }

    fn clear_block(&mut self) {
        self.block.clear();
        (self.read, self.block_gave) = (0, 0);
    }

    /// Whether the message has inflated beyond measure.
    fn measure(&self) -> Result<(), Flaw> {
        let fair = self.taken.saturating_mul(INFLATE_RATIO_MAX).max(INFLATED_BYTES_FREE);
        if self.given > fair.min(INFLATED_BYTES_MAX) { Err(Flaw::InflateBomb) } else { Ok(()) }
    }
}

/// Inflates `input`: how much of it was read, and how much written.
fn inflate(
    stream: &mut Option<Decompress>,
    input: &[u8],
    out: &mut [u8],
) -> Result<(usize, usize), Flaw> {
    let stream = stream.get_or_insert_with(|| Decompress::new(false));
    let (mut read, mut written) = (0, 0);
    loop {
        let before = (stream.total_in(), stream.total_out());
        let status = stream
            .decompress(&input[read..], &mut out[written..], FlushDecompress::None)
            .map_err(|_| Flaw::InflateFailed)?;
        read += length(stream.total_in() - before.0);
        written += length(stream.total_out() - before.1);
        if status != Status::StreamEnd {
            return Ok((read, written));
        }
        // A sender that ends its stream (RFC 7692, section 7.2.3.4) begins another with the next
        // byte, and its window anew.
        stream.reset(false);
        if read == input.len() {
            return Ok((read, written));
        }
    }
}

/// A length that a buffer in memory had.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;
    use crate::proto::head::{RequestHead, ResponseHead};

    fn agreed(offer: &str, answer: &str) -> Extensions {
        let request = format!("GET / HTTP/1.1\r\n{offer}\r\n");
        let response = format!("HTTP/1.1 101 \r\n{answer}\r\n");
        let request = RequestHead::parse(request.as_bytes()).unwrap().unwrap().0;
        let response = ResponseHead::parse(response.as_bytes()).unwrap().unwrap().0;
        Extensions::agreed(&request.head, &response.head)
    }

    #[test]
    fn what_heads_agree_on() {
        let offer = "sec-websocket-extensions: x-y, Permessage-Deflate; client_max_window_bits\r\n";
        let field = |value: &str| format!("Sec-WebSocket-Extensions: {value}\r\n");
        let (none, unknown) = (Extensions::default(), Extensions { deflate: None, unknown: true });
        let deflate = |client_takeover, server_takeover| Extensions {
            deflate: Some(Deflate { client_takeover, server_takeover }),
            unknown: false,
        };
        for (answer, expected) in [
            (String::new(), none),
            (field("permessage-deflate"), deflate(true, true)),
            (field("PERMESSAGE-deflate ; server_no_context_takeover"), deflate(true, false)),
            (field("permessage-deflate; client_no_context_takeover"), deflate(false, true)),
            (
                field(
                    "permessage-deflate;client_max_window_bits=\"10\";server_max_window_bits = 8",
                ),
                deflate(true, true),
            ),
            (field("permessage-deflate; client_max_window_bits=16"), unknown),
            (field("permessage-deflate; client_max_window_bits"), unknown),
            (field("permessage-deflate; other"), unknown),
            (field("x-y"), unknown),
            (
                field("x-y") + &field("permessage-deflate"),
                Extensions { unknown: true, ..deflate(true, true) },
            ),
        ] {
            assert_eq!(agreed(offer, &answer), expected, "{answer}");
        }
        assert_eq!(agreed("", &field("permessage-deflate")), unknown);
    }

    /// A sender of messages, with or without context takeover.
    struct Sender(Compress, bool);

    impl Sender {
        fn new(takeover: bool) -> Self {
            Self(Compress::new(Compression::best(), false), takeover)
        }

        fn message(&mut self, text: &[u8]) -> Vec<u8> {
            if text.is_empty() {
                return vec![0]; // section 7.2.3.6; zlib does not flush twice
            }
            let mut out = Vec::with_capacity(text.len() + 100);
            self.0.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
            assert!(out.ends_with(&TAIL));
            out.truncate(out.len() - TAIL.len());
            if !self.1 {
                self.0.reset();
            }
            out
        }
    }

    /// Inflates one message that arrives in `pieces`.
    fn message(inflater: &mut Inflater, pieces: &[&[u8]]) -> Result<Vec<u8>, Flaw> {
        assert!(inflater.begin());
        let (mut text, mut out) = (Vec::new(), [0; 300]);
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() {
                let (taken, left) = piece.split_at(inflater.room().min(piece.len()));
                inflater.gather(taken);
                piece = left;
                while let Step::Given(n) = inflater.step(false, &mut out)? {
                    text.extend_from_slice(&out[..n]);
                }
            }
        }
        while let Step::Given(n) = inflater.step(true, &mut out)? {
            text.extend_from_slice(&out[..n]);
        }
        while let Step::Given(n) = inflater.finish(&mut out)? {
            text.extend_from_slice(&out[..n]);
        }
        inflater.end();
        Ok(text)
    }

    fn texts() -> Vec<Vec<u8>> {
        let noise = |n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[2];
        let noise: Vec<u8> = (0..20_000).map(noise).collect();
        vec![b"Hello".to_vec(), Vec::new(), b"Hello".to_vec(), noise.clone(), noise, vec![b'z'; 50]]
    }

    #[test]
    fn messages_inflate_wherever_they_are_cut() {
        for takeover in [true, false] {
            let mut sender = Sender::new(takeover);
            let sent: Vec<_> = texts().iter().map(|text| sender.message(text)).collect();
            assert_eq!(takeover, sent[2].len() < sent[0].len(), "a window that is kept helps");
            let mut inflater = Inflater::new(takeover);
            for (text, payload) in texts().iter().zip(&sent) {
                assert_eq!(message(&mut inflater, &[payload]).as_ref(), Ok(text));
            }
            let mut inflater = Inflater::new(takeover);
            for (text, payload) in texts().iter().zip(&sent) {
                let pieces: Vec<_> = payload.chunks(7).collect();
                assert_eq!(message(&mut inflater, &pieces).as_ref(), Ok(text));
            }
            for cut in 0..sent[0].len() {
                let (before, behind) = sent[0].split_at(cut);
                let mut inflater = Inflater::new(takeover);
                assert_eq!(message(&mut inflater, &[before, behind]), Ok(texts()[0].clone()));
            }
        }
    }

    /// The examples of RFC 7692, section 7.2.3.
    #[test]
    fn the_standards_examples() {
        let hello: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let again: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];
        let stored: &[u8] = &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        let ended: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let no_padding: &[u8] = &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let two: &[u8] =
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        let mut inflater = Inflater::new(true);
        for payload in [hello, again, stored, ended, no_padding, two] {
            assert_eq!(message(&mut inflater, &[payload]), Ok(b"Hello".to_vec()), "{payload:x?}");
        }
        assert_eq!(message(&mut inflater, &[&[0]]), Ok(Vec::new()));
        assert_eq!(message(&mut inflater, &[]), Ok(Vec::new()));
        assert_eq!(message(&mut inflater, &[again]), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn what_is_no_deflate_is_given_up() {
        for takeover in [true, false] {
            let mut inflater = Inflater::new(takeover);
            assert_eq!(message(&mut inflater, &[b"plain text"]), Err(Flaw::InflateFailed));
            assert_eq!(inflater.give_up(), b"plain text");
            assert_eq!(inflater.begin(), !takeover);
        }
    }

    /// Empty deflate blocks say nothing and may go on for ever.
    #[test]
    fn payload_that_gives_nothing_is_given_up() {
        let mut inflater = Inflater::new(true);
        let nothing = [0, 0, 0, 0xff, 0xff].repeat(1000);
        assert_eq!(message(&mut inflater, &[&nothing]), Err(Flaw::InflateFailed));
        assert_eq!(inflater.give_up(), nothing[..INFLATE_BLOCK_BYTES]);
    }

    #[test]
    fn a_bomb_goes_off_at_its_bound() {
        let bomb = Sender::new(true).message(&vec![0; 64 << 20]);
        let mut inflater = Inflater::new(true);
        assert_eq!(message(&mut inflater, &[&bomb]), Err(Flaw::InflateBomb));
        assert!(inflater.given >= INFLATED_BYTES_FREE);
        assert!(inflater.given < INFLATED_BYTES_FREE + 300 * 1100, "{}", inflater.given);
        // A long text that repeats itself is none.
        let fair = Sender::new(true).message(&vec![b'x'; 4 << 20]);
        let mut inflater = Inflater::new(true);
        assert_eq!(message(&mut inflater, &[&fair]).map(|text| text.len()), Ok(4 << 20));
    }
}
