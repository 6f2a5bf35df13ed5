//! What a stream's bytes travel on: a socket, or TLS with a proxy on a socket, inside which the
//! stream may be TLS again.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::socket::{Handle, Inbound, Outbound};
use super::tls::Session;

/// Where bytes come from.
pub(super) struct Source {
    socket: Inbound,
    layer: Option<Box<InboundLayer>>,
}

/// TLS around all that comes.
struct InboundLayer {
    session: Rc<RefCell<Session>>,
    /// What arrived and is not decrypted yet.
    records: Vec<u8>,
    end: Option<Result<(), rustls::Error>>,
}

impl Source {
    pub(super) fn new(socket: Inbound) -> Self {
        Self { socket, layer: None }
    }

    /// From now on what comes is inside `session`; `records` have come already.
    pub(super) fn put_inside(&mut self, session: Rc<RefCell<Session>>, records: Vec<u8>) {
        debug_assert!(self.layer.is_none(), "no proxy is reached through another");
        self.layer = Some(Box::new(InboundLayer { session, records, end: None }));
    }

    /// Appends what arrives next to `buffer` and returns its length; 0 at the end of the stream.
    /// While a dropped call's read is still under way, `buffer` is empty; call again to have it
    /// back with what arrived.
    pub(super) async fn fill(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        poll_fn(|cx| match &mut self.layer {
            None => self.socket.poll_fill(cx, buffer),
            Some(layer) => layer.poll_fill(cx, &mut self.socket, buffer),
        })
        .await
    }
}

impl InboundLayer {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Inbound,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.len();
        while buffer.len() == before {
            if let Some(end) = &self.end {
                return Poll::Ready(end.clone().map(|()| 0).map_err(io::Error::other));
            }
            let Poll::Ready(arrived) = socket.poll_fill(cx, &mut self.records) else {
                return Poll::Pending;
            };
            let arrived = arrived?;
            let mut session = self.session.borrow_mut();
            self.end = match session.read(&mut self.records, buffer) {
                Err(error) => Some(Err(error)),
                // Without a goodbye too: what runs inside knows by itself whether it is whole.
                Ok(()) => (arrived == 0 || session.is_peer_closed()).then_some(Ok(())),
            };
        }
        Poll::Ready(Ok(buffer.len() - before))
    }
}

/// Where bytes go.
pub(super) struct Sink {
    socket: Outbound,
    layer: Option<Rc<RefCell<Session>>>,
}

impl Sink {
    pub(super) fn new(socket: Outbound) -> Self {
        Self { socket, layer: None }
    }

    /// From now on what goes is inside `session`.
    pub(super) fn put_inside(&mut self, session: Rc<RefCell<Session>>) {
        self.layer = Some(session);
    }

    /// As [`Outbound::write_all`].
    pub(super) async fn write_all(&mut self, buffer: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let Some(session) = &self.layer else { return self.socket.write_all(buffer).await };
        let sealed = session.borrow_mut().seal(&buffer);
        if let Err(error) = sealed {
            return (Err(error), buffer);
        }
        (self.write_layer().await, buffer)
    }

    /// Tells the peer that nothing more is coming.
    pub(super) async fn finish(&mut self) {
        let sealed = self.layer.as_ref().map(|session| session.borrow_mut().seal_end());
        if let Some(Ok(())) = sealed {
            // A peer that is gone needs no goodbye.
            let _ = self.write_layer().await;
        }
        self.socket.finish();
    }

    /// Lets go of spare memory.
    pub(super) fn release(&self) {
        if let Some(session) = &self.layer {
            session.borrow_mut().release();
        }
    }

    /// What ends this connection.
    pub(super) fn handle(&self) -> &Rc<Handle> {
        self.socket.handle()
    }

    async fn write_layer(&mut self) -> io::Result<()> {
        let Some(session) = &self.layer else { return Ok(()) };
        let records = session.borrow_mut().take_staged();
        let (result, records) = self.socket.write_all(records).await;
        session.borrow_mut().recycle(records);
        result
    }
}
