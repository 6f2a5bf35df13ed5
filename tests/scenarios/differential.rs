//! 500 exchanges made up from a seed ([`cases`](crate::support::cases)), sent twice.
//!
//! 1. An origin and a client of plain sockets, which know no HTTP but where a head ends, write and
//!    compare bytes: each in pieces of random sizes, over clear text and TLS.
//! 2. First the client speaks to the origin itself: every byte written arrives.
//! 3. Then through the gate, in absolute form, in a tunnel in clear text and in one with TLS. The
//!    same bytes arrive at the origin and at the client, but for the few that a gate has to change.
//! 4. The journal has each exchange as complete, with the same bodies.
//!
//! `AGENT_GATE_TEST_SEED` sets another seed; a failure names it, and the case.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::support::bench::{Bench, Settings, Started};
use crate::support::cases::{Case, HOST, Random};
use crate::support::content::Content;
use crate::support::{PATIENCE, processes, wait_for};

const CASES: usize = 500;

/// Clients at a time.
const CLIENTS: usize = 4;

#[test]
fn the_same_arrives_with_and_without_a_gate() {
    let seed = std::env::var("AGENT_GATE_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let cases: Arc<[Case]> = (0..CASES).map(|number| Case::new(seed, number)).collect();
    // Bodies are compared by their hash.
    let bench = Bench::with(Settings { body_bytes_max: 4096, ..Settings::default() });
    let (ca_pem, tls) = (bench.origin.ca_pem(), bench.origin.server_config());

    let origin = RawOrigin::start(&cases, seed, tls.clone(), Case::request);
    let road = Road::Direct(origin.address, trusting(&ca_pem));
    let client = Client { cases: &cases, seed, road, arrives: |case| &case.response.written };
    origin.check(client.play_all());

    let origin = RawOrigin::start(&cases, seed, tls, Case::request_arrives);
    let mut command = bench.agent_gate(&["proxy", "--upstream-ca", ca_pem.to_str().unwrap()]);
    for port in [443, 80] {
        command.args(["--resolve", &format!("*:{port}:{}", origin.address)]);
    }
    let gate = Started::new(command);
    wait_for("the proxy's own run", || bench.journal().of_type("run").pop());
    let proxy = SocketAddr::from(([127, 0, 0, 1], bench.proxy_port));
    let road = Road::Gate(proxy, trusting(&bench.data_dir().join("ca/cert.pem")));
    let client = Client { cases: &cases, seed, road, arrives: |case| &case.response.arrives };
    origin.check(client.play_all());

    check_journal(&bench, &cases, seed);
    processes::signal(gate.pid(), Signal::SIGTERM);
    gate.finish().ok();
}

fn check_journal(bench: &Bench, cases: &[Case], seed: u64) {
    let exchanges = bench.journal().ended(CASES);
    assert_eq!(exchanges.len(), CASES, "seed {seed}: exchanges in the journal");
    for exchange in exchanges {
        let fields = exchange.request["head"]["fields"].as_array().expect("fields");
        let number = fields.iter().find(|field| field[0] == "X-Case").expect("a number");
        let case = &cases[number[1].as_str().unwrap().parse::<usize>().unwrap()];
        let about = format!("seed {seed}, case {}", case.number);
        assert_eq!(exchange.outcome(), "complete", "{about}: {}", exchange.answer());
        assert_eq!(exchange.request["complete"], true, "{about}");
        for (record, content) in [
            (&exchange.request["body"], &case.request_content),
            (&exchange.answer()["body"], &case.response_content),
        ] {
            assert_eq!(record["bytes"], content.len(), "{about}");
            assert_eq!(record["blake3"], Content::of(content).blake3()[..], "{about}");
        }
    }
}

/// A connection in clear text or TLS.
trait Link: Read + Write {
    /// Says that nothing more is coming, in TLS and TCP.
    fn finish(&mut self) -> io::Result<()>;
}

impl Link for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Link for StreamOwned<ServerConnection, TcpStream> {
    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(Shutdown::Write)
    }
}

impl Link for StreamOwned<ClientConnection, TcpStream> {
    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(Shutdown::Write)
    }
}

