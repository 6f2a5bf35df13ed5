//! The record types of the journal, as they are written and as they are read back.
//!
//! One record is one line: `{"v":1,"type":…,"id":…,"run":…,"at":…,…}`. The writer adds `prev`, the
//! BLAKE3 hash of the line before. `docs/records.md` is the user's page of the same format.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use crate::message::{Direction, Flaw, Message, MessageKind};
pub use crate::values::{Hash, Id, Timestamp};

/// The version of the journal format, the `v` of every line.
pub const VERSION: u32 = 1;

/// One kept fact: one line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record<'a> {
    /// A run attached to the gate.
    Run(Run<'a>),
    /// A run ended.
    RunEnd(RunEnd<'a>),
    /// A request, written before its last byte goes upstream.
    Request(Request<'a>),
    /// How the exchange with the same id ended.
    Response(Response<'a>),
    /// A WebSocket message; one that a client sent, written before its last byte goes upstream.
    Message(Message<'a>),
    /// A connection that was passed through, or that ended before it carried an exchange.
    Tunnel(Tunnel<'a>),
    /// Something the gate did not let through.
    Refused(Refused<'a>),
}

impl Record<'_> {
    /// The record's id; a request and its response have the same.
    pub fn id(&self) -> Id {
        match self {
            Self::Run(r) => r.id,
            Self::RunEnd(r) => r.id,
            Self::Request(r) => r.id,
            Self::Response(r) => r.id,
            Self::Message(r) => r.id,
            Self::Tunnel(r) => r.id,
            Self::Refused(r) => r.id,
        }
    }

    /// The run it belongs to; a `run` record belongs to itself.
    pub fn run(&self) -> Id {
        match self {
            Self::Run(r) => r.id,
            Self::RunEnd(r) => r.run,
            Self::Request(r) => r.run,
            Self::Response(r) => r.run,
            Self::Message(r) => r.run,
            Self::Tunnel(r) => r.run,
            Self::Refused(r) => r.run,
        }
    }

    /// About how much memory its variable parts take, in bytes: what to ask the recorder for.
    pub fn memory_bytes(&self) -> usize {
        match self.body().map(|body| &body.kept) {
            Some(Kept::Inline(bytes)) => bytes.len(),
            Some(Kept::File { .. }) | None => 0,
        }
    }

    /// The body, of a record that has one.
    pub fn body(&self) -> Option<&Body<'_>> {
        match self {
            Self::Request(r) => Some(&r.body),
            Self::Response(r) => Some(&r.body),
            Self::Message(r) => Some(&r.body),
            _ => None,
        }
    }

    /// Its moment, as the type's own documentation says which.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Run(r) => r.at,
            Self::RunEnd(r) => r.at,
            Self::Request(r) => r.at,
            Self::Response(r) => r.at,
            Self::Message(r) => r.at,
            Self::Tunnel(r) => r.at,
            Self::Refused(r) => r.at,
        }
    }
}

/// `agent-gate run` (or `proxy`) attached: what it starts, and how confined it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run<'a> {
    /// The run's own id, which every record of the run names as `run`.
    pub id: Id,
    /// When it attached.
    pub at: Timestamp,
    /// The command line, lossily as text.
    pub argv: Vec<Cow<'a, str>>,
    /// Where it was started.
    pub cwd: Cow<'a, str>,
    /// The command's short name: the file name of `argv[0]`.
    pub agent: Cow<'a, str>,
    /// How confined it is.
    pub mode: Mode,
    /// Why the mode is weaker than was asked for: the failed step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weaker: Option<Cow<'a, str>>,
    /// Process id of `agent-gate run` as the gate sees it.
    pub pid: u32,
    /// Version of agent-gate.
    pub version: Cow<'a, str>,
}

/// How a run is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In namespaces of its own: no network but the gate.
    Airtight,
    /// Proxy variables only: a command that ignores them goes unseen.
    Permissive,
}

/// A run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd<'a> {
    /// This record's own id.
    pub id: Id,
    /// The run that ended.
    pub run: Id,
    /// When.
    pub at: Timestamp,
    /// Exit status as a shell would say it (128+n for signals); absent when `run` was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// Why, when it was not the command's own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// Exchanges seen in the run.
    pub exchanges: u64,
}

