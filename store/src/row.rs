//! What a record changes in the index: one function for live records and for reindexing, so that
//! both give the same rows.

use std::borrow::Cow;

use crate::record::{
    Body, Direction, Flag, Flaw, Id, Kept, Message, MessageKind, Mode, Outcome, Record, RefusedBy,
    Timestamp,
};
use crate::rows::Kind;

/// A target is listed up to so many bytes; the journal has all of it.
const PATH_BYTES_MAX: usize = 2048;

/// So many bytes of a message's text stand in the list: about two lines of a page.
const EXCERPT_BYTES_MAX: usize = 200;

/// The change of one record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RowChange {
    /// A new run.
    Run(Box<RunBegun>),
    /// A run's end.
    RunEnd { run: Id, at: Timestamp, status: Option<i32> },
    /// A new line of the list.
    Begun(Box<Begun>),
    /// A response, which completes a line.
    Ended(Ended),
    /// A message of an exchange.
    Message(Box<Told>),
}

/// A new run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunBegun {
    pub(crate) id: Id,
    pub(crate) at: Timestamp,
    pub(crate) agent: String,
    /// As a JSON array.
    pub(crate) argv: String,
    pub(crate) cwd: String,
    pub(crate) mode: Mode,
    pub(crate) weaker: Option<String>,
}

/// A new line of the list: a request, or a tunnel or refusal, which is whole at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Begun {
    pub(crate) id: Id,
    pub(crate) run: Id,
    pub(crate) at: Timestamp,
    pub(crate) kind: Kind,
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) refused_by: Option<RefusedBy>,
    pub(crate) request_bytes: u64,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) response_bytes: Option<u64>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) flags: Vec<Flag>,
}

/// A response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ended {
    pub(crate) id: Id,
    pub(crate) run: Id,
    pub(crate) at: Timestamp,
    pub(crate) status: Option<u16>,
    pub(crate) outcome: Outcome,
    pub(crate) response_bytes: u64,
    pub(crate) duration_us: u64,
}

/// A WebSocket message as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) exchange: Id,
    pub(crate) run: Id,
    pub(crate) at: Timestamp,
    pub(crate) direction: Direction,
    pub(crate) kind: MessageKind,
    pub(crate) bytes: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) close_code: Option<u16>,
    pub(crate) flaws: Vec<Flaw>,
    pub(crate) complete: bool,
    pub(crate) excerpt: Option<String>,
    /// Whether it adds to the exchange's count of messages.
    pub(crate) counted: bool,
}

impl RowChange {
    /// What `record` changes.
    pub(crate) fn of(record: &Record<'_>) -> Self {
        match record {
            Record::Run(r) => Self::Run(Box::new(RunBegun {
                id: r.id,
                at: r.at,
                agent: r.agent.clone().into_owned(),
                argv: serde_json::to_string(&r.argv).unwrap_or_default(),
                cwd: r.cwd.clone().into_owned(),
                mode: r.mode,
                weaker: r.weaker.clone().map(Cow::into_owned),
            })),
            Record::RunEnd(r) => Self::RunEnd { run: r.run, at: r.at, status: r.status },
            Record::Request(r) => Self::Begun(Box::new(Begun {
                method: r.head.method.clone().into_owned(),
                scheme: r.scheme.clone().into_owned(),
                path: shortened(&r.head.target),
                request_bytes: r.body.bytes,
                flags: r.flags.clone(),
                ..Begun::new(Kind::Exchange, r.id, r.run, r.at, &r.host, r.port)
            })),
            Record::Response(r) => Self::Ended(Ended {
                id: r.id,
                run: r.run,
                at: r.at,
                status: r.head.as_ref().map(|h| h.status),
                outcome: r.outcome,
                response_bytes: r.body.bytes,
                duration_us: r.timings.total_us,
            }),
            Record::Message(r) => Self::Message(Box::new(Told::of(r))),
            Record::Tunnel(r) => Self::Begun(Box::new(Begun {
                request_bytes: r.transferred.sent,
                outcome: Some(r.outcome),
                response_bytes: Some(r.transferred.received),
                duration_us: Some(r.duration_us),
                flags: r.flags.clone(),
                ..Begun::new(Kind::Tunnel, r.id, r.run, r.at, &r.host, r.port)
            })),
            Record::Refused(r) => {
                let request = r.request.as_deref().unwrap_or_default();
                let (method, path) = request.split_once(' ').unwrap_or((request, ""));
                Self::Begun(Box::new(Begun {
                    method: method.to_owned(),
                    path: shortened(path),
                    refused_by: Some(r.by),
                    flags: r.flags.clone(),
                    ..Begun::new(Kind::Refused, r.id, r.run, r.at, &r.host, r.port)
                }))
            }
        }
    }
}

impl Begun {
    /// A line of which only this much is known.
    pub(crate) fn new(kind: Kind, id: Id, run: Id, at: Timestamp, host: &str, port: u16) -> Self {
        Self {
            id,
            run,
            at,
            kind,
            method: String::new(),
            scheme: String::new(),
            host: host.to_owned(),
            port,
            path: String::new(),
            refused_by: None,
            request_bytes: 0,
            outcome: None,
            response_bytes: None,
            duration_us: None,
            flags: Vec::new(),
        }
    }
}

impl Told {
    fn of(message: &Message<'_>) -> Self {
        Self {
            exchange: message.exchange,
            run: message.run,
            at: message.at,
            direction: message.direction,
            kind: message.kind,
            bytes: message.body.bytes,
            wire_bytes: message.wire_bytes,
            close_code: message.close_code,
            flaws: message.flaws.clone(),
            complete: message.complete,
            excerpt: excerpt(&message.body),
            counted: message.is_counted(),
        }
    }
}

/// How a body begins, if it is text that stands in its record.
fn excerpt(body: &Body<'_>) -> Option<String> {
    let Kept::Inline(bytes) = &body.kept else { return None };
    let start = &bytes[..bytes.len().min(EXCERPT_BYTES_MAX)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character cut in two at the end of the excerpt.
        Err(e) if e.error_len().is_none() && start.len() < bytes.len() => {
            std::str::from_utf8(&start[..e.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.is_empty()).then(|| text.to_owned())
}

fn shortened(path: &str) -> String {
    path[..path.floor_char_boundary(PATH_BYTES_MAX)].to_owned()
}