fn prepared(socket: TcpStream) -> TcpStream {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn trusting(ca_pem: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Writes as a network delivers: now in crumbs, now in lumps.
fn write_in_pieces(link: &mut dyn Link, bytes: &[u8], random: &mut Random) -> io::Result<()> {
    let mut crumbs = if random.once_in(4) { 60 } else { 0 };
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if crumbs > 0 { 8 } else { 50_000 };
        crumbs -= usize::from(crumbs > 0);
        let (piece, behind) = rest.split_at(random.within(1..most).min(rest.len()));
        link.write_all(piece)?;
        link.flush()?;
        rest = behind;
    }
    Ok(())
}

/// Reads until `bytes` have arrived, or the connection ends; says where they differ from these.
fn read_same(link: &mut dyn Link, bytes: &[u8], arrived: &mut Vec<u8>) -> Result<(), String> {
    let mut error = None;
    let mut piece = vec![0; 64 << 10];
    while arrived.len() < bytes.len() && error.is_none() {
        let room = piece.len().min(bytes.len() - arrived.len());
        match link.read(&mut piece[..room]) {
            Ok(0) => error = Some("the connection ended".to_owned()),
            Ok(n) => arrived.extend_from_slice(&piece[..n]),
            Err(e) => error = Some(e.to_string()),
        }
    }
    if arrived == bytes {
        return Ok(());
    }
    let same = arrived.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (same.saturating_sub(80).min(bytes.len()), (same + 80).min(bytes.len()));
        bytes[from..to].escape_ascii().to_string()
    };
    Err(format!(
        "{} of {} bytes, same up to {same}, {error:?}\n   found: {}\n  wanted: {}",
        arrived.len(),
        bytes.len(),
        around(arrived),
        around(bytes)
    ))
}

/// An origin that compares what it gets and writes what the case says.
struct RawOrigin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    cases: Arc<[Case]>,
    seed: u64,
    tls: Arc<ServerConfig>,
    /// The request as it is to arrive.
    request: fn(&Case) -> Vec<u8>,
    /// How often each case was served.
    served: Vec<AtomicUsize>,
    faults: Mutex<Vec<String>>,
}

impl RawOrigin {
    fn start(
        cases: &Arc<[Case]>,
        seed: u64,
        tls: Arc<ServerConfig>,
        request: fn(&Case) -> Vec<u8>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = cases.iter().map(|_| AtomicUsize::new(0)).collect();
        let cases = Arc::clone(cases);
        let shared =
            Arc::new(Shared { cases, seed, tls, request, served, faults: Mutex::default() });
        let for_threads = Arc::clone(&shared);
        // It ends with the test's process; its connections end with their peers.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let shared = Arc::clone(&for_threads);
                std::thread::spawn(move || shared.serve(prepared(socket.unwrap())));
            }
        });
        Self { address, shared }
    }

    /// Every case came once, and as it should; and the client has no fault to tell.
    fn check(&self, client_faults: Vec<String>) {
        let seed = self.shared.seed;
        let mut faults = self.shared.faults.lock().unwrap().clone();
        faults.extend(client_faults);
        assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
        for (number, served) in self.shared.served.iter().enumerate() {
            assert_eq!(
                served.load(Ordering::SeqCst),
                1,
                "seed {seed}, case {number}: times served"
            );
        }
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream) {
        let mut first = [0];
        // TLS begins with a handshake record.
        let is_tls = matches!(socket.peek(&mut first), Ok(1)) && first[0] == 22;
        let mut link: Box<dyn Link> = if is_tls {
            let connection = ServerConnection::new(Arc::clone(&self.tls)).unwrap();
            Box::new(StreamOwned::new(connection, socket))
        } else {
            Box::new(socket)
        };
        while let Some(head) = read_head(&mut *link) {
            match self.exchange(&mut *link, head) {
                Ok(true) => {}
                Ok(false) => {
                    // Whether the peer hears it is for the peer to say.
                    drop(link.finish());
                    drop(link.read_to_end(&mut Vec::new()));
                    return;
                }
                Err(fault) => return self.faults.lock().unwrap().push(fault),
            }
        }
    }

    /// Whether the connection carries another.
    fn exchange(&self, link: &mut dyn Link, mut arrived: Vec<u8>) -> Result<bool, String> {
        let text = String::from_utf8_lossy(&arrived);
        let number = text.split("\r\nX-Case: ").nth(1).and_then(|rest| rest.lines().next());
        let number: usize =
            number.and_then(|n| n.parse().ok()).ok_or(format!("no case: {text}"))?;
        let case = &self.cases[number];
        read_same(link, &(self.request)(case), &mut arrived)
            .map_err(|fault| format!("case {number}, request: {fault}"))?;
        self.served[number].fetch_add(1, Ordering::SeqCst);
        let mut random = Random::new(self.seed ^ number as u64);
        write_in_pieces(link, &case.response.written, &mut random)
            .map_err(|fault| format!("case {number}, writing the response: {fault}"))?;
        Ok(!case.closes)
    }
}

