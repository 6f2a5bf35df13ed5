//! TLS over rustls' unbuffered API: records in, plaintext out, and back, without I/O.
//!
//! The buffered API holds two buffers of a record each for a connection's life; this one holds
//! none while the connection idles. Both halves of a connection share one [`Session`].

use std::io;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

/// One TLS connection.
pub(super) struct Session {
    connection: Connection,
    /// Records to be written: the first `staged` bytes; what lies behind is spare, kept
    /// initialised so that growing costs nothing twice.
    out: Vec<u8>,
    staged: usize,
    /// Whole records that rustls has read and still wants to see: a handshake message that goes
    /// on in a record yet to come. Hardly any peer does this.
    kept: Vec<u8>,
    handshaking: bool,
    peer_closed: bool,
}

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Spare bytes for a record's header, tag and content type.
const RECORD_OVERHEAD: usize = 64;
/// Plaintext bytes in a record at most (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;

impl Session {
    pub(super) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::new(Connection::Client(connection))
    }

    pub(super) fn server(connection: UnbufferedServerConnection) -> Self {
        Self::new(Connection::Server(connection))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            out: Vec::new(),
            staged: 0,
            kept: Vec::new(),
            handshaking: true,
            peer_closed: false,
        }
    }

    /// Whether the handshake is still under way.
    pub(super) fn is_handshaking(&self) -> bool {
        self.handshaking
    }

    /// Whether the peer said that nothing more is coming.
    pub(super) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The agreed version, as records name it.
    pub(super) fn version(&self) -> &'static str {
        let version = match &self.connection {
            Connection::Client(c) => c.protocol_version(),
            Connection::Server(c) => c.protocol_version(),
        };
        match version {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }

    /// The agreed application protocol.
    pub(super) fn alpn(&self) -> Option<&[u8]> {
        match &self.connection {
            Connection::Client(c) => c.alpn_protocol(),
            Connection::Server(c) => c.alpn_protocol(),
        }
    }

    /// Reads records from the front of `incoming`, which loses them, and appends their plaintext
    /// to `plain`. What must be sent in answer is staged.
    pub(super) fn read(
        &mut self,
        incoming: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        let result = self.drive(incoming, plain);
        self.kept.clear();
        if starts_with_whole_record(incoming) {
            self.kept.extend_from_slice(incoming);
        }
        result
    }

    /// Stages the first flight of a client.
    pub(super) fn begin(&mut self) -> Result<(), rustls::Error> {
        self.drive(&mut Vec::new(), &mut Vec::new())
    }

    /// Encrypts `data` behind what is staged.
    pub(super) fn seal(&mut self, data: &[u8]) -> io::Result<()> {
        let records = data.len() / RECORD_BYTES_MAX + 1;
        self.make_room(data.len() + records * RECORD_OVERHEAD);
        self.when_writable(|write, out| write.encrypt(data, out))
    }

    /// Stages the message that says nothing more is coming.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        if self.handshaking {
            return Ok(());
        }
        self.make_room(RECORD_OVERHEAD);
        self.when_writable(|write, out| write.queue_close_notify(out))
    }

    /// How many bytes wait to be written.
    pub(super) fn staged(&self) -> usize {
        self.staged
    }

    /// Takes what is staged.
    pub(super) fn take_staged(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.out);
        out.truncate(std::mem::take(&mut self.staged));
        out
    }

    /// Takes a written buffer back for further use.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.staged == 0 && self.out.capacity() < buffer.capacity() {
            self.out = buffer;
        }
    }

    /// Lets go of spare memory.
    pub(super) fn release(&mut self) {
        if self.staged == 0 {
            self.out = Vec::new();
        }
    }

    fn drive(&mut self, incoming: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), rustls::Error> {
        let mut progress = Progress {
            out: &mut self.out,
            staged: &mut self.staged,
            plain,
            handshaking: &mut self.handshaking,
            peer_closed: &mut self.peer_closed,
        };
        match &mut self.connection {
            Connection::Client(c) => drive(&mut **c, incoming, &mut progress),
            Connection::Server(c) => drive(&mut **c, incoming, &mut progress),
        }
    }

    fn make_room(&mut self, bytes: usize) {
        let needed = self.staged + bytes;
        if self.out.len() < needed {
            self.out.resize(needed, 0);
        }
    }

    fn when_writable(
        &mut self,
        write: impl FnOnce(&mut dyn Writable, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        // A copy: rustls sees the same bytes again and finds nothing new in them.
        let mut kept = self.kept.clone();
        let mut progress = Progress {
            out: &mut self.out,
            staged: &mut self.staged,
            plain: &mut Vec::new(),
            handshaking: &mut self.handshaking,
            peer_closed: &mut self.peer_closed,
        };
        match &mut self.connection {
            Connection::Client(c) => write_traffic(&mut **c, &mut kept, &mut progress, write),
            Connection::Server(c) => write_traffic(&mut **c, &mut kept, &mut progress, write),
        }
    }
}

