//! An origin that does what it is told, byte by byte, however wrong: each connection it accepts
//! plays the next script.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use super::PATIENCE;

/// One step of a script.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Answer the client hello and finish TLS; what follows is sent and read through it.
    Tls,
    /// Answer the client hello with so many bytes of the first flight.
    HalfTls(usize),
    /// Read up to the end of a head.
    ReadHead,
    /// Read so many bytes.
    Read(usize),
    /// Send these.
    Send(Vec<u8>),
    /// Send these as they are, TLS or not.
    SendRaw(Vec<u8>),
    /// Send so many bytes of the TLS record that these make.
    SendHalfRecord(Vec<u8>, usize),
    /// Send these one by one, so far apart.
    Drip(Vec<u8>, Duration),
    /// Send these again and again until the peer ends the connection.
    Flood(Vec<u8>),
    /// Wait for [`Adversary::go_on`].
    Wait,
    /// Wait until the peer ends the connection.
    AwaitEnd,
    /// End the connection in order: close_notify where there is TLS, and a FIN.
    Finish,
    /// A FIN without close_notify.
    Cut,
    /// A reset.
    Reset,
}

/// The running origin.
pub(crate) struct Adversary {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    tls: Arc<ServerConfig>,
    scripts: Mutex<Vec<Vec<Step>>>,
    stopping: AtomicBool,
    accepted: AtomicU64,
    sends: AtomicU64,
    /// Connections that have played their script.
    done: AtomicU64,
    go: (Mutex<usize>, Condvar),
}

impl Adversary {
    pub(crate) fn start(tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            tls,
            scripts: Mutex::default(),
            stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            done: AtomicU64::new(0),
            go: Default::default(),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept_all(&listener, &for_thread));
        Self { port, shared, acceptor: Some(acceptor) }
    }

    /// The script of the next connection that has none.
    pub(crate) fn play(&self, script: &[Step]) {
        self.shared.scripts.lock().unwrap().push(script.to_vec());
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Whether each of them has come to the end of its script, and is closed.
    pub(crate) fn is_done(&self) -> bool {
        self.shared.done.load(Ordering::SeqCst) == self.accepted()
    }

    /// How often [`Step::Send`] has sent all of its bytes.
    pub(crate) fn sends(&self) -> u64 {
        self.shared.sends.load(Ordering::SeqCst)
    }

    /// Lets one [`Step::Wait`] go on.
    pub(crate) fn go_on(&self) {
        *self.shared.go.0.lock().unwrap() += 1;
        self.shared.go.1.notify_all();
    }
}

impl Drop for Adversary {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; that it fails means that there is none to wake.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let socket = socket.unwrap();
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let mut scripts = shared.scripts.lock().unwrap();
        assert!(!scripts.is_empty(), "a connection that no script is for");
        let script = scripts.remove(0);
        drop(scripts);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // That the gate ends a connection in the middle of a script is what scripts are for.
            let _ = Conversation::new(socket, &shared).play(&script);
            shared.done.fetch_add(1, Ordering::SeqCst);
        });
    }
}

/// One connection under way.
struct Conversation<'a> {
    socket: TcpStream,
    tls: Option<ServerConnection>,
    shared: &'a Shared,
}

impl<'a> Conversation<'a> {
    fn new(socket: TcpStream, shared: &'a Shared) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket, tls: None, shared }
    }

    fn play(&mut self, script: &[Step]) -> io::Result<()> {
        script.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Tls => self.handshake(),
            Step::HalfTls(length) => self.half_handshake(*length),
            Step::ReadHead => {
                let mut last = [0; 4];
                while last != *b"\r\n\r\n" {
                    last.rotate_left(1);
                    last[3] = self.read_byte()?;
                }
                Ok(())
            }
            Step::Read(length) => (0..*length).try_for_each(|_| self.read_byte().map(drop)),
            Step::Send(bytes) => {
                self.send(bytes)?;
                self.shared.sends.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Step::SendRaw(bytes) => self.socket.write_all(bytes),
            Step::SendHalfRecord(bytes, length) => {
                let records = self.sealed(bytes)?;
                self.socket.write_all(&records[..*length])
            }
            Step::Drip(bytes, apart) => bytes.iter().try_for_each(|byte| {
                std::thread::sleep(*apart);
                self.send(&[*byte])
            }),
            Step::Flood(bytes) => loop {
                self.send(bytes)?;
            },
            Step::Wait => {
                let (count, changed) = &self.shared.go;
                let count = count.lock().unwrap();
                let (mut count, _) =
                    changed.wait_timeout_while(count, PATIENCE, |count| *count == 0).unwrap();
                *count = count.saturating_sub(1);
                Ok(())
            }
            Step::AwaitEnd => {
                let mut rest = [0; 4096];
                while self.socket.read(&mut rest)? > 0 {}
                Ok(())
            }
            Step::Finish => {
                if let Some(tls) = &mut self.tls {
                    tls.send_close_notify();
                    tls.write_tls(&mut self.socket)?;
                }
                self.cut()
            }
            Step::Cut => self.cut(),
            Step::Reset => {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(&self.socket).set_linger(linger)
            }
        }
    }

    /// A FIN, and then what still comes is read: closing with unread bytes would be a reset.
    fn cut(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        self.step(&Step::AwaitEnd)
    }

    fn handshake(&mut self) -> io::Result<()> {
        let mut tls = ServerConnection::new(Arc::clone(&self.shared.tls)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut self.socket)?;
        }
        // Tickets go out now, so that they are not part of what is sent later.
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        self.tls = Some(tls);
        Ok(())
    }

    fn half_handshake(&mut self, length: usize) -> io::Result<()> {
        let mut tls = ServerConnection::new(Arc::clone(&self.shared.tls)).unwrap();
        while !tls.wants_write() {
            tls.read_tls(&mut self.socket)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight)?;
        }
        self.socket.write_all(&flight[..length.min(flight.len())])
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let bytes = self.sealed(bytes)?;
        self.socket.write_all(&bytes)
    }

    /// The bytes as they go out.
    fn sealed(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let Some(tls) = &mut self.tls else { return Ok(bytes.to_vec()) };
        let mut records = Vec::new();
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        Ok(records)
    }

    fn read_byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        let Some(tls) = &mut self.tls else {
            self.socket.read_exact(&mut byte)?;
            return Ok(byte[0]);
        };
        loop {
            match tls.reader().read(&mut byte) {
                Ok(1) => return Ok(byte[0]),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if tls.read_tls(&mut self.socket)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    tls.process_new_packets().map_err(io::Error::other)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