/// The bytes up to an empty line, read one by one, so that no byte behind it is missing later.
fn read_head(link: &mut dyn Link) -> Option<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match link.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(head)
}

/// How the client gets to the origin, and whom it trusts.
enum Road {
    Direct(SocketAddr, Arc<ClientConfig>),
    Gate(SocketAddr, Arc<ClientConfig>),
}

/// A client that writes what the case says and compares what it gets.
struct Client<'a> {
    cases: &'a [Case],
    seed: u64,
    road: Road,
    /// The response as it is to arrive.
    arrives: fn(&Case) -> &[u8],
}

impl Client<'_> {
    /// Plays all cases, several on a connection, on some connections at a time; returns the faults.
    fn play_all(&self) -> Vec<String> {
        let (groups, next) = (self.groups(), AtomicUsize::new(0));
        let faults = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while let Some(group) = groups.get(next.fetch_add(1, Ordering::SeqCst)) {
                        self.play(group).unwrap_or_else(|f| faults.lock().unwrap().push(f));
                    }
                });
            }
        });
        faults.into_inner().unwrap()
    }

    /// A connection's worth of cases each: none follows one that ends the connection.
    fn groups(&self) -> Vec<&[Case]> {
        let (mut random, mut groups, mut rest) = (Random::new(self.seed), Vec::new(), self.cases);
        while !rest.is_empty() {
            let until_close =
                rest.iter().position(|case| case.closes).map_or(rest.len(), |at| at + 1);
            let (group, behind) = rest.split_at(random.within(1..12).min(until_close));
            groups.push(group);
            rest = behind;
        }
        groups
    }

    fn play(&self, group: &[Case]) -> Result<(), String> {
        let mut random = Random::new(self.seed ^ !(group[0].number as u64));
        let (mut link, to_proxy) = self.connect(random.within(0..3));
        for case in group {
            let number = case.number;
            let request = if to_proxy { case.request_to_proxy() } else { case.request() };
            write_in_pieces(&mut *link, &request, &mut random)
                .map_err(|e| format!("case {number}, writing the request: {e}"))?;
            read_same(&mut *link, (self.arrives)(case), &mut Vec::new())
                .map_err(|fault| format!("case {number}, response: {fault}"))?;
            let mut more = Vec::new();
            let end = if case.closes { link.read_to_end(&mut more) } else { Ok(0) };
            if !matches!(end, Ok(0)) {
                return Err(format!("case {number}, behind the response: {end:?} {more:?}"));
            }
        }
        // Where the origin was first, there is nobody to hear it.
        drop(link.finish());
        Ok(())
    }

    /// A connection to the origin by one of three ways; whether requests go to a proxy.
    fn connect(&self, way: usize) -> (Box<dyn Link>, bool) {
        let (address, trusted) = match &self.road {
            Road::Direct(address, trusted) | Road::Gate(address, trusted) => (address, trusted),
        };
        let mut socket = prepared(TcpStream::connect(address).unwrap());
        match (&self.road, way) {
            (Road::Gate(..), 0) => return (Box::new(socket), true),
            (Road::Gate(..), 1) => tunnel(&mut socket, 80),
            (Road::Gate(..), _) => tunnel(&mut socket, 443),
            (Road::Direct(..), _) => {}
        }
        if way < 2 {
            return (Box::new(socket), false);
        }
        let name = ServerName::try_from(HOST).unwrap();
        let connection = ClientConnection::new(Arc::clone(trusted), name).unwrap();
        (Box::new(StreamOwned::new(connection, socket)), false)
    }
}

fn tunnel(socket: &mut TcpStream, port: u16) {
    write!(socket, "CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n").unwrap();
    let head = read_head(socket).expect("an answer to CONNECT");
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
}
