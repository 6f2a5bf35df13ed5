//! What is kept of one exchange, whatever protocol carries it: each way a head, pieces of a body,
//! trailers, and an end. The protocol tells; this captures, and makes the records.
//!
//! HTTP/1.1 (`exchange`, `request_side`, `response_side`) is the one protocol so far. Another one
//! tells the same things and finds the same records.

use std::net::SocketAddr;
use std::time::Instant;

use agent_gate_store::record::{self, Outcome, Record, Timings, Transferred};
use agent_gate_store::{Id, Stopped, Timestamp};

use super::beside::Beside;
use super::capture::Capture;
use super::door::{Door, Target};
use super::flow::{Flow, micros};
use super::upstream::DialTimes;
use crate::inspect::Inspector;

/// A body as its protocol tells it, of either direction: kept, and read beside that.
pub(super) struct BodyObserver {
    capture: Capture,
    beside: Beside,
}

impl BodyObserver {
    fn new(capture: Capture, inspector: Option<Box<Inspector>>) -> Self {
        Self { capture, beside: Beside::new(inspector) }
    }

    /// How long the body will be, where the head says so.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.capture.expect(bytes);
    }

    /// The next piece of the body, transfer coding removed.
    pub(super) fn piece(&mut self, content: &[u8]) {
        self.capture.push(content);
        self.beside.piece(content);
    }

    /// Makes room after pieces; waits while the recorder is busy, or too much is to be decoded.
    pub(super) async fn keep_up(&mut self) -> Result<(), Stopped> {
        self.beside.keep_up().await;
        if self.capture.is_full() { self.capture.spill().await } else { Ok(()) }
    }

    /// Waits for more to arrive, reading what has passed in the meantime.
    pub(super) async fn while_waiting<T>(&mut self, arrival: impl Future<Output = T>) -> T {
        self.beside.while_waiting(arrival).await
    }
}

/// What is told of a request.
pub(super) struct RequestObserver<'a> {
    /// The exchange's id.
    pub(super) id: Id,
    /// Whom it is for.
    pub(super) target: &'a Target,
    /// When its first byte was there.
    pub(super) started: Instant,
    /// The connection it goes out by.
    pub(super) address: Option<SocketAddr>,
    /// The proxy on its way, as `host:port`.
    pub(super) via: Option<String>,
    /// What is odd about it.
    pub(super) flags: Vec<record::Flag>,
    flow: &'a Flow,
    door: &'a Door,
    at: Timestamp,
    head: record::RequestHead<'a>,
    trailers: Vec<record::Field<'static>>,
    /// Who is told its body.
    pub(super) body: BodyObserver,
    decoded: Option<record::Decoded>,
    recorded: bool,
}

impl<'a> RequestObserver<'a> {
    /// A request whose head is there. `begun`: when its first byte was.
    pub(super) fn new(
        flow: &'a Flow,
        door: &'a Door,
        target: &'a Target,
        head: record::RequestHead<'a>,
        begun: (Timestamp, Instant),
    ) -> Self {
        let fields = head.fields.iter().map(|field| (&*field.name, &*field.value));
        let inspector = Inspector::of_request(fields);
        Self {
            id: Id::new(),
            target,
            started: begun.1,
            address: None,
            via: None,
            flags: Vec::new(),
            flow,
            door,
            at: begun.0,
            head,
            trailers: Vec::new(),
            body: BodyObserver::new(flow.worker.capture(), inspector),
            decoded: None,
            recorded: false,
        }
    }

    /// The trailer fields.
    pub(super) fn trailers(&mut self, trailers: Vec<record::Field<'static>>) {
        self.trailers = trailers;
    }

    /// The request is over. Writes its record, once, and waits until the kernel has it.
    pub(super) async fn end(&mut self, complete: bool) -> Result<(), Stopped> {
        if self.recorded {
            return Ok(());
        }
        if let Some(summary) = self.body.beside.finish().await {
            self.decoded = summary.decoded;
        }
        self.body.capture.settle().await?;
        let bytes = head_bytes(&self.head) + self.body.capture.memory_bytes();
        let permit = self.flow.worker.recorder.reserve(bytes).await?;
        self.flow.run.count_exchange();
        let receipt = permit.record_with_receipt(&self.record(complete));
        // From here on the writer keeps it, whatever the receipt says.
        self.recorded = true;
        receipt.await
    }

    /// [`Self::end`], if need be when recording works again.
    pub(super) async fn end_at_last(&mut self, complete: bool) {
        while self.end(complete).await.is_err() {
            if !self.flow.worker.wait_for_recording().await {
                return;
            }
        }
    }

