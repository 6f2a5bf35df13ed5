//! The way down: an HTTP/1.1 response as it goes from the origin to the client, piece by piece.

use std::io;
use std::sync::Arc;

use agent_gate_store::Stopped;
use agent_gate_store::record::{Field, Outcome};

use super::observer::ResponseObserver;
use super::stream::{End, Reader, Writer};
use super::upstream::alert_words;
use crate::UpstreamProxy;
use crate::limits::{INTERIM_MAX, WRITE_BYTES_MAX};
use crate::proto::body::BodyReader;
use crate::proto::framing::{Framing, is_reusable};
use crate::proto::head::ResponseHead;
use crate::proto::rewrite;

/// How a response ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiveEnd {
    /// Whole, and the connection may carry another.
    Reusable,
    /// Whole, and the connection closes after it.
    Last,
    /// Ended by a connection that broke off: perhaps whole. Handed on as it came.
    BrokenOff,
    /// 101: what follows is not HTTP.
    Upgraded,
}

/// Why a response did not reach the client whole.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// The client went away.
    ClientGone(io::Error),
    /// The origin went away.
    OriginGone(String),
    /// Who is on the way, or the origin's TLS, refuses before any answer; in words.
    Refused(Outcome, String),
    /// The origin broke the protocol.
    OriginBroken(String),
    /// It cannot be recorded.
    Stopped(Stopped),
}

/// A response under way.
pub(super) struct ResponseSide {
    /// Interim heads so far.
    pub(super) interim: Vec<ResponseHead>,
    /// The final head.
    pub(super) head: Option<ResponseHead>,
    /// Whether the client has got any of it.
    pub(super) begun: bool,
    /// Whether only the connection's end says where the body ends.
    pub(super) ends_with_connection: bool,
    /// The proxy that answers for the origin.
    pub(super) forwarded_by: Option<Arc<UpstreamProxy>>,
    /// Who keeps what passes.
    pub(super) observer: ResponseObserver,
    /// The trailer fields.
    pub(super) trailers: Vec<Field<'static>>,
}

impl ResponseSide {
    pub(super) fn new(observer: ResponseObserver) -> Self {
        Self {
            interim: Vec::new(),
            head: None,
            begun: false,
            ends_with_connection: false,
            forwarded_by: None,
            observer,
            trailers: Vec::new(),
        }
    }

    /// Receives it and hands it on. `to_head`: it answers a HEAD request. `answered` is told when
    /// its head is there.
    pub(super) async fn receive(
        &mut self,
        reader: &mut Reader,
        writer: &mut Writer,
        to_head: bool,
        answered: &dyn Fn(),
    ) -> Result<ReceiveEnd, ReceiveError> {
        loop {
            let head = self.receive_head(reader).await?;
            if head.status == 407
                && let Some(proxy) = &self.forwarded_by
            {
                let reason = head.record();
                let reason = format!("{} {}", reason.status, reason.reason);
                // The credentials are the gate's to give; a client would offer its own.
                let words = proxy.words_for(&head, &reason);
                return Err(ReceiveError::Refused(Outcome::ProxyFailed, words));
            }
            if head.is_interim() {
                self.hand_on(&head, Framing::None, writer)?;
                writer.flush().await.map_err(ReceiveError::ClientGone)?;
                self.interim.push(head);
                if self.interim.len() > INTERIM_MAX {
                    return Err(ReceiveError::OriginBroken("too many interim responses".into()));
                }
                continue;
            }
            answered();
            // Of a response without a certain end, the client gets nothing but the gate's word.
            let framing = Framing::of_response(&head, to_head)
                .map_err(|e| ReceiveError::OriginBroken(e.to_string()))?;
            self.hand_on(&head, framing, writer)?;
            let (upgraded, reusable) = (head.status == 101, is_reusable(&head));
            self.observer.head(head.head.fields());
            self.head = Some(head);
            let end = self.receive_body(framing, reader, writer).await?;
            return Ok(match end {
                _ if upgraded => ReceiveEnd::Upgraded,
                ReceiveEnd::Reusable if !reusable => ReceiveEnd::Last,
                end => end,
            });
        }
    }