/// A request as the client sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// The exchange's id; the response carries the same.
    pub id: Id,
    /// The run it belongs to.
    pub run: Id,
    /// When its first byte arrived.
    pub at: Timestamp,
    /// The downstream connection it came by.
    pub flow: Id,
    /// The client's end of that connection.
    pub client: SocketAddr,
    /// `https` or `http`.
    pub scheme: Cow<'a, str>,
    /// Whom it is for: the host that policy was asked about and that is dialled.
    pub host: Cow<'a, str>,
    /// And the port.
    pub port: u16,
    /// The address of the origin, or of the proxy in `via`, once there is a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The upstream proxy that it goes through, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Cow<'a, str>>,
    /// TLS between client and gate; absent for clear text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls<'a>>,
    /// Start line and fields.
    pub head: RequestHead<'a>,
    /// The body after transfer decoding, content coding kept.
    #[serde(skip_serializing)] // `encode` writes it straight into the line
    pub body: Body<'a>,
    /// Trailer fields of a chunked body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<Field<'a>>,
    /// Whether the client sent it to its end.
    pub complete: bool,
    /// What is odd about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
    /// From its first byte to its last, in microseconds.
    pub duration_us: u64,
}

/// What is odd about something and worth a second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// The names by which the client asked (proxy target, client hello, `Host`) disagree.
    HostMismatch,
    /// The client does not accept the gate's certificate.
    ClientDistrust,
}

/// Start line and fields of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestHead<'a> {
    /// As sent, case kept.
    pub method: Cow<'a, str>,
    /// The request target as sent (origin form, absolute form, …).
    pub target: Cow<'a, str>,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: Cow<'a, str>,
    /// In order, with case and repeats.
    pub fields: Vec<Field<'a>>,
}

/// Status line and fields of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseHead<'a> {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: Cow<'a, str>,
    /// Three digits.
    pub status: u16,
    /// The reason phrase as sent, possibly empty.
    pub reason: Cow<'a, str>,
    /// In order, with case and repeats.
    pub fields: Vec<Field<'a>>,
}

/// One field line. Written as `["Name","value"]`; a value that is not UTF-8 as
/// `["Name",{"base64":"…"}]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// As sent, case kept.
    pub name: Cow<'a, str>,
    /// As sent, without surrounding white space.
    pub value: Cow<'a, [u8]>,
}

/// TLS as negotiated on one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tls<'a> {
    /// `1.3` or `1.2`.
    pub version: Cow<'a, str>,
    /// The name the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Cow<'a, str>>,
    /// The protocol agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Cow<'a, str>>,
}

/// The answer, and how the exchange ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response<'a> {
    /// The exchange's id, as in its request.
    pub id: Id,
    /// The run it belongs to.
    pub run: Id,
    /// When the exchange ended.
    pub at: Timestamp,
    /// The address of the origin or of the upstream proxy, once there was a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// Whether the gate itself wrote the head and body below (an error answer).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_gate: bool,
    /// Interim heads (1xx) in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interim: Vec<ResponseHead<'a>>,
    /// The final head, if one arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<ResponseHead<'a>>,
    /// The body after transfer decoding, content coding kept.
    #[serde(skip_serializing)] // `encode` writes it straight into the line
    pub body: Body<'a>,
    /// Trailer fields of a chunked body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<Field<'a>>,
    /// How many events an event stream held; absent for other bodies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// What was wrong with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_flaw: Option<EventsFlaw>,
    /// Where the time went.
    pub timings: Timings,
    /// Bytes after an upgrade (101) or CONNECT-like switch, client to origin and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded: Option<Transferred>,
    /// Messages each way, of an upgrade to WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Transferred>,
}

/// What is wrong with an event stream (WHATWG HTML, section 9.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventsFlaw {
    /// An event was too long to be read, and is not counted.
    Oversized,
    /// It ended within an event, which a client drops.
    Unfinished,
}

/// How much went each way: bytes of a raw relay, or messages of a WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// Client to origin.
    pub sent: u64,
    /// Origin to client.
    pub received: u64,
}

/// How an exchange or a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To its end, as the framing says.
    Complete,
    /// The client went away first.
    CutByClient,
    /// The origin went away in mid-message.
    CutByOrigin,
    /// The origin's name did not resolve.
    NameUnknown,
    /// No address of the origin could be connected to.
    Unreachable,
    /// TLS with the origin failed; for instance its certificate is not trusted.
    OriginTlsFailed,
    /// The upstream proxy could not be reached, or lets nothing through to the origin.
    ProxyFailed,
    /// TLS with the client failed; for instance it does not trust the gate's CA.
    ClientTlsFailed,
    /// The client finished TLS and closed without a byte: it opened the connection in advance, or
    /// does not trust the CA.
    ClientClosedEarly,
    /// The origin did not begin to answer within the time that the settings give it.
    OriginSilent,
    /// The origin broke the protocol.
    OriginBroken,
    /// The client broke the protocol.
    ClientBroken,
    /// The address is one the gate does not dial.
    AddressRefused,
    /// Recording stopped (disk full, …), so traffic did too.
    RecordingStopped,
    /// The gate was stopping.
    GateStopped,
}

