//! A WebSocket after its 101: frames pass both ways as they come, and each message leaves a
//! record. What a client sends reaches the origin only when the records of the messages that end
//! with it are with the kernel.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Instant;

use agent_gate_store::record::{Direction, Message, MessageKind, Outcome, Record, Transferred};
use agent_gate_store::{Id, Receipt, Timestamp};

use super::capture::Capture;
use super::flow::{Flow, Stage, micros};
use super::relay::both_ways;
use super::stream::{Reader, Stream, Writer};
use crate::limits::{MESSAGE_TURN_BYTES, MESSAGES_TURN_BYTES};
use crate::proto::head::{Head, RequestHead, ResponseHead};
use crate::proto::ws_deflate::Extensions;
use crate::proto::ws_message::{Event, Lane, MessageReader, Told};

/// Whether a 101 opens a WebSocket (RFC 6455, section 4.1).
pub(super) fn is_opened(request: &RequestHead, response: &ResponseHead) -> bool {
    let names_it = |head: &Head| head.has_member("upgrade", "websocket");
    names_it(&request.head)
        && names_it(&response.head)
        && response.head.values("sec-websocket-accept").next().is_some()
}

/// What is left to say when a WebSocket has ended.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    /// Bytes each way.
    pub(super) bytes: Transferred,
    /// Messages each way.
    pub(super) messages: Transferred,
}

/// Carries a WebSocket to its end. Its messages are recorded as those of `exchange`.
pub(super) async fn carry(
    flow: &Flow,
    exchange: Id,
    extensions: Extensions,
    down: &mut Stream,
    up: &mut Stream,
) -> Ended {
    let handles = [down.handle().clone(), up.handle().clone()];
    let mut sent = Way::new(flow, exchange, Direction::Sent, extensions);
    let mut received = Way::new(flow, exchange, Direction::Received, extensions);
    let upward = sent.carry(&mut down.reader, &mut up.writer);
    let downward = received.carry(&mut up.reader, &mut down.writer);
    let ends = both_ways(&handles, upward, downward).await;
    let (outcome, error) = outcome(&ends, &sent, &received);
    Ended {
        outcome,
        error: error.map(str::to_owned),
        bytes: Transferred { sent: sent.bytes, received: received.bytes },
        messages: Transferred { sent: sent.messages, received: received.messages },
    }
}

/// What ended a direction before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayError {
    /// The client's connection failed.
    Client,
    /// The origin's did.
    Origin,
    /// The run is over, and the gate has ended the connections.
    Aborted,
    /// The gate stops, and nothing can be recorded.
    Unrecorded,
}

fn outcome(
    (upward, downward): &(Result<(), WayError>, Result<(), WayError>),
    sent: &Way<'_>,
    received: &Way<'_>,
) -> (Outcome, Option<&'static str>) {
    // The direction that fails first takes the other along, which then is aborted.
    let failed = |end: &Result<(), WayError>| end.err().filter(|e| *e != WayError::Aborted);
    let is_aborted = upward.is_err() || downward.is_err() && received.is_cut;
    match failed(upward).or(failed(downward)) {
        Some(WayError::Unrecorded) => {
            (Outcome::RecordingStopped, Some("the gate stopped before it could be recorded"))
        }
        // After its close frame, neither side owes the other anything.
        _ if sent.has_closed && received.has_closed => (Outcome::Complete, None),
        None | Some(WayError::Aborted) if is_aborted => {
            (Outcome::CutByClient, Some("the run was over"))
        }
        Some(WayError::Client) => (Outcome::CutByClient, Some("the client went away")),
        Some(WayError::Origin) => (Outcome::CutByOrigin, Some("the origin went away")),
        None if sent.is_cut => {
            (Outcome::CutByClient, Some("the client closed the connection in mid-message"))
        }
        None if received.is_cut => {
            (Outcome::CutByOrigin, Some("the origin closed the connection in mid-message"))
        }
        None | Some(WayError::Aborted) => (Outcome::Complete, None),
    }
}

/// One direction of a WebSocket.
struct Way<'a> {
    flow: &'a Flow,
    exchange: Id,
    direction: Direction,
    reader: MessageReader,
    kept: Kept<'a>,
    /// Of the last message that was recorded, if the client sent it.
    receipt: Option<Receipt>,
    /// Records so far.
    seq: u64,
    /// Messages so far; control frames are none.
    messages: u64,
    /// Bytes so far that were handed on.
    bytes: u64,
    /// Whether the close frame has passed.
    has_closed: bool,
    /// Whether the direction ended in mid-message.
    is_cut: bool,
}

