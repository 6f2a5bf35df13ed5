//! A TLS connection on a monoio socket in two halves. The reads of the relay are as cheap as is
//! known: buffers that grow to 64 KB while they come back full, plaintext handed on without a copy.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use monoio::buf::{IoBuf, IoBufMut, Slice, SliceMut};
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::session::Session;

/// Bytes asked for by one read, at first and at most.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

/// A TLS connection whose handshake is done.
pub(crate) struct Stream {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// What arrives.
pub(crate) struct Reader {
    half: OwnedReadHalf<TcpStream>,
    session: Rc<RefCell<Session>>,
    records: Vec<u8>,
    /// Plaintext that came along with the end of the handshake.
    early: Vec<u8>,
    room: usize,
    more: bool,
}

/// What is sent.
pub(crate) struct Writer {
    half: OwnedWriteHalf<TcpStream>,
    session: Rc<RefCell<Session>>,
}

impl Stream {
    /// Does a server's handshake.
    pub(crate) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Self::handshake(tcp, Session::server(connection)).await
    }

    /// Does a client's handshake. Its last flight goes out with the first data.
    pub(crate) async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: &'static str,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::handshake(tcp, Session::client(connection)).await
    }

    async fn handshake(tcp: TcpStream, mut session: Session) -> io::Result<Self> {
        session.open(&mut Vec::new(), &mut |_| Ok(()))?;
        let (read, write) = tcp.into_split();
        let session = Rc::new(RefCell::new(session));
        let mut writer = Writer { half: write, session: Rc::clone(&session) };
        let mut reader = Reader {
            half: read,
            session,
            records: Vec::new(),
            early: Vec::new(),
            room: READ_BYTES_MIN,
            more: true,
        };
        while writer.session.borrow().is_handshaking() {
            writer.flush().await?;
            let mut early = Vec::new();
            let more = reader.read(&mut |plain| append(&mut early, plain)).await?;
            reader.early = early;
            if !more {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self { reader, writer })
    }
}

fn append(to: &mut Vec<u8>, plain: &[u8]) -> io::Result<()> {
    to.extend_from_slice(plain);
    Ok(())
}

impl Reader {
    /// Reads once and shows the plaintext to `sink`, possibly none; `false` at the end.
    pub(crate) async fn read(
        &mut self,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        if !self.early.is_empty() {
            sink(&std::mem::take(&mut self.early))?;
            return Ok(true);
        }
        if !self.more {
            return Ok(false);
        }
        let mut records = std::mem::take(&mut self.records);
        let kept = records.len();
        if kept == 0 && records.capacity() > 2 * self.room {
            records = Vec::new();
        }
        records.reserve(self.room);
        let (result, buffer) = self.half.read(records.slice_mut(kept..)).await;
        self.records = SliceMut::into_inner(buffer);
        let length = result?;
        if length >= self.room {
            self.room = (self.room * 4).min(READ_BYTES_MAX);
        } else if length < self.room / 4 {
            self.room = (self.room / 2).max(READ_BYTES_MIN);
        }
        self.more = self.session.borrow_mut().open(&mut self.records, sink)? && length > 0;
        Ok(self.more)
    }
}

impl Writer {
    /// Encrypts `data` and writes it.
    pub(crate) async fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.session.borrow_mut().seal(data)?;
        self.flush().await
    }

    /// The session, to put more behind what waits to be written.
    pub(crate) fn session(&self) -> Rc<RefCell<Session>> {
        Rc::clone(&self.session)
    }

    /// Writes what waits.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let (bytes, length) = self.session.borrow_mut().take();
        if length == 0 {
            self.session.borrow_mut().give_back(bytes);
            return Ok(());
        }
        let (result, buffer) = self.half.write_all(bytes.slice(..length)).await;
        self.session.borrow_mut().give_back(Slice::into_inner(buffer));
        result.map(drop)
    }

    /// Says that nothing more is coming, in TLS and TCP.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.session.borrow_mut().seal_end()?;
        self.flush().await?;
        self.half.shutdown().await
    }
}
