//! The way up: a request as it goes from the client to the origin, recorded before its last byte.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use agent_gate_store::record::{self, Record};
use agent_gate_store::{Id, Stopped, Timestamp};
use monoio::time::timeout;

use super::capture::Capture;
use super::door::{Door, Target};
use super::flow::{Flow, micros};
use super::stream::{Reader, Writer};
use crate::limits::{LINGER_TIME_MAX, WRITE_BYTES_MAX};
use crate::proto::body::BodyReader;
use crate::proto::framing::Framing;
use crate::proto::head::RequestHead;

/// Why a request did not reach the origin whole.
#[derive(Debug)]
pub(super) enum SendError {
    /// The client went away.
    ClientGone(io::Error),
    /// The client broke the framing it announced.
    ClientBroken(String),
    /// The origin does not take it any more; what it says to that counts, not this.
    Origin,
    /// It cannot be recorded, so it is not sent.
    Stopped(Stopped),
}

/// A request under way.
pub(super) struct RequestSide<'a> {
    pub(super) id: Id,
    pub(super) head: &'a RequestHead,
    pub(super) target: &'a Target,
    /// When its first byte was there.
    pub(super) started: Instant,
    /// The connection it goes out by.
    pub(super) address: Option<SocketAddr>,
    flow: &'a Flow,
    door: &'a Door,
    at: Timestamp,
    /// The head as it goes to the origin.
    wire_head: Vec<u8>,
    framing: Framing,
    body: BodyReader,
    capture: Capture,
    recorded: bool,
}

impl<'a> RequestSide<'a> {
    pub(super) fn new(
        flow: &'a Flow,
        door: &'a Door,
        target: &'a Target,
        head: &'a RequestHead,
        framing: Framing,
        begun: (Timestamp, Instant),
    ) -> Self {
        let mut capture = flow.worker.capture();
        if let Framing::Length(length) = framing {
            capture.expect(length);
        }
        Self {
            id: Id::new(),
            head,
            target,
            started: begun.1,
            address: None,
            flow,
            door,
            at: begun.0,
            wire_head: wire_head(head, door),
            framing,
            body: BodyReader::new(framing),
            capture,
            recorded: false,
        }
    }

    /// Whether it may go out a second time: nothing of it is gone, and twice is as good as once.
    pub(super) fn is_replayable(&self) -> bool {
        self.framing == Framing::None && self.head.is_idempotent()
    }

    /// Whether the client has sent all of it.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// Sends it as it arrives. Its last piece waits until the record is on its way to disk.
    pub(super) async fn send(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Result<(), SendError> {
        if self.framing == Framing::None {
            self.record(true).await.map_err(SendError::Stopped)?;
            writer.stage(&self.wire_head).map_err(|_| SendError::Origin)?;
            return writer.flush().await.map_err(|_| SendError::Origin);
        }
        writer.stage(&self.wire_head).map_err(|_| SendError::Origin)?;
        loop {
            if reader.data().is_empty() {
                writer.flush().await.map_err(|_| SendError::Origin)?;
                self.arrive(reader).await?;
            }
            let length = self.read(reader)?;
            if self.body.is_done() {
                self.record(true).await.map_err(SendError::Stopped)?;
            } else if self.capture.is_full() {
                self.capture.spill().await.map_err(SendError::Stopped)?;
            }
            writer.stage(&reader.data()[..length]).map_err(|_| SendError::Origin)?;
            reader.consume(length);
            if self.body.is_done() || writer.staged() >= WRITE_BYTES_MAX {
                writer.flush().await.map_err(|_| SendError::Origin)?;
            }
            if self.body.is_done() {
                return Ok(());
            }
        }
    }

    /// Takes in what the client still sends of a request that goes nowhere, for the record and
    /// so that the client reads its answer; not for long.
    pub(super) async fn drain(&mut self, reader: &mut Reader) {
        if self.framing == Framing::None || self.head.head.has_member("expect", "100-continue") {
            return;
        }
        let draining = async {
            while !self.body.is_done() {
                if reader.data().is_empty() {
                    self.arrive(reader).await?;
                }
                let length = self.read(reader)?;
                reader.consume(length);
                if self.capture.is_full() {
                    self.capture.spill().await.map_err(SendError::Stopped)?;
                }
            }
            Ok::<(), SendError>(())
        };
        // However it ends, what has arrived is in the capture.
        let _ = timeout(LINGER_TIME_MAX, draining).await;
    }

    /// Writes the record, once, and waits until the kernel has it.
    pub(super) async fn record(&mut self, complete: bool) -> Result<(), Stopped> {
        if self.recorded {
            return Ok(());
        }
        self.capture.settle().await?;
        let bytes = self.head.head.bytes.len() + self.capture.memory_bytes();
        let permit = self.flow.worker.shared.recorder.reserve(bytes).await?;
        self.flow.run.count_exchange();
        let receipt = permit.record_with_receipt(&self.as_record(complete));
        // From here on the writer keeps it, whatever the receipt says.
        self.recorded = true;
        receipt.await
    }

    /// Writes the record of a request that is over, if need be when recording works again.
    pub(super) async fn record_at_last(&mut self) {
        let complete = self.is_complete();
        while self.record(complete).await.is_err() {
            if !self.flow.worker.wait_for_recording().await {
                return;
            }
        }
    }

    fn as_record(&self, complete: bool) -> Record<'_> {
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
            tls: self.door.record_tls(),
            head: self.head.record(),
            body: self.capture.body(),
            trailers: self.body.trailers(),
            complete,
            duration_us: micros(self.started.elapsed()),
        })
    }

    async fn arrive(&self, reader: &mut Reader) -> Result<(), SendError> {
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed in mid-request");
        match reader.fill().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::ClientGone(gone())),
            Err(e) => Err(SendError::ClientGone(e)),
        }
    }

    fn read(&mut self, reader: &Reader) -> Result<usize, SendError> {
        let Self { body, capture, .. } = self;
        body.read(reader.data(), |content| capture.push(content))
            .map_err(|e| SendError::ClientBroken(e.to_string()))
    }
}

/// The head as the origin gets it: as it came, or turned from absolute into origin form.
fn wire_head(head: &RequestHead, door: &Door) -> Vec<u8> {
    if door.target.is_some() {
        return head.head.bytes.clone();
    }
    let target = head.target();
    let path = target
        .split_once("://")
        .and_then(|(_, rest)| rest.find(['/', '?']).map(|at| &rest[at..]))
        .unwrap_or("/");
    if path.starts_with('?') { head.for_origin(&format!("/{path}")) } else { head.for_origin(path) }
}