    fn record(&mut self, complete: bool) -> Record<'_> {
        let none = record::RequestHead::default();
        Record::Request(record::Request {
            id: self.id,
            run: self.flow.run.id,
            at: self.at,
            flow: self.flow.id,
            client: self.flow.client,
            scheme: self.door.scheme().into(),
            host: self.target.host.as_str().into(),
            port: self.target.port,
            address: self.address,
            via: self.via.take().map(Into::into),
            tls: self.door.record_tls(),
            head: std::mem::replace(&mut self.head, none),
            body: record::Body { decoded: self.decoded.take(), ..self.body.capture.body() },
            trailers: std::mem::take(&mut self.trailers),
            complete,
            flags: self.flags.clone(),
            duration_us: micros(self.started.elapsed()),
        })
    }
}

/// About how much of a record a head is.
fn head_bytes(head: &record::RequestHead<'_>) -> usize {
    let fields = head.fields.iter().map(|field| field.name.len() + field.value.len() + 4);
    head.target.len() + fields.sum::<usize>()
}

/// What is told of a response.
pub(super) struct ResponseObserver {
    /// Who is told its body.
    pub(super) body: BodyObserver,
    first_byte: Option<Instant>,
}

/// How an exchange ended, and what its protocol knows of the response.
pub(super) struct ResponseEnd<'a> {
    /// How it ended.
    pub(super) outcome: Outcome,
    /// What went wrong, in words.
    pub(super) error: Option<String>,
    /// Interim heads in order.
    pub(super) interim: Vec<record::ResponseHead<'a>>,
    /// The final head, if one came, or the gate's own.
    pub(super) head: Option<record::ResponseHead<'a>>,
    /// The body of the gate's own answer; what was captured of the origin's otherwise.
    pub(super) by_gate: Option<&'a [u8]>,
    /// The trailer fields.
    pub(super) trailers: Vec<record::Field<'a>>,
    /// Where the time of a dial went.
    pub(super) times: DialTimes,
    /// Bytes after an upgrade.
    pub(super) upgraded: Option<Transferred>,
    /// … and messages, where it was to WebSocket.
    pub(super) messages: Option<Transferred>,
}

impl ResponseObserver {
    pub(super) fn new(capture: Capture) -> Self {
        Self { body: BodyObserver::new(capture, None), first_byte: None }
    }

    /// Something of it has arrived.
    pub(super) fn arrived(&mut self) {
        self.first_byte.get_or_insert_with(Instant::now);
    }

    /// Whether anything of it has arrived.
    pub(super) fn has_arrived(&self) -> bool {
        self.first_byte.is_some()
    }

    /// The fields of the final head, by name and value.
    pub(super) fn head<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) {
        self.body.beside = Beside::new(Inspector::of_response(fields));
    }

    /// The exchange is over, well or not. Writes its record, if need be when recording works
    /// again.
    pub(super) async fn end(&mut self, request: &RequestObserver<'_>, end: ResponseEnd<'_>) {
        let flow = request.flow;
        let total_us = micros(request.started.elapsed());
        let summary = self.body.beside.finish().await.unwrap_or_default();
        while self.body.capture.settle().await.is_err() {
            if !flow.worker.wait_for_recording().await {
                return;
            }
        }
        let since_start = |at: Instant| micros(at.saturating_duration_since(request.started));
        let mut timings = Timings {
            first_byte_us: self.first_byte.map(since_start),
            total_us,
            ..Timings::default()
        };
        end.times.enter(&mut timings);
        let record = Record::Response(record::Response {
            id: request.id,
            run: flow.run.id,
            at: Timestamp::now(),
            address: request.address,
            outcome: end.outcome,
            error: end.error.map(Into::into),
            by_gate: end.by_gate.is_some(),
            interim: end.interim,
            head: end.head,
            body: match end.by_gate {
                Some(bytes) => whole_body(bytes),
                None => record::Body { decoded: summary.decoded, ..self.body.capture.body() },
            },
            trailers: end.trailers,
            events: summary.events.filter(|_| end.by_gate.is_none()),
            events_flaw: summary.events_flaw.filter(|_| end.by_gate.is_none()),
            timings,
            upgraded: end.upgraded,
            messages: end.messages,
        });
        flow.worker.record(&record).await;
    }
}

fn whole_body(bytes: &[u8]) -> record::Body<'_> {
    record::Body {
        bytes: bytes.len() as u64,
        blake3: record::Hash(*blake3::hash(bytes).as_bytes()),
        kept: record::Kept::Inline(bytes.into()),
        decoded: None,
    }
}
