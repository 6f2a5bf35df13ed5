//! The demo's origin: an HTTPS server on the loopback with a CA of its own, which answers by the
//! script and remembers every byte of it.

use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use super::{PATIENCE, http, script};
use crate::gate::ports;

/// Between two events, so that the stream is one.
const EVENT_PAUSE: Duration = Duration::from_millis(15);

/// An exchange as the origin saw it.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The body that arrived.
    pub(super) request: Vec<u8>,
    /// The body that was sent, without its chunks' framing.
    pub(super) response: Vec<u8>,
}

/// The running origin. It ends with the process.
pub(super) struct Origin {
    port: u16,
    authority_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// Starts it, with a certificate for this host.
    pub(super) fn start(host: &str) -> anyhow::Result<Self> {
        let (config, authority_pem) = tls_config(host)?;
        let listener = ports::listen_anywhere().context("no loopback port")?;
        let port = listener.local_addr().context("no loopback port")?.port();
        let seen = Arc::default();
        let origin = Self { port, authority_pem, seen: Arc::clone(&seen) };
        let accept = move || accept(&listener, &Arc::new(config), &seen);
        thread::Builder::new().name("origin".into()).spawn(accept).context("thread")?;
        Ok(origin)
    }

    /// Where it listens on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whom to trust.
    pub(super) fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The exchanges that were answered to their end, in order.
    pub(super) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }
}

fn tls_config(host: &str) -> anyhow::Result<(ServerConfig, String)> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(rcgen::DnType::CommonName, "agent-gate demo origin CA");
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new([host.to_owned()])?;
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    Ok((config, issuer.pem()))
}

fn accept(listener: &TcpListener, config: &Arc<ServerConfig>, seen: &Arc<Mutex<Vec<Seen>>>) {
    for stream in listener.incoming().flatten() {
        let (config, seen) = (Arc::clone(config), Arc::clone(seen));
        // The script has one connection at a time: a thread that cannot be had is a failed demo.
        let _ = thread::Builder::new().spawn(move || {
            if let Err(error) = serve(stream, config, &seen)
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                crate::terminal::note(&format!("the demo's origin: {error}"));
            }
        });
    }
}

/// Answers the requests of one connection until the client closes it.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, seen: &Mutex<Vec<Seen>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let tls = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, stream));
    loop {
        let head = http::head(&mut stream)?;
        let request = http::sized_body(&head, &mut stream)?;
        let response = answer(stream.get_mut(), &head, &request)?;
        lock(seen).push(Seen { request, response });
    }
}

/// Sends the scripted answer, an event a chunk; the body that was sent.
fn answer(stream: &mut impl Write, head: &[String], request: &[u8]) -> io::Result<Vec<u8>> {
    if !head[0].starts_with(&format!("POST {} ", script::PATH)) {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(Vec::new());
    }
    let request = serde_json::from_slice(request)?;
    let start = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(start.as_bytes())?;
    let mut sent = Vec::new();
    for event in script::answer(&request) {
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        stream.flush()?;
        sent.extend_from_slice(event.as_bytes());
        thread::sleep(EVENT_PAUSE);
    }
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()?;
    Ok(sent)
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    // Pushed to in one step, so it is whole whoever panicked.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
