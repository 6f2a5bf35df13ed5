//! What is sent: text shaped like the body of an LLM request, bytes that do not compress, events.

use std::time::Duration;

use nix::time::ClockId;

/// Bytes of the small answer.
pub(crate) const SMALL_BYTES: usize = 1024;

/// Bytes of one event.
pub(crate) const EVENT_BYTES: usize = 100;

/// Steady pseudo-random numbers (xorshift64*).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let count = words.len() as u64;
        words[usize::try_from(self.next() % count).unwrap_or_default()]
    }
}

const WORDS: [&str; 32] = [
    "the", "file", "returns", "a", "value", "when", "request", "is", "and", "of", "function", "to",
    "stream", "test", "error", "in", "buffer", "with", "tool", "call", "result", "line", "should",
    "not", "be", "config", "read", "write", "module", "we", "this", "that",
];

/// What ends a word, as it stands in a JSON string: of text and code mixed, about one byte in 30
/// needs an escape when a record quotes it.
const ENDS: [&str; 32] = [
    " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ", " ",
    " ", " ", ", ", ", ", ". ", ". ", "(", ") ", "\\n", "\\n", "\\n    ", " \\\"", "\\\" ",
];

/// A Messages request of about `bytes` bytes; another one for each seed.
pub(crate) fn conversation(bytes: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(seed);
    let mut text = String::with_capacity(bytes + 256);
    text.push_str(r#"{"model":"bench-1","max_tokens":4096,"stream":true,"messages":["#);
    while text.len() < bytes {
        let role = numbers.one_of(&["user", "assistant"]);
        text.push_str(r#"{"role":""#);
        text.push_str(role);
        text.push_str(r#"","content":[{"type":"text","text":""#);
        let end = (text.len() + 2048).min(bytes);
        while text.len() < end {
            text.push_str(numbers.one_of(&WORDS));
            text.push_str(numbers.one_of(&ENDS));
        }
        text.push_str(r#""}]},"#);
    }
    text.pop();
    text.push_str("]}");
    text.into_bytes()
}

/// `bytes` bytes that do not compress.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(1);
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend_from_slice(&numbers.next().to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// One event that says when it was sent, as a chunk of the chunked coding.
pub(crate) fn event_chunk() -> String {
    let sent = monotonic().as_nanos();
    let event = format!("data: {{\"sent\":{sent:020},\"type\":\"content_block_delta\",\"text\":\"");
    let filler = EVENT_BYTES - event.len() - 4;
    format!("{EVENT_BYTES:x}\r\n{event}{:x<filler$}\"}}\n\n\r\n", "")
}

/// How long ago the event in this line was sent, if it is one.
pub(crate) fn event_age(line: &[u8]) -> Option<Duration> {
    let sent = line.strip_prefix(b"data: {\"sent\":")?.get(..20)?;
    let sent: u64 = std::str::from_utf8(sent).ok()?.parse().ok()?;
    Some(monotonic().saturating_sub(Duration::from_nanos(sent)))
}

/// The machine's steady clock, the same in all processes.
fn monotonic() -> Duration {
    ClockId::CLOCK_MONOTONIC.now().expect("every Linux has this clock").into()
}
