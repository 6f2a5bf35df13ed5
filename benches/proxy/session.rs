//! One TLS connection over rustls' unbuffered API, as little as a relay needs.

use std::io;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, InsufficientSizeError, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};

/// Plaintext bytes in a record at most (RFC 8446, section 5.1), and what a record adds to them.
const RECORD_BYTES_MAX: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 64;

/// One side of a TLS connection.
pub(crate) struct Session {
    connection: Connection,
    out: Out,
}

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Records to be written: the first `length` bytes. The rest stays initialised, so that a buffer
/// used again is not zeroed again.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    length: usize,
}

impl Session {
    pub(crate) fn client(connection: UnbufferedClientConnection) -> Self {
        Self { connection: Connection::Client(connection), out: Out::default() }
    }

    pub(crate) fn server(connection: UnbufferedServerConnection) -> Self {
        Self { connection: Connection::Server(connection), out: Out::default() }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match &self.connection {
            Connection::Client(c) => c.is_handshaking(),
            Connection::Server(c) => c.is_handshaking(),
        }
    }

    /// Takes whole records off the front of `records` and shows their plaintext to `sink`.
    /// `false` when the peer said that nothing more is coming.
    pub(crate) fn open(
        &mut self,
        records: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let (taken, more) = match &mut self.connection {
            Connection::Client(c) => open(&mut **c, records, &mut self.out, sink),
            Connection::Server(c) => open(&mut **c, records, &mut self.out, sink),
        }?;
        records.drain(..taken);
        Ok(more)
    }

    /// Encrypts `data` behind what waits to be written.
    pub(crate) fn seal(&mut self, data: &[u8]) -> io::Result<()> {
        let records = data.len() / RECORD_BYTES_MAX + 1;
        let room = data.len() + records * RECORD_OVERHEAD;
        match &mut self.connection {
            Connection::Client(c) => seal(&mut **c, &mut self.out, room, data),
            Connection::Server(c) => seal(&mut **c, &mut self.out, room, data),
        }
    }

    /// Says behind what waits to be written that nothing more is coming.
    pub(crate) fn seal_end(&mut self) -> io::Result<()> {
        match &mut self.connection {
            Connection::Client(c) => seal_end(&mut **c, &mut self.out),
            Connection::Server(c) => seal_end(&mut **c, &mut self.out),
        }
    }

    /// The buffer whose first bytes wait to be written, and how many they are.
    pub(crate) fn take(&mut self) -> (Vec<u8>, usize) {
        let Out { bytes, length } = std::mem::take(&mut self.out);
        (bytes, length)
    }

    /// Takes a written buffer back for further use.
    pub(crate) fn give_back(&mut self, bytes: Vec<u8>) {
        if self.out.length == 0 {
            self.out.bytes = bytes;
        }
    }
}

impl Out {
    /// The spare bytes, `bytes` of them at least.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.bytes.len() < self.length + bytes {
            self.bytes.resize(self.length + bytes, 0);
        }
        &mut self.bytes[self.length..]
    }
}

/// The two sides of rustls' unbuffered API under one name.
trait Unbuffered {
    type Data;
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

impl Unbuffered for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }
}

/// Reads until more is needed: how much was taken, and whether more may come.
fn open<C: Unbuffered>(
    connection: &mut C,
    records: &mut [u8],
    out: &mut Out,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(usize, bool)> {
    let (mut taken, mut more) = (0, true);
    loop {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut records[taken..]);
        let mut done = false;
        match state.map_err(io::Error::other)? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(io::Error::other)?;
                    discard += record.discard;
                    sink(record.payload)?;
                }
            }
            ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out)?,
            // What waits goes out in order, which is all that this asks for.
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => more = false,
            ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake => done = true,
            ConnectionState::Closed => (more, done) = (false, true),
            state => return Err(io::Error::other(format!("unexpected {state:?}"))),
        }
        taken += discard;
        if done {
            return Ok((taken, more));
        }
    }
}

fn encode<D>(data: &mut rustls::unbuffered::EncodeTlsData<'_, D>, out: &mut Out) -> io::Result<()> {
    let mut required = 0;
    loop {
        match data.encode(out.room(required)) {
            Ok(written) => {
                out.length += written;
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                required = required_size;
            }
            Err(e) => return Err(io::Error::other(e)),
        }
    }
}

fn seal<C: Unbuffered>(
    connection: &mut C,
    out: &mut Out,
    room: usize,
    data: &[u8],
) -> io::Result<()> {
    when_writable(connection, out, |mut traffic, out| {
        let written = traffic.encrypt(data, out.room(room)).map_err(io::Error::other)?;
        out.length += written;
        Ok(())
    })
}

fn seal_end<C: Unbuffered>(connection: &mut C, out: &mut Out) -> io::Result<()> {
    when_writable(connection, out, |mut traffic, out| {
        let room = out.room(RECORD_OVERHEAD);
        let written = traffic.queue_close_notify(room).map_err(io::Error::other)?;
        out.length += written;
        Ok(())
    })
}

fn when_writable<C: Unbuffered>(
    connection: &mut C,
    out: &mut Out,
    write: impl FnOnce(WriteTraffic<'_, C::Data>, &mut Out) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        match connection.process(&mut []).state.map_err(io::Error::other)? {
            ConnectionState::WriteTraffic(traffic) => return write(traffic, out),
            ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            state => return Err(io::Error::other(format!("TLS does not write in {state:?}"))),
        }
    }
}