impl<'a> Way<'a> {
    fn new(flow: &'a Flow, exchange: Id, direction: Direction, extensions: Extensions) -> Self {
        Self {
            flow,
            exchange,
            direction,
            reader: MessageReader::new(direction, extensions),
            kept: Kept { flow, message: None, control: None, turn: 0 },
            receipt: None,
            seq: 0,
            messages: 0,
            bytes: 0,
            has_closed: false,
            is_cut: false,
        }
    }

    async fn carry(&mut self, reader: &mut Reader, writer: &mut Writer) -> Result<(), WayError> {
        let end = match self.direction {
            Direction::Sent => self.send(reader, writer).await,
            Direction::Received => self.receive(reader, writer).await,
        };
        // However it ended, what had arrived is kept.
        end.and(self.cut().await)
    }

    /// From the client to the origin: recorded, then handed on.
    async fn send(&mut self, reader: &mut Reader, writer: &mut Writer) -> Result<(), WayError> {
        loop {
            self.flow.control.set_stage(Stage::Idle);
            if reader.data().is_empty() && !self.arrive(reader, writer).await? {
                return self.hand_on_end(writer).await;
            }
            self.flow.control.set_stage(Stage::Sending);
            self.look_at(reader.data()).await?;
            self.wait_for_receipt().await?;
            self.hand_on(reader.data(), writer).await?;
            reader.consume(reader.data().len());
        }
    }

    /// From the origin to the client: handed on, then recorded.
    async fn receive(&mut self, reader: &mut Reader, writer: &mut Writer) -> Result<(), WayError> {
        loop {
            if reader.data().is_empty() && !self.arrive(reader, writer).await? {
                return self.hand_on_end(writer).await;
            }
            self.hand_on(reader.data(), writer).await?;
            self.look_at(reader.data()).await?;
            reader.consume(reader.data().len());
        }
    }

    /// Waits for more; an idle WebSocket lasts for hours and holds little meanwhile.
    async fn arrive(&mut self, reader: &mut Reader, writer: &mut Writer) -> Result<bool, WayError> {
        reader.release();
        writer.release();
        let arrived = reader.fill().await;
        self.kept.turn = 0;
        arrived.map_err(|_| self.failed(self.direction))
    }