/// What driving a connection changes.
struct Progress<'a> {
    out: &'a mut Vec<u8>,
    staged: &'a mut usize,
    plain: &'a mut Vec<u8>,
    handshaking: &'a mut bool,
    peer_closed: &'a mut bool,
}

impl Progress<'_> {
    fn encode<D>(
        &mut self,
        state: &mut rustls::unbuffered::EncodeTlsData<'_, D>,
    ) -> Result<(), rustls::Error> {
        loop {
            match state.encode(&mut self.out[*self.staged..]) {
                Ok(written) => {
                    *self.staged += written;
                    return Ok(());
                }
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    self.out.resize(*self.staged + required_size, 0);
                }
                Err(e) => return Err(rustls::Error::General(e.to_string())),
            }
        }
    }
}

/// The two sides of rustls' unbuffered API under one name.
trait Driven {
    type Data;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Driven for rustls::unbuffered::UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Driven for rustls::unbuffered::UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// Reads until more input is needed.
fn drive<C: Driven>(
    connection: &mut C,
    incoming: &mut Vec<u8>,
    progress: &mut Progress<'_>,
) -> Result<(), rustls::Error> {
    let mut start = 0;
    let result = loop {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut incoming[start..]);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut step = Ok(true);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            progress.plain.extend_from_slice(record.payload);
                        }
                        Err(e) => step = Err(e),
                    }
                }
                step
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                progress.encode(&mut data).map(|()| true)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // Staged bytes go out in order and before anything later, which is all that
                // "transmitted" is to guarantee.
                data.done();
                Ok(true)
            }
            Ok(ConnectionState::PeerClosed) => {
                *progress.peer_closed = true;
                Ok(true)
            }
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                *progress.handshaking = false;
                Ok(false)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(false),
            Ok(state) => Err(rustls::Error::General(format!("unexpected state {state:?}"))),
            Err(e) => Err(e),
        };
        start += discard;
        match step {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    if result.is_err() {
        stage_alert(connection, &mut incoming[start..], progress);
    }
    incoming.drain(..start);
    result
}

/// After an error rustls has an alert for the peer at hand, behind what else it has to send. Asked
/// again after that it would meet the same error again, which its debug form takes for our fault.
fn stage_alert<C: Driven>(connection: &mut C, incoming: &mut [u8], progress: &mut Progress<'_>) {
    while let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.process(incoming).state {
        let before = *progress.staged;
        if progress.encode(&mut data).is_err() || is_alert(&progress.out[before..*progress.staged])
        {
            return;
        }
    }
}

/// Whether a record is an alert: in TLS 1.3 an encrypted one is told by its length alone, two bytes
/// with content type and tag, which is shorter than any handshake message.
fn is_alert(record: &[u8]) -> bool {
    match record {
        [21, ..] => true,
        [23, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]) == 2 + 1 + 16,
        _ => false,
    }
}

/// `WriteTraffic` of either side.
trait Writable {
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<D> Writable for rustls::unbuffered::WriteTraffic<'_, D> {
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        Self::encrypt(self, data, out)
    }
    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        Self::queue_close_notify(self, out)
    }
}

/// Brings the connection to where it takes data, and lets `write` put records behind what is
/// staged.
fn write_traffic<C: Driven>(
    connection: &mut C,
    kept: &mut [u8],
    progress: &mut Progress<'_>,
    write: impl FnOnce(&mut dyn Writable, &mut [u8]) -> Result<usize, EncryptError>,
) -> io::Result<()> {
    loop {
        match connection.process(kept).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let spare = progress.out.len() - *progress.staged;
                let room = &mut progress.out[*progress.staged..];
                let written = write(&mut traffic, room).map_err(|e| match e {
                    EncryptError::InsufficientSize(e) => io::Error::other(format!(
                        "record needs {} bytes where {spare} were reserved",
                        e.required_size
                    )),
                    e => io::Error::other(e.to_string()),
                })?;
                *progress.staged += written;
                return Ok(());
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                // The answer to a key update goes first. It may not take the room that was
                // reserved for the data.
                let reserved = progress.out.len() - *progress.staged;
                progress.encode(&mut data).map_err(io::Error::other)?;
                progress.out.resize(*progress.staged + reserved, 0);
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => *progress.peer_closed = true,
            Ok(state) => return Err(io::Error::other(format!("TLS does not write in {state:?}"))),
            Err(e) => return Err(io::Error::other(e)),
        }
    }
}

fn starts_with_whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, rest @ ..] => {
            rest.len() >= usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}