/// Where an exchange's time went, in microseconds. Absent steps did not happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Resolving the origin's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_us: Option<u64>,
    /// Opening the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u64>,
    /// The TLS handshake with the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_us: Option<u64>,
    /// From the request's first byte to the response's first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u64>,
    /// From the request's first byte to the end of the exchange.
    pub total_us: u64,
}

/// A body: its length and hash always, its bytes as far as they were kept.
///
/// Written as `{"bytes":N,"blake3":"…","text":"…"}` (or `"base64"` when not UTF-8). A body in a
/// side file has `"file":true` instead (`bodies/<blake3>`); one cut at the capture bound has
/// `"kept":M`, and a side file is then named by the hash of what was kept, in `"kept_blake3"`. One
/// under content codings has `"decoded"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Body<'a> {
    /// Length on the wire after transfer decoding, in bytes.
    pub bytes: u64,
    /// BLAKE3 of all of it.
    pub blake3: Hash,
    /// What was kept of it.
    pub kept: Kept<'a>,
    /// What its content codings hid, if it has any.
    pub decoded: Option<Decoded>,
}

/// A body without its content codings, as it was read beside the wire: only facts, since the
/// bytes can be had from what was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoded {
    /// As the head names them, in lower case and without `identity`: the last was applied last.
    pub codings: Vec<String>,
    /// How many bytes came out, up to the flaw if there is one.
    pub bytes: u64,
    /// What was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaw: Option<CodingFlaw>,
}

/// What is wrong with a coded body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodingFlaw {
    /// It swells beyond the bounds of [`crate::content_coding`].
    Bomb,
    /// It is not what its coding says.
    Corrupt,
    /// It ends too early.
    Truncated,
    /// More follows behind its end.
    Trailing,
    /// A coding is not known, or there are too many.
    Unsupported,
    /// It needs a larger window than HTTP allows (RFC 9659).
    Window,
}

/// What was kept of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<'a> {
    /// In the record itself: all of it, or the first part if shorter than `Body::bytes`.
    Inline(Cow<'a, [u8]>),
    /// In the side file `bodies/<blake3>`.
    File {
        /// Length of the file; shorter than `Body::bytes` when cut at the capture bound.
        bytes: u64,
        /// BLAKE3 of the file, which is its name.
        blake3: Hash,
    },
}

/// A connection whose bytes were not read as exchanges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tunnel<'a> {
    /// The connection's id (the `flow`).
    pub id: Id,
    /// The run it belongs to.
    pub run: Id,
    /// When it was opened.
    pub at: Timestamp,
    /// The client's end.
    pub client: SocketAddr,
    /// Whom it is for.
    pub host: Cow<'a, str>,
    /// And the port.
    pub port: u16,
    /// The address of the origin, or of the proxy in `via`, once there was a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The upstream proxy that it went through, as `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Cow<'a, str>>,
    /// The name in the client hello, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Cow<'a, str>>,
    /// Whether the passthrough list let it through unread; otherwise it ended before an exchange.
    pub passthrough: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// What is odd about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
    /// Bytes each way.
    #[serde(flatten)]
    pub transferred: Transferred,
    /// How long it was open, in microseconds.
    pub duration_us: u64,
}

/// Something the gate did not let through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused<'a> {
    /// This record's own id.
    pub id: Id,
    /// The run it belongs to.
    pub run: Id,
    /// When.
    pub at: Timestamp,
    /// The downstream connection.
    pub flow: Id,
    /// The client's end.
    pub client: SocketAddr,
    /// Whom it was for, as far as is known.
    pub host: Cow<'a, str>,
    /// And the port.
    pub port: u16,
    /// The name in the client hello, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Cow<'a, str>>,
    /// Method and target, when a request could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Cow<'a, str>>,
    /// By what.
    pub by: RefusedBy,
    /// In words: what, and what would allow it.
    pub detail: Cow<'a, str>,
    /// What is odd about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<Flag>,
}

/// What refused something. The text is also the value of `X-Agent-Gate-Block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// The denylist names the host.
    Denylisted,
    /// The allowlist is enforced and does not name it.
    HostNotAllowlisted,
    /// The address is loopback, link-local, metadata or the gate's own.
    AddressRefused,
    /// Neither TLS nor HTTP: the gate cannot read it, so it does not pass.
    UnknownProtocol,
    /// The request breaks HTTP.
    BadRequest,
    /// The request's head did not come to its end in time.
    HeadTimeout,
    /// The run, or all runs together, have as many connections open as they may.
    TooManyConnections,
    /// Recording has stopped (disk full, …).
    RecordingStopped,
}
