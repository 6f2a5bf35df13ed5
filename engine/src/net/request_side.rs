//! The way up: an HTTP/1.1 request as it goes from the client to the origin, recorded before its
//! last byte.

use std::borrow::Cow;
use std::io;

use agent_gate_store::Stopped;
use monoio::time::timeout;

use super::exchange::Opening;
use super::flow::Flow;
use super::observer::RequestObserver;
use super::stream::{Reader, Writer};
use crate::UpstreamProxy;
use crate::limits::{LINGER_TIME_MAX, WRITE_BYTES_MAX};
use crate::proto::body::BodyReader;
use crate::proto::framing::Framing;
use crate::proto::head::RequestHead;
use crate::proto::rewrite;
use crate::upstream_proxy::http_authority;

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
    pub(super) head: &'a RequestHead,
    /// Who keeps what passes.
    pub(super) observer: RequestObserver<'a>,
    /// The head as it goes to the origin.
    wire_head: Cow<'a, [u8]>,
    framing: Framing,
    body: BodyReader,
}

impl<'a> RequestSide<'a> {
    /// `forwarded_by`: a proxy that is to send it on.
    pub(super) fn new(
        flow: &'a Flow,
        opening: &Opening<'a>,
        forwarded_by: Option<&UpstreamProxy>,
    ) -> Self {
        let Opening { door, target, head, framing, flags, begun } = *opening;
        let mut observer = RequestObserver::new(flow, door, target, head.record(), begun);
        observer.flags = flags.to_vec();
        if let Framing::Length(length) = framing {
            observer.body.expect(length);
        }
        Self {
            head,
            observer,
            wire_head: wire_head(opening, forwarded_by),
            framing,
            body: BodyReader::of_request(framing),
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
            self.end().await.map_err(SendError::Stopped)?;
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
                self.end().await.map_err(SendError::Stopped)?;
            } else {
                self.observer.body.keep_up().await.map_err(SendError::Stopped)?;
            }
            for piece in self.body.forwarded(&reader.data()[..length]) {
                writer.stage(piece).map_err(|_| SendError::Origin)?;
            }
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
                self.observer.body.keep_up().await.map_err(SendError::Stopped)?;
            }
            Ok::<(), SendError>(())
        };
        // However it ends, what has arrived is kept.
        let _ = timeout(LINGER_TIME_MAX, draining).await;
    }

    /// All of it is here: its record goes to disk before its last piece goes out.
    async fn end(&mut self) -> Result<(), Stopped> {
        self.observer.trailers(self.body.trailers());
        self.observer.end(true).await
    }

    /// The exchange is over; what there is of the request is recorded, if it is not yet.
    pub(super) async fn end_at_last(&mut self) {
        self.observer.trailers(self.body.trailers());
        self.observer.end_at_last(self.is_complete()).await;
    }

    async fn arrive(&mut self, reader: &mut Reader) -> Result<(), SendError> {
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed in mid-request");
        match self.observer.body.while_waiting(reader.fill()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::ClientGone(gone())),
            Err(e) => Err(SendError::ClientGone(e)),
        }
    }

    fn read(&mut self, reader: &Reader) -> Result<usize, SendError> {
        let Self { body, observer, .. } = self;
        body.read(reader.data(), |content| observer.body.piece(content))
            .map_err(|e| SendError::ClientBroken(e.to_string()))
    }
}

/// The head as the next hop gets it.
fn wire_head<'a>(opening: &Opening<'a>, forwarded_by: Option<&UpstreamProxy>) -> Cow<'a, [u8]> {
    let Opening { door, target, head, .. } = opening;
    match forwarded_by {
        Some(proxy) => {
            let authority = http_authority(&target.host, target.port);
            Cow::Owned(rewrite::for_proxy(head, &authority, proxy.authorization()))
        }
        None => rewrite::request(head, door.target.is_none()),
    }
}
