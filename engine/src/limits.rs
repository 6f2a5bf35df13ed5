//! Every bound of the data plane, with its unit and its reason.
//!
//! The first part holds what the user may set otherwise ([`crate::Limits`]); the rest is fixed.

use std::time::Duration;

/// Client connections open at once. Ten thousand streams of one swarm of agents are to fit four
/// times over; the descriptors that the system grants are the tighter bound as a rule.
pub(crate) const CONNECTIONS_MAX: usize = 65_536;

/// And of one run, so that no single run can take all of them.
pub(crate) const CONNECTIONS_PER_RUN_MAX: usize = 16_384;

/// A client's first bytes after it has connected, and its TLS handshake. It runs over loopback, so
/// only a client that is stopped or hostile needs this long.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(60);

/// A request's head, from its first byte to its last: as servers have it. No client writes a head
/// in more than a few pieces.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(60);

/// A client's connection without a request. Origins close theirs long before (seconds to some
/// minutes) and the client's is closed with it, so that this ends only what was forgotten.
pub(crate) const CLIENT_IDLE_MAX: Duration = Duration::from_secs(60 * 60);

/// One TCP connection attempt to one address.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// A request or response head, in bytes. Servers commonly allow 8–64 KiB; agents send cookies and
/// tokens of several KiB, and nothing legitimate was seen near this.
pub(crate) const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Field lines in a head at most.
pub(crate) const FIELDS_MAX: usize = 1024;

/// Bodies that are held in memory until their records are written, over all connections, in bytes:
/// room for thousands of streams under way, and no more than a laptop can spare.
pub(crate) const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Field lines in a head or trailer section that are parsed without touching the heap.
pub(crate) const FIELDS_INLINE: usize = 64;

/// A chunk-size line (size and extensions) or the trailer section of a chunked body, in bytes.
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 16 * 1024;

/// A client hello, in bytes: the largest record a peer may send, twice (it may be split).
pub(crate) const CLIENT_HELLO_BYTES_MAX: usize = 2 * (16 * 1024 + 5);

/// The first read buffer of a connection, in bytes: an idle connection holds no more than this.
pub(crate) const READ_BYTES_MIN: usize = 2 * 1024;

/// The largest read buffer, in bytes; reads that come back full grow towards it.
pub(crate) const READ_BYTES_MAX: usize = 64 * 1024;

/// How much may be staged for one write before it is flushed, in bytes.
pub(crate) const WRITE_BYTES_MAX: usize = 64 * 1024;

/// A body up to this size stays in its record; a larger one goes to a side file, in bytes.
pub(crate) const BODY_INLINE_BYTES_MAX: usize = 1024 * 1024;

/// The pieces in which a side file is handed to the writer, in bytes: one read's worth, since each
/// connection with a large body gathers one.
pub(crate) const SIDE_PIECE_BYTES: usize = 64 * 1024;

/// An event of an event stream, in bytes: one that is longer is skipped and told as oversized. The
/// longest that were seen carry images in base64.
pub(crate) const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the buffers of an event stream keep between events, in bytes: the usual event.
pub(crate) const EVENT_BYTES_KEPT: usize = 16 * 1024;

/// Coded content that has passed and is not decoded yet, in bytes, for one body. Beyond it the
/// sender waits: decoding gives way to traffic, yet nothing leaves unseen.
pub(crate) const UNDECODED_BYTES_MAX: usize = 256 * 1024;

/// Interim (1xx) responses before one final one.
pub(crate) const INTERIM_MAX: usize = 32;

/// Minted leaf configurations a worker keeps.
pub(crate) const LEAVES_MAX: usize = 1024;

/// After this a leaf is minted anew, well before it ends.
pub(crate) const LEAF_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The next address is tried beside the pending one after this (RFC 8305, section 8).
pub(crate) const CONNECT_STAGGER: Duration = Duration::from_millis(250);

/// Looking up a name.
pub(crate) const RESOLVE_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an answer of the system's resolver is used again.
pub(crate) const RESOLVE_AGE_MAX: Duration = Duration::from_secs(10);

/// Answers of the system's resolver a worker keeps.
pub(crate) const RESOLVED_NAMES_MAX: usize = 1024;

/// Threads that look up names at once; `getaddrinfo` blocks for as long as a server is silent.
pub(crate) const RESOLVER_THREADS_MAX: usize = 16;

/// Names that may wait for a free one of them.
pub(crate) const RESOLVER_QUEUE_MAX: usize = 1024;

/// The TLS handshake with an origin or a proxy.
pub(crate) const ORIGIN_TLS_TIME_MAX: Duration = Duration::from_secs(30);

/// Names of origins for which a run keeps TLS sessions to resume, for each way it identifies itself.
pub(crate) const TLS_SESSIONS_MAX: usize = 256;

/// An upstream proxy's answer to CONNECT. It connects to the origin first, for which common proxies
/// give themselves a minute.
pub(crate) const PROXY_ANSWER_TIME_MAX: Duration = Duration::from_secs(75);

/// How long a proxy that refuses may take to say why, once its answer's head is there.
pub(crate) const PROXY_REASON_TIME_MAX: Duration = Duration::from_secs(2);

/// How much of a refusing proxy's page is read, in bytes: error pages begin with their style sheet.
pub(crate) const PROXY_REASON_BYTES_MAX: usize = 64 * 1024;

/// How much of it is quoted, in characters.
pub(crate) const PROXY_REASON_CHARS_MAX: usize = 300;

