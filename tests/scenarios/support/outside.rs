//! A gate in the foreground that the test itself speaks to, byte by byte and by thousands of
//! connections, where a jailed command would be in the way.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::bench::{Bench, Started};
use super::{PATIENCE, processes, wait_for};

/// `agent-gate proxy` of a bench.
pub(crate) struct Outside<'a> {
    bench: &'a Bench,
    process: Started,
    tls: Arc<ClientConfig>,
}

impl<'a> Outside<'a> {
    /// Starts it. `options` come before those by which the bench's origin is found.
    pub(crate) fn start(bench: &'a Bench, options: &[String]) -> Self {
        Self::start_under(bench, &[], options)
    }

    /// The same by way of a program that starts what its arguments name.
    pub(crate) fn start_under(bench: &'a Bench, program: &[&str], options: &[String]) -> Self {
        let argv = [program, &[super::bench::AGENT_GATE, "proxy"]].concat();
        let mut command = bench.command(argv[0]);
        command.args(&argv[1..]).args(options).args(bench.upstream());
        let process = Started::new(command);
        wait_for("the proxy's own run", || bench.journal().of_type("run").pop());
        Self { bench, process, tls: client_config(bench) }
    }

    /// The gate's process id.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// A connection to the proxy.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.bench.proxy_port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A tunnel to this host and port.
    pub(crate) fn tunnel(&self, authority: &str) -> TcpStream {
        let mut stream = self.connect();
        write!(stream, "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").unwrap();
        let answer = read_head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{authority}: {answer}");
        stream
    }

    /// TLS with the gate in a tunnel to this host.
    pub(crate) fn secure(&self, host: &str) -> StreamOwned<ClientConnection, TcpStream> {
        self.secured(self.tunnel(&format!("{host}:443")), host)
    }

    /// TLS over a stream, up to the end of the handshake.
    pub(crate) fn secured<S: Read + Write>(
        &self,
        stream: S,
        host: &str,
    ) -> StreamOwned<ClientConnection, S> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    /// An ordinary request on a connection of its own, to the bench's origin in clear text.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> String {
        let mut stream = self.connect();
        write!(
            stream,
            "GET http://ordinary.test{target} HTTP/1.1\r\nHost: ordinary.test\r\n\
             Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The same, which must be answered well.
    #[track_caller]
    pub(crate) fn get_ok(&self, target: &str) {
        let answer = self.get(target);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
        assert!(answer.ends_with("hello from the origin\n"), "{target}: {answer}");
    }

    /// What the gate says of itself by its control socket.
    pub(crate) fn status(&self) -> Value {
        let socket = self.bench.data_dir().join("control.sock");
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let config_dir = self.bench.config_dir();
        ask(&mut stream, &json!({"type": "hello", "version": version, "config_dir": config_dir}));
        ask(&mut stream, &json!({"type": "status"}))
    }

    /// Client connections that are open in the gate.
    pub(crate) fn connections(&self) -> u64 {
        self.status()["connections"].as_u64().expect("a number")
    }

    /// Waits until no client connection is open in the gate.
    pub(crate) fn settle(&self) {
        wait_for("all connections to end", || (self.connections() == 0).then_some(()));
    }

    /// Ends the gate in order; what it said on stderr.
    pub(crate) fn stop(self) -> String {
        processes::signal(self.pid(), nix::sys::signal::Signal::SIGTERM);
        self.process.finish().stderr
    }
}

fn client_config(bench: &Bench) -> Arc<ClientConfig> {
    let pem = bench.data_dir().join("ca/cert.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// One question on the control socket and its answer.
fn ask(stream: &mut UnixStream, question: &Value) -> Value {
    let question = question.to_string();
    let length = u32::try_from(question.len()).unwrap();
    stream.write_all(&length.to_le_bytes()).unwrap();
    stream.write_all(question.as_bytes()).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// A head up to its empty line, and no byte more; what there is of it when the stream ends before.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A message of known length: its head and its body.
pub(crate) fn read_answer(stream: &mut impl Read) -> (String, Vec<u8>) {
    let head = read_head(stream);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or_else(|| panic!("no length: {head}"))];
    stream.read_exact(&mut body).unwrap_or_else(|e| panic!("{e}: {head}"));
    (head, body)
}

/// Everything until the stream ends, and how it ended.
pub(crate) fn read_rest(stream: &mut impl Read) -> (Vec<u8>, End) {
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (all, End::Clean),
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return (all, End::Cut),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return (all, End::Reset);
            }
            Err(error) => panic!("{error} after {} bytes", all.len()),
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As the protocol ends it: a FIN, after close_notify where there is TLS.
    Clean,
    /// TLS without close_notify.
    Cut,
    /// A reset.
    Reset,
}
