//! The `message` record: what a WebSocket carried (RFC 6455).

use serde::{Deserialize, Serialize};

use crate::record::{Body, Id, Timestamp};

/// One WebSocket message or control frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// This record's own id.
    pub id: Id,
    /// The run it belongs to.
    pub run: Id,
    /// When its first frame began.
    pub at: Timestamp,
    /// The exchange whose upgrade opened the WebSocket.
    pub exchange: Id,
    /// The downstream connection.
    pub flow: Id,
    /// Which way it went.
    pub direction: Direction,
    /// Its place among the records of this direction, from 1, in the order in which they ended.
    pub seq: u64,
    /// What its first frame says it is.
    pub kind: MessageKind,
    /// The opcode of a `reserved` frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opcode: Option<u8>,
    /// What it says: unmasked, reassembled, inflated. Of a close frame, the reason.
    #[serde(skip_serializing)] // `encode` writes it straight into the line
    pub body: Body<'a>,
    /// Bytes of its frames' payloads as they were on the wire.
    pub wire_bytes: u64,
    /// How many frames it came in.
    pub frames: u64,
    /// Whether it was compressed on the wire (RFC 7692).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compressed: bool,
    /// The status code of a close frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_code: Option<u16>,
    /// What was wrong with it; it was forwarded all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaws: Vec<Flaw>,
    /// Whether it came to its end; otherwise the body is what had arrived.
    pub complete: bool,
    /// From its first byte to its last, in microseconds.
    pub duration_us: u64,
}

impl Message<'_> {
    /// Whether it counts as a message: control frames do not, nor does the rest of one.
    pub fn is_counted(&self) -> bool {
        let is_control = match self.kind {
            MessageKind::Ping | MessageKind::Pong | MessageKind::Close => true,
            MessageKind::Reserved => self.opcode.is_some_and(|opcode| opcode >= 8),
            MessageKind::Text | MessageKind::Binary | MessageKind::Continuation => false,
        };
        !is_control && !self.flaws.contains(&Flaw::Rest)
    }
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the origin.
    Sent,
    /// From the origin to the client.
    Received,
}

/// What a message is (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// The closing handshake, or one half of it.
    Close,
    /// A continuation of nothing.
    Continuation,
    /// A frame of an opcode that the standard leaves open.
    Reserved,
}

/// What was wrong with a message. Sections are those of RFC 6455 unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// A reserved bit is set that no agreed extension gives a meaning (5.2).
    ReservedBits,
    /// The opcode means nothing (5.2).
    UnknownOpcode,
    /// The length could have been written shorter (5.2).
    LengthNotMinimal,
    /// The length's top bit is set (5.2): no later frame can be found, so what follows is all
    /// kept as this one's content.
    LengthOutOfRange,
    /// A control frame without the final bit (5.5).
    ControlFragmented,
    /// A control frame of more than 125 bytes (5.5).
    ControlTooLong,
    /// A client's frame that is not masked (5.1).
    Unmasked,
    /// An origin's frame that is masked (5.1).
    Masked,
    /// A continuation, but of what (5.4)?
    ContinuationWithoutStart,
    /// A new message began inside this fragmented one, which therefore has no end (5.4).
    Interrupted,
    /// Text, or the reason of a close, that is not UTF-8 (8.1, 5.5.1).
    NotUtf8,
    /// A close frame with one byte, where a status code has two (5.5.1).
    CloseTooShort,
    /// A status code that must not be sent (7.4).
    CloseCodeInvalid,
    /// It came after this direction's close frame (5.5.1).
    AfterClose,
    /// What came is not the deflate coding that was agreed on (RFC 7692).
    InflateFailed,
    /// It inflates beyond measure, so the rest of it was not inflated.
    InflateBomb,
    /// The body is as it was on the wire: this direction can no longer be inflated, or by an
    /// extension that is not known here.
    NotInflated,
    /// What is left of the message before, whose inflating was given up.
    Rest,
}