    /// Stages a head for the client.
    fn hand_on(
        &mut self,
        head: &ResponseHead,
        framing: Framing,
        writer: &mut Writer,
    ) -> Result<(), ReceiveError> {
        self.begun = true;
        writer.stage(&rewrite::response(head, framing)).map_err(ReceiveError::ClientGone)
    }

    async fn receive_head(&mut self, reader: &mut Reader) -> Result<ResponseHead, ReceiveError> {
        loop {
            if !reader.data().is_empty() {
                self.observer.arrived();
                let found = ResponseHead::parse(reader.data())
                    .map_err(|e| ReceiveError::OriginBroken(e.to_string()))?;
                if let Some((head, length)) = found {
                    reader.consume(length);
                    return Ok(head);
                }
            }
            self.arrive(reader, "before its answer was whole").await?;
        }
    }

    async fn receive_body(
        &mut self,
        framing: Framing,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Result<ReceiveEnd, ReceiveError> {
        if let Framing::Length(length) = framing {
            self.observer.body.expect(length);
        }
        let mut body = BodyReader::of_response(framing);
        self.ends_with_connection = body.ends_with_connection();
        while !body.is_done() {
            if reader.data().is_empty() {
                writer.flush().await.map_err(ReceiveError::ClientGone)?;
                self.keep_up().await?;
                if body.ends_with_connection() {
                    if !self.more_until_close(reader).await? {
                        break;
                    }
                } else {
                    self.arrive(reader, "in mid-body").await?;
                }
            }
            let observer = &mut self.observer;
            let length = match body.read(reader.data(), |content| observer.body.piece(content)) {
                Ok(length) => length,
                Err(error) => {
                    // What was good before it is the client's; one that is gone misses it.
                    let _ = writer.flush().await;
                    return Err(ReceiveError::OriginBroken(error.to_string()));
                }
            };
            for piece in body.forwarded(&reader.data()[..length]) {
                writer.stage(piece).map_err(ReceiveError::ClientGone)?;
            }
            reader.consume(length);
            if writer.staged() >= WRITE_BYTES_MAX {
                writer.flush().await.map_err(ReceiveError::ClientGone)?;
                self.keep_up().await?;
            }
        }
        writer.flush().await.map_err(ReceiveError::ClientGone)?;
        self.trailers = body.trailers();
        Ok(match (body.ends_with_connection(), reader.end()) {
            (true, Some(End::Truncated)) => ReceiveEnd::BrokenOff,
            (true, _) => ReceiveEnd::Last,
            (false, _) => ReceiveEnd::Reusable,
        })
    }

    async fn keep_up(&mut self) -> Result<(), ReceiveError> {
        self.observer.body.keep_up().await.map_err(ReceiveError::Stopped)
    }

    async fn arrive(&mut self, reader: &mut Reader, place: &str) -> Result<(), ReceiveError> {
        match self.observer.body.while_waiting(reader.fill()).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(ReceiveError::OriginGone(format!("the origin closed the connection {place}")))
            }
            Err(e) => Err(match alert_words(&e).filter(|_| !self.observer.has_arrived()) {
                Some(words) => ReceiveError::Refused(
                    Outcome::OriginTlsFailed,
                    format!("TLS with the origin: {words}"),
                ),
                None => ReceiveError::OriginGone(format!(
                    "the connection to the origin failed {place}: {e}"
                )),
            }),
        }
    }

    async fn more_until_close(&mut self, reader: &mut Reader) -> Result<bool, ReceiveError> {
        self.observer.body.while_waiting(reader.fill()).await.map_err(|e| {
            ReceiveError::OriginGone(format!(
                "the connection to the origin failed in mid-body: {e}"
            ))
        })
    }
}
