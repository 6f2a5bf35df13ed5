//! Our own origin: an HTTP/1.1 server over TLS and in clear text on free loopback ports, written by
//! hand and strict, that keeps what it received and what it sent.
//!
//! It answers for any host: the leaf is made for whatever name the client hello asks for, by a
//! throwaway CA. One thread a connection, blocking, nothing shared but the log and the signals.

mod answer;
mod authority;
mod coded;
mod files;
mod git;
mod log;
mod routes;
mod signals;
mod tls;
mod websocket;
mod wire;

use std::collections::HashMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustls::ServerConfig;

pub(crate) use log::{Fields, Seen, Sent, value};
pub(crate) use tls::Handshake;

use authority::Authority;
use log::Log;
use signals::Signals;
use tls::Tls;
use websocket::Blobs;
use wire::{Fault, Stream, Wire};

/// The name that other servers on this machine are given.
pub(crate) const SERVER_NAME: &str = "server.test";

/// The running origin; dropped, it closes every connection and joins its threads.
pub(crate) struct Origin {
    pub(crate) https_port: u16,
    pub(crate) http_port: u16,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

/// What all connections of one origin share.
struct Shared {
    folder: PathBuf,
    log: Log,
    signals: Signals,
    blobs: Blobs,
    authority: Arc<Authority>,
    tls: Tls,
    handshakes: Mutex<Vec<Handshake>>,
    stopping: AtomicBool,
    connections: AtomicU64,
    bytes_sent: AtomicU64,
    /// A handle of each open connection, to end it from outside, and every thread to join.
    open: Mutex<HashMap<u64, TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Origin {
    /// Starts it; `folder` takes the CA's certificate, the git repositories
    /// and the files to serve.
    pub(crate) fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let authority = Arc::new(Authority::new());
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        let (leaf, key) = authority.leaf_pem(SERVER_NAME);
        std::fs::write(folder.join("server.pem"), leaf).unwrap();
        std::fs::write(folder.join("server-key.pem"), key).unwrap();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            log: Log::default(),
            signals: Signals::default(),
            blobs: Blobs::default(),
            tls: Tls::new(&authority),
            authority,
            handshakes: Mutex::default(),
            stopping: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            open: Mutex::default(),
            threads: Mutex::default(),
        });
        let https = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            https_port: https.local_addr().unwrap().port(),
            http_port: http.local_addr().unwrap().port(),
            acceptors: vec![accept(https, true, &shared), accept(http, false, &shared)],
            shared,
        }
    }

    /// The certificate of its CA, as a PEM file.
    pub(crate) fn ca_pem(&self) -> PathBuf {
        self.shared.folder.join("ca.pem")
    }

    /// The certificate and the key of another server, for [`SERVER_NAME`], as PEM files.
    pub(crate) fn server_pem(&self) -> [PathBuf; 2] {
        ["server.pem", "server-key.pem"].map(|name| self.shared.folder.join(name))
    }

    /// A new certificate for a client, signed by the same CA: certificate and key as PEM files, and
    /// the certificate as DER.
    pub(crate) fn client_certificate(&self, name: &str) -> (PathBuf, PathBuf, Vec<u8>) {
        let (certificate, key) = self.shared.authority.client(name);
        let file = |end: &str| self.shared.folder.join(format!("{name}.{end}"));
        std::fs::write(file("pem"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("pem"), file("key"), certificate.der().to_vec())
    }

    /// A TLS configuration for another server, for any name.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.shared.tls.usual()
    }

    /// TLS handshakes that were finished so far, in order.
    pub(crate) fn handshakes(&self) -> Vec<Handshake> {
        self.shared.handshakes.lock().unwrap().clone()
    }

    /// Where a bare git repository of this name is to be for `/NAME` to serve it.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        self.shared.folder.join("git").join(name)
    }

    /// The folder whose files it serves, each by its path.
    pub(crate) fn files(&self) -> PathBuf {
        self.shared.folder.join("files")
    }

    /// Every request received completely so far, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.log.seen()
    }

    /// The same once no answer is under way any more, so that what was sent is final too.
    pub(crate) fn settled(&self) -> Vec<Seen> {
        super::wait_for("the origin to finish its answers", || self.shared.log.settled())
    }

    /// The one request received for this target.
    pub(crate) fn only(&self, target: &str) -> Seen {
        let mut all: Vec<_> = self.settled().into_iter().filter(|s| s.target == target).collect();
        assert_eq!(all.len(), 1, "requests for {target}: {all:#?}");
        all.remove(0)
    }

    /// Where a client, hence the gate, broke HTTP's rules for a client.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.log.violations()
    }

    /// Forgets the violations, where a scenario makes them itself.
    pub(crate) fn forgive(&self) {
        self.shared.log.forgive();
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that its sockets have taken so far, also of answers under way.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::SeqCst)
    }

    /// Lays out what a WebSocket of this name is to send (`/ws?name=`).
    pub(crate) fn lay_out(&self, name: &str, bytes: &[u8]) {
        self.shared.blobs.lay_out(name, bytes);
    }

    /// What the WebSocket of this name has received so far.
    pub(crate) fn received(&self, name: &str) -> Vec<u8> {
        self.shared.blobs.received(name)
    }

    /// The same, once the WebSocket is over.
    pub(crate) fn received_in_all(&self, name: &str) -> Vec<u8> {
        super::wait_for("the end of a WebSocket at the origin", || {
            self.shared.blobs.is_over(name).then(|| self.received(name))
        })
    }

    /// Lets `times` waits on the signal `name` go on (`/hold?name=`, `/sse?steps=`).
    pub(crate) fn release(&self, name: &str, times: usize) {
        self.shared.signals.release(name, times);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.signals.stop();
        for port in [self.https_port, self.http_port] {
            // Wakes the acceptor; that it fails means that there is none to wake.
            drop(TcpStream::connect(("127.0.0.1", port)));
        }
        for acceptor in self.acceptors.drain(..) {
            drop(acceptor.join());
        }
        for socket in self.shared.open.lock().unwrap().values() {
            drop(socket.shutdown(Shutdown::Both));
        }
        for thread in std::mem::take(&mut *self.shared.threads.lock().unwrap()) {
            drop(thread.join());
        }
    }
}