    async fn hand_on(&mut self, data: &[u8], writer: &mut Writer) -> Result<(), WayError> {
        let failed = |_| match self.direction {
            Direction::Sent => self.failed(Direction::Received),
            Direction::Received => self.failed(Direction::Sent),
        };
        writer.stage(data).map_err(failed)?;
        writer.flush().await.map_err(failed)?;
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// The direction has ended as it should; the other may go on.
    async fn hand_on_end(&self, writer: &mut Writer) -> Result<(), WayError> {
        // Whoever is gone needs no goodbye.
        let _ = writer.finish().await;
        if self.flow.control.is_aborted() { Err(WayError::Aborted) } else { Ok(()) }
    }

    /// The connection by which this direction comes failed.
    fn failed(&self, direction: Direction) -> WayError {
        match direction {
            _ if self.flow.control.is_aborted() => WayError::Aborted,
            Direction::Sent => WayError::Client,
            Direction::Received => WayError::Origin,
        }
    }

    /// Reads the messages in `data` and records those that end in it.
    async fn look_at(&mut self, data: &[u8]) -> Result<(), WayError> {
        let mut data = data;
        loop {
            let kept = &mut self.kept;
            let (read, event) = self.reader.read(data, |lane, piece| kept.push(lane, piece));
            data = &data[read..];
            if event == Event::Starved {
                return Ok(());
            }
            self.take(event).await?;
        }
    }

    /// The direction is over: records what of its messages was not.
    async fn cut(&mut self) -> Result<(), WayError> {
        loop {
            let kept = &mut self.kept;
            let Some(event) = self.reader.cut(|lane, piece| kept.push(lane, piece)) else {
                return Ok(());
            };
            self.is_cut |= matches!(&event, Event::Ended(_, told) if !told.complete);
            self.take(event).await?;
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), WayError> {
        match event {
            Event::Starved | Event::Progress => {}
            Event::Begun(lane, length) => self.kept.begin(lane, length),
            Event::Ended(lane, told) => self.record(lane, told).await?,
        }
        while let Some(full) = self.kept.full() {
            if full.capture.spill().await.is_err() {
                self.wait_for_recording().await?;
            }
        }
        if self.kept.turn >= MESSAGES_TURN_BYTES {
            self.kept.turn = 0;
            let_others().await;
        }
        Ok(())
    }

    async fn record(&mut self, lane: Lane, told: Told) -> Result<(), WayError> {
        let mut open = self.kept.end(lane);
        while open.capture.settle().await.is_err() {
            self.wait_for_recording().await?;
        }
        self.seq += 1;
        self.has_closed |= told.kind == MessageKind::Close;
        let message = Message {
            id: Id::new(),
            run: self.flow.run.id,
            at: open.at,
            exchange: self.exchange,
            flow: self.flow.id,
            direction: self.direction,
            seq: self.seq,
            kind: told.kind,
            opcode: told.opcode,
            body: open.capture.body(),
            wire_bytes: told.wire_bytes,
            frames: told.frames,
            compressed: told.compressed,
            close_code: told.close_code,
            flaws: told.flaws,
            complete: told.complete,
            duration_us: micros(open.begun.elapsed()),
        };
        self.messages += u64::from(message.is_counted());
        let record = Record::Message(message);
        let permit = loop {
            match self.flow.worker.recorder.reserve(record.memory_bytes()).await {
                Ok(permit) => break permit,
                Err(_) => self.wait_for_recording().await?,
            }
        };
        match self.direction {
            // The last one speaks for those before it.
            Direction::Sent => self.receipt = Some(permit.record_with_receipt(&record)),
            Direction::Received => permit.record(&record),
        }
        Ok(())
    }

    /// Waits until what was recorded of this direction is with the kernel.
    async fn wait_for_receipt(&mut self) -> Result<(), WayError> {
        let Some(mut receipt) = self.receipt.take() else { return Ok(()) };
        while (&mut receipt).await.is_err() {
            self.wait_for_recording().await?;
        }
        Ok(())
    }

    /// While recording has stopped, so does the traffic.
    async fn wait_for_recording(&self) -> Result<(), WayError> {
        if self.flow.worker.wait_for_recording().await { Ok(()) } else { Err(WayError::Unrecorded) }
    }
}

/// What is kept of the messages under way.
struct Kept<'a> {
    flow: &'a Flow,
    message: Option<Open>,
    control: Option<Open>,
    /// How much was looked at since others had their turn, in bytes.
    turn: usize,
}

/// A message under way.
struct Open {
    at: Timestamp,
    begun: Instant,
    capture: Capture,
}

impl Kept<'_> {
    fn lane(&mut self, lane: Lane) -> &mut Open {
        let open = match lane {
            Lane::Data => &mut self.message,
            Lane::Control => &mut self.control,
        };
        open.get_or_insert_with(|| Open {
            at: Timestamp::now(),
            begun: Instant::now(),
            capture: self.flow.worker.capture(),
        })
    }

    fn begin(&mut self, lane: Lane, length: Option<u64>) {
        let open = self.lane(lane);
        if let Some(length) = length {
            open.capture.expect(length);
        }
    }

    fn push(&mut self, lane: Lane, piece: &[u8]) {
        self.turn += piece.len();
        self.lane(lane).capture.push(piece);
    }

    /// One whose pieces are to go to its file.
    fn full(&mut self) -> Option<&mut Open> {
        [&mut self.message, &mut self.control]
            .into_iter()
            .flatten()
            .find(|open| open.capture.is_full())
    }

    fn end(&mut self, lane: Lane) -> Open {
        self.turn += MESSAGE_TURN_BYTES;
        self.lane(lane);
        let open = match lane {
            Lane::Data => self.message.take(),
            Lane::Control => self.control.take(),
        };
        open.expect("it is made where there is none")
    }
}

/// Lets the worker's other connections have their turn.
fn let_others() -> impl Future<Output = ()> {
    let mut had_turn = false;
    poll_fn(move |cx| {
        if had_turn {
            return Poll::Ready(());
        }
        had_turn = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
