//! A connection's two halves, in clear text or TLS, under one face.

use std::cell::{Ref, RefCell};
use std::io;
use std::rc::Rc;

use monoio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;

use super::socket::{self, Handle};
use super::tls::Session;
use super::transport::{Sink, Source};

/// A connection: what arrives, what is sent, and how it is ended.
pub(super) struct Stream {
    /// What arrives.
    pub(super) reader: Reader,
    /// What is sent.
    pub(super) writer: Writer,
}

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (inbound, outbound, _) = socket::split(stream);
        Self {
            reader: Reader {
                source: Source::new(inbound),
                tls: None,
                records: Vec::new(),
                data: Vec::new(),
                start: 0,
                end: None,
                broken: None,
            },
            writer: Writer { sink: Sink::new(outbound), tls: None, staged: Vec::new() },
        }
    }

    /// What ends this connection from outside.
    pub(super) fn handle(&self) -> &Rc<Handle> {
        self.writer.sink.handle()
    }

    /// Answers the client hello that has arrived (or is to arrive) and finishes the handshake.
    pub(super) async fn accept_tls(
        &mut self,
        connection: UnbufferedServerConnection,
    ) -> Result<(), TlsError> {
        self.start_tls(Session::server(connection));
        self.handshake().await?;
        // In TLS 1.2 the last word is the server's, and the client waits for it. In 1.3 it is the
        // client's; what is left to say, tickets, goes out with the first data.
        if self.tls().is_some_and(|session| session.version() == "1.2") {
            self.writer.flush().await.map_err(TlsError::Io)?;
        }
        Ok(())
    }

    /// Does a client's handshake. Its last flight stays staged and goes out with the first data.
    pub(super) async fn connect_tls(
        &mut self,
        connection: UnbufferedClientConnection,
    ) -> Result<(), TlsError> {
        let mut session = Session::client(connection);
        session.begin().map_err(TlsError::Protocol)?;
        self.start_tls(session);
        self.handshake().await
    }

    /// What the peer carries from now on is another peer's: bytes that travel inside this stream,
    /// TLS or not. What has arrived of them is kept.
    pub(super) fn begin_anew(&mut self) {
        let Some(session) = self.writer.tls.take() else { return };
        self.reader.tls = None;
        self.reader.end = None;
        let records = std::mem::take(&mut self.reader.records);
        self.reader.source.put_inside(session.clone(), records);
        self.writer.sink.put_inside(session);
    }

    /// The TLS session, if this is TLS.
    pub(super) fn tls(&self) -> Option<Ref<'_, Session>> {
        self.writer.tls.as_ref().map(|s| s.borrow())
    }

    fn start_tls(&mut self, session: Session) {
        let session = Rc::new(RefCell::new(session));
        self.reader.start_tls(session.clone());
        self.writer.tls = Some(session);
    }

    async fn handshake(&mut self) -> Result<(), TlsError> {
        let mut result = self.reader.read_records();
        loop {
            // A failed handshake has staged an alert that tells the peer why.
            let done = result.is_err() || !self.is_handshaking();
            if !done || result.is_err() {
                self.writer.flush().await.map_err(TlsError::Io)?;
            }
            match result {
                Err(e) => return Err(TlsError::Protocol(e)),
                Ok(()) if done => return Ok(()),
                Ok(()) => {}
            }
            let read = self.reader.source.fill(&mut self.reader.records).await;
            match read.map_err(TlsError::Io)? {
                0 => return Err(TlsError::Closed),
                _ => result = self.reader.read_records(),
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        self.tls().is_some_and(|s| s.is_handshaking())
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
    /// The peer closed in mid-handshake.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The peer did not finish it in time.
    #[error("the TLS handshake was not finished in time (handshake_seconds)")]
    Late,
    /// rustls objects, or the peer sent an alert.
    #[error("{0}")]
    Protocol(rustls::Error),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The peer said so: TLS close_notify, or the end of a clear-text stream.
    Clean,
    /// TLS ended without close_notify: something may be missing.
    Truncated,
}

/// The reading half.
pub(super) struct Reader {
    source: Source,
    tls: Option<Rc<RefCell<Session>>>,
    /// TLS: what arrived and is not decrypted yet.
    records: Vec<u8>,
    /// What arrived in clear: consumed up to `start`.
    data: Vec<u8>,
    start: usize,
    end: Option<End>,
    /// TLS has failed; what had been decrypted before is handed out first.
    broken: Option<rustls::Error>,
}

impl Reader {
    /// What has arrived and is not consumed.
    pub(super) fn data(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// Drops the first `length` bytes of [`Self::data`].
    pub(super) fn consume(&mut self, length: usize) {
        self.start += length;
        debug_assert!(self.start <= self.data.len(), "consumed what had not arrived");
        if self.start == self.data.len() {
            self.data.clear();
            self.start = 0;
        }
    }

    /// Waits for more data: `true` when there is, `false` at the end. May be dropped while
    /// waiting if [`Self::data`] is empty, and then loses nothing.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        self.compact();
        if self.tls.is_none() {
            let length = self.source.fill(&mut self.data).await?;
            if length == 0 {
                self.end = Some(End::Clean);
            }
            return Ok(length > 0);
        }
        self.fill_tls().await
    }

    /// How the stream ended, once [`Self::fill`] has said that it did.
    pub(super) fn end(&self) -> Option<End> {
        self.end
    }

    async fn fill_tls(&mut self) -> io::Result<bool> {
        if let Some(error) = &self.broken {
            return Err(io::Error::other(error.clone()));
        }
        let before = self.data.len();
        loop {
            let length = self.source.fill(&mut self.records).await?;
            self.read_records().map_err(io::Error::other)?;
            let peer_closed = self.tls.as_ref().is_some_and(|s| s.borrow().is_peer_closed());
            if peer_closed {
                self.end = Some(End::Clean);
            } else if length == 0 {
                self.end = Some(End::Truncated);
            }
            if self.data.len() > before {
                return Ok(true);
            }
            if self.end.is_some() {
                return Ok(false);
            }
        }
    }

    fn start_tls(&mut self, session: Rc<RefCell<Session>>) {
        self.compact();
        self.records = std::mem::take(&mut self.data);
        self.tls = Some(session);
    }

    fn read_records(&mut self) -> Result<(), rustls::Error> {
        let Some(session) = &self.tls else { return Ok(()) };
        let result = session.borrow_mut().read(&mut self.records, &mut self.data);
        if self.data.is_empty() {
            return result;
        }
        self.broken = result.err();
        Ok(())
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
    }

    /// Lets go of spare memory; for a connection that goes idle.
    pub(super) fn release(&mut self) {
        if self.tls.is_some() && self.data.is_empty() {
            self.data = Vec::new();
        }
    }
}

/// The writing half.
pub(super) struct Writer {
    sink: Sink,
    tls: Option<Rc<RefCell<Session>>>,
    /// Clear text: what waits to be written.
    staged: Vec<u8>,
}

impl Writer {
    /// Puts `data` behind what waits to be written.
    pub(super) fn stage(&mut self, data: &[u8]) -> io::Result<()> {
        match &self.tls {
            Some(session) => session.borrow_mut().seal(data),
            None => {
                self.staged.extend_from_slice(data);
                Ok(())
            }
        }
    }

    /// How many bytes wait to be written.
    pub(super) fn staged(&self) -> usize {
        self.tls.as_ref().map_or(self.staged.len(), |s| s.borrow().staged())
    }

    /// Writes what is staged. Not to be dropped while the connection is to be used further.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let buffer = match &self.tls {
            Some(session) => session.borrow_mut().take_staged(),
            None => std::mem::take(&mut self.staged),
        };
        if buffer.is_empty() {
            self.recycle(buffer);
            return Ok(());
        }
        let (result, mut buffer) = self.sink.write_all(buffer).await;
        if self.tls.is_none() {
            buffer.clear();
        }
        self.recycle(buffer);
        result
    }

    /// Says that nothing more is coming, in TLS and TCP.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            session.borrow_mut().seal_end()?;
        }
        self.flush().await?;
        self.sink.finish().await;
        Ok(())
    }

    /// Lets go of spare memory; for a connection that goes idle.
    pub(super) fn release(&mut self) {
        self.sink.release();
        match &self.tls {
            Some(session) => session.borrow_mut().release(),
            None if self.staged.is_empty() => self.staged = Vec::new(),
            None => {}
        }
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        match &self.tls {
            Some(session) => session.borrow_mut().recycle(buffer),
            None if self.staged.is_empty() => self.staged = buffer,
            None => {}
        }
    }
}