fn accept(listener: TcpListener, tls: bool, shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            let Ok(socket) = socket else { continue };
            let id = shared.connections.fetch_add(1, Ordering::SeqCst);
            shared.open.lock().unwrap().insert(id, socket.try_clone().unwrap());
            let for_thread = Arc::clone(&shared);
            let thread = std::thread::spawn(move || {
                let _closed_at_last = Closing { shared: &for_thread, id };
                serve(socket, tls, id, &for_thread);
            });
            shared.threads.lock().unwrap().push(thread);
        }
    })
}

/// Ends a connection also when its thread panics, so that its peer does not wait.
struct Closing<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.shared.open.lock().unwrap().remove(&self.id) {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

/// One connection, until either side ends it.
fn serve(socket: TcpStream, tls: bool, id: u64, shared: &Shared) {
    socket.set_nodelay(true).unwrap();
    let Some((stream, sni)) = open_stream(socket, tls, shared) else { return };
    let mut wire = Wire::new(stream);
    loop {
        match routes::one_exchange(&mut wire, id, sni.as_deref(), shared) {
            Ok(true) => {}
            Ok(false) | Err(Fault::Ended | Fault::Cut) => return wire.close(),
            Err(Fault::Reset) => {
                shared.open.lock().unwrap().remove(&id);
                return wire.reset();
            }
            Err(Fault::Broken(what)) => {
                shared.log.violation(what);
                return wire.close();
            }
        }
    }
}

fn open_stream(
    socket: TcpStream,
    tls: bool,
    shared: &Shared,
) -> Option<(Box<dyn Stream>, Option<String>)> {
    if !tls {
        return Some((Box::new(socket), None));
    }
    let (stream, handshake) = shared.tls.accept(socket)?;
    let sni = handshake.sni.clone();
    shared.handshakes.lock().unwrap().push(handshake);
    Some((Box::new(stream), sni))
}