/// An idle upstream connection is kept for this long. Origins commonly close after 60 s or more.
pub(crate) const POOL_IDLE_MAX: Duration = Duration::from_secs(50);

/// An idle upstream connection takes a request that must not be sent twice only while it is this
/// fresh: no origin closes so soon, so the race "closed just as we wrote" does not arise.
pub(crate) const POOL_IDLE_MAX_UNSAFE: Duration = Duration::from_secs(2);

/// Idle upstream connections a worker keeps in all, and for one origin.
pub(crate) const POOL_CONNECTIONS_MAX: usize = 256;
/// See [`POOL_CONNECTIONS_MAX`].
pub(crate) const POOL_CONNECTIONS_PER_ORIGIN_MAX: usize = 16;

/// After an answer to a half-sent request, what the client still sends is read and dropped for
/// this long, so that a reset does not overtake the answer (RFC 9112, section 9.6).
pub(crate) const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// When a run ends, its exchanges whose request is still on its way have this long to send it.
pub(crate) const DETACH_GRACE: Duration = Duration::from_secs(2);

/// … and connections that wait to be accepted this long to be taken in.
pub(crate) const CALLERS_TIME_MAX: Duration = Duration::from_millis(200);

/// … and flows between exchanges this long to end by themselves, as a dead client's do.
pub(crate) const IDLE_GRACE: Duration = Duration::from_millis(50);

/// Names that one run may have looked up; the oldest are forgotten beyond it.
pub(crate) const SYNTHETIC_NAMES_MAX: usize = 65_536;

/// Hosts of one run of which it is remembered whether its clients accept our certificates.
pub(crate) const DISTRUST_HOSTS_MAX: usize = 4096;

/// Submission entries of a worker's ring; the smaller one is tried when locked memory is short.
pub(crate) const RING_ENTRIES: [u32; 2] = [1024, 256];

const _: () = assert!(READ_BYTES_MIN < READ_BYTES_MAX);
const _: () = assert!(SIDE_PIECE_BYTES <= BODY_INLINE_BYTES_MAX);
const _: () = assert!(FIELDS_INLINE < FIELDS_MAX);

/// A DNS message over UDP or TCP, in bytes: queries are far smaller.
pub(crate) const DNS_BYTES_MAX: usize = 4096;

/// When the gate stops, flows have this long to write their records.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(1);

/// How often idle upstream connections are looked through for those to close.
pub(crate) const POOL_EXPIRY_PERIOD: Duration = Duration::from_secs(10);

/// How often flows are looked through for those that are overdue: every time limit of a client's
/// connection may be exceeded by so much, and none costs a timer of its own.
pub(crate) const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// Descriptors that are not for connections: journal, index, side files, pages, control
/// connections, the runs' listeners.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 512;

/// Descriptors of a connection: the client's socket and the origin's.
pub(crate) const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// Connections over the limit that a worker tells so at once; those beyond it are closed without a
/// word, since a flood must not take what it is denied.
pub(crate) const TURNED_AWAY_AT_ONCE_MAX: usize = 64;

/// How often a run's record says how many connections were turned away.
pub(crate) const TURNED_AWAY_PERIOD: Duration = Duration::from_secs(1);

/// How often it is looked whether the run has ended meanwhile.
pub(crate) const TURNED_AWAY_STEP: Duration = Duration::from_millis(100);

/// After an accept that failed for want of descriptors or memory, the next one waits this long, and
/// twice as long each time up to the second: the kernel fails it at once, callers or none.
pub(crate) const ACCEPT_RETRY: [Duration; 2] =
    [Duration::from_millis(20), Duration::from_millis(640)];

/// A worker that lacks descriptors says so in a record no more often than this.
pub(crate) const SHORTAGE_PERIOD: Duration = Duration::from_secs(60);

/// While recording has stopped, what is to be recorded is tried again this often.
pub(crate) const RECORD_RETRY: Duration = Duration::from_millis(100);

/// Compressed WebSocket payload that is inflated in one go, in bytes: what is gathered of it does
/// not depend on how it was cut, and what it may become (four MiB) takes few milliseconds.
pub(crate) const INFLATE_BLOCK_BYTES: usize = 4 * 1024;

/// … and what one step of that may give, in bytes: it lies on the stack.
pub(crate) const INFLATE_STEP_BYTES: usize = 8 * 1024;

/// A WebSocket message may inflate as far as a coded body may be decoded: to so many bytes however
/// few they were, beyond that to so many times its length, and never beyond the last bound.
pub(crate) use agent_gate_store::content_coding::{
    DECODED_BYTES_MAX as INFLATED_BYTES_MAX, RATIO_FREE_BYTES as INFLATED_BYTES_FREE,
    RATIO_MAX as INFLATE_RATIO_MAX,
};

/// A masked WebSocket payload is unmasked in copies of so many bytes, on the stack.
pub(crate) const UNMASK_STEP_BYTES: usize = 4 * 1024;

/// How much content of WebSocket messages is looked at before other connections have their turn,
/// in bytes: about a millisecond.
pub(crate) const MESSAGES_TURN_BYTES: usize = 256 * 1024;

/// … of which each message takes so many by itself, for its record.
pub(crate) const MESSAGE_TURN_BYTES: usize = 1024;

const _: () = assert!(INFLATE_STEP_BYTES < MESSAGES_TURN_BYTES);
