//! What pages list: the rows of the index as they are read.

use serde::{Deserialize, Serialize};

use crate::record::{
    Direction, Flag, Flaw, Id, MessageKind, Mode, Outcome, Record, RefusedBy, Timestamp,
};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// The run.
    pub id: Id,
    /// When it attached.
    pub at: Timestamp,
    /// When it ended; absent while it lasts, or when the gate died first.
    pub ended_at: Option<Timestamp>,
    /// The command's short name.
    pub agent: String,
    /// The command line.
    pub argv: Vec<String>,
    /// Where it was started.
    pub cwd: String,
    /// How confined it is.
    pub mode: Mode,
    /// Why that is weaker than was asked for.
    pub weaker: Option<String>,
    /// Exit status as a shell would say it.
    pub status: Option<i32>,
    /// Requests recorded so far.
    pub exchanges: u64,
}

/// One line of the list of exchanges. Tunnels and refusals stand in the same list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExchangeRow {
    /// Position in the journal of the record that changed the row last: which line it is,
    /// counted from 1 over all files.
    pub seq: u64,
    /// The exchange, flow (of a tunnel) or refusal.
    pub id: Id,
    /// Its run.
    pub run: Id,
    /// When its first byte arrived.
    pub at: Timestamp,
    /// What it is.
    pub kind: Kind,
    /// Empty where no request was read, or only its response is known.
    pub method: String,
    /// `https` or `http`, or empty.
    pub scheme: String,
    /// Whom it is for; empty if only the response is known.
    pub host: String,
    /// And the port; 0 if only the response is known.
    pub port: u16,
    /// The request target, or empty.
    pub path: String,
    /// Status of the final response.
    pub status: Option<u16>,
    /// How it ended; absent while it lasts.
    pub outcome: Option<Outcome>,
    /// By what it was refused.
    pub refused_by: Option<RefusedBy>,
    /// Length of the request's body; of a tunnel, bytes from client to origin.
    pub request_bytes: u64,
    /// Length of the response's body; of a tunnel, bytes from origin to client.
    pub response_bytes: Option<u64>,
    /// From first byte to end.
    pub duration_us: Option<u64>,
    /// What is odd about it.
    pub flags: Vec<Flag>,
    /// Of a WebSocket, messages from client to origin so far; control frames are not counted.
    pub messages_sent: Option<u64>,
    /// The same, from origin to client.
    pub messages_received: Option<u64>,
}

/// What a row of the list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A request and its response.
    Exchange,
    /// A connection that was not read.
    Tunnel,
    /// Something that did not pass.
    Refused,
}

/// Which exchanges to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Of this run alone.
    pub run: Option<Id>,
    /// Older than this one: the last of the page before.
    pub before: Option<Id>,
}

/// One exchange with its records.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// As listed.
    pub row: ExchangeRow,
    /// The `request` record, or the one `tunnel` or `refused` record.
    pub request: Option<Record<'static>>,
    /// The `response` record.
    pub response: Option<Record<'static>>,
}

/// One WebSocket message of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageRow {
    /// Position of its record in the journal, as [`ExchangeRow::seq`].
    pub seq: u64,
    /// When its first frame began.
    pub at: Timestamp,
    /// Which way it went.
    pub direction: Direction,
    /// What it is.
    pub kind: MessageKind,
    /// Length of its body.
    pub bytes: u64,
    /// Length of its payload on the wire.
    pub wire_bytes: u64,
    /// The status code of a close frame.
    pub close_code: Option<u16>,
    /// What was wrong with it.
    pub flaws: Vec<Flaw>,
    /// Whether it came to its end.
    pub complete: bool,
    /// How its body begins, if that is text and stands in the record.
    pub excerpt: Option<String>,
}
